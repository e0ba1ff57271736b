//! Deliberate bugs, to prove that the simulator finds them. Compiled only with the feature `bugs`, which no shipped
//! binary enables.

/// Which bugs are on.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Bugs {
    /// The `sent` tick goes out at the append.
    pub tick_before_commit: bool,
    /// After a restart, places go on in the old epoch behind the last record.
    pub sequence_reused: bool,
    /// Recovery does not read floors.
    pub floor_forgotten: bool,
    /// A step of the machine's clock is taken at its word.
    pub clock_believed: bool,
    /// What a clock that was ahead has dropped stays old when it is put right.
    pub dropped_stays: bool,
    /// After a restart each shard goes by the newest message of its own log.
    pub clocks_apart: bool,
    /// Recovery does not remember message ids.
    pub dedup_forgotten: bool,
    /// A hand-over does not carry the bytes that were read too far.
    pub leftover_dropped: bool,
    /// A refused message does not stop the ones behind it.
    pub busy_breaks_order: bool,
    /// Completions are taken for the slot's present socket.
    pub generation_ignored: bool,
    /// A first message alone replaces a session.
    pub replay_replaces: bool,
    /// A first message alone makes an account.
    pub replay_registers: bool,
    /// Who comes by a ticket is not told of a new server key when the previous one has ended.
    pub key_untold: bool,
    /// A device that is to be revoked is let go of when somebody asks, not when that is on stable storage.
    pub revoked_too_early: bool,
    /// A segment whose live records are being written elsewhere is overwritten along with the copies, not behind them.
    pub rewritten_too_early: bool,
    /// Recovery takes mail that was written elsewhere twice.
    pub rewritten_counts_twice: bool,
    /// Who asks to remove an account is answered at once.
    pub removing_told_early: bool,
    /// Who asks to revoke a device is answered at once.
    pub revoking_told_early: bool,
    /// The timer of an edge that ends is not cancelled.
    pub timer_kept: bool,
    /// The buffers of an edge that ends stay counted.
    pub buffers_kept: bool,
    /// Large envelopes that were taken stay counted as on their way.
    pub boxes_kept: bool,
    /// The share of a session that ends stays counted.
    pub answers_kept: bool,
    /// An address goes on holding the connections that have ended.
    pub addresses_kept: bool,
    /// An address goes on holding as half open those that have logged in.
    pub half_open_kept: bool,
    /// Watches that have ended stay counted.
    pub watches_kept: bool,
    /// Mail expires in a quarter of the time.
    pub expires_early: bool,
    /// Messages that are older than what is remembered are taken.
    pub old_taken_for_new: bool,
    /// What a device has acknowledged stays in its mailbox, and each of its sessions begins there.
    pub acknowledged_stays: bool,
    /// The idle deadline of a phone comes although it was heard.
    pub timer_not_reset: bool,
    /// Who is told two things in one turn counts as one who does not read.
    pub readers_hurried: bool,
    /// A start forgets the copies that wait for the sender's other devices.
    pub copy_lost: bool,
    /// Who says that a message was read is told that the tick is safe when it is appended.
    pub read_lost: bool,
    /// What a device has acknowledged counts as read.
    pub read_told_early: bool,
    /// The `delivered` tick goes out at the append.
    pub delivered_early: bool,
    /// A phone is told that its mailbox was empty before anything of it is sent.
    pub drained_early: bool,
    /// A device is given all that there is, however little it has acknowledged.
    pub window_ignored: bool,
    /// A start reads the log and serves, and does not sync it. Of the simulated driver.
    pub starts_unsynced: bool,
    /// A start syncs the log, and reads what is in the cache. Likewise.
    pub cache_believed: bool,
}
