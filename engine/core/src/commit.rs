//! The group commit: what waits for the log, when it goes, and what follows once it is durable.
//!
//! Mail for an online account waits up to `write_back_ms`: what every device acknowledges before that is never
//! written. Mail for an absent account and changes of tables go at once; floors wait longest, for company.

use crate::account::{Account, AccountIndex, Accounts, Floor, Revoking, stored};
use crate::dedup::{Dedup, IdHash};
use crate::id_records::IdRecords;
use crate::io::{FatalError, Now, Output, Outputs};
use crate::recovery::KnownDamage;
use crate::rewrite::put_gone_again;
use crate::shard::Shard;
use crate::writer::{Carried, Item, KEPT_COUNT, Waiter, Writer};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use tern_protocol::ids::{AccountId, DeviceId, Seq};
use tern_storage::cache::Cache;
use tern_storage::io::DiskDone;
use tern_storage::log::{Commit, LogEvent, NoRoom, Position, Record};
use tern_storage::mailbox::{DEVICES_MAX, Entry, EntryKind};

/// What looking up items needs.
pub(crate) struct Sources<'a> {
    pub(crate) accounts: &'a mut Accounts,
    pub(crate) cache: &'a Cache,
    dedup: &'a Dedup,
    pub(crate) id_records: &'a IdRecords,
    epoch: u32,
    tickets_after_s: Option<u32>,
    damage: &'a KnownDamage,
    returned: &'a mut BTreeSet<AccountId>,
    pub(crate) scratch: &'a mut Vec<u8>,
    avoided_count: u64,
}

