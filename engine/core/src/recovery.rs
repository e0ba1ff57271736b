//! From the log's records back to a shard: accounts, mailboxes with what was not acknowledged, remembered ids, and a
//! new boot epoch that is durable before the shard serves.

mod damage;
mod found;

use self::damage::hidden_places;
use self::found::{Found, FoundEpoch, FoundFloor, FoundIds, Ids, Mail, set_waiting};
use crate::account::{Floor, SeededHash, stored};
use crate::dedup::{IdHash, LIVE_S};
use crate::id_records::SegmentIds;
use crate::io::{Now, Outputs};
use crate::shard::{Shard, ShardConfig, bug};
use crate::wall_clock::Stamps;
use crate::writer::{GoneRange, Item, Waiter};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::hash::BuildHasher;
use hashbrown::HashSet;
use tern_protocol::ids::{AccountId, DeviceId, Seq};
use tern_storage::io::SegmentId;
use tern_storage::log::{IdGroup, LogConfig, Position, Record, Recovery, RecoveryError};
use tern_storage::mailbox::{DeviceSet, Entry, EntryKind, TickState};

pub(crate) use self::damage::KnownDamage;
pub use tern_storage::log::RecoveryReport;

/// Segments kept ready beside the open ones.
const SPARE_COUNT: u32 = 2;
/// Epochs that may have been begun in what cannot be read: the first start behind it does not use them again when it is
/// back. It skips up to twice as many, at random: another one may know as little, and begins the same one once in a thousand
/// times. There are not enough of them to skip so many at each start.
const HIDDEN_EPOCHS: u32 = 1024;
/// So many accounts of one partition cannot have been made between two starts, nor do so many records fit what one damage
/// takes: their numbers are skipped where some may be lost.
const LOST_NUMBER_BITS: u32 = 20;

/// Reads a shard's log, segment by segment, then makes the shard.
#[derive(Debug)]
pub struct ShardRecovery {
    config: ShardConfig,
    log: Recovery,
    found: Found,
}

impl ShardRecovery {
    /// Begins; an empty data directory is a recovery of no segments.
    #[must_use]
    pub fn new(config: ShardConfig) -> Self {
        let salt_seed = config.seed.iter().rev().take(8).fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let log = Recovery::new(LogConfig {
            stream: config.shard.0,
            segment_bytes: config.segment_bytes,
            commit_bytes_max: config.limits.commit_bytes,
            spare_count: SPARE_COUNT,
            segment_count_max: config.limits.segment_count,
            salt_seed,
        });
        let found = Found::new(config.limits.mail_bytes, config.limits.dedup_count);
        Self { config, log, found }
    }

    /// Reads one whole segment file. Files come in ascending generation
    /// ([`tern_storage::log::Recovery::generation`]), unformatted ones at any place.
    ///
    /// # Errors
    /// When the file belongs to another stream or format version, or holds what only a later build can read.
    pub fn segment(&mut self, segment: SegmentId, bytes: &[u8]) -> Result<(), RecoveryError> {
        self.damaged_segment(segment, bytes, &[])
    }

    /// Likewise of a file with blocks that the drive does not give
    /// ([`tern_storage::log::Recovery::damaged_segment`]): their offsets, ascending.
    ///
    /// # Errors
    /// As of [`Self::segment`].
    pub fn damaged_segment(
        &mut self,
        segment: SegmentId,
        bytes: &[u8],
        unreadable: &[u32],
    ) -> Result<(), RecoveryError> {
        let found = &mut self.found;
        let sink = &mut |position, lsn, record: Record<'_>| found.take(position, lsn, record);
        self.log.damaged_segment(segment, bytes, unreadable, sink)?;
        found.unknown.map_or(Ok(()), |what| Err(RecoveryError::Content(what)))
    }

    /// Which segments must be read once more, by [`Self::segment_again`], when all were read: those with mail that somebody
    /// waits for, where the log has more mail than the shard may hold. None otherwise.
    #[must_use]
    pub fn wanted(&mut self) -> Vec<SegmentId> {
        self.found.want()
    }

