//! The configuration of a round: limits so small that they are hit, and so large that the loads come to their end.
//!
//! Limits are per shard, and all phones may live on one: each is reckoned as if they did.

use super::dice::Dice;
use super::loads::Load;
use std::fmt::Write;

/// Of a hundred limits so many are drawn; the others are the defaults.
const DRAWN_PERCENT: u64 = 35;

/// What all loads of a round together need.
struct Needs {
    body_bytes: u64,
    /// Accounts, each with a connection.
    accounts: u64,
    messages: u64,
    is_paced: bool,
    /// Messages of the busiest sender.
    each: u64,
    /// Of mail that waits: bytes of all of it, and of one mailbox the messages and bytes.
    stored_bytes: u64,
    stored_each: u64,
    stored_each_bytes: u64,
}

impl Needs {
    fn of(loads: &[&Load]) -> Self {
        let most = |of: &dyn Fn(&Load) -> u64| loads.iter().map(|load| of(load)).max().unwrap_or(0);
        let stored = |of: &dyn Fn(&Load) -> u64| most(&|load: &Load| if load.stores { of(load) } else { 0 });
        // A slot is at most twice as large as what it holds; and a mailbox's place, and a tick's.
        let slot = |load: &Load| 2 * (load.body_bytes + 128) + 256;
        Self {
            body_bytes: most(&|load| load.body_bytes).max(1),
            accounts: most(&|load| load.phones) + loads.iter().map(|load| load.phones).sum::<u64>(),
            messages: loads.iter().map(|load| load.messages).sum(),
            is_paced: loads.iter().all(|load| load.is_paced),
            each: most(&Load::each),
            stored_bytes: stored(&|load| load.messages * slot(load)),
            stored_each: stored(&Load::each),
            stored_each_bytes: stored(&|load| load.each() * slot(load)),
        }
    }
}

/// A configuration with which these loads can live, as TOML.
pub(super) fn draw(dice: &mut Dice, loads: &[&Load]) -> String {
    let needs = Needs::of(loads);
    let mut lines = Lines { dice, limits: String::new() };
    let (segment_bytes, body_bytes) = lines.log(&needs);
    lines.mail(&needs);
    lines.phones(&needs);
    lines.shard(body_bytes);
    lines.rates(&needs);
    format!("segment_bytes = {segment_bytes}\n[limits]\n{}", lines.limits)
}

struct Lines<'a> {
    dice: &'a mut Dice,
    limits: String,
}

impl Lines<'_> {
    fn say(&mut self, name: &str, value: u64) {
        writeln!(self.limits, "{name} = {value}").expect("a String takes everything");
    }

    /// Says one of these values, or leaves the default.
    fn perhaps(&mut self, name: &str, values: &[u64]) {
        if self.dice.chance(DRAWN_PERCENT) {
            let value = self.dice.pick(values);
            self.say(name, value);
        }
    }

    /// Segments and commits: the bytes of a segment, and of the largest body.
    fn log(&mut self, needs: &Needs) -> (u64, u64) {
        let body_bytes = self.dice.pick(&[needs.body_bytes, 32 << 10]).max(needs.body_bytes);
        let least = body_bytes + 8_192;
        let commit_bytes = self.dice.pick(&[least, 256 << 10, 1 << 20]).max(least);
        self.say("body_bytes", body_bytes);
        self.say("commit_bytes", commit_bytes);
        // What lives in the log: mail, the ids of all messages and ticks, the accounts.
        let live_bytes = needs.stored_bytes + 2 * 32 * needs.messages + 2_048 * needs.accounts;
        let least = (2 * commit_bytes + 8_192).max(live_bytes / 400).next_multiple_of(4_096);
        let segment_bytes = self.dice.pick(&[least, 2 * least, 16 << 20]).max(least);
        // About twice what lives in it and ten more.
        let segments = 3 * live_bytes.div_ceil(segment_bytes) + 16;
        let segments = self.dice.pick(&[segments, 4 * segments, 4_096]).max(segments);
        self.say("segment_count", segments);
        (segment_bytes, body_bytes)
    }

    /// Mailboxes and their memory, and the ids that are remembered.
    fn mail(&mut self, needs: &Needs) {
        let window = self.dice.pick(&[1, 4, 64, 64]);
        self.say("window_count", window);
        // Nobody gets more of a mailbox than is left for the others.
        let least = (2 * needs.stored_each + 16).max(window);
        self.perhaps("mailbox_count", &[least, 4 * least]);
        let least = 2 * needs.stored_each_bytes + (128 << 10);
        self.perhaps("mailbox_bytes", &[least, 4 * least]);
        let least = needs.stored_bytes * 5 / 4 + (4 << 20);
        self.perhaps("mail_bytes", &[least, 4 * least]);
        let deliveries = (needs.each.max(needs.stored_each) / 8).max(50).max(window);
        self.perhaps("delivery_count", &[deliveries, 8 * deliveries]);
        if needs.is_paced {
            // An id for each message and one for its tick; beyond twice as many senders are told `busy`.
            self.perhaps("dedup_count", &[needs.messages * 6 / 5 + 1_024, 4 * needs.messages + 1_024]);
        }
    }

    fn phones(&mut self, needs: &Needs) {
        let connections = needs.accounts + 16;
        let connections = self.dice.pick(&[connections, 4 * connections, 16_000]);
        self.say("connection_count", connections);
        if needs.is_paced {
            // Whoever finds it full says one message at a time and comes back for the next: all goes well, but for minutes.
            let least = 4 * connections;
            self.perhaps("unanswered_count", &[least.max(needs.messages / 2), least.max(2 * needs.messages)]);
        }
        self.perhaps("account_count", &[needs.accounts]);
        self.perhaps("login_ms", &[1_000, 3_000]);
        self.perhaps("idle_ms", &[2_000, 5_000]);
        self.perhaps("ticket_ms", &[0, 1_000]);
        self.perhaps("hand_over_ms", &[200, 1_000]);
        self.perhaps("hand_over_count", &[4, 64]);
        self.perhaps("deferred_count", &[4, 64]);
        self.perhaps("handshakes_per_turn", &[1, 16]);
        self.perhaps("ready_key_count", &[1, 16]);
        self.perhaps("refusal_count", &[1_024]);
    }

    fn shard(&mut self, body_bytes: u64) {
        self.perhaps("step_budget", &[1, 16]);
        self.perhaps("lane_bytes", &[512, 4_096]);
        self.perhaps("lane_backlog_bytes", &[2 * (body_bytes + 1_024), 256 << 10]);
        self.perhaps("edge_backlog_bytes", &[2 * body_bytes + 4_096]);
        self.perhaps("write_back_ms", &[0, 1, 50]);
        self.perhaps("floor_delay_ms", &[0, 10, 2_000]);
        self.perhaps("tick_retry_ms", &[100, 500]);
        self.perhaps("busy_ms", &[1, 50]);
    }

    fn rates(&mut self, needs: &Needs) {
        let each = if needs.is_paced { needs.each / 5 } else { 100 };
        let messages = each.max(20);
        if self.dice.chance(DRAWN_PERCENT) {
            self.say("account_messages_per_s", messages);
            self.perhaps("account_messages_burst", &[1, messages]);
        }
        // Each message has its tick, and both are acknowledged.
        let frames = 5 * messages;
        for kind in ["account", "connection"] {
            if self.dice.chance(DRAWN_PERCENT) {
                self.say(&format!("{kind}_frames_per_s"), frames);
                self.say(&format!("{kind}_frames_burst"), 2 * frames);
            }
        }
    }
}
