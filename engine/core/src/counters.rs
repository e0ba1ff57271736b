//! What a shard counts. Read by the control plane; adding one here makes it appear in `/metrics`.

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident),* $(,)?) => {
        /// Counts since boot, and gauges where the text says `now`.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct Counters { $($(#[doc = $doc])* pub $name: u64),* }

        impl Counters {
            /// Name, help text and value of each, in order.
            pub fn each(&self, mut visit: impl FnMut(&'static str, &'static str, u64)) {
                $(visit(stringify!($name), concat!($($doc),*), self.$name);)*
            }

            /// Adds the counts of another shard.
            pub fn add(&mut self, other: &Self) { $(self.$name += other.$name;)* }
        }
    };
}

counters! {
    /// Sockets accepted.
    accepted,
    /// Sockets refused: the shard is full or draining.
    refused_connections,
    /// Sockets of this shard now.
    connections_now,
    /// Sessions now.
    sessions_now,
    /// Logins that reached their first transport frame.
    logins,
    /// Logins refused: unknown account, wrong key, replay.
    logins_refused,
    /// Logins by resume ticket, among the logins.
    logins_by_ticket,
    /// Resume tickets refused: forged, used up, too old, or of a revoked device.
    tickets_refused,
    /// Devices added by phones.
    devices_added,
    /// Devices revoked by phones.
    devices_revoked,
    /// Presence and typing dropped for want of room.
    ephemeral_dropped,
    /// Sessions replaced by a newer login of the same device.
    sessions_replaced,
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
    /// Retries older than the dedup horizon.
    refused_expired,
    /// Messages for no account.
    refused_unknown,
    /// Messages that expired unfetched.
    expired,
    /// Ticks of kind sent.
    ticks_sent,
    /// Ticks of kind delivered, confirmed by the sender's home.
    ticks_delivered,
    /// Owed ticks that were sent again.
    ticks_retried,
    /// Messages waiting now.
    mail_count_now,
    /// Bytes of waiting mail in memory now.
    mail_bytes_now,
    /// Group commits.
    log_commits,
    /// Bytes written to the log, padding included.
    log_bytes_written,
    /// Log segments free for use now.
    segments_free_now,
    /// Log segments in use now.
    segments_used_now,
    /// Envelopes sent to other shards.
    mesh_out,
    /// Envelopes that came from other shards.
    mesh_in,
    /// Control envelopes dropped because a lane's backlog was full.
    mesh_dropped,
    /// Connections ended for a protocol error.
    protocol_errors,
    /// Connections ended because a deadline passed.
    timeouts,
    /// Connections ended because their phone did not read.
    slow_readers,
    /// Connections closed at once because their address connects too often.
    refused_address_connects,
    /// Connections told to come back because their address begins too many handshakes.
    refused_address_handshakes,
    /// Addresses forgiven early because the table of addresses was full.
    addresses_forgotten,
    /// Connections closed because what should be a PROXY header is none.
    proxy_errors,
    /// Handshakes that waited for a later turn.
    deferred_handshakes,
    /// Connections told to come back because too many handshakes waited.
    refused_handshakes,
    /// Handshakes that wait now.
    deferred_now,
    /// Handshakes that failed: not a Noise message for this server, a replayed third message, a malformed login.
    handshakes_failed,
    /// Connections ended because they sent too many frames or bytes.
    floods,
    /// Messages refused with busy because their account sends too many.
    refused_account_rate,
    /// Connections ended because the shard's memory for edges or sessions was used up.
    refused_memory,
    /// Bytes of buffers that edges hold now.
    edge_bytes_now,
    /// Messages without a final answer now, by the memory that is kept for them.
    unanswered_now,
    /// Acknowledgements of what was never delivered.
    bad_acknowledgements,
    /// Completions of a socket that is gone, recognised by their generation.
    stale_completions,
}
