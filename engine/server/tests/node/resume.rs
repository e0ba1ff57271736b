//! Phones with tickets, several devices and a server that changes its key, through kills of the node.

use crate::phone::{Heard, Phone, Way, id};
use crate::process::{Node, Setup};
use tern_protocol::ids::{DeviceId, MessageId};
use tern_protocol::phone::frame::ClientFrame;
use tern_protocol::phone::noise::KeyPair;
use tern_protocol::phone::ticket::Ticket;

/// Logs in and hears that there is no mail.
fn come(node: &Node, name: &str, key: u8) -> Phone {
    let mut phone = Phone::log_in(node.phone, name, key, &Way::default());
    assert_eq!(phone.next(), Heard::Drained);
    phone
}

/// Comes in by a ticket and hears that there is no mail; the next ticket.
fn come_back(node: &Node, ticket: Ticket) -> Ticket {
    let mut phone = Phone::resume(node.phone, ticket);
    assert_eq!(phone.next(), Heard::Welcome);
    assert_eq!(phone.next(), Heard::Drained);
    phone.ticket.expect("a session begins with a ticket for the next one")
}

fn is_refused(node: &Node, ticket: Ticket) -> bool {
    let mut phone = Phone::resume(node.phone, ticket);
    let heard = phone.next();
    assert!(matches!(heard, Heard::TicketRefused | Heard::Welcome), "{heard:?}");
    heard == Heard::TicketRefused && phone.next() == Heard::End
}

fn add_device(phone: &mut Phone, key: u8) {
    phone.say(&ClientFrame::AddDevice { key: KeyPair::from_seed([key; 32]).public });
    assert_eq!(phone.next(), Heard::Devices(vec![1, 2]));
}

#[test]
fn a_ticket_works_once_also_across_kills() {
    let mut node = Node::start(Setup::shards(3));
    let first = come(&node, "ann", 1).ticket.expect("a ticket");
    node.kill();
    node.start_again();
    let second = come_back(&node, first);
    assert!(is_refused(&node, first), "a ticket works twice");
    node.kill();
    node.start_again();
    assert!(is_refused(&node, first), "a kill makes a used ticket good again");
    let third = come_back(&node, second);
    come_back(&node, third);
}

#[test]
fn a_forged_ticket_is_refused_and_a_stolen_id_is_nothing() {
    let node = Node::start(Setup::shards(3));
    let ticket = come(&node, "ann", 1).ticket.expect("a ticket");
    for at in [0, 11, 12, 29, 30, 45] {
        let mut forged = ticket;
        forged.id[at] ^= 1;
        assert!(is_refused(&node, forged), "byte {at} is not looked at");
    }
    let mut thief = Phone::resume(node.phone, Ticket { psk: [7; 32], ..ticket });
    assert_eq!(thief.next(), Heard::End);
    come_back(&node, ticket);
}

#[test]
fn a_changed_server_key_is_told_to_who_knew_the_old_one() {
    let mut node = Node::start(Setup::shards(2));
    let ann = come(&node, "ann", 1);
    let (old, ticket) = (ann.server_key, ann.ticket.expect("a ticket"));
    assert!(node.drain().success());
    node.rotate_key(30);
    node.start_again();
    let by_old = Way { server_key: Some(old), hint: None, header: Vec::new() };
    let mut ann = Phone::log_in(node.phone, "ann", 1, &by_old);
    assert_eq!(ann.next(), Heard::Drained);
    let new = ann.told_key.expect("who comes by the old key is told the new one");
    assert_ne!(new, old);
    let mut ann = Phone::resume(node.phone, ticket);
    assert_eq!((ann.next(), ann.next()), (Heard::Welcome, Heard::Drained));
    assert_eq!(ann.told_key, Some(new), "who comes by a ticket is told as well");
    let kept = ann.ticket.expect("another ticket");
    let by_new = Way { server_key: Some(new), hint: None, header: Vec::new() };
    let mut ann = Phone::log_in(node.phone, "ann", 1, &by_new);
    assert_eq!(ann.next(), Heard::Drained);
    assert_eq!(ann.told_key, None, "there is nothing to tell");
    assert!(node.drain().success());
    let refused = node.try_to_rotate_key(0, &[]);
    assert_eq!(refused.status.code(), Some(3), "the old key still works: {refused:?}");
    node.rotate_key(0);
    node.start_again();
    let mut ann = Phone::resume(node.phone, kept);
    assert_eq!((ann.next(), ann.next()), (Heard::Welcome, Heard::Drained));
    assert!(
        ann.told_key.is_some_and(|key| key != new),
        "a ticket brings the key when all older ones have ended"
    );
    assert_eq!(Phone::connect(node.phone, "ann", 1, &by_new).next(), Heard::End, "its time is over");
    assert_eq!(Phone::connect(node.phone, "ann", 1, &by_old).next(), Heard::End, "long gone");
}

