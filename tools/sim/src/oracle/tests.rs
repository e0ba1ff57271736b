//! The rules, each on a play of a few lines.

use super::*;

fn world() -> (Oracle, usize, usize) {
    let mut oracle = Oracle::default();
    let a = oracle.add_account("a".into());
    let b = oracle.add_account("b".into());
    for account in [a, b] {
        oracle.devices.add(account, [account as u8; 32], Some(DeviceId(1)));
    }
    oracle.now_ms = 6000;
    oracle.learn_id(a, AccountId(1)).unwrap();
    oracle.learn_id(b, AccountId(2)).unwrap();
    (oracle, a, b)
}

fn receipt<'a>(oracle: &Oracle, account: usize, serial: usize, body: &'a [u8]) -> Receipt<'a> {
    let id = oracle.messages[serial].id;
    let (device, from) = (DeviceId(1), AccountId(1));
    Receipt { account, device, from, from_name: "a", id, time_s: 5, body, life: 1 }
}

#[test]
fn order_addressee_content_and_floors_are_checked() {
    let (mut oracle, a, b) = world();
    let first = oracle.compose(a, b, MessageId(1), 5000, b"x");
    let second = oracle.compose(a, b, MessageId(2), 5000, b"y");
    let bodies: Vec<Vec<u8>> = oracle.messages.iter().map(|m| m.body.clone()).collect();
    assert!(oracle.seen(&receipt(&oracle, a, first, &bodies[0]), false).unwrap_err().contains("given to"));
    assert!(oracle.seen(&receipt(&oracle, b, first, b"z"), false).unwrap_err().contains("changed"));
    oracle.seen(&receipt(&oracle, b, second, &bodies[1]), false).unwrap();
    assert!(oracle.seen(&receipt(&oracle, b, first, &bodies[0]), false).unwrap_err().contains("order"));
    assert!(oracle.floored(second, DeviceId(1)).is_err());
    oracle.acknowledged(second, DeviceId(1), 1);
    oracle.floored(second, DeviceId(1)).unwrap();
    assert!(oracle.seen(&receipt(&oracle, b, second, &bodies[1]), true).unwrap_err().contains("again"));
}

#[test]
fn ticks_must_not_come_before_their_fact() {
    let (mut oracle, a, b) = world();
    let serial = oracle.compose(a, b, MessageId(1), 5000, b"");
    assert!(oracle.sent(a, MessageId(1)).is_err());
    assert!(oracle.delivered(a, AccountId(2), MessageId(1), 1).is_err());
    let mut disk_bytes = vec![7; 100];
    disk_bytes.extend(&oracle.messages[serial].body.clone());
    oracle.written(&disk_bytes);
    oracle.sent(a, MessageId(1)).unwrap();
    oracle.acknowledged(serial, DeviceId(1), 1);
    assert!(oracle.delivered(a, AccountId(1), MessageId(1), 1).is_err());
    oracle.delivered(a, AccountId(2), MessageId(1), 1).unwrap();
    assert!(oracle.unfinished(serial).unwrap().contains("never reached"));
}

#[test]
fn a_delivered_tick_is_for_the_device_that_sent_the_message() {
    let (mut oracle, a, b) = world();
    oracle.devices.add(a, [9; 32], Some(DeviceId(2)));
    let serial = oracle.compose(a, b, MessageId(1), 5000, b"");
    oracle.acknowledged(serial, DeviceId(1), 1);
    assert!(oracle.delivered(2, AccountId(2), MessageId(1), 1).unwrap_err().contains("did not send it"));
    oracle.delivered(a, AccountId(2), MessageId(1), 1).unwrap();
}

#[test]
fn a_copy_is_for_the_senders_other_devices_and_says_what_the_message_says() {
    let (mut oracle, a, b) = world();
    for number in 2..=3 {
        oracle.devices.add(a, [10 + number; 32], Some(DeviceId(number.into())));
    }
    let id = MessageId(1);
    let serial = oracle.compose(a, b, id, 5000, b"x");
    let body = oracle.messages[serial].body.clone();
    let (second, to) = (DeviceId(2), AccountId(2));
    assert!(oracle.copied(a, second, to, MessageId(7), &body).unwrap_err().contains("unknown"));
    assert!(oracle.copied(b, DeviceId(1), to, id, &body).unwrap_err().contains("unknown"));
    assert!(oracle.copied(a, DeviceId(1), to, id, &body).unwrap_err().contains("is wrong"), "it sent it");
    assert!(oracle.copied(a, second, AccountId(1), id, &body).unwrap_err().contains("is wrong"));
    assert!(oracle.copied(a, second, to, id, &body[1..]).unwrap_err().contains("is wrong"));
    assert_eq!(oracle.copied(a, second, to, id, &body), Ok(serial));
    oracle.devices.0[3].revoke_asked = true;
    oracle.devices.is_revoked(3, serial, 0).unwrap();
    assert!(oracle.copied(a, DeviceId(3), to, id, &body).unwrap_err().contains("was revoked"));
}

