//! A stranger's bytes at a whole shard, cut anywhere, with and without a balancer's header: nothing panics, nobody comes
//! in, and nobody makes the shard hold much before a login.
//!
//! The first byte chooses what was said before, the next four where the input is cut; the rest are the bytes. What
//! follows them is as long as the longest record, so that a shard that waits for one is found to hold it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::mem::take;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use tern_core::io::{ConnId, Input, Now, Output, Outputs};
use tern_core::limits::Limits;
use tern_core::partitions::PartitionMap;
use tern_core::shard::{Shard, ShardConfig, ShardRecovery};
use tern_protocol::ids::ShardId;
use tern_protocol::phone::client::{Client, ClientConfig};
use tern_protocol::phone::noise::KeyPair;
use tern_protocol::phone::preface::{Pattern, Preface, VERSION};
use tern_protocol::proxy::SIGNATURE;
use tern_storage::io::{DiskDone, DiskOp};

/// Bytes of a receive.
const PIECE_BYTES: usize = 1024;
/// Bytes that come behind the input.
const FILLING_BYTES: usize = 70_000;
/// Turns of a millisecond that a login's commit may take.
const TURNS_MAX: u32 = 100;
/// What a shard holds for a stranger at most: a receive, a handshake record and what comes before it, in buffers that
/// grow by doubling.
const HELD_BYTES_MAX: u64 = 8 << 10;

static SERVER: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::from_seed([1; 32]));
static XX_FLIGHT: LazyLock<Vec<u8>> = LazyLock::new(|| first_flight(None));
static IK_FLIGHT: LazyLock<Vec<u8>> = LazyLock::new(|| first_flight(Some(SERVER.public)));

fuzz_target!(|input: &[u8]| {
    let Some((&[how, cuts @ ..], bytes)) = input.split_first_chunk::<5>() else { return };
    let is_behind_balancer = how & 0x80 != 0;
    let mut world = World::new(is_behind_balancer);
    if is_behind_balancer && how & 0x40 != 0 {
        world.hear(&[&SIGNATURE[..], &[0x20, 0, 0, 0]].concat());
    }
    let preface = |pattern| Preface { version: VERSION, pattern, partition_hint: None }.encode();
    // Whoever plays a login again has come as far as a phone, and may hold a record of its.
    let is_replay = how % 6 == 5;
    match how % 6 {
        0 => {}
        1 => world.hear(&preface(Pattern::IK)),
        2 => world.hear(&preface(Pattern::XX)),
        3 => world.hear(&preface(Pattern::NNpsk0)),
        4 => world.hear(&XX_FLIGHT),
        _ => world.hear(&IK_FLIGHT),
    }
    let (mut rest, mut cuts) = (bytes, cuts.iter().cycle());
    while !rest.is_empty() {
        let cut = 1 + usize::from(*cuts.next().expect("there is no end of them"));
        let (piece, behind) = rest.split_at(cut.min(rest.len()));
        world.hear(piece);
        world.check(is_replay);
        rest = behind;
    }
    for _ in 0..FILLING_BYTES / PIECE_BYTES {
        world.hear(&[7; PIECE_BYTES]);
        world.check(is_replay);
    }
});

fn partitions() -> PartitionMap {
    PartitionMap::even(64, 2)
}

fn first_flight(server_key: Option<[u8; 32]>) -> Vec<u8> {
    let mut names = (0..).map(|n| format!("ann-{n}"));
    let mut client = Client::new(ClientConfig {
        name: names.find(|name| partitions().home_of_name(name) == ShardId(0)).expect("half of them"),
        keys: KeyPair::from_seed([2; 32]),
        server_key,
        ticket: None,
        register: true,
        partition_hint: None,
        seed: [3; 32],
    });
    let mut flight = Vec::new();
    client.flush(&mut flight);
    flight
}

/// The first of two shards, with one connection.
struct World {
    shard: Shard,
    out: Outputs,
    now: Now,
    /// The connection, while it is read.
    read: Option<ConnId>,
    slot: u32,
    is_over: bool,
}

