//! The log does not fill up for good: what lives in thin segments is written elsewhere, and nothing is lost by it.

use crate::stuck::create;
use crate::world::World;
use crate::world::phone::{Heard, Phone};
use tern_core::control::{ControlReply, ControlRequest, Created};
use tern_core::io::{Input, Output};
use tern_core::limits::Limits;
use tern_protocol::envelope::{Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId, ShardId};
use tern_protocol::phone::frame::ClientFrame;

const NOW_S: u64 = 1_800_000_000;
pub(crate) const SEGMENT_BYTES: u32 = 64 << 10;
/// Segments that may be thin without a round, the open ones, and what grows while a round is under way.
const IDLE_COUNT: u64 = 12;

pub(crate) fn id(low: u64) -> u64 {
    NOW_S << 32 | low
}

pub(crate) fn limits() -> Limits {
    Limits { body_bytes: 1000, commit_bytes: 1000 + 8192, floor_delay_ms: 0, ..Limits::default() }
}

/// Comes back by ticket so many times; each time writes a record of its own.
fn churn(world: &mut World, phone: Phone, count: u32) -> Phone {
    let mut phone = phone;
    for _ in 0..count {
        let ticket = phone.ticket.expect("every session begins with a ticket");
        phone.leave(world);
        phone = Phone::resume(world, 50, ticket);
        assert_eq!(phone.heard, [Heard::Drained]);
        world.pass_ms(20);
    }
    phone
}

#[test]
fn logins_by_ticket_do_not_fill_the_log() {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits());
    let mut ann = Phone::connect(&mut world, 50, "ann", 1);
    // A dormant account in every segment.
    for n in 0..40 {
        create(&mut world, n, &format!("dormant{n}"), &[7]);
        ann = churn(&mut world, ann, 12);
    }
    let counters = world.shard.counters();
    assert!(counters.log_bytes_written > 30 * u64::from(SEGMENT_BYTES), "{}", counters.log_bytes_written);
    assert!(counters.segments_used_now <= IDLE_COUNT, "{} segments", counters.segments_used_now);
    assert!(counters.log_segments_rewritten > 20 && counters.log_rewritten_bytes > 0);
    let (rewritten, written) = (counters.log_rewritten_bytes, counters.log_bytes_written);
    assert!(rewritten < written / 2, "{rewritten} bytes of {written} are copies");
    let given_back = counters.log_segments_rewritten * u64::from(SEGMENT_BYTES);
    assert!(
        rewritten <= given_back / 2,
        "{rewritten} bytes of copies for {given_back}: no segment was half full"
    );
    let ticket = ann.ticket.unwrap();
    let mut world = world.kill();
    assert_eq!(world.shard.counters().accounts_now, 41);
    assert_eq!(Phone::resume(&mut world, 50, ticket).heard, [Heard::Drained]);
    let dormant = Phone::connect(&mut world, 3, "dormant0", 7);
    assert_eq!(dormant.heard, [Heard::Drained]);
}

/// Fills segments with mail for the absent `sink`, which then takes all of it.
pub(crate) fn rush(world: &mut World, from: &mut Phone, sink_key: u8, first: u64, count: u64) {
    let mut sink = Phone::connect(world, 40, "sink", sink_key);
    sink.leave(world);
    for low in first..first + count {
        from.send(world, &sink, id(low), &[9; 1000]);
        assert_eq!(from.heard.pop(), Some(Heard::Sent(id(low))));
    }
    sink = Phone::connect(world, 40, "sink", sink_key);
    while let Some(number) = sink.heard.drain(..).filter_map(|heard| number_of(&heard)).max() {
        sink.ack(world, number);
    }
    sink.leave(world);
    world.pass_ms(50);
    from.hear(world);
    let ticks = from.heard.drain(..).filter_map(|heard| match heard {
        Heard::Delivered { number, .. } => Some(number),
        _ => None,
    });
    let last = ticks.max();
    last.into_iter().for_each(|number| from.ack(world, number));
}

pub(crate) fn number_of(heard: &Heard) -> Option<u32> {
    match heard {
        Heard::Message { number, .. } => Some(*number),
        _ => None,
    }
}

