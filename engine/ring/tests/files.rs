//! Durable writes, direct and buffered.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};
use tern_ring::{Config, DurableFile, Event, Ring};

fn ring() -> Ring {
    Ring::new(&Config { descriptor_count: 8, buffer_count: 16, buffer_bytes: 1024, ..Config::default() })
        .unwrap()
}

fn written(ring: &mut Ring, wanted: usize) -> Vec<(u64, Result<(), i32>)> {
    let mut results = vec![];
    let end = Instant::now() + Duration::from_secs(10);
    while results.len() < wanted && Instant::now() < end {
        ring.enter(Some(Duration::from_millis(50))).unwrap();
        while let Some(event) = ring.next_event() {
            let Event::Written { key, result } = event else { panic!("{event:?}") };
            results.push((key, result));
        }
    }
    results
}

/// Beside the build, because /tmp may be a memory file system.
const PLACE: &str = env!("CARGO_TARGET_TMPDIR");

#[repr(align(4096))]
struct Block([u8; 4096]);

/// Whether files there can be written past the cache at all.
fn takes_direct_writes() -> io::Result<()> {
    let directory = tempfile::tempdir_in(PLACE)?;
    let path = directory.path().join("probe");
    let file = OpenOptions::new().write(true).create(true).custom_flags(libc::O_DIRECT).open(path)?;
    file.write_all_at(&Block([1; 4096]).0, 0)
}

fn write_and_compare(open: impl Fn(&Path) -> io::Result<DurableFile>) -> bool {
    let directory = tempfile::tempdir_in(PLACE).unwrap();
    let path = directory.path().join("seg-00000000.log");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let file = open(&path).unwrap();
    let mut ring = ring();
    for n in 0..16_u64 {
        ring.write_durable(&file, n * 8192, &[n as u8 + 1; 8192], n);
    }
    let mut results = written(&mut ring, 16);
    results.sort_unstable();
    assert_eq!(results, (0..16).map(|n| (n, Ok(()))).collect::<Vec<_>>());
    let all = std::fs::read(&path).unwrap();
    assert!((0..16).all(|n| all[n * 8192..(n + 1) * 8192].iter().all(|&byte| byte == n as u8 + 1)));
    assert!(all[16 * 8192..].iter().all(|&byte| byte == 0));
    file.is_direct()
}

#[test]
fn direct_writes_are_there() {
    let is_direct = write_and_compare(DurableFile::open);
    match takes_direct_writes() {
        Ok(()) => assert!(is_direct, "written through the cache, though it can be done past it"),
        Err(error) => {
            // Past the test's own output, which nobody sees of a test that passes.
            let _ = writeln!(io::stderr(), "SKIPPED: that writes to {PLACE} are direct: {error}");
        }
    }
}

#[test]
fn buffered_writes_are_there() {
    assert!(!write_and_compare(DurableFile::open_buffered));
}

#[test]
fn an_error_is_reported() {
    let mut ring = ring();
    let full = DurableFile::open_buffered(Path::new("/dev/full")).unwrap();
    ring.write_durable(&full, 0, &[0; 4096], 3);
    assert_eq!(written(&mut ring, 1), [(3, Err(libc::ENOSPC))]);
    let gone = File::open("/nonexistent");
    assert!(gone.is_err() && DurableFile::open(Path::new("/nonexistent")).is_err());
}

#[test]
#[should_panic(expected = "whole blocks")]
fn parts_of_blocks_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    std::fs::write(&path, [0; 4096]).unwrap();
    ring().write_durable(&DurableFile::open(&path).unwrap(), 0, &[1; 100], 0);
}
