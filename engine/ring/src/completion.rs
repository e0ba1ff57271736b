//! From completions to events.

use crate::event::{Event, Slot};
use crate::operation::Operation;
use crate::ring::Ring;
use crate::slots::{Phase, Receive};
use crate::userdata::{Kind, kind, payload, slot_and_generation};
use io_uring::cqueue;
use std::collections::VecDeque;

/// Completions that are taken from the queue at a time.
const BATCH_COUNT: usize = 256;

/// An event before its bytes are borrowed.
enum Raw {
    Bytes { slot: u32, key: u64, buffer: u16, length: u32 },
    Event(Event<'static>),
}

impl Ring {
    /// The next thing that happened, or `None` when it is time for [`Ring::enter`].
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        self.give_lent_back();
        match self.next_raw()? {
            Raw::Event(event) => Some(event),
            Raw::Bytes { slot, key, buffer, length } => {
                self.lent = Some(buffer);
                let bytes = self.memory.buffers.bytes(buffer, length);
                Some(Event::Received { slot: Slot(slot), key, bytes })
            }
        }
    }

    /// Whose bytes come, as far as completions were taken from the queue: the keys of their slots, the next ones first. For
    /// those who prepare: a slot may have another owner by the time, or none.
    pub fn coming(&mut self) -> &VecDeque<u64> {
        if self.batch.is_empty() {
            self.take_batch();
        }
        &self.coming
    }

    pub(crate) fn give_lent_back(&mut self) {
        if let Some(buffer) = self.lent.take() {
            self.memory.buffers.give(buffer);
        }
    }

