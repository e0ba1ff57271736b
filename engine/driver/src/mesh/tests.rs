//! The mesh alone: order, wakes, boxes, memory.

use super::*;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::{Duration, Instant};

const SHARDS: u16 = 3;
/// With more, not even the smallest lanes fit.
const SHARDS_MAX: u16 = 111;
const BODY_BYTES: usize = 32 << 10;
const LANE_BYTES: usize = 512;

/// Something of the form of an envelope: its length, then a filling.
pub(super) fn record(bytes: usize, fill: u8) -> Vec<u8> {
    let mut record = vec![fill; bytes];
    record[..4].copy_from_slice(&(bytes as u32).to_le_bytes());
    record
}

fn runs(end: &mut MeshEnd) -> Vec<(u16, Vec<u8>)> {
    let mut got = vec![];
    end.receive(
        |_| {},
        |from, arrival| {
            if let Arrival::Envelopes(run) = arrival {
                got.push((from.0, run.to_vec()));
            }
        },
    );
    got
}

#[test]
fn runs_arrive_whole_also_around_the_rings_end() {
    let mut ends = build(SHARDS, LANE_BYTES);
    for round in 0..50_u8 {
        let run = [record(90, round), record(71, round)].concat();
        ends[2].send(ShardId(0), Lane::Bulk, &run);
        assert_eq!(runs(&mut ends[0]), [], "nothing is seen before the turn's end");
        ends[2].publish(|_| panic!("nobody sleeps"));
        assert_eq!(runs(&mut ends[0]), [(2, run)]);
    }
}

#[test]
fn a_pair_has_no_lanes_before_it_talks() {
    let mut ends = build(SHARDS, LANE_BYTES);
    let pairs = |ends: &[MeshEnd]| -> Vec<(usize, usize)> {
        let all = (0..ends.len()).flat_map(|from| (0..ends.len()).map(move |to| (from, to)));
        let has_lanes = |&(from, to): &(usize, usize)| {
            let [out, into] = [
                ends[from].outgoing[to].as_ref().is_some_and(|outgoing| outgoing.lanes.is_some()),
                ends[to].incoming[from].as_ref().is_some_and(|incoming| incoming.lanes.is_some()),
            ];
            assert_eq!(out, into, "both ends of {from} to {to}");
            out
        };
        all.filter(has_lanes).collect()
    };
    // Also who waits for room has all of it before that.
    ends[0].want_room(ShardId(1), Lane::Bulk, LANE_BYTES);
    ends[0].publish(|_| {});
    let mut rooms = vec![];
    ends[0].take_room(|to, lane, bytes| rooms.push((to, lane, bytes)));
    assert_eq!(rooms, [(ShardId(1), Lane::Bulk, LANE_BYTES)]);
    assert_eq!(pairs(&ends), []);
    for _ in 0..3 {
        ends[2].send(ShardId(0), Lane::Control, &record(20, 1));
        ends[2].publish(|_| {});
        assert_eq!(runs(&mut ends[0]), [(2, record(20, 1))]);
        assert_eq!(pairs(&ends), [(2, 0)], "made once, and no others");
    }
}

#[test]
fn control_goes_before_bulk() {
    let mut ends = build(SHARDS, LANE_BYTES);
    let (bulk, control) = (record(20, 1), record(10, 2));
    ends[1].send(ShardId(0), Lane::Bulk, &bulk);
    ends[1].send(ShardId(0), Lane::Control, &control);
    ends[1].publish(|_| {});
    assert_eq!(runs(&mut ends[0]), [(1, control), (1, bulk)]);
}

#[test]
fn only_a_sleeper_is_woken_and_only_once() {
    let mut ends = build(SHARDS, LANE_BYTES);
    assert!(ends[0].fall_asleep());
    let mut woken = vec![];
    for from in [1, 2] {
        ends[from].send(ShardId(0), Lane::Bulk, &record(8, 0));
        ends[from].publish(|to| woken.push(to));
    }
    assert_eq!(woken, [ShardId(0)]);
    assert!(!ends[0].fall_asleep(), "must not sleep over what came");
    runs(&mut ends[0]);
    assert!(ends[0].fall_asleep());
}

#[test]
#[should_panic(expected = "never sends more than a lane's room")]
fn more_than_the_room_is_the_cores_bug() {
    let mut ends = build(2, LANE_BYTES);
    ends[0].send(ShardId(1), Lane::Bulk, &record(103, 1).repeat(5));
}

