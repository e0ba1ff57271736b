//! Everything that can grow has its limit here.

use crate::lanes::LANE_BYTES_MIN;

/// The limits of a node, each per shard unless its name says otherwise. `Default` is what `tern` starts with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest body of a message, bytes.
    pub body_bytes: usize,
    /// Envelopes that a session may have unacknowledged at its device.
    pub window_count: u16,
    /// Messages in one mailbox.
    pub mailbox_count: u32,
    /// Bytes of all mailboxes of a shard in memory.
    pub mail_bytes: usize,
    /// Sockets of a shard, from its ring's descriptor table.
    pub connection_count: u32,
    /// Milliseconds from accept to the first transport frame.
    pub login_ms: u64,
    /// Milliseconds without a byte from the phone before it is given up; phones ping every 240 s.
    pub idle_ms: u64,
    /// Milliseconds that one half of a hand-over waits for the other.
    pub hand_over_ms: u64,
    /// Bytes of plaintext that may wait for one socket to take its last send.
    pub edge_backlog_bytes: usize,
    /// Messages and handshakes that one step may work through before it asks to continue.
    pub step_budget: u32,
    /// Handshakes per turn; further ones wait for the next.
    pub handshakes_per_turn: u32,
    /// Bytes of one lane between two shards, at most; a node of many shards makes them smaller.
    pub lane_bytes: usize,
    /// Bytes of control envelopes that may wait for one lane's room.
    pub lane_backlog_bytes: usize,
    /// Bytes of one group commit.
    pub commit_bytes: usize,
    /// Segment files of a shard's log.
    pub segment_count: u32,
    /// Milliseconds that an append for an online mailbox may wait for company before its commit; 0 commits at once.
    pub write_back_ms: u64,
    /// Milliseconds that a floor may wait before it is written: what a crash may hand out again.
    pub floor_delay_ms: u64,
    /// Milliseconds for which a home remembers message ids.
    pub dedup_horizon_ms: u64,
    /// Message ids that a shard remembers; past it the horizon shortens.
    pub dedup_count: usize,
    /// Milliseconds after which an unfetched message expires.
    pub expiry_ms: u64,
    /// Milliseconds after which an owed tick is sent again.
    pub tick_retry_ms: u64,
    /// Milliseconds that `busy` asks a sender to wait, before jitter.
    pub busy_ms: u32,
    /// Accounts of a shard.
    pub account_count: u32,
    /// Milliseconds for which a resume ticket works; 0 gives none out.
    pub ticket_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 32 << 10,
            window_count: 64,
            mailbox_count: 100_000,
            mail_bytes: 4 << 30,
            connection_count: 16_000,
            login_ms: 10_000,
            idle_ms: 600_000,
            hand_over_ms: 5_000,
            edge_backlog_bytes: 256 << 10,
            step_budget: 512,
            handshakes_per_turn: 16,
            lane_bytes: 1 << 20,
            lane_backlog_bytes: 4 << 20,
            commit_bytes: 1 << 20,
            segment_count: 4096,
            write_back_ms: 5,
            floor_delay_ms: 100,
            dedup_horizon_ms: 24 * 3_600_000,
            dedup_count: 20_000_000,
            expiry_ms: 30 * 24 * 3_600_000,
            tick_retry_ms: 2_000,
            busy_ms: 500,
            account_count: 4_000_000,
            ticket_ms: 7 * 24 * 3_600_000,
        }
    }
}

/// A limit that contradicts another, or that the format cannot hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitError {
    /// The limit's name.
    pub name: &'static str,
    /// What is allowed.
    pub allowed: &'static str,
}

impl Limits {
    /// Checks each limit and the relations between them: frame ≤ envelope, window ≤ mailbox, and so on.
    ///
    /// # Errors
    /// Names the first limit that does not hold.
    pub fn validate(&self) -> Result<(), LimitError> {
        let rules = [
            ("body_bytes", (1..=60_000).contains(&self.body_bytes), "1 to 60000"),
            ("window_count", (1..=4096).contains(&self.window_count), "1 to 4096"),
            ("mailbox_count", self.mailbox_count >= u32::from(self.window_count), "at least window_count"),
            ("mail_bytes", self.mail_bytes >= 1 << 20, "at least 1 MiB"),
            ("connection_count", self.connection_count >= 1, "at least 1"),
            ("login_ms", self.login_ms >= 100, "at least 100"),
            ("idle_ms", self.idle_ms >= 1_000, "at least 1000"),
            ("hand_over_ms", self.hand_over_ms >= 10, "at least 10"),
            (
                "edge_backlog_bytes",
                self.edge_backlog_bytes >= 2 * self.body_bytes + 4096,
                "at least 2 x body_bytes + 4096",
            ),
            ("step_budget", self.step_budget >= 1, "at least 1"),
            ("handshakes_per_turn", self.handshakes_per_turn >= 1, "at least 1"),
            ("lane_bytes", self.lane_bytes >= LANE_BYTES_MIN, "at least 512"),
            ("lane_backlog_bytes", self.lane_backlog_bytes >= 4096, "at least 4096"),
            (
                "commit_bytes",
                (self.body_bytes + 8192..=16 << 20).contains(&self.commit_bytes),
                "body_bytes + 8192 to 16 MiB",
            ),
            ("segment_count", self.segment_count >= 6, "at least 6"),
            ("write_back_ms", self.write_back_ms <= 50, "0 to 50"),
            ("floor_delay_ms", self.floor_delay_ms <= 60_000, "0 to 60000"),
            ("dedup_horizon_ms", self.dedup_horizon_ms >= 60_000, "at least 60000"),
            ("dedup_count", self.dedup_count >= 1024, "at least 1024"),
            ("expiry_ms", self.expiry_ms >= 60_000, "at least 60000"),
            ("tick_retry_ms", (100..=600_000).contains(&self.tick_retry_ms), "100 to 600000"),
            ("busy_ms", (1..=60_000).contains(&self.busy_ms), "1 to 60000"),
            ("account_count", self.account_count >= 1, "at least 1"),
        ];
        match rules.iter().find(|rule| !rule.1) {
            Some(&(name, _, allowed)) => Err(LimitError { name, allowed }),
            None => Ok(()),
        }
    }
}
