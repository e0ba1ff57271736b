//! Resume tickets: a device that was here before comes back with one X25519 operation instead of four.
//!
//! The server gives a [`Ticket`] out inside a session: an opaque `id` that the client shows in the clear, and a `psk`
//! that both mix into `NNpsk0`. The server keeps nothing per ticket: the id is its own sealed claims, and the psk
//! follows from the id. What makes a ticket one-time is its number, held against the device's record at its home.

use super::record::TAG_BYTES;
use crate::ids::{AccountId, DeviceId};
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use core::fmt;

const CLAIMS_BYTES: usize = 18;
/// Bytes of a ticket's id: nonce (12), sealed claims (18), tag (16).
pub const TICKET_BYTES: usize = NONCE_LEN + CLAIMS_BYTES + TAG_BYTES;
const _: () = assert!(TICKET_BYTES == 46);

/// What a client keeps for its next connection. `Debug` does not show the secret half.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Shown in the clear, after the preface. Tells nobody but the server whose it is.
    pub id: [u8; TICKET_BYTES],
    /// The pre-shared key.
    pub psk: [u8; 32],
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

/// What a ticket says to the server that made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TicketClaims {
    /// Whose it is.
    pub account: AccountId,
    /// Which device's.
    pub device: DeviceId,
    /// Of the numbers that the device was given, which: each works once, and uses up all below it.
    pub number: u32,
    /// When it was made, seconds of Unix time.
    pub made_s: u32,
}

/// The server's secret behind all its tickets.
pub struct TicketKeys {
    /// Nonce-misuse resistant (RFC 8452): random nonces repeat sooner or later, at a million logins an hour.
    seal: LessSafeKey,
    psk: hmac::Key,
}

impl TicketKeys {
    /// The keys that follow from `secret`: 32 random bytes that the data directory keeps.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let seal = hmac::sign(&root, b"tern ticket seal");
        let psk = hmac::sign(&root, b"tern ticket psk");
        let seal = UnboundKey::new(&AES_256_GCM_SIV, seal.as_ref()).expect("32 bytes are a key of AES-256");
        Self { seal: LessSafeKey::new(seal), psk: hmac::Key::new(hmac::HMAC_SHA256, psk.as_ref()) }
    }

    /// Makes a ticket; `nonce` is random.
    #[must_use]
    pub fn issue(&self, claims: &TicketClaims, nonce: [u8; NONCE_LEN]) -> Ticket {
        let mut id = [0; TICKET_BYTES];
        id[..NONCE_LEN].copy_from_slice(&nonce);
        let (text, tag_place) = id[NONCE_LEN..].split_at_mut(CLAIMS_BYTES);
        text[..8].copy_from_slice(&claims.account.0.to_le_bytes());
        text[8..10].copy_from_slice(&claims.device.0.to_le_bytes());
        text[10..14].copy_from_slice(&claims.number.to_le_bytes());
        text[14..].copy_from_slice(&claims.made_s.to_le_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.seal.seal_in_place_separate_tag(nonce, Aad::empty(), text);
        tag_place.copy_from_slice(tag.expect("18 bytes are far below the limits of AES-GCM-SIV").as_ref());
        Ticket { id, psk: self.psk_of(&id) }
    }

    /// Reads a ticket's id: its claims, and its psk. `None` if this server did not make it.
    #[must_use]
    pub fn open(&self, id: &[u8; TICKET_BYTES]) -> Option<(TicketClaims, [u8; 32])> {
        let (&nonce, sealed) = id.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed: [u8; CLAIMS_BYTES + TAG_BYTES] = *sealed.as_array()?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let text = self.seal.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?;
        let (account, rest) = text.split_first_chunk()?;
        let (device, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let claims = TicketClaims {
            account: AccountId(u64::from_le_bytes(*account)),
            device: DeviceId(u16::from_le_bytes(*device)),
            number: u32::from_le_bytes(*number),
            made_s: u32::from_le_bytes(*rest.as_array()?),
        };
        Some((claims, self.psk_of(id)))
    }

    fn psk_of(&self, id: &[u8; TICKET_BYTES]) -> [u8; 32] {
        hmac::sign(&self.psk, id).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_issued_opens_and_nothing_else(account: u64, device: u16, number: u32, made_s: u32,
            nonce: [u8; 12], flipped in 0..TICKET_BYTES * 8) {
            let claims = TicketClaims { account: AccountId(account), device: DeviceId(device), number, made_s };
            let keys = TicketKeys::new(&[7; 32]);
            let ticket = keys.issue(&claims, nonce);
            prop_assert_eq!(keys.open(&ticket.id), Some((claims, ticket.psk)));
            prop_assert_eq!(TicketKeys::new(&[8; 32]).open(&ticket.id), None);
            let mut forged = ticket.id;
            forged[flipped / 8] ^= 1 << (flipped % 8);
            prop_assert_eq!(keys.open(&forged), None);
        }
    }
}
