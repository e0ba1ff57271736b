//! The devices of an account: which there are, more of them, fewer of them.
//!
//! A device that is to be revoked loses its session at once and may not come back. But it stays in the sets of entries,
//! old and new ones, until a record of the account without it is on stable storage: a crash before that brings it back,
//! and then it has missed nothing. From that record on nobody keeps anything for it. Who asked is answered, the device
//! is told, and its mailbox lets go of it; a mailbox may be long, so that is done in pieces, turn by turn, with everybody
//! else between them. Recovery waits only for devices that there are. A drive that takes no record makes who asked
//! hear so, and the device stays.

use crate::account::{AccountIndex, Revoking};
use crate::io::{ConnId, Now};
use crate::session::SessionId;
use crate::shard::{Shard, bug};
use crate::writer::{Item, Waiter};
use alloc::vec::Vec;
use core::mem::take;
use tern_protocol::ids::{DeviceId, Seq};
use tern_protocol::phone::frame::{DeviceInfo, DeviceList, ErrorCode, GoodbyeReason, ServerFrame};
use tern_storage::mailbox::{DeviceSet, EntryKind, Mailbox, TickState};

/// The phone that wants to know how a change of devices ended, if it is still there then.
pub(crate) type Asker = (SessionId, ConnId);

/// The revoking of a device, which waits for a record of its account without it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revocation {
    account: AccountIndex,
    device: DeviceId,
    asker: Asker,
    /// The connection that the device had.
    dismissed: Option<ConnId>,
}

/// What is gone on stable storage, and in memory only piece by piece.
#[derive(Debug)]
pub(crate) enum Leaving {
    Device(Revoked),
    /// That of a removed account.
    Mailbox(Mailbox),
}

/// A revoked device that entries of its mailbox may still wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revoked {
    account: AccountIndex,
    /// Where it was. Another device may be there by now, whose mail begins behind `end`.
    place: usize,
    /// Entries up to here have let go of it.
    done: Seq,
    /// The last place that may wait for it.
    end: Seq,
}

/// Logins and changes that may wait for the log before who only asks about a change is refused; some 70
/// bytes each.
const WAITERS_MAX: usize = 4096;

impl Shard {
    /// The phone asks for the devices of its account, or wants to change them. None if it does so too often.
    fn asks_of_devices(&mut self, id: SessionId) -> Option<(ConnId, AccountIndex)> {
        let session = self.sessions.get(id)?;
        let (conn, index, now) = (session.conn, session.account, self.now);
        if self.may_ask(now, index) {
            return Some((conn, index));
        }
        self.say(conn, &ServerFrame::DevicesRefused { code: ErrorCode::Internal });
        None
    }

    /// The phone asks which devices its account has.
    pub(crate) fn session_devices(&mut self, id: SessionId) {
        if let Some((conn, _)) = self.asks_of_devices(id) {
            self.tell_devices((id, conn));
        }
    }

    /// Tells a phone the devices of its account as they are on stable storage, if it is still there.
    pub(crate) fn tell_devices(&mut self, (id, conn): Asker) {
        let Some(session) = self.sessions.get(id).filter(|session| session.conn == conn) else { return };
        let Some(account) = self.accounts.get(session.account) else { return };
        let mut bytes = Vec::new();
        let infos = account.devices().filter(|device| device.is_known).map(|device| DeviceInfo {
            device: device.id,
            online: device.session.is_some(),
            is_this: device.id == session.device,
            key: device.key,
        });
        DeviceList::write(infos, &mut bytes);
        let list = DeviceList::parse(&bytes).expect("written just now");
        self.say(conn, &ServerFrame::Devices { list });
    }

    /// The phone adds a device to its account. Its mail begins now.
    pub(crate) fn session_add_device(&mut self, id: SessionId, key: [u8; 32]) {
        let Some((conn, index)) = self.asks_of_devices(id) else { return };
        let asker = (id, conn);
        // Places before this one were given out before the device was there.
        let since = Seq(self.next_seq.0 - 1);
        let is_low = self.writer.log.is_low() || self.draining;
        let Some(account) = self.accounts.get_mut(index) else { return };
        let there = account.place_of_key(&key).and_then(|place| account.device(place));
        match there.map(|device| device.is_known) {
            Some(true) => return self.tell_devices(asker),
            Some(false) => return self.tell_when_stable(asker),
            None => {}
        }
        // One key is one device's: should the drive take no record, one that is being revoked stays.
        let added = if is_low || account.is_leaving(&key) {
            Err(ErrorCode::Internal)
        } else if key == [0; 32] {
            Err(ErrorCode::WrongKey)
        } else if let Some(code) = account.cannot_add() {
            // The place of one that is being revoked will be free soon.
            let is_soon = code == ErrorCode::AccountFull && account.is_revoking();
            Err(if is_soon { ErrorCode::Internal } else { code })
        } else if !self.adding.may(index, self.now.mono_ns, 1) {
            // Numbers do not come again: nobody may use them up for those who will need one.
            self.counters.refused_devices += 1;
            Err(ErrorCode::TooManyAdded)
        } else {
            account.add_device(key, since)
        };
        match added {
            Ok(device) => {
                self.writer.push_urgent(Item::Account(index));
                self.writer.wait(Waiter::Added { account: index, device, asker });
            }
            Err(code) => self.say(conn, &ServerFrame::DevicesRefused { code }),
        }
    }

