//! The home of an account: its mailbox takes messages and ticks, devices acknowledge, ticks go back.

use crate::account::{Account, AccountIndex};
use crate::commit::id_of;
use crate::dedup::{Age, Dedup};
use crate::io::{Lane, Now};
use crate::refusal::Refusal;
use crate::shard::{Shard, bug};
use crate::writer::Item;
use tern_protocol::envelope::{Envelope, FLAG_IMPLIES_SENT, Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, Seq};
use tern_protocol::phone::frame::ServerFrame;
use tern_storage::cache::CacheRef;
use tern_storage::log::Position;
use tern_storage::mailbox::{DEVICES_MAX, DeviceSet, Entry, EntryKind, TickState};

/// Who was refused: the mailbox, the sender and the sender's device.
pub(crate) type RefusalKey = (AccountIndex, AccountId, DeviceId);

impl Shard {
    /// An envelope for an account of this shard.
    pub(crate) fn handle(&mut self, now: Now, envelope: Envelope<'_>) {
        match envelope.kind() {
            Kind::Message => self.take_message(now, envelope),
            Kind::Delivered | Kind::Read => self.take_tick(now, envelope),
            Kind::Confirm => self.tick_is_confirmed(now, envelope),
            Kind::Sent => {
                self.counters.ticks_sent += 1;
                if !self.sent_waits_for_copy(envelope) {
                    self.answer(envelope, &ServerFrame::Sent { id: envelope.id() });
                }
                self.sender_is_done(now, envelope);
            }
            Kind::Busy => {
                let retry_ms = envelope.seq().0 as u32;
                self.home_refused(envelope);
                self.answer(envelope, &ServerFrame::Busy { id: envelope.id(), retry_ms });
            }
            Kind::Expired => {
                self.answer(envelope, &ServerFrame::Expired { id: envelope.id() });
                self.sender_is_done(now, envelope);
            }
            Kind::Unknown => {
                self.answer(envelope, &ServerFrame::Unknown { id: envelope.id() });
                self.sender_is_done(now, envelope);
            }
            Kind::ReadTaken => {
                let (author, id) = (envelope.from(), envelope.id());
                self.answer(envelope, &ServerFrame::ReadTaken { author, id });
            }
            // Copies are appended where they are made, and go nowhere.
            Kind::Copy => {}
            Kind::Watch => self.take_watch(now, envelope),
            Kind::Presence => self.tell_presence(envelope),
            Kind::Typing => self.tell_typing(envelope),
            Kind::Lookup => self.look_up(now, envelope),
            Kind::Found => {
                let Ok(name) = core::str::from_utf8(envelope.body()) else { return };
                let account = Some(AccountId(envelope.seq().0)).filter(|account| account.0 != 0);
                self.answer(envelope, &ServerFrame::Found { account, name });
            }
        }
    }

    /// A final answer passes by: the sender's session does not wait for the message any more.
    fn sender_is_done(&mut self, now: Now, envelope: Envelope<'_>) {
        let found = self.accounts.find_device(envelope.to(), envelope.sender_device());
        let device = found.and_then(|(account, place)| self.accounts.device_mut(account, place));
        if let Some(session) = device.and_then(|device| device.session) {
            let took_ns = self.session_is_done_with(now, session, envelope.id());
            let is_sent = envelope.kind() == Kind::Sent;
            took_ns.filter(|_| is_sent).into_iter().for_each(|ns| self.measures.sent.record(ns));
        }
    }

    /// Tells a recipient's home that a message which it refused will not come again.
    pub(crate) fn tell_home_done(
        &mut self,
        now: Now,
        to: AccountId,
        from: AccountId,
        device: DeviceId,
        id: MessageId,
    ) {
        self.cast_to(now, Kind::Confirm, 0, Ends { to, from, device }, id, 0);
    }

    /// Passes an answer on to the device that it is for, if it is connected. Answers may be lost: a retry of the
    /// message brings them again.
    pub(crate) fn answer(&mut self, envelope: Envelope<'_>, frame: &ServerFrame<'_>) {
        let Some((account, place)) = self.accounts.find_device(envelope.to(), envelope.sender_device())
        else {
            return;
        };
        let session = self.accounts.device_mut(account, place).and_then(|device| device.session);
        if let Some(conn) = session.and_then(|id| self.sessions.get(id)).map(|session| session.conn) {
            self.say(conn, frame);
        }
    }

