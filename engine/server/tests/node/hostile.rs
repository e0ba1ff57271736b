//! Hostile clients on real sockets: each meets its limit and its counter, and two bystanders go on talking.

use crate::phone::{Heard, Phone, Way, id};
use crate::process::{Node, Setup};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tern_protocol::phone::frame::ClientFrame;
use tern_protocol::proxy::SIGNATURE;

fn node(shards: u16, config: &str) -> Node {
    Node::start(Setup { config: config.into(), ..Setup::shards(shards) })
}

/// What a balancer writes before a connection from this address.
fn header(source: [u8; 4]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([0x21, 0x11, 0, 12]);
    bytes.extend(source);
    bytes.extend(Ipv4Addr::LOCALHOST.octets());
    bytes.extend([0xc3, 0x50, 0x1c, 0x9a]);
    bytes
}

/// Talks of a quiet phase, of which the median is compared.
const QUIET_TALKS: usize = 15;
/// So much longer may a talk take while others attack, the median again. On a machine with a core for each process it is
/// at most twice as long, which `cargo xtask bench hostile` measures; here the tests themselves are on those cores.
const FACTOR: u32 = 10;
/// And less than this is no disturbance, whatever a quiet talk takes.
const NOTICED: Duration = Duration::from_millis(40);

/// Two phones who only want to talk, and how long it takes them.
pub(crate) struct Bystanders {
    pub(crate) ann: Phone,
    bob: Phone,
    count: u32,
    /// The median before anybody disturbed them.
    quiet: Duration,
    /// Since then.
    times: Vec<Duration>,
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

impl Bystanders {
    pub(crate) fn arrive(door: SocketAddr, way: &Way) -> Self {
        let [ann, bob] = [("ann", 1), ("bob", 2)].map(|(name, key)| {
            let mut phone = Phone::log_in(door, name, key, way);
            assert_eq!(phone.next(), Heard::Drained);
            phone
        });
        let mut both = Self { ann, bob, count: 0, quiet: Duration::ZERO, times: Vec::new() };
        both.quiet = both.talk_in_quiet();
        both
    }

    fn talk_in_quiet(&mut self) -> Duration {
        let before = self.times.len();
        (0..QUIET_TALKS).for_each(|_| self.talk());
        median(&self.times.split_off(before))
    }

    /// What disturbs them is over: they have not noticed it. The machine may have got busier by other things, so they are
    /// asked once more how long it takes in quiet.
    pub(crate) fn were_undisturbed(&mut self) {
        let quiet = self.quiet.max(self.talk_in_quiet());
        let disturbed = median(&self.times);
        let allowed = (quiet * FACTOR).max(NOTICED);
        assert!(disturbed <= allowed, "{disturbed:?} a talk, {quiet:?} in quiet: {:?}", self.times);
    }

    /// Ann writes to Bob; he has it, she has both ticks.
    pub(crate) fn talk(&mut self) {
        let start = Instant::now();
        self.count += 1;
        let id = id(self.count);
        self.ann.send(self.bob.account, id, b"undisturbed");
        let number = self.count;
        assert_eq!(self.bob.next(), Heard::Message { number, id, body: b"undisturbed".to_vec() });
        self.bob.ack(number);
        let mut ticks = [self.ann.next(), self.ann.next()];
        ticks.sort_by_key(|tick| matches!(tick, Heard::Delivered { .. }));
        assert_eq!(ticks, [Heard::Sent(id), Heard::Delivered { number, id }]);
        self.ann.ack(number);
        self.times.push(start.elapsed());
    }
}

/// Whether the other end has closed; bytes that it says first are read and thrown away.
fn is_closed(socket: &mut TcpStream) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(5))).expect("a socket option");
    let mut bytes = [0; 256];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

/// Waits until so many of the sockets are closed.
fn wait_closed(sockets: &mut [TcpStream], count: usize) {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let closed = sockets.iter_mut().filter_map(|socket| is_closed(socket).then_some(())).count();
        if closed >= count {
            assert_eq!(closed, count);
            return;
        }
        assert!(Instant::now() < deadline, "{closed} of {count} are closed");
    }
}

#[test]
fn an_address_that_connects_too_often_is_shut_out_and_its_neighbours_are_not() {
    let config =
        "phone_proxy = [\"127.0.0.0/8\"]\n[limits]\naddress_connects_per_s = 1\naddress_connects_burst = 20";
    let node = node(1, config);
    let mut bystanders =
        Bystanders::arrive(node.phone, &Way { header: header([198, 51, 100, 1]), ..Way::default() });
    let mut sockets = Vec::new();
    for count in 0..300 {
        let mut socket = TcpStream::connect(node.phone).expect("the door is open");
        socket.write_all(&header([203, 0, 113, 9])).expect("a fresh socket has room");
        sockets.push(socket);
        if count % 50 == 0 {
            bystanders.talk();
        }
    }
    // A slow run gives it some more, one a second.
    node.wait_for("tern_refused_address_connects_total", 240);
    bystanders.talk();
    let way = Way { header: header([203, 0, 113, 10]), ..Way::default() };
    let _neighbour = Phone::log_in(node.phone, "carol", 3, &way);
    assert_eq!(node.metric("tern_proxy_errors_total"), 0);
    bystanders.were_undisturbed();
}

#[test]
fn loopback_is_limited_where_the_setting_says_so() {
    let config = "[limits]\nlimit_loopback = true\naddress_connects_per_s = 1\naddress_connects_burst = 30";
    let node = node(1, config);
    let mut sockets: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(node.phone).expect("the system accepts")).collect();
    node.wait_for("tern_accepted_total", 200);
    let refused = node.metric("tern_refused_address_connects_total");
    wait_closed(&mut sockets, refused as usize);
}

