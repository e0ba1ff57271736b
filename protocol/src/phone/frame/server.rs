//! What the server says.

use super::super::ticket::Ticket;
use super::codec::{self, FrameError};
use super::codes::{ErrorCode, GoodbyeReason, PresenceState};
use super::devices::DeviceList;
use crate::envelope::NAME_BYTES_MAX;
use crate::ids::{AccountId, DeviceId, MessageId};
use alloc::vec::Vec;

const WELCOME: u8 = 0x81;
const DELIVER: u8 = 0x82;
const SENT: u8 = 0x83;
const DELIVERED: u8 = 0x84;
const DRAINED: u8 = 0x85;
const PONG: u8 = 0x86;
const BUSY: u8 = 0x87;
const EXPIRED: u8 = 0x88;
const UNKNOWN: u8 = 0x89;
const FOUND: u8 = 0x8a;
const ERROR: u8 = 0x8b;
const GOODBYE: u8 = 0x8c;
const READ: u8 = 0x8d;
const PRESENCE: u8 = 0x8e;
const TYPING: u8 = 0x8f;
const READ_TAKEN: u8 = 0x91;
const TICKET: u8 = 0x92;
const SERVER_KEY: u8 = 0x93;
const COPY: u8 = 0x94;
const DEVICES: u8 = 0x95;
const DEVICES_REFUSED: u8 = 0x96;
const WATCH_REFUSED: u8 = 0x97;

/// A frame from the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerFrame<'a> {
    /// The login holds; the client answers with `Start`.
    Welcome {
        /// The account that was logged in.
        account: AccountId,
        /// This device's number in it.
        device: DeviceId,
        /// The server's clock, milliseconds of Unix time: message ids are made by it.
        time_ms: u64,
        /// Ping after so many silent seconds.
        keep_alive_s: u16,
        /// How many unacknowledged deliveries the server sends ahead.
        window: u16,
        /// Longest body of a `Send`.
        body_bytes_max: u32,
    },
    /// A message from someone.
    Deliver {
        /// For `Ack`.
        number: u32,
        /// The sender.
        from: AccountId,
        /// The sender's name for the message: duplicates are found by (`from`, `id`).
        id: MessageId,
        /// When the server took it, seconds of Unix time.
        time_s: u32,
        /// The sender's account name.
        from_name: &'a str,
        /// As the sender gave it.
        body: &'a [u8],
    },
    /// Tick: the message is safe.
    Sent {
        /// Which one.
        id: MessageId,
    },
    /// Tick: a device of the recipient has the message. Is mail, and acknowledged like a message.
    Delivered {
        /// For `Ack`.
        number: u32,
        /// The recipient.
        by: AccountId,
        /// Which message.
        id: MessageId,
        /// When it was acknowledged, seconds of Unix time.
        time_s: u32,
    },
    /// The mailbox was empty, for the first time on this connection.
    Drained,
    /// Answers `Ping`.
    Pong {
        /// The token of the ping.
        token: u32,
    },
    /// The message was not taken: start again from this one, in order, for its recipient.
    Busy {
        /// Which message.
        id: MessageId,
        /// How long to wait first, with jitter, milliseconds.
        retry_ms: u32,
    },
    /// The retry is older than the server remembers: whether the message arrived is not known.
    Expired {
        /// Which message.
        id: MessageId,
    },
    /// The message's recipient does not exist.
    Unknown {
        /// Which message.
        id: MessageId,
    },
    /// Answers `Lookup`.
    Found {
        /// The name's account, if it has one.
        account: Option<AccountId>,
        /// The name that was asked for.
        name: &'a str,
    },
    /// The client did something wrong, or may not come in; the server closes.
    Error {
        /// What.
        code: ErrorCode,
        /// For a person, in English.
        detail: &'a str,
    },
    /// The server closes for a reason that is not an error.
    Goodbye {
        /// Why.
        reason: GoodbyeReason,
        /// Come back after so many milliseconds, with jitter.
        retry_ms: u32,
    },
    /// Tick: a device of the recipient has read the message. Is mail, and acknowledged like a message.
    Read {
        /// For `Ack`.
        number: u32,
        /// Who read it.
        by: AccountId,
        /// Which message.
        id: MessageId,
        /// When, seconds of Unix time.
        time_s: u32,
    },
    /// Answers the client's `Read`: it is safe at the home of the message's sender and need not be said again.
    ReadTaken {
        /// Whose message.
        author: AccountId,
        /// Which one.
        id: MessageId,
    },
    /// A message that another device of this account sent. Is mail, and acknowledged like a message.
    Copy {
        /// For `Ack`.
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
    /// The state of an account that this session watches. Ephemeral.
    Presence {
        /// Whose.
        account: AccountId,
        /// The state of its most present device.
        state: PresenceState,
        /// When a device of it was last connected, seconds of Unix time; zero if not since the server started.
        seen_s: u32,
    },
    /// Someone is typing to this account, or has stopped. Ephemeral.
    Typing {
        /// Who.
        from: AccountId,
        /// Whether they are.
        on: bool,
    },
    /// For the next connection.
    Ticket {
        /// Works once.
        ticket: Ticket,
        /// For so many seconds.
        valid_s: u32,
    },
    /// The server's static key has changed to this one.
    ServerKey {
        /// The present one.
        key: [u8; 32],
    },
    /// Answers `Devices`, `AddDevice` and `RevokeDevice`: the devices as they are now, on stable storage.
    Devices {
        /// One after the other.
        list: DeviceList<'a>,
    },
    /// Answers `AddDevice` and `RevokeDevice`: nothing was changed.
    DevicesRefused {
        /// Why.
        code: ErrorCode,
    },
    /// Follows the `Presence` that answers `Watch`: changes will not be told, for too many are watching.
    WatchRefused {
        /// Whose.
        account: AccountId,
        /// Ask again after so many milliseconds at the earliest.
        retry_ms: u32,
    },
}

