//! Which edges keep their keys expanded: those that were heard twice in a while, as many as there may be.
//!
//! Expanding a key costs more than encrypting a short message with it, and expanded keys take more memory than all the
//! rest of a phone. So an active phone keeps them, and one that fell silent gives them back within a minute or so.

use crate::edge::State;
use crate::edges::Edges;
use crate::io::{ConnId, Now};
use crate::limits::Limits;
use crate::shard::Shard;
use alloc::collections::VecDeque;

/// Who is silent for longer is not active.
pub(crate) const ACTIVE_MS: u64 = 10_000;
/// Edges that one round of chores looks at.
const LOOKS_PER_ROUND: usize = 512;

/// The edges whose keys are expanded, each once, those that were looked at longest ago in front.
#[derive(Debug)]
pub(crate) struct ReadyKeys {
    /// Connections that have ended stay until they are looked at.
    conns: VecDeque<ConnId>,
    /// Those that have not.
    count: usize,
    count_max: usize,
}

impl ReadyKeys {
    pub(crate) const fn new(limits: &Limits) -> Self {
        Self { conns: VecDeque::new(), count: 0, count_max: limits.ready_key_count as usize }
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Whether no look around is needed.
    pub(crate) fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// The edge of one of them is no more: phones that come and go must not keep others from having theirs.
    pub(crate) const fn ended(&mut self) {
        self.count -= 1;
    }

    /// Whether there may be one more. As many again may have ended and not been looked at.
    fn has_room(&self) -> bool {
        self.count < self.count_max && self.conns.len() < 2 * self.count_max
    }

    /// Looks at some edges: those that have fallen silent, or ended, leave.
    fn look_around(&mut self, now: Now, edges: &mut Edges) {
        for _ in 0..self.conns.len().min(LOOKS_PER_ROUND) {
            let Some(conn) = self.conns.pop_front() else { break };
            let Some(edge) = edges.get_mut(conn) else { continue };
            if now.mono_ns / 1_000_000 < edge.heard_ms + ACTIVE_MS {
                self.conns.push_back(conn);
            } else if let Some(transport) = &mut edge.transport {
                transport.shrink();
                self.count -= 1;
            }
        }
    }
}

impl Shard {
    /// A whole record has come. If the one before came not long ago, there will be more.
    pub(crate) fn heard(&mut self, now: Now, conn: ConnId) {
        let now_ms = now.mono_ns / 1_000_000;
        let Some(edge) = self.edges.get_mut(conn) else { return };
        let silent_ms = now_ms.saturating_sub(core::mem::replace(&mut edge.heard_ms, now_ms));
        let Some(transport) = &mut edge.transport else { return };
        // The records of a login are no sign: many phones only say that they are there.
        let is_active = matches!(edge.state, State::Adopted(_)) && silent_ms < ACTIVE_MS;
        if is_active && !transport.is_expanded() && self.ready_keys.has_room() {
            transport.expand();
            self.ready_keys.count += 1;
            self.ready_keys.conns.push_back(conn);
        }
    }

    /// Part of the chores.
    pub(crate) fn shrink_silent_keys(&mut self, now: Now) {
        self.ready_keys.look_around(now, &mut self.edges);
    }
}
