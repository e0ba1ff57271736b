//! What a client is configured with, what it is told, and how it fails.

use super::super::frame::{DeviceList, ErrorCode, FrameError, GoodbyeReason, PresenceState};
use super::super::noise::{KeyPair, NoiseError};
use super::super::record::RecordError;
use super::super::ticket::Ticket;
use crate::ids::{AccountId, DeviceId, MessageId, PartitionId};
use alloc::string::String;

/// What a client needs to know before it connects.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The account's name; at most 64 bytes, and [`crate::phone::valid_name`] if it is to be let in.
    pub name: String,
    /// The device's key pair: the device is known by it.
    pub keys: KeyPair,
    /// The server's static key if it is known (pattern `IK`), else `None` (pattern `XX`).
    pub server_key: Option<[u8; 32]>,
    /// The ticket of an earlier session, which is then used up (pattern `NNpsk0`).
    pub ticket: Option<Ticket>,
    /// Make the account if the name is free.
    pub register: bool,
    /// The partition of the account, if it is known.
    pub partition_hint: Option<PartitionId>,
    /// 32 fresh random bytes for this connection only.
    pub seed: [u8; 32],
}

/// What a client is told. The texts and bodies are borrowed from the record that is being read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// Logged in. `Start` is queued: mail flows after the next flush.
    Welcome {
        /// The account.
        account: AccountId,
        /// This device's number in it.
        device: DeviceId,
        /// The server's clock, milliseconds of Unix time.
        time_ms: u64,
        /// How many unacknowledged deliveries the server sends ahead.
        window: u16,
        /// The server's static key: confirmed (`IK`) or learnt (`XX`: the caller decides whether to trust it). None
        /// with a ticket, whose psk only the server of the earlier session knows.
        server_key: Option<[u8; 32]>,
        /// Ping after so many silent seconds.
        keep_alive_s: u16,
    },
    /// A message; see [`crate::phone::frame::ServerFrame::Deliver`].
    Deliver {
        /// For [`super::Client::ack`].
        number: u32,
        /// The sender.
        from: AccountId,
        /// Duplicates are found by (`from`, `id`).
        id: MessageId,
        /// When the server took it, seconds of Unix time.
        time_s: u32,
        /// The sender's name.
        from_name: &'a str,
        /// As the sender gave it.
        body: &'a [u8],
    },
    /// Tick: the message is safe.
    Sent {
        /// Which one.
        id: MessageId,
    },
    /// Tick: a device of the recipient has the message. To be acknowledged.
    Delivered {
        /// For [`super::Client::ack`].
        number: u32,
        /// The recipient.
        by: AccountId,
        /// Which message.
        id: MessageId,
        /// When, seconds of Unix time.
        time_s: u32,
    },
    /// The mailbox was empty for the first time.
    Drained,
    /// The answer to a `Ping`.
    Pong {
        /// The ping's token.
        token: u32,
    },
    /// Not taken: start again from this message, in order, for its recipient.
    Busy {
        /// Which message.
        id: MessageId,
        /// Wait so long first, with jitter, milliseconds.
        retry_ms: u32,
    },
    /// Too old a retry: the message's fate is unknown.
    Expired {
        /// Which message.
        id: MessageId,
    },
    /// A ticket for the next connection; any earlier one may be forgotten.
    Ticket {
        /// Works once.
        ticket: Ticket,
        /// For so many seconds.
        valid_s: u32,
    },
    /// The server's key has changed: know it by this one from now on. Told inside a session with the server that was
    /// known before, so it can be trusted as much.
    ServerKey {
        /// The present one.
        key: [u8; 32],
    },
    /// Tick: a device of the recipient has read the message. To be acknowledged.
    Read {
        /// For [`super::Client::ack`].
        number: u32,
        /// Who read it.
        by: AccountId,
        /// Which message.
        id: MessageId,
        /// When, seconds of Unix time.
        time_s: u32,
    },
    /// A `Read` frame of ours is safe at the home of the message's sender.
    ReadTaken {
        /// Whose message.
        author: AccountId,
        /// Which one.
        id: MessageId,
    },
    /// A message that another device of this account sent. To be acknowledged.
    Copy {
        /// For [`super::Client::ack`].
        number: u32,
        /// To whom it was sent.
        to: AccountId,
        /// Its id.
        id: MessageId,
        /// When the server took it, seconds of Unix time.
        time_s: u32,
        /// As it was sent.
        body: &'a [u8],
    },
    /// Whether an account that is watched can be reached. Ephemeral.
    Presence {
        /// Whose.
        account: AccountId,
        /// In which state its most present device is.
        state: PresenceState,
        /// When a device of it was last connected, seconds of Unix time; zero if not since the server started.
        seen_s: u32,
    },
    /// Someone is typing, or has stopped. Ephemeral.
    Typing {
        /// Who.
        from: AccountId,
        /// Whether they are.
        on: bool,
    },
    /// The devices of this account, after a change of them or a question.
    Devices {
        /// One after the other: see [`crate::phone::frame::DeviceList`].
        list: DeviceList<'a>,
    },
    /// A change of devices was not made.
    DevicesRefused {
        /// Why.
        code: ErrorCode,
    },
    /// The recipient does not exist.
    Unknown {
        /// Which message.
        id: MessageId,
    },
    /// The answer to a `Lookup`.
    Found {
        /// The account, if there is one.
        account: Option<AccountId>,
        /// The name that was asked for.
        name: &'a str,
    },
    /// The server refused to go on; the connection is over.
    Refused {
        /// Why.
        code: ErrorCode,
        /// For a person.
        detail: &'a str,
    },
    /// The server ends the connection; it is over.
    Goodbye {
        /// Why.
        reason: GoodbyeReason,
        /// Come back after so many milliseconds, with jitter.
        retry_ms: u32,
    },
    /// The server speaks other versions; the connection is over. Clear and not authenticated.
    VersionRefused {
        /// The lowest that it speaks.
        min: u8,
        /// The highest.
        max: u8,
    },
    /// The ticket does not work any more; the connection is over, and the next one should log in with the device's
    /// key. Clear and not authenticated.
    TicketRefused,
    /// The server has no time for a handshake; the connection is over. Clear and not authenticated.
    ConnectBusy {
        /// Come back after so many milliseconds, with jitter.
        retry_ms: u32,
    },
}

/// Why a connection broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientError {
    /// The stream is not records.
    Record(RecordError),
    /// The handshake failed: among other reasons, because this is not the server whose key is known.
    Handshake,
    /// A transport record does not decrypt.
    Noise(NoiseError),
    /// A record's plaintext is not frames.
    Frame(FrameError),
    /// A record or frame that may not come now.
    Unexpected,
}
