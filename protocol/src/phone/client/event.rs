//! What a client is configured with, what it is told, and how it fails.

use super::super::frame::{FrameError, ServerFrame};
use super::super::noise::{KeyPair, NoiseError};
use super::super::record::RecordError;
use super::super::ticket::Ticket;
use crate::ids::{AccountId, DeviceId, PartitionId};
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
    /// What the server says from then on, as it said it; never another `Welcome`. What has a number is to be
    /// acknowledged: [`super::Client::ack`]. After an `Error` or a `Goodbye`, which may come instead of the welcome,
    /// the connection is over.
    Frame(ServerFrame<'a>),
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