#[test]
fn old_mail_does_not_hold_segments_and_keeps_its_order_and_its_floors() {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits());
    create(&mut world, 1, "bob", &[2, 3]);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut quick = Phone::connect(&mut world, 2, "bob", 2);
    for n in 0..12 {
        ann.send(&mut world, &quick, id(10_000 + n), &[n as u8; 10]);
        world.pass_ms(60);
        quick.hear(&mut world);
        quick.heard.clear();
        quick.ack(&mut world, n as u32 + 1);
        ann.hear(&mut world);
        rush(&mut world, &mut ann, 9, 100 * n + 1, 40);
    }
    quick.leave(&mut world);
    world.pass_ms(3_000);
    let counters = *world.shard.counters();
    assert!(
        counters.log_segments_rewritten > 0 && counters.log_bytes_written > 40 * u64::from(SEGMENT_BYTES)
    );
    assert!(counters.segments_used_now <= IDLE_COUNT, "{} segments", counters.segments_used_now);
    let mut world = world.kill();
    world.pass_ms(10);
    assert_eq!(world.shard.counters().ticks_delivered, 0, "what is settled owes its tick no more");
    let quick = Phone::connect(&mut world, 2, "bob", 2);
    assert_eq!(quick.heard, [Heard::Drained], "what it acknowledged does not come again");
    let slow = Phone::connect(&mut world, 3, "bob", 3);
    let bodies: Vec<Vec<u8>> = slow
        .heard
        .iter()
        .filter_map(|heard| match heard {
            Heard::Message { body, .. } => Some(body.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(bodies, (0..12).map(|n| vec![n; 10]).collect::<Vec<_>>());
}

/// Acknowledges all that has come.
pub(crate) fn ack_all(world: &mut World, phone: &mut Phone) {
    phone.hear(world);
    let numbers = phone.heard.drain(..).filter_map(|heard| match heard {
        Heard::Message { number, .. } | Heard::Delivered { number, .. } => Some(number),
        _ => None,
    });
    if let Some(number) = numbers.max() {
        phone.ack(world, number);
    }
}

#[test]
fn mail_behind_what_is_over_does_not_hold_segments_either() {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits());
    create(&mut world, 1, "bob", &[2, 3]);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut quick = Phone::connect(&mut world, 2, "bob", 2);
    // It waits for bob's other device for ever; the ticks behind it are over at once.
    ann.send(&mut world, &quick, id(9_999), b"first");
    world.pass_ms(60);
    ack_all(&mut world, &mut quick);
    for n in 0..63 {
        quick.send(&mut world, &ann, id(20_000 + n), b"to ann");
        ack_all(&mut world, &mut ann);
        ack_all(&mut world, &mut quick);
    }
    let messages = 12;
    for n in 0..messages {
        ann.send(&mut world, &quick, id(10_000 + n), &[n as u8; 10]);
        world.pass_ms(60);
        ack_all(&mut world, &mut quick);
        ack_all(&mut world, &mut ann);
        rush(&mut world, &mut ann, 9, 100 * n + 1, 40);
    }
    world.pass_ms(3_000);
    let counters = *world.shard.counters();
    assert!(counters.mail_count_now > 13 + 40, "what is over is still there: {}", counters.mail_count_now);
    assert!(counters.segments_used_now <= 8, "{} segments", counters.segments_used_now);
}

#[test]
fn remembered_ids_do_not_hold_segments_and_are_known_after_a_crash() {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut eve = Phone::connect(&mut world, 50, "eve", 2);
    for n in 0..12 {
        rush(&mut world, &mut ann, 9, 100 * n + 1, 40);
        eve = churn(&mut world, eve, 15);
    }
    world.pass_ms(3_000);
    let counters = *world.shard.counters();
    assert!(counters.log_segments_rewritten > 0);
    assert!(counters.segments_used_now <= IDLE_COUNT, "{} segments", counters.segments_used_now);
    let mut world = world.kill();
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let sink = Phone::connect(&mut world, 40, "sink", 9);
    assert_eq!(sink.heard, [Heard::Drained]);
    ann.heard.clear();
    for n in 0..12 {
        ann.send(&mut world, &sink, id(100 * n + 1), &[9; 1000]);
    }
    assert_eq!(ann.heard, (0..12).map(|n| Heard::Sent(id(100 * n + 1))).collect::<Vec<_>>());
    assert_eq!(world.shard.counters().duplicates, 12);
}

#[test]
fn ids_of_a_whole_day_in_one_segment_are_known_after_a_crash() {
    const COUNT: u64 = 280;
    // A phone chooses their times: one in each five minutes.
    let day_id = |n: u64| (NOW_S - 300 * n) << 32 | n;
    let mut world = World::in_segments(4 * SEGMENT_BYTES, 1, limits());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut sink = Phone::connect(&mut world, 40, "sink", 9);
    sink.leave(&mut world);
    for n in 0..COUNT {
        ann.send(&mut world, &sink, day_id(n), b"spread");
    }
    // All of it is over, and its segments are used again.
    for round in 0..12 {
        rush(&mut world, &mut ann, 9, 100_000 + 100 * round, 40);
    }
    world.pass_ms(3_000);
    assert!(world.shard.counters().segments_used_now <= IDLE_COUNT);
    let mut world = world.kill();
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let sink = Phone::connect(&mut world, 40, "sink", 9);
    assert_eq!(sink.heard, [Heard::Drained]);
    ann.heard.clear();
    for n in 0..COUNT {
        ann.send(&mut world, &sink, day_id(n), b"spread");
    }
    assert_eq!(ann.heard, (0..COUNT).map(|n| Heard::Sent(day_id(n))).collect::<Vec<_>>());
    assert_eq!(world.shard.counters().duplicates, COUNT);
}

#[test]
fn a_log_with_more_ids_than_a_shard_remembers_takes_none_of_them_for_new() {
    const COUNT: u64 = 1_120;
    // Four in each five minutes of the day.
    let day_id = |n: u64| (NOW_S - 300 * (n / 4)) << 32 | n;
    let limits = Limits { dedup_count: 3_350, ..limits() };
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut sink = Phone::connect(&mut world, 40, "sink", 9);
    sink.leave(&mut world);
    for n in 0..COUNT {
        ann.send(&mut world, &sink, day_id(n), b"spread");
    }
    for round in 0..16 {
        rush(&mut world, &mut ann, 9, 100_000 + 100 * round, 40);
    }
    world.pass_ms(3_000);
    assert!(world.shard.counters().segments_used_now <= IDLE_COUNT, "the mail is gone");
    let mut world = world.kill();
    let counters = *world.shard.counters();
    assert!(
        counters.ids_now <= 2 * 3_350 && counters.ids_reach_s_now < 80_000,
        "{}",
        counters.ids_reach_s_now
    );
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let sink = Phone::connect(&mut world, 40, "sink", 9);
    ann.heard.clear();
    for n in 0..COUNT {
        ann.send(&mut world, &sink, day_id(n), b"spread");
    }
    assert_eq!(world.shard.counters().messages_appended, 0, "none of them is new");
    let known = ann.heard.iter().filter(|heard| matches!(heard, Heard::Sent(_))).count();
    let expired = ann.heard.iter().filter(|heard| matches!(heard, Heard::Expired(_))).count();
    assert_eq!(known + expired, COUNT as usize);
    assert!(known > 0 && expired > 0, "{known} known, {expired} expired");
}

#[test]
fn a_start_writes_no_ids_again_that_it_has_let_go_of() {
    const OLD_COUNT: u64 = 1_120;
    let limits = Limits { dedup_count: 1_024, account_messages_per_s: 0, mailbox_count: 20_000, ..limits() };
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let sink = Phone::connect(&mut world, 40, "sink", 9);
    world.cut(40);
    // Nobody fetches them, so their mail is in the log; four in each five minutes of the day, then many of now.
    let to = sink.account.unwrap();
    for n in 0..OLD_COUNT + 1_500 {
        let made_s = if n < OLD_COUNT { NOW_S - 84_000 + 300 * (n / 4) } else { NOW_S };
        ann.client.send(&ClientFrame::Send { to, id: MessageId(made_s << 32 | n), body: b"spread" });
        if n % 20 == 19 {
            ann.exchange(&mut world);
            world.pass_ms(5);
        }
    }
    assert_eq!(world.shard.counters().mail_count_now, OLD_COUNT + 1_500);
    // The segment that was open gets its record at the first start, and none at the others.
    let mut written_bytes = Vec::new();
    for _ in 0..3 {
        world = world.kill();
        world.pass_s(3);
        let counters = world.shard.counters();
        assert!(counters.ids_reach_s_now < 80_000, "some were let go of: {}", counters.ids_reach_s_now);
        written_bytes.push(counters.log_bytes_written);
    }
    assert!(written_bytes[1..].iter().all(|&bytes| bytes <= 3 * 4096), "{written_bytes:?}");
}

/// A message of bob's that one of his devices has and the other has not, and then rushes until it was written elsewhere.
fn half_read_message_moves(limits: Limits) -> World {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits);
    create(&mut world, 1, "bob", &[2, 3]);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut quick = Phone::connect(&mut world, 2, "bob", 2);
    ann.send(&mut world, &quick, id(10_000), b"for both");
    world.pass_ms(60);
    quick.hear(&mut world);
    quick.ack(&mut world, 1);
    quick.leave(&mut world);
    // Its floor is written.
    world.pass_ms(2_000);
    ann.hear(&mut world);
    ann.heard.clear();
    let mut absent = Phone::connect(&mut world, 5, "absent", 4);
    absent.leave(&mut world);
    for n in 0.. {
        // What nobody fetches makes more segments thin.
        ann.send(&mut world, &absent, id(20_000 + n), b"later");
        ann.heard.clear();
        rush(&mut world, &mut ann, 9, 100 * n + 1, 40);
        if world.shard.counters().log_segments_rewritten > 0 {
            break;
        }
        assert!(n < 20, "no round");
    }
    assert!(world.shard.counters().log_rewritten_bytes > 0);
    world
}

