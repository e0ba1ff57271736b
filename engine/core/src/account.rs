//! Accounts by immutable id, the names that point at them, and their devices.

pub(crate) mod stored;

use crate::ahead::Fetch;
use crate::bucket::Bucket;
use crate::chunks::Chunks;
use crate::presence::Presence;
use crate::session::SessionId;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use siphasher::sip::SipHasher13;
use tern_protocol::ids::{AccountId, DeviceId, MessageId, PartitionId, Seq};
use tern_protocol::phone::frame::ErrorCode;
use tern_storage::io::SegmentId;
use tern_storage::log::Position;
use tern_storage::mailbox::{DEVICES_MAX, DeviceSet, EntryKind, Mailbox};

/// Where an account lies in its shard's table; never used again for another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct AccountIndex(pub(crate) u32);

/// Hashes with a seed of this process, so that nobody can choose names or ids that collide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeededHash(pub(crate) u64, pub(crate) u64);

impl BuildHasher for SeededHash {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// What a mailbox's floor of one device, or of its ticks, is and what the log knows of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    /// What the log says.
    pub(crate) persisted: Seq,
    /// Where it says so.
    position: Position,
    /// How often that segment had been freed when it was written there; [`NOWHERE`] if it is written nowhere.
    used: u32,
    /// Whether a record is on its way.
    pub(crate) queued: bool,
}

/// No segment is freed so often: a floor in it would be lost in the log otherwise.
const NOWHERE: u32 = u32::MAX;

impl Floor {
    /// A floor that is written nowhere.
    pub(crate) const fn at(seq: Seq) -> Self {
        Self {
            persisted: seq,
            position: Position { segment: SegmentId(0), offset: 0 },
            used: NOWHERE,
            queued: false,
        }
    }

    /// A floor that was found in the log.
    pub(crate) const fn found(seq: Seq, position: Position, used: u32) -> Self {
        Self { persisted: seq, position, used, queued: false }
    }

    /// Where the log says it, and how often that segment had been freed when it was written there.
    pub(crate) fn position(&self) -> Option<(Position, u32)> {
        (self.used != NOWHERE).then_some((self.position, self.used))
    }

    /// It is written somewhere else; where it was before.
    pub(crate) fn moved(&mut self, position: Position, used: u32) -> Option<(Position, u32)> {
        let old = self.position();
        (self.position, self.used) = (position, used);
        old
    }
}

/// How far the revoking of a device, or the removal of an account, is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Revoking {
    /// Nobody asked for it.
    No,
    /// It was asked for, and no record speaks of it: it can be given up.
    Asked,
    /// A record of the account without the device, or of the removal, is in the log, or on its way there.
    Written,
}

/// One client of an account. It is in the sets of new entries from when it was asked for until its revoking is on
/// stable storage: whatever a crash leaves of a change, a device that is there has missed nothing.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    /// Its public key (X25519).
    pub(crate) key: [u8; 32],
    /// Whether its account's record names it on stable storage. Until then it may not log in: a crash would give its
    /// number to another device.
    pub(crate) is_known: bool,
    /// Whether a record that names it is in the log, or on its way there: then its adding cannot be given up.
    pub(crate) is_written: bool,
    pub(crate) revoking: Revoking,
    /// Mail up to here was before its time.
    pub(crate) since: Seq,
    /// Mail up to here does not wait for it: it has acknowledged its own.
    pub(crate) floor: Seq,
    pub(crate) log_floor: Floor,
    pub(crate) session: Option<SessionId>,
    /// The lowest ticket number that was not used.
    pub(crate) ticket_floor: u32,
}

impl Device {
    /// A device that gets what comes behind `since`.
    pub(crate) const fn new(id: DeviceId, key: [u8; 32], since: Seq) -> Self {
        let log_floor = Floor::at(since);
        Self {
            id,
            key,
            is_known: true,
            is_written: true,
            revoking: Revoking::No,
            since,
            floor: since,
            log_floor,
            session: None,
            ticket_floor: 0,
        }
    }

    /// Whether nobody has asked to revoke it.
    pub(crate) fn stays(&self) -> bool {
        self.revoking == Revoking::No
    }
}