    /// Reads a segment file once more.
    ///
    /// # Errors
    /// When it does not hold what it held.
    pub fn segment_again(&mut self, segment: SegmentId, bytes: &[u8]) -> Result<(), RecoveryError> {
        self.found.take_again(&self.log, segment, bytes)
    }

    /// When the newest message that was read was stamped, seconds of Unix time; 0 where there is none.
    #[must_use]
    pub fn newest_s(&self) -> u32 {
        self.found.mail.iter().map(|mail| mail.entry.time_s).max().unwrap_or(0)
    }

    /// Makes the shard, when all was read. It serves once its new epoch is durable: `Output::Serving` says so.
    ///
    /// `node_newest_s` is the latest [`Self::newest_s`] of all the node's shards, so that all of them begin at the same
    /// time where the machine's clock is behind: else one would refuse as too early what another's phones send.
    ///
    /// # Panics
    /// If a segment that was wanted was not read again.
    #[must_use]
    pub fn finish(mut self, now: Now, node_newest_s: u32, out: &mut Outputs) -> (Shard, RecoveryReport) {
        // What names a file as left alone must not be the last that can be read, should it be left alone again: the new
        // epoch's record is not written there, and from now on all is of another era, mail that is back or not.
        self.log.close(self.found.not_there().map(|place| place.segment));
        let (mut log, mut report) = self.log.finish();
        if self.found.back.is_empty() {
            self.found.find_returned();
        }
        let hidden = hidden_places(&report);
        if self.found.hides_others(&hidden) {
            log.begin_era();
        }
        let mut damage = self.found.epoch.as_ref().map(|epoch| epoch.damage.clone()).unwrap_or_default();
        let is_new_rot = report.has_rot_in_tables && !damage.covers(&report);
        if is_new_rot {
            damage.rot_reach = log.tables_reach();
        }
        let may_hide_epochs = report.is_hiding && (is_new_rot || !self.found.knows_hidden(&report));
        damage.note_hidden(&hidden, &self.found.back, log.era());
        let floors = self.found.last_floors();
        let mut shard = Shard::new(self.config, now, log);
        #[cfg(feature = "bugs")]
        {
            shard.writer.log.frees_too_early = shard.config.bugs.rewritten_too_early;
        }
        let Found { cache, accounts, gone, mut mail, floors: all_floors, returned, epoch, ids, .. } =
            self.found;
        shard.cache = cache;
        shard.damage = damage;
        shard.returned = returned;
        let now = shard.recover_clock(now, node_newest_s, &mail);
        let now_s = (now.wall_ms / 1000) as u32;
        shard.damage.date(now_s);
        let floors_to_keep = shard.damage.floors_to_keep(&all_floors, now_s, shard.config.limits.expiry_ms);
        // Which tickets were used may be forgotten. The new epoch's record says it for later starts, which may not find the
        // damage any more.
        // Of damage that one of them has told already nothing newer can be gone.
        let told = epoch.as_ref().and_then(|epoch| epoch.tickets_after_s);
        shard.tickets_after_s = told.max(is_new_rot.then_some(now_s));
        let floors_up_to = all_floors.values().map(|floor| floor.up_to).max();
        let accounts_since;
        (accounts_since, report.nameless_count) = shard.restore_accounts(accounts, gone);
        // An account may have lost its record. Its id is not given to anybody else: what is still there is its own.
        let seen = mail.iter().map(|mail| mail.mailbox).chain(all_floors.keys().map(|floor| floor.0));
        let is_here = |id: &AccountId| shard.config.partitions.home_of(*id) == Some(shard.config.shard);
        let senders = mail.iter().map(|mail| mail.entry.from).filter(is_here);
        seen.chain(senders).for_each(|id| shard.accounts.note_id(id));
        if !bug!(shard, floor_forgotten) {
            shard.restore_floors(floors);
        }
        floors_to_keep.into_iter().for_each(|position| shard.writer.log.floor_live(position));
        let last_seq = mail.iter().map(|mail| mail.entry.seq).max();
        found::sort(&mut mail);
        if !bug!(shard, rewritten_counts_twice) {
            found::drop_twice(&mut mail, &mut shard.cache);
        }
        report.orphan_count = shard.keep_orphans(&mail);
        shard.keep_unread(now_s, &report);
        // Before the ids that want new records: the first commit has the last room, and without the epoch nothing goes on.
        shard.writer.push_urgent(Item::Epoch);
        shard.writer.wait(Waiter::Serving);
        shard.restore_mail(now, mail, ids);
        let skipped = if may_hide_epochs { shard.hidden_epochs() } else { 0 };
        shard.begin_epoch(epoch, skipped, last_seq, last_seq.max(floors_up_to).max(accounts_since));
        shard.skip_lost_numbers(is_new_rot);
        shard.writer.log.recovered_done();
        shard.writer.note_freed();
        shard.writer.want_spares(out);
        shard.try_commit(now, out);
        (shard, report)
    }
}

