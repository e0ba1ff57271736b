//! Which segments are worth to be left: those whose live records, written elsewhere, give back more than they take.
//!
//! One at least half of which is dead is thin. What lives in it is estimated by count first; the caller then finds its
//! records and weighs them, and a segment that turns out to be no thin one is left alone until much more of it has died.
//! So a round writes at most as many bytes as it gives back, however the sizes of records are spread.

use super::segment::Position;
use super::stream::Log;

/// A round begins when it gives back so many segments, or as many as a sixteenth of those that there may be.
const GAIN_COUNT: u64 = 4;
/// Most segments that the live records of one round fill, as estimated.
const ROUND_COUNT: u64 = 2;

impl Log {
    /// Chooses the segments that the next round leaves; false if it does not pay. While space is short one that is thin
    /// is enough, and there is one only: what lives in it fits the spare that is kept for it.
    ///
    /// The caller then goes twice through all that it keeps: it weighs each record in a segment that [`Log::is_leaving`]
    /// says ([`Log::weigh`]), has those that are not thin dropped ([`Log::drop_dense`]), and copies the records of the
    /// others. [`Log::end_leaving`] ends the round.
    pub fn begin_leaving(&mut self) -> bool {
        self.end_leaving(false);
        let segment_bytes = u64::from(self.config.segment_bytes);
        let thin = self.usage.thin(self.config.segment_bytes);
        if self.is_low() {
            self.leaving.extend(thin.first().map(|&(segment, _)| segment));
        } else {
            let (mut live_bytes, mut gain_bytes) = (0, 0);
            for (segment, bytes) in thin {
                live_bytes += bytes;
                if live_bytes > ROUND_COUNT * segment_bytes {
                    break;
                }
                gain_bytes += segment_bytes - bytes;
                self.leaving.push(segment);
            }
            let gain_count = GAIN_COUNT.min(u64::from(self.config.segment_count_max / 16)).max(1);
            if gain_bytes < gain_count * segment_bytes {
                self.leaving.clear();
            }
        }
        for &segment in &self.leaving {
            self.usage.begin_leaving(segment);
        }
        !self.leaving.is_empty()
    }

    /// Whether the record at `p` is to be written elsewhere.
    #[must_use]
    pub fn is_leaving(&self, p: Position) -> bool {
        self.usage.leaving_bytes(p.segment).is_some()
    }

    /// Whether the floor at `p` is to be written elsewhere: it does not hold the oldest mail segment.
    #[must_use]
    pub fn is_floor_leaving(&self, p: Position) -> bool {
        self.is_leaving(p) && !self.usage.is_oldest_mail(p.segment)
    }

    /// A record of so many bytes at `p` is to be written elsewhere; `u32::MAX` if it cannot be.
    pub fn weigh(&mut self, p: Position, bytes: u32) {
        self.usage.weigh(p.segment, bytes);
    }

    /// Leaves out the segments that weigh more than half; false when none remain.
    pub fn drop_dense(&mut self) -> bool {
        let half_bytes = self.config.segment_bytes / 2;
        let usage = &mut self.usage;
        self.leaving.retain(|&segment| {
            let is_thin = usage.leaving_bytes(segment).is_some_and(|bytes| bytes <= half_bytes);
            if !is_thin {
                usage.end_leaving(segment, true);
            }
            is_thin
        });
        !self.leaving.is_empty()
    }

    /// Ends a round, `done` or given up. What still lives in a segment that was to be left keeps it; returns how many were
    /// given back.
    pub fn end_leaving(&mut self, done: bool) -> u32 {
        let mut left_count = 0;
        for segment in self.leaving.drain(..) {
            left_count += u32::from(self.usage.leaving_bytes(segment).is_none());
            self.usage.end_leaving(segment, done);
        }
        left_count
    }
}