    fn next_raw(&mut self) -> Option<Raw> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Raw::Event(event));
            }
            if self.batch.is_empty() {
                self.take_batch();
            }
            let completion = self.batch.pop_front()?;
            if kind(completion.user_data()) == Some(Kind::Receive) {
                self.coming.pop_front();
            }
            self.stats.completed_count += 1;
            if let Some(raw) = self.completed(&completion) {
                return Some(raw);
            }
        }
    }

    fn take_batch(&mut self) {
        for completion in self.uring.completion().take(BATCH_COUNT) {
            let data = completion.user_data();
            if kind(data) == Some(Kind::Receive) {
                let (slot, _) = slot_and_generation(payload(data));
                self.coming.push_back(self.slots[slot as usize].key);
            }
            self.batch.push_back(completion);
        }
    }

    /// Takes what is left while the ring is being dropped.
    pub(crate) fn reap_at_end(&mut self) {
        while let Some(raw) = self.next_raw() {
            if let Raw::Bytes { buffer, .. } = raw {
                self.memory.buffers.give(buffer);
            }
        }
    }

    fn completed(&mut self, completion: &cqueue::Entry) -> Option<Raw> {
        let (data, result) = (completion.user_data(), completion.result());
        let payload = payload(data);
        let kind = kind(data)?;
        let more = cqueue::more(completion.flags());
        if !more && !matches!(kind, Kind::Message | Kind::Arrival | Kind::MessageSent) {
            self.in_flight -= 1;
        }
        let event = match kind {
            Kind::Receive => return self.receive_completed(payload, completion),
            Kind::Operation => self.operation_completed(payload as u32, result),
            Kind::Accept => self.accept_completed(payload, result),
            Kind::Poll => self.poll_completed(payload),
            Kind::Watch => self.watch_completed(payload, result),
            Kind::Unarm => {
                self.unarm_completed(payload, result);
                None
            }
            Kind::Shutdown => {
                let (slot, _) = slot_and_generation(payload);
                self.slots[slot as usize].phase = Phase::Closing;
                self.close_if_quiet(slot);
                None
            }
            Kind::Close => self.close_completed(payload, result),
            Kind::Move => self.move_completed(payload, result),
            Kind::Message => Some(Event::Message(payload as u32)),
            Kind::Arrival => {
                let slot = u32::try_from(result).expect("only successful arrivals are posted");
                self.slot_filled(slot, Phase::Open, 0);
                // Through `ready`: a `Closed` of the slot's former socket may have just been put there.
                self.ready.push_back(Event::DescriptorArrived { slot: Slot(slot), message: payload });
                None
            }
            Kind::MessageSent => {
                self.message_failed(payload, -result);
                None
            }
            Kind::Cancel | Kind::SocketOption => None,
        };
        event.map(Raw::Event)
    }

    fn receive_completed(&mut self, payload: u64, completion: &cqueue::Entry) -> Option<Raw> {
        let (slot, generation) = slot_and_generation(payload);
        let result = completion.result();
        let buffer = cqueue::buffer_select(completion.flags());
        self.stats.buffers_filled += u32::from(buffer.is_some());
        let state = &mut self.slots[slot as usize];
        if state.generation != generation {
            // Cannot be while closes wait for receives; kept as a net, because a wrong delivery would be worse.
            self.stats.stale_count += 1;
            buffer.into_iter().for_each(|buffer| self.memory.buffers.give(buffer));
            return None;
        }
        let armed = state.receive;
        let is_last = !cqueue::more(completion.flags());
        if is_last {
            state.receive = Receive::None;
        }
        if state.phase != Phase::Open {
            buffer.into_iter().for_each(|buffer| self.memory.buffers.give(buffer));
            self.close_if_quiet(slot);
            return None;
        }
        let key = state.key;
        match (result, buffer) {
            (1.., Some(buffer)) => {
                // A multishot receive may end for reasons of the kernel's own, with bytes in its last completion.
                if is_last && armed != Receive::Once {
                    self.receive_interrupted(slot, armed);
                }
                return Some(Raw::Bytes { slot, key, buffer, length: result as u32 });
            }
            (_, Some(buffer)) => self.memory.buffers.give(buffer),
            _ => {}
        }
        self.stats.starved_count += u64::from(result == -libc::ENOBUFS);
        if armed == Receive::Unarming && matches!(-result, libc::ENOBUFS | libc::ECANCELED)
            || matches!(-result, libc::EINTR | libc::EAGAIN)
        {
            self.receive_interrupted(slot, armed);
            return None;
        }
        if result == -libc::ENOBUFS {
            let is_always = armed == Receive::Always;
            self.slots[slot as usize].receive =
                if is_always { Receive::StarvedAlways } else { Receive::StarvedOnce };
            self.starved.push_back((slot, generation));
            return None;
        }
        let error = (result < 0).then_some(-result);
        Some(Raw::Event(Event::Ended { slot: Slot(slot), key, error }))
    }

    /// The receive ended without an end of the stream: it goes on as it was, or as what it is to become.
    fn receive_interrupted(&mut self, slot: u32, armed: Receive) {
        if armed == Receive::Unarming {
            self.arm_poll(slot);
        } else {
            self.rearm_receive(slot, armed);
        }
    }

    fn close_completed(&mut self, payload: u64, result: i32) -> Option<Event<'static>> {
        let (slot, generation) = slot_and_generation(payload);
        let state = &self.slots[slot as usize];
        if state.generation != generation {
            // The slot's next socket came first and has reported this one closed.
            self.stats.stale_count += 1;
            return None;
        }
        assert!(result >= 0, "closing an open direct descriptor failed: {result}");
        let (key, phase) = (state.key, state.phase);
        self.slot_emptied(slot);
        (phase == Phase::CloseSubmitted).then_some(Event::Closed { slot: Slot(slot), key })
    }

    fn move_completed(&mut self, payload: u64, result: i32) -> Option<Event<'static>> {
        let (slot, _) = slot_and_generation(payload);
        let state = &mut self.slots[slot as usize];
        let key = state.key;
        let result = if result < 0 { Err(-result) } else { Ok(()) };
        state.phase = if result.is_ok() { Phase::Closing } else { Phase::Open };
        self.close_if_quiet(slot);
        Some(Event::DescriptorSent { slot: Slot(slot), key, result })
    }

    fn operation_completed(&mut self, index: u32, result: i32) -> Option<Event<'static>> {
        match self.memory.operations.remove(index) {
            Operation::Send { slot, block, sent } => self.send_completed(slot, block, sent, result),
            Operation::Install { number, address, key, .. } => {
                // The descriptor table holds the socket now; dropping `socket` closes only its number.
                if result < 0 {
                    return Some(Event::ConnectFailed { key, error: -result });
                }
                let slot = u32::try_from(*number).expect("the kernel wrote a slot");
                self.slot_filled(slot, Phase::Connecting, key);
                self.push_connect(slot, address);
                None
            }
            Operation::Connect { slot, .. } => self.connect_completed(slot, result),
            write @ Operation::Write { .. } => self.write_completed(write, result),
            Operation::Sync { file, key } => {
                if result == -libc::EINTR || result == -libc::EAGAIN {
                    self.push_sync(file, key);
                    return None;
                }
                Some(Event::Written { key, result: if result < 0 { Err(-result) } else { Ok(()) } })
            }
            Operation::Wake { .. } => {
                // Whatever its result is, cancelled too: where there is no memory for a poll the read goes to a thread of
                // the kernel's, and where there may be no such thread it comes back like that. A ring that heard nothing
                // of wakes from then on would hang.
                if self.ending {
                    return None;
                }
                self.arm_waker();
                Some(Event::Woken)
            }
        }
    }

    fn send_completed(
        &mut self,
        slot: u32,
        block: crate::block::Block,
        sent: usize,
        result: i32,
    ) -> Option<Event<'static>> {
        let closing = self.slots[slot as usize].phase != Phase::Open;
        let retry = result == -libc::EINTR || result == -libc::EAGAIN;
        let sent = sent + usize::try_from(result).unwrap_or(0);
        if !closing && (result > 0 || retry) && sent < block.length() {
            self.stats.short_send_count += 1;
            self.push_send(Operation::Send { slot, block, sent });
            return None;
        }
        self.pool.give(block);
        let state = &mut self.slots[slot as usize];
        state.sending = false;
        if closing {
            self.close_if_quiet(slot);
            return None;
        }
        let (slot, key) = (Slot(slot), state.key);
        Some(if result < 0 {
            Event::SendFailed { slot, key, error: -result }
        } else {
            Event::Sent { slot, key }
        })
    }

    fn connect_completed(&mut self, slot: u32, result: i32) -> Option<Event<'static>> {
        let state = &mut self.slots[slot as usize];
        let key = state.key;
        if result >= 0 {
            state.phase = Phase::Open;
            return Some(Event::Connected { slot: Slot(slot), key });
        }
        self.abandon(slot);
        Some(Event::ConnectFailed { key, error: -result })
    }

    pub(crate) fn write_completed(&mut self, operation: Operation, result: i32) -> Option<Event<'static>> {
        let Operation::Write { file, block, offset, written, direct, key } = operation else {
            unreachable!("called with a write")
        };
        let done = written + usize::try_from(result).unwrap_or(0);
        let refused = result == -libc::EINVAL && direct;
        if refused {
            file.give_up_direct();
        }
        let retry = refused || result == -libc::EINTR || result == -libc::EAGAIN;
        if (result > 0 && done < block.length()) || retry {
            self.push_write(file, block, offset, done, key);
            return None;
        }
        self.pool.give(block);
        match result {
            ..0 => Some(Event::Written { key, result: Err(-result) }),
            // A device that takes nothing and says no error would be asked for ever.
            0 => Some(Event::Written { key, result: Err(libc::EIO) }),
            _ if direct => Some(Event::Written { key, result: Ok(()) }),
            _ => {
                self.push_sync(file, key);
                None
            }
        }
    }
}