impl<'a> ServerFrame<'a> {
    /// Appends the frame.
    ///
    /// # Panics
    /// If a body does not fit a record (see [`super::BODY_BYTES_MAX`]) or a name is longer than
    /// [`NAME_BYTES_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let u32_frame = |kind, value: u32, out: &mut Vec<u8>| {
            codec::append(kind, out, |out| out.extend_from_slice(&value.to_le_bytes()));
        };
        let id_frame = |kind, id: MessageId, out: &mut Vec<u8>| {
            codec::append(kind, out, |out| out.extend_from_slice(&id.0.to_le_bytes()));
        };
        match *self {
            Self::Welcome { account, device, time_ms, keep_alive_s, window, body_bytes_max } => {
                codec::append(WELCOME, out, |out| {
                    out.extend_from_slice(&account.0.to_le_bytes());
                    out.extend_from_slice(&device.0.to_le_bytes());
                    out.extend_from_slice(&time_ms.to_le_bytes());
                    out.extend_from_slice(&keep_alive_s.to_le_bytes());
                    out.extend_from_slice(&window.to_le_bytes());
                    out.extend_from_slice(&body_bytes_max.to_le_bytes());
                });
            }
            Self::Deliver { number, from, id, time_s, from_name, body } => {
                assert!(from_name.len() <= NAME_BYTES_MAX, "name too long for a frame");
                codec::append(DELIVER, out, |out| {
                    out.extend_from_slice(&number.to_le_bytes());
                    out.extend_from_slice(&from.0.to_le_bytes());
                    out.extend_from_slice(&id.0.to_le_bytes());
                    out.extend_from_slice(&time_s.to_le_bytes());
                    out.push(from_name.len() as u8);
                    out.extend_from_slice(from_name.as_bytes());
                    out.extend_from_slice(body);
                });
            }
            Self::Sent { id } => id_frame(SENT, id, out),
            Self::Delivered { number, by, id, time_s } => codec::append(DELIVERED, out, |out| {
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&by.0.to_le_bytes());
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&time_s.to_le_bytes());
            }),
            Self::Drained => codec::append(DRAINED, out, |_| ()),
            Self::Pong { token } => u32_frame(PONG, token, out),
            Self::Busy { id, retry_ms } => codec::append(BUSY, out, |out| {
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&retry_ms.to_le_bytes());
            }),
            Self::Expired { id } => id_frame(EXPIRED, id, out),
            Self::Unknown { id } => id_frame(UNKNOWN, id, out),
            Self::Found { account, name } => {
                assert!(name.len() <= NAME_BYTES_MAX, "name too long for a frame");
                codec::append(FOUND, out, |out| {
                    out.extend_from_slice(&account.map_or(0, |a| a.0).to_le_bytes());
                    out.extend_from_slice(name.as_bytes());
                });
            }
            Self::Error { code, detail } => codec::append(ERROR, out, |out| {
                out.push(code as u8);
                out.extend_from_slice(detail.as_bytes());
            }),
            Self::Goodbye { reason, retry_ms } => codec::append(GOODBYE, out, |out| {
                out.push(reason as u8);
                out.extend_from_slice(&retry_ms.to_le_bytes());
            }),
            Self::Read { number, by, id, time_s } => codec::append(READ, out, |out| {
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&by.0.to_le_bytes());
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&time_s.to_le_bytes());
            }),
            Self::ReadTaken { author, id } => codec::append(READ_TAKEN, out, |out| {
                out.extend_from_slice(&author.0.to_le_bytes());
                out.extend_from_slice(&id.0.to_le_bytes());
            }),
            Self::Copy { number, to, id, time_s, body } => codec::append(COPY, out, |out| {
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&to.0.to_le_bytes());
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(&time_s.to_le_bytes());
                out.extend_from_slice(body);
            }),
            Self::Presence { account, state, seen_s } => codec::append(PRESENCE, out, |out| {
                out.extend_from_slice(&account.0.to_le_bytes());
                out.push(state as u8);
                out.extend_from_slice(&seen_s.to_le_bytes());
            }),
            Self::Typing { from, on } => codec::append(TYPING, out, |out| {
                out.extend_from_slice(&from.0.to_le_bytes());
                out.push(u8::from(on));
            }),
            Self::Ticket { ticket, valid_s } => codec::append(TICKET, out, |out| {
                out.extend_from_slice(&ticket.id);
                out.extend_from_slice(&ticket.psk);
                out.extend_from_slice(&valid_s.to_le_bytes());
            }),
            Self::ServerKey { key } => codec::append(SERVER_KEY, out, |out| out.extend_from_slice(&key)),
            Self::Devices { list } => codec::append(DEVICES, out, |out| out.extend_from_slice(list.bytes())),
            Self::DevicesRefused { code } => codec::append(DEVICES_REFUSED, out, |out| out.push(code as u8)),
            Self::WatchRefused { account, retry_ms } => codec::append(WATCH_REFUSED, out, |out| {
                out.extend_from_slice(&account.0.to_le_bytes());
                out.extend_from_slice(&retry_ms.to_le_bytes());
            }),
        }
    }

    /// Takes the first frame of a decrypted record, and what follows it.
    ///
    /// # Errors
    /// [`FrameError`] says what is wrong; the connection cannot go on.
    pub fn decode_first(plain: &'a [u8]) -> Result<(Self, &'a [u8]), FrameError> {
        let (kind, mut fields, rest) = codec::split_first(plain)?;
        // Fields are read in the order in which a struct literal's expressions stand: the order of the wire.
        let fixed = match kind {
            DELIVER => {
                let (number, from) = (fields.u32()?, AccountId(fields.u64()?));
                let (id, time_s) = (MessageId(fields.u64()?), fields.u32()?);
                let from_name = fields.counted_name()?;
                let body = fields.rest();
                return Ok((Self::Deliver { number, from, id, time_s, from_name, body }, rest));
            }
            FOUND => {
                let account = fields.u64()?;
                let account = (account != 0).then_some(AccountId(account));
                return Ok((Self::Found { account, name: fields.rest_name()? }, rest));
            }
            ERROR => {
                let code = ErrorCode::from_wire(fields.u8()?).ok_or(FrameError::Value)?;
                return Ok((Self::Error { code, detail: fields.rest_text()? }, rest));
            }
            COPY => {
                let (number, to) = (fields.u32()?, AccountId(fields.u64()?));
                let (id, time_s) = (MessageId(fields.u64()?), fields.u32()?);
                return Ok((Self::Copy { number, to, id, time_s, body: fields.rest() }, rest));
            }
            DEVICES => {
                let list = DeviceList::parse(fields.rest()).ok_or(FrameError::Length)?;
                return Ok((Self::Devices { list }, rest));
            }
            WELCOME => Self::Welcome {
                account: AccountId(fields.u64()?),
                device: DeviceId(fields.u16()?),
                time_ms: fields.u64()?,
                keep_alive_s: fields.u16()?,
                window: fields.u16()?,
                body_bytes_max: fields.u32()?,
            },
            SENT => Self::Sent { id: MessageId(fields.u64()?) },
            DELIVERED => Self::Delivered {
                number: fields.u32()?,
                by: AccountId(fields.u64()?),
                id: MessageId(fields.u64()?),
                time_s: fields.u32()?,
            },
            DRAINED => Self::Drained,
            PONG => Self::Pong { token: fields.u32()? },
            BUSY => Self::Busy { id: MessageId(fields.u64()?), retry_ms: fields.u32()? },
            EXPIRED => Self::Expired { id: MessageId(fields.u64()?) },
            UNKNOWN => Self::Unknown { id: MessageId(fields.u64()?) },
            GOODBYE => Self::Goodbye {
                reason: GoodbyeReason::from_wire(fields.u8()?).ok_or(FrameError::Value)?,
                retry_ms: fields.u32()?,
            },
            READ => Self::Read {
                number: fields.u32()?,
                by: AccountId(fields.u64()?),
                id: MessageId(fields.u64()?),
                time_s: fields.u32()?,
            },
            READ_TAKEN => Self::ReadTaken { author: AccountId(fields.u64()?), id: MessageId(fields.u64()?) },
            PRESENCE => Self::Presence {
                account: AccountId(fields.u64()?),
                state: PresenceState::from_wire(fields.u8()?).ok_or(FrameError::Value)?,
                seen_s: fields.u32()?,
            },
            TYPING => Self::Typing { from: AccountId(fields.u64()?), on: fields.flag()? },
            TICKET => Self::Ticket {
                ticket: Ticket { id: fields.array()?, psk: fields.array()? },
                valid_s: fields.u32()?,
            },
            SERVER_KEY => Self::ServerKey { key: fields.array()? },
            DEVICES_REFUSED => {
                Self::DevicesRefused { code: ErrorCode::from_wire(fields.u8()?).ok_or(FrameError::Value)? }
            }
            WATCH_REFUSED => {
                Self::WatchRefused { account: AccountId(fields.u64()?), retry_ms: fields.u32()? }
            }
            other => return Err(FrameError::Kind(other)),
        };
        fields.end()?;
        Ok((fixed, rest))
    }
}