impl Shard {
    /// Sets the wall clock by what the log says of it.
    fn recover_clock(&mut self, now: Now, node_newest_s: u32, mail: &[Mail]) -> Now {
        let mut stamps = Stamps::default();
        mail.iter().for_each(|found| stamps.note(found.entry.time_s));
        if node_newest_s > 0 && !bug!(self, clocks_apart) {
            stamps.note(node_newest_s);
        }
        if !bug!(self, clock_believed) {
            self.wall_clock.recover(now, &stamps);
        }
        self.clocks(now)
    }

    /// Returns the highest place behind which a device begins, and how many accounts are left out because their names are
    /// taken.
    fn restore_accounts(
        &mut self,
        accounts: BTreeMap<AccountId, (u64, Position, Vec<u8>)>,
        mut gone: Vec<(GoneRange, Position)>,
    ) -> (Option<Seq>, u64) {
        // A record may be there with those that it was made from: the widest one counts.
        gone.sort_by_key(|&(range, _)| (range.first, Reverse(range.last)));
        let (mut reached, mut gone_last) = (None, Vec::new());
        for (range, position) in gone {
            if reached < Some(range.last) {
                reached = Some(range.last);
                gone_last.push(range.last);
                self.writer.gone_was_found(range, position);
            }
        }
        let (mut since, mut nameless_count) = (None, 0);
        // By their indices.
        let mut lsns = Vec::with_capacity(accounts.len());
        for (id, (lsn, position, payload)) in accounts {
            if self.writer.is_gone(id) {
                continue;
            }
            let mut account = stored::decode(id, &payload).expect("decoded when it was found");
            account.position = Some(position);
            since = account.devices().map(|device| device.since).max().max(since);
            self.writer.log.live(position);
            // One that could not be read for a while may find its name taken: who wrote last keeps it. The other's record
            // stays, as its mail does.
            if let Some(other) = self.accounts.by_name(&account.name) {
                nameless_count += 1;
                if lsns[other.0 as usize] > lsn {
                    self.accounts.note_id(id);
                    continue;
                }
                self.accounts.remove(other);
            }
            self.accounts.add(account);
            lsns.push(lsn);
        }
        // After the accounts: they come in the order of their ids.
        gone_last.into_iter().for_each(|id| self.accounts.note_id(id));
        (since, nameless_count)
    }

    /// Mail whose account has lost its record, and was not removed, stays in the log: somebody may be able to give it
    /// back. Returns how much of it there is.
    fn keep_orphans(&mut self, mail: &[Mail]) -> u64 {
        let mut count = 0;
        for found in mail {
            if self.accounts.by_id(found.mailbox).is_none() && !self.writer.is_gone(found.mailbox) {
                self.writer.log.live(found.position());
                count += 1;
            }
        }
        self.counters.orphans_now = count;
        count
    }

