//! Time that runs out: runs in which phones are away for longer than mail is kept and ids are remembered.

use crate::disk::Crash;
use crate::oracle::Oracle;
use crate::plan::{Fault, Plan};
use crate::random::Random;
use crate::schedule::{MS, SECOND};
use crate::world::REST_NS;
use tern_core::limits::Limits;
use tern_protocol::ids::{AccountId, MessageId};

/// For how long mail is kept and ids are remembered, milliseconds: twice as long as everything may take to come to rest, so
/// that what was composed late must arrive, and what is lost is missed.
const KEPT_MS: u64 = 2 * REST_NS / MS;
/// Everything else happens before; then time passes, and more traffic comes.
const PASSING_NS: u64 = 450 * SECOND;
/// What is composed so long before faults end has not run out when everything must be at rest.
const LATE_NS: u64 = KEPT_MS * MS - REST_NS - 5 * SECOND;
/// The node counts in seconds, and its clock is read a little before or after the phone's, milliseconds.
const SLACK_MS: u64 = 2_000;

impl Plan {
    /// In every fourth run mail is kept for some minutes, phones are away for longer, and the node may stop meanwhile.
    pub(crate) fn let_time_run_out(&mut self, random: &mut Random) {
        if random.below(4) != 0 {
            return;
        }
        self.limits = Limits { expiry_ms: KEPT_MS, dedup_horizon_ms: KEPT_MS, ..self.limits };
        self.kept_ms = Some(KEPT_MS);
        for phone in 0..self.phone_count() {
            if random.chance(60) {
                let time_ns = random.below(self.calm_ns);
                self.faults.push((time_ns, Fault::Leave(phone, random.range(60, 600) * SECOND)));
            }
        }
        self.calm_ns += PASSING_NS;
        let account_count = self.accounts.len();
        for _ in 0..random.range(5, 25) {
            let from = random.index(account_count);
            let to = (from + 1 + random.index(account_count - 1)) % account_count;
            let late = random.chance(50);
            let time_ns =
                if late { self.calm_ns - 1 - random.below(LATE_NS) } else { random.below(self.calm_ns) };
            self.faults.push((time_ns, Fault::Compose(from, to, random.pick(&[1, 2, 4]))));
        }
        for _ in 0..random.pick(&[0, 1, 2, 4]) {
            let time_ns = random.below(self.calm_ns);
            let crash = random.pick(&[Crash::Kill, Crash::Power]);
            let down_ns = random.pick(&[300 * MS, 20 * SECOND]);
            self.faults.push((time_ns, Fault::Crash(crash, down_ns)));
        }
    }
}

impl Oracle {
    /// Whether a message, and whatever was said about it, may have left the mailboxes by now because nobody fetched it.
    #[must_use]
    pub fn is_lapsed(&self, serial: usize) -> bool {
        let made_ms = self.messages[serial].composed_ms;
        self.kept_ms.is_some_and(|kept_ms| made_ms + kept_ms <= self.now_ms + SLACK_MS)
    }

    /// Whether nothing needs to come of a message any more: it has lapsed, and did so before everything had to be at rest.
    #[must_use]
    pub fn has_run_out(&self, serial: usize) -> bool {
        let made_ms = self.messages[serial].composed_ms;
        let rest_ms = self.calm_ms.map(|calm_ms| calm_ms + REST_NS / MS);
        let is_late = |kept_ms| rest_ms.is_some_and(|rest_ms| made_ms + kept_ms > rest_ms + SLACK_MS);
        self.is_lapsed(serial) && !self.kept_ms.is_some_and(is_late)
    }

    /// Whether nobody needs to remember any more what was said about a message of this account: ticks are said again until
    /// they are answered, however late that is, and are known by when they came.
    #[must_use]
    pub fn is_forgotten(&self, from: AccountId, id: MessageId) -> bool {
        let serial = self.account_of(from).and_then(|from| self.serial_of(from, id));
        serial.is_some_and(|serial| self.forgets_ticks(serial))
    }

    /// Whether the ticks of a message may come again.
    #[must_use]
    pub fn forgets_ticks(&self, serial: usize) -> bool {
        self.sets_clock || self.is_lapsed(serial)
    }

    /// A phone was told that a message is too old to be taken, or too early.
    ///
    /// # Errors
    /// No such message, or it is younger than that, and its phone goes by the time that all shards go by.
    pub fn refused_as_old(&mut self, from: usize, id: MessageId, now_ns: u64) -> Result<usize, String> {
        let serial = self.serial_of(from, id).ok_or_else(|| format!("expired: unknown {id:?}"))?;
        if !self.is_lapsed(serial) {
            if !self.sets_clock || self.clocks.agree(self.messages[serial].told_ns, now_ns) {
                return Err(format!("message {serial} was told to be Expired, and is young"));
            }
            self.messages[serial].refused = true;
        }
        Ok(serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::ids::DeviceId;

    #[test]
    fn only_what_is_old_may_lapse_and_only_where_time_runs_out() {
        let mut oracle = Oracle::default();
        let account = oracle.add_account("a".into());
        oracle.devices.add(account, [1; 32], Some(DeviceId(1)));
        let serial = oracle.compose(0, account, MessageId(1), 5_000, b"");
        oracle.now_ms = 1_000_000;
        assert!(!oracle.is_lapsed(serial));
        assert!(oracle.refused_as_old(account, MessageId(1), 0).unwrap_err().contains("young"));
        oracle.kept_ms = Some(60_000);
        oracle.now_ms = 62_000;
        assert!(!oracle.is_lapsed(serial) && oracle.unfinished(serial).is_some());
        oracle.now_ms = 66_000;
        assert!(oracle.is_lapsed(serial));
        assert_eq!(oracle.refused_as_old(account, MessageId(1), 0), Ok(serial));
        assert_eq!(oracle.unfinished(serial), None);
    }

    #[test]
    fn what_was_refused_may_be_lost_unless_it_was_ticked() {
        let mut oracle = Oracle::default();
        oracle.sets_clock = true;
        let account = oracle.add_account("a".into());
        oracle.devices.add(account, [1; 32], Some(DeviceId(1)));
        let (first, second) = (MessageId(1), MessageId(2));
        let refused = oracle.compose(0, account, first, 5_000, b"");
        let ticked = oracle.compose(0, account, second, 5_000, b"");
        oracle.messages[ticked].durable = true;
        oracle.clocks.is_set(0, true);
        assert_eq!(oracle.refused_as_old(account, first, 0), Ok(refused));
        assert_eq!(oracle.unfinished(refused), None);
        // The answer to a retry comes behind the tick.
        assert_eq!(oracle.sent(account, second), Ok(ticked));
        assert_eq!(oracle.refused_as_old(account, second, 0), Ok(ticked));
        assert!(oracle.unfinished(ticked).unwrap().contains("was ticked and never reached"));
    }

    #[test]
    fn what_lapses_after_everything_had_to_be_at_rest_is_missed() {
        let mut oracle = Oracle::default();
        let account = oracle.add_account("a".into());
        oracle.devices.add(account, [1; 32], Some(DeviceId(1)));
        oracle.kept_ms = Some(KEPT_MS);
        let early = oracle.compose(0, account, MessageId(1), 5_000, b"");
        let late = oracle.compose(0, account, MessageId(2), 400_000, b"");
        oracle.calm_ms = Some(410_000);
        oracle.now_ms = 2_000_000;
        assert!(oracle.is_lapsed(early) && oracle.is_lapsed(late));
        assert_eq!(oracle.unfinished(early), None);
        assert!(oracle.unfinished(late).unwrap().contains("never reached"));
    }
}
