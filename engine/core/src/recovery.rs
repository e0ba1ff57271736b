//! From the log's records back to a shard: accounts, mailboxes with what was not acknowledged, remembered ids, and a
//! new boot epoch that is durable before the shard serves.

use crate::account::{Account, Floor, SeededHash, stored};
use crate::dedup::IdHash;
use crate::home::{entry_kind, waiting_for};
use crate::io::{Now, Outputs};
use crate::shard::{Shard, ShardConfig, bug};
use crate::wall_clock::Stamps;
use crate::writer::{GoneRange, Item, SegmentIds, Waiter};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::hash::BuildHasher;
use hashbrown::HashSet;
use tern_protocol::envelope::Envelope;
use tern_protocol::ids::{AccountId, DeviceId, Seq};
use tern_storage::cache::{Cache, CacheRef};
use tern_storage::io::SegmentId;
use tern_storage::log::{LogConfig, Position, Record, Recovery, RecoveryError};
use tern_storage::mailbox::{DEVICES_MAX, DeviceSet, Entry, EntryKind, TickState};

pub use tern_storage::log::RecoveryReport;

/// Segments kept ready beside the open ones.
const SPARE_COUNT: u32 = 2;

#[derive(Debug)]
struct Mail {
    mailbox: AccountId,
    seq: Seq,
    lsn: u64,
    position: Position,
    mail: CacheRef,
}

#[derive(Clone, Copy, Debug)]
struct FoundFloor {
    lsn: u64,
    up_to: Seq,
    position: Position,
}

#[derive(Debug)]
struct FoundIds {
    from_s: u32,
    until_s: u32,
    position: Position,
    hashes: Vec<u64>,
}

/// What the scan has gathered.
#[derive(Debug)]
struct Found {
    cache: Cache,
    accounts: BTreeMap<AccountId, (u64, Position, Vec<u8>)>,
    gone: Vec<(GoneRange, Position)>,
    mail: Vec<Mail>,
    floors: BTreeMap<(AccountId, DeviceId), FoundFloor>,
    epoch: Option<(u32, Position)>,
    ids: Vec<FoundIds>,
    /// What was found whole in a form that this build does not know. Without it mail or accounts would be gone.
    unknown: Option<&'static str>,
}

impl Found {
    fn new() -> Self {
        Self {
            cache: Cache::default(),
            accounts: BTreeMap::new(),
            gone: Vec::new(),
            mail: Vec::new(),
            floors: BTreeMap::new(),
            epoch: None,
            ids: Vec::new(),
            unknown: None,
        }
    }

    fn take(&mut self, position: Position, lsn: u64, record: Record<'_>) {
        match record {
            Record::Mail { mailbox, seq, envelope } => {
                // The checksum held: anything that is no envelope was written by another version.
                if Envelope::parse(envelope).is_err() {
                    self.unknown = Some("an envelope");
                } else if let Some(mail) = self.cache.insert(envelope) {
                    self.mail.push(Mail { mailbox, seq, lsn, position, mail });
                }
            }
            Record::Floor { mailbox, device, up_to } => {
                let found = FoundFloor { lsn, up_to, position };
                let floor = self.floors.entry((mailbox, device)).or_insert(found);
                if floor.lsn <= lsn {
                    *floor = found;
                }
            }
            Record::Epoch(epoch) => {
                if self.epoch.is_none_or(|(last, _)| last < epoch) {
                    self.epoch = Some((epoch, position));
                }
            }
            Record::Account { account, payload } => {
                if stored::decode(account, payload).is_none() {
                    self.unknown = Some("an account");
                }
                let found = self.accounts.entry(account).or_insert((lsn, position, Vec::new()));
                if found.0 <= lsn {
                    *found = (lsn, position, payload.to_vec());
                }
            }
            Record::AccountGone(account) => {
                self.gone.push((GoneRange { first: account, last: account }, position));
            }
            Record::AccountsGone { first, last } => self.gone.push((GoneRange { first, last }, position)),
            Record::Ids { from_s, span_s, hashes } => {
                let hashes =
                    hashes.chunks_exact(8).filter_map(|h| Some(u64::from_le_bytes(h.try_into().ok()?)));
                let (until_s, hashes) = (from_s.saturating_add(span_s), hashes.collect());
                self.ids.push(FoundIds { from_s, until_s, position, hashes });
            }
        }
    }
}

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
        Self { config, log, found: Found::new() }
    }

    /// Reads one whole segment file. Files come in ascending generation
    /// ([`tern_storage::log::Recovery::generation`]), unformatted ones at any place.
    ///
    /// # Errors
    /// When the file belongs to another stream or format version, or holds what only a later build can read.
    pub fn segment(&mut self, segment: SegmentId, bytes: &[u8]) -> Result<(), RecoveryError> {
        let found = &mut self.found;
        self.log.segment(segment, bytes, &mut |position, lsn, record| found.take(position, lsn, record))?;
        found.unknown.map_or(Ok(()), |what| Err(RecoveryError::Content(what)))
    }

    /// Makes the shard. It serves once its new epoch is durable: `Output::Serving` says so.
    #[must_use]
    pub fn finish(self, now: Now, out: &mut Outputs) -> (Shard, RecoveryReport) {
        let (log, mut report) = self.log.finish();
        let mut shard = Shard::new(self.config, now, log);
        #[cfg(feature = "bugs")]
        {
            shard.writer.log.frees_too_early = shard.config.bugs.rewritten_too_early;
        }
        let Found { cache, accounts, gone, mail, floors, epoch, ids, .. } = self.found;
        shard.cache = cache;
        let now = shard.recover_clock(now, &mail);
        let floors_up_to = floors.values().map(|floor| floor.up_to).max();
        let accounts_since = shard.restore_accounts(accounts, gone);
        // An account may have lost its record. Its id is not given to anybody else: what is still there is its own.
        let seen = mail.iter().map(|mail| mail.mailbox).chain(floors.keys().map(|floor| floor.0));
        seen.for_each(|id| shard.accounts.note_id(id));
        if !bug!(shard, floor_forgotten) {
            shard.restore_floors(floors);
        }
        let last_seq = mail.iter().map(|mail| mail.seq).max();
        report.orphan_count = shard.keep_orphans(&mail);
        // Before the ids that want new records: the first commit has the last room, and without the epoch nothing goes on.
        shard.writer.push_urgent(Item::Epoch);
        shard.writer.wait(Waiter::Serving);
        shard.restore_mail(now, mail, ids);
        shard.begin_epoch(epoch, last_seq, last_seq.max(floors_up_to).max(accounts_since));
        shard.writer.log.recovered_done();
        shard.writer.note_freed();
        shard.writer.want_spares(out);
        shard.try_commit(now, out);
        (shard, report)
    }
}

