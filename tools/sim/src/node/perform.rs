//! What a shard asked for: done as the kernel would, and checked against the contract.

use super::{Completion, Node, NodeEvent};
use crate::network::{Direction, LinkId};
use crate::scene::Scene;
use crate::schedule::{MS, SECOND, US};
use crate::slots::Receive;
use std::ops::Range;
use tern_core::io::{ConnId, HandOverToken, Output};
use tern_protocol::ids::ShardId;
use tern_storage::io::DiskOp;

/// What a socket's send buffer takes before a send waits for its peer, bytes.
const SEND_BUFFER_BYTES: usize = 2048;

impl Node {
    /// Does everything that the shard has asked for, in order.
    pub(super) fn perform(&mut self, scene: &mut Scene, shard: u16) {
        let mut outputs = std::mem::take(&mut self.driven[usize::from(shard)].outputs);
        let list = std::mem::take(&mut outputs.list);
        for output in list {
            self.perform_one(scene, shard, output, &outputs.arena);
        }
        outputs.clear();
        if let Some(driven) = self.driven.get_mut(usize::from(shard)) {
            driven.outputs = outputs;
        }
    }

    fn perform_one(&mut self, scene: &mut Scene, shard: u16, output: Output, arena: &[u8]) {
        trace(scene, shard, &output, arena);
        scene.schedule.tell(|| format!("shard {shard} -> {output:?}"));
        match output {
            Output::ReceiveOnce(conn) => self.receive(scene, shard, conn, Receive::Once),
            Output::WatchForEnd(conn) => self.watch(scene, shard, conn),
            Output::ReceiveAlways(conn) => self.receive(scene, shard, conn, Receive::Always),
            Output::Send { conn, data } => self.send(scene, shard, conn, &arena[data]),
            Output::Close(conn) => self.close(scene, shard, conn),
            Output::MoveSocket { conn, to, token } => self.ask_move(scene, shard, conn, to, token),
            Output::MoveState { to, state } => {
                let longest_ns = scene.plan.move_ns_max;
                let delay_ns = scene.random().below(longest_ns) + 1;
                let completion = Completion::HandOverState(ShardId(shard), state);
                self.later(scene, delay_ns, NodeEvent::Post(to.0, completion));
            }
            Output::CloseSlot(slot) => self.close_slot(scene, shard, slot),
            Output::Mesh { to, lane, data } => {
                let verdict = self.lanes.push(ShardId(shard), to, lane, &arena[data]);
                scene.judge(verdict);
                self.turn_soon(scene, to.0);
            }
            Output::WantRoom { to, lane, bytes } => {
                if self.lanes.want(ShardId(shard), to, lane, bytes).is_some() {
                    self.post(scene, shard, Completion::LaneRoom(to, lane));
                }
            }
            Output::Disk(op) => self.start_disk(scene, shard, op, arena),
            Output::Reply { token, reply } => self.replies.push((token, reply)),
            Output::Serving => self.driven[usize::from(shard)].is_serving = true,
            Output::Continue => self.driven[usize::from(shard)].tick_due = true,
            Output::Drained => self.driven[usize::from(shard)].is_drained = true,
            Output::Fatal(error) => self.fatal = Some(error),
        }
    }

    fn start_disk(&mut self, scene: &mut Scene, shard: u16, op: DiskOp, arena: &[u8]) {
        let verdict = self.disks[usize::from(shard)].start(op, arena);
        if let Some((ticket, delay_ns)) = scene.judge(verdict) {
            self.later(scene, delay_ns, NodeEvent::Disk(shard, ticket));
        }
    }

    fn receive(&mut self, scene: &mut Scene, shard: u16, conn: ConnId, receive: Receive) {
        let verdict = self.driven[usize::from(shard)].slots.named(conn).and_then(|socket| {
            if socket.receive != Receive::None {
                return Err(format!("{conn:?} has two receives"));
            }
            if socket.adopted && receive == Receive::Once {
                return Err(format!("{conn:?} is adopted and receives once"));
            }
            if socket.moving || socket.closing {
                return Err(format!("{conn:?} receives on its way out"));
            }
            socket.receive = receive;
            socket.watched = false;
            socket.adopted |= receive == Receive::Always;
            Ok(())
        });
        scene.judge(verdict);
        self.pump(scene, shard, conn.slot);
    }