impl Sources<'_> {
    /// Puts an item into the commit: where it went; `None` when it has become needless.
    fn put(
        &mut self,
        commit: &mut Commit<'_>,
        item: &Item,
        carried: &mut Vec<Carried>,
    ) -> Result<Option<Carrying>, NoRoom> {
        match item {
            &Item::Mail { account, seq } => self.put_mail(commit, account, seq),
            &Item::Floor { account, device } => self.put_floor(commit, account, device),
            &Item::Account(index) => {
                let Some(account) = self.accounts.get_mut(index) else { return Ok(None) };
                self.scratch.clear();
                stored::encode(account, self.scratch);
                let record = Record::Account { account: account.id, payload: self.scratch };
                let position = commit.push(&record)?;
                for device in account.devices_mut() {
                    if device.stays() {
                        device.is_written = true;
                    } else {
                        device.revoking = Revoking::Written;
                    }
                }
                Ok(Carrying::plain(position))
            }
            &Item::Gone(index) => {
                // It may have been given up, or be there already, if somebody asked again meanwhile.
                let account = self.accounts.get_mut(index).filter(|a| a.removing == Revoking::Asked);
                let Some(account) = account else { return Ok(None) };
                let position = commit.push(&Record::AccountGone(account.id))?;
                account.removing = Revoking::Written;
                Ok(Carrying::plain(position))
            }
            Item::Epoch => self.put_epoch(commit),
            Item::Ids { groups, .. } => commit.push(&Record::Ids { groups }).map(Carrying::plain),
            &Item::RewrittenMail { account, seq } => self.put_mail_again(commit, account, seq, carried),
            &Item::RewrittenFloor { account, device } => self.put_floor_again(commit, account, device),
            &Item::RewrittenIds(old) => self.put_ids_again(commit, old),
            &Item::RewrittenGone(range) => put_gone_again(commit, range),
        }
    }

    fn put_epoch(&mut self, commit: &mut Commit<'_>) -> Result<Option<Carrying>, NoRoom> {
        let epoch = self.epoch;
        let &KnownDamage { rot_reach, numbers_above, hidden: ref files } = self.damage;
        if self.tickets_after_s.is_none() && files.is_empty() {
            return commit.push(&Record::Epoch(epoch)).map(Carrying::plain);
        }
        self.scratch.clear();
        files.iter().for_each(|file| file.encode(self.scratch));
        let tickets_after_s = self.tickets_after_s.unwrap_or(0);
        let hidden = &**self.scratch;
        let record = Record::EpochAfterDamage { epoch, tickets_after_s, rot_reach, numbers_above, hidden };
        commit.push(&record).map(Carrying::plain)
    }

    fn leaves_lazy_queue(&mut self, item: &Item) {
        if let &Item::Mail { account, .. } = item
            && let Some(account) = self.accounts.get_mut(account)
        {
            account.lazy_count -= 1;
        }
    }

    fn put_mail(
        &mut self,
        commit: &mut Commit<'_>,
        index: AccountIndex,
        seq: Seq,
    ) -> Result<Option<Carrying>, NoRoom> {
        let Some(account) = self.accounts.get(index) else { return Ok(None) };
        let wanted = account.mailbox.find(seq).filter(|entry| !entry.waiting.is_empty());
        let Some((entry, mail)) = wanted.and_then(|entry| Some((entry, entry.mail?))) else {
            self.avoided_count += 1;
            return Ok(None);
        };
        let envelope = self.cache.get(mail);
        let position = commit.push(&Record::Mail { mailbox: account.id, seq, envelope })?;
        let id = Some(id_of(self.dedup, account.id, entry));
        Ok(Some(Carrying { position, id, floor: seq }))
    }

    /// Puts the floors of devices that have acknowledged mail already whose record the commit has just taken: an older
    /// record of such a floor may be in a segment that is free by now, and a crash would hand the mail out again. Likewise
    /// the ticks' floor, if the log has one that covers the mail: it would owe its tick again.
    pub(crate) fn put_floors_behind(
        &mut self,
        commit: &mut Commit<'_>,
        index: AccountIndex,
        seq: Seq,
        carried: &mut Vec<Carried>,
    ) {
        let Some(account) = self.accounts.get(index) else { return };
        for device in account.devices().filter(|device| device.floor >= seq) {
            let record = Record::Floor { mailbox: account.id, device: device.id, up_to: device.floor };
            // Without room it goes later, as any floor does.
            let Ok(position) = commit.push(&record) else { return };
            let item = Item::Floor { account: index, device: device.id };
            carried.push(Carried { item, position, id: None, floor: device.floor });
        }
        if !has_ticks_floor(account, seq) {
            return;
        }
        let Some(account) = self.accounts.get_mut(index) else { return };
        account.mailbox.note_settled();
        let persisted = account.ticks_floor().persisted;
        let up_to = account.mailbox.settled_up_to().map_or(persisted, |settled| settled.max(persisted));
        let device = DeviceId::TICKS;
        let Ok(position) = commit.push(&Record::Floor { mailbox: account.id, device, up_to }) else { return };
        carried.push(Carried {
            item: Item::Floor { account: index, device },
            position,
            id: None,
            floor: up_to,
        });
    }

    /// Puts all floors of an account whose mail is back, before the first copy of such mail. Where that goes it is not known
    /// to have been away, and the last floors count: they must not be those that were written meanwhile.
    pub(crate) fn put_floors_of_returned(
        &mut self,
        commit: &mut Commit<'_>,
        index: AccountIndex,
        carried: &mut Vec<Carried>,
    ) -> Result<(), NoRoom> {
        let Some(account) = self.accounts.get(index) else { return Ok(()) };
        let mailbox = account.id;
        if !self.returned.contains(&mailbox) {
            return Ok(());
        }
        let ticks_floor = account.ticks_floor().persisted;
        let settled = account.mailbox.settled_up_to().map_or(ticks_floor, |settled| settled.max(ticks_floor));
        let floors = account.devices().map(|device| (device.id, device.floor));
        for (device, up_to) in floors.chain([(DeviceId::TICKS, settled)]) {
            let position = commit.push(&Record::Floor { mailbox, device, up_to })?;
            carried.push(Carried {
                item: Item::Floor { account: index, device },
                position,
                id: None,
                floor: up_to,
            });
        }
        self.returned.remove(&mailbox);
        Ok(())
    }

    fn put_floor(
        &mut self,
        commit: &mut Commit<'_>,
        index: AccountIndex,
        device: DeviceId,
    ) -> Result<Option<Carrying>, NoRoom> {
        let Some(account) = self.accounts.get(index) else { return Ok(None) };
        let Some((up_to, log_floor)) = floor_of(account, device) else { return Ok(None) };
        if !account.mailbox.floor_matters(log_floor.persisted, up_to) {
            if let Some(floor) = floor_mut(self.accounts, index, device) {
                floor.queued = false;
            }
            return Ok(None);
        }
        let position = commit.push(&Record::Floor { mailbox: account.id, device, up_to })?;
        Ok(Some(Carrying { position, id: None, floor: up_to }))
    }
}

/// An item in a commit.
pub(crate) struct Carrying {
    pub(crate) position: Position,
    pub(crate) id: Option<(u32, IdHash)>,
    pub(crate) floor: Seq,
}

impl Carrying {
    // The callers map over it, beside lookups that may find nothing to carry.
    #[allow(clippy::unnecessary_wraps)]
    pub(crate) const fn plain(position: Position) -> Option<Self> {
        Some(Self { position, id: None, floor: Seq(0) })
    }
}

