//! Accounts go.
//!
//! An account that is to be removed loses its sessions at once, and nobody may log in to it. But it stays, and takes
//! mail, until a record of its removal is on stable storage: a crash before that brings it back, and then it has missed
//! nothing. From that record on it is there for nobody: who asked is answered, its devices are told, its name is free,
//! and who sends to it hears that it is unknown. Only then its records die: before that, a segment that they alone keep
//! must not be used again. Its mailbox may be long, so it is emptied in pieces, turn by turn, with everybody else between
//! them. A drive that takes no record makes who asked hear so, and the account stays.

use crate::account::{AccountIndex, Revoking};
use crate::control::ControlReply;
use crate::devices::Leaving;
use crate::io::{ConnId, Output, Outputs};
use crate::shard::{Shard, bug};
use crate::writer::{GoneRange, Item, Waiter};
use alloc::vec::Vec;
use core::mem::take;
use tern_protocol::phone::frame::GoodbyeReason;
use tern_storage::log::Position;
use tern_storage::mailbox::{DEVICES_MAX, Mailbox};

/// The removal of an account, which waits for its record.
#[derive(Debug)]
pub(crate) struct Removal {
    /// Whom to answer.
    token: u64,
    account: AccountIndex,
    /// The connections that its devices had.
    dismissed: Vec<ConnId>,
}

impl Shard {
    /// The control plane wants an account removed.
    pub(crate) fn remove_account(&mut self, token: u64, name: &str, out: &mut Outputs) {
        let Some(index) = self.accounts.by_name(name) else {
            // A name is there until its removal is on stable storage.
            out.push(Output::Reply { token, reply: ControlReply::Removed(false) });
            return;
        };
        // Unlike new mail it may use the last of the drive: it gives back more than it takes.
        if self.writer.log.is_full() {
            out.push(Output::Reply { token, reply: ControlReply::Refused });
            return;
        }
        let Some(account) = self.accounts.get_mut(index) else { return };
        // Asked twice, both wait for the one record.
        if account.removing == Revoking::No {
            account.removing = Revoking::Asked;
            self.writer.push_urgent(Item::Gone(index));
        }
        let dismissed = self.dismiss_all(index);
        self.writer.wait(Waiter::Removed(Removal { token, account: index, dismissed }));
        if bug!(self, removing_told_early) {
            out.push(Output::Reply { token, reply: ControlReply::Removed(true) });
        }
    }

    /// Ends all sessions of an account; their connections.
    fn dismiss_all(&mut self, index: AccountIndex) -> Vec<ConnId> {
        let mut dismissed = Vec::new();
        for place in 0..DEVICES_MAX {
            let session = self.accounts.device_mut(index, place).and_then(|device| device.session);
            dismissed.extend(session.and_then(|id| self.sessions.get(id)).map(|session| session.conn));
        }
        dismissed.iter().for_each(|&conn| self.dismiss(conn));
        dismissed
    }

    /// The record of an account's removal is on stable storage, at `position`. It is kept for good, with its neighbours'
    /// in the end: the id must never be given out again, and older records must stay dead.
    pub(crate) fn account_is_gone(&mut self, index: AccountIndex, position: Position) {
        let account = self.accounts.remove(index).expect("an account is there until its removal is stable");
        self.writer.gone_is_live(GoneRange { first: account.id, last: account.id }, position);
        account.position.into_iter().for_each(|record| self.writer.log.dead(record));
        let ticks_floor = account.ticks_floor();
        for floor in account.devices().map(|device| device.log_floor).chain([ticks_floor]) {
            self.forget_floor(floor);
        }
        self.watches.count -= account.presence.watch_count();
        if !account.mailbox.is_empty() {
            self.counters.mailboxes_filled_now -= 1;
            self.leaving.push_back(Leaving::Mailbox(account.mailbox));
        }
    }

    /// An account that somebody wanted removed is gone for good.
    pub(crate) fn removal_is_over(&mut self, removal: Removal, out: &mut Outputs) {
        self.tell_dismissed(&removal.dismissed, GoodbyeReason::Removed, 0);
        out.push(Output::Reply { token: removal.token, reply: ControlReply::Removed(true) });
    }

    fn tell_dismissed(&mut self, conns: &[ConnId], reason: GoodbyeReason, retry_ms: u32) {
        for &conn in conns {
            if self.edges.is_dismissed(conn) {
                self.goodbye(conn, reason, retry_ms);
            }
        }
    }

    /// The log takes nothing more: removals that no record speaks of are given up, and those who asked hear it.
    pub(crate) fn give_up_removing(&mut self, out: &mut Outputs) {
        let mut waiters = take(&mut self.writer.waiters);
        waiters.retain(|(_, waiter)| match waiter {
            Waiter::Removed(removal) => !self.keeps_account(removal, out),
            _ => true,
        });
        self.writer.waiters = waiters;
    }

    /// Gives up to remove an account, if that can be done: all is as it was.
    fn keeps_account(&mut self, removal: &Removal, out: &mut Outputs) -> bool {
        let Some(account) = self.accounts.get_mut(removal.account) else { return false };
        if account.removing == Revoking::Written {
            return false;
        }
        account.removing = Revoking::No;
        let retry_ms = self.busy_ms();
        self.tell_dismissed(&removal.dismissed, GoodbyeReason::Busy, retry_ms);
        out.push(Output::Reply { token: removal.token, reply: ControlReply::Refused });
        true
    }

    /// Empties the mailbox of an account that is gone: at most so many entries, the rest later. How many it were.
    pub(crate) fn let_mail_go(&mut self, mut mailbox: Mailbox, count_max: usize) -> usize {
        for done in 0..count_max {
            let Some(entry) = mailbox.pop_any() else { return done };
            self.counters.mail_count_now -= 1;
            entry.position.into_iter().for_each(|position| self.writer.log.dead(position));
            entry.mail.into_iter().for_each(|mail| self.cache.remove(mail));
        }
        if !mailbox.is_empty() {
            self.leaving.push_back(Leaving::Mailbox(mailbox));
        }
        count_max
    }
}
