//! Ends and failed starts with a code of their own: a log that this version does not know (5), and defects (6). What was
//! ticked is there once the reason has gone.

use crate::disk::ann_and_absent_bob;
use crate::log::full_pipe;
use crate::phone::{Heard, Phone, Way, id};
use crate::process::{Node, Setup};
use crate::stuck::Held;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// Bytes of a record before its payload: checksum, length, kind, version, and what is not looked at here.
const RECORD_HEADER_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 4;
const MAIL: u8 = 1;
const EPOCH: u8 = 3;
const VERSION: u8 = 1;
const BODY: [u8; 100] = [7; 100];

/// A segment as it is before a test changes it.
struct Segment {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Segment {
    /// All of a shard that are in use.
    fn of(node: &Node, shard: &str) -> Vec<Self> {
        let files = fs::read_dir(node.data().join(shard)).expect("the shard's directory").flatten();
        let read = |path: PathBuf| Self { bytes: fs::read(&path).expect("a segment"), path };
        files.map(|file| read(file.path())).filter(|segment| segment.bytes.starts_with(b"TERNSEG1")).collect()
    }

    /// The one with a record of this kind in which `wanted` is found, and where that begins.
    fn with(node: &Node, kind: u8, wanted: impl Fn(&[u8]) -> bool) -> (Self, usize) {
        let record = |segment: &Self| {
            (0..segment.bytes.len() - RECORD_HEADER_BYTES).find(|&at| {
                segment.bytes[at + 8..at + 10] == [kind, VERSION]
                    && segment.payload_of(at).is_some_and(&wanted)
            })
        };
        let found =
            Self::of(node, "shard-000").into_iter().find_map(|segment| Some((record(&segment)?, segment)));
        let (at, segment) = found.expect("the record is in the log");
        (segment, at)
    }

    fn payload_of(&self, record: usize) -> Option<&[u8]> {
        let length =
            self.bytes[record + CHECKSUM_BYTES..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
        self.bytes[record + RECORD_HEADER_BYTES..].get(..length as usize)
    }

    /// Writes the file with some bytes of a record changed, and with the checksum that goes with them.
    fn change(&self, record: usize, at: usize, new: &[u8]) {
        let end = record + RECORD_HEADER_BYTES + self.payload_of(record).expect("a record").len();
        let mut bytes = self.bytes.clone();
        bytes[record + at..][..new.len()].copy_from_slice(new);
        // What a checksum starts from, which is the segment's secret, falls out of the difference of two.
        let sum = |bytes: &[u8]| crc32c::crc32c(&bytes[record + CHECKSUM_BYTES..end]);
        let difference = sum(&self.bytes) ^ sum(&bytes);
        let checksum = &mut bytes[record..][..CHECKSUM_BYTES];
        checksum.iter_mut().zip(difference.to_le_bytes()).for_each(|(byte, change)| *byte ^= change);
        fs::write(&self.path, bytes).expect("the segment is changed");
    }

    /// Writes the file as one of another format.
    fn set_format(&self, version: u32) {
        let mut bytes = self.bytes.clone();
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..36]);
        bytes[36..40].copy_from_slice(&checksum.to_le_bytes());
        fs::write(&self.path, bytes).expect("the segment is changed");
    }

    /// As it was.
    fn restore(&self) {
        fs::write(&self.path, &self.bytes).expect("the segment is restored");
    }
}

/// A node that has ticked one message.
fn node_with_one_ticked(shards: u16) -> (Node, u64) {
    let node = Node::start(Setup { config: "segment_bytes = 4194304\n".into(), ..Setup::shards(shards) });
    let (mut ann, bob) = ann_and_absent_bob(&node);
    let id = id(1);
    ann.send(bob, id, &BODY);
    assert_eq!(ann.next(), Heard::Sent(id));
    (node, id)
}

fn expect_it(node: &Node, id: u64) {
    let mut bob = Phone::log_in(node.phone, "bob", 2, &Way::default());
    assert_eq!(bob.next(), Heard::Message { number: 1, id, body: BODY.to_vec() });
}

fn expect_no_start(node: &mut Node, code: i32, words: &[&str]) -> String {
    node.begin_again();
    let ended = node.wait_for_last_words();
    assert_eq!((ended.status.code(), &*ended.stdout), (Some(code), ""), "{}", ended.stderr);
    for part in words {
        assert!(ended.stderr.contains(part), "no {part:?} in: {}", ended.stderr);
    }
    ended.stderr
}

#[test]
fn a_record_of_a_later_version_stops_the_start_and_nothing_is_lost() {
    let (mut node, id) = node_with_one_ticked(1);
    node.kill();
    let (segment, record) = Segment::with(&node, MAIL, |payload| payload.ends_with(&BODY));
    let file = segment.path.display().to_string();
    for (at, new, what) in [(8, 99, "kind 99, version 1"), (9, 2, "kind 1, version 2")] {
        segment.change(record, at, &[new]);
        let changed = fs::read(&segment.path).expect("the segment");
        expect_no_start(&mut node, 5, &[&file, what, "start the version that wrote them"]);
        assert!(
            fs::read(&segment.path).expect("the segment") == changed,
            "a start that fails changes nothing"
        );
    }
    segment.restore();
    node.start_again();
    expect_it(&node, id);
}