#[test]
fn a_balancer_that_sends_no_header_is_closed_and_counted() {
    let node = node(2, "phone_proxy = [\"127.0.0.1\"]");
    let mut socket = TcpStream::connect(node.phone).expect("the door is open");
    socket.write_all(b"TRN\x01\x01\0\0\0").expect("a fresh socket has room");
    node.wait_for("tern_proxy_errors_total", 1);
    wait_closed(&mut [socket], 1);
    let mut way = Way { header: header([203, 0, 113, 5]), ..Way::default() };
    let mut bystanders = Bystanders::arrive(node.phone, &way);
    bystanders.talk();
    // By way of another shard too: the partition is named, so that the bytes move before they are read.
    way.server_key = Some(bystanders.ann.server_key);
    for number in [0, 4_000] {
        way.hint = Some(tern_protocol::ids::PartitionId(number));
        let _phone = Phone::log_in(node.phone, "ann", 1, &way);
    }
}

#[test]
fn descriptors_that_are_used_up_come_back() {
    let node = node(1, "[limits]\nconnection_count = 20\nlogin_ms = 60000");
    let mut bystanders = Bystanders::arrive(node.phone, &Way::default());
    let mut sockets: Vec<TcpStream> =
        (0..60).map(|_| TcpStream::connect(node.phone).expect("the system accepts")).collect();
    node.wait_for("tern_refused_connections_total", 42);
    wait_closed(&mut sockets, 42);
    for _ in 0..5 {
        bystanders.talk();
    }
    drop(sockets);
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.metric("tern_connections_now") > 2 {
        assert!(Instant::now() < deadline, "connections are left over");
    }
    let _carol = Phone::log_in(node.phone, "carol", 3, &Way::default());
    bystanders.were_undisturbed();
}

#[test]
fn a_byte_now_and_then_meets_the_login_deadline() {
    let node = node(2, "[limits]\nlogin_ms = 2000");
    let mut bystanders = Bystanders::arrive(node.phone, &Way::default());
    let mut sockets: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(node.phone).expect("the door is open")).collect();
    for byte in b"TRN\x01\x01" {
        sockets.iter_mut().for_each(|socket| {
            let _ = socket.write_all(&[*byte]);
        });
        bystanders.talk();
        std::thread::sleep(Duration::from_millis(200));
    }
    wait_closed(&mut sockets, 100);
    node.wait_for("tern_timeouts_total", 100);
    bystanders.were_undisturbed();
}

#[test]
fn a_flood_of_frames_is_sent_away_and_an_account_that_floods_is_slowed_down() {
    let config = "[limits]\nconnection_frames_per_s = 50\nconnection_frames_burst = 400\n\
                  account_messages_per_s = 5\naccount_messages_burst = 50";
    let node = node(2, config);
    let mut bystanders = Bystanders::arrive(node.phone, &Way::default());
    let mut eve = Phone::log_in(node.phone, "eve", 5, &Way::default());
    assert_eq!(eve.next(), Heard::Drained);
    for n in 0..100 {
        eve.send(bystanders.bob.account, id(1000 + n), b"flood");
    }
    // What she says while the first one is refused is refused as well, and costs no token.
    node.wait_for("tern_refused_busy_total", 40);
    assert!(node.metric("tern_refused_account_rate_total") >= 1);
    for _ in 0..40 {
        while !matches!(eve.next(), Heard::Busy(_)) {}
    }
    (0..1000).for_each(|token| eve.say(&ClientFrame::Ping { token }));
    node.wait_for("tern_floods_total", 1);
    let heard = eve.listen(Duration::from_secs(5));
    assert_eq!(heard.last(), Some(&Heard::End));
    // Bob has some of her messages to acknowledge; Ann and Carol have nothing to do with it.
    let mut carol = Phone::log_in(node.phone, "carol", 3, &Way::default());
    assert_eq!(carol.next(), Heard::Drained);
    bystanders.ann.send(carol.account, id(1), b"undisturbed");
    assert!(matches!(carol.next(), Heard::Message { number: 1, .. }));
}

#[test]
fn half_records_that_fill_the_memory_end_those_who_hold_them() {
    let node = node(1, "[limits]\nconnection_count = 20\nedge_bytes = 212992");
    let mut bystanders = Bystanders::arrive(node.phone, &Way::default());
    let mut half = vec![7; 30_000];
    half[..3].copy_from_slice(&[2, 0xff, 0xff]);
    let mut thieves: Vec<Phone> =
        (10..22).map(|key| Phone::log_in(node.phone, &format!("eve{key}"), key, &Way::default())).collect();
    for thief in &mut thieves {
        thief.write(&half);
        bystanders.talk();
    }
    node.wait_for("tern_refused_memory_total", 8);
    assert!(node.metric("tern_edge_bytes_now") <= 212_992);
    bystanders.were_undisturbed();
}

#[test]
fn a_connection_whose_other_end_says_nothing_more_is_given_up() {
    let node = node(2, "[limits]\nidle_ms = 2000");
    let mut gone = Phone::log_in(node.phone, "eve", 5, &Way::default());
    node.wait_for("tern_timeouts_total", 1);
    let heard = gone.listen(Duration::from_secs(5));
    assert_eq!(heard[heard.len() - 2..], [Heard::Goodbye("Idle".into()), Heard::End]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.metric("tern_connections_now") + node.metric("tern_sessions_now") > 0 {
        assert!(Instant::now() < deadline, "it is left over");
    }
}
