//! What a client says.

use super::codec::{self, FrameError};
use crate::ids::{AccountId, MessageId};
use alloc::vec::Vec;

const START: u8 = 0x01;
const SEND: u8 = 0x02;
const ACK: u8 = 0x03;
const PING: u8 = 0x04;
const GOODBYE: u8 = 0x05;
const LOOKUP: u8 = 0x06;

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
        }
    }

    /// Takes the first frame of a decrypted record, and what follows it.
    ///
    /// # Errors
    /// [`FrameError`] says what is wrong; the connection cannot go on.
    pub fn decode_first(plain: &'a [u8]) -> Result<(Self, &'a [u8]), FrameError> {
        let (kind, mut fields, rest) = codec::split_first(plain)?;
        let frame = match kind {
            START => {
                fields.end()?;
                Self::Start
            }
            SEND => {
                let (to, id) = (AccountId(fields.u64()?), MessageId(fields.u64()?));
                Self::Send { to, id, body: fields.rest() }
            }
            ACK => {
                let number = fields.u32()?;
                fields.end()?;
                Self::Ack { number }
            }
            PING => {
                let token = fields.u32()?;
                fields.end()?;
                Self::Ping { token }
            }
            GOODBYE => {
                fields.end()?;
                Self::Goodbye
            }
            LOOKUP => Self::Lookup { name: fields.rest_name()? },
            other => return Err(FrameError::Kind(other)),
        };
        Ok((frame, rest))
    }
}
