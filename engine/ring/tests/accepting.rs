//! Accepting: addresses, bursts, a full table, pauses, and the end.

mod turns;

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tern_ring::{Config, Event, Listener, Ring};
use turns::{accept, listening, small, until};

#[test]
fn a_full_table_pauses_the_listener_until_a_slot_is_free() {
    let config = Config { descriptor_count: 2, ..small() };
    let (mut ring, address) = listening(&config);
    let _clients: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    let first = accept(&mut ring, 2)[0];
    let mut refused = TcpStream::connect(address).unwrap();
    until(&mut ring, |event| matches!(event, Event::AcceptPaused { error: libc::ENFILE, .. }));
    assert_eq!(refused.read(&mut [0; 1]).unwrap_or(0), 0, "the one too many is closed");
    let _waiting = TcpStream::connect(address).unwrap();
    ring.close(first, 0).unwrap();
    let mut closed = false;
    until(&mut ring, |event| match event {
        Event::Closed { .. } => {
            closed = true;
            false
        }
        Event::Accepted { .. } => true,
        other => panic!("{other:?}"),
    });
    assert!(closed);
}

#[test]
fn a_stopped_listener_refuses() {
    let mut ring = Ring::new(&small()).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    let address = listener.local_addr().unwrap();
    let id = ring.accept(listener);
    ring.enter(None).unwrap();
    ring.stop_accept(id);
    for _ in 0..3 {
        ring.enter(Some(Duration::from_millis(10))).unwrap();
        assert!(ring.next_event().is_none());
    }
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn each_socket_comes_with_its_own_peer() {
    for (host, accept_count) in [("127.0.0.1:0", 1), ("127.0.0.1:0", 16), ("[::1]:0", 4), ("[::]:0", 4)] {
        let config = Config { accept_count, ..small() };
        let mut ring = Ring::new(&config).unwrap();
        let Ok(listener) = Listener::bind(host.parse().unwrap(), 64) else {
            assert!(host.starts_with('['), "only IPv6 may be missing");
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        ring.accept(listener);
        ring.enter(None).unwrap();
        // A listener on all addresses is spoken to by IPv4, and tells that.
        let host = if host.starts_with("[::1]") { "::1" } else { "127.0.0.1" };
        let address = SocketAddr::new(host.parse().unwrap(), port);
        let clients: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
        let wanted: BTreeSet<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        let mut peers = BTreeSet::new();
        until(&mut ring, |event| {
            let Event::Accepted { peer, .. } = event else { panic!("{event:?}") };
            assert!(peers.insert(peer), "told twice: {peer}");
            peers.len() == 40
        });
        assert_eq!(peers, wanted);
    }
}

#[test]
fn a_pause_leaves_the_others_in_the_backlog() {
    let config = Config { descriptor_count: 2, ..small() };
    let (mut ring, address) = listening(&config);
    let mut clients: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut open = accept(&mut ring, 2);
    let _one_too_many = TcpStream::connect(address).unwrap();
    until(&mut ring, |event| matches!(event, Event::AcceptPaused { error: libc::ENFILE, .. }));
    ring.enter(None).unwrap();
    clients.extend((0..10).map(|_| TcpStream::connect(address).unwrap()));
    for _ in 0..5 {
        ring.enter(Some(Duration::from_millis(5))).unwrap();
        assert!(ring.next_event().is_none(), "a paused listener takes nobody");
    }
    assert_eq!(ring.stats().accept_pause_count, 1);
    // One slot after the other is freed: each lets one client in, and one more is lost to find the table full.
    let mut served = 2;
    while served < 7 {
        ring.close(open.remove(0), 0).unwrap();
        until(&mut ring, |event| {
            if let Event::Accepted { slot, .. } = event {
                open.push(slot);
                served += 1;
                return true;
            }
            false
        });
    }
    assert!(ring.stats().slots_used_now <= 2);
}

#[test]
fn accepts_are_taken_back_when_others_fill_the_table() {
    let config = Config { descriptor_count: 3, ..small() };
    let (mut ring, address) = listening(&config);
    // Three accepts are in flight, and then there is no slot for them.
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut own = vec![];
    for key in 0..3 {
        ring.connect(elsewhere.local_addr().unwrap(), None, key).unwrap();
    }
    until(&mut ring, |event| {
        if let Event::Connected { slot, .. } = event {
            own.push(slot);
        }
        own.len() == 3
    });
    let _one_too_many = TcpStream::connect(address).unwrap();
    until(&mut ring, |event| matches!(event, Event::AcceptPaused { error: libc::ENFILE, .. }));
    ring.enter(None).unwrap();
    let clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
    ring.enter(Some(Duration::from_millis(5))).unwrap();
    assert!(ring.next_event().is_none(), "a paused listener takes nobody");
    ring.close(own[0], 0).unwrap();
    let mut first = None;
    until(&mut ring, |event| {
        if let Event::Accepted { peer, .. } = event {
            first = Some(peer);
        }
        first.is_some()
    });
    assert_eq!(first.unwrap(), clients[0].local_addr().unwrap(), "it was thrown away meanwhile");
}
