//! Two phones who only want to talk: what hostile clients must not keep them from.

use super::World;
use super::phone::{Heard, Phone};

const NOW_S: u64 = 1_800_000_000;

/// Ann and Bob, logged in, in slots 0 and 1.
pub(crate) struct Bystanders {
    pub(crate) ann: Phone,
    pub(crate) bob: Phone,
    count: u32,
}

impl Bystanders {
    pub(crate) fn arrive(world: &mut World) -> Self {
        Self::arrive_by(world, |world, slot| assert!(world.accept(slot, None)))
    }

    /// Likewise, on connections that are made in some other way.
    pub(crate) fn arrive_by(world: &mut World, connect: impl Fn(&mut World, u32)) -> Self {
        let [ann, bob] = [(0, "ann", 1), (1, "bob", 2)].map(|(slot, name, key)| {
            let mut phone = Phone::new(slot, name, key);
            connect(world, slot);
            phone.log_in(world);
            phone
        });
        assert!(ann.account.is_some() && bob.account.is_some());
        Self { ann, bob, count: 0 }
    }

    /// Ann writes to Bob: he has it in this turn, she has both ticks in the turn of his acknowledgement. No time passes.
    pub(crate) fn talk(&mut self, world: &mut World) {
        let Self { ann, bob, count } = self;
        *count += 1;
        let id = NOW_S << 32 | u64::from(*count);
        ann.heard.clear();
        bob.heard.clear();
        ann.send(world, bob, id, b"undisturbed");
        bob.hear(world);
        assert_eq!(bob.heard, [Heard::Message { number: *count, id, body: b"undisturbed".to_vec() }]);
        bob.ack(world, *count);
        ann.hear(world);
        assert_eq!(ann.heard, [Heard::Sent(id), Heard::Delivered { number: *count, id }]);
        ann.ack(world, *count);
    }
}
