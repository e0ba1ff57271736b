//! A shard's turn: completions, mesh, flush, outputs, sleep.

use super::{Completion, Node, NodeEvent};
use crate::scene::{Event, Scene};
use crate::schedule::US;
use tern_core::io::{Input, Lane};
use tern_protocol::ids::ShardId;

impl Node {
    /// Something happened inside the node.
    pub fn handle(&mut self, scene: &mut Scene, event: NodeEvent) {
        match event {
            NodeEvent::Turn(shard) => {
                let due = self.driven[usize::from(shard)].turn_ns == Some(scene.now_ns());
                if due {
                    self.turn(scene, shard);
                }
            }
            NodeEvent::Post(shard, completion) => self.post(scene, shard, completion),
            NodeEvent::SendDone(shard, conn) => self.send_done(scene, shard, conn),
            NodeEvent::CloseNow(shard, conn) => self.close_now(scene, shard, conn),
            NodeEvent::Move(shard, conn, to, token) => self.move_socket(scene, shard, conn, to, token),
            NodeEvent::MovedAway(shard, conn) => self.moved_away(scene, shard, conn),
            NodeEvent::Disk(shard, ticket) => {
                let Some(finished) = self.disks[usize::from(shard)].finish(ticket) else { return };
                scene.oracle.written(&finished.written);
                self.post(scene, shard, Completion::Disk(finished.done));
            }
        }
    }

    fn turn(&mut self, scene: &mut Scene, shard: u16) {
        let index = usize::from(shard);
        self.driven[index].turn_ns = None;
        let now_ns = scene.now_ns();
        let deadline_ns = self.driven[index].shard.next_deadline();
        let overdue = deadline_ns.is_some_and(|due_ns| due_ns <= self.mono_start_ns + now_ns);
        if let Some(taken_bytes) = self.lanes.boxes_taken(ShardId(shard)) {
            self.step(scene, shard, Input::BoxesTaken { taken_bytes }, &[20, taken_bytes], &[]);
        }
        let eager = scene.random().chance(50);
        let waiting = self.driven[index].inbox.len();
        let count = if scene.random().chance(70) { waiting } else { scene.random().index(waiting + 1) };
        for _ in 0..count {
            if let Some(completion) = self.driven[index].inbox.pop_front() {
                self.step_completion(scene, shard, completion);
                if eager {
                    self.perform(scene, shard);
                }
            }
        }
        let budget = scene.random().range(1, 8);
        for _ in 0..budget {
            let popped = self.lanes.pop(ShardId(shard), scene.random());
            let Some((from, lane, run)) = popped else { break };
            self.step(scene, shard, Input::Mesh { from, envelopes: &run }, &[3, u64::from(from.0)], &run);
            self.give_room(scene, from, ShardId(shard), lane);
        }
        if std::mem::take(&mut self.driven[index].tick_due) || overdue {
            self.step(scene, shard, Input::Tick, &[1], &[]);
        }
        self.step(scene, shard, Input::Flush, &[2], &[]);
        self.perform(scene, shard);
        self.note_rewriting(scene, shard);
        self.plan_next_turn(scene, shard);
    }

    /// A crash may wait for copies: then the node stops while they are being written, or soon after.
    fn note_rewriting(&mut self, scene: &mut Scene, shard: u16) {
        let Some(driven) = self.driven.get_mut(usize::from(shard)) else { return };
        let rewritten_bytes = driven.shard.counters().log_rewritten_bytes;
        if std::mem::replace(&mut driven.rewritten_bytes, rewritten_bytes) != rewritten_bytes
            && let Some(fault) = scene.crash_on_rewriting.take()
        {
            let longest_ns = 2 * scene.plan.disk_ns_max;
            let delay_ns = scene.random().below(longest_ns);
            scene.schedule.after(delay_ns, Event::Crash(fault));
        }
    }

    fn plan_next_turn(&mut self, scene: &mut Scene, shard: u16) {
        // A crash in the middle of the turn took the shards away.
        let Some(driven) = self.driven.get(usize::from(shard)) else { return };
        if driven.tick_due || !driven.inbox.is_empty() || self.lanes.waits(ShardId(shard)) {
            self.turn_soon(scene, shard);
        }
        let Some(driven) = self.driven.get(usize::from(shard)) else { return };
        if let Some(deadline_ns) = driven.shard.next_deadline() {
            let late_ns = scene.random().below(50 * US) + US;
            let time_ns = deadline_ns.saturating_sub(self.mono_start_ns).max(scene.now_ns()) + late_ns;
            self.turn_at(scene, shard, time_ns);
        }
    }

