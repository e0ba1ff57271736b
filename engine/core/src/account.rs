//! Accounts by immutable id, the names that point at them, and their devices.

use crate::session::SessionId;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use siphasher::sip::SipHasher13;
use tern_protocol::ids::{AccountId, DeviceId, PartitionId, Seq};
use tern_storage::log::Position;
use tern_storage::mailbox::{DeviceSet, Mailbox};

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
    /// Where it says so, and how often that segment had been freed when it was written there.
    pub(crate) position: Option<(Position, u32)>,
    /// Whether a record is on its way.
    pub(crate) queued: bool,
}

impl Floor {
    pub(crate) const fn at(seq: Seq) -> Self {
        Self { persisted: seq, position: None, queued: false }
    }
}

/// One client of an account.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    /// Its public key (X25519).
    pub(crate) key: [u8; 32],
    /// Mail up to here was before its time.
    pub(crate) since: Seq,
    /// Mail up to here it has acknowledged.
    pub(crate) floor: Seq,
    pub(crate) log_floor: Floor,
    pub(crate) session: Option<SessionId>,
}

/// One user.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) id: AccountId,
    pub(crate) name: Box<str>,
    pub(crate) devices: Vec<Device>,
    pub(crate) mailbox: Mailbox,
    /// The floor of [`DeviceId::TICKS`].
    pub(crate) ticks_floor: Floor,
    /// Its mail that waits in the queue of lazy items.
    pub(crate) lazy_count: u32,
    pub(crate) position: Option<Position>,
}

impl Account {
    /// The set of all devices.
    pub(crate) fn all_devices(&self) -> DeviceSet {
        DeviceSet::first(self.devices.len())
    }

    /// The device's place in the list.
    pub(crate) fn place_of(&self, device: DeviceId) -> Option<usize> {
        self.devices.iter().position(|d| d.id == device)
    }

    /// Whether one of its devices is connected.
    pub(crate) fn is_online(&self) -> bool {
        self.devices.iter().any(|device| device.session.is_some())
    }
}

/// The accounts of a shard.
#[derive(Debug)]
pub(crate) struct Accounts {
    table: Vec<Option<Account>>,
    /// Looked up several times a message. Ids are given out by us, so nobody can choose ones that collide.
    by_id: HashMap<AccountId, AccountIndex, FixedState>,
    by_name: HashMap<Box<str>, AccountIndex, SeededHash>,
    /// The highest number that each partition has given out, removed accounts included.
    counters: HashMap<PartitionId, u64, SeededHash>,
}

impl Accounts {
    pub(crate) fn new(seed: SeededHash) -> Self {
        Self {
            table: Vec::new(),
            by_id: HashMap::with_hasher(FixedState::with_seed(seed.0)),
            by_name: HashMap::with_hasher(seed),
            counters: HashMap::with_hasher(seed),
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
        self.get_mut(index)?.devices.get_mut(place)
    }

    pub(crate) fn by_id(&self, id: AccountId) -> Option<AccountIndex> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<AccountIndex> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn find_device(&self, id: AccountId, device: DeviceId) -> Option<(AccountIndex, usize)> {
        let index = self.by_id(id)?;
        Some((index, self.get(index)?.place_of(device)?))
    }

    /// A new id in `partition`.
    pub(crate) fn new_id(&mut self, partition: PartitionId) -> AccountId {
        let counter = self.counters.entry(partition).or_insert(0);
        *counter += 1;
        AccountId::new(partition, *counter)
    }

    /// Remembers that an id was given out.
    pub(crate) fn note_id(&mut self, id: AccountId) {
        let counter = self.counters.entry(id.partition()).or_insert(0);
        *counter = (*counter).max(id.counter());
    }

    /// Adds an account whose id and name are free.
    pub(crate) fn add(&mut self, account: Account) -> AccountIndex {
        let index = AccountIndex(self.table.len() as u32);
        self.note_id(account.id);
        self.by_id.insert(account.id, index);
        self.by_name.insert(account.name.clone(), index);
        self.table.push(Some(account));
        index
    }

    pub(crate) fn remove(&mut self, index: AccountIndex) -> Option<Account> {
        let account = self.table.get_mut(index.0 as usize)?.take()?;
        self.by_id.remove(&account.id);
        self.by_name.remove(&account.name);
        Some(account)
    }

    /// Up to `limit` accounts with ids above `after`, in the order of their ids.
    pub(crate) fn page(&self, after: AccountId, limit: usize) -> Vec<&Account> {
        let mut page: Vec<&Account> = self.table.iter().flatten().filter(|a| a.id > after).collect();
        if limit < page.len() {
            // Only the page is sorted: a shard may have millions.
            page.select_nth_unstable_by_key(limit, |account| account.id);
            page.truncate(limit);
        }
        page.sort_unstable_by_key(|account| account.id);
        page
    }
}

/// The stored form of an account's record: version, name, devices.
pub(crate) mod stored {
    use super::{Account, Device, DeviceId, Floor, Seq};
    use alloc::boxed::Box;
    use alloc::vec::Vec;
    use tern_protocol::ids::AccountId;
    use tern_storage::mailbox::{DEVICES_MAX, Mailbox};

