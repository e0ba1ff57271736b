//! What a shard measures beside its counters: latencies, and envelopes by their kind.

use crate::histogram::Histogram;
use crate::io::{LANE_COUNT, Lane};
use tern_protocol::envelope::Kind;

/// Kinds of envelopes that are told apart, by their value on the wire; later ones count as the last.
pub const KIND_COUNT: usize = 24;

/// Envelopes by kind.
pub type ByKind = [u64; KIND_COUNT];

/// Measured since boot.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Measures {
    /// From the start of a group commit until it is durable.
    pub commit: Histogram,
    /// From a message's arrival at its sender's session until its `sent` tick is on its way to the device.
    pub sent: Histogram,
    /// From a message's arrival at its sender's shard until it is on its way to a device that had all before it: once
    /// for each device, by the wall clock, rounded up to a whole millisecond. Where mail has waited for the device to
    /// take or to acknowledge what it was sent before, nothing counts until it has caught up.
    pub delivery: Histogram,
    /// Envelopes that left, or that the shard cast to itself.
    pub out: EnvelopesOut,
    /// Envelopes that came from other shards.
    pub mesh_in: ByKind,
}

/// Envelopes that were cast, by lane and kind.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct EnvelopesOut {
    /// To the shard itself.
    pub own: [ByKind; LANE_COUNT],
    /// To other shards.
    pub mesh: [ByKind; LANE_COUNT],
}

impl EnvelopesOut {
    pub(crate) fn count(&mut self, to_own: bool, lane: Lane, kind: Kind) {
        let way = if to_own { &mut self.own } else { &mut self.mesh };
        way[lane as usize][place(kind)] += 1;
    }

    /// Whether each kind that was cast travels in the lane that [`lane_of`] says.
    pub(crate) fn keep_their_lanes(&self) -> bool {
        [&self.own, &self.mesh]
            .into_iter()
            .flat_map(|lanes| [Lane::Control, Lane::Bulk].into_iter().zip(lanes))
            .all(|(lane, kinds)| {
                let kinds = (0_u8..).zip(kinds).filter(|(_, count)| **count > 0);
                kinds.filter_map(|(kind, _)| Kind::from_wire(kind)).all(|kind| lane_of(kind) == lane)
            })
    }
}

/// The lane that envelopes of a kind travel in: messages, and what may be dropped, leave way for everything else.
#[must_use]
pub const fn lane_of(kind: Kind) -> Lane {
    match kind {
        Kind::Message | Kind::Watch | Kind::Presence | Kind::Typing => Lane::Bulk,
        _ => Lane::Control,
    }
}

/// The place of a kind in [`ByKind`].
pub(crate) fn place(kind: Kind) -> usize {
    (kind as usize).min(KIND_COUNT - 1)
}
