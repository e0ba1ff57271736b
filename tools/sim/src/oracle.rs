//! The model: what was composed, seen, acknowledged and ticked, and the rules that every single event must keep.

use crate::devices::{Device, Devices};
use crate::plan::Plan;
use crate::steps::Clocks;
use std::collections::{BTreeMap, BTreeSet};
use tern_protocol::envelope::{Envelope, HEADER_BYTES, Kind};
use tern_protocol::ids::{AccountId, DeviceId, MessageId};

/// Begins every body, so that a message is recognised wherever its bytes turn up.
pub const BODY_MAGIC: &[u8; 8] = b"TernSim\n";
/// Smallest body: magic and serial number.
pub const BODY_BYTES_MIN: usize = 16;

/// An account of the run; its index is its place in [`Oracle::accounts`].
#[derive(Clone, Debug)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its id, once a phone or the control plane learnt it.
    pub id: Option<AccountId>,
    /// Somebody asked to remove it, and may have been heard.
    pub removal_asked: bool,
    /// Somebody was told that it is removed.
    pub is_gone: bool,
}

/// A message of the run; its index is its serial number.
#[derive(Clone, Debug)]
pub struct Message {
    /// Account index of the sender.
    pub from: usize,
    /// The sender's phone; the others of the account get copies.
    pub phone: usize,
    /// Account index of the recipient.
    pub to: usize,
    /// Its id.
    pub id: MessageId,
    /// Its place in the order of its pair.
    pub index: u64,
    /// When it was composed, wall milliseconds.
    pub composed_ms: u64,
    /// When its phone was told the time that its id is made by, virtual nanoseconds.
    pub told_ns: u64,
    /// Its phone was told that it is too late or too early, which it may be by clocks that are set. Nothing needs to come of
    /// it then, unless it was ticked.
    pub refused: bool,
    /// Its body.
    pub body: Vec<u8>,
    /// When the sender heard the `sent` tick first, wall milliseconds.
    pub sent_ms: Option<u64>,
    /// The sender has the `delivered` tick.
    pub delivered: bool,
    /// In which life of the node the sender heard first that it is delivered.
    pub delivered_in: Option<u32>,
    /// And in which one a device acknowledged it first.
    pub acknowledged_in: Option<u32>,
    /// Devices that decrypted it.
    pub seen_by: BTreeSet<u16>,
    /// Devices whose acknowledgement of it left the phone.
    pub acknowledged_by: BTreeSet<u16>,
    /// It was in a write that the drive reported as done, or in the stable image of a start.
    pub durable: bool,
    /// Its copy for the sender's other devices was.
    pub copy_durable: bool,
    /// The sender's other devices that decrypted the copy.
    pub copy_seen_by: BTreeSet<u16>,
    /// Those whose acknowledgement of it left the phone.
    pub copy_acknowledged_by: BTreeSet<u16>,
    /// A device of the recipient said that it was read.
    pub read_said: bool,
    /// And was told that this is safe.
    pub read_taken: bool,
    /// The sender's devices that got the `read` tick.
    pub read_seen_by: BTreeSet<u16>,
}

/// The model.
#[derive(Debug, Default)]
pub struct Oracle {
    /// All accounts.
    pub accounts: Vec<Account>,
    /// All devices.
    pub devices: Devices,
    /// All messages, by serial number.
    pub messages: Vec<Message>,
    /// For how long mail is kept, milliseconds; none where nobody is away for as long.
    pub kept_ms: Option<u64>,
    /// Whether the node's clock is set to other times.
    pub sets_clock: bool,
    /// When shards may go by different times.
    pub clocks: Clocks,
    /// What time it is, wall milliseconds.
    pub now_ms: u64,
    /// Since when no faults happen, wall milliseconds.
    pub calm_ms: Option<u64>,
    by_id: BTreeMap<(usize, MessageId), usize>,
    by_account: BTreeMap<AccountId, usize>,
    pair_counts: BTreeMap<(usize, usize), u64>,
    /// The last index that a device saw of a pair.
    last_seen: BTreeMap<(usize, usize, u16), u64>,
    /// Messages that must not be handed to a device again: acknowledged, with floor and record stable at a crash.
    floored: BTreeSet<(usize, u16)>,
}

