//! Whose bytes come next is known before they are looked at.

mod turns;

use self::turns::{accept, listening, small};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tern_ring::Event;

#[test]
fn whose_bytes_come_is_told_as_they_will_come() {
    let (mut ring, address) = listening(&small());
    let mut phones: Vec<_> = (0..6).map(|_| TcpStream::connect(address).unwrap()).collect();
    for (key, slot) in (100..).zip(accept(&mut ring, 6)) {
        ring.receive_always(slot, key).unwrap();
    }
    ring.enter(Some(Duration::ZERO)).unwrap();
    while ring.next_event().is_some() {}
    assert_eq!(ring.ahead(0), None, "nothing was taken from the queue");
    phones.iter_mut().for_each(|phone| phone.write_all(b"hello").unwrap());
    let end = Instant::now() + Duration::from_secs(10);
    let (mut told, mut heard) = (vec![], vec![]);
    while heard.len() < 6 {
        assert!(Instant::now() < end, "{heard:?}");
        ring.enter(Some(Duration::from_millis(20))).unwrap();
        while let Some(event) = ring.next_event() {
            let Event::Received { key, .. } = event else { panic!("{event:?}") };
            if let Some(&(place, expected)) = told.iter().find(|&&(place, _)| place == heard.len()) {
                assert_eq!(key, expected, "the phone at {place}");
            }
            heard.push(key);
            told.extend((0..6).filter_map(|count| Some((heard.len() + count, ring.ahead(count)?))));
        }
        assert_eq!(ring.ahead(0), None);
    }
    assert!(!told.is_empty(), "six phones in one turn");
    heard.sort_unstable();
    assert_eq!(heard, [100, 101, 102, 103, 104, 105]);
}
