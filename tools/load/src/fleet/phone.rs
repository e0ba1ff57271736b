//! One phone: its keys, and where its connection is.

use tern_protocol::phone::client::Client;
use tern_protocol::phone::noise::KeyPair;
use tern_protocol::phone::ticket::Ticket;
use tern_ring::Slot;

/// Where a phone's connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Not connected, and not meant to be.
    Away,
    /// Waits for its turn to connect, or for its jitter to pass.
    Waiting,
    /// TCP connect or handshake under way.
    LoggingIn,
    /// Logged in.
    Online,
    /// Refused for good.
    Refused,
}

impl Stage {
    /// How many stages there are.
    pub(super) const COUNT: usize = Self::Refused as usize + 1;
}

/// One phone. A million of them are kept, so that each field counts.
pub(crate) struct Phone {
    pub(crate) keys: KeyPair,
    pub(crate) stage: Stage,
    /// Which connection attempt; completions of earlier ones are stale.
    pub(crate) attempt: u32,
    pub(crate) client: Option<Client>,
    /// For the next connection; kept only where phones come and go.
    pub(crate) ticket: Option<Box<Ticket>>,
    pub(crate) slot: Option<Slot>,
    /// A send is under way; what comes up meanwhile goes with the next.
    pub(crate) sending: bool,
    /// In the list of phones that have something to say.
    pub(crate) dirty: bool,
    /// Its mailbox was empty once on this connection.
    pub(crate) drained: bool,
    /// Says goodbye and closes when its send has ended.
    pub(crate) leaving: bool,
    pub(crate) ever_online: bool,
    /// Once the server refused to register it, its account is taken as existing.
    pub(crate) registers: bool,
    /// An alarm looks after its messages without an answer.
    pub(crate) resend_watched: bool,
    /// Seconds on the run's clock.
    pub(crate) last_sent_s: u32,
    /// When the login that is under way connected first, however often it was tried again; 0 while none is.
    pub(crate) connect_ns: u64,
    /// For when the last alarm after `busy` was set.
    pub(crate) unblock_ns: u64,
    /// Messages that it may submit in all.
    pub(crate) quota_count: u32,
}

impl Phone {
    pub(crate) fn new(keys: KeyPair, registers: bool) -> Self {
        Self {
            keys,
            stage: Stage::Away,
            attempt: 0,
            client: None,
            ticket: None,
            slot: None,
            sending: false,
            dirty: false,
            drained: false,
            leaving: false,
            ever_online: false,
            registers,
            resend_watched: false,
            last_sent_s: 0,
            connect_ns: 0,
            unblock_ns: 0,
            quota_count: u32::MAX,
        }
    }

    /// Forgets the connection; the caller closes the slot and sets the stage.
    pub(crate) fn disconnect(&mut self) -> Option<Slot> {
        self.attempt = self.attempt.wrapping_add(1);
        self.client = None;
        self.sending = false;
        self.leaving = false;
        self.drained = false;
        self.resend_watched = false;
        self.slot.take()
    }
}

/// Names an attempt of a phone in the ring's events.
pub(crate) const fn key_of(phone: u32, attempt: u32) -> u64 {
    (attempt as u64) << 32 | phone as u64
}

/// The phone and the attempt.
pub(crate) const fn of_key(key: u64) -> (u32, u32) {
    (key as u32, (key >> 32) as u32)
}

const _: () = assert!(size_of::<Phone>() <= 352, "an idle phone costs at most 600 bytes in all");