/// What a phone received.
#[derive(Clone, Copy, Debug)]
pub struct Receipt<'a> {
    /// Whose phone: the account's index.
    pub account: usize,
    /// Which device.
    pub device: DeviceId,
    /// The sender.
    pub from: AccountId,
    /// The sender's name.
    pub from_name: &'a str,
    /// The message.
    pub id: MessageId,
    /// The server's stamp, seconds.
    pub time_s: u32,
    /// The body.
    pub body: &'a [u8],
    /// The life of the node.
    pub life: u32,
}

impl Oracle {
    /// The model of a run before anything has happened.
    #[must_use]
    pub fn of_run(plan: &Plan) -> Self {
        Self { kept_ms: plan.kept_ms, sets_clock: plan.sets_clock, ..Self::default() }
    }

    /// Adds an account and returns its index.
    pub fn add_account(&mut self, name: String) -> usize {
        self.accounts.push(Account { name, id: None, removal_asked: false, is_gone: false });
        self.accounts.len() - 1
    }

    /// An account's id was learnt; it must stay the same and be nobody else's.
    ///
    /// # Errors
    /// Names the broken invariant, as everywhere here.
    pub fn learn_id(&mut self, account: usize, id: AccountId) -> Result<(), String> {
        let known = self.accounts[account].id.get_or_insert(id);
        if *known != id {
            return Err(format!("account {account} was {known:?} and is now {id:?}"));
        }
        match self.by_account.insert(id, account) {
            Some(other) if other != account => Err(format!("accounts {account} and {other} are both {id:?}")),
            _ => Ok(()),
        }
    }

    /// Somebody asks to remove an account: each of its devices may be gone from now on.
    pub fn is_to_be_removed(&mut self, account: usize) {
        self.accounts[account].removal_asked = true;
        for device in self.devices.0.iter_mut().filter(|device| device.account == account) {
            device.revoke_asked = true;
        }
    }

    /// Somebody was told that an account is removed, and all its devices with it.
    ///
    /// # Errors
    /// Nobody asked for that.
    pub fn is_gone(&mut self, account: usize, now_ns: u64) -> Result<(), String> {
        if !self.accounts[account].removal_asked {
            return Err(format!("account {account} is gone, and nobody asked for that"));
        }
        self.accounts[account].is_gone = true;
        let serial = self.messages.len();
        let phones: Vec<usize> = self.devices.of(account).map(|(phone, _)| phone).collect();
        phones.into_iter().try_for_each(|phone| self.devices.is_revoked(phone, serial, now_ns))
    }

    /// Accounts that nobody was told to be gone.
    #[must_use]
    pub fn present_count(&self) -> usize {
        self.accounts.iter().filter(|account| !account.is_gone).count()
    }

    /// The account with this id.
    #[must_use]
    pub fn account_of(&self, id: AccountId) -> Option<usize> {
        self.by_account.get(&id).copied()
    }

    /// Makes a message of a phone; `padding` follows its mark in the body. Returns its serial number.
    pub fn compose(&mut self, phone: usize, to: usize, id: MessageId, now_ms: u64, padding: &[u8]) -> usize {
        let serial = self.messages.len();
        let from = self.devices.0[phone].account;
        let count = self.pair_counts.entry((phone, to)).or_default();
        *count += 1;
        let mut body = BODY_MAGIC.to_vec();
        body.extend((serial as u64).to_le_bytes());
        body.extend(padding);
        self.messages.push(Message {
            from,
            phone,
            to,
            id,
            index: *count,
            composed_ms: now_ms,
            told_ns: 0,
            refused: false,
            body,
            sent_ms: None,
            delivered: false,
            delivered_in: None,
            acknowledged_in: None,
            seen_by: BTreeSet::new(),
            acknowledged_by: BTreeSet::new(),
            durable: false,
            copy_durable: false,
            copy_seen_by: BTreeSet::new(),
            copy_acknowledged_by: BTreeSet::new(),
            read_said: false,
            read_taken: false,
            read_seen_by: BTreeSet::new(),
        });
        let old = self.by_id.insert((from, id), serial);
        assert!(old.is_none(), "the simulated phone used {id:?} twice");
        serial
    }

    /// The message that account `from` calls `id`.
    #[must_use]
    pub fn serial_of(&self, from: usize, id: MessageId) -> Option<usize> {
        self.by_id.get(&(from, id)).copied()
    }