/// One user.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) id: AccountId,
    pub(crate) name: Box<str>,
    /// The device at the first place; most accounts have no other. The places of revoked devices are empty until
    /// another device takes them.
    first: Option<Device>,
    /// The places behind it, where there are any.
    others: Option<Box<Others>>,
    /// The number of the next device. Never given out twice: tickets and floors name devices by number.
    next_device: u16,
    /// Whether it stands in the list of accounts that had traffic and do not rest yet.
    pub(crate) is_stirred: bool,
    /// While it is not [`Revoking::No`] nobody may log in.
    pub(crate) removing: Revoking,
    pub(crate) mailbox: Mailbox,
    /// None while the log says nothing of it.
    ticks_floor: Option<Box<Floor>>,
    /// Its mail that waits in the queue of lazy items.
    pub(crate) lazy_count: u32,
    pub(crate) position: Option<Position>,
    /// Who is told when its presence changes.
    pub(crate) presence: Presence,
    /// When a session of it last began or ended, seconds of Unix time.
    pub(crate) seen_s: u32,
    /// What it may still send for now.
    pub(crate) sending: Bucket,
}

/// Places of devices behind the first.
#[derive(Debug, Default)]
struct Others(Vec<Option<Device>>);

const _: () = assert!(size_of::<Option<Account>>() <= 176, "an idle phone costs at most 600 bytes in all");

impl Account {
    /// An account without mail, whose devices begin behind `since`.
    pub(crate) fn new(id: AccountId, name: &str, keys: &[[u8; 32]], since: Seq) -> Self {
        let numbered = keys.iter().zip(1..);
        let devices = numbered.map(|(key, number)| Device::new(DeviceId(number), *key, since));
        Self::with_devices(id, name.into(), devices, keys.len() as u16 + 1)
    }

    /// An account without mail and floors.
    fn with_devices(
        id: AccountId,
        name: Box<str>,
        mut devices: impl Iterator<Item = Device>,
        next_device: u16,
    ) -> Self {
        let first = devices.next();
        let others: Vec<_> = devices.map(Some).collect();
        Self {
            id,
            name,
            next_device,
            is_stirred: false,
            removing: Revoking::No,
            first,
            others: (!others.is_empty()).then(|| Box::new(Others(others))),
            mailbox: Mailbox::default(),
            ticks_floor: None,
            lazy_count: 0,
            position: None,
            presence: Presence::default(),
            seen_s: 0,
            sending: Bucket::default(),
        }
    }

    /// The floor of [`DeviceId::TICKS`]; before the first one is written it says nothing.
    pub(crate) fn ticks_floor(&self) -> Floor {
        self.ticks_floor.as_deref().copied().unwrap_or(Floor::at(Seq(0)))
    }

    /// The same, to change it.
    pub(crate) fn ticks_floor_mut(&mut self) -> &mut Floor {
        self.ticks_floor.get_or_insert_with(|| Box::new(Floor::at(Seq(0))))
    }

