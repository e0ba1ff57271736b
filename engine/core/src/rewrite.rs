//! Thin segments of the log are left: what still lives in them is written elsewhere, a little at a time, and they are
//! given back.
//!
//! A round goes through everything that the shard keeps, twice: it weighs what lies in sealed segments, and then queues
//! what lies in those that are worth it. The copies are commits like others and go after all
//! else; the old places die when the copies are durable. The log is never read: all that lives is in memory.

use crate::account::{Account, AccountIndex, Accounts, stored};
use crate::commit::{BATCH_BYTES, Carrying, Sources, floor_count_of, floor_of};
use crate::io::Now;
use crate::shard::Shard;
use crate::writer::{Carried, GoneRange, Item, Writer};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use tern_protocol::envelope::{HEADER_BYTES, Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, Seq};
use tern_storage::cache::Cache;
use tern_storage::io::SegmentId;
use tern_storage::log::{Commit, NoRoom, Position, Reach, Record};
use tern_storage::mailbox::{Entry, EntryKind};

/// What one step looks at, each account, message and record; what is found in a segment that counts is looked at twice.
/// About 100 microseconds.
const LOOKS_PER_STEP: usize = 1024;
/// Time between two steps, and the same while the log is short of space.
const STEP_NS: u64 = 20_000_000;
const SHORT_STEP_NS: u64 = 2_000_000;
/// Removed accounts that one record takes the place of at most: as many as one step looks at.
const RANGE_RECORDS_MAX: usize = LOOKS_PER_STEP;

/// Where a round is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    Weigh,
    Queue,
    /// All is queued.
    Wait,
}

/// A round that is under way.
#[derive(Debug)]
pub(crate) struct Rewriting {
    pass: Pass,
    next_account: u32,
    /// What of its mailbox was looked at.
    done: Seq,
    /// The first record of removed accounts that was not looked at.
    next_gone: AccountId,
    /// The first place of ids that was not looked at.
    next_ids: Position,
    /// When it goes on, monotonic nanoseconds.
    due_ns: u64,
    /// Urgent items that were pushed when all was queued: ids of a segment that is left may be among them.
    urgent_count: u64,
}

impl Rewriting {
    const fn new(now: Now) -> Self {
        Self {
            pass: Pass::Weigh,
            next_account: 0,
            done: Seq(0),
            next_gone: AccountId(0),
            next_ids: Position { segment: SegmentId(0), offset: 0 },
            due_ns: now.mono_ns,
            urgent_count: 0,
        }
    }

    pub(crate) const fn due_ns(&self) -> u64 {
        self.due_ns
    }
}

impl Shard {
    /// A part of the chores: begins a round if one pays.
    pub(crate) fn begin_rewriting(&mut self, now: Now) {
        let may_begin = self.serving && !self.draining && self.rewriting.is_none();
        if may_begin && self.writer.log.begin_leaving() {
            self.rewriting = Some(Rewriting::new(now));
        }
    }

    /// One step of the round that is under way, when it is due.
    pub(crate) fn go_on_rewriting(&mut self, now: Now) {
        let Some(mut round) = self.rewriting.take_if(|round| round.due_ns <= now.mono_ns) else { return };
        if self.draining {
            self.give_up_rewriting();
            return;
        }
        let step_ns = if self.writer.log.is_low() { SHORT_STEP_NS } else { STEP_NS };
        round.due_ns = now.mono_ns + step_ns;
        let waits_for_commit = !self.writer.rewrites.is_empty() && self.writer.rewrites_are_due;
        if round.pass == Pass::Wait {
            if self.writer.has_copied(round.urgent_count) {
                self.counters.log_segments_rewritten += u64::from(self.writer.log.end_leaving(true));
                return;
            }
        } else if !waits_for_commit && self.look_further(&mut round) {
            match round.pass {
                Pass::Weigh => {
                    if !self.writer.log.choose_thin() {
                        return;
                    }
                    round = Rewriting { pass: Pass::Queue, due_ns: round.due_ns, ..Rewriting::new(now) };
                }
                Pass::Queue | Pass::Wait => {
                    self.writer.rewrites_are_due = true;
                    (round.pass, round.urgent_count) = (Pass::Wait, self.writer.urgent_pushed);
                }
            }
        }
        self.rewriting = Some(round);
    }

    /// There is no room even for copies, or no time any more: a later round tries again.
    pub(crate) fn give_up_rewriting(&mut self) {
        self.writer.rewrites.clear();
        self.writer.rewrites_are_due = false;
        self.writer.log.end_leaving(false);
        self.rewriting = None;
    }

