//! The line of those whose handshakes wait for a later turn: who came first is first. A line that is slow lets nobody
//! else in, because a phone is as impatient as its user: whoever would be gone before its turn had better come later.

use crate::edge::Edge;
use crate::edges::Edges;
use crate::io::ConnId;
use alloc::collections::VecDeque;
use core::mem::{replace, take};

/// Connections in the line below which nobody looks for those that have left it.
const LOOK_AT_COUNT_MIN: usize = 1024;

/// Those who wait, and how slow it has been.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Who waits, and since when, monotonic nanoseconds. Those that have left stay until they are looked at.
    places: VecDeque<(ConnId, u64)>,
    /// Those that have not left.
    count: usize,
    /// Since when the line has been slow, and when it was found so last, monotonic nanoseconds.
    slow_ns: Option<(u64, u64)>,
}

impl Edges {
    /// Handshakes that wait for a later turn.
    pub(crate) const fn deferred_count(&self) -> usize {
        self.line.count
    }

    /// A handshake waits for a later turn. False if it does already.
    pub(crate) fn defer(&mut self, conn: ConnId, now_ns: u64) -> bool {
        let Some(opening) = self.get_mut(conn).map(Edge::opening) else { return false };
        if replace(&mut opening.deferred, true) {
            return false;
        }
        opening.in_line = true;
        self.line.count += 1;
        if self.line.places.len() >= (2 * self.line.count).max(LOOK_AT_COUNT_MIN) {
            let mut places = take(&mut self.line.places);
            places.retain(|&(conn, _)| self.is_in_line(conn));
            self.line.places = places;
        }
        self.line.places.push_back((conn, now_ns));
        true
    }

    /// The handshake that has waited for longest; its turn has come.
    pub(crate) fn next_deferred(&mut self) -> Option<ConnId> {
        while let Some((conn, _)) = self.line.places.pop_front() {
            if self.leave_line(conn) {
                return Some(conn);
            }
        }
        None
    }

    /// A connection does not wait for its handshake's turn any more. False if it did not.
    pub(crate) fn leave_line(&mut self, conn: ConnId) -> bool {
        let waited = self.get_mut(conn).is_some_and(Edge::leave_line);
        self.line.count -= usize::from(waited);
        waited
    }

    pub(crate) fn is_in_line(&mut self, conn: ConnId) -> bool {
        self.get_mut(conn).is_some_and(|edge| edge.is_in_line())
    }

    /// For how long the line has been slow by now, nanoseconds: whoever is first in it has waited for longer than
    /// `wait_ns_max`. It has been so all the time if it was found so again and again within `memory_ns`.
    pub(crate) fn slow_for_ns(&mut self, now_ns: u64, wait_ns_max: u64, memory_ns: u64) -> Option<u64> {
        while let Some(&(conn, _)) = self.line.places.front()
            && !self.is_in_line(conn)
        {
            self.line.places.pop_front();
        }
        let since_ns = self.line.places.front().map(|&(_, since_ns)| since_ns)?;
        if now_ns.saturating_sub(since_ns) <= wait_ns_max {
            return None;
        }
        let before = self.line.slow_ns.filter(|&(_, found_ns)| now_ns.saturating_sub(found_ns) <= memory_ns);
        let slow_since_ns = before.map_or(since_ns, |(slow_since_ns, _)| slow_since_ns);
        self.line.slow_ns = Some((slow_since_ns, now_ns));
        Some(now_ns.saturating_sub(slow_since_ns))
    }
}