/// Small and large ones by chance, in both lanes, as much as the lanes take: each lane keeps its order.
#[test]
fn large_envelopes_keep_their_place() {
    let mut ends = build(2, LANE_BYTES);
    let mut chance = 1_u32;
    let mut next = |below: u32| {
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (chance >> 8) % below
    };
    let (mut boxed_most, mut boxed_all, mut sent, mut got) = (0, 0, [vec![], vec![]], [vec![], vec![]]);
    for _ in 0..2000 {
        let mut boxed_bytes = 0;
        for (lane, sent) in [Lane::Control, Lane::Bulk].into_iter().zip(&mut sent) {
            let (mut run, mut room) = (vec![], LANE_BYTES);
            loop {
                let bytes = [8, 60, 128, 129, 1000, 61_000][next(6) as usize] as usize;
                let cost = tern_core::lanes::cost_bytes(bytes, LANE_BYTES);
                if cost > room || next(8) == 0 {
                    break;
                }
                room -= cost;
                boxed_bytes += if is_boxed(bytes, LANE_BYTES) { bytes } else { 0 };
                // The filling tells lanes apart, and one from the other.
                run.extend(record(bytes, (lane as u8) << 7 | next(128) as u8));
            }
            ends[0].send(ShardId(1), lane, &run);
            sent.extend(run);
        }
        ends[0].publish(|_| {});
        assert_eq!(ends[0].boxes_taken_bytes(), boxed_all, "nothing of it is taken yet");
        boxed_most = boxed_most.max(boxed_bytes);
        boxed_all += boxed_bytes as u64;
        for (from, run) in runs(&mut ends[1]) {
            assert_eq!(from, 0);
            let lane = usize::from(run[4] >> 7);
            got[lane].extend(run);
        }
        assert_eq!(ends[0].boxes_taken_bytes(), boxed_all, "all was taken");
        for lane in 0..LANE_COUNT {
            assert!(sent[lane] == got[lane], "lane {lane} lost or reordered something");
            sent[lane].clear();
            got[lane].clear();
        }
    }
    assert!(boxed_most > 4 * 61_000, "the case did not happen");
}

#[test]
fn what_waits_is_told_whole_and_goes_down_as_it_is_taken() {
    let mut ends = build(SHARDS, LANE_BYTES_MAX);
    for from in [1, 2] {
        ends[from].send(ShardId(0), Lane::Bulk, &record(1000, 1).repeat(1000));
        ends[from].send(ShardId(0), Lane::Control, &record(100, 1).repeat(7));
    }
    ends[1].send(ShardId(0), Lane::Bulk, &record(300_000, 2));
    ends[1].publish(|_| {});
    ends[2].publish(|_| {});
    // All that is there, not what one turn takes of it.
    let all = 2 * 1_000_700 + MARKER_BYTES + 300_000;
    assert_eq!(ends[0].receive(|_| {}, |_, _| {}), all);
    let mut before = all;
    while ends[0].has_arrivals() {
        let waiting = ends[0].waiting_bytes();
        assert!(waiting < before, "{waiting} of {before}");
        before = waiting;
        assert_eq!(ends[0].receive(|_| {}, |_, _| {}), waiting);
    }
    assert_eq!(ends[0].waiting_bytes(), 0);
}

#[test]
fn a_full_lane_is_taken_in_parts() {
    let mut ends = build(2, LANE_BYTES_MAX);
    let all: Vec<u8> = (0..9000).flat_map(|n| record(116, n as u8)).collect();
    ends[0].send(ShardId(1), Lane::Bulk, &all);
    ends[0].publish(|_| {});
    let (mut got, mut turns) = (vec![], 0);
    while ends[1].has_arrivals() {
        for (_, run) in runs(&mut ends[1]) {
            assert!(run.len() <= TAKE_BYTES && run.len().is_multiple_of(116), "{}", run.len());
            got.extend(run);
        }
        turns += 1;
    }
    assert!(got == all);
    assert_eq!(turns, 8);
    assert!(ends[1].fall_asleep());
}

#[test]
fn lanes_fit_their_memory_at_any_number_of_shards() {
    for (body_bytes, shards_max) in [(BODY_BYTES, SHARDS_MAX), (60_000, 98)] {
        for shards in 1..=shards_max {
            let lane = lane_bytes(shards, body_bytes).expect("it fits");
            assert!((LANE_BYTES_MIN..=LANE_BYTES_MAX).contains(&lane) && lane.is_multiple_of(MARKER_BYTES));
            let (count, pairs) = (usize::from(shards), usize::from(shards) * usize::from(shards - 1));
            let slots = parcel_count(lane) * size_of::<Parcel>();
            let pair_bytes = 2 * lane + slots + PAIR_BYTES - (HAND_OVER_COUNT + 1) * size_of::<Parcel>();
            let waiting_bytes = 2 * count * waiting_bytes_max(shards, body_bytes);
            let sum = pairs * pair_bytes + waiting_bytes + BOXED_BYTES_MAX + ROUNDING_BYTES;
            assert!(sum <= MESH_BYTES_MAX, "{shards} shards");
        }
        let most = (1..=130).rev().find(|&shards| lane_bytes(shards, body_bytes).is_some());
        assert_eq!(most, Some(shards_max), "with bodies of {body_bytes} bytes");
        assert_eq!(super::shards_max(body_bytes), shards_max);
    }
    assert_eq!(lane_bytes(2, BODY_BYTES), Some(LANE_BYTES_MAX), "few shards have large ones");
    assert!(lane_bytes(60, BODY_BYTES).is_some_and(|lane| lane >= 4096), "as the plan has it");
}