    /// Its devices, those that are being revoked included.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.places().flatten()
    }

    fn places(&self) -> impl Iterator<Item = &Option<Device>> {
        core::iter::once(&self.first).chain(self.others.iter().flat_map(|others| &others.0))
    }

    /// Its devices, those that are being revoked included.
    pub(crate) fn devices_mut(&mut self) -> impl Iterator<Item = &mut Device> {
        core::iter::once(&mut self.first)
            .chain(self.others.iter_mut().flat_map(|others| &mut others.0))
            .flatten()
    }

    /// The device at a place.
    pub(crate) fn device(&self, place: usize) -> Option<&Device> {
        match place.checked_sub(1) {
            None => self.first.as_ref(),
            Some(other) => self.others.as_ref()?.0.get(other)?.as_ref(),
        }
    }

    /// The device at a place.
    pub(crate) fn device_mut(&mut self, place: usize) -> Option<&mut Device> {
        self.place_mut(place)?.as_mut()
    }

    fn place_mut(&mut self, place: usize) -> Option<&mut Option<Device>> {
        match place.checked_sub(1) {
            None => Some(&mut self.first),
            Some(other) => self.others.as_mut()?.0.get_mut(other),
        }
    }

    /// Why no device can be added, if none can.
    pub(crate) fn cannot_add(&self) -> Option<ErrorCode> {
        if self.next_device == DeviceId::TICKS.0 {
            return Some(ErrorCode::NumbersUsedUp);
        }
        (self.empty_place() == DEVICES_MAX).then_some(ErrorCode::AccountFull)
    }

    fn empty_place(&self) -> usize {
        self.places().position(Option::is_none).unwrap_or(self.places().count())
    }

    /// Adds a device that gets what comes behind `since`, if one can be added.
    pub(crate) fn add_device(&mut self, key: [u8; 32], since: Seq) -> Result<DeviceId, ErrorCode> {
        self.cannot_add().map_or(Ok(()), Err)?;
        let place = self.empty_place();
        let id = DeviceId(self.next_device);
        self.next_device += 1;
        let device = Some(Device { is_known: false, is_written: false, ..Device::new(id, key, since) });
        if let Some(empty) = self.place_mut(place) {
            *empty = device;
        } else {
            self.others.get_or_insert_default().0.push(device);
        }
        Ok(id)
    }

    /// Empties a place. Entries may wait for it for some time still: a device that takes it begins behind them.
    pub(crate) fn take_device(&mut self, place: usize) -> Option<Device> {
        self.place_mut(place)?.take()
    }

    /// The set of all devices.
    pub(crate) fn all_devices(&self) -> DeviceSet {
        let places = self.places().enumerate().filter(|(_, device)| device.is_some());
        DeviceSet(places.fold(0, |set, (place, _)| set | DeviceSet::one(place).0))
    }

    /// The device's place in the list.
    pub(crate) fn place_of(&self, device: DeviceId) -> Option<usize> {
        self.places().position(|d| d.as_ref().is_some_and(|d| d.id == device))
    }

    /// The place of the device with this key. One that is being revoked does not count.
    pub(crate) fn place_of_key(&self, key: &[u8; 32]) -> Option<usize> {
        self.places().position(|d| d.as_ref().is_some_and(|d| d.key == *key && d.stays()))
    }

    /// Whether the device with this key is being revoked.
    pub(crate) fn is_leaving(&self, key: &[u8; 32]) -> bool {
        self.devices().any(|device| device.key == *key && !device.stays())
    }

    /// Whether any device is being revoked.
    pub(crate) fn is_revoking(&self) -> bool {
        self.devices().any(|device| !device.stays())
    }

    /// The place of the copy of a message that it sent, if the copy is not safe yet.
    pub(crate) fn uncommitted_copy(&mut self, to: AccountId, id: MessageId) -> Option<Seq> {
        // Most accounts have one device, and look through nothing.
        self.devices().nth(1)?;
        self.mailbox.volatile(to, id, EntryKind::Copy)
    }

    /// Whether one of its devices is connected.
    pub(crate) fn is_online(&self) -> bool {
        self.devices().any(|device| device.session.is_some())
    }
}

/// Fewer numbers than this are looked up although nobody has them.
const GAP_MIN: u64 = 256;
/// Ids and partitions that one page of a listing looks at.
const PAGE_BUDGET: u32 = 4096;

/// The accounts of a shard.
#[derive(Debug)]
pub(crate) struct Accounts {
    table: Chunks<Option<Account>>,
    /// Places in `table`, by the hash of the id there. Looked up several times a message. Ids are given out by us, so
    /// nobody can choose ones that collide.
    by_id: HashTable<AccountIndex>,
    id_hash: FixedState,
    /// Likewise, by the name's.
    by_name: HashTable<AccountIndex>,
    name_hash: SeededHash,
    /// The highest number that each partition has given out, removed accounts included.
    counters: HashMap<PartitionId, u64, SeededHash>,
    /// New accounts get numbers above this one: what was given out below it may not be known any more.
    numbers_above: u64,
    /// Long gaps between the numbers of accounts: the number before each, and the last one in it.
    gaps: BTreeMap<(PartitionId, u64), u64>,
}