/// The second and the hash by which dedup knows an entry.
pub(crate) fn id_of(dedup: &Dedup, mailbox: AccountId, entry: &Entry) -> (u32, IdHash) {
    let hash = dedup.hash(mailbox, entry.from, entry.id, entry.kind);
    let made_s = match entry.kind {
        EntryKind::Message | EntryKind::Copy => entry.id.unix_s(),
        // A tick's id is as old as its message; what matters is when the tick came.
        EntryKind::Delivered | EntryKind::Read => entry.time_s,
    };
    (made_s, hash)
}

pub(crate) fn floor_of(account: &Account, device: DeviceId) -> Option<(Seq, Floor)> {
    if device == DeviceId::TICKS {
        return Some((account.mailbox.settled_up_to()?, account.ticks_floor()));
    }
    let device = account.device(account.place_of(device)?)?;
    Some((device.floor, device.log_floor))
}

/// Whether the log has a ticks' floor that says of the mail at a place that it owes nothing.
fn has_ticks_floor(account: &Account, seq: Seq) -> bool {
    account.mailbox.is_settled(seq) && account.ticks_floor().persisted >= seq
}

/// How many floors go into the log with the mail at a place.
pub(crate) fn floor_count_of(account: &Account, seq: Seq) -> usize {
    let devices = account.devices().filter(|device| device.floor >= seq).count();
    devices + usize::from(has_ticks_floor(account, seq))
}

/// None if the device was revoked meanwhile.
fn floor_mut(accounts: &mut Accounts, index: AccountIndex, device: DeviceId) -> Option<&mut Floor> {
    let account = accounts.get_mut(index)?;
    if device == DeviceId::TICKS {
        return Some(account.ticks_floor_mut());
    }
    let place = account.place_of(device)?;
    account.device_mut(place).map(|device| &mut device.log_floor)
}

/// Bytes of copies in one commit, the last one not counted: they go along with traffic and must not make it wait.
pub(crate) const BATCH_BYTES: usize = 64 << 10;

impl Shard {
    /// Starts a commit if one may start and something is due.
    pub(crate) fn try_commit(&mut self, now: Now, out: &mut Outputs) {
        self.wake_waiters(now, out);
        self.skip_needless_mail();
        if self.writer.next_deadline().is_none_or(|due_ns| due_ns > now.mono_ns) {
            return;
        }
        // Without room for more than copies nothing else is begun: what waits for it must not use their room.
        let mut has_room = self.writer.log.has_room();
        let Writer {
            log,
            urgent,
            lazy,
            floors,
            carried,
            ops,
            scratch,
            urgent_taken,
            id_records,
            rewrites,
            rewrites_are_due,
            ..
        } = &mut self.writer;
        let mut sources = Sources {
            accounts: &mut self.accounts,
            cache: &self.cache,
            dedup: &self.dedup,
            id_records,
            epoch: self.epoch,
            tickets_after_s: self.tickets_after_s,
            damage: &self.damage,
            returned: &mut self.returned,
            scratch,
            avoided_count: 0,
        };
        let mut commit = log.begin(&mut out.arena);
        let mut take = |item: Item, is_lazy: bool| -> Result<(), Item> {
            let put = sources.put(&mut commit, &item, carried);
            if is_lazy && put.is_ok() {
                sources.leaves_lazy_queue(&item);
            }
            match put {
                Ok(Some(Carrying { position, id, floor })) => {
                    let mail =
                        if let &Item::Mail { account, seq } = &item { Some((account, seq)) } else { None };
                    carried.push(Carried { item, position, id, floor });
                    if let Some((account, seq)) = mail {
                        sources.put_floors_behind(&mut commit, account, seq, carried);
                    }
                    Ok(())
                }
                Ok(None) => Ok(()),
                Err(NoRoom) => Err(item),
            }
        };
        while has_room && let Some(item) = urgent.pop_front() {
            match take(item, false) {
                Ok(()) => *urgent_taken += 1,
                Err(item) => {
                    urgent.push_front(item);
                    has_room = false;
                }
            }
        }
        while has_room && lazy.front().is_some_and(|item| item.0 <= now.mono_ns) {
            let Some((due_ns, account, seq)) = lazy.pop_front() else { break };
            if take(Item::Mail { account, seq }, true).is_err() {
                lazy.push_front((due_ns, account, seq));
                has_room = false;
            }
        }
        while has_room && floors.front().is_some_and(|item| item.0 <= now.mono_ns) {
            let Some((due_ns, account, device)) = floors.pop_front() else { break };
            if take(Item::Floor { account, device }, false).is_err() {
                floors.push_front((due_ns, account, device));
                has_room = false;
            }
        }
        let bytes_before = commit.bytes();
        let mut has_copies = false;
        while *rewrites_are_due
            && commit.bytes() < bytes_before + BATCH_BYTES
            && let Some(item) = rewrites.pop_front()
        {
            match sources.put(&mut commit, &item, carried) {
                Ok(Some(Carrying { position, id, floor })) => {
                    carried.push(Carried { item, position, id, floor });
                    has_copies = true;
                }
                Ok(None) => {}
                Err(NoRoom) => {
                    rewrites.push_front(item);
                    break;
                }
            }
        }
        *rewrites_are_due &= !rewrites.is_empty();
        self.counters.log_rewritten_bytes += (commit.bytes() - bytes_before) as u64;
        let started = commit.finish(ops);
        self.counters.writes_avoided += sources.avoided_count;
        if let Some(number) = started.filter(|_| has_copies) {
            self.writer.copies_in = number;
        }
        self.writer.emit(out);
        self.writer.started_ns = now.mono_ns;
        if started.is_none() && self.writer.rewrites_are_due {
            self.give_up_rewriting();
        }
        if started.is_none() {
            // Everything that was due had become needless.
            self.committed(now, out);
        }
    }