    /// Mail is written elsewhere: where it was before it is dead.
    pub(crate) fn mail_is_rewritten(&mut self, index: AccountIndex, seq: Seq, position: Position) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        let old = account.mailbox.find(seq).and_then(|entry| entry.position);
        if account.mailbox.set_durable(seq, position) {
            self.writer.log.live(position);
            old.into_iter().for_each(|old| self.writer.log.dead(old));
        }
        self.floors_go_behind(index, seq);
    }

    /// Looks at some more of what the shard keeps; true when it has seen all.
    fn look_further(&mut self, round: &mut Rewriting) -> bool {
        let Self { accounts, writer, cache, returned, .. } = self;
        let queues = round.pass == Pass::Queue;
        let mut found =
            Finds { writer, cache, returned, queues, queued_bytes: 0, looks_left: LOOKS_PER_STEP };
        let is_all =
            found.look_at_accounts(accounts, round) && found.look_at_gone(round) && found.look_at_ids(round);
        if is_all {
            found.look_at_tables();
        }
        found.note_queued();
        is_all
    }
}

/// What a step finds.
struct Finds<'a> {
    writer: &'a mut Writer,
    cache: &'a Cache,
    /// Accounts whose mail takes all their floors along.
    returned: &'a BTreeSet<AccountId>,
    /// The second time: what is found is queued.
    queues: bool,
    queued_bytes: usize,
    looks_left: usize,
}