    /// Tells a phone its devices once what others asked for is on stable storage. A log that takes nothing for a while
    /// is not to fill the memory with those who ask again and again.
    fn tell_when_stable(&mut self, (id, conn): Asker) {
        if self.writer.waiters.len() < WAITERS_MAX {
            self.writer.wait(Waiter::Devices((id, conn)));
        } else {
            self.counters.refused_waiters += 1;
            self.say(conn, &ServerFrame::DevicesRefused { code: ErrorCode::Internal });
        }
    }

    /// The record that names a new device is on stable storage.
    pub(crate) fn device_is_added(&mut self, index: AccountIndex, device: DeviceId, asker: Asker) {
        let place = self.accounts.get(index).and_then(|account| account.place_of(device));
        if let Some(device) = place.and_then(|place| self.accounts.device_mut(index, place)) {
            device.is_known = true;
            self.counters.devices_added += 1;
        }
        self.tell_devices(asker);
    }

    /// The phone takes a device off its account.
    pub(crate) fn session_revoke_device(&mut self, id: SessionId, device: DeviceId) {
        let Some((conn, index)) = self.asks_of_devices(id) else { return };
        // Unlike new mail it may use the last of the drive: it gives back more than it takes.
        let is_late = self.writer.log.is_full() || self.draining;
        let Some(account) = self.accounts.get(index) else { return };
        let is_last = !account.devices().any(|other| other.id != device && other.stays());
        let refusal = match account.place_of(device) {
            None => ErrorCode::UnknownDevice,
            Some(_) if is_last => ErrorCode::LastDevice,
            Some(_) if is_late => ErrorCode::Internal,
            Some(place) if self.is_going(index, place) => {
                self.tell_when_stable((id, conn));
                return;
            }
            Some(place) => {
                self.revoke_device(index, place, (id, conn));
                return;
            }
        };
        self.say(conn, &ServerFrame::DevicesRefused { code: refusal });
    }

    /// Whether the device at a place is being revoked, or its account removed.
    pub(crate) fn is_going(&self, index: AccountIndex, place: usize) -> bool {
        let account = self.accounts.get(index);
        let is_removing = account.is_some_and(|account| account.removing != Revoking::No);
        is_removing || account.and_then(|account| account.device(place)).is_some_and(|device| !device.stays())
    }

    /// What it waits for is not to be had now.
    pub(crate) fn come_back_later(&mut self, conn: ConnId) {
        let retry_ms = self.busy_ms();
        self.goodbye(conn, GoodbyeReason::Busy, retry_ms);
    }

    /// Begins to revoke a device: its session ends, and its tickets are worth nothing.
    fn revoke_device(&mut self, index: AccountIndex, place: usize, asker: Asker) {
        let Some(device) = self.accounts.device_mut(index, place) else { return };
        device.revoking = Revoking::Asked;
        let (number, session) = (device.id, device.session);
        let dismissed = session.and_then(|id| self.sessions.get(id)).map(|session| session.conn);
        dismissed.into_iter().for_each(|conn| self.dismiss(conn));
        let revocation = Revocation { account: index, device: number, asker, dismissed };
        self.writer.push_urgent(Item::Account(index));
        self.writer.wait(Waiter::Revoked(revocation));
        if bug!(self, revoking_told_early) {
            self.device_is_revoked(revocation);
        }
        if bug!(self, revoked_too_early) {
            self.counters.devices_revoked += u64::from(self.take_device(index, number));
        }
    }

    /// The record of an account without a device is on stable storage.
    pub(crate) fn device_is_revoked(&mut self, revocation: Revocation) {
        let Revocation { account, device, asker, dismissed } = revocation;
        self.counters.devices_revoked += u64::from(self.take_device(account, device));
        if let Some(conn) = dismissed.filter(|&conn| self.edges.is_dismissed(conn)) {
            self.goodbye(conn, GoodbyeReason::Removed, 0);
        }
        self.tell_devices(asker);
    }

