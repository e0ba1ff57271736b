//! What waits for the log: in three queues by urgency, with those who wait for it to be durable.

use crate::account::AccountIndex;
use crate::dedup::IdHash;
use crate::devices::{Asker, Revocation};
use crate::id_records::{IdRecords, SegmentIds};
use crate::io::{ConnId, KEPT_BYTES, Output, Outputs};
use crate::removal::Removal;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use tern_protocol::ids::{AccountId, DeviceId, Seq};
use tern_storage::io::{DiskOp, SegmentId};
use tern_storage::log::{Log, Position};

/// Something that goes into the log. Its bytes are looked up when the commit is put together: what has become
/// needless by then is skipped.
#[derive(Debug)]
pub(crate) enum Item {
    Mail {
        account: AccountIndex,
        seq: Seq,
    },
    Floor {
        account: AccountIndex,
        /// [`DeviceId::TICKS`] for the ticks' floor.
        device: DeviceId,
    },
    Account(AccountIndex),
    /// The removal of an account.
    Gone(AccountIndex),
    Epoch,
    /// Ids by their periods, and what is dead once they are durable.
    Ids {
        groups: Vec<u8>,
        unpin: Option<Position>,
    },
    /// Mail that is in the log already, in a segment that is being left.
    RewrittenMail {
        account: AccountIndex,
        seq: Seq,
    },
    /// Likewise the last floor of a device or of the ticks.
    RewrittenFloor {
        account: AccountIndex,
        device: DeviceId,
    },
    /// Likewise the ids in the record that was here.
    RewrittenIds(Position),
    /// Likewise removed accounts, all that were removed side by side in one record.
    RewrittenGone(GoneRange),
}

/// Accounts of one partition that were removed, and all between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GoneRange {
    pub(crate) first: AccountId,
    pub(crate) last: AccountId,
}

/// Who waits for a table change to be durable.
#[derive(Debug)]
pub(crate) enum Waiter {
    Reply {
        token: u64,
        reply: crate::control::ControlReply,
    },
    Welcome {
        conn: ConnId,
        account: AccountId,
        device: DeviceId,
        /// It came by the server's previous key.
        needs_key: bool,
    },
    /// A ticket is used up for good, or an account made: the session may begin.
    Begin {
        conn: ConnId,
    },
    /// A device is there for good: it may log in.
    Added {
        account: AccountIndex,
        device: DeviceId,
        asker: Asker,
    },
    /// A device is gone for good: its mailbox lets go of it.
    Revoked(Revocation),
    /// An account is gone for good: who asked for that is told.
    Removed(Removal),
    /// Changes of devices that others asked for: the phone is told how they are.
    Devices(Asker),
    Serving,
}

/// An item that a commit carries.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) item: Item,
    pub(crate) position: Position,
    /// Of mail: the second and hash that dedup knows it by.
    pub(crate) id: Option<(u32, IdHash)>,
    /// Of a floor: where it stands.
    pub(crate) floor: Seq,
}

/// The log with what waits for it.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) log: Log,
    pub(crate) urgent: VecDeque<Item>,
    pub(crate) lazy: VecDeque<(u64, AccountIndex, Seq)>,
    pub(crate) floors: VecDeque<(u64, AccountIndex, DeviceId)>,
    pub(crate) carried: Vec<Carried>,
    /// Urgent items that were pushed, and that are durable or needless, since boot: in order, so a number waits.
    pub(crate) urgent_pushed: u64,
    pub(crate) urgent_taken: u64,
    pub(crate) urgent_done: u64,
    pub(crate) waiters: VecDeque<(u64, Waiter)>,
    /// Waiters whose connections have gone stay until they are looked at: when there are so many.
    pub(crate) waiters_look_at_count: usize,
    pub(crate) segment_ids: SegmentIds,
    pub(crate) id_records: IdRecords,
    /// Removed accounts, by the first id of each record of them: the last one, and where the record is.
    pub(crate) gone: BTreeMap<AccountId, (AccountId, Position)>,
    /// Live records of thin segments: written when nothing else has to be, or along with it.
    pub(crate) rewrites: VecDeque<Item>,
    /// Whether there are enough of them, or no more will come.
    pub(crate) rewrites_are_due: bool,
    /// The number of the commit that took the last copy, and of the last one that is durable.
    pub(crate) copies_in: u64,
    pub(crate) durable: u64,
    pub(crate) ids_per_record: usize,
    pub(crate) epoch_position: Option<Position>,
    /// How often each segment was freed: tells whether a floor's position still means anything.
    pub(crate) uses: Vec<u32>,
    pub(crate) scratch: Vec<u8>,
    pub(crate) ops: Vec<DiskOp>,
    pub(crate) freed: Vec<SegmentId>,
    /// When the commit under way was started, monotonic nanoseconds.
    pub(crate) started_ns: u64,
}