    /// A segment with mail that cannot be read, and may be again later, stays until that would have expired.
    fn keep_unread(&mut self, now_s: u32, report: &RecoveryReport) {
        for &(segment, offset, end) in &report.unread {
            if self.damage.may_have_mail((segment, offset, end), now_s, self.config.limits.expiry_ms) {
                self.writer.log.live(Position { segment, offset });
            }
        }
    }

    fn restore_floors(&mut self, floors: Vec<((AccountId, DeviceId), FoundFloor)>) {
        for ((mailbox, device), found) in floors {
            let Some(index) = self.accounts.by_id(mailbox) else { continue };
            let used = self.writer.use_of(found.position.segment);
            let floor = Floor::found(found.up_to, found.position, used);
            let Some(account) = self.accounts.get_mut(index) else { continue };
            if device == DeviceId::TICKS {
                *account.ticks_floor_mut() = floor;
            } else if let Some(place) = account.place_of(device)
                && let Some(device) = account.device_mut(place)
            {
                device.floor = found.up_to.max(device.since);
                device.log_floor = floor;
            } else {
                continue;
            }
            self.writer.log.floor_live(found.position);
        }
    }

    fn restore_mail(&mut self, now: Now, mail: Vec<Mail>, ids: Ids) {
        let oldest_s = self.rotate_ids(now);
        // Ids that a clock wrote which was ahead may have pushed out those of the present: what is being sent now is not
        // refused for that.
        let now_s = (now.wall_ms / 1000) as u32;
        let complete_from_s = ids.complete_from_s.min(now_s.saturating_sub(LIVE_S));
        self.dedup.forgets_before(oldest_s.max(complete_from_s));
        let forgets = bug!(self, dedup_forgotten);
        let mut seen = HashSet::with_hasher(SeededHash(5, 6));
        // Those that an older build wrote are by the hour, and come first.
        let groups = ids.records.iter().flat_map(|record| IdGroup::all(&record.groups));
        let mut found: Vec<IdGroup<'_>> = groups.collect();
        found.retain(|group| group.until_s() > oldest_s);
        found.sort_by_key(|group| (Reverse(group.span_s), group.from_s));
        for group in found {
            for hash in group.hashes.chunks_exact(8).filter_map(|hash| hash.try_into().ok()) {
                if !forgets {
                    let hash = IdHash(u64::from_le_bytes(hash));
                    self.dedup.insert_between(group.from_s, group.until_s(), hash);
                }
            }
        }
        for FoundIds { position, until_s, groups, is_whole } in ids.records {
            if until_s <= oldest_s {
                continue;
            }
            // A crash may have left a record twice, too.
            if !is_whole {
                self.writer.ids_stay(until_s, position);
            } else if seen.insert(SeededHash(7, 8).hash_one(&groups)) {
                self.writer.ids_are_live(groups, position);
            }
        }
        // Ids of a segment that has no record of ids yet: they must get one before the segment may go. Of those that were
        // let go of for want of memory it does not show; they have theirs if the others of their segment do.
        let mut by_segment: BTreeMap<SegmentId, (SegmentIds, bool)> = BTreeMap::new();
        for found in mail {
            let (mailbox, position) = (found.mailbox, found.position());
            let entry = self.restore_one(now, found);
            let (made_s, hash) = crate::commit::id_of(&self.dedup, mailbox, &entry);
            if made_s < oldest_s {
                continue;
            }
            let is_let_go = made_s < self.dedup.dropped_until_s();
            let has_record = !is_let_go && self.dedup.has(made_s, hash);
            if !is_let_go && !forgets {
                self.remember(mailbox, &entry);
            }
            if !has_record {
                let (segment, lacks_record) = by_segment.entry(position.segment).or_default();
                *lacks_record |= !is_let_go;
                segment.pinned.get_or_insert(position);
                segment.push((made_s, hash), self.writer.ids_per_record);
            }
        }
        for (ids, _) in by_segment.into_values().filter(|&(_, lacks_record)| lacks_record) {
            ids.pinned.into_iter().for_each(|pinned| self.writer.log.live(pinned));
            self.writer.push_ids(ids);
        }
    }

