//! What the scan of a log has gathered, and which of the mail is worth its memory.

use super::RecoveryReport;
use super::damage::{KnownDamage, Place, is_at, is_known_in, whole};
use crate::account::{Account, stored};
use crate::dedup::{LIVE_S, PERIOD_S};
use crate::home::{entry_kind, waiting_for};
use crate::rewrite::MAIL_BYTES;
use crate::writer::GoneRange;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;
use tern_protocol::envelope::Envelope;
use tern_protocol::ids::{AccountId, DeviceId, Seq};
use tern_storage::cache::{Cache, ENTRY_BYTES_MAX, SLACK_BYTES};
use tern_storage::io::SegmentId;
use tern_storage::log::{HiddenPlace, IdGroup, Position, Record, Recovery, RecoveryError, era};
use tern_storage::mailbox::{DEVICES_MAX, DeviceSet, Entry, EntryKind, TickState};

/// A record of mail.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) mailbox: AccountId,
    lsn: u64,
    /// Bytes of its envelope.
    length: u32,
    /// As it came; its envelope is in memory while all mail is held, or once it was read again.
    pub(super) entry: Entry,
}

const _: () = assert!(size_of::<Mail>() <= 112, "the limits name the memory of a start");
const _: () =
    assert!(size_of::<((AccountId, DeviceId, u32), FoundFloor)>() <= 48, "likewise, and what is around them");

impl Mail {
    pub(super) fn position(&self) -> Position {
        self.entry.position.expect("what was found has a place in the log")
    }

