//! A hierarchical timer wheel: set, reset and cancel are O(1), and each timer is 24 bytes in one slab.
//!
//! Time is cut into ticks of 2^20 ns (about a millisecond). A timer lies on the level of the highest group of six bits
//! in which its deadline differs from the current tick (Varghese and Lauck's scheme 6, with the levels chosen as by
//! Linux and tokio), so everything on a lower level is due before everything on a higher one.

use alloc::vec::Vec;

const TICK_SHIFT: u32 = 20;
const SLOT_BITS: u32 = 6;
const SLOT_COUNT: usize = 1 << SLOT_BITS;
/// Seven levels of 64 slots: 2^42 ticks, over a hundred years.
const LEVEL_COUNT: usize = 7;
const NIL: u32 = u32::MAX;
/// The list of timers that are due; lists 0.. are `level * 64 + slot`.
const DUE: u16 = (LEVEL_COUNT * SLOT_COUNT) as u16;
/// The list of unused nodes.
const FREE: u16 = DUE + 1;

/// The last tick that the wheel knows.
const TICK_MAX: u64 = (1 << (SLOT_BITS * LEVEL_COUNT as u32)) - 1;
/// The table of nodes grows by this part of itself: doubling it would leave half of the memory unused.
const GROWTH_PART: usize = 8;

/// A timer that was set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerId(u32);

#[derive(Clone, Copy, Debug)]
struct Node {
    next: u32,
    previous: u32,
    /// Ticks, 48 bits used; the list that holds the node is in the top 16.
    deadline_and_list: u64,
    payload: u64,
}

const _: () = assert!(size_of::<Node>() == 24);

impl Node {
    const fn deadline(self) -> u64 {
        self.deadline_and_list & ((1 << 48) - 1)
    }
    const fn list(self) -> u16 {
        (self.deadline_and_list >> 48) as u16
    }
}

/// All timers of a shard.
#[derive(Debug)]
pub(crate) struct Wheel {
    nodes: Vec<Node>,
    heads: [u32; FREE as usize + 1],
    occupied: [u64; LEVEL_COUNT],
    now_tick: u64,
    armed_count: usize,
}

impl Wheel {
    /// An empty wheel that starts at `mono_ns`.
    pub(crate) fn new(mono_ns: u64) -> Self {
        Self {
            nodes: Vec::new(),
            heads: [NIL; FREE as usize + 1],
            occupied: [0; LEVEL_COUNT],
            now_tick: mono_ns >> TICK_SHIFT,
            armed_count: 0,
        }
    }

    /// Sets a timer that hands back `payload` at or up to a tick after `deadline_ns`.
    pub(crate) fn set(&mut self, deadline_ns: u64, payload: u64) -> TimerId {
        let index = match self.heads[usize::from(FREE)] {
            NIL => {
                if self.nodes.len() == self.nodes.capacity() {
                    self.nodes.reserve_exact((self.nodes.len() / GROWTH_PART).max(SLOT_COUNT));
                }
                self.nodes.push(Node { next: NIL, previous: NIL, deadline_and_list: 0, payload });
                (self.nodes.len() - 1) as u32
            }
            free => {
                self.unlink(free, FREE);
                free
            }
        };
        self.nodes[index as usize].payload = payload;
        self.armed_count += 1;
        self.place(index, Self::tick_of(deadline_ns));
        TimerId(index)
    }

    /// Says what a timer hands back.
    pub(crate) fn set_payload(&mut self, timer: TimerId, payload: u64) {
        self.nodes[timer.0 as usize].payload = payload;
    }

    /// Gives a timer that has not fired another deadline.
    ///
    /// A later one is only noted: the timer's list comes up in time, and deals it out again. Keep-alive puts deadlines
    /// off far more often than lists come up, and this way it touches one node and no list.
    pub(crate) fn reset(&mut self, timer: TimerId, deadline_ns: u64) {
        let node = &mut self.nodes[timer.0 as usize];
        let (list, tick) = (node.list(), Self::tick_of(deadline_ns).min(TICK_MAX));
        assert_ne!(list, FREE, "reset of a timer that is over");
        if list != DUE && tick >= node.deadline() {
            node.deadline_and_list = tick | u64::from(list) << 48;
            return;
        }
        self.unlink(timer.0, list);
        self.place(timer.0, tick);
    }

    /// Takes back a timer that has not fired.
    pub(crate) fn cancel(&mut self, timer: TimerId) {
        let list = self.nodes[timer.0 as usize].list();
        assert_ne!(list, FREE, "cancel of a timer that is over");
        self.unlink(timer.0, list);
        self.link(timer.0, FREE);
        self.armed_count -= 1;
    }

    /// Takes the next timer that is due at `mono_ns`; call until `None`.
    pub(crate) fn pop(&mut self, mono_ns: u64) -> Option<u64> {
        let target = mono_ns >> TICK_SHIFT;
        loop {
            let due = self.heads[usize::from(DUE)];
            if due != NIL {
                self.unlink(due, DUE);
                self.link(due, FREE);
                self.armed_count -= 1;
                return Some(self.nodes[due as usize].payload);
            }
            match self.first_slot() {
                Some((tick, list)) if tick <= target => self.turn_to(tick, list),
                _ => {
                    self.now_tick = self.now_tick.max(target);
                    return None;
                }
            }
        }
    }