impl World {
    fn new(is_behind_balancer: bool) -> Self {
        let limits = Limits { connection_count: 16, account_count: 16, ..Limits::default() };
        limits.validate().expect("they hold");
        let config = ShardConfig {
            shard: ShardId(0),
            partitions: Arc::new(partitions()),
            limits,
            proxies: Arc::new(["10.0.0.0/8".parse().expect("a network")]),
            server_keys: *SERVER,
            previous_server_keys: None,
            ticket_secret: [4; 32],
            open_registration: true,
            seed: [5; 32],
            dedup_key: [6; 16],
            segment_bytes: 4 << 20,
        };
        let (mut out, now) = (Outputs::default(), Now { mono_ns: 1_000_000_000, wall_ms: 1_800_000_000_000 });
        let (shard, _) = ShardRecovery::new(config).finish(now, 0, &mut out);
        let mut world = Self { shard, out, now, read: None, slot: 0, is_over: false };
        world.turn();
        let peer: SocketAddr = ([if is_behind_balancer { 10 } else { 9 }, 0, 0, 1], 4000).into();
        world.step(Input::Accepted { slot: 0, peer: Some(peer) });
        world.turn();
        assert!(world.read.is_some(), "who comes is heard");
        world
    }

    fn step(&mut self, input: Input<'_>) {
        self.shard.step(self.now, input, &mut self.out);
    }

    /// Bytes come, and turns pass until the connection is read again: a handshake is answered in the second one.
    fn hear(&mut self, bytes: &[u8]) {
        if self.is_over {
            return;
        }
        let conn = self.read.take().expect("it is read until it is sent away");
        self.step(Input::Received { conn, bytes: &mut bytes.to_vec() });
        self.turn();
        for _ in 0..TURNS_MAX {
            self.now.mono_ns += 1_000_000;
            self.now.wall_ms += 1;
            self.step(Input::Tick);
            self.turn();
            if self.read.is_some() || self.is_over {
                return;
            }
        }
        panic!("nobody is read or sent away after {TURNS_MAX} ms");
    }

    fn check(&self, is_replay: bool) {
        let counters = self.shard.counters();
        assert_eq!(counters.sessions_now, 0, "a stranger is let in");
        let held_bytes = counters.edge_bytes_now;
        assert!(is_replay || held_bytes <= HELD_BYTES_MAX, "a stranger makes it hold {held_bytes} bytes");
    }

    /// Flushes until nothing is left to do.
    fn turn(&mut self) {
        loop {
            self.step(Input::Flush);
            self.out.list.retain(|output| !matches!(output, Output::Continue));
            let outputs = take(&mut self.out.list);
            if outputs.is_empty() {
                return;
            }
            self.out.arena.clear();
            outputs.into_iter().for_each(|output| self.perform(output));
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::ReceiveOnce(conn) => self.read = Some(conn),
            Output::Send { conn, .. } => self.step(Input::Sent { conn }),
            Output::Close(conn) => {
                self.is_over = true;
                self.step(Input::Closed { conn });
            }
            Output::CloseSlot(_) => self.is_over = true,
            // This shard plays the part of the other one, too.
            Output::MoveSocket { conn, .. } => {
                self.step(Input::SocketMoved { conn, moved: true });
                self.step(Input::Closed { conn });
            }
            Output::MoveState { to, state } => {
                let token = state.token;
                self.slot += 1;
                self.step(Input::HandOverState { from: to, state });
                self.step(Input::HandOverSocket { from: to, token, slot: self.slot });
            }
            Output::Disk(DiskOp::Create { segment, .. }) => {
                self.step(Input::Disk(DiskDone::Created { segment, result: Ok(()) }));
            }
            Output::Disk(DiskOp::Write { segment, offset, .. }) => {
                self.step(Input::Disk(DiskDone::Written { segment, offset, result: Ok(()) }));
            }
            Output::Fatal(error) => panic!("a stranger ends the node: {error:?}"),
            _ => {}
        }
    }
}
