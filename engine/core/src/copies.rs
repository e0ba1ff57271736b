//! Copies of what one device sent, for the account's other devices: in the sender's own mailbox before the message
//! goes on, so that a `sent` tick means that they are safe as well.

use crate::account::AccountIndex;
use crate::dedup::Age;
use crate::home::Ends;
use crate::io::Now;
use crate::shard::Shard;
use core::mem::take;
use tern_protocol::envelope::{Envelope, FLAG_ANSWER_ONLY, Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId};
use tern_protocol::phone::frame::ServerFrame;
use tern_storage::mailbox::EntryKind;

impl Shard {
    /// Puts a copy of a message into its sender's mailbox, if the sender has other devices and the copy is not there
    /// since an earlier try. False: there is no room for it.
    pub(crate) fn append_copy(&mut self, now: Now, index: AccountIndex, message: &mut Parts<'_>) -> bool {
        let has_others = self.accounts.get(index).is_some_and(|account| account.devices().nth(1).is_some());
        if !has_others {
            return true;
        }
        let copy = Parts {
            kind: Kind::Copy,
            flags: 0,
            to: message.from,
            from: message.to,
            seq: 0,
            from_name: "",
            ..*message
        };
        let made_s = copy.id.unix_s();
        let hash = self.dedup.hash(copy.to, copy.from, copy.id, EntryKind::Copy);
        if self.dedup.has(made_s, hash) {
            return true;
        }
        // Whether there was a copy nobody knows, and there will be none. The recipient's home may remember for longer, and
        // only if it has the message already may it say anything else than that it is too late.
        if self.dedup.age(made_s, (now.wall_ms / 1000) as u32) != Age::Known {
            message.flags |= FLAG_ANSWER_ONLY;
            return true;
        }
        if let Some(why) = self.no_room_for(index, EntryKind::Copy, copy.from, copy.encoded_bytes()) {
            self.count_no_room(why);
            return false;
        }
        let mut bytes = take(&mut self.writer.scratch);
        bytes.clear();
        copy.encode(&mut bytes);
        let envelope = Envelope::parse(&bytes).expect("encoded just now");
        let appended = self.append(now, index, envelope);
        self.writer.scratch = bytes;
        if appended {
            self.dedup.insert_new(made_s, hash);
        }
        appended
    }

    /// Whether a message that was sent before has its copy, where the sender has other devices. Without it no `sent` may come.
    pub(crate) fn has_copy(&self, index: AccountIndex, ends: Ends, id: MessageId) -> bool {
        let has_others = self.accounts.get(index).is_some_and(|account| account.devices().nth(1).is_some());
        let hash = self.dedup.hash(ends.from, ends.to, id, EntryKind::Copy);
        !has_others || self.dedup.has(id.unix_s(), hash)
    }

    /// Whether the `sent` tick that passes by has to wait for the commit of the message's copy. Then the copy's entry
    /// remembers it.
    pub(crate) fn sent_waits_for_copy(&mut self, envelope: Envelope<'_>) -> bool {
        let Some(index) = self.accounts.by_id(envelope.to()) else { return false };
        let Some(account) = self.accounts.get_mut(index) else { return false };
        let copy = account.uncommitted_copy(envelope.from(), envelope.id());
        copy.and_then(|seq| account.mailbox.change(seq, |entry| entry.answered = true)).is_some()
    }

    /// A copy is on stable storage or with all other devices: the ticks that waited for it go on. `sent` is the message
    /// whose final answer that is, by its recipient and id.
    pub(crate) fn copy_is_safe(
        &mut self,
        now: Now,
        index: AccountIndex,
        device: DeviceId,
        sent: Option<(AccountId, MessageId)>,
    ) {
        let place = self.accounts.get(index).and_then(|account| account.place_of(device));
        let device = place.and_then(|place| self.accounts.device_mut(index, place));
        let Some(session) = device.and_then(|device| device.session) else { return };
        let Some(conn) = self.sessions.get(session).map(|session| session.conn) else { return };
        if let Some((to, id)) = sent {
            self.say(conn, &ServerFrame::Sent { id });
            self.counters.ticks_sent += 1;
            let took_ns = self.session_is_done_with(now, session, to, id);
            took_ns.into_iter().for_each(|ns| self.measures.sent.record(ns));
        }
        self.deliver(now, session);
    }
}
