//! The devices of an account: which there are, more of them, fewer of them.
//!
//! A revoked device is gone at once: no session, no login, no new mail. What waited for it lets go of it only when the
//! account's record without it is durable, for a crash before that brings the device back, with its mail (but
//! not with what came after the revoking and was acknowledged by all others before its commit: nobody was to keep it for
//! that device). A crash after it leaves mail nothing to wait for, since recovery waits only for devices that there are;
//! ticks that only the device was to get go to the others then, as those do that come later. A mailbox may be long, so
//! the letting go is done in pieces, turn by turn, with everybody else between them.

use crate::account::{AccountIndex, Floor};
use crate::io::{ConnId, Now};
use crate::session::SessionId;
use crate::shard::Shard;
use crate::writer::{Item, Waiter};
use alloc::vec::Vec;
use tern_protocol::ids::{DeviceId, Seq};
use tern_protocol::phone::frame::{DeviceInfo, DeviceList, ErrorCode, GoodbyeReason, ServerFrame};
use tern_storage::mailbox::{DeviceSet, EntryKind, TickState};

/// A revoked device that entries of its mailbox may still wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    account: AccountIndex,
    /// Where it was. Another device may be there by now, whose mail begins behind `end`.
    place: usize,
    /// Entries up to here have let go of it.
    done: Seq,
    /// The last place that may wait for it.
    end: Seq,
    log_floor: Floor,
}

impl Shard {
    /// Tells a phone the devices of its account, if it is still there.
    pub(crate) fn tell_devices(&mut self, id: SessionId, conn: ConnId) {
        let Some(session) = self.sessions.get(id).filter(|session| session.conn == conn) else { return };
        let Some(account) = self.accounts.get(session.account) else { return };
        let mut bytes = Vec::new();
        let infos = account.devices().map(|device| DeviceInfo {
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
        let Some(session) = self.sessions.get(id) else { return };
        let (conn, index) = (session.conn, session.account);
        // Places before this one were given out before the device was there.
        let since = Seq(self.next_seq.0 - 1);
        let is_low = self.writer.log.is_low() || self.draining;
        let Some(account) = self.accounts.get_mut(index) else { return };
        if account.place_of_key(&key).is_none() {
            let code = if is_low {
                Some(ErrorCode::Internal)
            } else if key == [0; 32] {
                Some(ErrorCode::WrongKey)
            } else if account.add_device(key, since).is_none() {
                Some(ErrorCode::AccountFull)
            } else {
                None
            };
            if let Some(code) = code {
                self.say(conn, &ServerFrame::DevicesRefused { code });
                return;
            }
            self.counters.devices_added += 1;
            self.writer.push_urgent(Item::Account(index));
        }
        self.writer.wait(Waiter::Devices { session: id, conn });
    }

    /// The phone takes a device off its account.
    pub(crate) fn session_revoke_device(&mut self, id: SessionId, device: DeviceId) {
        let Some(session) = self.sessions.get(id) else { return };
        let (conn, index) = (session.conn, session.account);
        let Some(account) = self.accounts.get(index) else { return };
        let is_last = account.devices().nth(1).is_none();
        let refusal = match account.place_of(device) {
            None => Some(ErrorCode::UnknownDevice),
            Some(_) if is_last => Some(ErrorCode::LastDevice),
            Some(_) if self.draining => Some(ErrorCode::Internal),
            Some(place) => {
                self.revoke_device(index, place);
                None
            }
        };
        if let Some(code) = refusal {
            self.say(conn, &ServerFrame::DevicesRefused { code });
            return;
        }
        self.writer.wait(Waiter::Devices { session: id, conn });
    }

    /// Takes a device away: its session ends, its tickets are worth nothing, and soon nothing waits for it any more.
    fn revoke_device(&mut self, index: AccountIndex, place: usize) {
        let session = self.accounts.device_mut(index, place).and_then(|device| device.session);
        if let Some(conn) = session.and_then(|id| self.sessions.get(id)).map(|session| session.conn) {
            self.goodbye(conn, GoodbyeReason::Removed, 0);
        }
        let Some(account) = self.accounts.get_mut(index) else { return };
        let Some(device) = account.take_device(place) else { return };
        self.counters.devices_revoked += 1;
        self.writer.push_urgent(Item::Account(index));
        let (done, end, log_floor) = (Seq(0), Seq(self.next_seq.0 - 1), device.log_floor);
        self.writer.wait(Waiter::Revoked(Leaving { account: index, place, done, end, log_floor }));
    }

    /// The device is gone for good: its mailbox may let go of it.
    pub(crate) fn revoked(&mut self, leaving: Leaving) {
        self.forget_floor(leaving.log_floor);
        self.leaving.push_back(leaving);
    }

    /// A piece of what revoked devices have left to do: at most a step's budget of entries, mailboxes in turns.
    pub(crate) fn let_go(&mut self, now: Now) {
        let Some(mut leaving) = self.leaving.pop_front() else { return };
        let (index, place) = (leaving.account, leaving.place);
        // Unless the whole account is gone by now.
        let Some(account) = self.accounts.get_mut(index) else { return };
        let first = account.mailbox.index_above(leaving.done);
        let end = account.mailbox.index_above(leaving.end);
        let piece_end = end.min(first + self.config.limits.step_budget as usize);
        let last = piece_end.checked_sub(1).and_then(|last| account.mailbox.at(last));
        leaving.done = last.map_or(leaving.done, |entry| entry.seq);
        if piece_end < end {
            self.leaving.push_back(leaving);
        }
        for entry_index in first..piece_end {
            self.stop_waiting(now, index, entry_index, place);
        }
        self.drop_over(index);
    }

    /// An entry waits for the device at `place` no longer. If it waits for nobody else, it is over; a tick that nobody
    /// earned by then will not come.
    fn stop_waiting(&mut self, now: Now, index: AccountIndex, entry_index: usize, place: usize) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        let Some(entry) = account.mailbox.at_mut(entry_index) else { return };
        if !entry.waiting.has(place) {
            return;
        }
        entry.waiting.0 &= !DeviceSet::one(place).0;
        if !entry.waiting.is_empty() {
            return;
        }
        if entry.tick == TickState::NotDue {
            entry.tick = TickState::Settled;
        }
        let (seq, kind, mail) = (entry.seq, entry.kind, entry.mail.take());
        let origin = mail.map_or(0, |mail| self.origin_of(mail));
        mail.into_iter().for_each(|mail| self.cache.remove(mail));
        if kind == EntryKind::Message {
            self.answer_if_over(now, index, seq);
        } else {
            self.is_safe(now, index, seq, origin);
        }
    }
}
