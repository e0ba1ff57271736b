//! A hierarchical timer wheel: set, reset and cancel are O(1), and each timer is 24 bytes.
//!
//! Time is cut into ticks of 2^20 ns (about a millisecond). A timer lies on the level of the highest group of six bits
//! in which its deadline differs from the current tick (Varghese and Lauck's scheme 6, with the levels chosen as by
//! Linux and tokio), so everything on a lower level is due before everything on a higher one.
//!
//! What costs time here is memory that is in no cache. So the three words of a timer lie apart (putting a deadline off
//! touches one word), and in blocks that never move (growing copies nothing and leaves nothing unused).

use alloc::boxed::Box;
use alloc::vec::Vec;

const TICK_SHIFT: u32 = 20;
const SLOT_BITS: u32 = 6;
const SLOT_COUNT: usize = 1 << SLOT_BITS;
/// Seven levels of 64 slots: 2^42 ticks, over a hundred years.
const LEVEL_COUNT: usize = 7;
/// The last tick that the wheel knows.
const TICK_MAX: u64 = (1 << (SLOT_BITS * LEVEL_COUNT as u32)) - 1;
const NIL: u32 = u32::MAX;
/// The list of timers that are due; lists 0.. are `level * 64 + slot`.
const DUE: u16 = (LEVEL_COUNT * SLOT_COUNT) as u16;
/// Stands for no list: the timer is over, and in the chain of unused ones.
const FREE: u16 = DUE + 1;
/// Timers of a block: 24 KiB.
const BLOCK_COUNT: usize = 1024;

/// A timer that was set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerId(u32);

/// Where a timer's neighbours in its list are.
#[derive(Clone, Copy, Debug)]
struct Links {
    next: u32,
    previous: u32,
}

/// When a timer is due (ticks, 48 bits), and which list holds it (16 bits).
#[derive(Clone, Copy, Debug)]
struct Due(u64);

