//! Clocks that are set: runs in which the machine's clock steps by hours or more and stands there until it is believed,
//! and in which phones go by the time that they are told.

use crate::disk::Crash;
use crate::plan::{Fault, Plan};
use crate::random::Random;
use crate::schedule::{MS, SECOND};
use tern_core::limits::Limits;

const HOUR_S: i64 = 3_600;
/// For so long ids are remembered in these runs, milliseconds: a clock that is ahead drops what it has taken.
const REMEMBERED_MS: u64 = 60_000;
/// A step is believed at the earliest so long after it, nanoseconds.
const DOUBT_NS: u64 = 600 * SECOND;
/// And by every shard at the latest so long after that: each has noticed it at its first step, and a shard at rest takes
/// one in ten seconds.
const APART_NS: u64 = 25 * SECOND;

impl Plan {
    /// In every tenth run the clock is set some times; phones come back when that is believed.
    pub(crate) fn set_clocks(&mut self, random: &mut Random) {
        if random.below(10) != 0 || self.kept_ms.is_some() {
            return;
        }
        self.limits = Limits { dedup_horizon_ms: REMEMBERED_MS, ..self.limits };
        (self.kept_ms, self.sets_clock, self.is_social) = (Some(REMEMBERED_MS), true, false);
        self.faults.retain(|(_, fault)| !matches!(fault, Fault::ClockWrong(..)));
        let ahead_s = random.pick(&[HOUR_S, 5 * HOUR_S, 30 * HOUR_S, 31 * 24 * HOUR_S]);
        let behind_s = random.pick(&[-3 * HOUR_S, -24 * HOUR_S, -2200 * 24 * HOUR_S]);
        match random.below(4) {
            0 => self.start_behind(0, behind_s, random),
            1 => {
                self.set_clock(behind_s, random);
                self.set_clock(0, random);
            }
            2 => {
                self.set_clock(ahead_s, random);
                self.set_clock(0, random);
            }
            _ => {
                self.set_clock(ahead_s, random);
                self.start_behind(ahead_s, 0, random);
            }
        }
    }

    /// The clock is set, and stands for long enough to be believed and to drop what was taken by it.
    fn set_clock(&mut self, wrong_s: i64, random: &mut Random) {
        let began_ns = self.calm_ns;
        let believed_ns = began_ns + DOUBT_NS + APART_NS;
        self.calm_ns = believed_ns + random.range(100, 700) * SECOND;
        self.faults.push((began_ns, Fault::SetClock(wrong_s)));
        for phone in 0..self.phone_count() {
            if random.chance(80) {
                self.faults.push((believed_ns + random.below(20 * SECOND), Fault::Cut(phone)));
            }
        }
        self.talk(began_ns, believed_ns, 4, random);
        self.talk(believed_ns, self.calm_ns, 16, random);
        if random.chance(40) {
            let time_ns = began_ns + random.below(self.calm_ns - began_ns);
            let crash = random.pick(&[Crash::Kill, Crash::Power]);
            self.faults.push((time_ns, Fault::Crash(crash, random.range(1, 600) * MS)));
        }
    }

    /// Two accounts talk, so that the newest messages of the shards are from different times; then the node is started
    /// again by a clock that is behind its logs.
    fn start_behind(&mut self, before_s: i64, wrong_s: i64, random: &mut Random) {
        let began_ns = self.calm_ns;
        let (from, to) = self.pair(random);
        for round in 0..10 {
            self.faults.push((began_ns + round * 45 * SECOND, Fault::Compose(from, to, 1)));
        }
        let stopped_ns = began_ns + 451 * SECOND;
        let crash = random.pick(&[Crash::Kill, Crash::Power]);
        self.faults.push((stopped_ns - SECOND, Fault::SetClock(wrong_s)));
        self.faults.push((stopped_ns, Fault::Crash(crash, random.range(1, 600) * MS)));
        self.calm_ns = stopped_ns + 200 * SECOND;
        self.talk(stopped_ns, self.calm_ns, 16, random);
        if random.chance(50) {
            self.faults.push((self.calm_ns - 1, Fault::SetClock(before_s)));
        } else {
            let believed_ns = stopped_ns + DOUBT_NS + APART_NS;
            self.calm_ns = believed_ns + 100 * SECOND;
            self.talk(believed_ns, self.calm_ns, 8, random);
        }
    }

    fn talk(&mut self, from_ns: u64, to_ns: u64, count: u64, random: &mut Random) {
        for _ in 0..count {
            let (from, to) = self.pair(random);
            let time_ns = from_ns + random.below(to_ns - from_ns);
            self.faults.push((time_ns, Fault::Compose(from, to, random.pick(&[1, 1, 3]))));
        }
    }

    fn pair(&self, random: &mut Random) -> (usize, usize) {
        let count = self.accounts.len();
        let from = random.index(count);
        (from, (from + 1 + random.index(count - 1)) % count)
    }
}

/// When shards may go by different times, or by another one than a phone was told.
#[derive(Debug, Default)]
pub struct Clocks {
    /// From, to, virtual nanoseconds, both included.
    spans: Vec<(u64, u64)>,
}

impl Clocks {
    /// The machine's clock is set. By a step that is followed at once, which makes older what was sent before it, or by one
    /// that is not.
    pub fn is_set(&mut self, now_ns: u64, is_followed: bool) {
        if is_followed {
            self.spans.push((now_ns, now_ns + APART_NS));
        }
        self.spans.push((now_ns + DOUBT_NS, now_ns + DOUBT_NS + APART_NS));
    }

    /// The node starts: what was in doubt is forgotten, all shards begin at the same time, and may doubt that.
    pub fn node_starts(&mut self, now_ns: u64) {
        self.spans.retain(|&(from_ns, _)| from_ns <= now_ns);
        self.spans.push((now_ns, now_ns));
        self.is_set(now_ns, false);
    }

    /// Whether all shards have gone by one time since a phone was told it.
    #[must_use]
    pub fn agree(&self, told_ns: u64, now_ns: u64) -> bool {
        self.spans.iter().all(|&(from_ns, to_ns)| to_ns < told_ns || from_ns > now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_agree_until_a_step_is_believed_and_from_each_start_on() {
        let mut clocks = Clocks::default();
        assert!(clocks.agree(0, 5_000 * SECOND));
        clocks.is_set(100 * SECOND, false);
        assert!(clocks.agree(0, 699 * SECOND), "it is in doubt");
        assert!(!clocks.agree(0, 700 * SECOND) && !clocks.agree(720 * SECOND, 721 * SECOND));
        assert!(clocks.agree(726 * SECOND, 5_000 * SECOND));
        clocks.node_starts(500 * SECOND);
        assert!(!clocks.agree(499 * SECOND, 501 * SECOND));
        assert!(clocks.agree(501 * SECOND, 1_099 * SECOND));
        assert!(!clocks.agree(501 * SECOND, 1_101 * SECOND));
        clocks.is_set(2_000 * SECOND, true);
        assert!(!clocks.agree(1_999 * SECOND, 2_000 * SECOND));
    }
}
