//! What changed between two samples.

use super::sample::{Counters, Hottest, Latency, Mailbox, Sample};
use tern_admin::Percentiles;

/// What is shown.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) version: String,
    pub(super) phone: String,
    pub(super) uptime_s: u64,
    pub(super) trouble: Option<String>,
    pub(super) rss_bytes: u64,
    /// Processor time over time: 1 is one hardware thread.
    pub(super) cpu: f64,
    /// Levels of all shards.
    pub(super) levels: Counters,
    /// Counts of all shards, each second.
    pub(super) rates: Rates,
    /// Hits of each limit, each second.
    pub(super) limits: Rates,
    pub(super) sent: Percentiles,
    pub(super) commit: Percentiles,
    pub(super) shards: Vec<ShardView>,
    /// The fullest mailboxes of the node.
    pub(super) hottest: Vec<HotView>,
    /// The accounts that get most: name, shard, messages a second.
    pub(super) busiest: Vec<(String, u16, u64)>,
    /// Whether all accounts were looked at for the fullest.
    pub(super) hottest_complete: bool,
}

/// One shard.
#[derive(Clone, Debug)]
pub(super) struct ShardView {
    pub(super) sessions: u64,
    pub(super) waiting: u64,
    pub(super) mesh_depth_bytes: u64,
    /// Part of the time that it worked.
    pub(super) busy: f64,
    pub(super) rates: Rates,
    pub(super) sent: Percentiles,
    pub(super) turn: Percentiles,
}

/// A mailbox that holds much.
#[derive(Clone, Debug)]
pub(super) struct HotView {
    pub(super) name: String,
    pub(super) shard: u16,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) online: bool,
}

/// What counters gained, each second.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    gained: Counters,
    seconds: f64,
}

impl Rates {
    fn between(before: Option<&Counters>, after: &Counters, seconds: f64) -> Self {
        let gain = |(name, value): (&String, &u64)| {
            let old = before.map_or(*value, |before| before.get(name).copied().unwrap_or(0));
            (name.clone(), value.saturating_sub(old))
        };
        Self { gained: after.iter().map(gain).collect(), seconds }
    }

    /// Leaves some out.
    fn without(mut self, names: &[String]) -> Self {
        self.gained.retain(|name, _| !names.contains(name));
        self
    }

    /// Of all counters; and which one gained most, if any gained, with what it gained.
    pub(super) fn sum_and_most(&self) -> (f64, Option<(&str, f64)>) {
        let sum: u64 = self.gained.values().sum();
        let most = self.gained.iter().filter(|(_, gained)| **gained > 0).max_by_key(|(_, gained)| **gained);
        (sum as f64 / self.seconds, most.map(|(name, &gained)| (&**name, gained as f64 / self.seconds)))
    }

    /// Of one counter.
    pub(super) fn of(&self, name: &str) -> f64 {
        self.gained.get(name).map_or(0.0, |&gained| gained as f64 / self.seconds)
    }
}

