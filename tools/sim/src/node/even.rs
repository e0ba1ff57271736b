//! What a node must not hold any more once everybody has left, and what no honest phone makes it count.

use super::Node;
use crate::scene::Scene;
use tern_core::held::Held;

/// Most segments of a log with a few accounts and no mail: the open ones, and those that are thin while a round does not
/// pay.
const IDLE_SEGMENTS_MAX: u64 = 12;

impl Node {
    /// What the node still holds although nobody is there and everything was acknowledged.
    #[must_use]
    pub fn uneven(&self) -> Option<String> {
        let counters = self.counters();
        let mut sum = Held::default();
        for driven in &self.driven {
            let held = driven.shard.held();
            sum.owed_tick_count += held.owed_tick_count;
            sum.hand_over_count += held.hand_over_count;
            sum.lent_bytes += held.lent_bytes;
            sum.boxed_bytes += held.boxed_bytes;
            sum.address_count += held.address_count;
            sum.leaving_count += held.leaving_count;
            sum.waiter_count += held.waiter_count;
        }
        let held = [
            ("sessions", counters.sessions_now),
            ("connections", counters.connections_now),
            ("timers", counters.timers_now),
            ("messages", counters.mail_count_now),
            ("filled mailboxes", counters.mailboxes_filled_now),
            ("bytes of mail", counters.mail_bytes_now),
            ("slots", self.used_slots() as u64),
            ("waiting handshakes", counters.deferred_now),
            ("messages without an answer", counters.unanswered_now),
            ("expanded keys", counters.ready_keys_now),
            ("watches", counters.watches_now),
            ("bytes that wait for a lane", counters.mesh_backlog_bytes_now),
            ("owed ticks", sum.owed_tick_count as u64),
            ("halves of hand-overs", sum.hand_over_count as u64),
            ("bytes of buffers", sum.lent_bytes as u64),
            ("bytes of boxed envelopes", sum.boxed_bytes as u64),
            ("addresses", sum.address_count as u64),
            ("devices that are to leave", sum.leaving_count as u64),
            ("who wait for the log", sum.waiter_count as u64),
            ("accounts that do not rest", counters.stirred_now),
        ];
        let used = self.segments_used_max();
        if used > IDLE_SEGMENTS_MAX {
            return Some(format!("a log uses {used} segments for next to nothing"));
        }
        held.iter()
            .find(|(_, count)| *count > 0)
            .map(|(name, count)| format!("the node holds {count} {name}"))
    }

    /// Checks what must hold of the counters at any time.
    pub fn check_counters(&self, scene: &mut Scene) {
        let counters = self.counters();
        // Phones say a few hundred things in a whole run, and may say thousands in a second.
        let floods = counters.floods + counters.byte_floods + counters.account_floods + counters.refused_asks;
        scene.schedule.check(floods == 0, || format!("{floods} times somebody said too much"));
        let (timers, connections) = (counters.timers_now, counters.connections_now);
        scene
            .schedule
            .check(timers == connections, || format!("{timers} timers of {connections} connections"));
        if !scene.plan.has_attackers() {
            // A key that opens nothing yet, or nothing any more, is none: the phones know when that may be.
            let errors = counters.protocol_errors;
            scene
                .schedule
                .check(errors == 0, || format!("{errors} protocol errors, and every phone is honest"));
        }
    }
}