impl Due {
    const fn new(deadline: u64, list: u16) -> Self {
        Self(deadline | (list as u64) << 48)
    }
    const fn deadline(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }
    const fn list(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

#[derive(Debug)]
struct Block {
    due: [Due; BLOCK_COUNT],
    links: [Links; BLOCK_COUNT],
    payloads: [u64; BLOCK_COUNT],
}

const _: () = assert!(size_of::<Block>() == 24 * BLOCK_COUNT);

/// All timers, by number.
#[derive(Default, Debug)]
struct Timers {
    blocks: Vec<Box<Block>>,
    /// Numbers that were given out at least once.
    count: u32,
}

impl Timers {
    /// A number that was never given out.
    fn add(&mut self) -> u32 {
        if self.count as usize == self.blocks.len() * BLOCK_COUNT {
            self.blocks.push(Box::new(Block {
                due: [Due::new(0, FREE); BLOCK_COUNT],
                links: [Links { next: NIL, previous: NIL }; BLOCK_COUNT],
                payloads: [0; BLOCK_COUNT],
            }));
        }
        self.count += 1;
        self.count - 1
    }

    fn due(&mut self, index: u32) -> &mut Due {
        &mut self.blocks[index as usize / BLOCK_COUNT].due[index as usize % BLOCK_COUNT]
    }

    fn links(&mut self, index: u32) -> &mut Links {
        &mut self.blocks[index as usize / BLOCK_COUNT].links[index as usize % BLOCK_COUNT]
    }

    fn payload(&mut self, index: u32) -> &mut u64 {
        &mut self.blocks[index as usize / BLOCK_COUNT].payloads[index as usize % BLOCK_COUNT]
    }
}

/// All timers of a shard.
#[derive(Debug)]
pub(crate) struct Wheel {
    timers: Timers,
    /// The first timer of each list.
    heads: [u32; DUE as usize + 1],
    /// The first unused timer; each one's `next` is the next of them.
    free: u32,
    occupied: [u64; LEVEL_COUNT],
    now_tick: u64,
    armed_count: usize,
}

impl Wheel {
    /// An empty wheel that starts at `mono_ns`.
    pub(crate) fn new(mono_ns: u64) -> Self {
        Self {
            timers: Timers::default(),
            heads: [NIL; DUE as usize + 1],
            free: NIL,
            occupied: [0; LEVEL_COUNT],
            now_tick: mono_ns >> TICK_SHIFT,
            armed_count: 0,
        }
    }

    /// Sets a timer that hands back `payload` at or up to a tick after `deadline_ns`.
    pub(crate) fn set(&mut self, deadline_ns: u64, payload: u64) -> TimerId {
        let index = if self.free == NIL {
            self.timers.add()
        } else {
            let index = self.free;
            self.free = self.timers.links(index).next;
            index
        };
        *self.timers.payload(index) = payload;
        self.armed_count += 1;
        self.place(index, Self::tick_of(deadline_ns));
        TimerId(index)
    }

    /// Says what a timer hands back.
    pub(crate) fn set_payload(&mut self, timer: TimerId, payload: u64) {
        *self.timers.payload(timer.0) = payload;
    }

    /// Gives a timer that has not fired another deadline.
    ///
    /// A later one is only noted: the timer's list comes up in time, and deals it out again. Keep-alive puts deadlines
    /// off far more often than lists come up.
    pub(crate) fn reset(&mut self, timer: TimerId, deadline_ns: u64) {
        let (due, tick) = (self.timers.due(timer.0), Self::tick_of(deadline_ns));
        let list = due.list();
        assert_ne!(list, FREE, "reset of a timer that is over");
        if list != DUE && tick >= due.deadline() {
            *due = Due::new(tick, list);
            return;
        }
        self.unlink(timer.0, list);
        self.place(timer.0, tick);
    }

    /// Takes back a timer that has not fired.
    pub(crate) fn cancel(&mut self, timer: TimerId) {
        let list = self.timers.due(timer.0).list();
        assert_ne!(list, FREE, "cancel of a timer that is over");
        self.unlink(timer.0, list);
        self.release(timer.0);
    }

    /// Takes the next timer that is due at `mono_ns`; call until `None`.
    pub(crate) fn pop(&mut self, mono_ns: u64) -> Option<u64> {
        let target = mono_ns >> TICK_SHIFT;
        loop {
            let due = self.heads[usize::from(DUE)];
            if due != NIL {
                self.unlink(due, DUE);
                self.release(due);
                return Some(*self.timers.payload(due));
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
    pub(crate) const fn armed_count(&self) -> usize {
        self.armed_count
    }

    /// Rounds up, so that nothing fires early.
    fn tick_of(deadline_ns: u64) -> u64 {
        ((deadline_ns >> TICK_SHIFT) + 1).min(TICK_MAX)
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
        // The list as a whole comes off; none of its timers goes back into it, since now its slot is the present.
        let mut index = core::mem::replace(&mut self.heads[usize::from(list)], NIL);
        self.mark_empty(list);
        while index != NIL {
            let next = self.timers.links(index).next;
            let deadline = self.timers.due(index).deadline();
            self.place(index, deadline);
            index = next;
        }
    }

    fn place(&mut self, index: u32, deadline: u64) {
        let list = if deadline <= self.now_tick {
            DUE
        } else {
            let level = ((63 - ((deadline ^ self.now_tick) | 63).leading_zeros()) / SLOT_BITS) as usize;
            let slot = (deadline >> (SLOT_BITS * level as u32)) as usize % SLOT_COUNT;
            (level * SLOT_COUNT + slot) as u16
        };
        *self.timers.due(index) = Due::new(deadline, list);
        let head = core::mem::replace(&mut self.heads[usize::from(list)], index);
        *self.timers.links(index) = Links { next: head, previous: NIL };
        if head != NIL {
            self.timers.links(head).previous = index;
        }
        if list < DUE {
            self.occupied[usize::from(list) / SLOT_COUNT] |= 1 << (usize::from(list) % SLOT_COUNT);
        }
    }

    fn unlink(&mut self, index: u32, list: u16) {
        let Links { next, previous } = *self.timers.links(index);
        if next != NIL {
            self.timers.links(next).previous = previous;
        }
        if previous != NIL {
            self.timers.links(previous).next = next;
            return;
        }
        self.heads[usize::from(list)] = next;
        if next == NIL {
            self.mark_empty(list);
        }
    }

    fn mark_empty(&mut self, list: u16) {
        if list < DUE {
            self.occupied[usize::from(list) / SLOT_COUNT] &= !(1 << (usize::from(list) % SLOT_COUNT));
        }
    }

    /// Puts a timer that is in no list into the chain of unused ones.
    fn release(&mut self, index: u32) {
        *self.timers.due(index) = Due::new(0, FREE);
        self.timers.links(index).next = core::mem::replace(&mut self.free, index);
        self.armed_count -= 1;
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