    /// When to look again, in nanoseconds: at or before the next deadline.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        if self.heads[usize::from(DUE)] != NIL {
            return Some(self.now_tick << TICK_SHIFT);
        }
        self.first_slot().map(|(tick, _)| tick << TICK_SHIFT)
    }

    /// Timers that are set.
    #[cfg(test)]
    pub(crate) const fn armed_count(&self) -> usize {
        self.armed_count
    }

    /// Rounds up, so that nothing fires early.
    const fn tick_of(deadline_ns: u64) -> u64 {
        (deadline_ns >> TICK_SHIFT) + 1
    }

    /// The first occupied slot in time: the tick at which it begins, and its list.
    fn first_slot(&self) -> Option<(u64, u16)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros();
        let shift = SLOT_BITS * level as u32;
        let above = self.now_tick >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
        Some((above | u64::from(slot) << shift, (level * SLOT_COUNT) as u16 + slot as u16))
    }

    /// Moves time to the beginning of a slot and deals its timers out again: to lower levels, or as due.
    fn turn_to(&mut self, tick: u64, list: u16) {
        self.now_tick = tick;
        let mut index = self.heads[usize::from(list)];
        while index != NIL {
            let node = self.nodes[index as usize];
            self.unlink(index, list);
            self.place(index, node.deadline());
            index = node.next;
        }
    }

    fn place(&mut self, index: u32, deadline_tick: u64) {
        let deadline = deadline_tick.min(TICK_MAX);
        let list = if deadline <= self.now_tick {
            DUE
        } else {
            let level = ((63 - ((deadline ^ self.now_tick) | 63).leading_zeros()) / SLOT_BITS) as usize;
            let slot = (deadline >> (SLOT_BITS * level as u32)) as usize % SLOT_COUNT;
            (level * SLOT_COUNT + slot) as u16
        };
        self.nodes[index as usize].deadline_and_list = deadline;
        self.link(index, list);
    }

    fn link(&mut self, index: u32, list: u16) {
        let head = self.heads[usize::from(list)];
        let node = &mut self.nodes[index as usize];
        node.next = head;
        node.previous = NIL;
        node.deadline_and_list = node.deadline() | u64::from(list) << 48;
        if head != NIL {
            self.nodes[head as usize].previous = index;
        }
        self.heads[usize::from(list)] = index;
        if list < DUE {
            self.occupied[usize::from(list) / SLOT_COUNT] |= 1 << (usize::from(list) % SLOT_COUNT);
        }
    }

    fn unlink(&mut self, index: u32, list: u16) {
        let node = self.nodes[index as usize];
        if node.previous == NIL {
            self.heads[usize::from(list)] = node.next;
        } else {
            self.nodes[node.previous as usize].next = node.next;
        }
        if node.next != NIL {
            self.nodes[node.next as usize].previous = node.previous;
        }
        if list < DUE && self.heads[usize::from(list)] == NIL {
            self.occupied[usize::from(list) / SLOT_COUNT] &= !(1 << (usize::from(list) % SLOT_COUNT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    #[derive(Clone, Debug)]
    enum Do {
        Set(u64),
        Reset(usize, u64),
        Cancel(usize),
        Pass(u64),
    }

    fn actions() -> impl Strategy<Value = Vec<Do>> {
        let delay = prop_oneof![0..5_u64, 0..5_000_u64, 0..100_000_000_u64].prop_map(|ms| ms * 1_000_000);
        let action = prop_oneof![
            4 => delay.clone().prop_map(Do::Set),
            2 => (any::<usize>(), delay.clone()).prop_map(|(n, d)| Do::Reset(n, d)),
            1 => any::<usize>().prop_map(Do::Cancel),
            3 => delay.prop_map(Do::Pass),
        ];
        prop::collection::vec(action, 1..200)
    }

    proptest! {
        /// Against a sorted map: no timer fires early, none more than two ticks late, none twice, none is lost.
        #[test]
        fn fires_like_a_sorted_map(actions in actions()) {
            let mut now = 77_000_000_000_u64;
            let mut wheel = Wheel::new(now);
            let mut armed: BTreeMap<u64, (TimerId, u64)> = BTreeMap::new();
            let mut next_payload = 0;
            for action in actions {
                match action {
                    Do::Set(delay) => {
                        armed.insert(next_payload, (wheel.set(now + delay, next_payload), now + delay));
                        next_payload += 1;
                    }
                    Do::Reset(n, delay) if !armed.is_empty() => {
                        let key = *armed.keys().nth(n % armed.len()).unwrap();
                        let entry = armed.get_mut(&key).unwrap();
                        entry.1 = now + delay;
                        wheel.reset(entry.0, entry.1);
                    }
                    Do::Cancel(n) if !armed.is_empty() => {
                        let key = *armed.keys().nth(n % armed.len()).unwrap();
                        wheel.cancel(armed.remove(&key).unwrap().0);
                    }
                    Do::Pass(delay) => {
                        now += delay;
                        if let (Some(next), Some(first)) = (wheel.next_deadline(), armed.values().map(|a| a.1).min()) {
                            prop_assert!(next <= first + (2 << TICK_SHIFT), "would sleep through a deadline");
                        }
                        while let Some(payload) = wheel.pop(now) {
                            let (_, deadline) = armed.remove(&payload).expect("fired twice or after cancel");
                            prop_assert!(deadline <= now, "fired early");
                        }
                        for (_, deadline) in armed.values() {
                            prop_assert!(*deadline + (2 << TICK_SHIFT) > now, "did not fire");
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(wheel.armed_count(), armed.len());
            }
        }
    }
}
