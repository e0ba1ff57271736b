//! What an account needs only while it has traffic, and its sessions with it: given back once all of it is over and the
//! phones have fallen silent. A message costs one look at a flag for that; the chores do the rest.
//!
//! An account stands in the list from its first traffic on until it rests. Nobody looks at one that only waits.

use crate::account::{Account, AccountIndex};
use crate::io::Now;
use crate::ready_keys::ACTIVE_MS;
use crate::shard::Shard;
use alloc::collections::VecDeque;
use tern_protocol::ids::Seq;

/// Accounts that one round of chores looks at.
const LOOKS_PER_ROUND: usize = 512;
/// Memory for so many is kept when the list is empty.
const KEPT_COUNT: usize = 64;

/// The accounts that had traffic and do not rest yet, each once, those that were looked at longest ago in front.
#[derive(Debug, Default)]
pub(crate) struct Stirred {
    accounts: VecDeque<AccountIndex>,
}

impl Stirred {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.accounts.len()
    }

    /// An account has traffic.
    pub(crate) fn note(&mut self, account: &mut Account, index: AccountIndex) {
        if !core::mem::replace(&mut account.is_stirred, true) {
            self.accounts.push_back(index);
        }
    }
}

impl Shard {
    /// Part of the chores: some of those that had traffic give back what they do not need any more.
    pub(crate) fn let_accounts_rest(&mut self, now: Now) {
        for _ in 0..self.stirred.accounts.len().min(LOOKS_PER_ROUND) {
            let Some(index) = self.stirred.accounts.pop_front() else { break };
            if !self.rests(now, index) {
                self.stirred.accounts.push_back(index);
            } else if let Some(account) = self.accounts.get_mut(index) {
                account.is_stirred = false;
            }
        }
        if self.stirred.accounts.is_empty() {
            self.stirred.accounts.shrink_to(KEPT_COUNT);
        }
    }

    /// Whether nothing of an account is left that will come to rest by itself; gives back what it can.
    fn rests(&mut self, now: Now, index: AccountIndex) -> bool {
        let Some(account) = self.accounts.get_mut(index) else { return true };
        let mut rests = true;
        for id in account.devices().filter_map(|device| device.session) {
            let Some(session) = self.sessions.get(id) else { continue };
            let heard_ms = self.edges.get_mut(session.conn).map_or(0, |edge| edge.heard_ms);
            if now.mono_ns / 1_000_000 < heard_ms + ACTIVE_MS {
                return false;
            }
            // Its phone has answers to come. What the device has not acknowledged is another matter: once it has, its
            // account is stirred again.
            rests &= !session.waits_for_answers();
            self.sessions.let_rest(id);
        }
        if !account.mailbox.is_empty() {
            // Likewise: stirred again when entries leave.
            return rests;
        }
        // A record that is being written may not be forgotten: it would come back after a crash without its floors.
        let is_known = self.writer.carried.is_empty() && account.lazy_count == 0;
        let log_floors = || account.devices().map(|device| device.log_floor).chain([account.ticks_floor()]);
        let is_known = is_known && log_floors().all(|floor| !floor.queued);
        let persisted = if is_known { log_floors().map(|floor| floor.persisted).min() } else { None };
        let has_forgotten = account.mailbox.let_rest(persisted.unwrap_or(Seq(0)));
        rests && (has_forgotten || is_known)
    }
}