    /// Casts a short envelope to the home of `to`.
    pub(crate) fn cast_to(
        &mut self,
        now: Now,
        kind: Kind,
        flags: u8,
        ends: Ends,
        id: MessageId,
        seq: u64,
    ) -> bool {
        let Some(home) = self.config.partitions.home_of(ends.to) else { return false };
        let parts = Parts {
            kind,
            flags,
            to: ends.to,
            from: ends.from,
            from_device: ends.device,
            id,
            time_ms: now.wall_ms,
            seq,
            from_name: "",
            body: &[],
        };
        self.router.cast(home, Lane::Control, &parts)
    }

    fn take_message(&mut self, now: Now, envelope: Envelope<'_>) {
        let ends = Ends::back_from(envelope);
        let (id, now_s) = (envelope.id(), (now.wall_ms / 1000) as u32);
        let Some(index) = self.accounts.by_id(envelope.to()) else {
            self.counters.refused_unknown += 1;
            self.cast_to(now, Kind::Unknown, 0, ends, id, 0);
            return;
        };
        self.busiest.note(envelope.to());
        let age = self.dedup.age(id.unix_s(), now_s);
        if age == Age::Old {
            self.counters.refused_expired += 1;
            self.cast_to(now, Kind::Expired, 0, ends, id, 0);
            return;
        }
        let hash = self.dedup.hash(envelope.to(), envelope.from(), id, EntryKind::Message);
        let hour = Dedup::hour(id.unix_s());
        let key = (index, envelope.from(), envelope.sender_device());
        let session = envelope.seq().0;
        if self.dedup.has(hour, hash) {
            self.counters.duplicates += 1;
            self.stream_is_done_with(key, id);
            let waits = self.accounts.get(index).is_some_and(|account| {
                account.mailbox.has_uncommitted(envelope.from(), id, EntryKind::Message)
            });
            if !waits {
                self.cast_to(now, Kind::Sent, 0, ends, id, 0);
            }
            return;
        }
        if age == Age::Ahead {
            self.counters.refused_ahead += 1;
            self.cast_to(now, Kind::Expired, 0, ends, id, 0);
            return;
        }
        if self.is_out_of_turn(now, key, id, session)
            || !self.has_room_for(index, EntryKind::Message)
            || !self.append(now, index, envelope)
        {
            self.count_limit(index);
            self.refuse_stream(now, key, id, session);
            let retry_ms = u64::from(self.busy_ms());
            self.counters.refused_busy += 1;
            self.cast_to(now, Kind::Busy, 0, ends, id, retry_ms);
            return;
        }
        self.dedup.insert_new(hour, hash);
        if bug!(self, tick_before_commit) {
            self.cast_to(now, Kind::Sent, 0, ends, id, 0);
        }
    }

    /// Go-back-N: whether this stream must start again from another id.
    fn is_out_of_turn(&mut self, now: Now, key: RefusalKey, id: MessageId, session: u64) -> bool {
        let Some(refusal) = self.refusals.get_mut(&key) else { return false };
        let passes = refusal.lets_pass(id, session, now.mono_ns);
        if passes {
            self.refusals.remove(&key);
        }
        !passes
    }

    /// The sender has its answer for `id` and will not send it again: its stream waits for it no longer.
    fn stream_is_done_with(&mut self, key: RefusalKey, id: MessageId) {
        if self.refusals.get_mut(&key).is_some_and(|refusal| refusal.is_over_without(id)) {
            self.refusals.remove(&key);
        }
    }

    fn refuse_stream(&mut self, now: Now, key: RefusalKey, id: MessageId, session: u64) {
        if bug!(self, busy_breaks_order) {
            return;
        }
        // Past the limit order is given up, for the streams that are refused then, rather than memory.
        if self.refusals.len() < self.config.limits.refusal_count as usize || self.refusals.contains_key(&key)
        {
            self.refusals.entry(key).or_insert(Refusal::new(id, session, now.mono_ns));
        } else {
            self.counters.refusals_full += 1;
        }
    }

    /// Forgets streams whose senders gave up, once there are many; looked through from time to time, never per message.
    pub(crate) fn forget_refusals(&mut self, now: Now) {
        if self.refusals.len() > self.config.limits.refusal_count as usize / 16 {
            self.refusals.retain(|_, refusal| !refusal.is_stale(now.mono_ns));
        }
    }

