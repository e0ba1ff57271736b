//! Coming back: with a ticket, once, across a kill; and with a key that the server has left behind.

use crate::world::phone::{Heard, Phone};
use crate::world::{World, server_keys};
use tern_core::io::Input;
use tern_core::limits::Limits;
use tern_protocol::ids::DeviceId;
use tern_protocol::phone::frame::ClientFrame;
use tern_protocol::phone::noise::KeyPair;
use tern_protocol::phone::ticket::{KeyMark, Ticket, TicketClaims, TicketKeys};

/// A world and a ticket of ann's, who has gone.
fn with_a_ticket(limits: Limits) -> (World, Ticket) {
    let mut world = World::new(limits);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let ticket = ann.ticket.expect("every session begins with a ticket");
    ann.leave(&mut world);
    (world, ticket)
}

#[test]
fn a_ticket_works_across_a_kill_and_works_once() {
    let (world, ticket) = with_a_ticket(Limits::default());
    let mut world = world.kill();
    let mut ann = Phone::resume(&mut world, 0, ticket);
    assert_eq!(ann.heard, [Heard::Drained]);
    assert_eq!(world.shard.counters().logins_by_ticket, 1);
    let next = ann.ticket.expect("and with another ticket");
    ann.leave(&mut world);
    assert_eq!(Phone::resume(&mut world, 0, ticket).heard, [Heard::TicketRefused]);
    // What was used stays used, whatever happens.
    let mut world = world.kill();
    assert_eq!(Phone::resume(&mut world, 0, ticket).heard, [Heard::TicketRefused]);
    assert_eq!(Phone::resume(&mut world, 0, next).heard, [Heard::Drained]);
    assert_eq!(world.shard.counters().tickets_refused, 1);
}

#[test]
fn a_session_waits_until_its_ticket_is_used_up_on_disk() {
    let (mut world, ticket) = with_a_ticket(Limits::default());
    world.disk_runs = false;
    let mut ann = Phone::resume(&mut world, 0, ticket);
    ann.client.send(&tern_protocol::phone::frame::ClientFrame::Ping { token: 5 });
    ann.exchange(&mut world);
    assert!(ann.heard.is_empty() && ann.account.is_some(), "welcome, and nothing else: {:?}", ann.heard);
    let counters = world.shard.counters();
    assert_eq!((counters.sessions_now, counters.logins_by_ticket), (0, 0));
    // The process dies before the disk has it: the ticket is good for one more time.
    let mut again = world.kill();
    let ann = Phone::resume(&mut again, 0, ticket);
    assert_eq!(ann.heard, [Heard::Drained]);
}

#[test]
fn what_is_said_before_the_ticket_is_used_up_counts_for_its_account() {
    let limits = Limits { account_frames_per_s: 20, account_frames_burst: 60, ..Limits::default() };
    for (count, floods) in [(40, 0), (80, 1)] {
        let (mut world, ticket) = with_a_ticket(limits);
        world.pass_ms(5_000);
        let mut ann = Phone::with_ticket(9, ticket);
        world.step(Input::Accepted { slot: 9, peer: None });
        world.turn();
        while ann.account.is_none() {
            ann.exchange(&mut world);
            world.next_turn();
            ann.hear(&mut world);
        }
        // All of it in one record with its `Start`.
        (0..count).for_each(|token| ann.client.send(&ClientFrame::Ping { token }));
        ann.exchange(&mut world);
        world.next_turn();
        ann.hear(&mut world);
        assert_eq!((world.shard.counters().account_floods, world.shard.counters().floods), (floods, 0));
        assert_eq!(ann.heard.contains(&Heard::Goodbye("Busy".into())), floods == 1, "{:?}", ann.heard);
    }
}

#[test]
fn of_two_connections_with_one_ticket_one_gets_in() {
    let (mut world, ticket) = with_a_ticket(Limits::default());
    world.disk_runs = false;
    let mut first = Phone::resume(&mut world, 0, ticket);
    let mut second = Phone::resume(&mut world, 1, ticket);
    world.disk_runs = true;
    world.run_disk();
    world.turn();
    first.hear(&mut world);
    second.hear(&mut world);
    assert_eq!(first.heard, [Heard::Drained]);
    assert_eq!(second.heard, [Heard::TicketRefused], "used while it was being welcomed");
}