    fn watch(&mut self, scene: &mut Scene, shard: u16, conn: ConnId) {
        let verdict = self.driven[usize::from(shard)].slots.named(conn).and_then(|socket| {
            if socket.receive != Receive::None || socket.moving || socket.closing {
                return Err(format!("{conn:?} is watched while it receives, moves or closes"));
            }
            socket.watched = true;
            Ok(())
        });
        scene.judge(verdict);
        self.pump(scene, shard, conn.slot);
    }

    fn send(&mut self, scene: &mut Scene, shard: u16, conn: ConnId, bytes: &[u8]) {
        let verdict = self.driven[usize::from(shard)].slots.named(conn).and_then(|socket| {
            if socket.sending || socket.moving || socket.closing {
                let (sending, moving) = (socket.sending, socket.moving);
                return Err(format!("{conn:?} sends (sending {sending}, moving {moving}) when it may not"));
            }
            if bytes.is_empty() {
                return Err(format!("{conn:?} sends nothing"));
            }
            socket.sending = true;
            Ok(socket.link)
        });
        if let Some(link) = scene.judge(verdict) {
            scene.write(link, Direction::Down, bytes);
            let delay_ns = scene.random().below(200 * US) + 1;
            self.later(scene, delay_ns, NodeEvent::SendDone(shard, conn));
        }
    }

    /// Looks whether the kernel has all of a send.
    pub(super) fn send_done(&mut self, scene: &mut Scene, shard: u16, conn: ConnId) {
        let Some(socket) = self.driven[usize::from(shard)].slots.find(conn) else { return };
        let (link, closing) = (socket.link, socket.closing);
        if scene.network.flying_bytes(link, Direction::Down) > SEND_BUFFER_BYTES {
            self.later(scene, MS, NodeEvent::SendDone(shard, conn));
            return;
        }
        socket.sending = false;
        self.post(scene, shard, Completion::Sent(conn));
        if closing {
            self.close_now(scene, shard, conn);
        }
    }

    fn close(&mut self, scene: &mut Scene, shard: u16, conn: ConnId) {
        let verdict = self.driven[usize::from(shard)].slots.named(conn).and_then(|socket| {
            if socket.closing || socket.moving {
                return Err(format!("{conn:?} is closed twice or while it moves"));
            }
            socket.closing = true;
            socket.watched = false;
            Ok(socket.sending)
        });
        match scene.judge(verdict) {
            Some(true) => self.later(scene, SECOND, NodeEvent::CloseNow(shard, conn)),
            Some(false) => {
                let delay_ns = scene.random().below(300 * US) + 1;
                self.later(scene, delay_ns, NodeEvent::CloseNow(shard, conn));
            }
            None => {}
        }
    }

    /// Closes the descriptor: receives end, then the slot is free and may be used again at once.
    pub(super) fn close_now(&mut self, scene: &mut Scene, shard: u16, conn: ConnId) {
        let slots = &mut self.driven[usize::from(shard)].slots;
        if slots.find(conn).is_none() {
            return;
        }
        let Some(socket) = slots.free(conn.slot) else { return };
        if socket.sending {
            scene.reset(socket.link);
            self.post(scene, shard, Completion::Sent(conn));
        }
        if socket.receive != Receive::None {
            let raced = scene.network.read(socket.link, Direction::Up, 4096);
            if !raced.is_empty() && scene.random().chance(50) {
                self.post(scene, shard, Completion::Received(conn, raced));
            }
            if socket.receive == Receive::Always || scene.random().chance(50) {
                self.post(scene, shard, Completion::Ended(conn));
            }
        }
        self.post(scene, shard, Completion::Closed(conn));
        self.release(scene, socket.link);
    }

    fn close_slot(&mut self, scene: &mut Scene, shard: u16, slot: u32) {
        let freed = self.driven[usize::from(shard)].slots.free(slot);
        let verdict = match freed {
            None => Err(format!("shard {shard} closes slot {slot}, which is empty")),
            Some(socket) if socket.conn.is_some() => {
                Err(format!("shard {shard} closes slot {slot} although it took its socket"))
            }
            Some(socket) => Ok(socket.link),
        };
        if let Some(link) = scene.judge(verdict) {
            self.release(scene, link);
        }
    }

    /// The node closed its end of a link.
    fn release(&mut self, scene: &mut Scene, link: LinkId) {
        self.places.remove(&link);
        self.forget(scene, link);
        scene.finish(link, Direction::Down);
        scene.network.deafen(link, Direction::Up);
    }

