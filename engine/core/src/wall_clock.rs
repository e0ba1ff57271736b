//! The wall clock as far as a shard believes it.
//!
//! What the machine calls the time may be wrong: a box boots without a battery in 2020 until NTP sets it, or a source
//! of time fails for a moment and everything seems a month old. Mail expires and ids are forgotten by this clock, so a
//! shard does not take a step at its word. It goes on by the monotonic clock and believes the new time only when that
//! has stood for [`DOUBT_MS`]; a glitch that ends before leaves nothing behind. And a step that is believed makes
//! nothing older: ages are counted in time that the shard has lived through, and what a step left out is none.
//!
//! After a restart the log tells both: the clock is at least where the node's newest message was stamped, until another
//! time has stood for as long; and days from which no message is left count as left out, since nobody knows whether they
//! have been. So does the time since the newest message, however short. Mail may expire late for that, never early.

use crate::io::Now;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What the machine's clock may be away from the shard's without being doubted, milliseconds.
const STEP_MS: u64 = 120_000;
/// For how long a new time must stand before it is believed, milliseconds.
const DOUBT_MS: u64 = 600_000;
const DAY_S: u32 = 86_400;
/// Most gaps that are remembered, 8 bytes each: of more, the latest.
const GAP_COUNT_MAX: usize = 64;
const MS_NS: u64 = 1_000_000;

/// Time that nobody has lived through: from, to, seconds of Unix time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Gap {
    from_s: u32,
    to_s: u32,
}

/// When the messages of a log were stamped: of each day the first and the last second.
#[derive(Clone, Default, Debug)]
pub(crate) struct Stamps(BTreeMap<u32, (u32, u32)>);

impl Stamps {
    /// Takes the stamp of a message, seconds of Unix time.
    pub(crate) fn note(&mut self, time_s: u32) {
        let (first_s, last_s) = self.0.entry(time_s / DAY_S).or_insert((time_s, time_s));
        *first_s = time_s.min(*first_s);
        *last_s = time_s.max(*last_s);
    }

    /// The latest of them; 0 where there is none.
    pub(crate) fn newest_s(&self) -> u32 {
        self.0.last_key_value().map_or(0, |(_, &(_, last_s))| last_s)
    }
}

/// A time that the machine tells and that is not believed yet.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    since_ns: u64,
    /// How far it is ahead of the monotonic clock, milliseconds.
    offset_ms: i64,
}

/// One shard's wall clock.
#[derive(Debug)]
pub(crate) struct WallClock {
    /// A moment at which both clocks were right.
    base: Now,
    doubt: Option<Doubt>,
    /// Where the clock would be if it had never gone back, ahead of the monotonic clock, milliseconds: phones that were
    /// welcomed by then still go by it.
    told_offset_ms: i64,
    /// By their end, the latest last.
    gaps: Vec<Gap>,
    /// Steps that were noticed.
    pub(crate) step_count: u64,
    /// A step was believed, and nobody has asked since.
    is_set: bool,
}

impl WallClock {
    /// A clock that begins as the machine's.
    pub(crate) const fn new(now: Now) -> Self {
        let told_offset_ms = offset_ms(now);
        Self { base: now, doubt: None, told_offset_ms, gaps: Vec::new(), step_count: 0, is_set: false }
    }

    /// Takes in what a log tells.
    pub(crate) fn recover(&mut self, now: Now, stamps: &Stamps) {
        let newest_ms = u64::from(stamps.newest_s()) * 1000;
        if newest_ms > now.wall_ms + STEP_MS {
            self.step_count += 1;
            self.doubt = Some(Doubt { since_ns: now.mono_ns, offset_ms: offset_ms(now) });
            self.base = Now { wall_ms: newest_ms, ..now };
            self.told_offset_ms = offset_ms(self.base);
        }
        let now_s = (self.base.wall_ms / 1000) as u32;
        let days = || stamps.0.iter().map(|(&day, &span)| (day, span));
        for ((day, (_, from_s)), (next, (to_s, _))) in days().zip(days().skip(1)) {
            if next > day + 1 {
                self.note_gap(Gap { from_s, to_s });
            }
        }
        // A start that is hours late by a clock that is ahead must not forget what was sent just before it.
        let newest_s = stamps.newest_s();
        if (1..now_s).contains(&newest_s) {
            self.note_gap(Gap { from_s: newest_s, to_s: now_s });
        }
    }