impl Shard {
    /// Sets the wall clock by what the log says of it.
    fn recover_clock(&mut self, now: Now, mail: &[Mail]) -> Now {
        let mut stamps = Stamps::default();
        for found in mail {
            let envelope = Envelope::parse(self.cache.get(found.mail)).expect("parsed when it was found");
            stamps.note((envelope.time_ms() / 1000) as u32);
        }
        if !bug!(self, clock_believed) {
            self.wall_clock.recover(now, &stamps);
        }
        self.clocks(now)
    }

    /// Returns the highest place behind which a device begins.
    fn restore_accounts(
        &mut self,
        accounts: BTreeMap<AccountId, (u64, Position, Vec<u8>)>,
        mut gone: Vec<(GoneRange, Position)>,
    ) -> Option<Seq> {
        // A record may be there with those that it was made from: the widest one counts.
        gone.sort_by_key(|&(range, _)| (range.first, Reverse(range.last)));
        let mut reached = None;
        for (range, position) in gone {
            if reached < Some(range.last) {
                reached = Some(range.last);
                self.accounts.note_id(range.last);
                self.writer.gone_was_found(range, position);
            }
        }
        let mut since = None;
        for (id, (_, position, payload)) in accounts {
            if self.writer.is_gone(id) {
                continue;
            }
            let mut account = stored::decode(id, &payload).expect("decoded when it was found");
            account.position = Some(position);
            since = account.devices().map(|device| device.since).max().max(since);
            self.writer.log.live(position);
            self.accounts.add(account);
        }
        since
    }

    /// Mail whose account has lost its record, and was not removed, stays in the log: somebody may be able to give it
    /// back. Returns how much of it there is.
    fn keep_orphans(&mut self, mail: &[Mail]) -> u64 {
        let mut count = 0;
        for found in mail {
            if self.accounts.by_id(found.mailbox).is_none() && !self.writer.is_gone(found.mailbox) {
                self.writer.log.live(found.position);
                count += 1;
            }
        }
        self.counters.orphans_now = count;
        count
    }

