//! Durable writes, direct and buffered.

use std::fs::File;
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

fn write_and_compare(open: impl Fn(&std::path::Path) -> std::io::Result<DurableFile>) -> bool {
    // Beside the build, because /tmp may be a memory file system.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
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
    write_and_compare(DurableFile::open);
}

#[test]
fn buffered_writes_are_there() {
    assert!(!write_and_compare(DurableFile::open_buffered));
}

#[test]
fn an_error_is_reported() {
    let mut ring = ring();
    let full = DurableFile::open_buffered(std::path::Path::new("/dev/full")).unwrap();
    ring.write_durable(&full, 0, &[0; 4096], 3);
    assert_eq!(written(&mut ring, 1), [(3, Err(libc::ENOSPC))]);
    let gone = File::open("/nonexistent");
    assert!(gone.is_err() && DurableFile::open(std::path::Path::new("/nonexistent")).is_err());
}

#[test]
#[should_panic(expected = "whole blocks")]
fn parts_of_blocks_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    std::fs::write(&path, [0; 4096]).unwrap();
    ring().write_durable(&DurableFile::open(&path).unwrap(), 0, &[1; 100], 0);
}