impl View {
    /// Of two samples; without an earlier one of the same run there are levels and no rates.
    pub(super) fn between(before: Option<&Sample>, after: &Sample) -> Self {
        let before = before.filter(|before| before.status.boot_id == after.status.boot_id);
        let seconds = before.map_or(1.0, |before| (after.at - before.at).as_secs_f64().max(0.001));
        let (status, hottest) = (&after.status, after.hottest.as_deref().unwrap_or_default());
        let bounds = &status.latency_bounds_ns;
        let cpu_us = |sample: &Sample| sample.process.cpu_user_us + sample.process.cpu_system_us;
        let shards: Vec<ShardView> =
            (0..status.shards.len()).map(|index| shard_view(before, after, index, seconds)).collect();
        let all = |pick: fn(&Latency) -> &Vec<u64>| {
            let mut sum = vec![0; bounds.len() + 1];
            for (index, shard) in status.shards.iter().enumerate() {
                let old = before.and_then(|before| before.status.shards.get(index));
                let gained = gained(old.map(|old| pick(&old.latency)), pick(&shard.latency));
                sum.iter_mut().zip(gained).for_each(|(sum, count)| *sum += count);
            }
            Percentiles::of(bounds, &sum)
        };
        Self {
            version: status.version.clone(),
            phone: status.phone.clone(),
            uptime_s: status.uptime_s,
            trouble: status.trouble.clone(),
            rss_bytes: after.process.rss_bytes,
            cpu: before
                .map_or(0.0, |before| cpu_us(after).saturating_sub(cpu_us(before)) as f64 / 1e6 / seconds),
            levels: status.totals.clone(),
            rates: Rates::between(before.map(|before| &before.status.totals), &status.totals, seconds),
            limits: Rates::between(
                before.map(|before| &before.status.limit_hits),
                &status.limit_hits,
                seconds,
            )
            .without(&status.everyday_limits),
            sent: all(|latency| &latency.sent),
            commit: all(|latency| &latency.commit),
            shards,
            hottest: fullest(hottest),
            busiest: busiest(hottest),
            hottest_complete: after.hottest.is_some() && hottest.iter().all(|shard| shard.complete),
        }
    }

    /// A level of all shards.
    pub(super) fn level(&self, name: &str) -> u64 {
        self.levels.get(name).copied().unwrap_or(0)
    }
}

fn shard_view(before: Option<&Sample>, after: &Sample, index: usize, seconds: f64) -> ShardView {
    let new = &after.status.shards[index];
    let old = before.and_then(|before| before.status.shards.get(index));
    let bounds = &after.status.latency_bounds_ns;
    let level = |counters: &Counters, name: &str| counters.get(name).copied().unwrap_or(0);
    let busy_ns = old.map_or(0, |old| new.latency.turn_sum_ns.saturating_sub(old.latency.turn_sum_ns));
    ShardView {
        sessions: level(&new.counters, "sessions_now"),
        waiting: level(&new.counters, "mail_count_now"),
        mesh_depth_bytes: level(&new.thread, "mesh_depth_bytes_now"),
        busy: busy_ns as f64 / 1e9 / seconds,
        rates: Rates::between(old.map(|old| &old.counters), &new.counters, seconds),
        sent: Percentiles::of(bounds, &gained(old.map(|old| &old.latency.sent), &new.latency.sent)),
        turn: Percentiles::of(bounds, &gained(old.map(|old| &old.latency.turn), &new.latency.turn)),
    }
}

/// What the buckets gained; nothing without an earlier sample.
fn gained(before: Option<&Vec<u64>>, after: &[u64]) -> Vec<u64> {
    tern_admin::gained(before.map_or(after, Vec::as_slice), after)
}

fn busiest(shards: &[Hottest]) -> Vec<(String, u16, u64)> {
    let of = |shard: &Hottest| {
        let number = shard.shard;
        let busiest = shard.busiest.clone().into_iter();
        busiest.map(move |busy| (busy.name, number, busy.messages_per_s)).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = shards.iter().flat_map(of).collect();
    all.sort_by_key(|(.., messages_per_s)| std::cmp::Reverse(*messages_per_s));
    all
}

fn fullest(shards: &[Hottest]) -> Vec<HotView> {
    let of = |shard: &Hottest| {
        let number = shard.shard;
        let view = move |mailbox: Mailbox| HotView {
            shard: number,
            name: mailbox.name,
            entries: mailbox.entries,
            bytes: mailbox.bytes,
            online: mailbox.online,
        };
        shard.mailboxes.clone().into_iter().map(view).collect::<Vec<_>>()
    };
    let mut all: Vec<HotView> = shards.iter().flat_map(of).collect();
    all.sort_by_key(|mailbox| std::cmp::Reverse((mailbox.entries, mailbox.bytes)));
    all
}