    /// The time that the shard goes by, of what the machine's clocks say. It goes back only with a step that is
    /// believed: by less than a step, it stands still.
    pub(crate) fn tell(&mut self, now: Now) -> Now {
        let expected_ms = self.base.wall_ms + now.mono_ns.saturating_sub(self.base.mono_ns) / MS_NS;
        if now.wall_ms.abs_diff(expected_ms) <= STEP_MS {
            self.doubt = None;
            self.base = Now { wall_ms: now.wall_ms.max(self.base.wall_ms), ..now };
        } else if self.believes(now) {
            self.doubt = None;
            if now.wall_ms > expected_ms {
                let gap = Gap { from_s: (expected_ms / 1000) as u32, to_s: (now.wall_ms / 1000) as u32 };
                self.note_gap(gap);
            }
            self.base = now;
            self.is_set = true;
        } else {
            return Now { wall_ms: expected_ms, ..now };
        }
        self.told_offset_ms = self.told_offset_ms.max(offset_ms(self.base));
        self.base
    }

    /// Whether a step has stood for long enough, the monotonic clock going on beside it.
    fn believes(&mut self, now: Now) -> bool {
        let offset_ms = offset_ms(now);
        match self.doubt {
            Some(doubt) if doubt.offset_ms.abs_diff(offset_ms) <= STEP_MS => {
                now.mono_ns.saturating_sub(doubt.since_ns) >= DOUBT_MS * MS_NS
            }
            _ => {
                self.step_count += 1;
                self.doubt = Some(Doubt { since_ns: now.mono_ns, offset_ms });
                false
            }
        }
    }

    /// Whether a step was believed since this was asked last.
    pub(crate) const fn was_set(&mut self) -> bool {
        core::mem::replace(&mut self.is_set, false)
    }

    /// Whether the machine's clock says something else.
    pub(crate) const fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// The second of Unix time at which what is `age_s` old by now was made, `age_s` counted in time that was lived
    /// through.
    pub(crate) fn lived_ago(&self, now: Now, age_s: u64) -> u32 {
        let mut at_s = now.wall_ms / 1000;
        let mut left_s = age_s;
        for gap in self.gaps.iter().rev() {
            let (from_s, to_s) = (u64::from(gap.from_s), u64::from(gap.to_s));
            // A gap that has not come yet, or that a longer one holds already, takes nothing away.
            if to_s > at_s {
                continue;
            }
            if at_s - to_s >= left_s {
                break;
            }
            left_s -= at_s - to_s;
            at_s = from_s;
        }
        at_s.saturating_sub(left_s) as u32
    }

    /// The latest second that any phone may take for the present, by what it was told since the start.
    pub(crate) fn told_s(&self, now: Now) -> u32 {
        let told_ms = self.told_offset_ms.saturating_add((now.mono_ns / MS_NS) as i64);
        (told_ms.max(0) / 1000) as u32
    }

    fn note_gap(&mut self, gap: Gap) {
        let index = self.gaps.partition_point(|other| other.to_s <= gap.to_s);
        self.gaps.insert(index, gap);
        if self.gaps.len() > GAP_COUNT_MAX {
            self.gaps.remove(0);
        }
    }
}

