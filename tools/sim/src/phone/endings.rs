//! How a connection may end: an honest phone is sent away only for a reason that it can see.

use super::Phone;
use crate::network::Direction;
use crate::scene::Scene;
use crate::schedule::MS;
use tern_protocol::phone::frame::GoodbyeReason;

/// A goodbye waits for the last send, and that for its reader: a second at most, and some turns.
const LAST_WORDS_NS: u64 = 1_500 * MS;

impl Phone {
    pub(super) fn hear_goodbye(&mut self, scene: &mut Scene, reason: GoodbyeReason, retry_ms: u32) {
        let Some(link) = self.link() else { return };
        let index = self.index;
        let wrong = match reason {
            GoodbyeReason::Replaced => !scene.has_other_link(index, link),
            GoodbyeReason::Removed => {
                self.is_revoked(scene);
                return;
            }
            GoodbyeReason::Draining => !self.was_drained(scene),
            GoodbyeReason::Idle => self.was_heard(scene),
            // The node ends a connection that does not read without a word.
            GoodbyeReason::TooSlow => true,
            GoodbyeReason::Busy => self.asks_little(scene),
        };
        scene.schedule.check(!wrong, || format!("phone {index} with one connection was told {reason:?}"));
        self.hang_up(scene);
        self.come_back(scene, u64::from(retry_ms).max(50));
    }

    /// Whether the node was asked to stop politely in a life that the connection has seen.
    fn was_drained(&self, scene: &Scene) -> bool {
        let life = self.connection.as_ref().map_or(0, |connection| connection.life);
        scene.drained_in.is_some_and(|drained_in| drained_in >= life)
    }

    /// Whether the node had all that the phone had said not long before its last words: then it was not silent.
    fn was_heard(&self, scene: &Scene) -> bool {
        let Some(connection) = self.connection.as_ref().filter(|c| c.has_session) else { return false };
        let said_ns = scene.network.written_ns(connection.link, Direction::Down);
        let silent_since_ns = said_ns.saturating_sub(scene.plan.limits.idle_ms * MS);
        let until_ns = said_ns.saturating_sub(LAST_WORDS_NS);
        scene.network.was_read_whole(connection.link, Direction::Up, silent_since_ns..until_ns)
    }

    /// Whether a phone with a session is in nobody's way: faults are over, it has nothing under way and has not had for some
    /// time (who had too much is sent away behind its last answer), wants nothing, and has not had as much as one connection
    /// may.
    fn asks_little(&self, scene: &Scene) -> bool {
        let given_max = scene.plan.limits.delivery_count;
        let has_little =
            self.connection.as_ref().is_some_and(|c| c.has_session && c.next_number <= given_max);
        let rests = self.outbox.is_empty() && scene.now_ns() > self.progress_ns + LAST_WORDS_NS;
        scene.is_calm && has_little && rests && self.wishes.is_empty()
    }

    /// The connection ends without a word: not as long as nothing has happened to it and its phone reads.
    pub(super) fn check_silent_end(&self, scene: &mut Scene) {
        let Some(connection) = self.connection.as_ref().filter(|c| c.has_session) else { return };
        // Where memory for edges may be short, one that holds more than its share is ended.
        let is_whole = !scene.network.was_troubled(connection.link) && scene.plan.has_ample_memory();
        let index = self.index;
        scene.schedule.check(!is_whole, || format!("phone {index} was hung up on without a word"));
    }
}
