//! What the model knows of devices: which there are for sure, which may be there or not, and which are gone for good.
//!
//! Whoever asks to add or to revoke a device and gets no answer knows nothing: a crash may have come before it. So the
//! rules are: an answer is final, whatever crashes follow; a device that may be revoked is, once its key is refused; and
//! as long as it is not, it is owed all that it is owed otherwise.

use tern_protocol::ids::DeviceId;

/// Since when a device is known to be revoked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revoked {
    /// Messages from this serial number on were composed later.
    pub serial: usize,
    /// Virtual nanoseconds.
    pub time_ns: u64,
}

/// One device, and the one phone that has its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Index of its account.
    pub account: usize,
    /// Its public key.
    pub key: [u8; 32],
    /// Its number, once somebody was told.
    pub id: Option<DeviceId>,
    /// Somebody asked for it, or its account was made with it.
    pub add_asked: bool,
    /// It is there, and messages from this serial number on are for it.
    pub since: Option<usize>,
    /// When that was known, virtual nanoseconds.
    pub since_ns: u64,
    /// Somebody asked to revoke it, and may have been heard.
    pub revoke_asked: bool,
    /// Somebody was told that it is revoked.
    pub revoked: Option<Revoked>,
}

impl Device {
    /// Whether it was there and may be there still.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.since.is_some() && self.revoked.is_none()
    }

    /// Whether it is there for sure.
    #[must_use]
    pub const fn stays(&self) -> bool {
        self.is_there() && !self.revoke_asked
    }

    /// Whether it was there when a message was composed, and may be there still.
    #[must_use]
    pub fn is_owed(&self, serial: usize) -> bool {
        self.is_there() && self.is_older_than(serial)
    }

    /// Whether it was there when a message was composed.
    #[must_use]
    pub fn is_older_than(&self, serial: usize) -> bool {
        self.since.is_some_and(|since| since <= serial)
    }

    fn number(&self) -> u16 {
        self.id.map_or(0, |id| id.0)
    }

    /// Whether it is in a set of numbers.
    #[must_use]
    pub fn is_in(&self, set: &std::collections::BTreeSet<u16>) -> bool {
        set.contains(&self.number())
    }
}

/// All devices, by the index of their phone.
#[derive(Debug, Default)]
pub struct Devices(pub Vec<Device>);

impl Devices {
    /// Adds the device of the next phone. One with a number is there from the start.
    pub fn add(&mut self, account: usize, key: [u8; 32], id: Option<DeviceId>) {
        let is_there = id.is_some();
        self.0.push(Device {
            account,
            key,
            id,
            add_asked: is_there,
            since: is_there.then_some(0),
            since_ns: 0,
            revoke_asked: false,
            revoked: None,
        });
    }

    /// The devices of an account, with their phones.
    pub fn of(&self, account: usize) -> impl Iterator<Item = (usize, &Device)> {
        self.0.iter().enumerate().filter(move |(_, device)| device.account == account)
    }

    /// The device of an account with this number.
    #[must_use]
    pub fn find(&self, account: usize, id: DeviceId) -> Option<&Device> {
        self.of(account).find(|(_, device)| device.id == Some(id)).map(|(_, device)| device)
    }

    /// The phones of an account whose devices may be there.
    #[must_use]
    pub fn members(&self, account: usize) -> Vec<usize> {
        self.of(account).filter(|(_, device)| device.is_there()).map(|(phone, _)| phone).collect()
    }

    /// The phone that writes the account's messages: its first one that stays, or else that may be there.
    #[must_use]
    pub fn writer(&self, account: usize) -> Option<usize> {
        let stays = self.of(account).find(|(_, device)| device.stays());
        stays.or_else(|| self.of(account).find(|(_, device)| device.is_there())).map(|(phone, _)| phone)
    }