impl Accounts {
    pub(crate) fn new(seed: SeededHash) -> Self {
        Self {
            table: Chunks::new(),
            by_id: HashTable::new(),
            id_hash: FixedState::with_seed(seed.0),
            by_name: HashTable::new(),
            name_hash: seed,
            counters: HashMap::with_hasher(seed),
            numbers_above: 0,
            gaps: BTreeMap::new(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.by_id.len()
    }

    /// Places in the table, removed accounts included.
    pub(crate) fn table_len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn get(&self, index: AccountIndex) -> Option<&Account> {
        self.table.get(index.0 as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: AccountIndex) -> Option<&mut Account> {
        self.table.get_mut(index.0 as usize)?.as_mut()
    }

    pub(crate) fn device_mut(&mut self, index: AccountIndex, place: usize) -> Option<&mut Device> {
        self.get_mut(index)?.device_mut(place)
    }

    /// Asks for the memory of an account.
    pub(crate) fn fetch(&self, index: AccountIndex, fetch: Fetch) {
        fetch.of(self.table.get(index.0 as usize));
    }

    /// Which one an id means, most of the time: its memory is not looked at to be sure.
    pub(crate) fn likely(&self, id: AccountId) -> Option<AccountIndex> {
        self.by_id.iter_hash(self.id_hash.hash_one(id)).next().copied()
    }

    pub(crate) fn by_id(&self, id: AccountId) -> Option<AccountIndex> {
        let is_it = |index: &AccountIndex| self.get(*index).is_some_and(|account| account.id == id);
        self.by_id.find(self.id_hash.hash_one(id), is_it).copied()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<AccountIndex> {
        let is_it = |index: &AccountIndex| self.get(*index).is_some_and(|account| *account.name == *name);
        self.by_name.find(self.name_hash.hash_one(name), is_it).copied()
    }

    pub(crate) fn find_device(&self, id: AccountId, device: DeviceId) -> Option<(AccountIndex, usize)> {
        let index = self.by_id(id)?;
        Some((index, self.get(index)?.place_of(device)?))
    }

    /// Whether a record that names a device is in the log, or on its way there.
    pub(crate) fn has_written(&self, index: AccountIndex, device: DeviceId) -> bool {
        let account = self.get(index);
        let device = account.and_then(|account| account.device(account.place_of(device)?));
        device.is_some_and(|device| device.is_written)
    }

    /// The id that the next account in `partition` gets. It is nobody's until that account is added.
    pub(crate) fn next_id(&self, partition: PartitionId) -> AccountId {
        let given = self.counters.get(&partition).copied().unwrap_or(0);
        AccountId::new(partition, given.max(self.numbers_above) + 1)
    }

    /// Numbers up to this one are not given out any more.
    pub(crate) fn number_above(&mut self, number: u64) {
        self.numbers_above = number;
    }

    /// The highest number that any partition has given out.
    pub(crate) fn highest_number(&self) -> u64 {
        self.counters.values().copied().max().unwrap_or(0)
    }

    /// Remembers that an id was given out. All accounts of its partition with lower ids are there already.
    pub(crate) fn note_id(&mut self, id: AccountId) {
        let counter = self.counters.entry(id.partition()).or_insert(0);
        if id.counter() > *counter + GAP_MIN {
            self.gaps.insert((id.partition(), *counter), id.counter() - 1);
        }
        *counter = (*counter).max(id.counter());
    }

    /// The last number of the gap behind a number, if there is one.
    fn end_of_gap(&self, partition: PartitionId, counter: u64) -> Option<u64> {
        let (before, &last) = self.gaps.range(..=(partition, counter)).next_back()?;
        (before.0 == partition && counter < last).then_some(last)
    }

    /// Adds an account whose id and name are free.
    pub(crate) fn add(&mut self, account: Account) -> AccountIndex {
        self.note_id(account.id);
        let hashes = (self.id_hash.hash_one(account.id), self.name_hash.hash_one(&*account.name));
        let index = AccountIndex(self.table.push(Some(account)) as u32);
        let Self { table, by_id, by_name, id_hash, name_hash, .. } = self;
        // What a table holds is there: removed accounts leave both before their place is emptied.
        let account =
            |index: AccountIndex| table.get(index.0 as usize).and_then(Option::as_ref).expect("listed");
        by_id.insert_unique(hashes.0, index, |&index| id_hash.hash_one(account(index).id));
        by_name.insert_unique(hashes.1, index, |&index| name_hash.hash_one(&*account(index).name));
        index
    }

    pub(crate) fn remove(&mut self, index: AccountIndex) -> Option<Account> {
        let account = self.get(index)?;
        let hashes = (self.id_hash.hash_one(account.id), self.name_hash.hash_one(&*account.name));
        for (table, hash) in [(&mut self.by_id, hashes.0), (&mut self.by_name, hashes.1)] {
            table.find_entry(hash, |listed| *listed == index).ok()?.remove();
        }
        self.table.get_mut(index.0 as usize)?.take()
    }

    /// Up to `limit` accounts with ids above `after`, in the order of their ids, and up to which id all were looked at;
    /// `None` when there are no more. One call looks at [`PAGE_BUDGET`] ids and partitions at most.
    ///
    /// Ids are given out one after the other in each partition, but for a few long gaps, so that they are looked up and nothing
    /// is searched.
    pub(crate) fn page(
        &self,
        after: AccountId,
        limit: usize,
        partition_count: u16,
    ) -> (Vec<&Account>, Option<AccountId>) {
        let (mut page, mut left) = (Vec::new(), PAGE_BUDGET);
        let (mut at, mut counter) = (after, after.counter());
        for partition in (after.partition().0..partition_count).map(PartitionId) {
            let last = self.counters.get(&partition).copied().unwrap_or(0);
            while counter < last {
                if left == 0 || page.len() >= limit {
                    return (page, Some(at));
                }
                (counter, left) = (self.end_of_gap(partition, counter).unwrap_or(counter) + 1, left - 1);
                at = AccountId::new(partition, counter);
                page.extend(self.by_id(at).and_then(|index| self.get(index)));
            }
            if left == 0 {
                return (page, Some(AccountId::new(partition, last.max(1))));
            }
            (counter, left) = (0, left - 1);
        }
        (page, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    /// All pages of so many accounts each, and how many calls that took.
    fn pages(accounts: &Accounts, limit: usize) -> (Vec<AccountId>, usize) {
        let (mut ids, mut after, mut calls) = (Vec::new(), AccountId(0), 0);
        loop {
            let (page, next) = accounts.page(after, limit, 64);
            calls += 1;
            assert!(page.len() <= limit && page.len() <= PAGE_BUDGET as usize);
            ids.extend(page.iter().map(|account| account.id));
            let Some(next) = next else { return (ids, calls) };
            assert!(next > after, "a page goes on");
            after = next;
        }
    }

    #[test]
    fn numbers_of_devices_end_and_none_comes_again() {
        let mut account = Account::new(AccountId(7), "ann", &[[1; 32]], Seq(0));
        account.next_device = u16::MAX - 1;
        assert_eq!(account.add_device([2; 32], Seq(0)), Ok(DeviceId(u16::MAX - 1)));
        assert_eq!(account.add_device([3; 32], Seq(0)), Err(ErrorCode::NumbersUsedUp));
        account.take_device(1);
        assert_eq!(account.add_device([3; 32], Seq(0)), Err(ErrorCode::NumbersUsedUp));
        let keys: Vec<_> = (1..=16).map(|key| [key; 32]).collect();
        let full = Account::new(AccountId(7), "ann", &keys, Seq(0));
        assert_eq!(full.cannot_add(), Some(ErrorCode::AccountFull));
    }

    #[test]
    fn numbers_that_were_skipped_are_skipped_by_pages() {
        let mut accounts = Accounts::new(SeededHash(1, 2));
        let mut expected = Vec::new();
        for round in 0..4_u64 {
            for number in 0..1_000_u16 {
                let id = accounts.next_id(PartitionId(number % 7));
                assert!(id.counter() > round << 20);
                accounts.add(Account::new(id, &format!("a{round}-{number}"), &[[1; 32]], Seq(0)));
                expected.push(id);
            }
            accounts.number_above((round + 1) << 20);
        }
        expected.sort_unstable();
        let (ids, calls) = pages(&accounts, 100);
        assert_eq!(ids, expected);
        assert!(calls < 60, "{calls} calls");
    }

    #[test]
    fn pages_have_every_account_once_in_order_whatever_was_removed() {
        let mut accounts = Accounts::new(SeededHash(1, 2));
        let mut indices = Vec::new();
        for number in 0..20_000_u32 {
            // Some partitions have many, some few, some none.
            let id = accounts.next_id(PartitionId((number % 97 % 40) as u16));
            indices.push(accounts.add(Account::new(id, &format!("a{number}"), &[[0; 32]], Seq(0))));
        }
        for count in [20_000, 7, 1, 0] {
            while indices.len() > count {
                accounts.remove(indices.swap_remove(indices.len() / 3));
            }
            let mut all: Vec<AccountId> =
                indices.iter().map(|&index| accounts.get(index).expect("it is there").id).collect();
            all.sort_unstable();
            // Twenty thousand ids are looked at in any case, and no call looks at more than its budget.
            for (limit, calls_max) in [(100_000, 6), (1_000, 25), (3, 7_000)] {
                let (ids, calls) = pages(&accounts, limit);
                assert!(ids == all, "{count} accounts in pages of {limit}");
                assert!(
                    (5..=calls_max).contains(&calls),
                    "{count} accounts in pages of {limit}: {calls} calls"
                );
            }
        }
    }
}