    /// A device decrypted a message; `again` when it had it before. Returns the serial number.
    ///
    /// # Errors
    /// Wrong addressee, changed content, order of the pair, or handed out again after its floor was stable.
    pub fn seen(&mut self, receipt: &Receipt<'_>, again: bool) -> Result<usize, String> {
        let (account, device) = (receipt.account, receipt.device.0);
        let from =
            self.account_of(receipt.from).ok_or_else(|| format!("mail from unknown {:?}", receipt.from))?;
        let serial =
            self.serial_of(from, receipt.id).ok_or_else(|| format!("nobody composed {:?}", receipt.id))?;
        let message = &mut self.messages[serial];
        if message.to != account {
            let to = message.to;
            return Err(format!("message {serial} for account {to} was given to account {account}"));
        }
        if message.body != receipt.body || self.accounts[from].name != receipt.from_name {
            return Err(format!("message {serial} changed on its way"));
        }
        let phone = message.phone;
        self.stamped(serial, receipt.time_s)?;
        self.is_not_for(account, receipt.device, serial)?;
        let message = &mut self.messages[serial];
        if self.floored.contains(&(serial, device)) {
            return Err(format!(
                "message {serial} was handed out again to device {device} of account {account}, \
                 whose floor was stable before the crash"
            ));
        }
        // The node has taken the acknowledgement, and has not stopped since.
        let is_over =
            message.delivered_in == Some(receipt.life) && message.acknowledged_in == Some(receipt.life);
        if again && is_over && self.devices.of(account).filter(|(_, device)| device.add_asked).count() == 1 {
            return Err(format!(
                "message {serial} was handed out again to the only device of account {account}, which had \
                 acknowledged it in the same life of the node"
            ));
        }
        if again {
            return Ok(serial);
        }
        if !message.seen_by.insert(device) {
            return Err(format!("message {serial} twice after dedup"));
        }
        // What was sent before the device was added and had no tick comes again after a crash, and then to it as well.
        let found = self.devices.find(account, receipt.device);
        if !found.is_some_and(|device| device.is_older_than(serial)) {
            return Ok(serial);
        }
        let last = self.last_seen.insert((phone, account, device), message.index).unwrap_or(0);
        if last >= message.index {
            let index = message.index;
            return Err(format!(
                "order: account {account} device {device} got number {index} of account {from} after {last}"
            ));
        }
        Ok(serial)
    }

    /// The server's stamp came with a message, or with what there is beside it.
    ///
    /// # Errors
    /// It is before the message was composed, or yet to come.
    pub fn stamped(&self, serial: usize, time_s: u32) -> Result<(), String> {
        // A clock in doubt goes on by the monotonic one: both are rounded.
        let (earliest_s, latest_s) = ((self.messages[serial].composed_ms - 2) / 1000, self.now_ms / 1000);
        if !self.sets_clock && !(earliest_s..=latest_s).contains(&u64::from(time_s)) {
            return Err(format!("message {serial} is stamped {time_s} outside its life"));
        }
        Ok(())
    }

    /// A device got a message or its copy.
    ///
    /// # Errors
    /// Somebody was told that it is revoked before the message was composed.
    fn is_not_for(&self, account: usize, device: DeviceId, serial: usize) -> Result<(), String> {
        let revoked = self.devices.find(account, device).and_then(|device| device.revoked);
        if revoked.is_some_and(|revoked| revoked.serial <= serial) {
            return Err(format!(
                "message {serial} reached {device:?} of account {account}, which was revoked"
            ));
        }
        Ok(())
    }

    /// A device's acknowledgement left the phone, in this life of the node.
    pub fn acknowledged(&mut self, serial: usize, device: DeviceId, life: u32) {
        let message = &mut self.messages[serial];
        message.acknowledged_by.insert(device.0);
        message.acknowledged_in.get_or_insert(life);
    }

    /// A crash left a stable floor of `device` that covers the stable record of this message.
    ///
    /// # Errors
    /// When that device never acknowledged it.
    pub fn floored(&mut self, serial: usize, device: DeviceId) -> Result<(), String> {
        // The floor of a device that was added later begins behind it.
        let found = self.devices.find(self.messages[serial].to, device);
        if found.is_none_or(|device| !device.is_older_than(serial)) {
            return Ok(());
        }
        if !self.messages[serial].acknowledged_by.contains(&device.0) {
            if self.is_lapsed(serial) {
                return Ok(());
            }
            return Err(format!(
                "a floor of {device:?} covers message {serial}, which it did not acknowledge"
            ));
        }
        self.floored.insert((serial, device.0));
        Ok(())
    }