    /// Whether a mailbox may take one more. Ticks have a margin: refusing them only delays them. They are taken
    /// during a drain too: what they speak of may never have been written.
    pub(crate) fn has_room_for(&self, index: AccountIndex, kind: EntryKind) -> bool {
        let limits = &self.config.limits;
        let is_tick = kind == EntryKind::Delivered;
        let count_max = limits.mailbox_count as usize * if is_tick { 4 } else { 1 };
        let is_full = self.accounts.get(index).is_none_or(|account| account.mailbox.len() >= count_max);
        !is_full
            && (is_tick || !self.draining)
            // Ticks empty mailboxes, and so the drive: they may use the last of it.
            && (is_tick || !self.writer.log.is_low())
            && (is_tick || !self.dedup.is_full())
            && self.cache.bytes_used() < limits.mail_bytes
    }

    /// Counts which limit keeps a mailbox from taking a message, if it is one.
    fn count_limit(&mut self, index: AccountIndex) {
        let limits = &self.config.limits;
        let held = self.accounts.get(index).map_or(0, |account| account.mailbox.len());
        let counter = if held >= limits.mailbox_count as usize {
            &mut self.counters.mailbox_full
        } else if self.cache.bytes_used() >= limits.mail_bytes {
            &mut self.counters.memory_full
        } else if self.writer.log.is_low() {
            &mut self.counters.drive_full
        } else if self.dedup.is_full() {
            &mut self.dedup.hit_count
        } else {
            return;
        };
        *counter += 1;
    }

    /// Appends to a mailbox, wakes who is connected, and queues the commit. False if memory is short.
    pub(crate) fn append(&mut self, now: Now, index: AccountIndex, envelope: Envelope<'_>) -> bool {
        let Some(mail) = self.cache.insert(envelope.bytes()) else { return false };
        let seq = self.next_seq;
        self.next_seq = seq.next();
        let Some(account) = self.accounts.get_mut(index) else { return false };
        let kind = entry_kind(envelope.kind());
        let waiting = waiting_for(account, kind, envelope.sender_device());
        self.counters.mailboxes_filled_now += u64::from(account.mailbox.is_empty());
        account.mailbox.push(Entry {
            seq,
            from: envelope.from(),
            from_device: envelope.sender_device(),
            id: envelope.id(),
            waiting,
            kind,
            tick: kind.first_tick_state(),
            answered: false,
            time_s: (envelope.time_ms() / 1000) as u32,
            mail: Some(mail),
            position: None,
        });
        // Behind lazy mail comes lazy mail: a mailbox's records must become durable in its order.
        let is_lazy = self.config.limits.write_back_ms > 0 && (account.is_online() || account.lazy_count > 0);
        account.lazy_count += u32::from(is_lazy);
        if is_lazy {
            let due_ns = now.mono_ns + self.config.limits.write_back_ms * 1_000_000;
            self.writer.push_lazy(due_ns, index, seq);
        } else {
            self.writer.push_urgent(Item::Mail { account: index, seq });
        }
        self.counters.mail_count_now += 1;
        self.counters.messages_appended += u64::from(kind == EntryKind::Message);
        for place in 0..DEVICES_MAX {
            let session = self.accounts.device_mut(index, place).and_then(|device| device.session);
            if let Some(session) = session {
                self.deliver(now, session);
            }
        }
        true
    }