/// Three threads throw a counter around and sleep without a limit whenever they may: a lost wake stops the play.
#[test]
fn no_wake_is_lost() {
    const ROUNDS: u32 = 30_000;
    let counting = |count: u32| [8_u32.to_le_bytes(), count.to_le_bytes()].concat();
    let ends = build(SHARDS, LANE_BYTES);
    let finished = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (tell, told) = flume::unbounded::<Vec<thread::Thread>>();
        let (mut joins, mut threads) = (vec![], vec![]);
        for mut end in ends {
            let (told, finished) = (told.clone(), &finished);
            let join = scope.spawn(move || {
                let peers = told.recv().unwrap();
                let wake = |to: ShardId| peers[usize::from(to.0)].unpark();
                let (own, mut seen) = (end.own, 0);
                let next = ShardId((own as u16 + 1) % SHARDS);
                if own == 0 {
                    end.send(next, Lane::Bulk, &counting(1));
                    end.publish(wake);
                }
                while seen < ROUNDS {
                    let mut got = None;
                    end.receive(wake, |_, arrival| {
                        if let Arrival::Envelopes(run) = arrival {
                            got = Some(u32::from_le_bytes(run[4..].try_into().unwrap()));
                        }
                    });
                    if got.is_none() {
                        // Others act between the last look and the sleep.
                        thread::yield_now();
                    }
                    if let Some(count) = got {
                        assert!(count > seen);
                        seen = count;
                        end.send(next, Lane::Bulk, &counting(count + 1));
                        end.publish(wake);
                    } else if end.fall_asleep() {
                        // A lost wake would sleep for ever; the time limit only ends the test.
                        let asleep = Instant::now();
                        thread::park_timeout(Duration::from_secs(20));
                        end.awake();
                        assert!(asleep.elapsed() < Duration::from_secs(19), "a wake was lost");
                    }
                }
                finished.fetch_add(1, Ordering::Relaxed);
            });
            threads.push(join.thread().clone());
            joins.push(join);
        }
        for _ in 0..SHARDS {
            tell.send(threads.clone()).unwrap();
        }
    });
    assert_eq!(finished.load(Ordering::Relaxed), usize::from(SHARDS));
}

/// Kilobytes of the process's private writable memory, used or not.
fn data_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// What the allocator gives out with every lane full, of small records and of boxed ones, and with as much waiting at
/// the senders as may; measured in a process in which nothing else happens.
#[test]
fn the_memory_is_what_the_arithmetic_says() {
    const ALONE: &str = "TERN_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let test = std::env::current_exe().unwrap();
        let arguments = ["--exact", "mesh::tests::the_memory_is_what_the_arithmetic_says", "--nocapture"];
        let output = std::process::Command::new(test).args(arguments).env(ALONE, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let (mut most, mut last) = (0, data_kib());
    // Growing, so that freed memory is of no use to the next.
    for shards in [2, 8, 36, 60, SHARDS_MAX] {
        let lane = lane_bytes(shards, BODY_BYTES).unwrap();
        let mut ends = build(shards, lane);
        ends.iter_mut().for_each(|end| fill(end, shards, lane));
        // What the core's routers hold, and the copy of it that a turn hands on.
        let waiting = vec![1_u8; 2 * usize::from(shards) * waiting_bytes_max(shards, BODY_BYTES)];
        // Receivers that have unpacked the boxes, but not taken the markers, hold lists of them.
        for end in &mut ends {
            for incoming in end.incoming.iter_mut().flatten() {
                incoming.take_parcels(|_| {});
            }
        }
        let kib = data_kib() - last;
        println!("{shards} shards, lanes of {lane} bytes: {kib} KiB");
        most = most.max(kib);
        std::mem::forget((ends, waiting));
        last = data_kib();
    }
    assert!(most <= MESH_BYTES_MAX / 1024, "{most} KiB");
    assert!(most > MESH_BYTES_MAX / 1024 * 3 / 4, "the lanes are there: {most} KiB");
}

/// Fills all lanes of a shard: the boxes that it may have, as small as boxes are, then small records.
fn fill(end: &mut MeshEnd, shards: u16, lane_bytes: usize) {
    let boxed = record(lane_bytes / 4 + 1, 7);
    let boxed_max = tern_core::lanes::boxed_bytes_max(shards, BODY_BYTES);
    let (own, mut boxed_bytes) = (end.own, 0);
    for to in (0..shards).filter(|&to| usize::from(to) != own) {
        for lane in [Lane::Control, Lane::Bulk] {
            let mut room = lane_bytes;
            while room >= MARKER_BYTES && boxed_bytes + boxed.len() <= boxed_max {
                end.send(ShardId(to), lane, &boxed);
                boxed_bytes += boxed.len();
                room -= MARKER_BYTES;
            }
            end.send(ShardId(to), lane, &record(64, 1).repeat(room / 64));
        }
    }
    end.publish(|_| {});
}