    /// Whether a part of its record was not there with this place.
    fn was_in(&self, place: &HiddenPlace) -> bool {
        let Position { segment, offset } = self.position();
        let end = offset.saturating_add(MAIL_BYTES as u32 + self.length);
        segment == place.segment && offset < place.end && end > place.offset && era(self.lsn) < place.from
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FoundFloor {
    pub(super) lsn: u64,
    pub(super) up_to: Seq,
    pub(super) position: Position,
}

/// The last epoch, up to which second tickets are worth nothing, and what its record knows of damage.
#[derive(Clone, Debug)]
pub(super) struct FoundEpoch {
    pub(super) epoch: u32,
    lsn: u64,
    pub(super) position: Position,
    pub(super) tickets_after_s: Option<u32>,
    pub(super) damage: KnownDamage,
}

/// A record of ids.
#[derive(Debug)]
pub(super) struct FoundIds {
    pub(super) position: Position,
    /// The second after the last one of all its ids.
    pub(super) until_s: u32,
    /// Those of its ids that are held, and whether these are all.
    pub(super) groups: Vec<u8>,
    pub(super) is_whole: bool,
}

/// The records of ids, and the latest of their ids: a shard that is busy all day leaves many times as many in its log as
/// it remembers.
#[derive(Debug, Default)]
pub(super) struct Ids {
    pub(super) records: Vec<FoundIds>,
    /// How many are held, by the second after the last one of their group.
    by_end: BTreeMap<u32, usize>,
    held_count: usize,
    count_max: usize,
    /// Of what was made before this second not all is held.
    pub(super) complete_from_s: u32,
}

impl Ids {
    fn take(&mut self, position: Position, mut groups: Vec<u8>) {
        let all = || IdGroup::all(&groups);
        let until_s = all().map(|group| group.until_s()).max().unwrap_or(0);
        let is_whole = all().all(|group| group.until_s() > self.complete_from_s);
        if !is_whole {
            groups = later(&groups, self.complete_from_s);
        }
        for group in IdGroup::all(&groups) {
            let count = group.hashes.len() / size_of::<u64>();
            *self.by_end.entry(group.until_s()).or_default() += count;
            self.held_count += count;
        }
        self.records.push(FoundIds { position, until_s, groups, is_whole });
        if self.held_count > self.count_max {
            self.let_go();
        }
    }

    /// Lets go of the earliest ones, down to three quarters of the limit; of the last minutes all are held.
    fn let_go(&mut self) {
        let newest_s = self.by_end.last_key_value().map_or(0, |(&until_s, _)| until_s);
        let live_s = newest_s.saturating_sub(LIVE_S + 2 * PERIOD_S);
        let mut kept_count = 0;
        for (&until_s, &count) in self.by_end.iter().rev() {
            if kept_count + count > self.count_max / 4 * 3 && until_s <= live_s {
                self.complete_from_s = until_s;
                break;
            }
            kept_count += count;
        }
        let complete_from_s = self.complete_from_s;
        let before_count = core::mem::replace(&mut self.held_count, kept_count);
        if before_count == kept_count {
            return;
        }
        self.by_end.retain(|&until_s, _| until_s > complete_from_s);
        for record in &mut self.records {
            if IdGroup::all(&record.groups).any(|group| group.until_s() <= complete_from_s) {
                (record.groups, record.is_whole) = (later(&record.groups, complete_from_s), false);
            }
        }
    }
}

/// The groups that end behind a second.
fn later(groups: &[u8], second: u32) -> Vec<u8> {
    let mut kept = Vec::new();
    for group in IdGroup::all(groups).filter(|group| group.until_s() > second) {
        group.encode(&mut kept);
    }
    kept
}

/// What the scan has gathered.
///
/// Which mail somebody waits for shows only when all is read, and most of a log may be mail that nobody does. So once
/// the mail takes all the memory that it may have, it is let go of, and only where it lies is remembered; in the end
/// what somebody waits for is read again. A log that holds no more than a shard may hold is read once.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) cache: Cache,
    pub(super) accounts: BTreeMap<AccountId, (u64, Position, Vec<u8>)>,
    pub(super) gone: Vec<(GoneRange, Position)>,
    pub(super) mail: Vec<Mail>,
    /// The last one of each era.
    pub(super) floors: BTreeMap<(AccountId, DeviceId, u32), FoundFloor>,
    /// Places that were not there for a time and are again, with mail of before, and whose mail that is.
    pub(super) back: Vec<HiddenPlace>,
    pub(super) returned: BTreeSet<AccountId>,
    pub(super) epoch: Option<FoundEpoch>,
    pub(super) ids: Ids,
    /// What was found whole in a form that this build does not know. Without it mail or accounts would be gone.
    pub(super) unknown: Option<&'static str>,
    mail_bytes_max: usize,
    holds_mail: bool,
    /// What is to be read again, in order: where it lies, and its index in `mail`.
    wanted: Vec<(Position, u32)>,
}

impl Found {
    /// Nothing yet, with room for so many bytes of mail and so many ids.
    pub(super) fn new(mail_bytes_max: usize, id_count_max: usize) -> Self {
        Self {
            cache: Cache::default(),
            accounts: BTreeMap::new(),
            gone: Vec::new(),
            mail: Vec::new(),
            floors: BTreeMap::new(),
            back: Vec::new(),
            returned: BTreeSet::new(),
            epoch: None,
            ids: Ids { count_max: id_count_max, ..Ids::default() },
            unknown: None,
            mail_bytes_max,
            holds_mail: true,
            wanted: Vec::new(),
        }
    }

    fn take_epoch(&mut self, found: FoundEpoch) {
        if self.epoch.as_ref().is_none_or(|last| (last.epoch, last.lsn) <= (found.epoch, found.lsn)) {
            self.epoch = Some(found);
        }
    }