    /// A tick comes home: it is mail for its message's sender.
    fn take_tick(&mut self, now: Now, envelope: Envelope<'_>) {
        let kind = entry_kind(envelope.kind());
        let answer = if kind == EntryKind::Read { Kind::ReadTaken } else { Kind::Confirm };
        let ends = Ends::back_from(envelope);
        let (id, seq) = (envelope.id(), envelope.seq().0);
        let index = self.accounts.by_id(envelope.to());
        let account = index.and_then(|index| self.accounts.get(index));
        let is_heard = account.is_some_and(|account| !waiting_for(account, kind, ends.device).is_empty());
        let Some(index) = index.filter(|_| is_heard) else {
            // Nobody is left to tell: the other side need not go on owing.
            self.cast_to(now, answer, 0, ends, id, seq);
            return;
        };
        let hash = self.dedup.hash(envelope.to(), envelope.from(), id, kind);
        let hour = Dedup::hour((envelope.time_ms() / 1000) as u32);
        if self.dedup.has(hour, hash) || self.dedup.has(hour.wrapping_sub(1), hash) {
            let account = self.accounts.get(index);
            if !account.is_some_and(|a| a.mailbox.has_uncommitted(envelope.from(), id, kind)) {
                self.cast_to(now, answer, 0, ends, id, seq);
            }
            return;
        }
        if self.has_room_for(index, kind) && self.append(now, index, envelope) {
            // Without memory for its id the tick goes on all the same: at worst its sender hears it twice.
            if !self.dedup.is_full() {
                self.dedup.insert_new(hour, hash);
            }
            self.counters.ticks_read += u64::from(kind == EntryKind::Read);
        }
    }

    /// The sender's home has the tick: the entry owes nothing any more.
    fn tick_is_confirmed(&mut self, now: Now, envelope: Envelope<'_>) {
        let Some(index) = self.accounts.by_id(envelope.to()) else { return };
        self.stream_is_done_with((index, envelope.from(), envelope.sender_device()), envelope.id());
        let Some(account) = self.accounts.get_mut(index) else { return };
        if let Some(entry) = account.mailbox.find_mut(envelope.seq())
            && entry.tick == TickState::Owed
            && entry.from == envelope.from()
            && entry.id == envelope.id()
        {
            entry.tick = TickState::Settled;
            self.counters.ticks_delivered += 1;
            self.answer_if_over(now, index, envelope.seq());
            self.drop_over(index);
        }
    }