#[test]
fn a_message_that_a_crash_leaves_in_both_places_is_handed_out_once() {
    // Freed segments are overwritten one with each commit: right after the round all of them are still there.
    let mut world = half_read_message_moves(limits()).kill();
    let slow = Phone::connect(&mut world, 3, "bob", 3);
    let message = Heard::Message { number: 1, id: id(10_000), body: b"for both".to_vec() };
    assert_eq!(slow.heard, [message, Heard::Drained]);
}

#[test]
fn floors_go_with_the_message_that_they_speak_of() {
    let mut world = half_read_message_moves(Limits { floor_delay_ms: 1_500, ..limits() });
    for n in 0..12 {
        create(&mut world, n, &format!("commit{n}"), &[7]);
    }
    let mut world = world.kill();
    let quick = Phone::connect(&mut world, 2, "bob", 2);
    assert_eq!(quick.heard, [Heard::Drained], "it had acknowledged, and that was on disk");
    let slow = Phone::connect(&mut world, 3, "bob", 3);
    assert_eq!(slow.heard.len(), 2, "{:?}", slow.heard);
}

#[test]
fn floors_of_accounts_at_rest_do_not_hold_segments() {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits());
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let absent = Phone::connect(&mut world, 1, "absent", 4);
    let mut absent = absent;
    absent.leave(&mut world);
    // The oldest segment is full of mail that nobody fetches: what is written behind it is not the oldest.
    for low in 0..40 {
        ann.send(&mut world, &absent, id(20_000 + low), &[5; 1000]);
    }
    ann.heard.clear();
    for n in 0..30 {
        let mut once = Phone::connect(&mut world, 10, &format!("once{n}"), 5);
        for round in 0..10 {
            ann.send(&mut world, &once, id(100 * n + round + 1), &[3; 1000]);
            world.pass_ms(60);
            once.hear(&mut world);
            once.ack(&mut world, round as u32 + 1);
            ann.hear(&mut world);
            world.pass_ms(20);
        }
        once.leave(&mut world);
        let ticks = ann.heard.drain(..).filter_map(|heard| match heard {
            Heard::Delivered { number, .. } => Some(number),
            _ => None,
        });
        let last = ticks.max();
        last.into_iter().for_each(|number| ann.ack(&mut world, number));
    }
    world.pass_ms(3_000);
    let counters = world.shard.counters();
    assert!(counters.log_bytes_written > 40 * u64::from(SEGMENT_BYTES), "{}", counters.log_bytes_written);
    assert!(counters.segments_used_now <= IDLE_COUNT, "{} segments", counters.segments_used_now);
}