    pub(super) fn take(&mut self, position: Position, lsn: u64, record: Record<'_>) {
        match record {
            Record::Mail { mailbox, seq, envelope } => match Envelope::parse(envelope) {
                Ok(envelope) if envelope.bytes().len() <= ENTRY_BYTES_MAX => {
                    let length = envelope.bytes().len() as u32;
                    let entry = entry_of(seq, position, envelope);
                    self.mail.push(Mail { mailbox, lsn, length, entry });
                    self.hold_last(envelope.bytes());
                }
                // The checksum held: anything that is no envelope was written by another version.
                _ => self.unknown = Some("an envelope"),
            },
            Record::Floor { mailbox, device, up_to } => {
                let found = FoundFloor { lsn, up_to, position };
                let floor = self.floors.entry((mailbox, device, era(lsn))).or_insert(found);
                if floor.lsn <= lsn {
                    *floor = found;
                }
            }
            Record::Epoch(epoch) => {
                let damage = KnownDamage::default();
                self.take_epoch(FoundEpoch { epoch, lsn, position, tickets_after_s: None, damage });
            }
            Record::EpochAfterRot { epoch, tickets_after_s } => {
                let (tickets_after_s, damage) = (Some(tickets_after_s), KnownDamage::default());
                self.take_epoch(FoundEpoch { epoch, lsn, position, tickets_after_s, damage });
            }
            Record::EpochAfterDamage { epoch, tickets_after_s, rot_reach, numbers_above, hidden } => {
                let tickets_after_s = (tickets_after_s > 0).then_some(tickets_after_s);
                let damage =
                    KnownDamage { rot_reach, numbers_above, hidden: HiddenPlace::all(hidden).collect() };
                self.take_epoch(FoundEpoch { epoch, lsn, position, tickets_after_s, damage });
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
            Record::Ids { groups } => self.ids.take(position, groups.to_vec()),
            Record::IdsOfHour(group) => {
                let mut groups = Vec::new();
                group.encode(&mut groups);
                self.ids.take(position, groups);
            }
        }
    }

    /// Keeps the envelope of what was found last, while there is memory for all of them.
    fn hold_last(&mut self, envelope: &[u8]) {
        if !self.holds_mail {
            return;
        }
        if let Some(last) = self.mail.last_mut() {
            last.entry.mail = self.cache.insert(envelope);
        }
        let held_bytes = self.cache.bytes_held() + self.mail.len() * size_of::<Mail>();
        if held_bytes > self.mail_bytes_max.saturating_add(SLACK_BYTES) {
            self.holds_mail = false;
            self.cache = Cache::default();
            self.mail.iter_mut().for_each(|mail| mail.entry.mail = None);
        }
    }

    /// All was read: which segments have mail that is not held and that somebody waits for.
    pub(super) fn want(&mut self) -> Vec<SegmentId> {
        if self.holds_mail {
            return Vec::new();
        }
        for &(range, _) in &self.gone {
            while let Some((&id, _)) = self.accounts.range(range.first..=range.last).next() {
                self.accounts.remove(&id);
            }
        }
        self.find_returned();
        sort(&mut self.mail);
        drop_twice(&mut self.mail, &mut self.cache);
        let mut account: Option<Account> = None;
        self.wanted.clear();
        for (index, mail) in self.mail.iter().enumerate() {
            if account.as_ref().is_none_or(|account| account.id != mail.mailbox) {
                account = self.account(mail.mailbox);
            }
            let mut entry = mail.entry;
            account.iter().for_each(|account| set_waiting(account, &mut entry));
            if !entry.waiting.is_empty() {
                self.wanted.push((mail.position(), index as u32));
            }
        }
        self.wanted.sort_unstable();
        let mut segments: Vec<_> = self.wanted.iter().map(|(position, _)| position.segment).collect();
        segments.dedup();
        segments
    }

    /// Places that were not there when the last epoch began.
    pub(super) fn not_there(&self) -> impl Iterator<Item = &HiddenPlace> {
        self.epoch.iter().flat_map(|epoch| epoch.damage.not_there())
    }

    /// Whether these are other places than those that were not there when the last epoch began.
    pub(super) fn hides_others(&self, hidden: &[Place]) -> bool {
        let is_known_at = is_known_in(hidden);
        let is_hidden = |place: &HiddenPlace| hidden.iter().any(|&at| is_known_at(place, at));
        let is_known = |&at: &Place| self.not_there().any(|place| is_known_at(place, at));
        !self.not_there().all(is_hidden) || !hidden.iter().all(is_known)
    }

    /// Whether no epoch can have begun in files that were left alone but before the last that was found. That one says which
    /// files were not there; a later start that found one of them again would have begun another era. Epochs are among the
    /// tables: what cannot be read there in other files is damage that is known or is not ([`KnownDamage::covers`]).
    pub(super) fn knows_hidden(&self, report: &RecoveryReport) -> bool {
        let Some(last) = &self.epoch else { return false };
        era(report.last_lsn) == era(last.lsn)
            && report
                .left_alone
                .iter()
                .all(|&segment| self.not_there().any(|known| is_at(known, whole(segment))))
    }

    /// All was read: which mail was not there for a time, and is again.
    pub(super) fn find_returned(&mut self) {
        let hidden = self.epoch.as_ref().map_or(&[][..], |epoch| &epoch.damage.hidden);
        if hidden.is_empty() {
            return;
        }
        for mail in &self.mail {
            for place in hidden.iter().filter(|place| mail.was_in(place)) {
                self.returned.insert(mail.mailbox);
                if !self.back.contains(place) {
                    self.back.push(*place);
                }
            }
        }
    }

    /// The last floor of a device. Of one whose mail is back: the last that was written with all of it there.
    fn floor(&self, mailbox: AccountId, device: DeviceId) -> Option<FoundFloor> {
        let was_there = |era| {
            let mut places = self.back.iter();
            places.all(|place| era < place.from || (place.back > 0 && era >= place.back))
        };
        let counts = |era| !self.returned.contains(&mailbox) || was_there(era);
        let mut floors = self.floors.range((mailbox, device, 0)..=(mailbox, device, u32::MAX)).rev();
        floors.find(|((.., era), _)| counts(*era)).map(|(_, floor)| *floor)
    }

    /// The floors of all devices.
    pub(super) fn last_floors(&self) -> Vec<((AccountId, DeviceId), FoundFloor)> {
        let mut devices: Vec<_> = self.floors.keys().map(|&(mailbox, device, _)| (mailbox, device)).collect();
        devices.dedup();
        let floor = |(mailbox, device)| Some(((mailbox, device), self.floor(mailbox, device)?));
        devices.into_iter().filter_map(floor).collect()
    }

    /// An account with the floors of its devices.
    fn account(&self, id: AccountId) -> Option<Account> {
        let (_, _, payload) = self.accounts.get(&id)?;
        let mut account = stored::decode(id, payload)?;
        for device in account.devices_mut() {
            let floor = self.floor(id, device.id).map(|floor| floor.up_to);
            device.floor = floor.max(Some(device.since)).unwrap_or(device.since);
        }
        Some(account)
    }

    /// Takes the mail that is wanted from a segment.
    pub(super) fn take_again(
        &mut self,
        log: &Recovery,
        segment: SegmentId,
        bytes: &[u8],
    ) -> Result<(), RecoveryError> {
        let first = self.wanted.partition_point(|(position, _)| position.segment < segment);
        let count = self.wanted[first..].partition_point(|(position, _)| position.segment == segment);
        let wanted = &self.wanted[first..first + count];
        let offsets = wanted.iter().map(|(position, _)| position.offset);
        for (&(_, index), record) in wanted.iter().zip(log.again(segment, bytes, offsets)) {
            let found = &mut self.mail[index as usize];
            match record {
                Some(Record::Mail { mailbox, seq, envelope })
                    if (mailbox, seq) == (found.mailbox, found.entry.seq)
                        && Envelope::parse(envelope).is_ok() =>
                {
                    found.entry.mail = self.cache.insert(envelope);
                }
                _ => return Err(RecoveryError::Changed),
            }
        }
        Ok(())
    }
}

/// Puts mail in the order of its places; of what is there twice the fuller one comes first, and then the later one.
pub(super) fn sort(mail: &mut [Mail]) {
    mail.sort_unstable_by_key(|mail| (mail.mailbox, mail.entry.seq, Reverse((mail.length, mail.lsn))));
}

/// Drops what a crash has left twice. Its envelope is the same in both, or has been dropped from the later one because
/// all its devices had it: the fuller one says more, should their floors have rotted.
pub(super) fn drop_twice(mail: &mut Vec<Mail>, cache: &mut Cache) {
    mail.dedup_by(|again, first| {
        let is_twice = (again.mailbox, again.entry.seq) == (first.mailbox, first.entry.seq);
        if is_twice {
            again.entry.mail.into_iter().for_each(|mail| cache.remove(mail));
        }
        is_twice
    });
}

/// What an envelope in the log becomes in a mailbox, before it is known who waits for it.
fn entry_of(seq: Seq, position: Position, envelope: Envelope<'_>) -> Entry {
    let kind = entry_kind(envelope.kind());
    Entry {
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
    }
}

/// Which devices still wait for an entry, and whether one has acknowledged it already.
pub(super) fn set_waiting(account: &Account, entry: &mut Entry) {
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
    use alloc::vec;

    #[test]
    fn what_is_whole_and_of_no_known_form_is_noticed() {
        let position = Position { segment: SegmentId(0), offset: 0 };
        let (account, seq) = (AccountId(1), Seq(1));
        let future = Record::Account { account, payload: &[99, 0, 0, 0] };
        let no_envelope = Record::Mail { mailbox: account, seq, envelope: b"of another time" };
        for (record, what) in [(future, "an account"), (no_envelope, "an envelope")] {
            let mut found = Found::new(0, 0);
            found.take(position, 1, record);
            assert_eq!(found.unknown, Some(what));
        }
        let mut found = Found::new(0, 0);
        found.take(position, 1, Record::Epoch(1));
        assert_eq!(found.unknown, None);
    }

    #[test]
    fn what_is_hidden_is_known_while_nothing_is_of_a_later_era_than_the_last_epoch() {
        let file = |number, back| HiddenPlace {
            segment: SegmentId(number),
            offset: 0,
            end: u32::MAX,
            from: 3,
            back,
            since_s: 1,
        };
        let position = Position { segment: SegmentId(0), offset: 0 };
        let damage = KnownDamage { hidden: vec![file(1, 0), file(2, 4)], ..KnownDamage::default() };
        let lsn = |era: u64| era << 32 | 7;
        let mut found = Found::new(0, 0);
        let knows = |found: &Found, left_alone: &[u32], last_era| {
            let left_alone = left_alone.iter().map(|&number| SegmentId(number)).collect();
            let last_lsn = lsn(last_era) + 1;
            found.knows_hidden(&RecoveryReport { left_alone, last_lsn, ..Default::default() })
        };
        assert!(!knows(&found, &[], 5), "no epoch");
        found.take_epoch(FoundEpoch { epoch: 9, lsn: lsn(5), position, tickets_after_s: None, damage });
        assert!(knows(&found, &[1], 5) && knows(&found, &[], 5));
        assert!(!knows(&found, &[1, 3], 5), "another file");
        assert!(!knows(&found, &[2], 5), "it was back");
        assert!(!knows(&found, &[1], 6), "something was written since");
    }

    #[test]
    fn of_more_ids_than_a_shard_remembers_the_latest_are_held() {
        let place = |offset| Position { segment: SegmentId(0), offset };
        let groups = |ends: &[u32]| {
            let mut groups = Vec::new();
            for &end in ends {
                let group = IdGroup { from_s: end - PERIOD_S, span_s: PERIOD_S, hashes: &[7; 100 * 8] };
                group.encode(&mut groups);
            }
            groups
        };
        let mut ids = Ids { count_max: 1_000, ..Ids::default() };
        // Two periods in each record, one of them early and one of them late.
        let ends: Vec<u32> = (1..=40).map(|n| n * PERIOD_S).collect();
        for (n, (&early, &late)) in ends[..20].iter().zip(&ends[20..]).enumerate() {
            ids.take(place(n as u32), groups(&[early, late]));
            assert!(ids.held_count <= 1_000, "{}", ids.held_count);
        }
        let held: Vec<u32> = ids
            .records
            .iter()
            .flat_map(|record| IdGroup::all(&record.groups))
            .map(|group| group.until_s())
            .collect();
        assert_eq!(held.len() * 100, ids.held_count);
        assert!(ids.held_count >= 500, "{}", ids.held_count);
        assert!(held.iter().all(|&until_s| until_s > ids.complete_from_s));
        let expected: Vec<u32> = ends.iter().copied().filter(|&end| end > ids.complete_from_s).collect();
        assert_eq!(held, expected, "none of them is missing");
        assert_eq!(ids.records.len(), 20, "where the others lie is known");
        assert!(ids.records.iter().all(|record| !record.is_whole && record.until_s > 20 * PERIOD_S));
        // However many there are of the last minutes, all of them are held.
        let mut ids = Ids { count_max: 100, ..Ids::default() };
        (0..10).for_each(|n| ids.take(place(n), groups(&[ends[30]])));
        assert_eq!((ids.held_count, ids.complete_from_s), (1_000, 0));
        ids.take(place(10), groups(&[ends[39]]));
        assert_eq!((ids.held_count, ids.complete_from_s), (100, ends[30]));
    }
}