    fn give_room(&mut self, scene: &mut Scene, from: ShardId, to: ShardId, lane: Lane) {
        if self.lanes.room(from, to, lane).is_some() {
            let longest_ns = scene.plan.turn_ns_max;
            let delay_ns = scene.random().below(longest_ns) + 1;
            let completion = Completion::LaneRoom(to, lane);
            self.later(scene, delay_ns, NodeEvent::Post(from.0, completion));
        }
    }

    fn step_completion(&mut self, scene: &mut Scene, shard: u16, completion: Completion) {
        let conn_words = |conn: tern_core::io::ConnId| [u64::from(conn.slot), u64::from(conn.generation)];
        match completion {
            Completion::Accepted(slot, peer) => {
                self.step(scene, shard, Input::Accepted { slot, peer }, &[4, u64::from(slot)], &[]);
            }
            Completion::Received(conn, mut bytes) => {
                let copy = bytes.clone();
                let [slot, generation] = conn_words(conn);
                // A driver has it prepare for who comes, and for who has gone meanwhile.
                let gone = tern_core::io::ConnId { generation: conn.generation.wrapping_sub(1), ..conn };
                let comes = |count| Some(if count % 2 == 0 { conn } else { gone });
                self.driven[usize::from(shard)].shard.expect(true, comes);
                let input = Input::Received { conn, bytes: &mut bytes };
                self.step(scene, shard, input, &[5, slot, generation], &copy);
            }
            Completion::Ended(conn) => {
                let [slot, generation] = conn_words(conn);
                self.step(scene, shard, Input::Ended { conn }, &[6, slot, generation], &[]);
            }
            Completion::Sent(conn) => {
                let [slot, generation] = conn_words(conn);
                self.step(scene, shard, Input::Sent { conn }, &[7, slot, generation], &[]);
            }
            Completion::Closed(conn) => {
                let [slot, generation] = conn_words(conn);
                self.step(scene, shard, Input::Closed { conn }, &[8, slot, generation], &[]);
            }
            Completion::SocketMoved(conn, moved) => {
                let [slot, generation] = conn_words(conn);
                let input = Input::SocketMoved { conn, moved };
                self.step(scene, shard, input, &[9, slot, generation, u64::from(moved)], &[]);
            }
            Completion::HandOverSocket(from, token, slot) => {
                let input = Input::HandOverSocket { from, token, slot };
                self.step(scene, shard, input, &[10, u64::from(from.0), token.0, u64::from(slot)], &[]);
            }
            Completion::HandOverState(from, state) => {
                let words = [11, u64::from(from.0), state.token.0];
                self.step(scene, shard, Input::HandOverState { from, state }, &words, &[]);
            }
            Completion::LaneRoom(to, lane) => {
                let room_bytes = self.lanes.free_bytes(ShardId(shard), to, lane);
                let input = Input::LaneRoom { to, lane, room_bytes };
                self.step(scene, shard, input, &[12, u64::from(to.0), lane as u64, room_bytes as u64], &[]);
            }
            Completion::Disk(done) => {
                self.step(scene, shard, Input::Disk(done), &[13], format!("{done:?}").as_bytes());
            }
            Completion::Control(token, request) => {
                self.step(scene, shard, Input::Control { token, request }, &[14, token], &[]);
            }
            Completion::Drain => self.step(scene, shard, Input::Drain, &[15], &[]),
        }
    }

    /// Steps a shard; `words` and `bytes` are what the trace takes in of the input.
    fn step(&mut self, scene: &mut Scene, shard: u16, input: Input<'_>, words: &[u64], bytes: &[u8]) {
        let now = self.now(scene);
        let trace = &mut scene.schedule.trace;
        trace.word(u64::from(shard));
        trace.word(now.mono_ns);
        words.iter().for_each(|&word| trace.word(word));
        trace.bytes(bytes);
        scene.schedule.tell(|| match &input {
            Input::Received { conn, bytes } => format!("shard {shard} <- {} bytes on {conn:?}", bytes.len()),
            Input::Mesh { from, envelopes } => {
                format!("shard {shard} <- {} bytes of mesh from {from:?}", envelopes.len())
            }
            input => format!("shard {shard} <- {input:?}"),
        });
        let driven = &mut self.driven[usize::from(shard)];
        driven.shard.step(now, input, &mut driven.outputs);
    }
}
