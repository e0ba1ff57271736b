//! The mesh between the shards of a node: bounded byte queues, one for each ordered pair and lane, in which a large
//! envelope takes the place of a marker, and what is boxed so is bounded for each sender.

use crate::random::Random;
use std::collections::{BTreeMap, VecDeque};
use tern_core::io::Lane;
use tern_core::lanes::{cost_bytes, is_boxed};
use tern_protocol::envelope::Envelope;
use tern_protocol::ids::ShardId;

/// One queue's place: from, to, lane.
type Key = (u16, u16, u8);

#[derive(Debug, Default)]
struct Queue {
    /// Runs of whole envelopes.
    runs: VecDeque<Vec<u8>>,
    used_bytes: usize,
    /// The sender waits for so much room.
    wanted_bytes: Option<usize>,
}

/// All queues of a node.
#[derive(Debug)]
pub struct Lanes {
    queues: BTreeMap<Key, Queue>,
    lane_bytes: usize,
    boxed: BTreeMap<u16, Boxed>,
    boxed_bytes_max: usize,
}

/// Bytes of a sender's boxed envelopes since the start.
#[derive(Clone, Copy, Default, Debug)]
struct Boxed {
    sent_bytes: u64,
    taken_bytes: u64,
    /// What it was told of these.
    told_bytes: u64,
}

/// Room that a sender waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Who waits.
    pub from: ShardId,
    /// For which queue.
    pub to: ShardId,
    /// And lane.
    pub lane: Lane,
    /// What may be sent now.
    pub room_bytes: usize,
}

impl Lanes {
    /// Empty lanes of `lane_bytes` each.
    #[must_use]
    pub const fn new(lane_bytes: usize, boxed_bytes_max: usize) -> Self {
        Self { queues: BTreeMap::new(), lane_bytes, boxed: BTreeMap::new(), boxed_bytes_max }
    }

    /// What a run takes of its lane, and its boxed bytes.
    fn measure(&self, mut run: &[u8]) -> Result<(usize, usize), String> {
        let (mut cost, mut boxed) = (0, 0);
        while !run.is_empty() {
            let (envelope, rest) =
                Envelope::parse_first(run).map_err(|error| format!("mesh run: {error:?}"))?;
            let bytes = envelope.bytes().len();
            cost += cost_bytes(bytes, self.lane_bytes);
            boxed += if is_boxed(bytes, self.lane_bytes) { bytes } else { 0 };
            run = rest;
        }
        Ok((cost, boxed))
    }

    /// Puts a run of envelopes on a lane.
    ///
    /// # Errors
    /// When the run is not whole envelopes or does not fit.
    pub fn push(&mut self, from: ShardId, to: ShardId, lane: Lane, run: &[u8]) -> Result<(), String> {
        let (cost, boxed) = self.measure(run)?;
        if from == to {
            return Err(format!("{from:?} sends to itself over the mesh"));
        }
        let queue = self.queues.entry((from.0, to.0, lane as u8)).or_default();
        if queue.used_bytes + cost > self.lane_bytes {
            let (used, more) = (queue.used_bytes, cost);
            return Err(format!("{lane:?} lane {from:?} to {to:?} has {used} bytes and gets {more} more"));
        }
        queue.used_bytes += cost;
        queue.runs.push_back(run.to_vec());
        let boxed_by = self.boxed.entry(from.0).or_default();
        boxed_by.sent_bytes += boxed as u64;
        let boxed_bytes = boxed_by.sent_bytes - boxed_by.taken_bytes;
        if boxed_bytes > self.boxed_bytes_max as u64 {
            return Err(format!("{from:?} has {boxed_bytes} bytes boxed"));
        }
        Ok(())
    }

    /// The sender wants to hear when there is room for `bytes`; answered at once where there is.
    pub fn want(&mut self, from: ShardId, to: ShardId, lane: Lane, bytes: usize) -> Option<Room> {
        let queue = self.queues.entry((from.0, to.0, lane as u8)).or_default();
        queue.wanted_bytes = Some(bytes);
        self.room(from, to, lane)
    }

