//! The router: an envelope goes to its own shard, to another shard's lane, or (later) to another node's link.
//!
//! Envelopes are encoded once, straight into the buffer of their lane, which leaves at the end of the turn. What a
//! shard casts to itself lies in a loop-back buffer that the same step works through.

use crate::io::{LANE_COUNT, Lane, Output, Outputs};
use alloc::vec::Vec;
use tern_protocol::envelope::{Envelope, Parts};
use tern_protocol::ids::ShardId;

#[derive(Debug, Default)]
struct LaneOut {
    /// Bytes that the lane takes now.
    room_bytes: usize,
    /// Whole envelopes that wait for the end of the turn, or for room.
    buffer: Vec<u8>,
    /// Whether the driver was asked to say when there is room again.
    wanting: bool,
    /// The largest that was refused since the driver last spoke of room.
    refused_bytes: usize,
}

/// The ways out of a shard.
#[derive(Debug)]
pub(crate) struct Router {
    own: ShardId,
    lanes: Vec<[LaneOut; LANE_COUNT]>,
    /// Shards with something to flush.
    dirty: Vec<ShardId>,
    /// What this shard cast to itself.
    loopback: Vec<u8>,
    lane_bytes: usize,
    backlog_bytes: usize,
    pub(crate) cast_count: u64,
    pub(crate) dropped_count: u64,
}

impl Router {
    pub(crate) fn new(own: ShardId, shard_count: u16, lane_bytes: usize, backlog_bytes: usize) -> Self {
        let lane = || LaneOut { room_bytes: lane_bytes, ..LaneOut::default() };
        Self {
            own,
            lanes: (0..shard_count).map(|_| [lane(), lane()]).collect(),
            dirty: Vec::new(),
            loopback: Vec::new(),
            lane_bytes,
            backlog_bytes,
            cast_count: 0,
            dropped_count: 0,
        }
    }

    /// Casts an envelope to a shard. False if there is no room: a message is then refused, a control envelope is
    /// dropped and counted (ticks are owed and come again).
    pub(crate) fn cast(&mut self, to: ShardId, lane: Lane, parts: &Parts<'_>) -> bool {
        if to == self.own {
            parts.encode(&mut self.loopback);
            return true;
        }
        let lane_out = &mut self.lanes[usize::from(to.0)][lane as usize];
        let room = match lane {
            Lane::Bulk => lane_out.room_bytes,
            Lane::Control => lane_out.room_bytes + self.backlog_bytes,
        };
        if lane_out.buffer.len() + parts.encoded_bytes() > room {
            self.dropped_count += u64::from(lane == Lane::Control);
            lane_out.refused_bytes = lane_out.refused_bytes.max(parts.encoded_bytes());
            if lane == Lane::Bulk && !lane_out.wanting && !self.dirty.contains(&to) {
                self.dirty.push(to);
            }
            return false;
        }
        if lane_out.buffer.is_empty() && !self.dirty.contains(&to) {
            self.dirty.push(to);
        }
        parts.encode(&mut lane_out.buffer);
        self.cast_count += 1;
        true
    }

    /// What the shard cast to itself since the last call, swapped into `run`, which must be empty.
    pub(crate) fn take_loopback(&mut self, run: &mut Vec<u8>) -> bool {
        debug_assert!(run.is_empty());
        core::mem::swap(run, &mut self.loopback);
        !run.is_empty()
    }

    /// The driver says how much room a lane has.
    pub(crate) fn set_room(&mut self, to: ShardId, lane: Lane, room_bytes: usize) {
        let lane_out = &mut self.lanes[usize::from(to.0)][lane as usize];
        lane_out.room_bytes = room_bytes;
        lane_out.wanting = false;
        lane_out.refused_bytes = 0;
        if !lane_out.buffer.is_empty() && !self.dirty.contains(&to) {
            self.dirty.push(to);
        }
    }

    /// Casts out what the turn gathered: control before bulk, whole envelopes, never more than the lane's room.
    pub(crate) fn flush(&mut self, out: &mut Outputs) {
        let mut dirty = core::mem::take(&mut self.dirty);
        for to in dirty.drain(..) {
            for lane in [Lane::Control, Lane::Bulk] {
                let lane_out = &mut self.lanes[usize::from(to.0)][lane as usize];
                let whole = whole_envelopes(&lane_out.buffer, lane_out.room_bytes);
                if whole > 0 {
                    let start = out.arena.len();
                    out.arena.extend_from_slice(&lane_out.buffer[..whole]);
                    lane_out.buffer.drain(..whole);
                    lane_out.room_bytes -= whole;
                    out.push(Output::Mesh { to, lane, data: start..start + whole });
                }
                // The lane's room is known only from the driver: without asking, it never grows.
                let bytes = lane_out.refused_bytes.max(self.lane_bytes / 2).min(self.lane_bytes);
                let is_short = lane_out.room_bytes < bytes || !lane_out.buffer.is_empty();
                if is_short && !lane_out.wanting {
                    lane_out.wanting = true;
                    out.push(Output::WantRoom { to, lane, bytes });
                }
            }
        }
        self.dirty = dirty;
    }
}

/// The length of the longest run of whole envelopes within `room_bytes`.
fn whole_envelopes(buffer: &[u8], room_bytes: usize) -> usize {
    if buffer.len() <= room_bytes {
        return buffer.len();
    }
    let mut end = 0;
    while let Ok((envelope, _)) = Envelope::parse_first(&buffer[end..]) {
        if end + envelope.bytes().len() > room_bytes {
            break;
        }
        end += envelope.bytes().len();
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::envelope::Kind;
    use tern_protocol::ids::{AccountId, DeviceId, MessageId};

    fn parts(body: &[u8]) -> Parts<'_> {
        Parts {
            kind: Kind::Message,
            flags: 0,
            to: AccountId(1),
            from: AccountId(2),
            from_device: DeviceId(1),
            id: MessageId(3),
            time_ms: 0,
            seq: 0,
            from_name: "a",
            body,
        }
    }

    #[test]
    fn bulk_is_refused_and_control_waits_when_there_is_no_room() {
        let mut router = Router::new(ShardId(0), 2, 200, 1000);
        let mut out = Outputs::default();
        assert!(router.cast(ShardId(1), Lane::Bulk, &parts(&[0; 100])));
        assert!(!router.cast(ShardId(1), Lane::Bulk, &parts(&[0; 100])), "157 bytes twice are more than 200");
        for _ in 0..3 {
            assert!(router.cast(ShardId(1), Lane::Control, &parts(&[0; 100])));
        }
        router.flush(&mut out);
        let sent: Vec<(Lane, usize)> = out
            .list
            .iter()
            .filter_map(|o| match o {
                Output::Mesh { lane, data, .. } => Some((*lane, data.len())),
                _ => None,
            })
            .collect();
        assert_eq!(sent, [(Lane::Control, 157), (Lane::Bulk, 157)]);
        out.clear();
        router.set_room(ShardId(1), Lane::Control, 200);
        router.flush(&mut out);
        assert!(matches!(out.list[0], Output::Mesh { lane: Lane::Control, .. }));
    }

    #[test]
    fn what_is_for_this_shard_comes_back_at_once() {
        let mut router = Router::new(ShardId(0), 1, 200, 1000);
        router.cast(ShardId(0), Lane::Bulk, &parts(b"x"));
        let mut run = Vec::new();
        assert!(router.take_loopback(&mut run));
        assert_eq!(Envelope::parse(&run).unwrap().body(), b"x");
    }
}
