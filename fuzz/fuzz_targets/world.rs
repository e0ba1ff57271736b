//! A shard on a perfect network and a perfect disk, with the connections that a target opens.

// Each target uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::mem::take;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use tern_core::ahead::Fetch;
use tern_core::io::{ConnId, Input, Now, Output, Outputs};
use tern_core::limits::Limits;
use tern_core::partitions::PartitionMap;
use tern_core::shard::{Shard, ShardConfig, ShardRecovery};
use tern_protocol::ids::ShardId;
use tern_protocol::phone::noise::KeyPair;
use tern_storage::io::{DiskDone, DiskOp};

/// Turns of a millisecond that a login's commit may take.
const TURNS_MAX: u32 = 100;

pub(crate) static SERVER: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::from_seed([1; 32]));

pub(crate) fn partitions(shard_count: u16) -> PartitionMap {
    PartitionMap::even(64, shard_count)
}

pub(crate) fn config(shard_count: u16, limits: Limits) -> ShardConfig {
    limits.validate().expect("they hold");
    ShardConfig {
        shard: ShardId(0),
        partitions: Arc::new(partitions(shard_count)),
        limits,
        proxies: Arc::new(["10.0.0.0/8".parse().expect("a network")]),
        server_keys: *SERVER,
        previous_server_keys: None,
        ticket_secret: [4; 32],
        open_registration: true,
        seed: [5; 32],
        dedup_key: [6; 16],
        fetch: Fetch::NOTHING,
        segment_bytes: 4 << 20,
    }
}

/// One connection, over whichever slots it moves.
#[derive(Default)]
struct Line {
    /// While it is read.
    read: Option<ConnId>,
    /// Whether it is read until it ends.
    is_adopted: bool,
    is_over: bool,
    /// What was said to it and is not taken yet.
    said: Vec<u8>,
}

/// The first of one or two shards.
pub(crate) struct World {
    pub(crate) shard: Shard,
    pub(crate) now: Now,
    out: Outputs,
    lines: Vec<Line>,
    /// Which line is in which slot.
    slots: BTreeMap<u32, usize>,
    /// The line that moves.
    moving: usize,
    slot_count: u32,
}

impl World {
    pub(crate) fn new(shard_count: u16, limits: Limits) -> Self {
        Self::recovered(ShardRecovery::new(config(shard_count, limits)))
    }

    pub(crate) fn recovered(recovery: ShardRecovery) -> Self {
        let (mut out, now) = (Outputs::default(), Now { mono_ns: 1_000_000_000, wall_ms: 1_800_000_000_000 });
        let (shard, _) = recovery.finish(now, 0, &mut out);
        let mut world =
            Self { shard, now, out, lines: Vec::new(), slots: BTreeMap::new(), moving: 0, slot_count: 0 };
        world.turn();
        world
    }

    /// Somebody connects: the number of the line.
    pub(crate) fn come(&mut self, address: [u8; 4]) -> usize {
        let (line, slot) = (self.lines.len(), self.new_slot());
        self.lines.push(Line::default());
        self.slots.insert(slot, line);
        let peer: SocketAddr = (address, 4000).into();
        self.step(Input::Accepted { slot, peer: Some(peer) });
        self.turn();
        assert!(self.lines[line].read.is_some(), "who comes is heard");
        line
    }

    fn new_slot(&mut self) -> u32 {
        self.slot_count += 1;
        self.slot_count - 1
    }

    pub(crate) fn step(&mut self, input: Input<'_>) {
        self.shard.step(self.now, input, &mut self.out);
    }

    /// Bytes come, and turns pass until the connection is read again: a handshake is answered in the second one.
    pub(crate) fn hear(&mut self, line: usize, bytes: &[u8]) {
        let Line { read, is_adopted, is_over, .. } = &mut self.lines[line];
        if *is_over || bytes.is_empty() {
            return;
        }
        let conn = if *is_adopted { *read } else { read.take() };
        let conn = conn.expect("it is read until it is sent away");
        self.step(Input::Received { conn, bytes: &mut bytes.to_vec() });
        self.turn();
        for _ in 0..TURNS_MAX {
            self.pass_ms(1);
            if self.lines[line].read.is_some() || self.lines[line].is_over {
                return;
            }
        }
        panic!("nobody is read or sent away after {TURNS_MAX} ms");
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now.mono_ns += 1_000_000;
            self.now.wall_ms += 1;
            self.step(Input::Tick);
            self.turn();
        }
    }

    pub(crate) fn is_over(&self, line: usize) -> bool {
        self.lines[line].is_over
    }

    /// What was said to it since the last time.
    pub(crate) fn said(&mut self, line: usize) -> Vec<u8> {
        take(&mut self.lines[line].said)
    }

    /// Flushes until nothing is left to do.
    fn turn(&mut self) {
        loop {
            self.step(Input::Flush);
            self.out.list.retain(|output| !matches!(output, Output::Continue));
            let Outputs { list, arena } = take(&mut self.out);
            if list.is_empty() {
                return;
            }
            list.into_iter().for_each(|output| self.perform(output, &arena));
        }
    }

    fn line(&mut self, conn: ConnId) -> &mut Line {
        &mut self.lines[self.slots[&conn.slot]]
    }

    fn perform(&mut self, output: Output, arena: &[u8]) {
        match output {
            Output::ReceiveOnce(conn) => self.line(conn).read = Some(conn),
            Output::ReceiveAlways(conn) => {
                let line = self.line(conn);
                (line.read, line.is_adopted) = (Some(conn), true);
            }
            Output::Send { conn, data } => {
                self.line(conn).said.extend_from_slice(&arena[data]);
                self.step(Input::Sent { conn });
            }
            Output::Close(conn) => {
                self.line(conn).is_over = true;
                self.step(Input::Closed { conn });
            }
            Output::CloseSlot(slot) => self.lines[self.slots[&slot]].is_over = true,
            // This shard plays the part of the other one, too.
            Output::MoveSocket { conn, .. } => {
                self.moving = self.slots[&conn.slot];
                self.step(Input::SocketMoved { conn, moved: true });
                self.step(Input::Closed { conn });
            }
            Output::MoveState { to, state } => {
                let (token, slot) = (state.token, self.new_slot());
                self.slots.insert(slot, self.moving);
                self.step(Input::HandOverState { from: to, state });
                self.step(Input::HandOverSocket { from: to, token, slot });
            }
            Output::Disk(DiskOp::Create { segment, .. }) => {
                self.step(Input::Disk(DiskDone::Created { segment, result: Ok(()) }));
            }
            Output::Disk(DiskOp::Write { segment, offset, .. }) => {
                self.step(Input::Disk(DiskDone::Written { segment, offset, result: Ok(()) }));
            }
            Output::Fatal(error) => panic!("the node is ended: {error:?}"),
            _ => {}
        }
    }
}