    /// Somebody learnt that a device is there, and which number it has. Messages from `serial` on are for it.
    ///
    /// # Errors
    /// Nobody asked for it, or it has another number, or another device of the account has that one.
    pub fn is_there(&mut self, phone: usize, id: DeviceId, serial: usize, now_ns: u64) -> Result<(), String> {
        let account = self.0[phone].account;
        if self.of(account).any(|(other, device)| other != phone && device.id == Some(id)) {
            return Err(format!("{id:?} of account {account} is phone {phone} and another one"));
        }
        let device = &mut self.0[phone];
        if !device.add_asked || device.id.is_some_and(|known| known != id) {
            return Err(format!("phone {phone} is {id:?}: asked for {}, {:?}", device.add_asked, device.id));
        }
        device.id = Some(id);
        if device.since.is_none() {
            (device.since, device.since_ns) = (Some(serial), now_ns);
        }
        Ok(())
    }

    /// Somebody was told that a device is revoked.
    ///
    /// # Errors
    /// Nobody asked for that.
    pub fn is_revoked(&mut self, phone: usize, serial: usize, time_ns: u64) -> Result<(), String> {
        let device = &mut self.0[phone];
        if !device.revoke_asked {
            return Err(format!("phone {phone} is told that it was revoked, and nobody asked for it"));
        }
        device.revoked.get_or_insert(Revoked { serial, time_ns });
        Ok(())
    }

    /// A phone of an account was told its devices, on a connection that it began at `began_ns`.
    ///
    /// # Errors
    /// A device is listed that was revoked before that or that nobody asked for, or one is missing that was there
    /// before that and that nobody wanted to revoke.
    pub fn listed(
        &mut self,
        account: usize,
        list: &[(DeviceId, [u8; 32])],
        began_ns: u64,
        serial: usize,
        now_ns: u64,
    ) -> Result<(), String> {
        for &(id, key) in list {
            let found = self.of(account).find(|(_, device)| device.key == key);
            let Some((phone, device)) = found else {
                return Err(format!("{id:?} of account {account} has a key that nobody added"));
            };
            if device.revoked.is_some_and(|revoked| revoked.time_ns <= began_ns) {
                return Err(format!("{id:?} of account {account} was revoked, and is listed again"));
            }
            self.is_there(phone, id, serial, now_ns)?;
        }
        let missing = |device: &Device| list.iter().all(|(_, key)| *key != device.key);
        let lost = self.of(account).find(|(_, d)| d.stays() && d.since_ns <= began_ns && missing(d));
        match lost {
            Some((phone, _)) => {
                Err(format!("the device of phone {phone} is not listed, and nobody revoked it"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: DeviceId = DeviceId(1);
    const SECOND: DeviceId = DeviceId(2);

    /// An account with one device, and the phone of a second one.
    fn devices() -> Devices {
        let mut devices = Devices::default();
        devices.add(0, [1; 32], Some(FIRST));
        devices.add(0, [2; 32], None);
        devices
    }

    #[test]
    fn nobody_is_there_unasked_and_a_number_is_one_devices() {
        let mut devices = devices();
        assert!(devices.is_there(1, SECOND, 5, 0).is_err());
        devices.0[1].add_asked = true;
        assert!(devices.is_there(1, FIRST, 5, 0).is_err());
        devices.is_there(1, SECOND, 5, 0).unwrap();
        assert!(devices.is_there(1, DeviceId(3), 5, 0).is_err());
        assert!(devices.0[1].is_owed(5) && !devices.0[1].is_owed(4));
        assert_eq!(devices.members(0), [0, 1]);
    }

    #[test]
    fn a_list_holds_who_stays_and_nobody_who_was_revoked() {
        let mut devices = devices();
        devices.0[1].add_asked = true;
        let (first, second) = ((FIRST, [1; 32]), (SECOND, [2; 32]));
        devices.listed(0, &[first, second], 10, 0, 20).unwrap();
        assert!(devices.listed(0, &[first], 30, 0, 30).unwrap_err().contains("nobody revoked"));
        devices.listed(0, &[first], 10, 0, 30).unwrap();
        assert!(devices.is_revoked(1, 7, 40).is_err());
        devices.0[1].revoke_asked = true;
        devices.listed(0, &[first], 30, 0, 30).unwrap();
        devices.is_revoked(1, 7, 40).unwrap();
        assert!(!devices.0[1].is_owed(3));
        devices.listed(0, &[first, second], 30, 0, 50).unwrap();
        assert!(devices.listed(0, &[first, second], 40, 0, 50).unwrap_err().contains("listed again"));
    }
}
