//! A phone whose socket takes nothing: what waits for it waits in its mailbox.

use crate::world::World;
use crate::world::bystanders::Bystanders;
use crate::world::phone::{Heard, Phone};
use tern_core::io::Input;
use tern_core::limits::Limits;

/// Messages of a round, a body of 1 KiB each.
const COUNT: u64 = 1_000;
const ROUNDS: u64 = 3;
/// What is said behind a send that does not end.
const BACKLOG_BYTES: usize = 32 << 10;
/// A body with what a frame has beside it, at most.
const FRAME_BYTES: usize = 1024 + 64;

const fn id(serial: u64) -> u64 {
    1_800_000_000 << 32 | serial
}

#[test]
fn what_waits_for_a_phone_that_does_not_read_costs_its_edge_nothing_and_comes_in_order_afterwards() {
    let mut world = World::new(Limits { window_count: 256, ..Limits::default() });
    let mut bystanders = Bystanders::arrive(&mut world);
    let mut slow = Phone::connect(&mut world, 5, "slow", 5);
    let mut eve = Phone::connect(&mut world, 9, "eve", 9);
    world.stuck.insert(5);
    let mut lent_bytes = Vec::new();
    for round in 0..ROUNDS {
        for serial in round * COUNT + 1..=(round + 1) * COUNT {
            let mut body = [7; 1024];
            body[..8].copy_from_slice(&serial.to_le_bytes());
            eve.send(&mut world, &slow, id(serial), &body);
        }
        world.pass_ms(60);
        lent_bytes.push(world.shard.held().lent_bytes);
        bystanders.talk(&mut world);
    }
    // Not a whole window of such messages. Buffers grow by doubling.
    let edge_bytes_max = 2 * (BACKLOG_BYTES + FRAME_BYTES);
    assert!(lent_bytes[0] > 0 && lent_bytes[0] <= edge_bytes_max, "{lent_bytes:?}");
    assert!(lent_bytes.iter().all(|&bytes| bytes == lent_bytes[0]), "{lent_bytes:?}");
    let counters = world.shard.counters();
    assert_eq!((counters.slow_readers, counters.mail_count_now), (0, ROUNDS * COUNT));
    assert!(counters.edge_bytes_now <= 2 * edge_bytes_max as u64, "with what lies ready for others");

    world.stuck.clear();
    let conn = world.conns[&5];
    world.step(Input::Sent { conn });
    world.turn();
    slow.heard.clear();
    slow.hear(&mut world);
    while slow.heard.len() < (ROUNDS * COUNT) as usize {
        let before = slow.heard.len();
        slow.ack(&mut world, before as u32);
        assert!(slow.heard.len() > before, "no more than {before}");
    }
    for (heard, serial) in slow.heard.iter().zip(1..) {
        let Heard::Message { number, id: message, body } = heard else { panic!("{serial}: {heard:?}") };
        assert_eq!((u64::from(*number), *message), (serial, id(serial)));
        assert_eq!(body[..8], serial.to_le_bytes());
    }
    bystanders.talk(&mut world);
}
