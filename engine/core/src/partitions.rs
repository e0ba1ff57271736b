//! The table that says which shard owns a partition. A table, never arithmetic: partitions will move.

use alloc::vec::Vec;
use tern_protocol::ids::{AccountId, PartitionId, ShardId};

/// Partition to shard, for one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionMap {
    shards: Vec<ShardId>,
    shard_count: u16,
}

impl PartitionMap {
    /// Contiguous, equal ranges.
    ///
    /// # Panics
    /// If a count is zero, or there are fewer partitions than shards: boot validates them.
    #[must_use]
    pub fn even(partition_count: u16, shard_count: u16) -> Self {
        assert!(shard_count > 0 && partition_count >= shard_count, "a shard would own no partition");
        let shards = (0..u32::from(partition_count))
            .map(|p| ShardId((p * u32::from(shard_count) / u32::from(partition_count)) as u16))
            .collect();
        Self { shards, shard_count }
    }

    /// The owner of a partition; `None` for one that does not exist.
    #[must_use]
    pub fn owner(&self, partition: PartitionId) -> Option<ShardId> {
        self.shards.get(usize::from(partition.0)).copied()
    }

    /// The owner of a partition.
    ///
    /// # Panics
    /// If it does not exist.
    #[must_use]
    pub fn shard_of(&self, partition: PartitionId) -> ShardId {
        self.shards[usize::from(partition.0)]
    }

    /// The home of the name: where its directory entry is.
    #[must_use]
    pub fn home_of_name(&self, name: &str) -> ShardId {
        self.shard_of(PartitionId::of_name(name, self.partition_count()))
    }

    /// The home of an account; `None` where its id names no partition of this map.
    #[must_use]
    pub fn home_of(&self, account: AccountId) -> Option<ShardId> {
        self.owner(account.partition())
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> u16 {
        self.shards.len() as u16
    }

    /// How many shards there are.
    #[must_use]
    pub const fn shard_count(&self) -> u16 {
        self.shard_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_owns_its_share() {
        let map = PartitionMap::even(4096, 60);
        let mut counts = [0; 60];
        for partition in 0..4096 {
            counts[usize::from(map.shard_of(PartitionId(partition)).0)] += 1;
        }
        assert!(counts.iter().all(|&count| (68..=69).contains(&count)), "uneven: {counts:?}");
        assert_eq!(map.owner(PartitionId(4096)), None);
    }
}
