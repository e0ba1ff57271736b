//! What the control plane may ask of a shard, and the answers. Rare and small, so plain owned data.

use alloc::string::String;
use alloc::vec::Vec;
use tern_protocol::ids::{AccountId, DeviceId, Seq};

/// An account to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewAccount {
    /// Its name; lower case letters, digits, `.`, `-`, `_`; 1 to 64 bytes.
    pub name: String,
    /// The public keys (X25519) of its devices; they are numbered from 1 in this order.
    pub device_keys: Vec<[u8; 32]>,
}

/// What the control plane asks. Every name in a request belongs to the asked shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ControlRequest {
    /// Make these accounts; those that exist with the same keys count as made.
    CreateAccounts(Vec<NewAccount>),
    /// List up to `limit` accounts with ids above `after`, in the order of their ids, one bounded step.
    ListAccounts {
        /// Where the step before ended, or the last id of the page before; zero at first.
        after: AccountId,
        /// At most so many.
        limit: u32,
    },
    /// Remove an account, its mailbox and its sessions. Refused where the drive takes no record of that; then it stays.
    RemoveAccount {
        /// Its name.
        name: String,
    },
    /// Look for the mailboxes that hold most, one bounded step.
    LookForHottest {
        /// Where the step before ended; the default at first.
        from: LookFrom,
        /// At most so many.
        count: u16,
    },
    /// List the accounts that get most messages.
    ListBusiest {
        /// At most so many.
        count: u16,
    },
}

/// How far a search through the accounts has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LookFrom {
    /// The next place in the table of accounts.
    pub place: u32,
    /// Of its mailbox, entries up to here were looked at,
    pub after: Seq,
    /// and these are their bytes.
    pub bytes: u64,
}

impl Default for LookFrom {
    fn default() -> Self {
        Self { place: 0, after: Seq(0), bytes: 0 }
    }
}

/// A mailbox that holds much.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hot {
    /// Its account.
    pub id: AccountId,
    /// The account's name.
    pub name: String,
    /// Entries: messages and ticks that wait, and messages that owe a tick.
    pub entry_count: u32,
    /// Bytes of their envelopes in memory.
    pub bytes: u64,
    /// Whether a device of the account is connected.
    pub is_online: bool,
}

/// An account that gets much.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Busy {
    /// Its id.
    pub id: AccountId,
    /// Its name.
    pub name: String,
    /// Messages that came for it, those included that were refused, a second, about: the mean of the last seconds, of
    /// a sample.
    pub messages_per_s: u32,
    /// Entries of its mailbox.
    pub entry_count: u32,
    /// Whether a device of the account is connected.
    pub is_online: bool,
}

/// What one step of a search found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    /// The largest of this step, the largest first.
    pub found: Vec<Hot>,
    /// Where to go on; `None` when all accounts were looked at.
    pub next: Option<LookFrom>,
}

/// One account in a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountInfo {
    /// Its id.
    pub id: AccountId,
    /// Its name.
    pub name: String,
    /// Its devices.
    pub devices: Vec<DeviceId>,
    /// Devices that are connected now.
    pub online_count: u32,
    /// Messages that wait.
    pub mailbox_count: u32,
}

/// What became of one account of [`ControlRequest::CreateAccounts`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// Made, and durable.
    New(AccountId),
    /// Was there with the same keys.
    Existing(AccountId),
    /// The name is taken by other keys, or by an account that is just being removed.
    Taken,
    /// Not a name.
    BadName,
    /// No keys, or more than an account may have.
    BadKeys,
    /// The shard has as many accounts as `account_count` allows.
    Full,
    /// The shard's log has no room for another one: its drive is full, or it has `segment_count` segments.
    LogFull,
}

/// The answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ControlReply {
    /// In the order of the request; sent when all are durable.
    Created(Vec<Created>),
    /// A page of accounts, or a part of one.
    Accounts {
        /// In the order of their ids.
        list: Vec<AccountInfo>,
        /// Where to go on; `None` when all accounts were looked at.
        next: Option<AccountId>,
    },
    /// Whether there was such an account; sent when its removal is durable.
    Removed(bool),
    /// One step of a search.
    Looked(Looked),
    /// The busiest first.
    Busiest(Vec<Busy>),
    /// The shard is draining or its drive is full. Accounts that were to be made may be there once it is not any more: asked
    /// again, they count as made.
    Refused,
}