#[test]
fn a_message_is_not_safe_before_its_copy_is() {
    let (mut oracle, a, b) = world();
    oracle.devices.add(a, [9; 32], Some(DeviceId(2)));
    let serial = oracle.compose(a, b, MessageId(1), 5000, b"");
    oracle.messages[serial].durable = true;
    assert!(oracle.sent(a, MessageId(1)).unwrap_err().contains("before its copy was safe"));
    oracle.messages[serial].copy_acknowledged_by.insert(2);
    oracle.sent(a, MessageId(1)).unwrap();
}

#[test]
fn a_read_tick_comes_from_who_has_read_the_message() {
    let (mut oracle, a, b) = world();
    let (id, device) = (MessageId(1), DeviceId(1));
    let serial = oracle.compose(a, b, id, 5000, b"");
    assert!(oracle.read(a, device, AccountId(2), MessageId(7)).unwrap_err().contains("unknown"));
    assert!(oracle.read(a, device, AccountId(2), id).unwrap_err().contains("before it was read"));
    oracle.messages[serial].read_said = true;
    assert!(oracle.read(a, device, AccountId(1), id).is_err(), "its sender is not its reader");
    assert_eq!(oracle.read(a, device, AccountId(2), id), Ok(serial));
}

#[test]
fn only_who_said_that_a_message_was_read_is_told_that_this_is_safe() {
    let (mut oracle, a, b) = world();
    let serial = oracle.compose(a, b, MessageId(1), 5000, b"");
    assert!(oracle.read_taken(b, AccountId(1), MessageId(7)).unwrap_err().contains("nobody sent"));
    assert!(oracle.read_taken(b, AccountId(1), MessageId(1)).is_err(), "nobody said so");
    oracle.messages[serial].read_said = true;
    assert!(oracle.read_taken(a, AccountId(1), MessageId(1)).is_err(), "its sender did not read it");
    oracle.read_taken(b, AccountId(1), MessageId(1)).unwrap();
    assert!(oracle.messages[serial].read_taken);
}

#[test]
fn a_stamp_lies_between_the_composing_and_now() {
    let (mut oracle, a, b) = world();
    let serial = oracle.compose(a, b, MessageId(1), 5000, b"");
    assert!(oracle.stamped(serial, 3).is_err() && oracle.stamped(serial, 7).is_err());
    oracle.stamped(serial, 4).unwrap();
    oracle.stamped(serial, 6).unwrap();
    oracle.sets_clock = true;
    oracle.stamped(serial, 7).unwrap();
}

#[test]
fn a_message_is_done_when_its_copies_and_its_read_tick_are_with_all_that_they_are_for() {
    let (mut oracle, a, b) = world();
    oracle.devices.add(a, [9; 32], Some(DeviceId(2)));
    let (first, second, to) = (DeviceId(1), DeviceId(2), AccountId(2));
    let serial = oracle.compose(a, b, MessageId(1), 5000, b"");
    let body = oracle.messages[serial].body.clone();
    oracle.seen(&receipt(&oracle, b, serial, &body), false).unwrap();
    oracle.acknowledged(serial, DeviceId(1), 1);
    let message = &mut oracle.messages[serial];
    (message.sent_ms, message.delivered) = (Some(6000), true);
    let is_missing = |oracle: &Oracle, what: &str| oracle.unfinished(serial).unwrap().contains(what);
    assert!(is_missing(&oracle, "the copy of message 0 never reached Some(DeviceId(2))"));
    oracle.copied(a, second, to, MessageId(1), &body).unwrap();
    assert_eq!(oracle.unfinished(serial), None);
    oracle.messages[serial].read_said = true;
    assert_eq!(oracle.unfinished(serial), None, "nobody was told that the tick is safe");
    oracle.messages[serial].read_taken = true;
    assert!(is_missing(&oracle, "the read tick of message 0 was taken"));
    oracle.read(a, first, to, MessageId(1)).unwrap();
    assert!(is_missing(&oracle, "never reached Some(DeviceId(2))"));
    oracle.read(a, second, to, MessageId(1)).unwrap();
    assert_eq!(oracle.unfinished(serial), None);
}

#[test]
fn what_was_acknowledged_does_not_come_again_while_the_node_lives() {
    let (mut oracle, a, b) = world();
    let serial = oracle.compose(a, b, MessageId(1), 5000, b"");
    let body = oracle.messages[serial].body.clone();
    oracle.seen(&receipt(&oracle, b, serial, &body), false).unwrap();
    oracle.acknowledged(serial, DeviceId(1), 1);
    // The acknowledgement may not have arrived.
    oracle.seen(&receipt(&oracle, b, serial, &body), true).unwrap();
    oracle.delivered(a, AccountId(2), MessageId(1), 1).unwrap();
    assert!(oracle.seen(&receipt(&oracle, b, serial, &body), true).unwrap_err().contains("same life"));
    // A stop may forget a floor.
    let later = Receipt { life: 3, ..receipt(&oracle, b, serial, &body) };
    oracle.seen(&later, true).unwrap();
    // Another device may have earned the tick.
    oracle.devices.add(b, [9; 32], Some(DeviceId(2)));
    oracle.seen(&receipt(&oracle, b, serial, &body), true).unwrap();
}
