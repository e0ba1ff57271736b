//! Which accounts get most messages, by a sample: a mailbox that is emptied as fast as it fills is among the fullest never.
//!
//! One message in some sixteen is looked at, at distances that no pattern of senders can follow, and counted in a table
//! of fixed size (space-saving: who is not in it takes the place of the smallest, and its count). Counts fade by an eighth
//! each second. An account that gets more than a sixty-fourth of the shard's messages is always in the table.

use crate::control::Busy;
use crate::shard::Shard;
use alloc::vec::Vec;
use tern_protocol::ids::AccountId;

/// Places of the table.
const PLACE_COUNT: usize = 64;
/// Mean distance between two messages that are looked at; a power of two.
const SAMPLE_EVERY: u32 = 16;
/// What one of them adds to its account's count.
const WEIGHT: u32 = 256;
/// The part of a count that fades each second.
const FADE: u32 = 8;
/// The count at which an account stays that gets one message a second.
const ONE_PER_S: u32 = WEIGHT / SAMPLE_EVERY * FADE;

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Busiest {
    places: Vec<(AccountId, u32)>,
    /// Messages until the next one that is looked at.
    left: u32,
    /// Where the distances come from (a linear congruential generator: no secret hangs on it).
    state: u32,
}

impl Busiest {
    /// A message for this account came.
    pub(crate) fn note(&mut self, account: AccountId) {
        if self.left > 0 {
            self.left -= 1;
            return;
        }
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // 0 to 30 are passed over: one in sixteen on average.
        self.left = (self.state >> 16) % (2 * SAMPLE_EVERY - 1);
        if let Some((_, count)) = self.places.iter_mut().find(|(id, _)| *id == account) {
            *count = count.saturating_add(WEIGHT);
        } else if self.places.len() < PLACE_COUNT {
            self.places.push((account, WEIGHT));
        } else if let Some(smallest) = self.places.iter_mut().min_by_key(|(_, count)| *count) {
            *smallest = (account, smallest.1.saturating_add(WEIGHT));
        }
    }

    /// Whether nothing is counted, so that nothing fades.
    pub(crate) const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A second is over.
    pub(crate) fn fade(&mut self) {
        self.places.iter_mut().for_each(|(_, count)| *count -= count.div_ceil(FADE));
        self.places.retain(|(_, count)| *count > 0);
    }

    /// Accounts and what they get a second, those that get most first.
    fn rates(&self) -> Vec<(AccountId, u32)> {
        let mut rates: Vec<_> = self.places.iter().map(|&(id, count)| (id, count / ONE_PER_S)).collect();
        rates.retain(|(_, per_s)| *per_s > 0);
        rates.sort_by_key(|&(id, per_s)| (core::cmp::Reverse(per_s), id));
        rates
    }
}

impl Shard {
    /// At most `count` accounts that get most messages, the busiest first.
    pub(crate) fn list_busiest(&self, count: u16) -> Vec<Busy> {
        let named = self.busiest.rates().into_iter().filter_map(|(id, messages_per_s)| {
            let account = self.accounts.get(self.accounts.by_id(id)?)?;
            let (name, entry_count) = ((&*account.name).into(), account.mailbox.open_count() as u32);
            Some(Busy { id, name, messages_per_s, entry_count, is_online: account.is_online() })
        });
        named.take(usize::from(count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of traffic: `each` says how many messages an account gets in one, in turns with the others.
    fn run(busiest: &mut Busiest, seconds: u32, each: &[(u64, u32)]) {
        for _ in 0..seconds {
            for turn in 0..each.iter().map(|(_, per_s)| *per_s).max().unwrap_or(0) {
                each.iter()
                    .filter(|(_, per_s)| turn < *per_s)
                    .for_each(|(id, _)| busiest.note(AccountId(*id)));
            }
            busiest.fade();
        }
    }

    #[test]
    fn the_busiest_are_found_among_thousands_and_their_rates_are_about_right() {
        let mut busiest = Busiest::default();
        let mut each: Vec<(u64, u32)> = (100..4100).map(|id| (id, 1)).collect();
        each.extend([(7, 4000), (8, 1000)]);
        run(&mut busiest, 40, &each);
        let rates = busiest.rates();
        assert_eq!((rates[0].0, rates[1].0), (AccountId(7), AccountId(8)));
        assert!((3000..5000).contains(&rates[0].1), "{rates:?}");
        assert!((700..1500).contains(&rates[1].1), "{rates:?}");
        assert!(busiest.places.len() <= PLACE_COUNT);
    }

    #[test]
    fn who_gets_nothing_any_more_leaves_the_table() {
        let mut busiest = Busiest::default();
        run(&mut busiest, 20, &[(7, 1000)]);
        run(&mut busiest, 20, &[(8, 1000)]);
        assert_eq!(busiest.rates()[0].0, AccountId(8), "{:?}", busiest.rates());
        run(&mut busiest, 120, &[]);
        assert!(busiest.places.is_empty(), "{:?}", busiest.places);
    }
}
