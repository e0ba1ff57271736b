//! One connection of the chat: its state, and what the server says about it.

use std::net::TcpStream;
use tern_protocol::ids::{AccountId, DeviceId};
use tern_protocol::phone::client::{Client, Event};
use tern_protocol::phone::frame::{ErrorCode, GoodbyeReason, ServerFrame};
use tern_protocol::phone::ticket::Ticket;

/// The connection, if there is one.
pub(super) enum Link {
    /// There is none; the next one is tried at this time.
    Down { again_ms: u64 },
    /// A thread is connecting.
    Connecting,
    /// The handshake has begun.
    Up(Box<Up>),
}

/// A connection.
pub(super) struct Up {
    pub(super) socket: TcpStream,
    pub(super) client: Client,
    /// What it logs in with.
    pub(super) by: Way,
    pub(super) began_ms: u64,
    /// When it last wrote.
    pub(super) said_ms: u64,
    /// After so much silence it pings.
    pub(super) ping_ms: u64,
    /// When the answer to a ping must be there.
    pub(super) pong_due_ms: Option<u64>,
    /// Whether the server has said anything.
    pub(super) has_heard: bool,
}

/// What a connection logs in with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Ticket,
    /// The device's key, for a server whose key is known.
    KnownKey,
    /// The device's key; the server shows its own.
    AnyKey,
}

/// What the server says about the connection itself.
pub(super) enum Note {
    Welcome { account: AccountId, device: DeviceId, server_key: Option<[u8; 32]>, keep_alive_s: u16 },
    Ticket { ticket: Ticket, valid_s: u32 },
    ServerKey([u8; 32]),
    TicketRefused,
    Refused { code: ErrorCode, detail: String },
    Goodbye { reason: GoodbyeReason, retry_ms: u32 },
    Busy { retry_ms: u32 },
    Version { min: u8, max: u8 },
}

impl Note {
    /// `None` for what is said inside the conversation.
    pub(super) fn of(event: Event<'_>) -> Option<Self> {
        Some(match event {
            Event::Welcome { account, device, server_key, keep_alive_s, .. } => {
                Self::Welcome { account, device, server_key, keep_alive_s }
            }
            Event::Frame(frame) => match frame {
                ServerFrame::Ticket { ticket, valid_s } => Self::Ticket { ticket, valid_s },
                ServerFrame::ServerKey { key } => Self::ServerKey(key),
                ServerFrame::Error { code, detail } => Self::Refused { code, detail: detail.into() },
                ServerFrame::Goodbye { reason, retry_ms } => Self::Goodbye { reason, retry_ms },
                _ => return None,
            },
            Event::TicketRefused => Self::TicketRefused,
            Event::ConnectBusy { retry_ms } => Self::Busy { retry_ms },
            Event::VersionRefused { min, max } => Self::Version { min, max },
        })
    }
}
