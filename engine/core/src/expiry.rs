//! Expiry: mail that nobody has fetched for too long leaves its mailbox.

use crate::account::AccountIndex;
use crate::io::Now;
use crate::shard::Shard;
use tern_storage::mailbox::{DeviceSet, TickState};

impl Shard {
    /// Expires mail of some accounts: a sweep that goes round all of them.
    pub(crate) fn sweep_expired(&mut self, now: Now) {
        let expiry_s = self.config.limits.expiry_ms / 1000;
        let oldest_s = self.wall_clock.lived_ago(now, expiry_s);
        // All once in a sixteenth of the expiry, an hour at most: a shard at rest must not look at its accounts all the
        // time.
        let account_count = self.accounts.table_len() as u32;
        let round_s = (expiry_s / 16).clamp(1, 3_600) as u32;
        let passed_s =
            (now.mono_ns.saturating_sub(self.chores_done_ns) / 1_000_000_000).clamp(1, u64::from(round_s));
        let look_count = account_count.div_ceil(round_s).saturating_mul(passed_s as u32);
        for _ in 0..look_count.min(self.config.limits.step_budget) {
            self.sweep_at = (self.sweep_at + 1) % account_count;
            let index = AccountIndex(self.sweep_at);
            let Some(account) = self.accounts.get_mut(index) else { continue };
            let mut last = None;
            let mut entry_index = 0;
            while account.mailbox.at(entry_index).is_some_and(|entry| entry.time_s < oldest_s) {
                last = account.mailbox.change_at(entry_index, |entry| {
                    self.counters.expired += u64::from(!entry.waiting.is_empty());
                    entry.waiting = DeviceSet::default();
                    entry.tick = TickState::Settled;
                    entry.answered = true;
                    entry.seq
                });
                entry_index += 1;
            }
            let Some(last) = last else { continue };
            for device in account.devices_mut() {
                device.floor = device.floor.max(last);
            }
            self.drop_over(index);
            self.queue_floors(index);
        }
    }
}