    /// Forgets mail at the front of the lazy queue that every device has acknowledged meanwhile: a deadline at which
    /// there is nothing to write would end a sleep for nothing.
    fn skip_needless_mail(&mut self) {
        while let Some(&(_, index, seq)) = self.writer.lazy.front() {
            if let Some(account) = self.accounts.get_mut(index) {
                let entry = account.mailbox.find(seq);
                if entry.is_some_and(|entry| !entry.waiting.is_empty() && entry.mail.is_some()) {
                    return;
                }
                account.lazy_count -= 1;
            }
            self.writer.lazy.pop_front();
            self.counters.writes_avoided += 1;
        }
    }

    /// A disk operation ended.
    pub(crate) fn disk_done(&mut self, now: Now, done: DiskDone, out: &mut Outputs) {
        let event = self.writer.log.disk_done(done, &mut self.writer.ops);
        self.writer.emit(out);
        match event {
            Some(LogEvent::Committed(number)) => {
                self.writer.durable = number;
                self.measures.commit.record(now.mono_ns.saturating_sub(self.writer.started_ns));
                self.committed(now, out);
            }
            Some(LogEvent::Failed(error)) => out.push(Output::Fatal(FatalError::LogWrite(error))),
            // The epoch may be under way in a segment that is there: a full drive can still be emptied by its phones.
            Some(LogEvent::Full)
                if !self.serving && self.writer.carried.is_empty() && self.writer.log.is_full() =>
            {
                out.push(Output::Fatal(FatalError::LogFullAtBoot));
            }
            Some(LogEvent::Full) => self.give_up_waiting(out),
            Some(LogEvent::SpaceBack) | None => {}
        }
        let stats = self.writer.log.stats();
        self.counters.log_commits = stats.commits;
        self.counters.log_bytes_written = stats.bytes_written;
        self.counters.segments_used_now = u64::from(stats.segments_used);
        self.counters.segments_free_now = u64::from(stats.segments_free);
    }

    /// The commit that was under way is durable: ticks go out, waiters go on.
    fn committed(&mut self, now: Now, out: &mut Outputs) {
        let mut carried = core::mem::take(&mut self.writer.carried);
        for Carried { item, position, id, floor } in carried.drain(..) {
            match item {
                Item::Mail { account, seq } => {
                    self.writer.turn_ids(position);
                    let ids_per_record = self.writer.ids_per_record;
                    id.into_iter().for_each(|id| self.writer.segment_ids.push(id, ids_per_record));
                    self.mail_is_durable(now, account, seq, position);
                }
                Item::Floor { account, device } => self.floor_is_durable(account, device, floor, position),
                Item::Account(index) => {
                    if let Some(account) = self.accounts.get_mut(index) {
                        self.writer.log.live(position);
                        let old = account.position.replace(position);
                        old.into_iter().for_each(|old| self.writer.log.dead(old));
                    }
                }
                Item::Gone(index) => self.account_is_gone(index, position),
                Item::Epoch => {
                    self.writer.log.live(position);
                    if let Some(old) = self.writer.epoch_position.replace(position) {
                        self.writer.log.dead(old);
                    }
                }
                Item::Ids { groups, unpin } => {
                    self.writer.ids_are_live(groups, position);
                    if let Some(unpin) = unpin {
                        self.writer.log.dead(unpin);
                    }
                }
                Item::RewrittenMail { account, seq } => self.mail_is_rewritten(account, seq, position),
                Item::RewrittenFloor { account, device } => {
                    self.floor_is_durable(account, device, floor, position);
                }
                Item::RewrittenIds(old) => self.writer.ids_are_rewritten(old, position),
                Item::RewrittenGone(range) => self.writer.gone_is_live(range, position),
            }
        }
        self.writer.carried = carried;
        self.writer.urgent_done = self.writer.urgent_taken;
        self.writer.note_freed();
        self.wake_waiters(now, out);
    }

