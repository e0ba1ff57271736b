//! What one account may ask for, by all its devices and connections together.

use crate::stuck::create;
use crate::world::World;
use crate::world::bystanders::Bystanders;
use crate::world::phone::{Heard, Phone};
use tern_core::limits::Limits;
use tern_protocol::ids::{DeviceId, MessageId};
use tern_protocol::phone::frame::{ClientFrame, PresenceState};

fn id(low: u64) -> u64 {
    1_800_000_000 << 32 | low
}

/// Says a frame so often at once, and returns what was heard.
fn flood(world: &mut World, phone: &mut Phone, frame: &ClientFrame<'_>, count: usize) -> Vec<Heard> {
    phone.heard.clear();
    (0..count).for_each(|_| phone.client.send(frame));
    phone.exchange(world);
    world.pass_ms(5);
    phone.hear(world);
    std::mem::take(&mut phone.heard)
}

#[test]
fn a_read_tick_costs_what_a_message_costs() {
    let limits = Limits { account_messages_per_s: 1, account_messages_burst: 5, ..Limits::default() };
    let mut world = World::new(limits);
    let mut bystanders = Bystanders::arrive(&mut world);
    let absent = Phone::connect(&mut world, 6, "absent", 8);
    world.cut(6);
    let author = absent.account.unwrap();
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    for n in 0..1_000 {
        eve.client.send(&ClientFrame::Read { author, id: MessageId(id(n)) });
    }
    eve.exchange(&mut world);
    world.pass_ms(5);
    eve.hear(&mut world);
    let taken =
        |phone: &Phone| phone.heard.iter().filter(|heard| matches!(heard, Heard::ReadTaken(_))).count();
    assert_eq!(taken(&eve), 5);
    assert_eq!(
        (world.shard.counters().refused_account_rate, world.shard.counters().mail_count_now),
        (995, 5)
    );
    eve.send(&mut world, &absent, id(2_000), b"x");
    assert_eq!(eve.heard.last(), Some(&Heard::Busy(id(2_000))), "it is one budget");
    bystanders.talk(&mut world);
    // Said again later, as a phone does that has no answer, it is taken.
    world.pass_ms(1_000);
    eve.say(&mut world, &ClientFrame::Read { author, id: MessageId(id(7)) });
    world.pass_ms(5);
    eve.hear(&mut world);
    assert_eq!(taken(&eve), 6);
}

#[test]
fn whatever_else_an_account_asks_for_has_a_budget() {
    let limits = Limits { account_asks_per_s: 10, account_asks_burst: 3, ..Limits::default() };
    let mut world = World::new(limits);
    create(&mut world, 1, "eve", &[5, 6]);
    let mut bystanders = Bystanders::arrive(&mut world);
    let (bob, key) = (bystanders.bob.account.unwrap(), [7; 32]);
    let mut eve = Phone::connect(&mut world, 9, "eve", 5);
    let answered = |heard: &[Heard], is_it: fn(&Heard) -> bool| heard.iter().filter(|h| is_it(h)).count();
    let mut ask = |world: &mut World, frame: &ClientFrame<'_>| {
        world.pass_ms(1_000);
        let before = world.shard.counters().refused_asks;
        let heard = flood(world, &mut eve, frame, 20);
        assert_eq!(world.shard.counters().refused_asks - before, 17, "{frame:?}");
        heard
    };
    let heard = ask(&mut world, &ClientFrame::Lookup { name: "bob" });
    assert_eq!(answered(&heard, |heard| matches!(heard, Heard::Found(_))), 3);
    let heard = ask(&mut world, &ClientFrame::Watch { account: bob });
    assert_eq!(answered(&heard, |heard| matches!(heard, Heard::Presence(_))), 3);
    assert_eq!(answered(&heard, |heard| *heard == Heard::WatchRefused), 17);
    for frame in [
        ClientFrame::Devices,
        ClientFrame::AddDevice { key },
        ClientFrame::RevokeDevice { device: DeviceId(77) },
    ] {
        let heard = ask(&mut world, &frame);
        let refused = Heard::DevicesRefused("Internal".into());
        assert_eq!(heard.iter().filter(|heard| **heard == refused).count(), 17);
    }
    bystanders.bob.heard.clear();
    ask(&mut world, &ClientFrame::Typing { to: bob, on: true });
    bystanders.bob.hear(&mut world);
    assert_eq!(bystanders.bob.heard, [Heard::Typing(true), Heard::Typing(true), Heard::Typing(true)]);
    // Another device of the account has no budget of its own.
    let mut tablet = Phone::connect(&mut world, 10, "eve", 6);
    let heard = flood(&mut world, &mut tablet, &ClientFrame::Devices, 1);
    assert_eq!(heard, [Heard::DevicesRefused("Internal".into())]);
    // How present it is may be said at any time: the last word counts.
    tablet.say(&mut world, &ClientFrame::Presence { state: PresenceState::Away });
    bystanders.talk(&mut world);
}