    fn restore_floors(&mut self, floors: BTreeMap<(AccountId, DeviceId), FoundFloor>) {
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

    fn restore_mail(&mut self, now: Now, mut mail: Vec<Mail>, mut ids: Vec<FoundIds>) {
        let oldest_s = self.rotate_ids(now);
        self.dedup.forgets_before(oldest_s);
        let forgets = bug!(self, dedup_forgotten);
        let mut known = HashSet::with_hasher(SeededHash(3, 4));
        let mut seen = HashSet::with_hasher(SeededHash(5, 6));
        // Those that an older build wrote are by the hour, and come first.
        ids.sort_by_key(|ids| (Reverse(ids.until_s - ids.from_s), ids.from_s));
        for FoundIds { from_s, until_s, position, hashes } in ids {
            // A crash may have left a record twice, too.
            if until_s <= oldest_s || !seen.insert((from_s, SeededHash(7, 8).hash_one(&hashes))) {
                continue;
            }
            let bytes = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
            self.writer.ids_are_live(from_s, until_s, bytes, position);
            for hash in hashes {
                known.insert(hash);
                if !forgets {
                    self.dedup.insert_between(from_s, until_s, IdHash(hash));
                }
            }
        }
        // A crash may have left mail twice. Its envelope is the same in both, or has been dropped from the later one
        // because all its devices had it: the fuller one says more, should their floors have rotted.
        mail.sort_unstable_by_key(|mail| {
            let bytes = self.cache.get(mail.mail).len();
            (mail.mailbox, mail.seq, Reverse((bytes, mail.lsn)))
        });
        let counts_twice = bug!(self, rewritten_counts_twice);
        let cache = &mut self.cache;
        mail.dedup_by(|again, first| {
            let is_twice = (again.mailbox, again.seq) == (first.mailbox, first.seq) && !counts_twice;
            if is_twice {
                cache.remove(again.mail);
            }
            is_twice
        });
        // Ids of a segment that has no record of ids yet: they must get one before the segment may go.
        let mut by_segment: BTreeMap<SegmentId, SegmentIds> = BTreeMap::new();
        for found in mail {
            let (mailbox, position) = (found.mailbox, found.position);
            let entry = self.restore_one(now, found);
            let (made_s, hash) = crate::commit::id_of(&self.dedup, mailbox, &entry);
            if made_s < oldest_s {
                continue;
            }
            if !forgets {
                self.remember(mailbox, &entry);
            }
            if !known.contains(&hash.0) {
                let segment = by_segment.entry(position.segment).or_default();
                segment.pinned.get_or_insert(position);
                segment.push((made_s, hash), self.writer.ids_per_record);
            }
        }
        for ids in by_segment.into_values() {
            ids.pinned.into_iter().for_each(|pinned| self.writer.log.live(pinned));
            self.writer.push_ids(ids);
        }
    }

    /// Puts one message back into its mailbox, if anything about it is still open.
    fn restore_one(&mut self, now: Now, found: Mail) -> Entry {
        let Mail { mailbox, seq, position, mail, .. } = found;
        let envelope = Envelope::parse(self.cache.get(mail)).expect("parsed when it was found");
        let kind = entry_kind(envelope.kind());
        let mut entry = Entry {
            seq,
            from: envelope.from(),
            from_device: envelope.sender_device(),
            id: envelope.id(),
            waiting: DeviceSet::default(),
            kind,
            tick: kind.first_tick_state(),
            answered: kind != EntryKind::Copy,
            time_s: (envelope.time_ms() / 1000) as u32,
            mail: None,
            position: Some(position),
        };
        let index = self.accounts.by_id(mailbox);
        let Some(account) = index.and_then(|index| self.accounts.get_mut(index)) else {
            self.cache.remove(mail);
            return entry;
        };
        account.mailbox.note_written(seq);
        set_waiting(account, &mut entry);
        // Whom it waited for may have been revoked: then nobody can acknowledge it any more.
        let is_orphaned = entry.waiting.is_empty() && entry.tick == TickState::NotDue;
        if seq <= account.ticks_floor().persisted || is_orphaned {
            entry.tick = TickState::Settled;
        }
        if entry.waiting.is_empty() {
            self.cache.remove(mail);
        } else {
            entry.mail = Some(mail);
        }
        if entry.is_over() {
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

    /// The new epoch is above the last one, and above every place that any record names: the epoch's own record may
    /// have rotted, and a place that comes back would lose mail.
    fn begin_epoch(
        &mut self,
        found: Option<(u32, Position)>,
        last_seq: Option<Seq>,
        highest_place: Option<Seq>,
    ) {
        let named = highest_place.map_or(0, |place| (place.0 >> Seq::COUNTER_BITS) as u32);
        let last = found.map_or(0, |(epoch, _)| epoch).max(named);
        if bug!(self, sequence_reused) && last > 0 {
            self.epoch = last;
            self.next_seq = last_seq.unwrap_or(Seq::start_of_epoch(last)).next();
        } else {
            self.epoch = last + 1;
            self.next_seq = Seq::start_of_epoch(self.epoch).next();
        }
        if let Some((_, position)) = found {
            self.writer.log.live(position);
            self.writer.set_epoch_position(position);
        }
    }
}

/// Which devices still wait for an entry, and whether one has acknowledged it already.
fn set_waiting(account: &Account, entry: &mut Entry) {
    let for_whom = waiting_for(account, entry.kind, entry.from_device);
    for place in (0..DEVICES_MAX).filter(|&place| for_whom.has(place)) {
        let Some(device) = account.device(place).filter(|device| entry.seq > device.since) else { continue };
        if entry.seq > device.floor {
            entry.waiting.0 |= DeviceSet::one(place).0;
        } else if entry.tick == TickState::NotDue {
            entry.tick = TickState::Owed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whole_and_of_no_known_form_is_noticed() {
        let position = Position { segment: SegmentId(0), offset: 0 };
        let (account, seq) = (AccountId(1), Seq(1));
        let future = Record::Account { account, payload: &[99, 0, 0, 0] };
        let no_envelope = Record::Mail { mailbox: account, seq, envelope: b"of another time" };
        for (record, what) in [(future, "an account"), (no_envelope, "an envelope")] {
            let mut found = Found::new();
            found.take(position, 1, record);
            assert_eq!(found.unknown, Some(what));
        }
        let mut found = Found::new();
        found.take(position, 1, Record::Epoch(1));
        assert_eq!(found.unknown, None);
    }
}
