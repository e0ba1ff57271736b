//! Operations on sockets in slots.

use crate::buffers::GROUP;
use crate::error::SlotError;
use crate::event::{Event, Slot};
use crate::operation::Operation;
use crate::ring::Ring;
use crate::slots::{Phase, Receive, SlotState};
use crate::userdata::{Kind, of_slot};
use crate::wake::Peer;
use io_uring::{opcode, squeue, types};

impl Ring {
    pub(crate) fn open_slot(&mut self, slot: Slot, key: u64) -> Result<&mut SlotState, SlotError> {
        let state = self.slots.get_mut(slot.0 as usize).ok_or(SlotError::NotOpen)?;
        if state.phase != Phase::Open {
            return Err(SlotError::NotOpen);
        }
        state.key = key;
        Ok(state)
    }

    /// The key that the socket in `slot` was last used with; none if no socket is there.
    #[must_use]
    pub fn key_of(&self, slot: Slot) -> Option<u64> {
        self.slots.get(slot.0 as usize).filter(|state| state.phase != Phase::Free).map(|state| state.key)
    }

    /// Whether a receive or a poll is under way on this slot, or waits for buffers.
    #[must_use]
    pub fn is_receiving(&self, slot: Slot) -> bool {
        self.slots.get(slot.0 as usize).is_some_and(|state| state.receive != Receive::None)
    }

    /// Receives once: exactly one `Received` or `Ended` follows.
    ///
    /// # Errors
    /// [`SlotError::Busy`] if a receive is under way, or the socket is parked.
    pub fn receive_once(&mut self, slot: Slot, key: u64) -> Result<(), SlotError> {
        if self.open_slot(slot, key)?.receive != Receive::None {
            return Err(SlotError::Busy);
        }
        self.unwatch(slot.0);
        self.arm_receive(slot.0, Receive::Once);
        Ok(())
    }

    /// Receives until `Ended`. A socket with this can not be moved to another ring.
    ///
    /// # Errors
    /// [`SlotError::Busy`] if a receive is under way, or the socket is parked.
    pub fn receive_always(&mut self, slot: Slot, key: u64) -> Result<(), SlotError> {
        if self.open_slot(slot, key)?.receive != Receive::None {
            return Err(SlotError::Busy);
        }
        self.unwatch(slot.0);
        self.arm_receive(slot.0, Receive::Always);
        Ok(())
    }

    /// Arms what the caller had armed before.
    pub(crate) fn rearm_receive(&mut self, slot: u32, receive: Receive) {
        self.stats.rearm_count += 1;
        self.arm_receive(slot, receive);
    }