/// How far the wall clock is ahead of the monotonic one, milliseconds.
const fn offset_ms(now: Now) -> i64 {
    now.wall_ms as i64 - (now.mono_ns / MS_NS) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const START: Now = Now { mono_ns: 7_000_000_000, wall_ms: 1_800_000_000_000 };

    /// The machine's clocks so many milliseconds after the start, the wall clock wrong by `wrong_ms`.
    fn at(ms: u64, wrong_ms: i64) -> Now {
        Now {
            mono_ns: START.mono_ns + ms * MS_NS,
            wall_ms: (START.wall_ms + ms).saturating_add_signed(wrong_ms),
        }
    }

    fn told(clock: &mut WallClock, ms: u64, wrong_ms: i64) -> i64 {
        clock.tell(at(ms, wrong_ms)).wall_ms as i64 - START.wall_ms as i64
    }

    #[test]
    fn small_steps_are_followed_and_time_does_not_go_back() {
        let mut clock = WallClock::new(START);
        assert_eq!(told(&mut clock, 1_000, 0), 1_000);
        assert_eq!(told(&mut clock, 2_000, 119_000), 121_000);
        assert_eq!(told(&mut clock, 3_000, 0), 121_000, "it stands still");
        assert_eq!(told(&mut clock, 122_000, 0), 122_000);
        assert!(!clock.is_in_doubt() && clock.step_count == 0);
    }

    #[test]
    fn a_glitch_leaves_nothing_behind() {
        for wrong_ms in [31 * DAY_MS as i64, -31 * DAY_MS as i64] {
            let mut clock = WallClock::new(START);
            assert_eq!(told(&mut clock, 1_000, wrong_ms), 1_000);
            assert!(clock.is_in_doubt());
            assert_eq!(told(&mut clock, DOUBT_MS, wrong_ms), DOUBT_MS as i64);
            assert_eq!(told(&mut clock, DOUBT_MS + 999, 0), DOUBT_MS as i64 + 999);
            assert!(!clock.is_in_doubt());
            // Another one waits anew.
            assert_eq!(told(&mut clock, DOUBT_MS + 1_001, wrong_ms), DOUBT_MS as i64 + 1_001);
            assert_eq!((clock.step_count, clock.gaps.len()), (2, 0));
        }
    }

    #[test]
    fn a_time_that_stands_is_believed_and_makes_nothing_older() {
        let mut clock = WallClock::new(START);
        told(&mut clock, 1_000, 31 * DAY_MS as i64);
        let (ms, wrong_ms) = (DOUBT_MS + 1_000, 31 * DAY_MS as i64);
        assert_eq!(told(&mut clock, ms, wrong_ms), ms as i64 + wrong_ms);
        let start_s = (START.wall_ms / 1000) as u32;
        assert_eq!(clock.lived_ago(at(ms, wrong_ms), 0), start_s + 601 + 31 * DAY_S);
        assert_eq!(clock.lived_ago(at(ms + 10_000, wrong_ms), 10), start_s + 601 + 31 * DAY_S);
        assert_eq!(clock.lived_ago(at(ms + 10_000, wrong_ms), 11), start_s + 600);
        assert_eq!(clock.lived_ago(at(ms, wrong_ms), 601), start_s);
        // And back again: what was lived through stays that, and phones go by the later time still.
        told(&mut clock, ms + 1_000, 0);
        assert_eq!(told(&mut clock, 2 * ms, 0), 2 * ms as i64);
        assert_eq!(clock.lived_ago(at(2 * ms, 0), 2 * 601), start_s);
        assert_eq!(clock.told_s(at(2 * ms, 0)), start_s + 2 * 601 + 31 * DAY_S);
    }

    #[test]
    fn a_clock_that_wanders_is_not_believed() {
        let mut clock = WallClock::new(START);
        for minute in 0..60 {
            let wrong_ms = (DAY_MS * (2 + minute)) as i64;
            assert_eq!(told(&mut clock, minute * 60_000, wrong_ms), minute as i64 * 60_000);
        }
    }

    #[test]
    fn a_log_holds_the_clock_and_leaves_out_days_without_messages() {
        let newest_s = (START.wall_ms / 1000) as u32;
        // Mail from the first day of a clock without a battery, and from two days of the right one.
        let dead_s = 1_577_880_000;
        let mut stamps = Stamps::default();
        let times = [newest_s - DAY_S, newest_s, newest_s - 9, dead_s - 7, dead_s];
        times.into_iter().for_each(|time_s| stamps.note(time_s));
        let dead = Now { wall_ms: 1_577_880_000_000, ..START };
        let mut clock = WallClock::new(dead);
        clock.recover(dead, &stamps);
        assert_eq!(clock.tell(dead).wall_ms, START.wall_ms, "not before the newest message");
        assert!(clock.is_in_doubt());
        let now = clock.tell(at(60_000, 0));
        assert_eq!(now.wall_ms, START.wall_ms + 60_000);
        assert!(!clock.is_in_doubt());
        assert_eq!(clock.lived_ago(now, 60 + u64::from(DAY_S)), newest_s - DAY_S);
        assert_eq!(clock.lived_ago(now, 60 + u64::from(DAY_S) + 5), dead_s - 5);
        // A boot a month late leaves the month out.
        let late = at(31 * DAY_MS, 0);
        let mut clock = WallClock::new(late);
        clock.recover(late, &stamps);
        assert!(!clock.is_in_doubt());
        assert_eq!(clock.lived_ago(late, 5), newest_s - 5);
    }

    #[test]
    fn gaps_are_few() {
        let mut clock = WallClock::new(START);
        let mut stamps = Stamps::default();
        (0..1000).for_each(|n| stamps.note(2 * n * DAY_S));
        clock.recover(START, &stamps);
        assert_eq!(clock.gaps.len(), GAP_COUNT_MAX);
    }
}
