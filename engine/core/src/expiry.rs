//! Expiry: mail that nobody has fetched for too long leaves its mailbox.
//!
//! A sweep goes round all accounts; each round of chores gives it some of them to look at. A mailbox may be long, so
//! what expires leaves in pieces, turn by turn, with everybody else between them.

use crate::account::AccountIndex;
use crate::io::Now;
use crate::shard::{Shard, bug};
use tern_storage::mailbox::{DeviceSet, TickState};

/// Where the sweep is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sweep {
    /// The account that is looked at next.
    at: u32,
    /// How many are still to be looked at, of those that the last chores gave.
    left_count: u32,
}

impl Sweep {
    /// Whether it goes on in the next turn.
    pub(crate) const fn has_more(&self) -> bool {
        self.left_count > 0
    }
}

impl Shard {
    /// Part of the chores: looks whether mail of some accounts has expired.
    pub(crate) fn begin_sweep(&mut self, now: Now) {
        // All once in a sixteenth of the expiry, an hour at most: a shard at rest must not look at its accounts all the
        // time.
        let account_count = self.accounts.table_len() as u32;
        let round_s = (self.config.limits.expiry_ms / 1000 / 16).clamp(1, 3_600) as u32;
        let passed_s =
            (now.mono_ns.saturating_sub(self.chores_done_ns) / 1_000_000_000).clamp(1, u64::from(round_s));
        let look_count = account_count.div_ceil(round_s).saturating_mul(passed_s as u32);
        // Turn by turn, however many they are; a round that the turns cannot keep up with takes longer.
        self.sweep.left_count = self.sweep.left_count.saturating_add(look_count).min(account_count);
        self.go_on_sweeping(now);
    }

    /// A piece of the sweep: at most a step's budget of accounts and of entries that expire.
    pub(crate) fn go_on_sweeping(&mut self, now: Now) {
        if !self.sweep.has_more() {
            return;
        }
        let expiry_s = self.config.limits.expiry_ms / 1000;
        let lived_s = if bug!(self, expires_early) { expiry_s / 4 } else { expiry_s };
        let oldest_s = self.wall_clock.lived_ago(now, lived_s);
        let account_count = self.accounts.table_len() as u32;
        let mut budget = self.config.limits.step_budget;
        while self.sweep.has_more() && budget > 0 {
            let count = self.expire(AccountIndex(self.sweep.at), oldest_s, budget);
            if count == budget {
                // It may have more: what has expired is gone, so the next piece begins at the front as well.
                return;
            }
            budget -= count + 1;
            self.sweep.at = (self.sweep.at + 1) % account_count;
            self.sweep.left_count -= 1;
        }
    }

    /// Takes what is older than `oldest_s` from the front of a mailbox, at most `count_max` entries; how many those were.
    fn expire(&mut self, index: AccountIndex, oldest_s: u32, count_max: u32) -> u32 {
        let Some(account) = self.accounts.get_mut(index) else { return 0 };
        let mut last = None;
        let mut count = 0;
        let cache = &mut self.cache;
        while count < count_max
            && account.mailbox.at(count as usize).is_some_and(|entry| entry.time_s < oldest_s)
        {
            last = account.mailbox.change_at(count as usize, |entry| {
                self.counters.expired += u64::from(!entry.waiting.is_empty());
                entry.waiting = DeviceSet::default();
                entry.tick = TickState::Settled;
                entry.answered = true;
                // With it goes what its sender holds of the mailbox.
                entry.mail.take().into_iter().for_each(|mail| cache.remove(mail));
                entry.seq
            });
            count += 1;
        }
        let Some(last) = last else { return 0 };
        for device in account.devices_mut() {
            device.floor = device.floor.max(last);
        }
        self.drop_over(index);
        self.queue_floors(index);
        count
    }
}