    /// A device has everything up to `floor`.
    pub(crate) fn acknowledge(&mut self, now: Now, index: AccountIndex, place: usize, floor: Seq) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        // Expiry may have moved the floor past what the device acknowledges: floors never go back.
        let Some(device) = account.device_mut(place) else { return };
        let floor = floor.max(device.floor);
        let old = core::mem::replace(&mut device.floor, floor);
        let device = device.id;
        self.stirred.note(account, index);
        let (first, end) = (account.mailbox.index_above(old), account.mailbox.index_above(floor));
        for entry_index in first..end {
            self.acknowledge_one(now, index, entry_index, place);
        }
        self.drop_over(index);
        self.queue_floor(index, device);
    }

    fn acknowledge_one(&mut self, now: Now, index: AccountIndex, entry_index: usize, place: usize) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        let Some(entry) = account.mailbox.at_mut(entry_index) else { return };
        if !entry.waiting.has(place) {
            return;
        }
        entry.waiting.0 &= !DeviceSet::one(place).0;
        let seq = entry.seq;
        let is_first = entry.tick == TickState::NotDue;
        if is_first {
            entry.tick = TickState::Owed;
        }
        if entry.waiting.is_empty()
            && let Some(mail) = entry.mail.take()
        {
            if entry.kind != EntryKind::Message {
                let origin = self.origin_of(mail);
                self.cache.remove(mail);
                self.is_safe(now, index, seq, origin);
                return;
            }
            self.cache.remove(mail);
        }
        if is_first {
            self.send_tick(now, index, seq);
        } else {
            self.answer_if_over(now, index, seq);
        }
    }

    /// What several devices acknowledged one after the other, before its commit, is safe by rule (c) and is never
    /// written. Its `sent` waits until the tick is confirmed: told earlier, a crash could swallow the tick.
    pub(crate) fn answer_if_over(&mut self, now: Now, index: AccountIndex, seq: Seq) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        let mailbox_id = account.id;
        let Some(entry) = account.mailbox.find_mut(seq).filter(|entry| entry.is_over()) else { return };
        if entry.kind == EntryKind::Message && !core::mem::replace(&mut entry.answered, true) {
            let ends = Ends { to: entry.from, from: mailbox_id, device: entry.from_device };
            let id = entry.id;
            self.cast_to(now, Kind::Sent, 0, ends, id, 0);
        }
    }

    /// Sends the `delivered` tick that an entry owes, and looks again later whether it still does.
    pub(crate) fn send_tick(&mut self, now: Now, index: AccountIndex, seq: Seq) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        let mailbox_id = account.id;
        let Some(entry) = account.mailbox.find_mut(seq).filter(|entry| entry.tick == TickState::Owed) else {
            return;
        };
        // Acknowledged by all before its commit: safe by rule (c), and the sender hears both at once.
        let implies_sent = entry.position.is_none() && entry.waiting.is_empty();
        entry.answered |= implies_sent;
        let flags = if implies_sent { FLAG_IMPLIES_SENT } else { 0 };
        let ends = Ends { to: entry.from, from: mailbox_id, device: entry.from_device };
        let id = entry.id;
        self.cast_to(now, Kind::Delivered, flags, ends, id, seq.0);
        self.owed.push_back((now.mono_ns + self.config.limits.tick_retry_ms * 1_000_000, index, seq));
    }

    /// Sends ticks again that nobody has confirmed in time. Those that are settled leave the front at once: waiting
    /// for their time would end a sleep for each, and find their entries cold.
    pub(crate) fn retry_ticks(&mut self, now: Now) {
        for _ in 0..self.config.limits.step_budget {
            let Some(&(due_ns, index, seq)) = self.owed.front() else { break };
            let entry = self.accounts.get(index).and_then(|account| account.mailbox.find(seq));
            let is_owed = entry.is_some_and(|entry| entry.tick == TickState::Owed);
            if is_owed && due_ns > now.mono_ns {
                break;
            }
            self.owed.pop_front();
            if is_owed {
                self.counters.ticks_retried += 1;
                self.send_tick(now, index, seq);
            }
        }
    }

    /// Mail is on stable storage: its sender's `sent` tick, or the confirmation of a tick, goes out.
    pub(crate) fn mail_is_durable(&mut self, now: Now, index: AccountIndex, seq: Seq, position: Position) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        let Some(entry) = account.mailbox.set_durable(seq, position) else {
            // All over already, but the record is there: only a floor keeps it from coming back.
            self.queue_floors(index);
            self.queue_floor(index, DeviceId::TICKS);
            return;
        };
        self.writer.log.live(position);
        let origin = entry.mail.map_or(0, |mail| self.origin_of(mail));
        self.is_safe(now, index, seq, origin);
        let Some(account) = self.accounts.get_mut(index) else { return };
        // A floor that was written before this record may be freed before it: it must be written again behind it.
        let below = Seq(seq.0 - 1);
        for device in account.devices_mut().filter(|device| device.floor >= seq) {
            device.log_floor.persisted = device.log_floor.persisted.min(below);
        }
        // Devices may have acknowledged while the commit was under way: their floors matter only now.
        self.queue_floors(index);
    }

    /// The number in a kept envelope: of a tick, the place that its message had.
    pub(crate) fn origin_of(&self, mail: CacheRef) -> u64 {
        Envelope::parse(self.cache.get(mail)).expect("the cache holds what was parsed before").seq().0
    }

    /// An entry needs its sender no longer: it is on stable storage, or all its devices have it. Whoever waits for
    /// that is told, once. `origin` is the number in the entry's envelope.
    pub(crate) fn is_safe(&mut self, now: Now, index: AccountIndex, seq: Seq, origin: u64) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        let mailbox_id = account.id;
        let Some(entry) = account.mailbox.find_mut(seq) else { return };
        let ends = Ends { to: entry.from, from: mailbox_id, device: entry.from_device };
        let (id, kind) = (entry.id, entry.kind);
        if kind == EntryKind::Copy {
            let sent_waits = core::mem::take(&mut entry.answered);
            self.copy_is_safe(now, index, ends.device, sent_waits.then_some(id));
            return;
        }
        if core::mem::replace(&mut entry.answered, true) {
            return;
        }
        match kind {
            EntryKind::Delivered => self.cast_to(now, Kind::Confirm, 0, ends, id, origin),
            EntryKind::Read => self.cast_to(now, Kind::ReadTaken, 0, ends, id, 0),
            EntryKind::Message | EntryKind::Copy => self.cast_to(now, Kind::Sent, 0, ends, id, 0),
        };
    }

    /// Takes what is over from the front of a mailbox.
    pub(crate) fn drop_over(&mut self, index: AccountIndex) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        let mut dropped = 0;
        while let Some(entry) = account.mailbox.pop_over() {
            dropped += 1;
            entry.position.into_iter().for_each(|position| self.writer.log.dead(position));
            entry.mail.into_iter().for_each(|mail| self.cache.remove(mail));
        }
        if dropped > 0 {
            self.counters.mail_count_now -= dropped;
            self.counters.mailboxes_filled_now -= u64::from(account.mailbox.is_empty());
            self.stirred.note(account, index);
            self.queue_floor(index, DeviceId::TICKS);
        }
    }

    fn look_up(&mut self, now: Now, envelope: Envelope<'_>) {
        let name = core::str::from_utf8(envelope.body()).unwrap_or("");
        let found = self.accounts.by_name(name).and_then(|index| self.accounts.get(index));
        // An id is told to nobody before it is durable: a crash would give it to another account.
        let durable = found.filter(|account| account.position.is_some());
        let account = durable.map_or(0, |account| account.id.0);
        let Some(home) = self.config.partitions.home_of(envelope.from()) else { return };
        let parts = Parts {
            kind: Kind::Found,
            flags: 0,
            to: envelope.from(),
            from: AccountId(account),
            from_device: envelope.sender_device(),
            id: envelope.id(),
            time_ms: now.wall_ms,
            seq: account,
            from_name: "",
            body: envelope.body(),
        };
        self.router.cast(home, Lane::Control, &parts);
    }

    /// Expires mail of some accounts: a sweep that goes round all of them.
    pub(crate) fn sweep_expired(&mut self, now: Now) {
        let expiry_s = self.config.limits.expiry_ms / 1000;
        let oldest_s = (now.wall_ms / 1000).saturating_sub(expiry_s) as u32;
        // All once in a sixteenth of the expiry, an hour at most: a shard at rest must not look at its accounts all the
        // time. Chores come each second.
        let account_count = self.accounts.table_len() as u32;
        let round_s = (expiry_s / 16).clamp(1, 3_600) as u32;
        for _ in 0..account_count.div_ceil(round_s).min(self.config.limits.step_budget) {
            self.sweep_at = (self.sweep_at + 1) % account_count;
            let index = AccountIndex(self.sweep_at);
            let Some(account) = self.accounts.get_mut(index) else { continue };
            let mut last = None;
            let mut entry_index = 0;
            while let Some(entry) = account.mailbox.at_mut(entry_index).filter(|e| e.time_s < oldest_s) {
                self.counters.expired += u64::from(!entry.waiting.is_empty());
                entry.waiting = DeviceSet::default();
                entry.tick = TickState::Settled;
                entry.answered = true;
                last = Some(entry.seq);
                entry_index += 1;
            }
            let Some(last) = last else { continue };
            for device in account.devices_mut() {
                device.floor = device.floor.max(last);
            }
            self.drop_over(index);
            self.queue_floors(index);
        }
    }
}