/// A name whose home is shard 0 of two.
fn here() -> String {
    let here = (0..).map(|n| format!("bob{n}")).find(|name| PartitionId::of_name(name, 64).0 < 32);
    here.expect("half of all names are here")
}

#[test]
fn ticks_that_nobody_confirms_hold_no_bodies_and_are_still_owed_after_a_crash() {
    const COUNT: u64 = 150;
    let mut world = World::in_segments(SEGMENT_BYTES, 2, limits());
    let mut bob = Phone::connect(&mut world, 0, &here(), 2);
    let from = AccountId::new(PartitionId(40), 1);
    for low in 1..=COUNT {
        let parts = Parts {
            kind: Kind::Message,
            flags: 0,
            to: bob.account.expect("logged in"),
            from,
            from_device: DeviceId(1),
            id: MessageId(id(low)),
            time_ms: world.now.wall_ms,
            seq: 0,
            from_name: "far",
            body: &[4; 1000],
        };
        let mut envelope = Vec::new();
        parts.encode(&mut envelope);
        world.step(Input::Mesh { from: ShardId(1), envelopes: &envelope });
        world.pass_ms(10);
        bob.hear(&mut world);
        bob.ack(&mut world, low as u32);
    }
    bob.leave(&mut world);
    world.pass_ms(5_000);
    let counters = *world.shard.counters();
    assert!(counters.log_bytes_written > 10 * u64::from(SEGMENT_BYTES));
    assert_eq!(counters.mail_count_now, COUNT, "each owes its tick");
    assert!(counters.segments_used_now <= 8, "{} segments", counters.segments_used_now);
    // Two records of a message with its body and its floor would not fit so few bytes.
    assert!(counters.log_rewritten_bytes < COUNT * 1_000, "{}", counters.log_rewritten_bytes);
    let mut world = world.kill();
    assert_eq!(world.shard.counters().mail_count_now, COUNT, "and still does");
    let bob = Phone::connect(&mut world, 0, &here(), 2);
    assert_eq!(bob.heard, [Heard::Drained]);
}