    /// Takes a device out of its account, unless one of them is gone; its mailbox may let go of it.
    fn take_device(&mut self, index: AccountIndex, device: DeviceId) -> bool {
        let Some(account) = self.accounts.get_mut(index) else { return false };
        let Some(place) = account.place_of(device) else { return false };
        let Some(device) = account.take_device(place) else { return false };
        self.forget_floor(device.log_floor);
        // What came before it, and what it has acknowledged, does not wait for it.
        let (done, end) = (device.floor, Seq(self.next_seq.0 - 1));
        self.leaving.push_back(Leaving::Device(Revoked { account: index, place, done, end }));
        true
    }

    /// The log takes nothing more: revokings that no record speaks of are given up, and those who asked hear it.
    pub(crate) fn give_up_revoking(&mut self) {
        let mut waiters = take(&mut self.writer.waiters);
        waiters.retain(|(_, waiter)| match waiter {
            &Waiter::Revoked(revocation) => !self.keeps_device(revocation),
            _ => true,
        });
        self.writer.waiters = waiters;
    }

    /// Gives up to revoke a device, if that can be done. It may come back, and has missed nothing.
    fn keeps_device(&mut self, revocation: Revocation) -> bool {
        let Revocation { account: index, device, asker: (id, conn), dismissed } = revocation;
        let place = self.accounts.get(index).and_then(|account| account.place_of(device));
        let Some(device) = place.and_then(|place| self.accounts.device_mut(index, place)) else {
            return false;
        };
        if device.revoking != Revoking::Asked {
            return false;
        }
        device.revoking = Revoking::No;
        if let Some(conn) = dismissed.filter(|&conn| self.edges.is_dismissed(conn)) {
            let retry_ms = self.busy_ms();
            self.goodbye(conn, GoodbyeReason::Busy, retry_ms);
        }
        self.refuse_devices((id, conn));
        true
    }

    /// Tells a phone that what it wants of devices cannot be done now, if it is still there.
    pub(crate) fn refuse_devices(&mut self, (id, conn): Asker) {
        if self.sessions.get(id).is_some_and(|session| session.conn == conn) {
            self.say(conn, &ServerFrame::DevicesRefused { code: ErrorCode::Internal });
        }
    }

    /// Gives up to add a device of which no record is on its way: nobody has logged in with it.
    pub(crate) fn give_up_adding(&mut self, index: AccountIndex, device: DeviceId, asker: Asker) {
        self.take_device(index, device);
        self.refuse_devices(asker);
    }

    /// A piece of what those who are gone have left to do: at most a step's budget of entries, mailboxes in turns. Short
    /// ones are done many in a turn, so that no more can come than go.
    pub(crate) fn let_go(&mut self, now: Now) {
        let mut left = self.config.limits.step_budget as usize;
        while left > 0 {
            let done = match self.leaving.pop_front() {
                Some(Leaving::Device(revoked)) => self.let_go_of_device(now, revoked, left),
                Some(Leaving::Mailbox(mailbox)) => self.let_mail_go(mailbox, left),
                None => return,
            };
            left = left.saturating_sub(done.max(1));
        }
    }

    /// How many entries it was done with, of at most so many.
    fn let_go_of_device(&mut self, now: Now, mut leaving: Revoked, count_max: usize) -> usize {
        let (index, place) = (leaving.account, leaving.place);
        // Unless the whole account is gone by now.
        let Some(account) = self.accounts.get_mut(index) else { return 0 };
        let first = account.mailbox.index_above(leaving.done);
        let end = account.mailbox.index_above(leaving.end);
        let piece_end = end.min(first + count_max);
        let last = piece_end.checked_sub(1).and_then(|last| account.mailbox.at(last));
        leaving.done = last.map_or(leaving.done, |entry| entry.seq);
        if piece_end < end {
            self.leaving.push_back(Leaving::Device(leaving));
        }
        for entry_index in first..piece_end {
            self.stop_waiting(now, index, entry_index, place);
        }
        self.drop_over(index);
        piece_end - first
    }

    /// An entry waits for the device at `place` no longer. If it waits for nobody else, it is over; a tick that nobody
    /// earned by then will not come.
    fn stop_waiting(&mut self, now: Now, index: AccountIndex, entry_index: usize, place: usize) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        let left = account.mailbox.change_at(entry_index, |entry| {
            if !entry.waiting.has(place) {
                return None;
            }
            entry.waiting.0 &= !DeviceSet::one(place).0;
            if !entry.waiting.is_empty() {
                return None;
            }
            if entry.tick == TickState::NotDue {
                entry.tick = TickState::Settled;
            }
            Some((entry.seq, entry.kind, entry.mail.take()))
        });
        let Some((seq, kind, mail)) = left.flatten() else { return };
        let origin = mail.map_or(0, |mail| self.origin_of(mail));
        mail.into_iter().for_each(|mail| self.cache.remove(mail));
        if kind == EntryKind::Message {
            self.answer_if_over(now, index, seq);
        } else {
            self.is_safe(now, index, seq, origin);
        }
    }
}