/// Who a short envelope goes to, whom it speaks for, and which device it concerns.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) to: AccountId,
    pub(crate) from: AccountId,
    pub(crate) device: DeviceId,
}

/// What an envelope becomes in a mailbox.
pub(crate) fn entry_kind(kind: Kind) -> EntryKind {
    match kind {
        Kind::Delivered => EntryKind::Delivered,
        Kind::Read => EntryKind::Read,
        Kind::Copy => EntryKind::Copy,
        _ => EntryKind::Message,
    }
}

/// Which devices an entry is for. `device` is the sender's: of a tick and of a copy, one of this account. A `delivered`
/// tick is for the device that sent the message, and for nobody when that one was revoked.
pub(crate) fn waiting_for(account: &Account, kind: EntryKind, device: DeviceId) -> DeviceSet {
    let all = account.all_devices();
    match (kind, account.place_of(device)) {
        (EntryKind::Delivered, place) => place.map_or(DeviceSet::default(), DeviceSet::one),
        (EntryKind::Copy, Some(place)) => DeviceSet(all.0 & !DeviceSet::one(place).0),
        _ => all,
    }
}

impl Ends {
    /// The way back of an envelope.
    pub(crate) fn back_from(envelope: Envelope<'_>) -> Self {
        Self { to: envelope.from(), from: envelope.to(), device: envelope.sender_device() }
    }
}

impl Shard {
    /// The hour and hash under which recovery remembers an entry.
    pub(crate) fn remember(&mut self, mailbox: AccountId, entry: &Entry) {
        let (hour, hash) = id_of(&self.dedup, mailbox, entry);
        self.dedup.insert(hour, hash);
    }
}
