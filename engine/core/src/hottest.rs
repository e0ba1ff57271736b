//! Which mailboxes hold most: looked for in bounded steps, so that the search never holds up a shard.

use crate::account::AccountIndex;
use crate::control::{Hot, LookFrom, Looked};
use crate::shard::Shard;
use alloc::vec::Vec;

/// Places of accounts and entries of mailboxes that one step looks at.
const STEP_BUDGET: u32 = 4096;
/// Most mailboxes of one answer.
const HOT_COUNT_MAX: u16 = 100;

impl Shard {
    /// Looks through accounts from where the last step ended: those of this step that hold most, the largest first,
    /// and where to go on.
    pub(crate) fn look_for_hottest(&self, from: LookFrom, count: u16) -> Looked {
        let count = usize::from(count.min(HOT_COUNT_MAX));
        let mut found: Vec<Hot> = Vec::new();
        let (mut at, mut left) = (from, STEP_BUDGET);
        while (at.place as usize) < self.accounts.table_len() {
            if left == 0 {
                return Looked { found: largest(found, count), next: Some(at) };
            }
            left -= 1;
            let next = LookFrom { place: at.place + 1, ..LookFrom::default() };
            let Some(account) = self.accounts.get(AccountIndex(at.place)) else {
                at = next;
                continue;
            };
            // By sequence and not by index: between two steps entries leave at the front.
            let mut index = account.mailbox.index_above(at.after);
            while let Some(entry) = account.mailbox.at(index) {
                if left == 0 {
                    break;
                }
                left -= 1;
                index += 1;
                at.after = entry.seq;
                at.bytes += entry.mail.map_or(0, |mail| self.cache.get(mail).len() as u64);
            }
            if account.mailbox.at(index).is_some() {
                continue;
            }
            if !account.mailbox.is_empty() {
                found.push(Hot {
                    id: account.id,
                    name: (&*account.name).into(),
                    entry_count: account.mailbox.open_count() as u32,
                    bytes: at.bytes,
                    is_online: account.is_online(),
                });
            }
            if found.len() >= 2 * count + 16 {
                found = largest(found, count);
            }
            at = next;
        }
        Looked { found: largest(found, count), next: None }
    }
}

fn largest(mut found: Vec<Hot>, count: usize) -> Vec<Hot> {
    found.sort_by_key(|hot| core::cmp::Reverse((hot.entry_count, hot.bytes, hot.id)));
    found.truncate(count);
    found
}
