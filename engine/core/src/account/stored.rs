//! The stored form of an account's record: version, name, devices.

use super::{Account, Device, DeviceId, Seq};
use alloc::boxed::Box;
use alloc::vec::Vec;
use tern_protocol::ids::AccountId;
use tern_storage::mailbox::DEVICES_MAX;

const VERSION: u8 = 2;
const DEVICE_BYTES: usize = 2 + 32 + 8 + 4;
/// The form before tickets: no next number in its head, no ticket behind each device.
const OLD_VERSION: u8 = 1;
const OLD_DEVICE_BYTES: usize = 2 + 32 + 8;

/// Appends the record's payload: version u8, name length u8, device count u16, next device's number u16, name, then
/// of each device its number u16, its key, the place that it begins behind u64, and its lowest unused ticket u32.
/// Devices that are being revoked are left out: once that record is stable, they are.
pub(crate) fn encode(account: &Account, out: &mut Vec<u8>) {
    let staying = || account.devices().filter(|device| device.stays());
    out.push(VERSION);
    out.push(account.name.len() as u8);
    out.extend_from_slice(&(staying().count() as u16).to_le_bytes());
    out.extend_from_slice(&account.next_device.to_le_bytes());
    out.extend_from_slice(account.name.as_bytes());
    for device in staying() {
        out.extend_from_slice(&device.id.0.to_le_bytes());
        out.extend_from_slice(&device.key);
        out.extend_from_slice(&device.since.0.to_le_bytes());
        out.extend_from_slice(&device.ticket_floor.to_le_bytes());
    }
}

/// Reads a payload; `None` if it is of no known version.
pub(crate) fn decode(id: AccountId, payload: &[u8]) -> Option<Account> {
    let (&[version, name_bytes, count_low, count_high], rest) = payload.split_first_chunk()?;
    let (next_device, rest) = match version {
        OLD_VERSION => (None, rest),
        VERSION => {
            let (next, rest) = rest.split_first_chunk()?;
            (Some(u16::from_le_bytes(*next)), rest)
        }
        _ => return None,
    };
    let device_bytes = if version == VERSION { DEVICE_BYTES } else { OLD_DEVICE_BYTES };
    let (name, devices) = rest.split_at_checked(usize::from(name_bytes))?;
    let device_count = usize::from(u16::from_le_bytes([count_low, count_high]));
    if device_count > DEVICES_MAX || devices.len() != device_count * device_bytes {
        return None;
    }
    let name: Box<str> = core::str::from_utf8(name).ok()?.into();
    let devices = devices.chunks_exact(device_bytes).map(device).collect::<Option<Vec<_>>>()?;
    let last = devices.iter().map(|device| device.id.0).max().unwrap_or(0);
    let next_device = next_device.unwrap_or(last.saturating_add(1));
    Some(Account::with_devices(id, name, devices.into_iter(), next_device))
}

fn device(bytes: &[u8]) -> Option<Device> {
    let (id, rest) = bytes.split_first_chunk()?;
    let (key, rest) = rest.split_first_chunk()?;
    let (since, rest) = rest.split_first_chunk()?;
    let ticket_floor = rest.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let since = Seq(u64::from_le_bytes(*since));
    Some(Device { ticket_floor, ..Device::new(DeviceId(u16::from_le_bytes(*id)), *key, since) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Revoking;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_stored_is_read(name in "[a-z0-9]{1,64}", keys in prop::collection::vec(any::<[u8; 32]>(), 1..16),
            tickets in prop::collection::vec(any::<u32>(), 16), revoked in 0_usize..32, revoking in 0_usize..32) {
            let mut account = Account::new(AccountId(7), &name, &keys, Seq(5));
            for (device, ticket_floor) in account.devices_mut().zip(tickets) {
                device.ticket_floor = ticket_floor;
            }
            account.take_device(revoked);
            let mut payload = Vec::new();
            if let Some(device) = account.device_mut(revoking) {
                device.revoking = Revoking::Asked;
            }
            encode(&account, &mut payload);
            let read = decode(AccountId(7), &payload).unwrap();
            prop_assert_eq!(&*read.name, name.as_str());
            prop_assert_eq!(read.next_device, keys.len() as u16 + 1, "a revoked device's number stays used");
            let shape = |account: &Account| -> Vec<_> {
                let staying = account.devices().filter(|device| device.stays());
                staying.map(|d| (d.id, d.key, d.since, d.floor, d.ticket_floor)).collect()
            };
            prop_assert_eq!(shape(&read), shape(&account));
        }

        #[test]
        fn the_old_form_is_read(name in "[a-z]{1,9}", key: [u8; 32], number in 1_u16..100, since: u64) {
            let mut payload = Vec::from([1, name.len() as u8, 1, 0]);
            payload.extend_from_slice(name.as_bytes());
            payload.extend_from_slice(&number.to_le_bytes());
            payload.extend_from_slice(&key);
            payload.extend_from_slice(&since.to_le_bytes());
            let read = decode(AccountId(7), &payload).unwrap();
            let device = read.devices().next().unwrap();
            prop_assert_eq!((device.id, device.key, device.since), (DeviceId(number), key, Seq(since)));
            prop_assert_eq!((read.next_device, device.ticket_floor), (number + 1, 0));
        }

        #[test]
        fn no_bytes_panic(payload: Vec<u8>) {
            let _ = decode(AccountId(1), &payload);
        }
    }
}
