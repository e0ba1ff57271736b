//! A phone that is connected and reads nothing, on a real socket.

use crate::hostile::Bystanders;
use crate::phone::{Heard, Phone, Way, id};
use crate::process::{Node, Setup};

/// Messages of 32 KiB: more than the kernel takes for a socket that nobody reads, whatever its buffers grow to.
const COUNT: u32 = 400;
const BODY_BYTES: usize = 32 << 10;
/// What one edge holds at most behind a send that does not end, and what lies ready for others.
const EDGE_BYTES_MAX: u64 = 256 << 10;

#[test]
fn a_socket_that_is_never_read_costs_its_edge_little_and_the_others_nothing() {
    let node = Node::start(Setup {
        // All of it may be on its way at once: nothing but its socket holds it up.
        config: format!("[limits]\nwindow_count = {COUNT}"),
        ..Setup::shards(1)
    });
    let mut bystanders = Bystanders::arrive(node.phone, &Way::default());
    let mut slow = Phone::log_in(node.phone, "slow", 3, &Way::default());
    assert_eq!(slow.next(), Heard::Drained);
    let mut eve = Phone::log_in(node.phone, "eve", 4, &Way::default());
    assert_eq!(eve.next(), Heard::Drained);
    let mut ids = Vec::new();
    for serial in 1..=COUNT {
        let id = id(serial);
        ids.push(id);
        eve.send(slow.account, id, &[serial as u8; BODY_BYTES]);
        assert_eq!(eve.next(), Heard::Sent(id));
        if serial % 20 == 0 {
            bystanders.talk();
        }
        if serial >= COUNT - 20 {
            let bytes = node.metric("tern_edge_bytes_now");
            assert!(bytes < EDGE_BYTES_MAX, "{bytes} bytes of buffers behind message {serial}");
        }
    }
    bystanders.were_undisturbed();
    node.wait_for("tern_edge_bytes_now", BODY_BYTES as u64);
    assert_eq!(node.metric("tern_slow_readers_total"), 0);
    for (number, id) in (1..).zip(ids) {
        let body = vec![number as u8; BODY_BYTES];
        assert_eq!(slow.next(), Heard::Message { number, id, body });
        slow.ack(number);
    }
    bystanders.talk();
}