impl Finds<'_> {
    /// Whether the rest is for the next step.
    const fn is_enough(&self) -> bool {
        self.looks_left == 0 || self.queued_bytes >= BATCH_BYTES
    }

    fn note_look(&mut self) {
        self.looks_left = self.looks_left.saturating_sub(1);
    }

    fn take(&mut self, at: Position, bytes: usize, item: Item) {
        self.note_look();
        if self.queues {
            self.queued_bytes += bytes;
            self.writer.rewrites.push_back(item);
        } else {
            self.writer.log.weigh(at, u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// Enough for a commit is queued: it need not wait for the rest. A few copies alone would fill their blocks badly.
    fn note_queued(&mut self) {
        let held_bytes = self.writer.rewrites.len() * FLOOR_BYTES;
        self.writer.rewrites_are_due |= self.queued_bytes.max(held_bytes) >= BATCH_BYTES;
    }

    /// Looks at accounts; true when it has seen all.
    fn look_at_accounts(&mut self, accounts: &Accounts, round: &mut Rewriting) -> bool {
        while (round.next_account as usize) < accounts.table_len() {
            if self.is_enough() {
                return false;
            }
            self.note_look();
            let index = AccountIndex(round.next_account);
            let is_all =
                accounts.get(index).is_none_or(|account| self.look_at(account, index, &mut round.done));
            if is_all {
                (round.next_account, round.done) = (round.next_account + 1, Seq(0));
            }
        }
        true
    }

    /// Looks at an account and its mailbox behind `done`; true when it has seen all of it. However much is enough, it sees
    /// something of the mailbox.
    fn look_at(&mut self, account: &Account, index: AccountIndex, done: &mut Seq) -> bool {
        // Of an account that loses a device another record is on its way; before it is its turn, none may say so.
        let is_its_turn = *done == Seq(0) && !account.is_revoking();
        let position = account.position.filter(|_| is_its_turn);
        if let Some(position) = position.filter(|&position| self.writer.log.is_leaving(position)) {
            self.writer.scratch.clear();
            stored::encode(account, &mut self.writer.scratch);
            let payload = &self.writer.scratch;
            let bytes = Record::Account { account: account.id, payload }.encoded_bytes();
            self.take(position, bytes, Item::Account(index));
        }
        // Also those that are over and stand behind one that waits.
        for at in account.mailbox.index_above(*done).. {
            let Some(entry) = account.mailbox.at(at) else { break };
            if *done > Seq(0) && self.is_enough() {
                return false;
            }
            *done = entry.seq;
            self.note_look();
            let position = entry.position.filter(|&position| self.writer.log.is_leaving(position));
            if let Some(position) = position {
                let is_back = self.returned.contains(&account.id);
                let all_count = if is_back { account.devices().count() + 1 } else { 0 };
                let floor_count = floor_count_of(account, entry.seq) + all_count;
                let envelope_bytes = entry.mail.map_or(HEADER_BYTES, |mail| self.cache.get(mail).len());
                let bytes = MAIL_BYTES + envelope_bytes + floor_count * FLOOR_BYTES;
                self.take(position, bytes, Item::RewrittenMail { account: index, seq: entry.seq });
            }
        }
        let floors = account.devices().map(|device| (device.id, device.log_floor));
        for (device, floor) in floors.chain([(DeviceId::TICKS, account.ticks_floor())]) {
            if let Some((position, used)) = floor.position()
                && self.writer.use_of(position.segment) == used
                && self.writer.log.is_floor_leaving(position)
            {
                self.take(position, FLOOR_BYTES, Item::RewrittenFloor { account: index, device });
            }
        }
        true
    }

    /// Looks at records of removed accounts; true when it has seen all. Neighbours become one record, so that these
    /// records are never more than there are accounts between them.
    fn look_at_gone(&mut self, round: &mut Rewriting) -> bool {
        while !self.is_enough() {
            self.note_look();
            let next = self.writer.gone.range(round.next_gone..).next();
            let Some((&first, &(mut last, position))) = next else { return true };
            let mut is_leaving = self.writer.log.is_leaving(position);
            if !self.queues {
                round.next_gone = AccountId(last.0 + 1);
                if is_leaving {
                    self.writer.log.weigh(position, GONE_BYTES as u32);
                }
                continue;
            }
            let mut looks_left = self.looks_left;
            let mut beside = self.writer.gone.range(AccountId(last.0 + 1)..).take(RANGE_RECORDS_MAX);
            while let Some((&next, &(next_last, position))) = beside.next()
                && next.0 == last.0 + 1
            {
                looks_left = looks_left.saturating_sub(1);
                last = next_last;
                is_leaving |= self.writer.log.is_leaving(position);
            }
            self.looks_left = looks_left;
            round.next_gone = AccountId(last.0 + 1);
            if is_leaving {
                self.queued_bytes += GONE_BYTES;
                self.writer.rewrites.push_back(Item::RewrittenGone(GoneRange { first, last }));
            }
        }
        false
    }

    /// Looks at records of ids; true when it has seen all.
    fn look_at_ids(&mut self, round: &mut Rewriting) -> bool {
        while !self.is_enough() {
            self.note_look();
            let Some((at, record)) = self.writer.id_records.first_from(round.next_ids) else { return true };
            round.next_ids = Position { offset: at.offset + 1, ..at };
            if self.writer.log.is_leaving(at) {
                let groups = record.groups.as_deref();
                let bytes = groups.map_or(usize::MAX, |groups| Record::Ids { groups }.encoded_bytes());
                self.take(at, bytes, Item::RewrittenIds(at));
            }
        }
        false
    }

    /// Looks at what there is one of: the epoch, and the segment whose ids are still to be written.
    fn look_at_tables(&mut self) {
        let leaving = |writer: &Writer, position| writer.log.is_leaving(position);
        if let Some(position) = self.writer.epoch_position.filter(|&position| leaving(self.writer, position))
        {
            self.take(position, EPOCH_BYTES, Item::Epoch);
        }
        let pinned = self.writer.segment_ids.pinned.filter(|&position| leaving(self.writer, position));
        if self.queues && pinned.is_some() {
            let ids = core::mem::take(&mut self.writer.segment_ids);
            self.writer.push_ids(ids);
        }
    }
}

/// Bytes that a record of mail takes beside its envelope.
pub(crate) const MAIL_BYTES: usize =
    Record::Mail { mailbox: AccountId(0), seq: Seq(0), envelope: &[] }.encoded_bytes();
const FLOOR_BYTES: usize =
    Record::Floor { mailbox: AccountId(0), device: DeviceId(0), up_to: Seq(0) }.encoded_bytes();
const EPOCH_BYTES: usize = Record::EpochAfterDamage {
    epoch: 0,
    tickets_after_s: 0,
    rot_reach: Reach { generation: 0, end_bytes: 0 },
    numbers_above: 0,
    hidden: &[],
}
.encoded_bytes();
const GONE_BYTES: usize = Record::AccountsGone { first: AccountId(0), last: AccountId(0) }.encoded_bytes();

impl Sources<'_> {
    /// Puts mail into the commit once more. What all devices have, and what only waits for its tick or for its turn to
    /// leave, goes without its body; its floors then go before it, for it must not come back without them.
    pub(crate) fn put_mail_again(
        &mut self,
        commit: &mut Commit<'_>,
        index: AccountIndex,
        seq: Seq,
        carried: &mut Vec<Carried>,
    ) -> Result<Option<Carrying>, NoRoom> {
        let Some(account) = self.accounts.get(index) else { return Ok(None) };
        let Some(entry) = account.mailbox.find(seq) else { return Ok(None) };
        let (mailbox, mail) = (account.id, entry.mail);
        if mail.is_none() {
            self.scratch.clear();
            without_body(account, entry, self.scratch);
        }
        self.put_floors_of_returned(commit, index, carried)?;
        let Some(account) = self.accounts.get(index) else { return Ok(None) };
        let floor_count = floor_count_of(account, seq);
        let before = carried.len();
        if mail.is_none() {
            self.put_floors_behind(commit, index, seq, carried);
            if carried.len() < before + floor_count {
                return Err(NoRoom);
            }
        }
        let envelope = mail.map_or(&**self.scratch, |mail| self.cache.get(mail));
        let position = commit.push(&Record::Mail { mailbox, seq, envelope })?;
        if mail.is_some() {
            self.put_floors_behind(commit, index, seq, carried);
        }
        Ok(Some(Carrying { position, id: None, floor: seq }))
    }

    /// Puts a floor into the commit once more, as it is by now.
    pub(crate) fn put_floor_again(
        &self,
        commit: &mut Commit<'_>,
        index: AccountIndex,
        device: DeviceId,
    ) -> Result<Option<Carrying>, NoRoom> {
        let Some(account) = self.accounts.get(index) else { return Ok(None) };
        let up_to = match floor_of(account, device) {
            Some((up_to, log_floor)) => up_to.max(log_floor.persisted),
            // A mailbox at rest has forgotten what it was; the log has not.
            None if device == DeviceId::TICKS => account.ticks_floor().persisted,
            None => return Ok(None),
        };
        let position = commit.push(&Record::Floor { mailbox: account.id, device, up_to })?;
        Ok(Some(Carrying { position, id: None, floor: up_to }))
    }

    /// Puts remembered ids into the commit once more.
    pub(crate) fn put_ids_again(
        &self,
        commit: &mut Commit<'_>,
        old: Position,
    ) -> Result<Option<Carrying>, NoRoom> {
        let record = self.id_records.get(old);
        let Some(groups) = record.and_then(|record| record.groups.as_deref()) else { return Ok(None) };
        commit.push(&Record::Ids { groups }).map(Carrying::plain)
    }
}

/// Puts removed accounts into the commit once more, in one record.
pub(crate) fn put_gone_again(
    commit: &mut Commit<'_>,
    GoneRange { first, last }: GoneRange,
) -> Result<Option<Carrying>, NoRoom> {
    let record =
        if first == last { Record::AccountGone(first) } else { Record::AccountsGone { first, last } };
    commit.push(&record).map(Carrying::plain)
}

/// Appends an entry as an envelope that nobody will read any more.
fn without_body(account: &Account, entry: &Entry, out: &mut Vec<u8>) {
    let parts = Parts {
        kind: match entry.kind {
            EntryKind::Message => Kind::Message,
            EntryKind::Delivered => Kind::Delivered,
            EntryKind::Read => Kind::Read,
            EntryKind::Copy => Kind::Copy,
        },
        flags: 0,
        to: account.id,
        from: entry.from,
        from_device: entry.from_device,
        id: entry.id,
        time_ms: u64::from(entry.time_s) * 1000,
        seq: 0,
        from_name: "",
        body: &[],
    };
    parts.encode(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::SeededHash;
    use tern_protocol::ids::{MessageId, PartitionId};
    use tern_storage::log::{LogConfig, Recovery};
    use tern_storage::mailbox::{DeviceSet, TickState};

    fn writer() -> Writer {
        let config = LogConfig {
            stream: 0,
            segment_bytes: 64 << 10,
            commit_bytes_max: 8192,
            spare_count: 2,
            segment_count_max: 8,
            salt_seed: 1,
        };
        Writer::new(Recovery::new(config).finish().0, 8192, 1_000)
    }

    #[test]
    fn a_step_sees_a_piece_of_a_long_mailbox() {
        const COUNT: usize = 5 * LOOKS_PER_STEP;
        let mut accounts = Accounts::new(SeededHash(1, 2));
        let id = accounts.next_id(PartitionId(0));
        let mut account = Account::new(id, "bob", &[[1; 32]], Seq(0));
        for n in 1..=COUNT as u64 {
            account.mailbox.push(Entry {
                seq: Seq(n),
                from: id,
                from_device: DeviceId(1),
                id: MessageId(n),
                waiting: DeviceSet::one(0),
                kind: EntryKind::Message,
                tick: TickState::NotDue,
                answered: false,
                time_s: 0,
                mail: None,
                position: None,
            });
        }
        accounts.add(account);
        let (mut writer, cache) = (writer(), Cache::default());
        let mut round = Rewriting::new(Now { mono_ns: 0, wall_ms: 0 });
        let mut steps = 1;
        loop {
            let before = round.done.0;
            let (writer, cache, returned) = (&mut writer, &cache, &BTreeSet::new());
            let mut found =
                Finds { writer, cache, returned, queues: false, queued_bytes: 0, looks_left: LOOKS_PER_STEP };
            if found.look_at_accounts(&accounts, &mut round) {
                break;
            }
            assert!((1..=LOOKS_PER_STEP as u64).contains(&(round.done.0 - before)));
            steps += 1;
        }
        assert_eq!((steps, round.next_account, round.done), (6, 1, Seq(0)));
    }
}
