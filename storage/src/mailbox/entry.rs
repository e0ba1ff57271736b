//! One place in a mailbox: for whom it is, and which tick it owes.

use crate::cache::CacheRef;
use crate::log::Position;
use tern_protocol::ids::{AccountId, DeviceId, MessageId, Seq};

/// The devices of an account by their place in its device list, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceSet(pub u16);

/// Most devices of one account: the bits of a [`DeviceSet`].
pub const DEVICES_MAX: usize = 16;

impl DeviceSet {
    /// The set of the first `count` places.
    #[must_use]
    pub const fn first(count: usize) -> Self {
        assert!(count <= DEVICES_MAX, "more devices than a set holds");
        Self(((1_u32 << count) - 1) as u16)
    }

    /// The set of one place.
    #[must_use]
    pub const fn one(place: usize) -> Self {
        assert!(place < DEVICES_MAX, "no such device place");
        Self(1 << place)
    }

    /// Whether `place` is in it.
    #[must_use]
    pub const fn has(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    /// Whether nobody is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How far an entry's `delivered` tick is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TickState {
    /// No device has acknowledged yet.
    NotDue,
    /// A device has; the sender's home has not confirmed the tick.
    Owed,
    /// Confirmed, or never owed (ticks owe no ticks).
    Settled,
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A message from someone.
    Message,
    /// A tick: a device of the recipient has a message.
    Delivered,
    /// A tick: a device of the recipient has read a message.
    Read,
    /// A message that one of the account's own devices sent, for the others. `from` is whom it was sent to.
    Copy,
}

impl EntryKind {
    /// Where its own `delivered` tick begins: only messages owe one.
    #[must_use]
    pub const fn first_tick_state(self) -> TickState {
        match self {
            Self::Message => TickState::NotDue,
            Self::Delivered | Self::Read | Self::Copy => TickState::Settled,
        }
    }
}

/// One place in a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its place in the order.
    pub seq: Seq,
    /// Who sent it.
    pub from: AccountId,
    /// The sender's device, which gets the ticks.
    pub from_device: DeviceId,
    /// The message, or the message that a tick speaks of.
    pub id: MessageId,
    /// Who has not acknowledged it.
    pub waiting: DeviceSet,
    /// What it is.
    pub kind: EntryKind,
    /// The state of the tick that this message owes.
    pub tick: TickState,
    /// Whether the other home was told that it is safe: the sender's by `sent` or by a tick that implies it; for a
    /// tick, the recipient's by `Confirm`. Of a copy, whether the message's `sent` has come and waits for it.
    pub answered: bool,
    /// When it arrived, seconds of Unix time.
    pub time_s: u32,
    /// Its envelope in memory; gone once all have acknowledged.
    pub mail: Option<CacheRef>,
    /// Its durable record; `None` while it was not committed.
    pub position: Option<Position>,
}

impl Entry {
    /// Whether nothing keeps it in the mailbox any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.tick == TickState::Settled
    }

    /// Bytes of memory that its envelope takes.
    #[must_use]
    pub fn mail_bytes(&self) -> u64 {
        self.mail.map_or(0, |mail| mail.slot_bytes() as u64)
    }

    /// Whether a crash would forget it, or the tick that it owes: it is in no log, and may be in none ever, if all
    /// have acknowledged it before its commit.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        self.position.is_none() && !self.is_over()
    }
}
