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
    assert!(ring.coming().is_empty());
    phones.iter_mut().for_each(|phone| phone.write_all(b"hello").unwrap());
    let end = Instant::now() + Duration::from_secs(10);
    let (mut heard, mut most) = (vec![], 0);
    while heard.len() < 6 {
        assert!(Instant::now() < end, "{heard:?}");
        ring.enter(Some(Duration::from_millis(20))).unwrap();
        loop {
            let coming = ring.coming().clone();
            most = most.max(coming.len());
            match ring.next_event() {
                Some(Event::Received { key, .. }) => {
                    assert_eq!(Some(&key), coming.front());
                    heard.push(key);
                    assert!(ring.coming().iter().eq(coming.iter().skip(1)));
                }
                None => break,
                event => panic!("{event:?}"),
            }
        }
        assert!(ring.coming().is_empty());
    }
    assert_eq!(most, 6, "all of them in one turn");
    heard.sort_unstable();
    assert_eq!(heard, [100, 101, 102, 103, 104, 105]);
}