#[test]
fn a_log_of_another_format_or_shard_stops_the_start() {
    let (mut node, id) = node_with_one_ticked(2);
    node.kill();
    let all = [Segment::of(&node, "shard-000"), Segment::of(&node, "shard-001")];
    let segment = &all[0][0];
    segment.set_format(4);
    expect_no_start(&mut node, 5, &[&segment.path.display().to_string(), "version 4 of the format"]);
    segment.restore();

    let [one, other, aside] = ["shard-000", "shard-001", "aside"].map(|name| node.data().join(name));
    let swap = || {
        fs::rename(&one, &aside).expect("renamed");
        fs::rename(&other, &one).expect("renamed");
        fs::rename(&aside, &other).expect("renamed");
    };
    swap();
    expect_no_start(&mut node, 5, &["it belongs to shard "]);
    swap();
    node.start_again();
    expect_it(&node, id);
}

#[test]
fn a_shard_whose_log_is_gone_stops_the_start_and_nothing_is_begun_anew() {
    let (mut node, id) = node_with_one_ticked(2);
    node.kill();
    for shard in ["shard-000", "shard-001"].map(|name| node.data().join(name)) {
        let aside = node.data().join("aside");
        fs::rename(&shard, &aside).expect("renamed");
        expect_no_start(
            &mut node,
            5,
            &[&format!("{} has no log", shard.display()), "bring its files back", "SERVED"],
        );
        assert!(!shard.exists(), "nothing is made");
        fs::rename(&aside, &shard).expect("renamed");
    }
    node.start_again();
    expect_it(&node, id);
}

/// Such a directory says so in its manifest and in each of its segments.
#[test]
fn a_directory_of_an_older_format_is_read_and_written_on_as_format_3() {
    [1, 2].into_iter().for_each(is_read_and_written_on);
}

fn is_read_and_written_on(format: u32) {
    let (mut node, id) = node_with_one_ticked(1);
    node.kill();
    let manifest = node.data().join("MANIFEST");
    let text = fs::read_to_string(&manifest).expect("the manifest");
    let older = text.replace("format_version = 3", &format!("format_version = {format}"));
    assert_ne!(older, text);
    fs::write(&manifest, older).expect("the manifest is changed");
    Segment::of(&node, "shard-000").iter().for_each(|segment| segment.set_format(format));
    node.start_again();
    expect_it(&node, id);
    node.kill();
    // The start has written its epoch, and that where a version of the older format refuses to read on.
    let formats: BTreeSet<u8> =
        Segment::of(&node, "shard-000").iter().map(|segment| segment.bytes[8]).collect();
    assert_eq!(formats, [format as u8, 3].into());
}

/// Changes the boot epoch to the last that there can be: the one after it is asserted not to come.
fn with_a_defect_at_the_start(node: &Node) -> Segment {
    let (segment, record) = Segment::with(node, EPOCH, |payload| payload == 1_u32.to_le_bytes());
    segment.change(record, RECORD_HEADER_BYTES, &0x00ff_ffff_u32.to_le_bytes());
    segment
}

#[test]
fn a_defect_at_the_start_is_told_and_nothing_is_lost() {
    let (mut node, id) = node_with_one_ticked(1);
    node.kill();
    let segment = with_a_defect_at_the_start(&node);
    let told = "a shard panicked while it started: shard 0: boot epoch out of range";
    expect_no_start(&mut node, 6, &[told, "tern: thread shard-0 panicked at "]);
    node.setup.environment = vec![("TERN_LOG_FORMAT", "json".into()), ("RUST_BACKTRACE", "1".into())];
    let panicked = [r#"{"fields":{"backtrace":"   0: "#, r#""thread shard-0 panicked at "#];
    let said = expect_no_start(&mut node, 6, &panicked);
    let lines: Vec<serde_json::Value> =
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(
        lines.len() > 2 && lines.iter().all(|line| line["timestamp"].is_string()),
        "each has its time: {said}"
    );
    node.setup.environment.clear();
    segment.restore();
    node.start_again();
    expect_it(&node, id);
}

#[test]
fn a_defect_ends_a_node_whose_log_nobody_reads() {
    let (mut node, id) = node_with_one_ticked(1);
    node.kill();
    let segment = with_a_defect_at_the_start(&node);
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("log");
    let _pipe = full_pipe(&path);
    node.setup.stderr = Some(path);
    expect_no_start(&mut node, 6, &[]);
    node.setup.stderr = None;
    segment.restore();
    node.start_again();
    expect_it(&node, id);
}

/// As if the kernel took the ring away, which it does not.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_shard_that_cannot_go_on_ends_the_node_and_nothing_ticked_is_lost() {
    use nix::{libc, sys::ptrace, sys::wait};
    let (mut node, id) = node_with_one_ticked(2);
    let held = Held::shard(&node, 1);
    loop {
        ptrace::syscall(held.0, None).expect("it goes on to the next end of a system call");
        wait::waitpid(held.0, Some(wait::WaitPidFlag::__WALL)).expect("it stops");
        let mut registers = ptrace::getregs(held.0).expect("it is stopped");
        let is_begin = registers.rax as i64 == -i64::from(libc::ENOSYS);
        if registers.orig_rax as i64 == libc::SYS_io_uring_enter && !is_begin {
            registers.rax = -i64::from(libc::EBADF) as u64;
            ptrace::setregs(held.0, registers).expect("it is stopped");
            break;
        }
    }
    held.let_go();
    let ended = node.wait_for_last_words();
    assert_eq!(ended.status.code(), Some(6), "{}", ended.stderr);
    assert!(ended.stderr.contains("the ring of shard 1 failed: Bad file descriptor"), "{}", ended.stderr);
    node.start_again();
    expect_it(&node, id);
}
