//! Phones that log in, talk, leave, come back and replace each other, on several shards.

use crate::phone::{Heard, Phone, Way, id};
use crate::process::{Node, Setup};
use std::time::Duration;
use tern_protocol::ids::PartitionId;
use tern_protocol::phone::frame::ClientFrame;

/// Names enough to have accounts on every shard.
fn names() -> impl Iterator<Item = String> {
    (0..12).map(|n| format!("phone-{n}"))
}

/// What a phone has heard and acknowledged.
#[derive(Default)]
struct Taken {
    bodies: Vec<String>,
    sent: usize,
    delivered: usize,
}

impl Taken {
    fn take(&mut self, phone: &mut Phone, is_enough: impl Fn(&Self) -> bool) {
        while !is_enough(self) {
            match phone.next() {
                Heard::Message { number, body, .. } => {
                    self.bodies.push(String::from_utf8(body).expect("text"));
                    phone.ack(number);
                }
                Heard::Sent(_) => self.sent += 1,
                Heard::Delivered { number, .. } => {
                    self.delivered += 1;
                    phone.ack(number);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn phones_of_all_shards_talk_to_each_other() {
    let node = Node::start(Setup::shards(3));
    let mut phones: Vec<Phone> =
        names().map(|name| Phone::log_in(node.phone, &name, 7, &Way::default())).collect();
    let accounts: Vec<_> = phones.iter().map(|phone| phone.account).collect();
    for phone in &mut phones {
        assert_eq!(phone.next(), Heard::Drained);
    }
    for (from, phone) in phones.iter_mut().enumerate() {
        for (to, account) in accounts.iter().enumerate().filter(|(to, _)| *to != from) {
            phone.send(*account, id((from * 100 + to) as u32), format!("{from} to {to}").as_bytes());
        }
    }
    let mut taken: Vec<Taken> = phones.iter().map(|_| Taken::default()).collect();
    for (phone, taken) in phones.iter_mut().zip(&mut taken) {
        taken.take(phone, |taken| taken.bodies.len() >= 11);
    }
    // Everybody has acknowledged all, so that every tick comes.
    for (phone, taken) in phones.iter_mut().zip(&mut taken) {
        taken.take(phone, |taken| taken.sent >= 11 && taken.delivered >= 11);
    }
    for (to, mut taken) in taken.into_iter().enumerate() {
        taken.bodies.sort();
        let mut expected: Vec<_> = (0..12).filter(|n| *n != to).map(|n| format!("{n} to {to}")).collect();
        expected.sort();
        assert_eq!((taken.bodies, taken.sent, taken.delivered), (expected, 11, 11));
    }
    node.wait_for("tern_handed_over_total", 4);
    node.wait_for("tern_messages_appended_total", 12 * 11);
}

#[test]
fn every_way_in_ends_at_home() {
    let node = Node::start(Setup::shards(4));
    for name in names() {
        let first = Phone::log_in(node.phone, &name, 7, &Way::default());
        let (key, home) = (Some(first.server_key), Some(first.account.partition()));
        let account = first.account;
        drop(first);
        // The right hint moves raw bytes; a wrong one moves twice; without one the login moves; XX has no key.
        let wrong = Some(PartitionId((account.partition().0 + 2048) % 4096));
        let mut ticket = None;
        for way in [
            Way { server_key: key, hint: home, ..Way::default() },
            Way { server_key: key, hint: wrong, ..Way::default() },
            Way { server_key: key, hint: None, ..Way::default() },
            Way { server_key: None, hint: home, ..Way::default() },
            Way { server_key: None, hint: wrong, ..Way::default() },
            Way { server_key: key, hint: Some(PartitionId(65_000)), ..Way::default() },
        ] {
            let mut phone = Phone::log_in(node.phone, &name, 7, &way);
            assert_eq!(phone.account, account);
            assert_eq!(phone.next(), Heard::Drained);
            phone.say(&ClientFrame::Ping { token: 5 });
            assert_eq!(phone.next(), Heard::Pong(5));
            ticket = phone.ticket;
        }
        // A ticket says by itself where it belongs.
        for hint in [home, wrong, None, Some(PartitionId(65_000)), wrong] {
            let mut phone = Phone::resume_at(node.phone, ticket.expect("a ticket for the next time"), hint);
            assert_eq!((phone.next(), phone.account), (Heard::Welcome, account), "{name} by {hint:?}");
            assert_eq!(phone.next(), Heard::Drained);
            ticket = phone.ticket;
        }
    }
}

#[test]
fn mail_waits_through_kill_and_drain() {
    let mut node = Node::start(Setup::shards(2));
    let bob = Phone::log_in(node.phone, "bob", 2, &Way::default());
    let account = bob.account;
    drop(bob);
    let mut ann = Phone::log_in(node.phone, "ann", 1, &Way::default());
    assert_eq!(ann.next(), Heard::Drained);
    node.wait_for("tern_accounts_now", 2);
    let (first, second) = (id(1), id(2));
    ann.send(account, first, b"before the kill");
    assert_eq!(ann.next(), Heard::Sent(first));
    node.kill();
    node.start_again();
    let mut ann = Phone::log_in(node.phone, "ann", 1, &Way::default());
    assert_eq!(ann.next(), Heard::Drained);
    ann.send(account, second, b"before the drain");
    assert_eq!(ann.next(), Heard::Sent(second));
    assert!(node.drain().success(), "a drain is a clean end");
    assert_eq!(ann.next(), Heard::Goodbye("Draining".into()));
    node.start_again();
    let mut bob = Phone::log_in(node.phone, "bob", 2, &Way::default());
    let heard = [bob.next(), bob.next(), bob.next()];
    assert_eq!(
        heard,
        [
            Heard::Message { number: 1, id: first, body: b"before the kill".to_vec() },
            Heard::Message { number: 2, id: second, body: b"before the drain".to_vec() },
            Heard::Drained,
        ]
    );
}

#[test]
fn a_second_signal_cuts_a_drain_off_and_loses_nothing_that_was_ticked() {
    const COUNT: u32 = 800;
    let limits = "[limits]\nwindow_count = 1000\nedge_backlog_bytes = 1000000\n";
    let mut node = Node::start(Setup { config: limits.into(), ..Setup::shards(1) });
    // He reads nothing, and a drain waits a second for what is under way to him.
    let bob = Phone::log_in(node.phone, "bob", 2, &Way::default());
    let mut ann = Phone::log_in(node.phone, "ann", 1, &Way::default());
    assert_eq!(ann.next(), Heard::Drained);
    let ids: Vec<u64> = (0..COUNT).map(id).collect();
    for id in &ids {
        ann.send(bob.account, *id, &[7; 30_000]);
    }
    for id in &ids {
        assert_eq!(ann.next(), Heard::Sent(*id));
    }
    // Both are there before the node takes up either.
    for signal in ["STOP", "TERM", "INT", "CONT"] {
        node.signal(signal);
    }
    assert_eq!(node.wait_for_the_end().code(), Some(7));
    node.start_again();
    let mut bob = Phone::log_in(node.phone, "bob", 2, &Way::default());
    for expected in ids {
        let Heard::Message { number, id, .. } = bob.next() else { panic!("mail was promised") };
        assert_eq!(id, expected);
        bob.ack(number);
    }
}

#[test]
fn a_device_replaces_its_own_session_and_nobody_elses() {
    let node = Node::start(Setup::shards(2));
    let mut bob = Phone::log_in(node.phone, "bob", 2, &Way::default());
    assert_eq!(bob.next(), Heard::Drained);
    let mut thief = Phone::connect(node.phone, "bob", 3, &Way::default());
    assert_eq!(thief.next(), Heard::Refused("NameTaken".into()));
    assert_eq!(bob.listen(Duration::from_millis(100)), [], "the owner does not notice");
    let mut again = Phone::log_in(node.phone, "bob", 2, &Way::default());
    assert_eq!(again.next(), Heard::Drained);
    assert_eq!(bob.next(), Heard::Goodbye("Replaced".into()));
    assert_eq!(bob.next(), Heard::End);
}

#[test]
fn names_are_found_and_strangers_are_not() {
    let node = Node::start(Setup::shards(2));
    let bob = Phone::log_in(node.phone, "bob", 2, &Way::default());
    let mut ann = Phone::log_in(node.phone, "ann", 1, &Way::default());
    assert_eq!(ann.next(), Heard::Drained);
    ann.say(&ClientFrame::Lookup { name: "bob" });
    assert_eq!(ann.next(), Heard::Found(Some(bob.account.0)));
    ann.say(&ClientFrame::Lookup { name: "nobody" });
    assert_eq!(ann.next(), Heard::Found(None));
}
