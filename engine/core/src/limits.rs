//! Everything that can grow has its limit here.
//!
//! What grows in a shard, what keeps it small, and what happens at the limit:
//!
//! | what | limit | past it |
//! | --- | --- | --- |
//! | sockets | `connection_count` | the one that has kept the shard waiting for its login for longest goes, else the new one |
//! | connections of an address | `address_connections`, `address_half_open` | closed at once |
//! | connects and handshakes of an address | `address_connects_*`, `address_handshakes_*` | closed at once; told to come back |
//! | frames and bytes of an address | `address_frames_*`, `address_bytes_*` | told to come back |
//! | accounts that an address registers | `address_registrations_*` | told to come back |
//! | the table of addresses | `address_count` | the quietest is forgiven |
//! | handshakes that wait for a turn | `deferred_count`, a quarter of `login_ms` | told to come back, ever later where it is slow |
//! | halves of hand-overs | `hand_over_count`, `hand_over_ms` | the half is given up |
//! | frames and bytes of a connection | `connection_frames_*`, `connection_bytes_*` | told to come back |
//! | frames of an account | `account_frames_*` | told to come back |
//! | half a record, frames behind a send | `edge_backlog_bytes` each, `edge_bytes` in all | ended |
//! | expanded keys of active phones | `ready_key_count`, 1.3 KB each | expanded for each record |
//! | messages and read ticks of an account | `account_messages_*` | `busy` for the message; the tick comes again |
//! | watches, typing, lookups, changes of devices of an account | `account_asks_*` | refused; typing and lookups are dropped |
//! | devices that an account adds | `account_devices_*` | refused |
//! | logins and changes of devices that wait for the log | one a connection; 4,096 where they only ask about a change | those gone are forgotten; refused |
//! | revoked devices and removed mailboxes that are let go of | `step_budget` of them and of their entries a turn | the rest in a later turn |
//! | messages without a final answer | 4,096 a session, `unanswered_count` in all | told to come back, after its answers |
//! | envelopes under way to a device | `window_count` | wait in the mailbox |
//! | mail of other devices before its own | `step_budget` entries a turn | it looks on in a later turn |
//! | deliveries of a connection | `delivery_count` | told to come back, and numbered anew |
//! | mailboxes | `mailbox_count` and `mailbox_bytes` each, `mail_bytes` in all, `expiry_ms` | `busy` for the sender; expiry |
//! | one sender's part of a mailbox | as much as is free | `busy` for the sender |
//! | ticks that a home owes | the mailboxes of their senders, at 4 x `mailbox_count` | the sender must fetch them first |
//! | refused streams | `refusal_count` | newly refused ones are not kept in order |
//! | watches of presence | 1,024 an account, `watch_count` in all | answered once, and refused |
//! | changes of presence | one a second for each account, `step_budget` watchers a turn | told later, the last one always |
//! | presence and typing under way | a quarter of a lane; 256 KiB a turn to the shard itself; 32 KiB of an edge, 4 KiB behind a send | dropped |
//! | remembered ids | `dedup_count`, `dedup_horizon_ms` | the horizon shortens; `busy` at 2 x `dedup_count` |
//! | lanes to other shards | `lane_bytes` each; `lane_backlog_bytes` wait for all of them | `busy`; control is dropped and owed |
//! | accounts | `account_count`; beside them 176 bytes for each that was removed, until the next start | told to come back |
//! | ids kept to be written again | `dedup_count`, 8 bytes each | their records hold their segments until they are too old |
//! | the log | `segment_count` | thin segments are rewritten; `busy` |
//! | records of mail and floors that a start reads | what the log holds, 112 and 72 bytes each beside `mail_bytes` | none |
//!
//! The last one is memory of the start alone, of all shards at once, and is given back before the shard serves. The log holds
//! dead records, too: where no segment is thin, up to as many as live ones. A shard that is full of the smallest mail, 4 GiB in
//! slots of 256 bytes, has 16 M messages, and so up to 32 M records: 3.6 GB, and half as much again while the list of them
//! grows. Who sets `mail_bytes` so that all shards just fit the machine should leave room for that.
//!
//! Handshake records are at most 512 bytes and there are at most two of them, so what an edge says before its login
//! needs no limit of its own.

