//! A drive that is full, and a log that is damaged.

use crate::phone::{Heard, Phone, Way, id};
use crate::process::{Node, Setup};
use std::os::unix::fs::FileExt;
use tern_protocol::ids::AccountId;

/// Sends bodies of 30,000 bytes to an absent account until one is refused; ids of those that were ticked, and the
/// refused one.
fn fill(ann: &mut Phone, to: AccountId) -> (Vec<u64>, u64) {
    let mut ticked = Vec::new();
    for n in 0..10_000 {
        let id = id(n);
        ann.send(to, id, &[7; 30_000]);
        match ann.next() {
            Heard::Sent(sent) => {
                assert_eq!(sent, id);
                ticked.push(id);
            }
            Heard::Busy(busy) => {
                assert_eq!(busy, id);
                return (ticked, id);
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("the drive never filled up");
}

pub(crate) fn ann_and_absent_bob(node: &Node) -> (Phone, AccountId) {
    let bob = Phone::log_in(node.phone, "bob", 2, &Way::default()).account;
    // Bob's connection is closed, and the node has seen it: what comes for him now is kept.
    node.wait_for("tern_logins_total", 1);
    node.wait_for_level("sessions_now", 0);
    let mut ann = Phone::log_in(node.phone, "ann", 1, &Way::default());
    assert_eq!(ann.next(), Heard::Drained);
    (ann, bob)
}

#[test]
fn a_full_drive_refuses_and_loses_nothing() {
    let setup = Setup { drive_mb: Some(40), ..Setup::shards(1) };
    let setup = Setup { config: "segment_bytes = 4194304\n".into(), ..setup };
    let node = Node::start(setup);
    let (mut ann, bob) = ann_and_absent_bob(&node);
    let (ticked, refused) = fill(&mut ann, bob);
    assert!(ticked.len() > 100, "{} messages fitted", ticked.len());
    // Raising a limit would help nothing, and none is said to be hit.
    node.wait_for("tern_drive_full_total", 1);
    assert_eq!(node.metric("tern_segments_full_total"), 0);
    assert_eq!(node.json("/v1/status")["limit_hits"]["segment_count"], 0);
    let mut bob = Phone::log_in(node.phone, "bob", 2, &Way::default());
    for expected in &ticked {
        let Heard::Message { number, id, .. } = bob.next() else { panic!("mail was promised") };
        assert_eq!(id, *expected);
        bob.ack(number);
    }
    // Space comes back with the acknowledgements, and the refused sender may go on.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        // The refused stream goes on from the refused message, and from no other.
        ann.send(bob.account, refused, b"again");
        let heard = loop {
            match ann.next() {
                Heard::Delivered { number, .. } => ann.ack(number),
                other => break other,
            }
        };
        match heard {
            Heard::Sent(_) => break,
            Heard::Busy(_) => assert!(std::time::Instant::now() < deadline, "the drive stays full"),
            other => panic!("{other:?}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[test]
fn a_drive_without_room_for_the_first_record_ends_the_start() {
    // On the larger one the room that there was is gone when the log wants it.
    for (drive_mb, said) in [(3, "make room"), (4, "the drive is full")] {
        let setup = Setup { drive_mb: Some(drive_mb), ..Setup::shards(1) };
        let setup = Setup { config: "segment_bytes = 4194304\n".into(), ..setup };
        let ended = Node::start_in_vain(&setup);
        assert_eq!((ended.status.code(), &*ended.stdout), (Some(3), ""), "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
}

#[test]
fn a_failed_log_write_ends_the_node_and_is_never_ticked() {
    let mut node = Node::start(Setup::shards(2));
    let (mut ann, bob) = ann_and_absent_bob(&node);
    let (safe, lost) = (id(1), id(2));
    ann.send(bob, safe, b"safe");
    assert_eq!(ann.next(), Heard::Sent(safe));
    node.forbid_writing();
    ann.send(bob, lost, b"not safe");
    assert_eq!(node.wait_for_the_end().code(), Some(4));
    let heard = ann.listen(std::time::Duration::from_secs(2));
    assert!(!heard.contains(&Heard::Sent(lost)), "ticked without being safe: {heard:?}");
    node.start_again();
    let mut bob = Phone::log_in(node.phone, "bob", 2, &Way::default());
    assert_eq!(bob.next(), Heard::Message { number: 1, id: safe, body: b"safe".to_vec() });
}

#[test]
fn rot_is_reported_and_the_rest_is_served() {
    let mut node = Node::start(Setup::shards(1));
    let (mut ann, bob) = ann_and_absent_bob(&node);
    let ids: Vec<u64> = (0..20).map(id).collect();
    for id in &ids {
        ann.send(bob, *id, &[7; 100]);
        assert_eq!(ann.next(), Heard::Sent(*id));
    }
    node.kill();
    let (segment, damaged_at) = damage_one_message(&node);
    node.start_again();
    let recovery = node.json("/v1/status")["shards"][0]["recovery"].clone();
    let places = recovery["rot"].as_array().expect("a list");
    assert_eq!(places.len(), 1, "one damaged commit: {recovery}");
    assert_eq!(places[0]["segment"].as_u64(), Some(segment), "{recovery}");
    // The place is that of the damaged block's commit, which begins before the message.
    let offset = places[0]["offset"].as_u64().expect("a number");
    assert!(offset > 0 && offset <= damaged_at, "{recovery}, the damage is at {damaged_at}");
    let mut bob = Phone::log_in(node.phone, "bob", 2, &Way::default());
    let mut served = 0;
    while let Heard::Message { number, id, .. } = bob.next() {
        assert!(ids.contains(&id));
        served += 1;
        bob.ack(number);
    }
    assert_eq!(served, 19, "one was damaged, the others are served");
    node.signal("TERM");
    let said = node.wait_for_last_words().stderr;
    let warnings = said.lines().filter(|line| line.contains("WARN") && line.contains("damaged in places"));
    assert_eq!(warnings.count(), 1, "{said}");
}

#[test]
fn damage_among_accounts_is_told_as_long_as_the_node_runs() {
    let config = "segment_bytes = 4194304\n".into();
    let mut node = Node::start(Setup { config, ..Setup::shards(1) });
    // Each in a commit of its own, so that others follow the one that is damaged.
    for n in 0..5 {
        drop(Phone::log_in(node.phone, &format!("whose-record-rots-{n}"), 2, &Way::default()));
        node.wait_for("tern_accounts_now", n + 1);
    }
    let is_told = |node: &Node| {
        let told = node.json("/v1/status")["shards"][0]["recovery"]["has_rot_in_tables"].as_bool();
        let (_, metrics) = node.get("/metrics");
        let gauge =
            |value: u8| metrics.contains(&format!("tern_recovery_damaged_tables{{shard=\"0\"}} {value}\n"));
        assert!(gauge(told.expect("it is said").into()), "{metrics}");
        told == Some(true)
    };
    assert!(!is_told(&node));
    node.kill();
    damage(&node, b"whose-record-rots-2", 0);
    node.start_again();
    assert!(is_told(&node));
}

/// Flips a byte in the body of a message in the middle of the log: in which segment, and where in its file.
fn damage_one_message(node: &Node) -> (u64, u64) {
    damage(node, &[7; 100], 9)
}

/// Flips a byte in the middle of these, where they come for the time after so many: in which segment, and where in its
/// file.
fn damage(node: &Node, wanted: &[u8], skipped_count: usize) -> (u64, u64) {
    let mut files = Vec::new();
    for shard in std::fs::read_dir(node.data()).expect("the data directory").flatten() {
        if shard.path().is_dir() {
            files.extend(std::fs::read_dir(shard.path()).expect("a shard's directory").flatten());
        }
    }
    for file in files {
        let bytes = std::fs::read(file.path()).expect("a segment");
        let mut places = bytes.windows(wanted.len()).enumerate().filter(|(_, found)| *found == wanted);
        if let Some((at, _)) = places.nth(skipped_count) {
            let name = file.file_name().into_string().expect("a segment's name");
            let number = name.strip_prefix("seg-").and_then(|name| name.strip_suffix(".log"));
            let number = u64::from_str_radix(number.expect("a segment's name"), 16).expect("a number");
            let file = std::fs::OpenOptions::new().write(true).open(file.path()).expect("a segment");
            let (at, byte) = (at + wanted.len() / 2, [bytes[at + wanted.len() / 2] ^ 15]);
            file.write_all_at(&byte, at as u64).expect("the damage is done");
            return (number, at as u64);
        }
    }
    panic!("no segment holds them");
}
