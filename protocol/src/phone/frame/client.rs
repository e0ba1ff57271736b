//! What a client says.

use super::codec::{self, FrameError};
use super::codes::PresenceState;
use crate::ids::{AccountId, DeviceId, MessageId};
use alloc::vec::Vec;

const START: u8 = 0x01;
const SEND: u8 = 0x02;
const ACK: u8 = 0x03;
const PING: u8 = 0x04;
const GOODBYE: u8 = 0x05;
const LOOKUP: u8 = 0x06;
const READ: u8 = 0x07;
const PRESENCE: u8 = 0x08;
const TYPING: u8 = 0x09;
const WATCH: u8 = 0x0a;
const DEVICES: u8 = 0x0b;
const ADD_DEVICE: u8 = 0x0c;
const REVOKE_DEVICE: u8 = 0x0d;

/// A frame from a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientFrame<'a> {
    /// The first frame of every connection: only now is the session made and does mail flow.
    Start,
    /// A message. The same `id` on every retry.
    Send {
        /// The recipient.
        to: AccountId,
        /// The sender's name for the message.
        id: MessageId,
        /// Opaque to the server.
        body: &'a [u8],
    },
    /// Everything up to this delivery number has arrived and is safe on the device.
    Ack {
        /// Cumulative; counts `Deliver` and `Delivered` frames of this connection from 1.
        number: u32,
    },
    /// Keep-alive; answered by `Pong` with the same token.
    Ping {
        /// The client's choice.
        token: u32,
    },
    /// The client is about to close: not a fault.
    Goodbye,
    /// Which account has this name?
    Lookup {
        /// The name as typed; a malformed one is answered "not found".
        name: &'a str,
    },
    /// A message was read here: its sender is to have a `read` tick. Said again on a later connection until
    /// `ReadTaken` answers it.
    Read {
        /// Whose message.
        author: AccountId,
        /// Which one.
        id: MessageId,
    },
    /// How present this device is from now on; at first it is available.
    Presence {
        /// `Away` or `Available`.
        state: PresenceState,
    },
    /// The person is typing, or has stopped. Ephemeral: nobody keeps it.
    Typing {
        /// To whom.
        to: AccountId,
        /// Whether they are.
        on: bool,
    },
    /// Tell this session how present an account is: now, and at each change for the next ten minutes.
    Watch {
        /// Whose presence.
        account: AccountId,
    },
    /// Which devices does this account have?
    Devices,
    /// Adds a device to this account. It gets what comes from now on.
    AddDevice {
        /// Its public key.
        key: [u8; 32],
    },
    /// Takes a device off this account, with its session, its tickets and what waits for it alone.
    RevokeDevice {
        /// Which one; this one is allowed.
        device: DeviceId,
    },
}

impl<'a> ClientFrame<'a> {
    /// Appends the frame.
    ///
    /// # Panics
    /// If a body does not fit a record; see [`super::BODY_BYTES_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Start => codec::append(START, out, |_| ()),
            Self::Send { to, id, body } => codec::append(SEND, out, |out| {
                out.extend_from_slice(&to.0.to_le_bytes());
                out.extend_from_slice(&id.0.to_le_bytes());
                out.extend_from_slice(body);
            }),
            Self::Ack { number } => {
                codec::append(ACK, out, |out| out.extend_from_slice(&number.to_le_bytes()))
            }
            Self::Ping { token } => {
                codec::append(PING, out, |out| out.extend_from_slice(&token.to_le_bytes()))
            }
            Self::Goodbye => codec::append(GOODBYE, out, |_| ()),
            Self::Lookup { name } => codec::append(LOOKUP, out, |out| out.extend_from_slice(name.as_bytes())),
            Self::Read { author, id } => codec::append(READ, out, |out| {
                out.extend_from_slice(&author.0.to_le_bytes());
                out.extend_from_slice(&id.0.to_le_bytes());
            }),
            Self::Presence { state } => codec::append(PRESENCE, out, |out| out.push(state as u8)),
            Self::Typing { to, on } => codec::append(TYPING, out, |out| {
                out.extend_from_slice(&to.0.to_le_bytes());
                out.push(u8::from(on));
            }),
            Self::Watch { account } => {
                codec::append(WATCH, out, |out| out.extend_from_slice(&account.0.to_le_bytes()));
            }
            Self::Devices => codec::append(DEVICES, out, |_| ()),
            Self::AddDevice { key } => codec::append(ADD_DEVICE, out, |out| out.extend_from_slice(&key)),
            Self::RevokeDevice { device } => {
                codec::append(REVOKE_DEVICE, out, |out| out.extend_from_slice(&device.0.to_le_bytes()));
            }
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
            SEND => {
                let (to, id) = (AccountId(fields.u64()?), MessageId(fields.u64()?));
                return Ok((Self::Send { to, id, body: fields.rest() }, rest));
            }
            LOOKUP => return Ok((Self::Lookup { name: fields.rest_name()? }, rest)),
            START => Self::Start,
            ACK => Self::Ack { number: fields.u32()? },
            PING => Self::Ping { token: fields.u32()? },
            GOODBYE => Self::Goodbye,
            READ => Self::Read { author: AccountId(fields.u64()?), id: MessageId(fields.u64()?) },
            PRESENCE => match PresenceState::from_wire(fields.u8()?) {
                Some(state @ (PresenceState::Away | PresenceState::Available)) => Self::Presence { state },
                _ => return Err(FrameError::Value),
            },
            TYPING => Self::Typing { to: AccountId(fields.u64()?), on: fields.flag()? },
            WATCH => Self::Watch { account: AccountId(fields.u64()?) },
            DEVICES => Self::Devices,
            ADD_DEVICE => Self::AddDevice { key: fields.array()? },
            REVOKE_DEVICE => Self::RevokeDevice { device: DeviceId(fields.u16()?) },
            other => return Err(FrameError::Kind(other)),
        };
        fields.end()?;
        Ok((fixed, rest))
    }
}
