//! Room for mail: what keeps a mailbox from taking one more, and what is kept back for whom.

use crate::account::AccountIndex;
use crate::shard::Shard;
use tern_protocol::ids::AccountId;
use tern_storage::mailbox::{Entry, EntryKind};

/// Bytes of memory that a mailbox takes for an entry beside its mail: a list that has just grown is half empty.
const ENTRY_BYTES: usize = 2 * size_of::<Entry>();
/// How many ticks a mailbox may hold, as a multiple of what it may hold of messages: refusing ticks only delays them, and
/// each attempt costs.
const TICK_MARGIN: usize = 4;

/// What keeps a mailbox from taking one more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoRoom {
    /// The shard stops.
    Draining,
    /// As many entries as there may be.
    MailboxCount,
    /// As many bytes.
    MailboxBytes,
    /// Its sender holds more of it than is free.
    Share,
    /// The shard's memory for mail and entries.
    MailBytes,
    /// The log.
    Drive,
    /// Ids of the present fill the memory for ids.
    Ids,
}

impl Shard {
    /// What keeps a mailbox from taking one more, an envelope of `length` bytes, from a sender. Ticks have a margin:
    /// refusing them only delays them. They are taken during a drain too: what they speak of may never have been written.
    pub(crate) fn no_room_for(
        &mut self,
        index: AccountIndex,
        kind: EntryKind,
        from: AccountId,
        length: usize,
    ) -> Option<NoRoom> {
        let limits = &self.config.limits;
        // Ticks empty mailboxes, and so the drive and the memory: they may use the last of both. Copies come next: what
        // others send here must not keep an account from sending to other shards.
        let (is_tick, mail_bytes) = match kind {
            EntryKind::Delivered => (true, limits.mail_bytes),
            EntryKind::Copy => (false, limits.mail_bytes - limits.mail_bytes / 32),
            EntryKind::Message | EntryKind::Read => (false, limits.mail_bytes - limits.mail_bytes / 16),
        };
        let has_memory = self.has_memory_for(length, mail_bytes);
        let count_max = limits.mailbox_count as usize * if is_tick { TICK_MARGIN } else { 1 };
        let Some(account) = self.accounts.get_mut(index) else { return Some(NoRoom::MailboxCount) };
        let mailbox = &mut account.mailbox;
        let is_sent = matches!(kind, EntryKind::Message | EntryKind::Read);
        if mailbox.open_count() >= count_max {
            Some(NoRoom::MailboxCount)
        } else if !is_tick && mailbox.mail_bytes() >= limits.mailbox_bytes {
            Some(NoRoom::MailboxBytes)
        } else if is_sent && !mailbox.has_share_for(from, count_max, limits.mailbox_bytes) {
            Some(NoRoom::Share)
        } else if !has_memory {
            Some(NoRoom::MailBytes)
        } else if is_tick {
            None
        } else if self.draining {
            Some(NoRoom::Draining)
        } else if self.writer.log.is_low() {
            Some(NoRoom::Drive)
        } else {
            self.dedup.is_full().then_some(NoRoom::Ids)
        }
    }

    /// Bytes of memory that all entries take beside their mail.
    const fn entry_bytes(&self) -> usize {
        self.counters.mail_count_now as usize * ENTRY_BYTES
    }

    /// Bytes of memory that all mailboxes take.
    pub(crate) const fn mail_held_bytes(&self) -> usize {
        self.cache.bytes_held() + self.entry_bytes()
    }

    /// Whether so much memory for all mailboxes takes one more envelope and its entry.
    fn has_memory_for(&self, length: usize, mail_bytes: usize) -> bool {
        let left_bytes = mail_bytes.saturating_sub(self.entry_bytes());
        self.cache.bytes_used() < left_bytes && self.cache.has_room(length, left_bytes)
    }

    /// Counts what was refused because the log is low, by what keeps it from growing: one is mended by another limit, the
    /// other by a larger drive.
    pub(crate) fn count_low_log(&mut self) {
        if self.writer.log.has_all_files() {
            self.counters.segments_full += 1;
        } else {
            self.counters.drive_full += 1;
        }
    }

    /// Counts a message that was refused for a limit.
    pub(crate) fn count_no_room(&mut self, why: NoRoom) {
        let counter = match why {
            NoRoom::Draining => return,
            NoRoom::MailboxCount => &mut self.counters.mailbox_full,
            NoRoom::MailboxBytes => &mut self.counters.mailbox_bytes_full,
            NoRoom::Share => &mut self.counters.refused_share,
            NoRoom::MailBytes => &mut self.counters.memory_full,
            NoRoom::Drive => return self.count_low_log(),
            NoRoom::Ids => &mut self.dedup.hit_count,
        };
        *counter += 1;
    }
}
