//! Watched sockets: nothing is read from them for a time, and still it is noticed when the other end goes.

use crate::error::SlotError;
use crate::event::{Event, Slot};
use crate::ring::Ring;
use crate::slots::{Phase, Receive, Watch};
use crate::userdata::{Kind, of_slot, slot_and_generation};
use io_uring::{opcode, types};

/// What ends a watch; errors and a hang-up always do.
const EVENTS: u32 = libc::POLLRDHUP as u32;

impl Ring {
    /// Waits for the other end to go and takes no byte meanwhile: `Gone` follows, once, unless a receive, [`Ring::park`],
    /// [`Ring::send_descriptor`] or a close comes first, which end the watch.
    ///
    /// # Errors
    /// [`SlotError::Busy`] if a receive is under way, or the socket is parked: these tell of the end themselves.
    pub fn watch(&mut self, slot: Slot, key: u64) -> Result<(), SlotError> {
        let state = self.open_slot(slot, key)?;
        if state.receive != Receive::None {
            return Err(SlotError::Busy);
        }
        if std::mem::replace(&mut state.watch, Watch::Armed) == Watch::None {
            self.arm_watch(slot.0);
        }
        Ok(())
    }

    fn arm_watch(&mut self, slot: u32) {
        let generation = self.slots[slot as usize].generation;
        let poll = opcode::PollAdd::new(types::Fixed(slot), EVENTS).build();
        self.push(poll.user_data(of_slot(Kind::Watch, slot, generation)));
    }

    /// Ends a watch, if there is one. Its poll may live on for a moment beside a receive: it takes nothing.
    pub(crate) fn unwatch(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        if state.watch == Watch::Armed {
            state.watch = Watch::Cancelling;
            let watch = of_slot(Kind::Watch, slot, state.generation);
            // Its poll answers in any case, so nobody waits for what the cancellation says.
            self.push(opcode::AsyncCancel::new(watch).build().user_data(of_slot(Kind::Cancel, slot, 0)));
        }
    }

    pub(crate) fn watch_completed(&mut self, payload: u64, result: i32) -> Option<Event<'static>> {
        let (slot, generation) = slot_and_generation(payload);
        let state = &mut self.slots[slot as usize];
        if state.generation != generation {
            // Cannot be while closes wait for polls.
            self.stats.stale_count += 1;
            return None;
        }
        let watch = std::mem::replace(&mut state.watch, Watch::None);
        if state.phase != Phase::Open {
            self.close_if_quiet(slot);
            return None;
        }
        if watch != Watch::Armed {
            return None;
        }
        if result == -libc::ECANCELED {
            state.watch = Watch::Armed;
            self.arm_watch(slot);
            return None;
        }
        // A poll that failed says nothing of the other end.
        (result >= 0).then_some(Event::Gone { slot: Slot(slot), key: state.key })
    }
}