    pub(crate) fn arm_receive(&mut self, slot: u32, receive: Receive) {
        let state = &mut self.slots[slot as usize];
        state.receive = receive;
        let entry = if receive == Receive::Always {
            opcode::RecvMulti::new(types::Fixed(slot), GROUP).build()
        } else {
            opcode::Recv::new(types::Fixed(slot), std::ptr::null_mut(), 0)
                .buf_group(GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        };
        let entry = entry.user_data(of_slot(Kind::Receive, slot, state.generation));
        self.push(entry);
    }

    /// Sends a copy of `bytes`, all of them; `Sent` or `SendFailed` follows. What the kernel does not take at once is
    /// sent later by the ring itself.
    ///
    /// # Errors
    /// [`SlotError::Busy`] if a send is under way: order and bounded memory are the caller's queue's job.
    pub fn send(&mut self, slot: Slot, key: u64, bytes: &[u8]) -> Result<(), SlotError> {
        let state = self.open_slot(slot, key)?;
        if state.sending {
            return Err(SlotError::Busy);
        }
        if bytes.is_empty() {
            return Err(SlotError::Empty);
        }
        state.sending = true;
        let block = self.pool.take(bytes);
        self.push_send(Operation::Send { slot: slot.0, block, sent: 0 });
        Ok(())
    }

    pub(crate) fn push_send(&mut self, operation: Operation) {
        self.push_operation(operation, |operation| {
            let Operation::Send { slot, block, sent } = operation else {
                unreachable!("a send was inserted")
            };
            let length = u32::try_from(block.length() - *sent).expect("sends are below 4 GiB");
            opcode::Send::new(types::Fixed(*slot), block.address(*sent), length)
                .flags(libc::MSG_NOSIGNAL)
                .build()
        });
    }

    /// Marks an open socket as closing, for `close` and `reset`.
    pub(crate) fn begin_close(&mut self, slot: Slot, key: u64) -> Result<&mut SlotState, SlotError> {
        let state = self.slots.get_mut(slot.0 as usize).ok_or(SlotError::NotOpen)?;
        match state.phase {
            Phase::Open => {}
            Phase::Moving => return Err(SlotError::Busy),
            _ => return Err(SlotError::NotOpen),
        }
        state.key = key;
        state.phase = Phase::Closing;
        Ok(state)
    }

    /// Closes the socket; `Closed` follows when its last operation is over. Ends what is under way: a caller that
    /// wants its last send to arrive waits for `Sent` first. No other event of this socket follows.
    ///
    /// # Errors
    /// [`SlotError::Busy`] while the socket is being moved.
    pub fn close(&mut self, slot: Slot, key: u64) -> Result<(), SlotError> {
        let state = self.begin_close(slot, key)?;
        if !state.is_quiet() {
            // Closing a direct descriptor ends no operation; a shutdown does.
            state.phase = Phase::ShuttingDown;
            let user_data = of_slot(Kind::Shutdown, slot.0, state.generation);
            self.push(
                opcode::Shutdown::new(types::Fixed(slot.0), libc::SHUT_RDWR).build().user_data(user_data),
            );
        }
        self.close_if_quiet(slot.0);
        Ok(())
    }

    /// Submits the close of a closing slot when nothing else is under way.
    pub(crate) fn close_if_quiet(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        if state.phase == Phase::Closing && state.is_quiet() {
            state.phase = Phase::CloseSubmitted;
            let user_data = of_slot(Kind::Close, slot, state.generation);
            self.push(opcode::Close::new(types::Fixed(slot)).build().user_data(user_data));
        }
    }

    /// Closes a slot whose connect failed, silently.
    pub(crate) fn abandon(&mut self, slot: u32) {
        let state = &mut self.slots[slot as usize];
        state.phase = Phase::Abandoned;
        let user_data = of_slot(Kind::Close, slot, state.generation);
        self.push(opcode::Close::new(types::Fixed(slot)).build().user_data(user_data));
    }

    /// Puts the socket into another ring's descriptor table. `DescriptorSent` follows here, and `DescriptorArrived`
    /// with the low 56 bits of `message` there. When it went, the slot here is closed by itself (`Closed` follows),
    /// without a shutdown, which would end the connection.
    ///
    /// # Errors
    /// [`SlotError::Busy`] if anything but a watch is under way on the socket: an armed receive would steal its bytes.
    pub fn send_descriptor(
        &mut self,
        slot: Slot,
        key: u64,
        peer: Peer,
        message: u64,
    ) -> Result<(), SlotError> {
        let state = self.open_slot(slot, key)?;
        if state.sending || state.receive != Receive::None {
            return Err(SlotError::Busy);
        }
        state.phase = Phase::Moving;
        let user_data = of_slot(Kind::Move, slot.0, state.generation);
        // It takes no bytes; the close here waits for its end.
        self.unwatch(slot.0);
        let entry = opcode::MsgRingSendFd::new(
            self.peer_fd(peer),
            types::Fixed(slot.0),
            types::DestinationSlot::auto_target(),
            crate::userdata::plain(Kind::Arrival, message),
        );
        self.push(entry.build().user_data(user_data));
        Ok(())
    }

    /// Marks a slot that the kernel filled.
    pub(crate) fn slot_filled(&mut self, slot: u32, phase: Phase, key: u64) {
        let state = &mut self.slots[slot as usize];
        // The kernel may close a slot and use it again before it posts the close's completion.
        match state.phase {
            Phase::CloseSubmitted => {
                self.ready.push_back(Event::Closed { slot: Slot(slot), key: state.key });
                self.stats.slots_used_now -= 1;
            }
            Phase::Abandoned => self.stats.slots_used_now -= 1,
            phase => assert!(phase == Phase::Free, "the kernel filled a slot in use"),
        }
        self.slots[slot as usize].open(phase, key);
        self.stats.slots_used_now += 1;
    }

    /// Marks a slot that the kernel emptied.
    pub(crate) fn slot_emptied(&mut self, slot: u32) {
        self.slots[slot as usize].free();
        self.stats.slots_used_now -= 1;
        self.unpause_accepts();
    }
}