    /// Lets those go on whose items are all durable, or who had none to wait for.
    fn wake_waiters(&mut self, now: Now, out: &mut Outputs) {
        while self.writer.waiters.front().is_some_and(|waiter| waiter.0 <= self.writer.urgent_done) {
            let Some((_, waiter)) = self.writer.waiters.pop_front() else { break };
            self.wake(now, waiter, out);
        }
    }

    /// Forgets those whose connections have gone while the log took nothing, when there are twice as many waiters as were
    /// left the last time.
    pub(crate) fn forget_waiters(&mut self) {
        if self.writer.waiters.len() < self.writer.waiters_look_at_count {
            return;
        }
        let mut waiters = core::mem::take(&mut self.writer.waiters);
        waiters.retain(|(_, waiter)| match waiter {
            Waiter::Welcome { conn, .. } | Waiter::Begin { conn } => self.edges.waits_for_log(*conn),
            Waiter::Devices((id, conn)) => {
                self.sessions.get(*id).is_some_and(|session| session.conn == *conn)
            }
            Waiter::Reply { .. }
            | Waiter::Added { .. }
            | Waiter::Revoked(_)
            | Waiter::Removed(_)
            | Waiter::Serving => true,
        });
        self.writer.waiters_look_at_count = (2 * waiters.len()).max(KEPT_COUNT);
        waiters.shrink_to(self.writer.waiters_look_at_count);
        self.writer.waiters = waiters;
    }

    fn wake(&mut self, now: Now, waiter: Waiter, out: &mut Outputs) {
        match waiter {
            Waiter::Reply { token, reply } => out.push(Output::Reply { token, reply }),
            Waiter::Welcome { conn, account, device, needs_key } => {
                self.greet(now, conn, account, device, None, needs_key);
                self.welcomed(now, conn, out);
            }
            Waiter::Begin { conn } => self.begin(now, conn, out),
            Waiter::Added { account, device, asker } => self.device_is_added(account, device, asker),
            Waiter::Revoked(revocation) => self.device_is_revoked(revocation),
            Waiter::Removed(removal) => self.removal_is_over(removal, out),
            Waiter::Devices(asker) => self.tell_devices(asker),
            Waiter::Serving => {
                self.serving = true;
                out.push(Output::Serving);
            }
        }
    }

    fn floor_is_durable(&mut self, account: AccountIndex, device: DeviceId, up_to: Seq, position: Position) {
        let used = self.writer.use_of(position.segment);
        let Some(floor) = floor_mut(&mut self.accounts, account, device) else { return };
        floor.persisted = up_to;
        floor.queued = false;
        let old = floor.moved(position, used);
        self.writer.log.floor_live(position);
        if let Some((old, used)) = old {
            self.writer.floor_dead(old, used);
        }
        self.queue_floor(account, device);
    }

    /// Queues a device's floor (or the ticks' one) if the log does not know it and should.
    pub(crate) fn queue_floor(&mut self, index: AccountIndex, device: DeviceId) {
        let due_ns = self.now.mono_ns + self.config.limits.floor_delay_ms * 1_000_000;
        let Some(account) = self.accounts.get_mut(index) else { return };
        if device == DeviceId::TICKS {
            account.mailbox.note_settled();
        }
        let Some((up_to, log_floor)) = floor_of(account, device) else { return };
        if log_floor.queued || !account.mailbox.floor_matters(log_floor.persisted, up_to) {
            return;
        }
        if let Some(floor) = floor_mut(&mut self.accounts, index, device) {
            floor.queued = true;
            self.writer.push_floor(due_ns, index, device);
        }
    }

    /// Queues the floors of all devices.
    pub(crate) fn queue_floors(&mut self, index: AccountIndex) {
        for place in 0..DEVICES_MAX {
            let device = self.accounts.get(index).and_then(|account| account.device(place));
            if let Some(device) = device.map(|device| device.id) {
                self.queue_floor(index, device);
            }
        }
    }

    /// What is still waiting when a mailbox goes away.
    pub(crate) fn forget_floor(&mut self, floor: Floor) {
        if let Some((position, used)) = floor.position() {
            self.writer.floor_dead(position, used);
        }
    }
}
