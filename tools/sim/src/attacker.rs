//! An attacker on the path: replays what honest phones said first, or says nonsense, and never knows a key.

use crate::network::{Direction, LinkId, Owner};
use crate::scene::{Event, Scene};
use crate::schedule::MS;

/// One connection of an attacker.
#[derive(Debug)]
pub struct Attacker {
    index: usize,
    link: LinkId,
    steps_left: u64,
}

impl Attacker {
    /// Connects and says its first bytes: what the phone that made an account said first, or what comes to its mind.
    pub fn new(index: usize, account: Option<usize>, scene: &mut Scene) -> Self {
        let link = scene.connect(Owner::Attacker(index));
        let recorded = account.and_then(|account| scene.registrations.get(&account)).cloned();
        let bytes = recorded.unwrap_or_else(|| Self::first_bytes(scene));
        scene.write(link, Direction::Up, &bytes);
        let steps_left = scene.random().below(3);
        let attacker = Self { index, link, steps_left };
        attacker.wait(scene);
        attacker
    }

    fn first_bytes(scene: &mut Scene) -> Vec<u8> {
        let recorded_count = scene.recorded.len();
        if recorded_count > 0 && scene.random().chance(80) {
            // Mostly a recent one: its phone is probably still connected.
            let back = scene.random().index(recorded_count.min(6)) + 1;
            scene.recorded[recorded_count - back].clone()
        } else {
            nonsense(scene)
        }
    }

    /// Reads what came and throws it away.
    pub fn listen(&self, scene: &mut Scene) {
        scene.network.read(self.link, Direction::Down, usize::MAX);
    }

    /// Says more nonsense, or goes.
    pub fn act(&mut self, scene: &mut Scene) {
        if self.steps_left == 0 {
            scene.finish(self.link, Direction::Up);
            scene.network.deafen(self.link, Direction::Down);
            return;
        }
        self.steps_left -= 1;
        let bytes = nonsense(scene);
        scene.write(self.link, Direction::Up, &bytes);
        self.wait(scene);
    }

    fn wait(&self, scene: &mut Scene) {
        let delay_ns = scene.random().below(800) * MS;
        scene.schedule.after(delay_ns, Event::Attacker(self.index));
    }
}

/// Random bytes that look a little like the protocol.
fn nonsense(scene: &mut Scene) -> Vec<u8> {
    let mut bytes = vec![0; scene.random().range(1, 200) as usize];
    scene.random().fill(&mut bytes);
    match scene.random().below(4) {
        0 => [b"TRN\x01\x01\0\0\0".as_slice(), &[1, 96, 0], &bytes].concat(),
        1 => [b"TRN\x01\x02\0\0\0".as_slice(), &[1, 32, 0], &bytes].concat(),
        2 => [&[2, 40, 0], bytes.as_slice()].concat(),
        _ => bytes,
    }
}