    /// Takes what `to` reads next from one of its lanes, control first: its sender and one or more envelopes.
    pub fn pop(&mut self, to: ShardId, random: &mut Random) -> Option<(ShardId, Lane, Vec<u8>)> {
        for lane in [Lane::Control, Lane::Bulk] {
            let talking: Vec<u16> = self
                .queues
                .iter()
                .filter(|(key, queue)| key.1 == to.0 && key.2 == lane as u8 && !queue.runs.is_empty())
                .map(|(key, _)| key.0)
                .collect();
            if talking.is_empty() {
                continue;
            }
            let from = random.pick(&talking);
            let queue = self.queues.get_mut(&(from, to.0, lane as u8))?;
            let mut run = queue.runs.pop_front()?;
            if random.chance(30) {
                // The reader may take a run in parts, at any envelope.
                let first_bytes =
                    Envelope::parse_first(&run).map_or(run.len(), |(first, _)| first.bytes().len());
                let rest = run.split_off(first_bytes);
                if !rest.is_empty() {
                    queue.runs.push_front(rest);
                }
            }
            let (cost, boxed) = self.measure(&run).ok()?;
            self.queues.get_mut(&(from, to.0, lane as u8))?.used_bytes -= cost;
            self.boxed.entry(from).or_default().taken_bytes += boxed as u64;
            return Some((ShardId(from), lane, run));
        }
        None
    }

    /// Whether a sender waits for this lane and has its room now; it is told once.
    pub fn room(&mut self, from: ShardId, to: ShardId, lane: Lane) -> Option<Room> {
        let queue = self.queues.get_mut(&(from.0, to.0, lane as u8))?;
        let room_bytes = self.lane_bytes - queue.used_bytes;
        if queue.wanted_bytes? > room_bytes {
            return None;
        }
        queue.wanted_bytes = None;
        Some(Room { from, to, lane, room_bytes })
    }

    /// The room that a lane has now: what its sender is told, who may have used some since it asked.
    #[must_use]
    pub fn free_bytes(&self, from: ShardId, to: ShardId, lane: Lane) -> usize {
        let used = self.queues.get(&(from.0, to.0, lane as u8)).map_or(0, |queue| queue.used_bytes);
        self.lane_bytes - used
    }

    /// Bytes of boxed envelopes of `from` that were taken since the start, if they have grown since the last call.
    pub fn boxes_taken(&mut self, from: ShardId) -> Option<u64> {
        let boxed_by = self.boxed.get_mut(&from.0)?;
        let taken_bytes = boxed_by.taken_bytes;
        (std::mem::replace(&mut boxed_by.told_bytes, taken_bytes) != taken_bytes).then_some(taken_bytes)
    }

    /// Whether anything waits for `to`.
    #[must_use]
    pub fn waits(&self, to: ShardId) -> bool {
        self.queues.iter().any(|(key, queue)| key.1 == to.0 && !queue.runs.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::envelope::{Kind, Parts};
    use tern_protocol::ids::{AccountId, DeviceId, MessageId};

    fn envelope(body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Parts {
            kind: Kind::Message,
            flags: 0,
            to: AccountId(1),
            from: AccountId(2),
            from_device: DeviceId(1),
            id: MessageId(3),
            time_ms: 4,
            seq: 0,
            from_name: "a",
            body,
        }
        .encode(&mut bytes);
        bytes
    }

    #[test]
    fn lanes_are_bounded_keep_order_and_tell_of_room() {
        let one = envelope(b"one");
        let run = one.repeat(5);
        let mut lanes = Lanes::new(run.len() + 10, 1000);
        let (a, b) = (ShardId(0), ShardId(1));
        lanes.push(a, b, Lane::Bulk, &run).unwrap();
        assert!(lanes.push(a, b, Lane::Bulk, &one).is_err());
        assert!(lanes.push(a, b, Lane::Control, &one[1..]).is_err());
        assert_eq!(lanes.want(a, b, Lane::Bulk, one.len()), None);
        lanes.push(a, b, Lane::Control, &one).unwrap();
        let mut random = Random::new(1);
        assert_eq!(lanes.pop(b, &mut random).unwrap().1, Lane::Control);
        let mut got = Vec::new();
        while let Some((_, _, part)) = lanes.pop(b, &mut random) {
            got.extend(part);
        }
        assert_eq!(got, run);
        assert_eq!(lanes.room(a, b, Lane::Bulk).unwrap().room_bytes, run.len() + 10);
        assert_eq!(lanes.room(a, b, Lane::Bulk), None);
        assert!(!lanes.waits(b));
        // Larger than the lane, and passes; as much again is more than may be boxed.
        let large = envelope(&[7; 800]);
        lanes.push(a, b, Lane::Bulk, &large).unwrap();
        assert_eq!(lanes.boxes_taken(a), None);
        assert_eq!(lanes.pop(b, &mut random).unwrap().2, large);
        let large_bytes = large.len() as u64;
        assert_eq!((lanes.boxes_taken(a), lanes.boxes_taken(a)), (Some(large_bytes), None));
        // One more comes and goes between two looks.
        lanes.push(a, b, Lane::Bulk, &large).unwrap();
        assert_eq!(lanes.pop(b, &mut random).unwrap().2, large);
        assert_eq!(lanes.boxes_taken(a), Some(2 * large_bytes));
        assert!(lanes.push(a, b, Lane::Bulk, &large.repeat(2)).is_err());
    }
}
