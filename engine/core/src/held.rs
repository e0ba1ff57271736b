//! What a shard holds for a while and no counter tells. Whoever drives it without a network and without a disk sees that
//! all of it is given back.

use crate::shard::Shard;

/// What is held now.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Held {
    /// Ticks that nobody has confirmed.
    pub owed_tick_count: usize,
    /// Hand-overs of which one half has come.
    pub hand_over_count: usize,
    /// Bytes of the buffers that edges have borrowed: what lies ready for the next one does not count.
    pub lent_bytes: usize,
    /// Bytes of large envelopes on their way to other shards, as far as it knows.
    pub boxed_bytes: usize,
    /// Addresses that hold connections.
    pub address_count: usize,
    /// Revoked devices that mailboxes have not let go of.
    pub leaving_count: usize,
    /// Who waits for the log.
    pub waiter_count: usize,
}

impl Shard {
    /// What it holds now that no counter tells.
    #[must_use]
    pub fn held(&self) -> Held {
        Held {
            owed_tick_count: self.owed.count(),
            hand_over_count: self.hand_overs.waiting_count(),
            lent_bytes: self.edges.lent_bytes(),
            boxed_bytes: self.router.boxed_bytes(),
            address_count: self.addresses.holder_count(),
            leaving_count: self.leaving.len(),
            waiter_count: self.writer.waiters.len(),
        }
    }
}
