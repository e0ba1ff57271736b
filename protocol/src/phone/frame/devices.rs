//! The list of an account's devices inside a frame.

use crate::ids::DeviceId;
use alloc::vec::Vec;

/// Bytes of one device in the list: id (u16), flags (u8), public key (32).
const DEVICE_BYTES: usize = 35;
const FLAG_ONLINE: u8 = 1;
const FLAG_THIS: u8 = 2;

/// One device in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// Its number in the account.
    pub device: DeviceId,
    /// Whether it is connected.
    pub online: bool,
    /// Whether it is the one that is told this.
    pub is_this: bool,
    /// Its public key.
    pub key: [u8; 32],
}

/// The devices of an account, as they stand in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceList<'a>(&'a [u8]);

impl<'a> DeviceList<'a> {
    /// Writes devices in the form that [`DeviceList::parse`] reads.
    pub fn write(devices: impl Iterator<Item = DeviceInfo>, out: &mut Vec<u8>) {
        for DeviceInfo { device, online, is_this, key } in devices {
            out.extend_from_slice(&device.0.to_le_bytes());
            let online = if online { FLAG_ONLINE } else { 0 };
            out.push(online | if is_this { FLAG_THIS } else { 0 });
            out.extend_from_slice(&key);
        }
    }

    /// Takes a list in; `None` if a device is cut.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        bytes.len().is_multiple_of(DEVICE_BYTES).then_some(Self(bytes))
    }

    pub(super) const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The devices, one after the other.
    pub fn iter(self) -> impl Iterator<Item = DeviceInfo> + use<'a> {
        self.0.as_chunks::<DEVICE_BYTES>().0.iter().map(|&[low, high, flags, ref key @ ..]| DeviceInfo {
            device: DeviceId(u16::from_le_bytes([low, high])),
            online: flags & FLAG_ONLINE != 0,
            is_this: flags & FLAG_THIS != 0,
            key: *key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(list in prop::collection::vec((any::<u16>(), any::<bool>(), any::<bool>(),
            any::<[u8; 32]>()), 0..16)) {
            let devices: Vec<_> = list.into_iter().map(|(device, online, is_this, key)| DeviceInfo {
                device: DeviceId(device), online, is_this, key }).collect();
            let mut bytes = Vec::new();
            DeviceList::write(devices.iter().copied(), &mut bytes);
            let read: Vec<_> = DeviceList::parse(&bytes).unwrap().iter().collect();
            prop_assert_eq!(read, devices);
            bytes.push(0);
            prop_assert_eq!(DeviceList::parse(&bytes), None);
        }
    }
}
