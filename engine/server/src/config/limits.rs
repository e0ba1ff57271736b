//! The `[limits]` table: every field of [`Limits`], each optional.

use serde::{Deserialize, Serialize};
use tern_core::limits::{LimitError, Limits};

macro_rules! limits_table {
    ($($name:ident: $kind:ty),* $(,)?) => {
        /// `[limits]` of the file. A name that is not a limit is an error, and so is a limit that this list forgets:
        /// `over_defaults` names every field of [`Limits`].
        #[derive(Clone, Default, PartialEq, Debug, Deserialize, Serialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct LimitsTable { $($name: Option<$kind>),* }

        impl LimitsTable {
            /// The given values over the defaults; not validated.
            fn over_defaults(&self) -> Limits {
                let default = Limits::default();
                Limits { $($name: self.$name.unwrap_or(default.$name)),* }
            }

            /// Whether the file says this limit.
            pub(crate) fn names(&self, name: &str) -> bool {
                match name { $(stringify!($name) => self.$name.is_some(),)* _ => false }
            }

            /// Each limit's name and value; whether there is one at all, for the only one that is no number.
            pub(crate) fn each(limits: &Limits, mut visit: impl FnMut(&'static str, u64)) {
                $(visit(stringify!($name), limits.$name as u64);)*
            }

            /// A table that says every limit.
            pub(super) fn of(limits: &Limits) -> Self {
                Self { $($name: Some(limits.$name)),* }
            }

            /// The value that the file gave for a limit, for messages.
            pub(super) fn value_of(limits: &Limits, name: &str) -> String {
                match name { $(stringify!($name) => limits.$name.to_string(),)* _ => String::from("?") }
            }
        }
    };
}

impl LimitsTable {
    /// The given values over the defaults; not validated. What grows with `connection_count` and is not given is at least
    /// what the connections need.
    pub(crate) fn resolve(&self) -> Limits {
        let mut limits = self.over_defaults();
        if self.edge_bytes.is_none() {
            limits.edge_bytes = limits.edge_bytes.max(limits.edge_bytes_min());
        }
        if self.unanswered_count.is_none() {
            limits.unanswered_count = limits.unanswered_count.max(limits.unanswered_count_min());
        }
        limits
    }
}

/// What is allowed for a limit that contradicts another; a number, where it has to be reckoned from that one.
pub(super) fn allowed(limits: &Limits, error: &LimitError) -> String {
    let least = match error.name {
        "edge_bytes" => limits.edge_bytes_min() as u64,
        "unanswered_count" => limits.unanswered_count_min().into(),
        _ => return error.allowed.into(),
    };
    format!("{} = {least}", error.allowed)
}

limits_table! {
    body_bytes: usize,
    window_count: u16,
    delivery_count: u32,
    mailbox_count: u32,
    mailbox_bytes: u64,
    mail_bytes: usize,
    connection_count: u32,
    login_ms: u64,
    idle_ms: u64,
    hand_over_ms: u64,
    edge_backlog_bytes: usize,
    step_budget: u32,
    handshakes_per_turn: u32,
    lane_bytes: usize,
    lane_backlog_bytes: usize,
    commit_bytes: usize,
    write_back_ms: u64,
    floor_delay_ms: u64,
    dedup_horizon_ms: u64,
    dedup_count: usize,
    expiry_ms: u64,
    tick_retry_ms: u64,
    busy_ms: u32,
    account_count: u32,
    ticket_ms: u64,
    segment_count: u32,
    connection_frames_per_s: u32,
    connection_frames_burst: u32,
    connection_bytes_per_s: u32,
    connection_bytes_burst: u32,
    account_frames_per_s: u32,
    account_frames_burst: u32,
    account_messages_per_s: u32,
    account_messages_burst: u32,
    account_asks_per_s: u32,
    account_asks_burst: u32,
    account_devices_per_h: u32,
    account_devices_burst: u32,
    address_connections: u32,
    address_half_open: u32,
    address_connects_per_s: u32,
    address_connects_burst: u32,
    address_handshakes_per_s: u32,
    address_handshakes_burst: u32,
    address_registrations_per_h: u32,
    address_registrations_burst: u32,
    address_bytes_per_s: u32,
    address_bytes_burst: u32,
    address_frames_per_s: u32,
    address_frames_burst: u32,
    address_prefix_bits: u8,
    address_count: u32,
    limit_loopback: bool,
    deferred_count: u32,
    hand_over_count: u32,
    refusal_count: u32,
    watch_count: u32,
    edge_bytes: usize,
    ready_key_count: u32,
    unanswered_count: u32,
}