    fn ask_move(&mut self, scene: &mut Scene, shard: u16, conn: ConnId, to: ShardId, token: HandOverToken) {
        let verdict = self.driven[usize::from(shard)].slots.named(conn).and_then(|socket| {
            if socket.receive != Receive::None || socket.adopted {
                return Err(format!("{conn:?} moves with a receive under way"));
            }
            if socket.sending || socket.closing || socket.moving {
                return Err(format!("{conn:?} moves while it sends, closes or moves"));
            }
            socket.moving = true;
            socket.watched = false;
            Ok(())
        });
        scene.judge(verdict);
        let longest_ns = scene.plan.move_ns_max;
        let delay_ns = scene.random().below(longest_ns) + 1;
        self.later(scene, delay_ns, NodeEvent::Move(shard, conn, to, token));
    }

    /// The kernel puts the socket into the other table, or cannot.
    pub(super) fn move_socket(
        &mut self,
        scene: &mut Scene,
        shard: u16,
        conn: ConnId,
        to: ShardId,
        token: HandOverToken,
    ) {
        let Some(socket) = self.driven[usize::from(shard)].slots.find(conn) else { return };
        let link = socket.link;
        let fails = self.moves_fail_until_ns > scene.now_ns();
        let slot = if fails { None } else { self.driven[usize::from(to.0)].slots.insert(link) };
        let Some(slot) = slot else {
            if let Some(socket) = self.driven[usize::from(shard)].slots.find(conn) {
                socket.moving = false;
            }
            self.post(scene, shard, Completion::SocketMoved(conn, false));
            return;
        };
        self.places.insert(link, (to.0, slot));
        self.post(scene, to.0, Completion::HandOverSocket(ShardId(shard), token, slot));
        self.haunt(scene, to.0, slot);
        self.post(scene, shard, Completion::SocketMoved(conn, true));
        let delay_ns = scene.random().below(500 * US) + 1;
        self.later(scene, delay_ns, NodeEvent::MovedAway(shard, conn));
    }

    /// The source closed its own slot of a moved socket.
    pub(super) fn moved_away(&mut self, scene: &mut Scene, shard: u16, conn: ConnId) {
        let slots = &mut self.driven[usize::from(shard)].slots;
        if slots.find(conn).is_some() {
            slots.free(conn.slot);
            self.post(scene, shard, Completion::Closed(conn));
        }
    }
}

/// Takes an output into the trace.
fn trace(scene: &mut Scene, shard: u16, output: &Output, arena: &[u8]) {
    let conn = |conn: &ConnId| u64::from(conn.slot) << 32 | u64::from(conn.generation);
    let bytes = |range: &Range<usize>| arena[range.clone()].to_vec();
    let (kind, word, data) = match output {
        Output::ReceiveOnce(c) => (1, conn(c), Vec::new()),
        Output::ReceiveAlways(c) => (2, conn(c), Vec::new()),
        Output::Send { conn: c, data } => (3, conn(c), bytes(data)),
        Output::Close(c) => (4, conn(c), Vec::new()),
        Output::MoveSocket { conn: c, to, token } => {
            (5, conn(c) ^ u64::from(to.0) << 16 ^ token.0, Vec::new())
        }
        Output::MoveState { to, state } => (6, u64::from(to.0) << 32 | state.token.0, Vec::new()),
        Output::CloseSlot(slot) => (7, u64::from(*slot), Vec::new()),
        Output::Mesh { to, lane, data } => (8, u64::from(to.0) << 8 | *lane as u64, bytes(data)),
        Output::WantRoom { to, lane, bytes } => {
            (9, u64::from(to.0) << 8 | *lane as u64 | (*bytes as u64) << 32, Vec::new())
        }
        Output::Disk(DiskOp::Write { segment, offset, data }) => {
            (10, u64::from(segment.0) << 32 | u64::from(*offset), bytes(data))
        }
        Output::Disk(DiskOp::Create { segment, bytes }) => {
            (11, u64::from(segment.0) << 32 | u64::from(*bytes), Vec::new())
        }
        Output::Reply { token, .. } => (12, *token, Vec::new()),
        Output::Serving => (13, 0, Vec::new()),
        Output::Continue => (14, 0, Vec::new()),
        Output::Drained => (15, 0, Vec::new()),
        Output::Fatal(_) => (16, 0, Vec::new()),
        Output::WatchForEnd(c) => (17, conn(c), Vec::new()),
    };
    let trace = &mut scene.schedule.trace;
    trace.word(0x6f75_7400 | u64::from(shard));
    trace.word(kind);
    trace.word(word);
    trace.bytes(&data);
}
