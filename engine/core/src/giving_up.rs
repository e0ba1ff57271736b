//! Who waits for a log that takes nothing more is told so, and waits no longer: a drive may stay full for long.
//!
//! A device that was to be added is not, unless a record names it. All else comes about once there is room: a ticket is used up, and an account
//! that was made is there for who asks for it again. What is under way is waited for.

use crate::control::ControlReply;
use crate::io::{Output, Outputs};
use crate::shard::Shard;
use crate::writer::Waiter;
use alloc::collections::VecDeque;
use core::mem::take;

impl Shard {
    /// Gives up what was accepted in the moment before a file that was asked for could not be made.
    pub(crate) fn give_up_waiting(&mut self, out: &mut Outputs) {
        if !self.serving || !self.writer.log.is_full() {
            return;
        }
        self.give_up_revoking();
        self.give_up_removing(out);
        let taken = self.writer.urgent_taken;
        let accounts = &self.accounts;
        let stays = |(number, waiter): &(u64, Waiter)| {
            *number <= taken
                || match *waiter {
                    Waiter::Revoked(_) | Waiter::Removed(_) | Waiter::Serving => true,
                    // An earlier record of its account names it already: a crash would bring it back.
                    Waiter::Added { account, device, .. } => accounts.has_written(account, device),
                    _ => false,
                }
        };
        let (waiting, over): (VecDeque<_>, VecDeque<_>) =
            take(&mut self.writer.waiters).into_iter().partition(stays);
        self.writer.waiters = waiting;
        for (_, waiter) in over {
            match waiter {
                Waiter::Reply { token, .. } => {
                    out.push(Output::Reply { token, reply: ControlReply::Refused });
                }
                Waiter::Welcome { conn, .. } | Waiter::Begin { conn } => self.come_back_later(conn),
                Waiter::Added { account, device, asker } => self.give_up_adding(account, device, asker),
                Waiter::Devices(asker) => self.refuse_devices(asker),
                Waiter::Revoked(_) | Waiter::Removed(_) | Waiter::Serving => unreachable!("they stay"),
            }
        }
    }
}