#[test]
fn copies_and_read_ticks_survive_kills() {
    let mut node = Node::start(Setup::shards(3));
    let bob = come(&node, "bob", 2).account;
    let mut ann = come(&node, "ann", 1);
    add_device(&mut ann, 11);
    let (account, message) = (ann.account, id(1));
    ann.send(bob, message, b"from the desk");
    assert_eq!(ann.next(), Heard::Sent(message));
    node.kill();
    node.start_again();
    let mut pocket = Phone::log_in(node.phone, "ann", 11, &Way::default());
    let copy = Heard::Copy { number: 1, id: message, body: b"from the desk".to_vec() };
    assert_eq!((pocket.next(), pocket.next()), (copy, Heard::Drained));
    let mut bob = Phone::log_in(node.phone, "bob", 2, &Way::default());
    let mail = Heard::Message { number: 1, id: message, body: b"from the desk".to_vec() };
    assert_eq!((bob.next(), bob.next()), (mail, Heard::Drained));
    bob.ack(1);
    bob.say(&ClientFrame::Read { author: account, id: MessageId(message) });
    assert_eq!(bob.next(), Heard::ReadTaken(message));
    node.kill();
    node.start_again();
    // The device in the pocket has not acknowledged its copy; only the one on the desk sent, and hears `delivered`.
    let mut pocket = Phone::log_in(node.phone, "ann", 11, &Way::default());
    let copy = Heard::Copy { number: 1, id: message, body: b"from the desk".to_vec() };
    assert_eq!((pocket.next(), pocket.next()), (copy, Heard::Read { number: 2, id: message }));
    let mut desk = Phone::log_in(node.phone, "ann", 1, &Way::default());
    let mut heard = [desk.next(), desk.next()];
    heard.sort_by_key(|heard| matches!(heard, Heard::Read { .. }));
    assert!(matches!(heard[0], Heard::Delivered { id, .. } if id == message), "{heard:?}");
    assert!(matches!(heard[1], Heard::Read { id, .. } if id == message), "{heard:?}");
}

#[test]
fn a_revoked_device_is_thrown_out_for_good() {
    let mut node = Node::start(Setup::shards(2));
    let mut desk = come(&node, "ann", 1);
    add_device(&mut desk, 11);
    let mut pocket = come(&node, "ann", 11);
    let ticket = pocket.ticket.expect("a ticket");
    let (account, message) = (desk.account, id(1));
    let mut bob = come(&node, "bob", 2);
    bob.send(account, message, b"for all devices");
    assert_eq!(bob.next(), Heard::Sent(message));
    let mail = Heard::Message { number: 1, id: message, body: b"for all devices".to_vec() };
    assert_eq!((desk.next(), pocket.next()), (mail.clone(), mail));
    desk.say(&ClientFrame::RevokeDevice { device: DeviceId(2) });
    assert_eq!(desk.next(), Heard::Devices(vec![1]));
    assert_eq!((pocket.next(), pocket.next()), (Heard::Goodbye("Removed".into()), Heard::End));
    for kill in [false, true] {
        if kill {
            node.kill();
            node.start_again();
        }
        assert!(is_refused(&node, ticket), "the ticket of a revoked device works");
        let refused = Phone::connect(node.phone, "ann", 11, &Way::default()).next();
        assert_eq!(refused, Heard::Refused("NameTaken".into()));
    }
    let mut desk = Phone::log_in(node.phone, "ann", 1, &Way::default());
    assert!(matches!(desk.next(), Heard::Message { .. }), "it was not acknowledged");
    assert_eq!(desk.next(), Heard::Drained);
    desk.say(&ClientFrame::RevokeDevice { device: DeviceId(1) });
    assert_eq!(desk.next(), Heard::DevicesRefused("LastDevice".into()));
}