impl Writer {
    /// A writer of commits of at most `commit_bytes`, which keeps at most so many ids to write them again.
    pub(crate) fn new(log: Log, commit_bytes: usize, ids_kept_max: usize) -> Self {
        let ids_fit = commit_bytes.saturating_sub(IDS_MARGIN_BYTES) / size_of::<u64>();
        Self {
            ids_per_record: ids_fit.clamp(1, IDS_PER_RECORD_MAX),
            log,
            urgent: VecDeque::new(),
            lazy: VecDeque::new(),
            floors: VecDeque::new(),
            carried: Vec::new(),
            urgent_pushed: 0,
            urgent_taken: 0,
            urgent_done: 0,
            waiters: VecDeque::new(),
            waiters_look_at_count: KEPT_COUNT,
            segment_ids: SegmentIds::default(),
            id_records: IdRecords::new(ids_kept_max),
            gone: BTreeMap::new(),
            rewrites: VecDeque::new(),
            rewrites_are_due: false,
            copies_in: 0,
            durable: 0,
            epoch_position: None,
            uses: Vec::new(),
            scratch: Vec::new(),
            ops: Vec::new(),
            freed: Vec::new(),
            started_ns: 0,
        }
    }

    /// Queues an item for the next commit.
    pub(crate) fn push_urgent(&mut self, item: Item) {
        self.urgent.push_back(item);
        self.urgent_pushed += 1;
    }

    /// Queues mail for an online account.
    pub(crate) fn push_lazy(&mut self, due_ns: u64, account: AccountIndex, seq: Seq) {
        self.lazy.push_back((due_ns, account, seq));
    }

    /// Queues a floor.
    pub(crate) fn push_floor(&mut self, due_ns: u64, account: AccountIndex, device: DeviceId) {
        self.floors.push_back((due_ns, account, device));
    }

    /// Remembers where the last epoch stands, so that it dies when the new one is durable.
    pub(crate) fn set_epoch_position(&mut self, position: Position) {
        self.epoch_position = Some(position);
    }

    /// Lets `waiter` wait for all urgent items so far.
    pub(crate) fn wait(&mut self, waiter: Waiter) {
        self.waiters.push_back((self.urgent_pushed, waiter));
    }

