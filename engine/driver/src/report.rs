//! What a shard's thread tells of itself and of its shard: published by the thread, read by the control plane.

use crate::depths::Depths;
use crate::mesh::MeshEnd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use tern_core::counters::{Counters, EVERYDAY_LIMITS};
use tern_core::define_counters;
use tern_core::histogram::Histogram;
use tern_core::measures::Measures;
use tern_core::shard::Shard;
use tern_ring::Ring;
use tracing::warn;

/// How often a shard publishes its report.
const PUBLISH_NS: u64 = 50_000_000;
/// How often a shard complains of its clients at most.
const COMPLAIN_NS: u64 = 1_000_000_000;

define_counters! {
    /// Counts of a shard's thread since boot, and gauges where the name ends in `_now`.
    pub struct DriverCounters;

    /// System calls that submit and wait, one a turn.
    ring_enters,
    /// Operations that the kernel took.
    ring_submissions,
    /// Completions that were looked at.
    ring_completions,
    /// Receives that found no free buffer and waited for one (ENOBUFS).
    ring_buffer_shortages,
    /// Times that the completion queue was found overflown.
    ring_cq_overflows,
    /// Sends of which the kernel took only a part at first.
    ring_short_sends,
    /// Completions of a slot's earlier socket.
    ring_stale_completions,
    /// Receives that the ring armed again by itself: after a shortage, or after the kernel ended them.
    ring_rearms,
    /// Idle sockets that are parked.
    ring_parked_now as ring_sockets_parked,
    /// Descriptor slots in use.
    ring_slots_now as ring_slots_used,
    /// Descriptor slots that the ring has: most sockets that it can hold.
    ring_slot_count_now as ring_slots,
    /// Buffers for received bytes.
    ring_buffers_now,
    /// Fewest buffers that a turn of the last report left; none, if a receive found none.
    ring_buffers_free_now,
    /// Bytes that wait in the lanes from other shards.
    mesh_depth_bytes_now,
    /// Times that the door was shut for a moment: the system refused to accept, or all places were taken.
    accept_pauses,
    /// Requests of the control plane.
    control_requests,
}

/// What a shard's thread publishes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ShardReport {
    /// What the shard counted.
    pub counters: Counters,
    /// What it measured.
    pub measures: Measures,
    /// What its thread counted.
    pub driver: DriverCounters,
    /// How long each turn took, from the end of its wait to its own end.
    pub turn: Histogram,
    /// How much the turns found that found something in the lanes from other shards.
    pub mesh_depth: Depths,
}

/// Where a shard's thread publishes: when its next turn is due, and now and then its report.
#[derive(Debug, Default)]
pub(crate) struct Board {
    report: Mutex<ShardReport>,
    /// When the next turn is due at the latest, nanoseconds since the node's start.
    due_at_ns: AtomicU64,
}

impl Board {
    /// The last report.
    pub(crate) fn report(&self) -> ShardReport {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of the last report: a third of it.
    pub(crate) fn counters(&self) -> Counters {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).counters
    }

    /// When the next turn is due at the latest, nanoseconds since the node's start.
    pub(crate) fn due_at_ns(&self) -> u64 {
        self.due_at_ns.load(Ordering::Relaxed)
    }

    /// The thread sleeps until then at most, or has begun its turn then.
    pub(crate) fn turn_is_due(&self, due_at_ns: u64) {
        self.due_at_ns.store(due_at_ns, Ordering::Relaxed);
    }
}

/// The thread's side of its report.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    pub(crate) turn: Histogram,
    pub(crate) accept_pauses: u64,
    pub(crate) control_requests: u64,
    mesh_depth: Depths,
    /// Whether something may have happened since the last report.
    is_late: bool,
    /// None before the first one, which comes with the first turn: who asks a node that has just begun finds something.
    published_at_ns: Option<u64>,
    complained_at_ns: u64,
    complained: Counters,
}