    const VERSION: u8 = 1;
    const DEVICE_BYTES: usize = 2 + 32 + 8;

    /// Appends the record's payload: version u8, name length u8, device count u16, name, then of each device its id
    /// u16, its key and the place that it begins behind u64.
    pub(crate) fn encode(account: &Account, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.push(account.name.len() as u8);
        out.extend_from_slice(&(account.devices.len() as u16).to_le_bytes());
        out.extend_from_slice(account.name.as_bytes());
        for device in &account.devices {
            out.extend_from_slice(&device.id.0.to_le_bytes());
            out.extend_from_slice(&device.key);
            out.extend_from_slice(&device.since.0.to_le_bytes());
        }
    }

    /// Reads a payload; `None` if it is not one of this version.
    pub(crate) fn decode(id: AccountId, payload: &[u8]) -> Option<Account> {
        let (&[version, name_bytes, low, high], rest) = payload.split_first_chunk()?;
        let (name, devices) = rest.split_at_checked(usize::from(name_bytes))?;
        let device_count = usize::from(u16::from_le_bytes([low, high]));
        if version != VERSION || device_count > DEVICES_MAX || devices.len() != device_count * DEVICE_BYTES {
            return None;
        }
        let name: Box<str> = core::str::from_utf8(name).ok()?.into();
        let devices = devices.chunks_exact(DEVICE_BYTES).map(device).collect::<Option<Vec<_>>>()?;
        let ticks_floor = Floor::at(Seq(0));
        let mailbox = Mailbox::default();
        Some(Account { id, name, devices, mailbox, ticks_floor, lazy_count: 0, position: None })
    }

    fn device(bytes: &[u8]) -> Option<Device> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (key, rest) = rest.split_first_chunk()?;
        let since = Seq(u64::from_le_bytes(rest.try_into().ok()?));
        let id = DeviceId(u16::from_le_bytes(*id));
        Some(Device { id, key: *key, since, floor: since, log_floor: Floor::at(since), session: None })
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn what_was_stored_is_read(name in "[a-z0-9]{1,64}", keys in prop::collection::vec(any::<[u8; 32]>(), 1..16)) {
                let devices = keys.iter().enumerate().map(|(n, key)| Device {
                    id: DeviceId(n as u16 + 1), key: *key, since: Seq(n as u64), floor: Seq(n as u64),
                    log_floor: Floor::at(Seq(0)), session: None }).collect();
                let account = Account { id: AccountId(7), name: name.as_str().into(), devices, mailbox: Mailbox::default(),
                    ticks_floor: Floor::at(Seq(0)), lazy_count: 0, position: None };
                let mut payload = Vec::new();
                encode(&account, &mut payload);
                let read = decode(AccountId(7), &payload).unwrap();
                prop_assert_eq!(&*read.name, name.as_str());
                prop_assert_eq!(read.devices.len(), keys.len());
                for (device, key) in read.devices.iter().zip(&keys) {
                    prop_assert_eq!(&device.key, key);
                }
            }

            #[test]
            fn no_bytes_panic(payload: Vec<u8>) {
                let _ = decode(AccountId(1), &payload);
            }
        }
    }
}
