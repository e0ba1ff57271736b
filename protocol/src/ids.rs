//! The identifiers that every part of Tern shares, as newtypes.

/// Bits of an [`AccountId`] that number accounts inside their partition.
const ACCOUNT_COUNTER_BITS: u32 = 48;

/// One user, for ever: never reused, and its partition is fixed when it is made.
///
/// The high 16 bits are the partition, the low 48 bits count accounts inside it. Zero is never given out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AccountId(pub u64);

impl AccountId {
    /// Builds the id of account number `counter` (from 1) of `partition`.
    ///
    /// # Panics
    /// If `counter` is zero or does not fit 48 bits: the caller counts, and 2^48 accounts in one partition is a bug.
    #[must_use]
    pub fn new(partition: PartitionId, counter: u64) -> Self {
        assert!(counter > 0 && counter < 1 << ACCOUNT_COUNTER_BITS, "account counter out of range");
        Self(u64::from(partition.0) << ACCOUNT_COUNTER_BITS | counter)
    }

    /// The partition that this account belongs to.
    #[must_use]
    pub const fn partition(self) -> PartitionId {
        PartitionId((self.0 >> ACCOUNT_COUNTER_BITS) as u16)
    }

    /// The account's number inside its partition.
    #[must_use]
    pub const fn counter(self) -> u64 {
        self.0 & ((1 << ACCOUNT_COUNTER_BITS) - 1)
    }
}

/// The unit of ownership, replication and moving.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// The partition whose directory holds `name`, of `count` partitions (FNV-1a, then scaled by multiplication).
    ///
    /// Part of the stored format: the directory entry of a name is looked for here for ever.
    #[must_use]
    pub fn of_name(name: &str, count: u16) -> Self {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // FNV's high bits are weak for short names; one round of mixing spreads them before they are scaled.
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(((u128::from(hash) * u128::from(count)) >> 64) as u16)
    }
}

/// One client of an account that acknowledges for itself; numbered from 1 inside its account, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceId(pub u16);

impl DeviceId {
    /// The pseudo device of each mailbox whose floor says up to where the owed ticks have been confirmed.
    pub const TICKS: Self = Self(u16::MAX);
}

/// A message's name, chosen by its sender and the same on every retry; unique among that sender's messages.
///
/// The high 32 bits are the Unix time in seconds when the sender made it, the low 32 bits are the sender's choice
/// (a counter or random). The time lets a home refuse a retry that is older than what it remembers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId(pub u64);

impl MessageId {
    /// Builds an id from the sender's clock and its own choice of low bits.
    #[must_use]
    pub const fn new(unix_s: u32, low: u32) -> Self {
        Self((unix_s as u64) << 32 | low as u64)
    }

    /// When the sender made it, in seconds of Unix time by the sender's clock.
    #[must_use]
    pub const fn unix_s(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A place in a mailbox's order: `boot epoch << 40 | counter`. Never repeats, also across crashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seq(pub u64);

impl Seq {
    /// Bits for the counter inside one boot epoch.
    pub const COUNTER_BITS: u32 = 40;

    /// The place before the first one of `epoch`.
    #[must_use]
    pub const fn start_of_epoch(epoch: u32) -> Self {
        // 24 bits of epoch: sixteen million restarts. A start with new damage that may hide others uses up to two thousand.
        assert!(epoch < 1 << 24, "boot epoch out of range");
        Self((epoch as u64) << Self::COUNTER_BITS)
    }

    /// The next place.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A shard of this node, numbered from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_id_keeps_partition_and_counter() {
        let id = AccountId::new(PartitionId(4095), 77);
        assert_eq!(id.partition(), PartitionId(4095));
        assert_eq!(id.counter(), 77);
    }

    #[test]
    fn names_spread_over_partitions() {
        let mut counts = [0_u32; 64];
        for n in 0..64_000 {
            counts[usize::from(PartitionId::of_name(&std::format!("load-{n}"), 64).0)] += 1;
        }
        assert!(counts.iter().all(|&c| (800..1200).contains(&c)), "uneven: {counts:?}");
    }
}
