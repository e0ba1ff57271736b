//! A stranger's bytes at a whole shard, cut anywhere, with and without a balancer's header: nothing panics, nobody comes
//! in, and nobody makes the shard hold much before a login.
//!
//! The first byte chooses what was said before, the next four where the input is cut; the rest are the bytes. What
//! follows them is as long as the longest record, so that a shard that waits for one is found to hold it.
#![no_main]

mod world;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tern_core::limits::Limits;
use tern_protocol::ids::ShardId;
use tern_protocol::phone::client::{Client, ClientConfig};
use tern_protocol::phone::noise::KeyPair;
use tern_protocol::phone::preface::{Pattern, Preface, VERSION};
use tern_protocol::proxy::SIGNATURE;
use world::{SERVER, World, partitions};

/// Bytes of a receive.
const PIECE_BYTES: usize = 1024;
/// Bytes that come behind the input.
const FILLING_BYTES: usize = 70_000;
/// What a shard holds for a stranger at most: a receive, a handshake record and what comes before it, in buffers that
/// grow by doubling.
const HELD_BYTES_MAX: u64 = 8 << 10;

/// Of two shards the first one hears the strangers.
const SHARD_COUNT: u16 = 2;

static XX_FLIGHT: LazyLock<Vec<u8>> = LazyLock::new(|| first_flight(None));
static IK_FLIGHT: LazyLock<Vec<u8>> = LazyLock::new(|| first_flight(Some(SERVER.public)));

fuzz_target!(|input: &[u8]| {
    let Some((&[how, cuts @ ..], bytes)) = input.split_first_chunk::<5>() else { return };
    let is_behind_balancer = how & 0x80 != 0;
    let limits = Limits { connection_count: 16, account_count: 16, ..Limits::default() };
    let mut world = World::new(SHARD_COUNT, limits);
    let line = world.come([if is_behind_balancer { 10 } else { 9 }, 0, 0, 1]);
    if is_behind_balancer && how & 0x40 != 0 {
        world.hear(line, &[&SIGNATURE[..], &[0x20, 0, 0, 0]].concat());
    }
    let preface = |pattern| Preface { version: VERSION, pattern, partition_hint: None }.encode();
    // Whoever plays a login again has come as far as a phone, and may hold a record of its.
    let is_replay = how % 6 == 5;
    match how % 6 {
        0 => {}
        1 => world.hear(line, &preface(Pattern::IK)),
        2 => world.hear(line, &preface(Pattern::XX)),
        3 => world.hear(line, &preface(Pattern::NNpsk0)),
        4 => world.hear(line, &XX_FLIGHT),
        _ => world.hear(line, &IK_FLIGHT),
    }
    let (mut rest, mut cuts) = (bytes, cuts.iter().cycle());
    while !rest.is_empty() {
        let cut = 1 + usize::from(*cuts.next().expect("there is no end of them"));
        let (piece, behind) = rest.split_at(cut.min(rest.len()));
        world.hear(line, piece);
        check(&world, is_replay);
        rest = behind;
    }
    for _ in 0..FILLING_BYTES / PIECE_BYTES {
        world.hear(line, &[7; PIECE_BYTES]);
        check(&world, is_replay);
    }
});

fn first_flight(server_key: Option<[u8; 32]>) -> Vec<u8> {
    let mut names = (0..).map(|n| format!("ann-{n}"));
    let mut client = Client::new(ClientConfig {
        name: names
            .find(|name| partitions(SHARD_COUNT).home_of_name(name) == ShardId(0))
            .expect("half of them"),
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

fn check(world: &World, is_replay: bool) {
    let counters = world.shard.counters();
    assert_eq!(counters.sessions_now, 0, "a stranger is let in");
    let held_bytes = counters.edge_bytes_now;
    assert!(is_replay || held_bytes <= HELD_BYTES_MAX, "a stranger makes it hold {held_bytes} bytes");
}