    /// When something is due; `None` when nothing waits or a commit is under way.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        if self.rewrites_are_due && self.log.can_rewrite() {
            return Some(0);
        }
        if !self.log.can_commit() {
            return None;
        }
        let urgent = (!self.urgent.is_empty()).then_some(0);
        let lazy = self.lazy.front().map(|item| item.0);
        let floor = self.floors.front().map(|item| item.0);
        [urgent, lazy, floor].into_iter().flatten().min()
    }

    /// Whether nothing waits and nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.urgent.is_empty() && self.lazy.is_empty() && self.floors.is_empty() && self.carried.is_empty()
    }

    /// Whether all copies are durable, and so many urgent items, unless these wait for room: commits may follow each other
    /// without a moment between them.
    pub(crate) fn has_copied(&self, urgent_count: u64) -> bool {
        let is_durable = self.rewrites.is_empty() && self.durable >= self.copies_in;
        is_durable && (self.urgent_done >= urgent_count || !self.log.has_room())
    }

    /// Everything that waits is due now: the shard drains.
    pub(crate) fn hurry(&mut self) {
        self.lazy.iter_mut().for_each(|item| item.0 = 0);
        self.floors.iter_mut().for_each(|item| item.0 = 0);
    }

    /// How often the segment was freed.
    pub(crate) fn use_of(&self, segment: SegmentId) -> u32 {
        self.uses.get(segment.0 as usize).copied().unwrap_or(0)
    }

    /// A floor's old record is dead, if its segment still is the one it was written to.
    pub(crate) fn floor_dead(&mut self, position: Position, used: u32) {
        if self.use_of(position.segment) == used {
            self.log.floor_dead(position);
        }
    }

    pub(crate) fn note_freed(&mut self) {
        self.log.take_freed(&mut self.freed);
        for segment in self.freed.drain(..) {
            let index = segment.0 as usize;
            if self.uses.len() <= index {
                self.uses.resize(index + 1, 0);
            }
            self.uses[index] += 1;
        }
    }

    /// Gives back memory that only large commits need. A part of the chores: what is in use stays.
    pub(crate) fn shrink(&mut self) {
        self.rewrites.shrink_to(KEPT_COUNT);
        self.urgent.shrink_to(KEPT_COUNT);
        self.lazy.shrink_to(KEPT_COUNT);
        self.floors.shrink_to(KEPT_COUNT);
        self.carried.shrink_to(KEPT_COUNT);
        self.scratch.shrink_to(KEPT_BYTES);
        self.log.shrink_to(KEPT_BYTES);
    }

    /// Starts to keep the ids of another segment; those of the last one go to the table head.
    pub(crate) fn turn_ids(&mut self, position: Position) {
        let ids = &mut self.segment_ids;
        if ids.pinned.is_some_and(|pinned| pinned.segment == position.segment) {
            return;
        }
        self.log.live(position);
        let ids = core::mem::replace(ids, SegmentIds::behind(position));
        self.push_ids(ids);
    }

    /// Queues the records of a segment's ids; the last one releases the segment.
    pub(crate) fn push_ids(&mut self, mut ids: SegmentIds) {
        let mut pinned = ids.pinned.take();
        let mut records = ids.into_records(self.ids_per_record).into_iter().peekable();
        while let Some(groups) = records.next() {
            let unpin = if records.peek().is_none() { pinned.take() } else { None };
            self.push_urgent(Item::Ids { groups, unpin });
        }
        if let Some(position) = pinned {
            self.log.dead(position);
        }
    }

    /// A record of ids is in the log.
    pub(crate) fn ids_are_live(&mut self, groups: Vec<u8>, position: Position) {
        self.log.live(position);
        self.id_records.add(groups, position);
    }

    /// A record of ids is in the log of which not all is in memory.
    pub(crate) fn ids_stay(&mut self, until_s: u32, position: Position) {
        self.log.live(position);
        self.id_records.add_unkept(until_s, position);
    }

    /// A record of ids is somewhere else now, unless its time has left the horizon meanwhile.
    pub(crate) fn ids_are_rewritten(&mut self, old: Position, position: Position) {
        if self.id_records.moves(old, position) {
            self.log.live(position);
            self.log.dead(old);
        }
    }

    /// Forgets records of ids that have left the horizon.
    pub(crate) fn drop_ids_before(&mut self, oldest_s: u32) {
        while let Some(position) = self.id_records.pop_before(oldest_s) {
            self.log.dead(position);
        }
    }

    /// Recovery found a record of removed accounts that no other one includes, in the order of their first ids.
    pub(crate) fn gone_was_found(&mut self, range: GoneRange, position: Position) {
        self.log.live(position);
        self.gone.insert(range.first, (range.last, position));
    }

    /// Whether a record says that an account was removed.
    pub(crate) fn is_gone(&self, account: AccountId) -> bool {
        self.gone.range(..=account).next_back().is_some_and(|(_, &(last, _))| account <= last)
    }

    /// A record of removed accounts is in the log: those that it includes are not needed any more.
    pub(crate) fn gone_is_live(&mut self, range: GoneRange, position: Position) {
        self.log.live(position);
        while let Some((&first, &(last, old))) = self.gone.range(range.first..=range.last).next() {
            assert!(last <= range.last, "ranges of removed accounts grow");
            self.log.dead(old);
            self.gone.remove(&first);
        }
        self.gone.insert(range.first, (range.last, position));
    }

    /// Performs the log's own wishes: segments to have ready.
    pub(crate) fn want_spares(&mut self, out: &mut Outputs) {
        self.log.want_spares(&mut self.ops);
        self.emit(out);
    }

    pub(crate) fn emit(&mut self, out: &mut Outputs) {
        out.list.extend(self.ops.drain(..).map(Output::Disk));
    }
}

/// Items that queues keep memory for.
pub(crate) const KEPT_COUNT: usize = 1024;
/// Most ids in one record: 32 KiB of hashes.
const IDS_PER_RECORD_MAX: usize = 4096;
/// Bytes of a commit that are left for headers beside a record of ids.
const IDS_MARGIN_BYTES: usize = 4096;
