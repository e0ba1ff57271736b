//! Parked sockets: an idle one holds a poll instead of a receive, which costs the kernel less memory.

use crate::error::SlotError;
use crate::event::{Event, Slot};
use crate::ring::Ring;
use crate::slots::{Phase, Receive};
use crate::userdata::{Kind, of_slot, slot_and_generation};
use io_uring::{opcode, types};

/// What ends a poll; errors and a hang-up always do.
const EVENTS: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;

impl Ring {
    /// Waits for bytes without being ready to take them: `Readable` follows, once, when there are some or the stream
    /// ended. A multishot receive is cancelled first; what it received until then is still reported, and no byte is
    /// lost or out of order: the poll is armed after the receive's last completion.
    ///
    /// # Errors
    /// [`SlotError::Busy`] if the socket is parked, has a single receive under way, or waits for buffers.
    pub fn park(&mut self, slot: Slot, key: u64) -> Result<(), SlotError> {
        let state = self.open_slot(slot, key)?;
        match state.receive {
            Receive::None => {
                self.unwatch(slot.0);
                self.arm_poll(slot.0);
            }
            Receive::Always => {
                state.receive = Receive::Unarming;
                self.unarm(slot.0);
            }
            _ => return Err(SlotError::Busy),
        }
        Ok(())
    }

    fn unarm(&mut self, slot: u32) {
        let generation = self.slots[slot as usize].generation;
        let cancel = opcode::AsyncCancel::new(of_slot(Kind::Receive, slot, generation)).build();
        self.push(cancel.user_data(of_slot(Kind::Unarm, slot, generation)));
    }

    pub(crate) fn unarm_completed(&mut self, payload: u64, result: i32) {
        let (slot, generation) = slot_and_generation(payload);
        let state = &self.slots[slot as usize];
        let is_waiting = state.generation == generation && state.receive == Receive::Unarming;
        // The kernel was just then at work on the receive and did not find it. (When it had ended, its last completion
        // came before this one, and the socket is parked.)
        if result < 0 && is_waiting && state.phase == Phase::Open {
            self.unarm(slot);
        }
    }

    pub(crate) fn arm_poll(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        state.receive = Receive::Parked;
        self.stats.parked_now += 1;
        // Once, not multishot: what ends a poll is answered with a multishot receive, during which nothing polls.
        let poll = opcode::PollAdd::new(types::Fixed(slot), EVENTS).build();
        let user_data = of_slot(Kind::Poll, slot, state.generation);
        self.push(poll.user_data(user_data));
    }

    pub(crate) fn poll_completed(&mut self, payload: u64) -> Option<Event<'static>> {
        let (slot, generation) = slot_and_generation(payload);
        self.stats.parked_now -= 1;
        let state = &mut self.slots[slot as usize];
        if state.generation != generation {
            // Cannot be while closes wait for polls.
            self.stats.stale_count += 1;
            return None;
        }
        state.receive = Receive::None;
        if state.phase != Phase::Open {
            self.close_if_quiet(slot);
            return None;
        }
        // Also where the poll failed: the receive says why.
        Some(Event::Readable { slot: Slot(slot), key: state.key })
    }
}