fn created(world: &World) -> Option<AccountId> {
    world.gone_out.iter().rev().find_map(|output| match output {
        Output::Reply { reply: ControlReply::Created(created), .. } => match created[..] {
            [Created::New(id)] => Some(id),
            _ => None,
        },
        _ => None,
    })
}

#[test]
fn making_and_removing_accounts_does_not_fill_the_log_and_no_id_comes_back() {
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits());
    create(&mut world, 0, "stays", &[7]);
    let mut last = AccountId(0);
    for life in 1..=3 {
        for n in 0..400 {
            create(&mut world, n, "passes", &[8]);
            let id = created(&world).expect("made");
            assert!(id > last, "an id came back");
            last = id;
            let request = ControlRequest::RemoveAccount { name: "passes".into() };
            world.step(Input::Control { token: 1_000, request });
            world.turn();
            world.gone_out.clear();
            world.pass_ms(5);
        }
        world.pass_ms(3_000);
        let counters = world.shard.counters();
        assert!(counters.log_bytes_written > 40 * u64::from(SEGMENT_BYTES));
        assert!(counters.segments_used_now <= IDLE_COUNT, "{} segments", counters.segments_used_now);
        // Far fewer bytes than a record for each: neighbours share one.
        let live_bytes = counters.log_rewritten_bytes;
        assert!(live_bytes < 60_000, "{live_bytes} bytes copied in life {life}");
        world = world.kill();
        assert_eq!(world.shard.counters().accounts_now, 1);
    }
}

