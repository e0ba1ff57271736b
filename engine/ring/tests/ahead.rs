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
    let end = Instant::now() + Duration::from_secs(10);
    // Until some come together: the system may bring them one by one.
    let mut most = 0;
    while most < 2 {
        phones.iter_mut().for_each(|phone| phone.write_all(b"hello").unwrap());
        let mut heard_bytes = 0;
        while heard_bytes < 6 * 5 {
            assert!(Instant::now() < end, "{heard_bytes} bytes, {most} receives in a turn");
            ring.enter(Some(Duration::from_millis(20))).unwrap();
            loop {
                let coming = ring.coming().clone();
                most = most.max(coming.len());
                match ring.next_event() {
                    Some(Event::Received { key, bytes, .. }) => {
                        assert_eq!(Some(&key), coming.front());
                        assert!((100..106).contains(&key));
                        heard_bytes += bytes.len();
                        assert!(ring.coming().iter().eq(coming.iter().skip(1)));
                    }
                    None => break,
                    event => panic!("{event:?}"),
                }
            }
            assert!(ring.coming().is_empty());
        }
    }
}