    /// Bytes became stable: the messages whose marks are in them are durable.
    pub fn written(&mut self, bytes: &[u8]) {
        let mut from = 0;
        let next =
            |from: usize| bytes[from..].windows(BODY_MAGIC.len()).position(|window| window == BODY_MAGIC);
        while let Some(at) = next(from).map(|at| from + at) {
            from = at + BODY_MAGIC.len();
            // A copy has no name between its header and its body.
            let header = at.checked_sub(HEADER_BYTES).map(|start| Envelope::parse_first(&bytes[start..]));
            let is_copy = matches!(header, Some(Ok((envelope, _))) if envelope.kind() == Kind::Copy);
            if let Some(serial) = bytes[from..].first_chunk().map(|b| u64::from_le_bytes(*b) as usize)
                && let Some(message) = self.messages.get_mut(serial)
            {
                message.durable |= !is_copy;
                message.copy_durable |= is_copy;
            }
        }
    }

    /// The devices that copies of a message are for, as far as is known.
    fn copy_devices(&self, serial: usize) -> impl Iterator<Item = &Device> {
        let Message { from, phone, .. } = self.messages[serial];
        self.devices.of(from).filter(move |&(other, d)| other != phone && d.is_owed(serial)).map(|(_, d)| d)
    }

    /// The devices that a message is for, as far as is known.
    fn devices_for(&self, account: usize, serial: usize) -> impl Iterator<Item = &Device> {
        self.devices.of(account).map(|(_, device)| device).filter(move |device| device.is_owed(serial))
    }

    /// Another device of the sender decrypted a copy. Returns the serial number.
    ///
    /// # Errors
    /// Not a message of this account, or changed on its way.
    pub fn copied(
        &mut self,
        account: usize,
        device: DeviceId,
        to: AccountId,
        id: MessageId,
        body: &[u8],
    ) -> Result<usize, String> {
        let serial = self.serial_of(account, id).ok_or_else(|| format!("a copy of unknown {id:?}"))?;
        let right_address = self.account_of(to) == Some(self.messages[serial].to);
        self.is_not_for(account, device, serial)?;
        let message = &mut self.messages[serial];
        let is_senders = self.devices.0[message.phone].id == Some(device);
        if is_senders || message.body != body || !right_address {
            return Err(format!("the copy of message {serial} is wrong at {device:?} of account {account}"));
        }
        message.copy_seen_by.insert(device.0);
        Ok(serial)
    }

    /// A device of the sender got a `read` tick. Returns the serial number.
    ///
    /// # Errors
    /// Nobody said so, or somebody else did.
    pub fn read(
        &mut self,
        from: usize,
        device: DeviceId,
        by: AccountId,
        id: MessageId,
    ) -> Result<usize, String> {
        let serial = self.serial_of(from, id).ok_or_else(|| format!("read tick for unknown {id:?}"))?;
        let reader = self.account_of(by);
        let message = &mut self.messages[serial];
        if !message.read_said || reader != Some(message.to) {
            return Err(format!("the read tick of message {serial} came before it was read"));
        }
        message.read_seen_by.insert(device.0);
        Ok(serial)
    }

    /// A device of an account was told that the `read` tick is safe.
    ///
    /// # Errors
    /// No such message for that account, or nobody said that it was read.
    pub fn read_taken(&mut self, reader: usize, author: AccountId, id: MessageId) -> Result<(), String> {
        let serial = self.account_of(author).and_then(|author| self.serial_of(author, id));
        let serial = serial.ok_or_else(|| format!("a read of {id:?} is taken, which nobody sent"))?;
        let message = &mut self.messages[serial];
        if !message.read_said || message.to != reader {
            return Err(format!("account {reader} is told that its read of message {serial} is taken"));
        }
        message.read_taken = true;
        Ok(())
    }