#[test]
fn a_full_log_of_thin_segments_gets_room_again_by_itself() {
    let limits = Limits { segment_count: 8, ..limits() };
    let mut world = World::in_segments(SEGMENT_BYTES, 1, limits);
    let mut made = 0;
    // Faster than any round: a second does not pass.
    while world.shard.counters().segments_full == 0 {
        create(&mut world, made, &format!("dormant{made}"), &[7]);
        made += 1;
        assert!(made < 1_000, "the log never filled up");
    }
    made -= 1;
    let full = *world.shard.counters();
    assert!(full.segments_used_now >= 5, "{} segments", full.segments_used_now);
    world.pass_ms(10_000);
    assert!(world.shard.counters().segments_used_now <= 4, "{}", world.shard.counters().segments_used_now);
    create(&mut world, made, &format!("dormant{made}"), &[7]);
    assert_eq!(world.shard.counters().segments_full, full.segments_full, "there is room again");
    let world = world.kill();
    assert_eq!(world.shard.counters().accounts_now, made + 1);
}

#[test]
fn a_log_of_large_mail_that_died_and_small_mail_that_lives_does_not_fill_up() {
    const BATCHES: u64 = 110;
    const LARGE: u64 = 20;
    const SMALL: u64 = 80;
    let limits = Limits {
        commit_bytes: 64 << 10,
        segment_count: 12,
        account_messages_per_s: 0,
        mailbox_count: 1 << 20,
        ..limits()
    };
    let mut world = World::in_segments(256 << 10, 1, limits);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut quick = Phone::connect(&mut world, 1, "quick", 2);
    let mut absent = Phone::connect(&mut world, 2, "absent", 3);
    absent.leave(&mut world);
    for batch in 0..BATCHES {
        // All in one commit, so that blocks are full.
        for low in 0..LARGE + SMALL {
            let (to, body) = if low < LARGE { (&quick, &[9; 1000][..]) } else { (&absent, &b"x"[..]) };
            let (to, id) = (to.account.expect("logged in"), MessageId(id(1_000 * batch + low)));
            ann.client.send(&ClientFrame::Send { to, id, body });
        }
        ann.exchange(&mut world);
        world.pass_ms(60);
        ack_all(&mut world, &mut quick);
        ack_all(&mut world, &mut ann);
    }
    let counters = *world.shard.counters();
    assert_eq!((counters.segments_full, counters.refused_busy), (0, 0));
    assert!(counters.log_bytes_written > 12 * (256 << 10), "{}", counters.log_bytes_written);
    let mut world = world.kill();
    assert!(world.shard.counters().mail_count_now >= BATCHES * SMALL);
    let absent = Phone::connect(&mut world, 2, "absent", 3);
    assert!(absent.heard.iter().all(|heard| matches!(heard, Heard::Message { .. })));
}

#[test]
fn mail_that_is_larger_than_messages_may_be_by_now_is_written_again_and_arrives() {
    const SEGMENTS: u64 = 10;
    let large = Limits { body_bytes: 20_000, commit_bytes: 20_000 + 8192, ..limits() };
    let mut world = World::in_segments(SEGMENT_BYTES, 1, large);
    let mut ann = Phone::connect(&mut world, 0, "ann", 1);
    let mut sink = Phone::connect(&mut world, 1, "sink", 2);
    let mut absent = Phone::connect(&mut world, 2, "absent", 3);
    sink.leave(&mut world);
    absent.leave(&mut world);
    // Three of them fill a segment.
    for low in 0..3 * SEGMENTS {
        let to = if low % 3 == 0 { &absent } else { &sink };
        ann.send(&mut world, to, id(low), &[low as u8; 20_000]);
    }
    let mut world = world.kill_with_limits(limits());
    let mut sink = Phone::connect(&mut world, 1, "sink", 2);
    while sink.heard.iter().any(|heard| matches!(heard, Heard::Message { .. })) {
        ack_all(&mut world, &mut sink);
        world.pass_ms(20);
        sink.hear(&mut world);
    }
    world.pass_ms(3_000);
    assert!(world.shard.counters().log_segments_rewritten >= 4);
    let mut world = world.kill();
    let mut absent = Phone::connect(&mut world, 2, "absent", 3);
    absent.hear(&mut world);
    let bodies = absent.heard.iter().filter_map(|heard| match heard {
        Heard::Message { body, .. } => Some((body[0], body.len())),
        _ => None,
    });
    assert!(bodies.eq((0..SEGMENTS).map(|n| (3 * n as u8, 20_000))));
}
