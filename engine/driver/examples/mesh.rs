//! How many envelopes of 128 bytes go from one shard's thread to another's in a second: `cargo xtask bench mesh` runs
//! this.
//!
//! It compiles the mesh's own source file, so that what is measured is what the driver uses, and the mesh stays private
//! to the driver. One thread puts runs of encoded envelopes into a lane and publishes once per run, as a shard does once
//! per turn; the other takes what came and parses every envelope. The last line is a JSON object.

#[allow(dead_code)]
#[path = "../src/mesh.rs"]
mod mesh;

use core_affinity::CoreId;
use mesh::{Arrival, MeshEnd};
use std::sync::Barrier;
use std::time::{Duration, Instant};
use tern_core::io::Lane;
use tern_protocol::envelope::{Envelope, Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, ShardId};

/// As the default of `limits.lane_bytes`.
const LANE_BYTES: usize = 256 << 10;
const ENVELOPE_BYTES: usize = 128;
const SECONDS: Duration = Duration::from_secs(2);
/// Envelopes of a turn.
const BATCHES: [usize; 3] = [1, 8, 64];

fn main() {
    let fields: Vec<String> =
        BATCHES.iter().map(|&batch| format!("\"batch_{batch}_per_s\":{:.0}", measure(batch))).collect();
    println!("{{\"envelope_bytes\":{ENVELOPE_BYTES},{}}}", fields.join(","));
}

/// One envelope of exactly [`ENVELOPE_BYTES`].
fn envelope() -> Vec<u8> {
    let encode = |body: &[u8]| {
        let mut bytes = Vec::new();
        let parts = Parts {
            kind: Kind::Message,
            flags: 0,
            to: AccountId(1),
            from: AccountId(2),
            from_device: DeviceId(1),
            id: MessageId(3),
            time_ms: 4,
            seq: 5,
            from_name: "load-000",
            body,
        };
        parts.encode(&mut bytes);
        bytes
    };
    let bytes = encode(&vec![7; ENVELOPE_BYTES - encode(&[]).len()]);
    assert_eq!(bytes.len(), ENVELOPE_BYTES);
    bytes
}

/// Envelopes per second with so many in each turn of the sender.
fn measure(batch: usize) -> f64 {
    let mut ends = mesh::build(2, LANE_BYTES);
    let (receiver, sender) = (ends.pop().expect("two"), ends.pop().expect("two"));
    let run = envelope().repeat(batch);
    let start = Barrier::new(2);
    let mut count = 0;
    let elapsed = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            core_affinity::set_for_current(CoreId { id: 0 });
            start.wait();
            send(sender, &run);
        });
        core_affinity::set_for_current(CoreId { id: 1 });
        start.wait();
        let started = Instant::now();
        count = receive(receiver, || sending.is_finished());
        started.elapsed()
    });
    count as f64 / elapsed.as_secs_f64()
}

/// Sends runs as fast as the lane takes them, counting its room as the core's router does.
fn send(mut end: MeshEnd, run: &[u8]) {
    let to = ShardId(1);
    let started = Instant::now();
    let mut room_bytes = LANE_BYTES;
    while started.elapsed() < SECONDS {
        for _ in 0..256 {
            if room_bytes >= run.len() {
                room_bytes -= run.len();
                end.send(to, Lane::Bulk, run);
                end.publish(|_| {});
            } else {
                end.want_room(to, Lane::Bulk, run.len());
                end.receive(|_| {}, |_, _| {});
                end.take_room(|_, _, bytes| room_bytes = bytes);
            }
        }
    }
}

/// Takes and parses everything until nothing more can come; how many envelopes.
fn receive(mut end: MeshEnd, is_over: impl Fn() -> bool) -> u64 {
    let (mut count, mut bytes_sum) = (0_u64, 0_u64);
    loop {
        let over = is_over();
        end.receive(
            |_| {},
            |_, arrival| {
                let Arrival::Envelopes(mut run) = arrival else { return };
                while !run.is_empty() {
                    let (envelope, rest) = Envelope::parse_first(run).expect("whole envelopes");
                    bytes_sum += envelope.bytes().len() as u64;
                    count += 1;
                    run = rest;
                }
            },
        );
        if over {
            assert_eq!(bytes_sum, count * ENVELOPE_BYTES as u64, "envelopes got lost on the way");
            return count;
        }
    }
}
