//! What a shard counts. Read by the control plane; adding a line here makes it appear in `/metrics`.
//!
//! A line is `name`, or `name as family`, or `name as family { label = "value" }`, and any of these may end in `=> min`:
//! then the total of several shards is their least, where it is their sum else. A name that ends in `_now` is a
//! gauge, any other a counter. In `/metrics` it is called `tern_` and the family, which is the name without `_now`
//! where nothing else is said; a counter's name gets `_total`. Names carry their unit (`_bytes`); several lines may
//! share a family under different labels, and then [`FAMILIES`] has its help.

/// How one counter appears in `/metrics`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metric {
    /// Its field.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// The metric's name, without prefix and `_total`.
    pub family: &'static str,
    /// What tells it from others of its family.
    pub labels: &'static [(&'static str, &'static str)],
    /// Whether it may go down.
    pub is_gauge: bool,
}

impl Metric {
    /// From a line of the list.
    #[must_use]
    pub fn new(
        name: &'static str,
        help: &'static str,
        family: Option<&'static str>,
        labels: &'static [(&'static str, &'static str)],
    ) -> Self {
        let gauge = name.strip_suffix("_now");
        let family = family.unwrap_or(gauge.unwrap_or(name));
        Self { name, help: help.trim_ascii(), family, labels, is_gauge: gauge.is_some() }
    }
}