impl Reporter {
    /// When the next report is due, if there is something to tell.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.published_at_ns.filter(|_| self.is_late).map(|at_ns| at_ns + PUBLISH_NS)
    }

    /// A turn found so many bytes in the lanes from other shards.
    pub(crate) fn mesh_depth(&mut self, bytes: usize) {
        if bytes > 0 {
            self.mesh_depth.record(bytes as u64);
        }
    }

    /// A turn ended: publishes, unless the last report is young. Costs a comparison then, and a copy of some two kilobytes
    /// at most twenty times a second. Never waits for a reader: the next report will do for it.
    pub(crate) fn turn_ended(
        &mut self,
        now_ns: u64,
        shard: &Shard,
        mesh: &MeshEnd,
        ring: &mut Ring,
        to: &Board,
    ) {
        self.is_late = self.published_at_ns.is_some_and(|at_ns| now_ns < at_ns.saturating_add(PUBLISH_NS));
        if self.is_late {
            return;
        }
        self.published_at_ns = Some(now_ns);
        let report = self.report(shard, mesh, ring);
        match to.report.try_lock() {
            Ok(mut published) => *published = report,
            Err(TryLockError::Poisoned(published)) => *published.into_inner() = report,
            Err(TryLockError::WouldBlock) => self.is_late = true,
        }
        self.complain(now_ns, shard.shard().0, &report.counters);
    }

    /// The thread ends: its last report.
    pub(crate) fn ended(&mut self, shard: &Shard, mesh: &MeshEnd, ring: &mut Ring, to: &Board) {
        *to.report.lock().unwrap_or_else(PoisonError::into_inner) = self.report(shard, mesh, ring);
    }

    fn report(&self, shard: &Shard, mesh: &MeshEnd, ring: &mut Ring) -> ShardReport {
        let stats = ring.take_stats();
        let driver = DriverCounters {
            ring_enters: stats.enter_count,
            ring_submissions: stats.submitted_count,
            ring_completions: stats.completed_count,
            ring_buffer_shortages: stats.starved_count,
            ring_cq_overflows: stats.overflow_count,
            ring_short_sends: stats.short_send_count,
            ring_stale_completions: stats.stale_count,
            ring_rearms: stats.rearm_count,
            ring_parked_now: u64::from(stats.parked_now),
            ring_slots_now: u64::from(stats.slots_used_now),
            ring_slot_count_now: ring.slot_count() as u64,
            ring_buffers_now: u64::from(stats.buffer_count),
            ring_buffers_free_now: u64::from(stats.buffers_free_least),
            mesh_depth_bytes_now: mesh.waiting_bytes() as u64,
            accept_pauses: self.accept_pauses,
            control_requests: self.control_requests,
        };
        let (counters, measures) = (*shard.counters(), shard.measures());
        ShardReport { counters, measures, driver, turn: self.turn, mesh_depth: self.mesh_depth }
    }

    /// Tells the operator of clients that misbehave and of what was dropped: once a second, however many there are.
    fn complain(&mut self, now_ns: u64, shard: u16, counters: &Counters) {
        if now_ns < self.complained_at_ns.saturating_add(COMPLAIN_NS) {
            return;
        }
        let before = std::mem::replace(&mut self.complained, *counters);
        self.complained_at_ns = now_ns;
        let protocol_errors = counters.protocol_errors - before.protocol_errors;
        if protocol_errors > 0 {
            warn!(shard, count = protocol_errors, "connections ended for protocol errors");
        }
        if counters.clock_steps > before.clock_steps {
            let advice =
                "the shard goes by its own clock until that one is right again or has stood for ten minutes";
            warn!(shard, "the wall clock has stepped: {advice}; is time synchronisation running?");
        }
        if let Some(limits) = limits_hit(&before, counters) {
            warn!(shard, "limits hit: {limits}");
        }
    }
}

/// Which limits something ran into since `before`, and how often, as `mail_bytes 12 times, account_count 3 times`.
fn limits_hit(before: &Counters, now: &Counters) -> Option<String> {
    let mut old_counts = Vec::new();
    before.each(|_, count| old_counts.push(count));
    let (mut old_counts, mut hit) = (old_counts.into_iter(), Vec::new());
    now.each(|metric, count| {
        let gained = count.saturating_sub(old_counts.next().unwrap_or(0));
        if let ("limit_hits", [(_, limit)]) = (metric.family, metric.labels)
            && gained > 0
            && !EVERYDAY_LIMITS.contains(limit)
        {
            hit.push(format!("{limit} {gained} times"));
        }
    });
    (!hit.is_empty()).then(|| hit.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_were_hit_are_named_and_counted_since_the_last_word() {
        let before = Counters { memory_full: 5, accounts_full: 1, logins: 3, ..Counters::default() };
        assert_eq!(limits_hit(&before, &before), None);
        let everyday = Counters { deferred_handshakes: 9, idle_timeouts: 9, logins: 9, ..before };
        assert_eq!(limits_hit(&before, &everyday), None);
        let now = Counters { memory_full: 17, accounts_full: 2, segments_full: 3, drive_full: 4, ..before };
        let text = limits_hit(&before, &now).unwrap();
        for part in ["mail_bytes 12 times", "account_count 1 times", "segment_count 3 times", "drive 4 times"]
        {
            assert!(text.split(", ").any(|found| found == part), "no {part:?} in {text}");
        }
    }
}