/// Bytes of buffers for each connection, of which an eighth is always its own.
const EDGE_SHARE_BYTES: usize = 4096;
/// And two of the largest records beside: half of the memory is for whoever comes first, and a phone whose record never
/// finds room would come back with it for ever.
const RECORDS_BYTES: usize = 128 << 10;
/// Connections that a shard may have beyond [`Limits::connection_count`] for a moment: half-open ones that were given up
/// are still closing while others have come in their place. A driver's table of sockets must have more spare places.
pub const OVERLAP_COUNT: u32 = 32;
/// Bytes that a shard's mail may take beyond [`Limits::mail_bytes`]: the last memory for each size of mail.
pub const MAIL_SLACK_BYTES: usize = tern_storage::cache::SLACK_BYTES;
/// So many times [`Limits::dedup_count`] may be remembered of the last ten to fifteen minutes.
pub const DEDUP_LIVE_FACTOR: usize = 2;
/// Longest that anybody may be waited for, milliseconds: ten years, which are as good as ever.
pub(crate) const WAIT_MS_MAX: u64 = 10 * 365 * 24 * 3_600_000;
/// More than what one receive brings.
const RECEIVED_BYTES_MAX: u32 = 128 << 10;

use crate::lanes::LANE_BYTES_MIN;
use crate::presence::WATCHER_COUNT_MAX;

