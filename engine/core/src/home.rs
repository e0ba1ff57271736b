//! The home of an account: its mailbox takes messages and ticks, devices acknowledge, ticks go back.

use crate::account::{Account, AccountIndex};
use crate::commit::id_of;
use crate::dedup::Age;
use crate::io::{Lane, Now};
use crate::refusal::Refusal;
use crate::shard::{Shard, bug};
use crate::writer::Item;
use tern_protocol::envelope::{Envelope, FLAG_ANSWER_ONLY, Kind, Parts};
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
                if !self.sent_waits_for_copy(envelope) {
                    let is_there = self.answer(envelope, &ServerFrame::Sent { id: envelope.id() });
                    self.counters.ticks_sent += u64::from(is_there);
                    self.sender_is_done(now, envelope);
                }
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
            Kind::Ask => self.tell_whether_taken(now, envelope),
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
            let took_ns = self.session_is_done_with(now, session, envelope.from(), envelope.id());
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
    /// message brings them again. False if it is not.
    pub(crate) fn answer(&mut self, envelope: Envelope<'_>, frame: &ServerFrame<'_>) -> bool {
        let Some((account, place)) = self.accounts.find_device(envelope.to(), envelope.sender_device())
        else {
            return false;
        };
        let session = self.accounts.device_mut(account, place).and_then(|device| device.session);
        let conn = session.and_then(|id| self.sessions.get(id)).map(|session| session.conn);
        conn.inspect(|&conn| self.say(conn, frame)).is_some()
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
        let parts = Parts { flags, seq, ..ends.parts(now, kind, id) };
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
        let hash = self.dedup.hash(envelope.to(), envelope.from(), id, EntryKind::Message);
        let made_s = id.unix_s();
        self.busiest.note(envelope.to());
        let age = self.dedup.age(made_s, now_s);
        if age == Age::Old && !bug!(self, old_taken_for_new) {
            self.counters.refused_expired += 1;
            self.cast_to(now, Kind::Expired, 0, ends, id, 0);
            return;
        }
        let key = (index, envelope.from(), envelope.sender_device());
        let session = envelope.seq().0;
        if self.dedup.has(made_s, hash) {
            self.counters.duplicates += 1;
            self.stream_is_done_with(key, id);
            self.answer_again(now, index, ends, id);
            return;
        }
        if age == Age::Ahead {
            self.counters.refused_ahead += 1;
            self.cast_to(now, Kind::Expired, 0, ends, id, 0);
            return;
        }
        if envelope.has(FLAG_ANSWER_ONLY) {
            self.counters.refused_expired += 1;
            self.cast_to(now, Kind::Expired, 0, ends, id, 0);
            return;
        }
        let is_out_of_turn = self.is_out_of_turn(now, key, id, session);
        let length = envelope.bytes().len();
        let no_room = self.no_room_for(index, EntryKind::Message, envelope.from(), length);
        no_room.into_iter().for_each(|why| self.count_no_room(why));
        if is_out_of_turn || no_room.is_some() || !self.append(now, index, envelope) {
            self.refuse_stream(now, key, id, session);
            let retry_ms = u64::from(self.busy_ms());
            self.counters.refused_busy += 1;
            self.cast_to(now, Kind::Busy, 0, ends, id, retry_ms);
            return;
        }
        self.dedup.insert_new(made_s, hash);
        if bug!(self, tick_before_commit) {
            self.cast_to(now, Kind::Sent, 0, ends, id, 0);
        }
        if bug!(self, delivered_early) {
            self.cast_to(now, Kind::Delivered, 0, ends, id, 0);
        }
    }

    /// A sender asks whether a message was taken, which it has not sent again.
    fn tell_whether_taken(&mut self, now: Now, envelope: Envelope<'_>) {
        let (ends, id) = (Ends::back_from(envelope), envelope.id());
        let hash = self.dedup.hash(envelope.to(), envelope.from(), id, EntryKind::Message);
        if let Some(index) = self.accounts.by_id(envelope.to())
            && self.dedup.has(id.unix_s(), hash)
        {
            self.answer_again(now, index, ends, id);
        }
    }

    /// The sender of a message that was taken may not know it. If it is not safe yet, its answer is to come.
    fn answer_again(&mut self, now: Now, index: AccountIndex, ends: Ends, id: MessageId) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        if account.mailbox.volatile(ends.to, id, EntryKind::Message).is_none() {
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
    pub(crate) fn stream_is_done_with(&mut self, key: RefusalKey, id: MessageId) {
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

    /// A device has everything up to `floor`; nothing up to `passed` waited for it.
    pub(crate) fn acknowledge(
        &mut self,
        now: Now,
        index: AccountIndex,
        place: usize,
        passed: Seq,
        floor: Seq,
    ) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        // Expiry may have moved the floor past what the device acknowledges: floors never go back.
        let Some(device) = account.device_mut(place) else { return };
        let floor = floor.max(device.floor);
        let old = core::mem::replace(&mut device.floor, floor).max(passed);
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
        let stays = bug!(self, acknowledged_stays);
        let Some(account) = self.accounts.get_mut(index) else { return };
        let acknowledged = account.mailbox.change_at(entry_index, |entry| {
            if !entry.waiting.has(place) {
                return None;
            }
            if !stays {
                entry.waiting.0 &= !DeviceSet::one(place).0;
            }
            let is_first = entry.tick == TickState::NotDue;
            if is_first {
                entry.tick = TickState::Owed;
            }
            let mail = if entry.waiting.is_empty() { entry.mail.take() } else { None };
            Some((entry.seq, entry.kind, is_first, mail))
        });
        let Some((seq, kind, is_first, mail)) = acknowledged.flatten() else { return };
        if let Some(mail) = mail {
            if kind != EntryKind::Message {
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
        let owes_answer = account.mailbox.change(seq, |entry| {
            let is_over = entry.is_over() && entry.kind == EntryKind::Message;
            let owes_answer = is_over && !core::mem::replace(&mut entry.answered, true);
            owes_answer.then_some((entry.from, entry.from_device, entry.id))
        });
        if let Some((to, device, id)) = owes_answer.flatten() {
            let ends = Ends { to, from: mailbox_id, device };
            self.cast_to(now, Kind::Sent, 0, ends, id, 0);
        }
    }

    /// Mail is on stable storage: its sender's `sent` tick, or the confirmation of a tick, goes out.
    pub(crate) fn mail_is_durable(&mut self, now: Now, index: AccountIndex, seq: Seq, position: Position) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        if !account.mailbox.set_durable(seq, position) {
            // All over already, but the record is there: only a floor keeps it from coming back.
            self.floors_go_behind(index, seq);
            return;
        }
        self.writer.log.live(position);
        let mail = account.mailbox.find(seq).and_then(|entry| entry.mail);
        let origin = mail.map_or(0, |mail| self.origin_of(mail));
        self.is_safe(now, index, seq, origin);
        self.floors_go_behind(index, seq);
    }

    /// A record of mail has just been written. A floor that was written before it may be freed before it: it must be
    /// written again behind it. Devices may also have acknowledged while the commit was under way: their floors matter
    /// only now. The ticks' floor likewise.
    pub(crate) fn floors_go_behind(&mut self, index: AccountIndex, seq: Seq) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        let below = Seq(seq.0 - 1);
        for device in account.devices_mut().filter(|device| device.floor >= seq) {
            device.log_floor.persisted = device.log_floor.persisted.min(below);
        }
        let is_settled = account.mailbox.is_settled(seq);
        if is_settled && account.ticks_floor().persisted >= seq {
            account.ticks_floor_mut().persisted = below;
        }
        self.queue_floors(index);
        if is_settled {
            self.queue_floor(index, DeviceId::TICKS);
        }
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
        let before = account.mailbox.change(seq, |entry| {
            let before = *entry;
            entry.answered = entry.kind != EntryKind::Copy;
            before
        });
        let Some(Entry { from, from_device, id, kind, answered, .. }) = before else { return };
        let ends = Ends { to: from, from: mailbox_id, device: from_device };
        if kind == EntryKind::Copy {
            self.copy_is_safe(now, index, ends.device, answered.then_some((from, id)));
            return;
        }
        if answered {
            return;
        }
        match kind {
            EntryKind::Delivered => self.cast_to(now, Kind::Confirm, 0, ends, id, origin),
            EntryKind::Read => self.cast_to(now, Kind::ReadTaken, 0, ends, id, 0),
            EntryKind::Message | EntryKind::Copy => self.cast_to(now, Kind::Sent, 0, ends, id, 0),
        };
    }

    /// Takes what is over, and may leave, from a mailbox.
    pub(crate) fn drop_over(&mut self, index: AccountIndex) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        let mut dropped = 0;
        account.mailbox.take_over(|entry| {
            dropped += 1;
            entry.position.into_iter().for_each(|position| self.writer.log.dead(position));
            entry.mail.into_iter().for_each(|mail| self.cache.remove(mail));
        });
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
        let ends = Ends { to: envelope.from(), from: AccountId(account), device: envelope.sender_device() };
        let found = ends.parts(now, Kind::Found, envelope.id());
        let parts = Parts { seq: account, body: envelope.body(), ..found };
        self.router.cast(home, Lane::Control, &parts);
    }
}

/// Who a short envelope goes to, whom it speaks for, and which device it concerns.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) to: AccountId,
    pub(crate) from: AccountId,
    pub(crate) device: DeviceId,
}

impl Ends {
    /// An envelope between them that says nothing more: no flags, no number, no name, no body.
    pub(crate) const fn parts(self, now: Now, kind: Kind, id: MessageId) -> Parts<'static> {
        Parts {
            kind,
            flags: 0,
            to: self.to,
            from: self.from,
            from_device: self.device,
            id,
            time_ms: now.wall_ms,
            seq: 0,
            from_name: "",
            body: &[],
        }
    }
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
    /// The time and hash under which recovery remembers an entry.
    pub(crate) fn remember(&mut self, mailbox: AccountId, entry: &Entry) {
        let (made_s, hash) = id_of(&self.dedup, mailbox, entry);
        self.dedup.insert(made_s, hash);
    }
}