    /// The sender got a `sent` tick.
    ///
    /// # Errors
    /// No such message, or it is not safe: not on stable storage and not acknowledged by every device.
    pub fn sent(&mut self, from: usize, id: MessageId) -> Result<usize, String> {
        let serial = self.serial_of(from, id).ok_or_else(|| format!("sent tick for unknown {id:?}"))?;
        let message = &self.messages[serial];
        if !message.durable && !self.acknowledged_by_all(serial) {
            return Err(format!("the sent tick of message {serial} came before it was safe"));
        }
        let lacks_it = |device: &&Device| device.stays() && !device.is_in(&message.copy_acknowledged_by);
        let others_have_it = self.copy_devices(serial).find(lacks_it).is_none();
        if !message.copy_durable && !others_have_it {
            return Err(format!("the sent tick of message {serial} came before its copy was safe"));
        }
        self.messages[serial].sent_ms.get_or_insert(self.now_ms);
        Ok(serial)
    }

    /// A phone got a `delivered` tick, in this life of the node.
    ///
    /// # Errors
    /// No such message of it, wrong recipient, or no device acknowledged it.
    pub fn delivered(
        &mut self,
        phone: usize,
        by: AccountId,
        id: MessageId,
        life: u32,
    ) -> Result<usize, String> {
        let from = self.devices.0[phone].account;
        let serial = self.serial_of(from, id).ok_or_else(|| format!("delivered tick for unknown {id:?}"))?;
        let message = &self.messages[serial];
        if self.accounts[message.to].id != Some(by) {
            return Err(format!("message {serial} is ticked as delivered by {by:?}"));
        }
        if message.phone != phone {
            return Err(format!(
                "the delivered tick of message {serial} came to phone {phone}, which did not send it"
            ));
        }
        if message.acknowledged_by.is_empty() {
            return Err(format!("the delivered tick of message {serial} came before any acknowledgement"));
        }
        self.messages[serial].delivered_in.get_or_insert(life);
        Ok(serial)
    }

    /// Whether every device of the recipient that is there for sure acknowledged it.
    #[must_use]
    pub fn acknowledged_by_all(&self, serial: usize) -> bool {
        let message = &self.messages[serial];
        let mut devices = self.devices_for(message.to, serial).filter(|device| device.stays());
        devices.all(|device| device.is_in(&message.acknowledged_by))
    }

    /// What is not done yet with a message's copies and its read tick.
    fn unfinished_beside(&self, serial: usize) -> Option<String> {
        let message = &self.messages[serial];
        let uncopied = self.copy_devices(serial).find(|device| !device.is_in(&message.copy_seen_by));
        if let Some(device) = uncopied {
            return Some(format!("the copy of message {serial} never reached {:?}", device.id));
        }
        let mut authors = self.devices_for(message.from, serial);
        let unread = authors.find(|device| !device.is_in(&message.read_seen_by));
        let unread = unread.filter(|_| message.read_taken)?.id;
        Some(format!("the read tick of message {serial} was taken and never reached {unread:?}"))
    }

    /// What is not done yet with a message: `None` when every device saw and acknowledged it, both ticks came, the
    /// sender's other devices have their copies, and a read that was taken was told. What a device that was revoked
    /// had sent without a tick may be lost, and its ticks are told to nobody. So may what was sent to an account that is gone,
    /// and what was refused.
    #[must_use]
    pub fn unfinished(&self, serial: usize) -> Option<String> {
        let message = &self.messages[serial];
        let sender_is_gone = self.devices.0[message.phone].revoked.is_some();
        let is_excused = sender_is_gone || self.accounts[message.to].is_gone;
        if (is_excused || message.refused) && message.sent_ms.is_none() || self.has_run_out(serial) {
            return None;
        }
        let to = message.to;
        let missing = self.devices_for(to, serial).find(|device| !device.is_in(&message.seen_by));
        let unacknowledged =
            self.devices_for(to, serial).find(|device| !device.is_in(&message.acknowledged_by));
        // Who alone it was for may be gone, and then nobody earns that tick.
        let owes_delivered = !sender_is_gone && self.devices_for(to, serial).next().is_some();
        Some(match missing.map(|device| device.id) {
            Some(device) if message.sent_ms.is_some() => {
                format!("message {serial} was ticked and never reached {device:?} of account {to}")
            }
            Some(device) => format!("message {serial} never reached {device:?} of account {to}"),
            None if message.sent_ms.is_none() => format!("message {serial} never got its sent tick"),
            None if !message.delivered && owes_delivered => {
                format!("message {serial} never got its delivered tick")
            }
            None if unacknowledged.is_some() => format!("message {serial} is not acknowledged"),
            None => return self.unfinished_beside(serial),
        })
    }
}

#[cfg(test)]
mod tests;