#[test]
fn what_a_phone_says_behind_start_is_heard_when_the_session_begins() {
    let (mut world, ticket) = with_a_ticket(Limits::default());
    let bob = Phone::connect(&mut world, 1, "bob", 2);
    let mut ann = Phone::resume(&mut world, 0, ticket);
    // Queued by the client behind `Start` in one record while it waits for the welcome.
    ann.leave(&mut world);
    let next = ann.ticket.unwrap();
    world.disk_runs = false;
    let mut ann = Phone::resume(&mut world, 2, next);
    ann.send(&mut world, &bob, 1_800_000_000 << 32 | 1, b"at once");
    world.disk_runs = true;
    world.run_disk();
    world.turn();
    let mut bob = bob;
    bob.hear(&mut world);
    assert!(bob.heard.iter().any(|heard| matches!(heard, Heard::Message { body, .. } if body == b"at once")));
}

#[test]
fn forged_and_old_tickets_are_refused() {
    let (mut world, ticket) = with_a_ticket(Limits { ticket_ms: 5_000, ..Limits::default() });
    let mut forged = ticket;
    forged.id[20] ^= 1;
    assert_eq!(Phone::resume(&mut world, 0, forged).heard, [Heard::TicketRefused]);
    let stolen = Ticket { psk: [0; 32], ..ticket };
    let thief = Phone::resume(&mut world, 0, stolen);
    assert!(thief.heard.is_empty() && thief.account.is_none());
    world.pass_ms(6_000);
    assert_eq!(Phone::resume(&mut world, 1, ticket).heard, [Heard::TicketRefused], "too old");
    let (mut world, _) = (World::new(Limits { ticket_ms: 0, ..Limits::default() }), ());
    assert!(Phone::connect(&mut world, 0, "ann", 1).ticket.is_none(), "switched off");
}

#[test]
fn who_knows_the_key_before_is_told_the_present_one() {
    let (world, ticket) = with_a_ticket(Limits::default());
    let fresh = KeyPair::from_seed([77; 32]);
    let mut world = world.kill_with_another_key(fresh, true);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    assert_eq!(ann.heard, [Heard::ServerKey(fresh.public), Heard::Drained]);
    ann.leave(&mut world);
    let mut ann = Phone::resume(&mut world, 0, ticket);
    assert_eq!(ann.heard, [Heard::ServerKey(fresh.public), Heard::Drained]);
    ann.leave(&mut world);
    let ann = Phone::resume(&mut world, 0, ann.ticket.unwrap());
    assert_eq!(ann.heard, [Heard::Drained], "it was told before it got this ticket");
    let bob = Phone::connect(&mut world, 1, "bob", 2);
    assert_eq!(
        bob.heard,
        [Heard::ServerKey(fresh.public), Heard::Drained],
        "who registers by it is told as well"
    );
}

#[test]
fn a_ticket_from_before_brings_the_present_key_when_the_one_before_has_ended() {
    let (world, ticket) = with_a_ticket(Limits::default());
    let keys = [KeyPair::from_seed([77; 32]), KeyPair::from_seed([78; 32])];
    // Two changes while the phone was away, of which it heard nothing.
    let world = world.kill_with_another_key(keys[0], true);
    let mut world = world.kill_with_another_key(keys[1], true).kill_with_another_key(keys[1], false);
    let mut by_key = Phone::new(1, "ann", 1);
    world.accept(1, None);
    world.turn();
    by_key.log_in(&mut world);
    assert!(by_key.account.is_none(), "the key that it knows is nobody's any more");
    let mut ann = Phone::resume(&mut world, 0, ticket);
    assert_eq!(ann.heard, [Heard::ServerKey(keys[1].public), Heard::Drained]);
    ann.leave(&mut world);
    let mut ann = Phone::resume(&mut world, 0, ann.ticket.unwrap());
    assert_eq!(ann.heard, [Heard::Drained], "once");
    ann.leave(&mut world);
    let mut world = world.kill();
    let ann = Phone::resume(&mut world, 0, ann.ticket.unwrap());
    assert_eq!(ann.heard, [Heard::Drained], "and not after a restart either");
}

#[test]
fn a_ticket_from_before_there_were_marks_works_and_brings_the_key() {
    let (mut world, _) = with_a_ticket(Limits::default());
    let account = Phone::connect(&mut world, 0, "ann", 1).account.unwrap();
    // What such tickets had in the place of the mark were random bytes.
    let claims = TicketClaims {
        account,
        device: DeviceId(1),
        number: 0,
        made_s: 1_800_000_000,
        knows: KeyMark([0x9e, 0x37, 0x79, 0xb9]),
    };
    let old = TicketKeys::new(&[6; 32]).issue(&claims, [3; 8]);
    let ann = Phone::resume(&mut world, 1, old);
    assert_eq!(ann.heard, [Heard::ServerKey(server_keys().public), Heard::Drained]);
}