/// Makes a struct of counters from a list of lines.
#[macro_export]
macro_rules! define_counters {
    ($(#[doc = $text:literal])+ pub struct $Counters:ident;
     $($(#[doc = $doc:literal])*
       $name:ident $(as $family:ident $({ $label:ident = $value:literal })?)? $(=> $total:ident)?),* $(,)?) => {
        $(#[doc = $text])+
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct $Counters { $($(#[doc = $doc])* pub $name: u64),* }

        impl $Counters {
            /// Each counter and its value, in order.
            pub fn each(&self, mut visit: impl FnMut($crate::counters::Metric, u64)) {
                $({
                    const FAMILY: &[&str] = &[$(stringify!($family))?];
                    const LABELS: &[(&str, &str)] = &[$($((stringify!($label), $value))?)?];
                    let (name, help) = (stringify!($name), concat!($($doc),*));
                    visit($crate::counters::Metric::new(name, help, FAMILY.first().copied(), LABELS), self.$name);
                })*
            }

            /// What shards counted together; nothing where there is none.
            #[must_use]
            pub fn total<'a>(shards: impl IntoIterator<Item = &'a Self>) -> Self {
                shards.into_iter().copied().reduce(Self::with).unwrap_or_default()
            }

            fn with(mut self, other: Self) -> Self {
                $({
                    const TOTALS: &[fn(u64, u64) -> u64] =
                        &[$(<u64 as ::core::cmp::Ord>::$total,)? <u64 as ::core::ops::Add>::add];
                    self.$name = TOTALS[0](self.$name, other.$name);
                })*
                self
            }
        }
    };
}

/// Help of the families that several counters share.
pub const FAMILIES: &[(&str, &str)] = &[
    (
        "limit_hits",
        "Times that something ran into a limit, by the limit's name in the configuration (`account_watches`, `session_unanswered`, `log_waiters` and `handshake_wait` are fixed, `drive` is a drive that is full).",
    ),
    ("logins_refused", "Logins with a key that were refused, by what was wrong. Nobody broke the protocol."),
    (
        "ticks",
        "Ticks by kind: sent to the sender's device, delivered and confirmed by the sender's home, or read.",
    ),
    ("log_segments", "Log segments by state."),
    ("ephemeral_dropped", "Presence, watches and typing that were dropped, by where there was no room."),
];

/// Limits that are hit where nothing is wrong: handshakes that wait a turn, phones that went away without a word.
pub const EVERYDAY_LIMITS: [&str; 2] = ["handshakes_per_turn", "idle_ms"];

define_counters! {
    /// Counts since boot, and gauges where the name ends in `_now`.
    pub struct Counters;

    /// Sockets accepted.
    accepted,
    /// Sockets closed because the shard has as many as it may: the one that kept it waiting for its login for longest, or
    /// else the new one.
    refused_connections as limit_hits { limit = "connection_count" },
    /// Sockets refused because the shard drains.
    refused_draining,
    /// Sockets of this shard now.
    connections_now,
    /// Timers that are set now: one for each socket.
    timers_now,
    /// Sessions now.
    sessions_now,
    /// Logins that reached their first transport frame.
    logins,
    /// Logins refused because there is no such account.
    logins_unknown as logins_refused { reason = "unknown_account" },
    /// Logins refused because the account has no such key.
    logins_wrong_key as logins_refused { reason = "wrong_key" },
    /// Registrations refused because the name belongs to other keys.
    logins_name_taken as logins_refused { reason = "name_taken" },
    /// Logins refused because their name is none.
    logins_bad_name as logins_refused { reason = "bad_name" },
    /// Registrations refused because only the operator makes accounts.
    logins_closed as logins_refused { reason = "registration_closed" },
    /// Logins that were welcomed and whose first record never came or did not decrypt: replayed handshakes, or phones
    /// whose connection broke.
    logins_unproven,
    /// Registrations told to come back because another one was faster: the number that they were welcomed with, or their
    /// name, is another's.
    registrations_overtaken,
    /// Logins by resume ticket, among the logins.
    logins_by_ticket,
    /// Resume tickets refused: forged, used up, too old, or of a revoked device.
    tickets_refused,
    /// Devices added by phones.
    devices_added,
    /// Devices revoked by phones.
    devices_revoked,
    /// Phones told to ask again about a change of devices because 4,096 logins and changes wait for the log.
    refused_waiters as limit_hits { limit = "log_waiters" },
    /// Presence, watches and typing dropped because they would have taken more than a quarter of a lane, or it was full.
    ephemeral_dropped as ephemeral_dropped { at = "lane" },
    /// Presence and typing dropped because their phone did not read, or memory for edges was short.
    ephemeral_unread as ephemeral_dropped { at = "edge" },
    /// Watches refused because the shard's accounts are watched by as many as may be.
    refused_watches as limit_hits { limit = "watch_count" },
    /// Watches refused because their account is watched by 1,024 devices, the most that may watch any.
    account_watches_full as limit_hits { limit = "account_watches" },
    /// Watches now, ended ones included until they are forgotten.
    watches_now,
    /// Sessions replaced by a newer login of the same device.
    sessions_replaced,
    /// Accounts not made because the shard has as many as it may.
    accounts_full as limit_hits { limit = "account_count" },
    /// Accounts made.
    accounts_created,
    /// Accounts now.
    accounts_now,
    /// Connections handed to another shard.
    handed_over,
    /// Connections taken from another shard.
    taken_over,
    /// Hand-overs refused or timed out.
    hand_over_failures,
    /// Halves of hand-overs given up because too many waited.
    hand_overs_full as limit_hits { limit = "hand_over_count" },
    /// Halves of hand-overs given up because the other one did not come in time.
    hand_overs_late as limit_hits { limit = "hand_over_ms" },
    /// Messages that phones sent.
    messages_in,
    /// Messages appended to a mailbox.
    messages_appended,
    /// Messages sent to a device.
    messages_out,
    /// Appends that were acknowledged before their commit and never written.
    writes_avoided,
    /// Retries recognised by their id.
    duplicates,
    /// Messages refused with busy.
    refused_busy,
    /// Messages refused because the mailbox was full.
    mailbox_full as limit_hits { limit = "mailbox_count" },
    /// Messages refused because the mailbox held as many bytes as it may.
    mailbox_bytes_full as limit_hits { limit = "mailbox_bytes" },
    /// Messages refused because their sender held more of the mailbox than was free.
    refused_share,
    /// Messages refused because the shard's memory for mail was full.
    memory_full as limit_hits { limit = "mail_bytes" },
    /// Messages and accounts refused because the log may have no more segments, and had none left but what gives back
    /// space needs.
    segments_full as limit_hits { limit = "segment_count" },
    /// Likewise, because the drive had no room for another segment.
    drive_full as limit_hits { limit = "drive" },
    /// Messages refused because a lane to another shard was full.
    lane_full as limit_hits { limit = "lane_bytes" },
    /// Messages refused for their size.
    too_large as limit_hits { limit = "body_bytes" },
    /// Retries older than the dedup horizon.
    refused_expired,
    /// Messages whose id is of a time that is yet to come, by more than five minutes.
    refused_ahead,
    /// Message ids that are remembered now.
    ids_now as message_ids,
    /// Seconds back to which message ids are known now: the dedup horizon, or less for want of memory.
    ids_reach_s_now as message_ids_reach_seconds => min,
    /// Periods of message ids forgotten early, and messages refused because those of the present take all the memory.
    ids_full as limit_hits { limit = "dedup_count" },
    /// Messages for no account.
    refused_unknown,
    /// Messages that expired unfetched.
    expired,
    /// Times that the machine's wall clock stepped by more than two minutes, at the start against the newest message.
    clock_steps,
    /// Shards that do not believe the machine's wall clock now, and go on by their own.
    clock_doubted_now as clock_doubted_shards,
    /// Ticks of kind sent.
    ticks_sent as ticks { kind = "sent" },
    /// Ticks of kind delivered, confirmed by the sender's home.
    ticks_delivered as ticks { kind = "delivered" },
    /// Ticks of kind read, taken by the sender's home.
    ticks_read as ticks { kind = "read" },
    /// Owed ticks that were sent again.
    ticks_retried,
    /// Messages waiting now.
    mail_count_now as mailbox_entries,
    /// Messages and ticks that are kept in the log although the record of their account is damaged. Counted at the start.
    orphans_now as mailbox_orphans,
    /// Mailboxes that hold something now.
    mailboxes_filled_now,
    /// Bytes of waiting mail in memory now.
    mail_bytes_now as mailbox_bytes,
    /// Bytes of memory that waiting mail and its places take now, with what is kept ready for more of the same size.
    mail_held_bytes_now,
    /// Group commits.
    log_commits,
    /// Bytes written to the log, padding included.
    log_bytes_written as log_written_bytes,
    /// Bytes written to the log again, among those: what still lived in segments where little does.
    log_rewritten_bytes,
    /// Log segments given back because what lived in them was written elsewhere.
    log_segments_rewritten,
    /// Log segments free for use now.
    segments_free_now as log_segments { state = "free" },
    /// Log segments in use now.
    segments_used_now as log_segments { state = "used" },
    /// Envelopes sent to other shards.
    mesh_out,
    /// Envelopes that came from other shards.
    mesh_in,
    /// Control envelopes dropped because a lane's backlog was full.
    mesh_dropped as limit_hits { limit = "lane_backlog_bytes" },
    /// Bytes of envelopes that wait for room in a lane to another shard.
    mesh_backlog_bytes_now,
    /// Connections ended because their client broke the protocol.
    protocol_errors,
    /// Connections ended because a deadline passed.
    timeouts,
    /// Connections ended because their phone did not say in time what a login takes, among the timeouts.
    login_timeouts as limit_hits { limit = "login_ms" },
    /// Connections told to come back because this node was not done with their login in time, among the timeouts: their
    /// handshake waited for its turn, or their account for the log.
    logins_unserved,
    /// Connections ended because their phone was silent for too long, among the timeouts.
    idle_timeouts as limit_hits { limit = "idle_ms" },
    /// Connections ended because their phone did not read.
    slow_readers as limit_hits { limit = "edge_backlog_bytes" },
    /// Connections closed, or told to come back, because their address holds as many as it may.
    refused_address_connections as limit_hits { limit = "address_connections" },
    /// Connections closed, or told to come back, because their address holds as many as it may that have not logged in.
    refused_address_half_open as limit_hits { limit = "address_half_open" },
    /// Connections closed at once because their address connects too often.
    refused_address_connects as limit_hits { limit = "address_connects_per_s" },
    /// Connections told to come back because their address begins too many handshakes.
    refused_address_handshakes as limit_hits { limit = "address_handshakes_per_s" },
    /// Registrations told to come back because their address registers too many accounts.
    refused_address_registrations as limit_hits { limit = "address_registrations_per_h" },
    /// Connections ended because their address sends too many bytes.
    address_byte_floods as limit_hits { limit = "address_bytes_per_s" },
    /// Connections ended because their address sends too many frames.
    address_floods as limit_hits { limit = "address_frames_per_s" },
    /// Addresses forgiven early because the table of addresses was full.
    addresses_forgotten as limit_hits { limit = "address_count" },
    /// Connections closed because what should be a PROXY header is none.
    proxy_errors,
    /// Handshakes that waited for a later turn.
    deferred_handshakes as limit_hits { limit = "handshakes_per_turn" },
    /// Connections told to come back because too many handshakes waited.
    refused_handshakes as limit_hits { limit = "deferred_count" },
    /// Connections told to come back because whoever waited for longest for its handshake's turn had waited for a quarter of
    /// `login_ms`.
    refused_handshake_waits as limit_hits { limit = "handshake_wait" },
    /// Handshakes that wait now.
    deferred_now as handshakes_waiting,
    /// Handshakes that failed: not a Noise message for this server, a replayed third message, a malformed login.
    handshakes_failed,
    /// Connections ended because they sent too many bytes.
    byte_floods as limit_hits { limit = "connection_bytes_per_s" },
    /// Connections ended because they sent too many frames.
    floods as limit_hits { limit = "connection_frames_per_s" },
    /// Connections ended because their account, on all its devices, sends too many frames.
    account_floods as limit_hits { limit = "account_frames_per_s" },
    /// Messages refused with busy, and read ticks passed over, because their account sends too many.
    refused_account_rate as limit_hits { limit = "account_messages_per_s" },
    /// Watches, typing, lookups and changes of devices refused because their account asks too much.
    refused_asks as limit_hits { limit = "account_asks_per_s" },
    /// Devices that were not added because their account has added so many lately.
    refused_devices as limit_hits { limit = "account_devices_per_h" },
    /// Connections ended because the shard's memory for edges was used up.
    refused_memory as limit_hits { limit = "edge_bytes" },
    /// Connections ended because they had too many messages without an answer for the shard's memory.
    unanswered_full as limit_hits { limit = "unanswered_count" },
    /// Connections ended because they were given as many envelopes as one may.
    deliveries_full as limit_hits { limit = "delivery_count" },
    /// Connections ended because they had 4,096 messages without an answer, the most that any session may have.
    session_unanswered_full as limit_hits { limit = "session_unanswered" },
    /// Refused streams that are not kept in order because the shard remembers as many as it may.
    refusals_full as limit_hits { limit = "refusal_count" },
    /// Bytes of buffers that edges hold now.
    edge_bytes_now,
    /// Phones whose keys are kept expanded.
    ready_keys_now,
    /// Accounts that had traffic and do not rest yet.
    stirred_now,
    /// Messages without a final answer now, by the memory that is kept for them.
    unanswered_now,
    /// Acknowledgements of what was never delivered.
    bad_acknowledgements,
    /// Completions of a socket that is gone, recognised by their generation.
    stale_completions,
}

#[cfg(test)]
// The macro makes public structs, here where nobody sees them.
#[allow(unreachable_pub)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use std::collections::{BTreeMap, BTreeSet};

    crate::define_counters! {
        /// Lines of each form.
        pub struct Few;

        /// Bare.
        plain,
        /// A level.
        level_now,
        /// Renamed.
        left as right,
        /// Of
        /// a family.
        first_now as both { half = "a" },
        /// The shard that is worst off.
        least_now => min,
    }

    #[test]
    fn each_form_of_a_line() {
        let mut found = Vec::new();
        Few { plain: 1, level_now: 2, left: 3, first_now: 4, least_now: 5 }
            .each(|metric, value| found.push((metric, value)));
        let metric = Metric::new;
        assert_eq!(
            found,
            [
                (metric("plain", "Bare.", None, &[]), 1),
                (metric("level_now", "A level.", Some("level"), &[]), 2),
                (metric("left", "Renamed.", Some("right"), &[]), 3),
                (metric("first_now", "Of a family.", Some("both"), &[("half", "a")]), 4),
                (metric("least_now", "The shard that is worst off.", Some("least"), &[]), 5),
            ]
        );
        assert!(found[1].0.is_gauge && !found[0].0.is_gauge);
        let shards =
            [(1, 9), (2, 7), (4, 8)].map(|(plain, least_now)| Few { plain, least_now, ..Few::default() });
        assert_eq!(Few::total(&shards), Few { plain: 7, least_now: 7, ..Few::default() });
        assert_eq!(Few::total(&shards[..1]), shards[0]);
        assert_eq!(Few::total(&[]), Few::default());
        let shards = [86_400, 600].map(|ids_reach_s_now| Counters { ids_reach_s_now, ..Counters::default() });
        assert_eq!(Counters::total(&shards).ids_reach_s_now, 600, "the shard that forgets first");
    }

    #[test]
    fn names_are_one_metric_each_or_say_what_they_share() {
        let mut families: BTreeMap<&str, Vec<Metric>> = BTreeMap::new();
        Counters::default().each(|metric, _| families.entry(metric.family).or_default().push(metric));
        for (family, members) in families {
            let labels: BTreeSet<_> = members.iter().map(|metric| metric.labels).collect();
            assert_eq!(labels.len(), members.len(), "{family}: a label twice");
            assert!(members.iter().all(|metric| metric.is_gauge == members[0].is_gauge), "{family}");
            let has_help = FAMILIES.iter().any(|(name, _)| *name == family);
            assert_eq!(
                has_help,
                !members[0].labels.is_empty(),
                "{family}: help in FAMILIES if it has labels"
            );
            assert!(members.iter().all(|metric| !metric.help.is_empty()), "{family}: no help");
        }
    }
}