    /// Puts one message back into its mailbox, if anything about it is still open.
    fn restore_one(&mut self, now: Now, found: Mail) -> Entry {
        let position = found.position();
        let Mail { mailbox, mut entry, .. } = found;
        let (seq, mail) = (entry.seq, entry.mail.take());
        let is_lost = bug!(self, copy_lost) && entry.kind == EntryKind::Copy;
        let index = self.accounts.by_id(mailbox);
        let Some(account) = index.and_then(|index| self.accounts.get_mut(index)) else {
            mail.into_iter().for_each(|mail| self.cache.remove(mail));
            return entry;
        };
        account.mailbox.note_written(seq);
        set_waiting(account, &mut entry);
        if is_lost {
            entry.waiting = DeviceSet::default();
        }
        // Whom it waited for may have been revoked: then nobody can acknowledge it any more.
        let is_orphaned = entry.waiting.is_empty() && entry.tick == TickState::NotDue;
        if seq <= account.ticks_floor().persisted || is_orphaned {
            entry.tick = TickState::Settled;
        }
        if entry.waiting.is_empty() {
            mail.into_iter().for_each(|mail| self.cache.remove(mail));
        } else {
            entry.mail = Some(mail.expect("mail that somebody waits for is held, or was read again"));
        }
        if entry.is_over() {
            // What a mailbox must know of its dead records it may forget once no floor can matter for them.
            index.into_iter().for_each(|index| self.stirred.note(account, index));
            return entry;
        }
        self.counters.mailboxes_filled_now += u64::from(account.mailbox.is_empty());
        account.mailbox.push(entry);
        self.writer.log.live(position);
        self.counters.mail_count_now += 1;
        if entry.tick == TickState::Owed
            && let Some(index) = index
        {
            self.owed.push_recovered(now.mono_ns, index, seq);
        }
        entry
    }

    /// Which numbers of accounts were given out may be forgotten: they are not given out again, now or at a later start. Epochs
    /// grow, so that what a start has skipped is also known where its record is lost.
    fn skip_lost_numbers(&mut self, is_new_rot: bool) {
        if is_new_rot {
            let known = self.accounts.highest_number().max(self.damage.numbers_above);
            let by_epoch = u64::from(self.epoch) << LOST_NUMBER_BITS;
            self.damage.numbers_above = by_epoch.max(known + (1 << LOST_NUMBER_BITS));
        }
        self.accounts.number_above(self.damage.numbers_above);
    }

    /// How many epochs to skip.
    fn hidden_epochs(&mut self) -> u32 {
        let [low, high, ..] = self.random_seed();
        HIDDEN_EPOCHS + u32::from(u16::from_le_bytes([low, high])) % HIDDEN_EPOCHS
    }

    /// The new epoch is above the last one, and above every place that any record names: the epoch's own record may
    /// have rotted, and a place that comes back would lose mail. It skips those that may be in what cannot be read.
    fn begin_epoch(
        &mut self,
        found: Option<FoundEpoch>,
        skipped: u32,
        last_seq: Option<Seq>,
        highest_place: Option<Seq>,
    ) {
        let named = highest_place.map_or(0, |place| (place.0 >> Seq::COUNTER_BITS) as u32);
        let last = found.as_ref().map_or(0, |found| found.epoch).max(named);
        if bug!(self, sequence_reused) && last > 0 {
            self.epoch = last;
            self.next_seq = last_seq.unwrap_or(Seq::start_of_epoch(last)).next();
        } else {
            self.epoch = last + skipped + 1;
            self.next_seq = Seq::start_of_epoch(self.epoch).next();
        }
        if let Some(found) = found {
            self.writer.log.live(found.position);
            self.writer.set_epoch_position(found.position);
        }
    }
}
