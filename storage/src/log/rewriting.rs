//! Which segments are worth to be left: those whose live records, written elsewhere, give back more than they take.
//!
//! One at least half of which is dead is thin. Only the caller knows how long what lives is: it finds its records and
//! weighs them, those of all segments at once, since to look at all of them costs the same for one segment as for many.
//! Then the thin ones are chosen by weight, and so a round writes at most as many bytes as it gives back, however the
//! sizes of records are spread.
//!
//! In between there are estimates. By its number of records it is likely how much lives; who chooses which of them die may
//! make that wrong in either direction. So a round begins also when it only may pay, supposing that what died was as long
//! as anything there: as soon as space is short, and otherwise after so many new segments that the log has not grown by
//! much more than one round gives back.

use super::segment::Position;
use super::stream::Log;
use crate::io::SegmentId;
use alloc::vec::Vec;

/// A round leaves segments when it gives back so many, or as many as a sixteenth of those that there may be.
const GAIN_COUNT: u64 = 4;
/// Most segments that the live records of one round fill.
const ROUND_COUNT: u64 = 2;
/// All are weighed again when one of so many is new.
const NEW_ONE_OF: u64 = 8;

impl Log {
    /// Begins a round; false if it would not pay.
    ///
    /// The caller then goes twice through all that it keeps: it weighs each record in a segment that [`Log::is_leaving`]
    /// says ([`Log::weigh`]), has the thin ones chosen ([`Log::choose_thin`]), and copies the records of those, which
    /// [`Log::is_leaving`] says then. [`Log::end_leaving`] ends the round.
    pub fn begin_leaving(&mut self) -> bool {
        self.end_leaving(false);
        let begins = self.may_pay();
        if begins {
            self.usage.begin_weighing();
        }
        begins
    }

    fn may_pay(&self) -> bool {
        let mut possible = self.usage.possibly_thin(self.half_bytes());
        if self.is_low() {
            return possible.next().is_some();
        }
        let segment_bytes = u64::from(self.config.segment_bytes);
        let new_count = self.gain_count().max(u64::from(self.usage.used_count()) / NEW_ONE_OF);
        let is_due = u64::from(self.usage.unweighed_count()) >= new_count;
        let gain_bytes = || possible.map(|bytes| segment_bytes - bytes).sum::<u64>();
        !self.worthwhile(|_| true).is_empty() || is_due && gain_bytes() >= self.gain_count() * segment_bytes
    }

    /// Those of the `eligible` segments to leave, by what is known of them; none, if that does not pay. While space is short one that is thin
    /// is enough, and there is one only: what lives in it fits the spare that is kept for it.
    fn worthwhile(&self, eligible: impl Fn(SegmentId) -> bool) -> Vec<SegmentId> {
        let segment_bytes = u64::from(self.config.segment_bytes);
        let mut chosen = Vec::new();
        let (mut live_bytes, mut gain_bytes) = (0, 0);
        let thin = self.usage.thin(self.half_bytes()).into_iter();
        for (segment, bytes) in thin.filter(|&(segment, _)| eligible(segment)) {
            live_bytes += bytes;
            if live_bytes > ROUND_COUNT * segment_bytes || self.is_low() && !chosen.is_empty() {
                break;
            }
            gain_bytes += segment_bytes - bytes;
            chosen.push(segment);
        }
        if !self.is_low() && gain_bytes < self.gain_count() * segment_bytes {
            chosen.clear();
        }
        chosen
    }

    fn half_bytes(&self) -> u64 {
        u64::from(self.config.segment_bytes / 2)
    }

    fn gain_count(&self) -> u64 {
        GAIN_COUNT.min(u64::from(self.config.segment_count_max / 16)).max(1)
    }

    /// Whether the record at `p` is to be weighed, or to be written elsewhere.
    #[must_use]
    pub fn is_leaving(&self, p: Position) -> bool {
        self.usage.is_leaving(p.segment)
    }

    /// Whether the floor at `p` is, too: it does not hold the oldest mail segment.
    #[must_use]
    pub fn is_floor_leaving(&self, p: Position) -> bool {
        self.is_leaving(p) && !self.usage.is_oldest_mail(p.segment)
    }

    /// A record of so many bytes at `p` would have to be written elsewhere; `u32::MAX` if it cannot be.
    pub fn weigh(&mut self, p: Position, bytes: u32) {
        self.usage.weigh(p.segment, bytes);
    }

    /// All records were weighed: chooses the segments that are left; false when there are none. Of those that were sealed
    /// meanwhile there are estimates only: they wait for another round.
    pub fn choose_thin(&mut self) -> bool {
        let weighed = self.usage.end_weighing(self.config.segment_bytes);
        self.leaving = self.worthwhile(|segment| weighed.binary_search(&segment).is_ok());
        self.leaving.iter().for_each(|&segment| self.usage.begin_leaving(segment));
        !self.leaving.is_empty()
    }

    /// Ends a round, `done` or given up. What still lives in a segment that was to be left keeps it; returns how many were
    /// given back.
    pub fn end_leaving(&mut self, done: bool) -> u32 {
        let mut left_count = 0;
        for segment in self.leaving.drain(..) {
            left_count += u32::from(!self.usage.is_leaving(segment));
            self.usage.end_leaving(segment, done);
        }
        self.usage.stop_weighing();
        left_count
    }
}
