//! What a phone must have when it is told that its mailbox was empty: it may have come only to fetch that, and close.

use crate::oracle::{Message, Oracle};
use tern_protocol::envelope::Kind;
use tern_protocol::ids::{AccountId, DeviceId, MessageId};

impl Oracle {
    /// A device is told that its mailbox was empty, on a connection that it began at `began_ms`, wall milliseconds. What was
    /// safe before that it has acknowledged, or got on this connection: `has_come` tells, by kind and by whom it is from, or
    /// of a copy whom to.
    ///
    /// # Errors
    /// It lacks a message, or the copy of one.
    pub fn fetched(
        &self,
        account: usize,
        device: DeviceId,
        began_ms: u64,
        has_come: impl Fn(Kind, AccountId, MessageId) -> bool,
    ) -> Result<(), String> {
        let Some(own) = self.devices.find(account, device).filter(|device| device.stays()) else {
            return Ok(());
        };
        let lacks = |&serial: &usize| {
            let message = &self.messages[serial];
            let was_safe = message.sent_ms.is_some_and(|sent_ms| sent_ms < began_ms);
            if !was_safe || !own.is_older_than(serial) || self.is_lapsed(serial) {
                return false;
            }
            let Some((kind, peer)) = self.kind_for(message, account, device) else { return false };
            let is_copy = kind == Kind::Copy;
            let by = if is_copy { &message.copy_acknowledged_by } else { &message.acknowledged_by };
            let id = self.accounts[peer].id;
            !own.is_in(by) && !id.is_some_and(|peer| has_come(kind, peer, message.id))
        };
        match (0..self.messages.len()).find(lacks) {
            Some(serial) => Err(format!(
                "{device:?} of account {account} was told that its mailbox was empty, and lacks what came of message {serial}"
            )),
            None => Ok(()),
        }
    }

    /// What a device gets of a message, if anything, and the account that it is told with it.
    fn kind_for(&self, message: &Message, account: usize, device: DeviceId) -> Option<(Kind, usize)> {
        let is_senders = self.devices.0[message.phone].id == Some(device);
        if message.to == account {
            Some((Kind::Message, message.from))
        } else if message.from == account && !is_senders {
            Some((Kind::Copy, message.to))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: DeviceId = DeviceId(1);
    const SECOND: DeviceId = DeviceId(2);

    /// Account 0, with id 1 and two devices, and account 1, with id 2 and one.
    fn world() -> Oracle {
        let mut oracle = Oracle::default();
        for (account, name) in ["a", "b"].into_iter().enumerate() {
            oracle.add_account(name.into());
            oracle.learn_id(account, AccountId(account as u64 + 1)).unwrap();
        }
        for (account, device) in [(0, FIRST), (0, SECOND), (1, FIRST)] {
            oracle.devices.add(account, [account as u8; 32], Some(device));
        }
        oracle
    }

    #[test]
    fn what_was_safe_before_a_phone_came_is_there_or_acknowledged() {
        let mut oracle = world();
        let serial = oracle.compose(0, 1, MessageId(1), 5_000, b"");
        let nothing = |_, _, _| false;
        oracle.fetched(1, FIRST, 9_000, nothing).unwrap();
        oracle.messages[serial].sent_ms = Some(9_000);
        oracle.fetched(1, FIRST, 9_000, nothing).unwrap();
        assert!(oracle.fetched(1, FIRST, 9_001, nothing).unwrap_err().contains("mailbox was empty"));
        let has_come = |kind, from, id| (kind, from, id) == (Kind::Message, AccountId(1), MessageId(1));
        oracle.fetched(1, FIRST, 9_001, has_come).unwrap();
        oracle.acknowledged(serial, FIRST, 1);
        oracle.fetched(1, FIRST, 9_001, nothing).unwrap();
    }

    #[test]
    fn so_is_the_copy_of_what_another_device_sent() {
        let mut oracle = world();
        let serial = oracle.compose(0, 1, MessageId(1), 5_000, b"");
        oracle.messages[serial].sent_ms = Some(8_000);
        let nothing = |_, _, _| false;
        oracle.fetched(0, FIRST, 9_000, nothing).unwrap();
        assert!(oracle.fetched(0, SECOND, 9_000, nothing).is_err());
        let has_come = |kind, to, _| (kind, to) == (Kind::Copy, AccountId(2));
        oracle.fetched(0, SECOND, 9_000, has_come).unwrap();
        oracle.messages[serial].copy_acknowledged_by.insert(SECOND.0);
        oracle.fetched(0, SECOND, 9_000, nothing).unwrap();
    }

    #[test]
    fn nothing_is_owed_to_who_is_leaving_or_came_later_or_of_what_has_lapsed() {
        let mut oracle = world();
        let serial = oracle.compose(2, 0, MessageId(1), 5_000, b"");
        oracle.messages[serial].sent_ms = Some(8_000);
        let lacks = |oracle: &Oracle| oracle.fetched(0, SECOND, 9_000, |_, _, _| false).is_err();
        assert!(lacks(&oracle));
        oracle.devices.0[1].revoke_asked = true;
        assert!(!lacks(&oracle));
        oracle.devices.0[1].revoke_asked = false;
        oracle.devices.0[1].since = Some(serial + 1);
        assert!(!lacks(&oracle));
        oracle.devices.0[1].since = Some(serial);
        assert!(lacks(&oracle));
        (oracle.kept_ms, oracle.now_ms) = (Some(1_000), 9_000);
        assert!(!lacks(&oracle));
    }
}
