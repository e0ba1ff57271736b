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
/// Random bytes of a nonce.
const RANDOM_BYTES: usize = NONCE_LEN - size_of::<KeyMark>();
/// Bytes of a ticket's id: nonce (12, of which the first 4 are the key mark), sealed claims (18), tag (16).
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

/// Which key of its server a device knew when it got a ticket: the first bytes of that public key. A device that
/// resumes sees no key of the server, so this is how the server knows whom to tell of a new one.
///
/// The mark is the head of the nonce, in the clear (the key is public) and under the seal: a changed one does not open.
/// A ticket from before there were marks has random bytes there, and its device is told the present key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyMark(pub [u8; 4]);

impl KeyMark {
    /// The mark of a server's public key.
    #[must_use]
    pub const fn of(public: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = *public;
        Self([a, b, c, d])
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
    /// The server's key that the device knew by then.
    pub knows: KeyMark,
}

/// The server's secret behind all its tickets.
pub struct TicketKeys {
    /// Nonce-misuse resistant (RFC 8452): 64 random bits repeat sooner or later, and then show at most that two
    /// tickets are one and the same.
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

    /// Makes a ticket.
    #[must_use]
    pub fn issue(&self, claims: &TicketClaims, random: [u8; RANDOM_BYTES]) -> Ticket {
        let mut id = [0; TICKET_BYTES];
        let mut nonce = [0; NONCE_LEN];
        nonce[..claims.knows.0.len()].copy_from_slice(&claims.knows.0);
        nonce[claims.knows.0.len()..].copy_from_slice(&random);
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
        let knows = KeyMark(*nonce.first_chunk()?);
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
            knows,
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
            mark: [u8; 4], random: [u8; 8], flipped in 0..TICKET_BYTES * 8) {
            let (account, device, knows) = (AccountId(account), DeviceId(device), KeyMark(mark));
            let claims = TicketClaims { account, device, number, made_s, knows };
            let keys = TicketKeys::new(&[7; 32]);
            let ticket = keys.issue(&claims, random);
            prop_assert_eq!(keys.open(&ticket.id), Some((claims, ticket.psk)));
            prop_assert_eq!(TicketKeys::new(&[8; 32]).open(&ticket.id), None);
            let mut forged = ticket.id;
            forged[flipped / 8] ^= 1 << (flipped % 8);
            prop_assert_eq!(keys.open(&forged), None);
        }
    }
}