/// The limits of a node, each per shard unless its name says otherwise. `Default` is what `tern` starts with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest body of a message, bytes.
    pub body_bytes: usize,
    /// Envelopes that a session may have unacknowledged at its device.
    pub window_count: u16,
    /// Envelopes that one connection may be given: their numbers must not wrap. Past it, once all are acknowledged, its
    /// phone is told to come back (`Goodbye(Busy)`).
    pub delivery_count: u32,
    /// Messages in one mailbox. A sender that holds more of one than is free is told `busy` before that, so that nobody
    /// closes it for the others. Of `delivered` ticks it takes four times as many.
    pub mailbox_count: u32,
    /// Bytes of one mailbox in memory, by the sizes of the cache's slots; `delivered` ticks are not held to it.
    pub mailbox_bytes: u64,
    /// Bytes of memory of all mailboxes of a shard: slots for mail, empty ones included, and 128 for each entry. Up to
    /// [`MAIL_SLACK_BYTES`] come on top. The last sixteenth is for copies and ticks, and half of that for `delivered` ticks
    /// alone.
    pub mail_bytes: usize,
    /// Sockets of a shard, from its ring's descriptor table. Past it the shard gives up the one that has kept it waiting
    /// for its login for longest; where none has, the new one is closed at once.
    pub connection_count: u32,
    /// Milliseconds from accept to the first transport frame, on whichever shard; they begin anew when a handshake that had
    /// to wait has its turn. Where one has waited for a quarter of it, whoever comes then is told to come back later.
    pub login_ms: u64,
    /// Milliseconds without a whole record from the phone before it is given up; phones are told to ping after four
    /// fifths of it, and after 240 s at most.
    pub idle_ms: u64,
    /// Milliseconds that one half of a hand-over waits for the other.
    pub hand_over_ms: u64,
    /// Bytes of plaintext that may wait for one socket to take its last send.
    pub edge_backlog_bytes: usize,
    /// Pieces of housekeeping that one step does before it lets others go first: mailbox entries that lose a revoked
    /// device, that expire, or that a device passes over on the way to its own, watchers that are told of a change,
    /// accounts that are looked at or take up a change. What phones and other shards say is not counted here: it is
    /// limited by what a turn takes from sockets and lanes.
    pub step_budget: u32,
    /// Handshakes that are begun per turn; further ones wait for the next. Each is answered in the turn behind it.
    pub handshakes_per_turn: u32,
    /// Bytes of one lane between two shards, at most; a node of many shards makes them smaller.
    pub lane_bytes: usize,
    /// Bytes of envelopes to other shards that may wait in a shard for a turn's end or for room, all lanes together, at
    /// most; a node of many shards makes it smaller. Half is for messages, half for control.
    pub lane_backlog_bytes: usize,
    /// Bytes of one group commit; more, where the log holds a larger record from before.
    pub commit_bytes: usize,
    /// Segment files of a shard's log.
    pub segment_count: u32,
    /// Milliseconds that an append for an online mailbox may wait for company before its commit; 0 commits at once. What its
    /// devices acknowledge before is never written, and needs one tick instead of two: so it should be longer than the
    /// round trip of most phones that are near.
    pub write_back_ms: u64,
    /// Milliseconds that a floor may wait before it is written: what a crash may hand out again.
    pub floor_delay_ms: u64,
    /// Milliseconds for which a home remembers message ids.
    pub dedup_horizon_ms: u64,
    /// Ids of messages and ticks that a shard remembers, some 14 bytes each; past it the horizon shortens, but not below
    /// ten to fifteen minutes. If those alone come to twice as many, messages are refused with `busy`.
    pub dedup_count: usize,
    /// Milliseconds after which an unfetched message expires.
    pub expiry_ms: u64,
    /// Milliseconds after which an owed tick is sent again, each further time twice as long, up to 16 times as long.
    pub tick_retry_ms: u64,
    /// Milliseconds that `busy` asks a sender to wait, before jitter; at most so many where a lane to another shard is
    /// full, which asks for as long as it has been full already.
    pub busy_ms: u32,
    /// Accounts of a shard.
    pub account_count: u32,
    /// Milliseconds for which a resume ticket works; 0 gives none out.
    pub ticket_ms: u64,

    /// Frames per second from one connection; 0 for any number. Past it the phone is told to come back later
    /// (`Goodbye(Busy)` with a jittered time).
    pub connection_frames_per_s: u32,
    /// Frames from one connection at once.
    pub connection_frames_burst: u32,
    /// Bytes per second from one connection; 0 for any number. Past it as for frames.
    pub connection_bytes_per_s: u32,
    /// Bytes from one connection at once.
    pub connection_bytes_burst: u32,
    /// Frames of any kind per second from one account, all its devices together; 0 for any number. Past it the device
    /// that said the last one is told to come back later, as for its connection.
    pub account_frames_per_s: u32,
    /// Frames from one account at once.
    pub account_frames_burst: u32,
    /// Messages and read ticks per second from one account, all its devices together; 0 for any number. Past it a message
    /// is refused with `busy`, and its stream goes on from there; a read tick is passed over, and its phone says it again
    /// after a minute without an answer.
    pub account_messages_per_s: u32,
    /// Messages and read ticks from one account at once.
    pub account_messages_burst: u32,
    /// Watches, typing, lookups, and lists and changes of devices per second from one account; 0 for any number. Past it
    /// watches and changes are refused, typing is dropped, and a lookup gets no answer: its phone asks again after 30 s.
    pub account_asks_per_s: u32,
    /// The same from one account at once.
    pub account_asks_burst: u32,
    /// Devices per hour that one account adds to those that it has; 0 for any number. Past it the change is refused with an
    /// error of its own. Numbers of devices never come again, and an account has 65,534 of them: at 4 an hour nobody
    /// uses them up in less than 22 months, and whoever has got hold of one device is revoked long before.
    pub account_devices_per_h: u32,
    /// The same from one account at once: all that it can have, twice.
    pub account_devices_burst: u32,
    /// Connections that one address holds, for the whole node (each shard has its share, and at least four); 0 for any
    /// number. Past it a connection is closed at once, or told to come back where it comes from another shard.
    pub address_connections: u32,
    /// Those among them that have not logged in, likewise.
    pub address_half_open: u32,
    /// Connects per second from one address, for the whole node (each shard has its share, since the kernel spreads
    /// connections over them); 0 for any number. Past it a connection is closed before anything is kept of it.
    pub address_connects_per_s: u32,
    /// Connects from one address at once, for the whole node.
    pub address_connects_burst: u32,
    /// Handshakes per second from one address, for the whole node; 0 for any number. Past it a phone is told in the
    /// clear to come back later (the busy record).
    pub address_handshakes_per_s: u32,
    /// Handshakes from one address at once, for the whole node.
    pub address_handshakes_burst: u32,
    /// Accounts per hour that phones of one address register, for the whole node; 0 for any number. Past it a phone is
    /// told to come back later, and nothing is made.
    pub address_registrations_per_h: u32,
    /// Accounts from one address at once, for the whole node.
    pub address_registrations_burst: u32,
    /// Bytes per second from one address, for the whole node; 0 for any number. Past it the connection that brought the
    /// last ones is told to come back later.
    pub address_bytes_per_s: u32,
    /// Bytes from one address at once, for the whole node.
    pub address_bytes_burst: u32,
    /// Frames per second from one address, for the whole node; 0 for any number. Past it as for bytes.
    pub address_frames_per_s: u32,
    /// Frames from one address at once, for the whole node.
    pub address_frames_burst: u32,
    /// Leading bits of an IPv6 address that count as one address. IPv4 addresses count whole.
    pub address_prefix_bits: u8,
    /// Addresses whose rates a shard keeps, 48 bytes each; past it those that were quiet for longest are forgiven.
    pub address_count: u32,
    /// Whether the limits on addresses hold for loopback too. Off, because load generators and local balancers
    /// without the PROXY protocol live there.
    pub limit_loopback: bool,
    /// Connections that wait for a handshake's turn; past it a phone is told in the clear to come back later.
    pub deferred_count: u32,
    /// Hand-overs of which one half has come; past it the half that comes is given up and its socket closed.
    pub hand_over_count: u32,
    /// Refused streams that a home remembers; past it newly refused ones are not kept in order.
    pub refusal_count: u32,
    /// Watches of presence that a shard's accounts hold, up to 32 bytes each; past it one who wants to watch is told
    /// the present state and refused the changes.
    pub watch_count: u32,
    /// Bytes of buffers that edges hold (half records, frames behind a send) or that wait to be used again. Each edge
    /// always has its share of an eighth; past the half, an edge that holds more than its share is ended
    /// (`Goodbye(Busy)`), or gets no more mail until it has taken what it has.
    pub edge_bytes: usize,
    /// Active phones whose keys a shard keeps expanded, 1.3 KB each; past it they are expanded for each record.
    pub ready_key_count: u32,
    /// Messages without a final answer that sessions remember, 32 bytes each; where a session has more than 64, each
    /// takes and counts three times as much. Each session always has its share of a
    /// quarter; past the half, one that has more than its share gets the answers that it waits for, takes no further
    /// message, and is then ended (`Goodbye(Busy)`).
    pub unanswered_count: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 32 << 10,
            window_count: 64,
            delivery_count: 1 << 31,
            mailbox_count: 100_000,
            mailbox_bytes: 64 << 20,
            mail_bytes: 4 << 30,
            connection_count: 16_000,
            login_ms: 10_000,
            idle_ms: 600_000,
            hand_over_ms: 5_000,
            edge_backlog_bytes: 256 << 10,
            step_budget: 512,
            handshakes_per_turn: 2,
            lane_bytes: 1 << 20,
            lane_backlog_bytes: 4 << 20,
            commit_bytes: 1 << 20,
            segment_count: 4096,
            write_back_ms: 20,
            floor_delay_ms: 100,
            dedup_horizon_ms: 24 * 3_600_000,
            dedup_count: 60_000_000,
            expiry_ms: 30 * 24 * 3_600_000,
            tick_retry_ms: 2_000,
            busy_ms: 500,
            account_count: 4_000_000,
            ticket_ms: 7 * 24 * 3_600_000,
            connection_frames_per_s: 10_000,
            connection_frames_burst: 50_000,
            connection_bytes_per_s: 8 << 20,
            connection_bytes_burst: 64 << 20,
            account_frames_per_s: 20_000,
            account_frames_burst: 100_000,
            account_messages_per_s: 2_000,
            account_messages_burst: 20_000,
            account_asks_per_s: 500,
            account_asks_burst: 5_000,
            account_devices_per_h: 4,
            account_devices_burst: 32,
            address_connections: 8_000,
            address_half_open: 2_000,
            address_connects_per_s: 200,
            address_connects_burst: 4_000,
            address_handshakes_per_s: 100,
            address_handshakes_burst: 2_000,
            address_registrations_per_h: 1_000,
            address_registrations_burst: 1_000,
            // Shares of these are what one connection may have, up to forty shards.
            address_bytes_per_s: 320 << 20,
            address_bytes_burst: 2_560 << 20,
            address_frames_per_s: 400_000,
            address_frames_burst: 2_000_000,
            address_prefix_bits: 64,
            address_count: 8_192,
            limit_loopback: false,
            deferred_count: 8_192,
            hand_over_count: 4_096,
            refusal_count: 250_000,
            watch_count: 1_000_000,
            edge_bytes: 256 << 20,
            ready_key_count: 16_384,
            unanswered_count: 2_000_000,
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
            (
                "delivery_count",
                (u32::from(self.window_count)..=1 << 31).contains(&self.delivery_count),
                "window_count to 2147483648",
            ),
            ("mailbox_count", self.mailbox_count >= u32::from(self.window_count), "at least window_count"),
            ("mailbox_bytes", self.mailbox_bytes >= 128 << 10, "at least 131072"),
            ("mail_bytes", self.mail_bytes >= 1 << 20, "at least 1 MiB"),
            // Four messages without an answer for each are to be counted.
            ("connection_count", (1..=u32::MAX / 4).contains(&self.connection_count), "1 to 1073741823"),
            ("login_ms", (100..=WAIT_MS_MAX).contains(&self.login_ms), "100 to 315360000000"),
            ("idle_ms", (2_000..=WAIT_MS_MAX).contains(&self.idle_ms), "2000 to 315360000000"),
            ("hand_over_ms", (10..=WAIT_MS_MAX).contains(&self.hand_over_ms), "10 to 315360000000"),
            (
                "edge_backlog_bytes",
                self.edge_backlog_bytes >= 2 * self.body_bytes + 4096,
                "at least 2 x body_bytes + 4096",
            ),
            ("step_budget", self.step_budget >= 1, "at least 1"),
            ("handshakes_per_turn", self.handshakes_per_turn >= 1, "at least 1"),
            ("lane_bytes", self.lane_bytes >= LANE_BYTES_MIN, "at least 512"),
            (
                "lane_backlog_bytes",
                self.lane_backlog_bytes >= 2 * (self.body_bytes + 1024),
                "at least 2 x body_bytes + 2048",
            ),
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
            ("address_prefix_bits", (16..=128).contains(&self.address_prefix_bits), "16 to 128"),
            ("address_count", (64..=1 << 24).contains(&self.address_count), "64 to 16777216"),
            ("deferred_count", self.deferred_count >= 1, "at least 1"),
            ("hand_over_count", self.hand_over_count >= 1, "at least 1"),
            ("refusal_count", self.refusal_count >= 1024, "at least 1024"),
            // One account must not be able to use up all.
            ("watch_count", self.watch_count as usize >= 4 * WATCHER_COUNT_MAX, "at least 4096"),
            (
                "edge_bytes",
                self.edge_bytes >= self.edge_bytes_min(),
                "at least 4096 x connection_count + 131072",
            ),
            (
                "unanswered_count",
                self.unanswered_count / 4 >= self.connection_count,
                "at least 4 x connection_count",
            ),
        ];
        self.check_rates()?;
        match rules.iter().find(|rule| !rule.1) {
            Some(&(name, _, allowed)) => Err(LimitError { name, allowed }),
            None => Ok(()),
        }
    }

    /// Least `edge_bytes` for this `connection_count`.
    #[must_use]
    pub const fn edge_bytes_min(&self) -> usize {
        EDGE_SHARE_BYTES * self.connection_count as usize + RECORDS_BYTES
    }

    /// Least `unanswered_count` for this `connection_count`.
    #[must_use]
    pub const fn unanswered_count_min(&self) -> u32 {
        self.connection_count.saturating_mul(4)
    }

    /// A rate that is on needs a burst that lets the largest single thing pass.
    fn check_rates(&self) -> Result<(), LimitError> {
        let rates = [
            ("connection_frames_burst", self.connection_frames_per_s, self.connection_frames_burst),
            ("account_frames_burst", self.account_frames_per_s, self.account_frames_burst),
            ("account_messages_burst", self.account_messages_per_s, self.account_messages_burst),
            ("account_asks_burst", self.account_asks_per_s, self.account_asks_burst),
            ("account_devices_burst", self.account_devices_per_h, self.account_devices_burst),
            ("address_connects_burst", self.address_connects_per_s, self.address_connects_burst),
            ("address_handshakes_burst", self.address_handshakes_per_s, self.address_handshakes_burst),
            (
                "address_registrations_burst",
                self.address_registrations_per_h,
                self.address_registrations_burst,
            ),
            ("address_frames_burst", self.address_frames_per_s, self.address_frames_burst),
        ];
        if let Some(&(name, ..)) = rates.iter().find(|rate| rate.1 > 0 && rate.2 < 1) {
            return Err(LimitError { name, allowed: "at least 1, or the rate 0" });
        }
        let rates = [
            ("connection_bytes_burst", self.connection_bytes_per_s, self.connection_bytes_burst),
            ("address_bytes_burst", self.address_bytes_per_s, self.address_bytes_burst),
        ];
        match rates.iter().find(|rate| rate.1 > 0 && rate.2 < RECEIVED_BYTES_MAX) {
            Some(&(name, ..)) => Err(LimitError { name, allowed: "at least 131072, or the rate 0" }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_waited_for_for_ever_is_waited_for_for_ten_years() {
        let with_all = |ms| Limits { login_ms: ms, idle_ms: ms, hand_over_ms: ms, ..Limits::default() };
        assert_eq!(with_all(WAIT_MS_MAX).validate(), Ok(()));
        // In nanoseconds, and after a machine has been up for as long.
        assert!((2 * WAIT_MS_MAX).checked_mul(1_000_000).is_some());
        let wrong = |limits: Limits| limits.validate().unwrap_err().name;
        assert_eq!(wrong(with_all(WAIT_MS_MAX + 1)), "login_ms");
        assert_eq!(wrong(Limits { idle_ms: i64::MAX as u64, ..Limits::default() }), "idle_ms");
        assert_eq!(wrong(Limits { hand_over_ms: u64::MAX, ..Limits::default() }), "hand_over_ms");
    }
}
