//! What an envelope takes of its lane: its own bytes, or, if it is large, a place for a marker while it travels boxed.
//!
//! Lanes can be much smaller than the largest envelope that way: a node of many shards has thousands of them. What is
//! boxed at a time is limited for each sending shard.

/// Smallest lane, bytes.
pub const LANE_BYTES_MIN: usize = 512;
/// What a boxed envelope takes of its lane, bytes. Every envelope that travels boxed is larger.
pub const MARKER_BYTES: usize = LANE_BYTES_MIN / 4;
/// Bytes of all envelopes that are boxed at a time in a node.
pub const BOXED_BYTES_MAX: usize = 8 << 20;

/// Bytes of all envelopes that wait in a node's shards for a turn's end or for room; and again in the copy that a turn
/// hands to its driver.
const WAITING_BYTES_MAX: usize = 6 << 20;

/// Whether an envelope travels boxed: those above a quarter of their lane do.
#[must_use]
pub const fn is_boxed(envelope_bytes: usize, lane_bytes: usize) -> bool {
    envelope_bytes > lane_bytes / 4
}

/// What an envelope takes of its lane's room.
#[must_use]
pub const fn cost_bytes(envelope_bytes: usize, lane_bytes: usize) -> usize {
    if is_boxed(envelope_bytes, lane_bytes) { MARKER_BYTES } else { envelope_bytes }
}

/// Bytes of envelopes that one shard may have boxed at a time: its share, and at least the largest envelope.
#[must_use]
pub fn boxed_bytes_max(shard_count: u16, body_bytes: usize) -> usize {
    (BOXED_BYTES_MAX / usize::from(shard_count.max(1))).max(body_bytes + 1024)
}

/// Bytes of envelopes to other shards that may wait in one shard: its share, and at least twice the largest envelope,
/// since bulk has half.
#[must_use]
pub fn waiting_bytes_max(shard_count: u16, body_bytes: usize) -> usize {
    (WAITING_BYTES_MAX / usize::from(shard_count.max(1))).max(2 * (body_bytes + 1024))
}
