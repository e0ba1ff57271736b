//! Keys, and the encryption of transport records after a handshake.
//!
//! The handshake itself is snow's; what is left of it afterwards is [`Transport`]: two raw keys and two counters, 88
//! bytes a session at rest. Expanding a key (key schedule, hash table) costs more than encrypting a short message with
//! it: a session that is active keeps its keys expanded ([`Transport::expand`]), one at rest expands them per record.

use super::preface::Pattern;
use super::record::{HEADER_BYTES, RecordKind, TAG_BYTES};
use super::resolver::{Resolver, nonce};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use aws_lc_rs::agreement::{PrivateKey, X25519};
use core::fmt;
use core::num::NonZeroU64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Longest plaintext of one transport record.
pub const PLAINTEXT_BYTES_MAX: usize = 65_535 - TAG_BYTES;

/// A static X25519 key pair (RFC 7748). `Debug` shows the public half only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyPair {
    /// The private key, clamped.
    pub private: [u8; 32],
    /// The public key.
    pub public: [u8; 32],
}

impl KeyPair {
    /// Makes the pair of 32 random bytes: clamps them (RFC 7748, section 5) and derives the public key.
    #[must_use]
    pub fn from_seed(mut private: [u8; 32]) -> Self {
        private[0] &= 248;
        private[31] = private[31] & 127 | 64;
        let public = expand(&private).compute_public_key().expect("a private key has a public key");
        Self { private, public: public.as_ref().try_into().expect("X25519 keys have 32 bytes") }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A key pair that is ready for use. Taking the private bytes in costs a key derivation, so a server does it once.
#[derive(Clone, Debug)]
pub struct StaticKey {
    pair: KeyPair,
    expanded: Arc<PrivateKey>,
}

impl StaticKey {
    /// Takes the pair in.
    #[must_use]
    pub fn new(pair: &KeyPair) -> Self {
        Self { pair: *pair, expanded: Arc::new(expand(&pair.private)) }
    }

    /// The pair.
    #[must_use]
    pub const fn pair(&self) -> &KeyPair {
        &self.pair
    }

    pub(super) const fn expanded(&self) -> &Arc<PrivateKey> {
        &self.expanded
    }
}

fn expand(private: &[u8; 32]) -> PrivateKey {
    PrivateKey::from_private_key(&X25519, private).expect("any 32 bytes are a private key of X25519")
}

/// Why a transport record was refused; the connection cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoiseError {
    /// Shorter than its tag.
    Length,
    /// Changed, repeated, out of order, or not from the peer.
    Decrypt,
}

/// What a session keeps of its handshake: both directions' keys and counters. `Debug` does not show the keys.
///
/// Not `Clone`: two of them would use one nonce twice.
pub struct Transport {
    send_key: [u8; 32],
    receive_key: [u8; 32],
    sent_count: RecordCount,
    received_count: RecordCount,
    expanded: Option<Box<Expanded>>,
}

const _: () = assert!(size_of::<Option<Transport>>() == 88);

/// A number of records, kept as one more: so the absence of a transport takes no memory of its own.
#[derive(Clone, Copy)]
struct RecordCount(NonZeroU64);

impl RecordCount {
    const ZERO: Self = Self(NonZeroU64::MIN);

    const fn get(self) -> u64 {
        self.0.get() - 1
    }

    /// The count after this one. Noise keeps the last number for rekeying (section 5.1).
    fn next(self) -> Self {
        assert!(self.get() < u64::MAX - 1, "a connection of 2^64 records");
        Self(self.0.saturating_add(1))
    }
}

/// Both keys, ready for use.
struct Expanded {
    send: LessSafeKey,
    receive: LessSafeKey,
}

/// The AEAD of a key. Records are short and come from phone after phone, so what counts is the cost of a call and the
/// cache lines that an expanded key lies in: with few phones the libraries are alike, and where keys are in no near cache
/// ring takes some six tenths of aws-lc's time (`examples/aead.rs`).
fn aead(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key of AES-256"))
}

/// About what expanded keys take beside their [`Transport`], bytes: with the allocator's rounding.
pub const EXPANDED_BYTES: usize = 1_280;

const _: () = assert!(size_of::<Expanded>() <= EXPANDED_BYTES);

/// Where an unsealed record begins in its buffer.
#[derive(Debug)]
#[must_use = "a record that was begun must be sealed"]
pub struct RecordMark(usize);

impl Transport {
    pub(super) const fn new(send_key: [u8; 32], receive_key: [u8; 32]) -> Self {
        Self {
            send_key,
            receive_key,
            sent_count: RecordCount::ZERO,
            received_count: RecordCount::ZERO,
            expanded: None,
        }
    }

    /// Keeps the keys expanded from now on, which takes [`EXPANDED_BYTES`]: for a session with more than a record or
    /// two to come.
    pub fn expand(&mut self) {
        if self.expanded.is_none() {
            let (send, receive) = (aead(&self.send_key), aead(&self.receive_key));
            self.expanded = Some(Box::new(Expanded { send, receive }));
        }
    }

    /// Gives the memory of expanded keys back.
    pub fn shrink(&mut self) {
        self.expanded = None;
    }

    /// Whether the keys are kept expanded.
    #[must_use]
    pub const fn is_expanded(&self) -> bool {
        self.expanded.is_some()
    }

    /// The expanded key that records are opened with: for who asks for that memory ahead.
    #[must_use]
    pub fn opens_with(&self) -> Option<&impl Sized> {
        self.expanded.as_ref().map(|keys| &keys.receive)
    }

    /// Likewise, the one that they are sealed with.
    #[must_use]
    pub fn seals_with(&self) -> Option<&impl Sized> {
        self.expanded.as_ref().map(|keys| &keys.send)
    }

    /// Decrypts a transport record's payload in place; the plaintext is the front of it.
    ///
    /// # Errors
    /// [`NoiseError`]; the payload's bytes are then worthless.
    pub fn open<'a>(&mut self, payload: &'a mut [u8]) -> Result<&'a mut [u8], NoiseError> {
        if payload.len() < TAG_BYTES {
            return Err(NoiseError::Length);
        }
        let nonce = Nonce::assume_unique_for_key(nonce(self.received_count.get()));
        let opened = match &self.expanded {
            Some(keys) => keys.receive.open_in_place(nonce, Aad::empty(), payload),
            None => aead(&self.receive_key).open_in_place(nonce, Aad::empty(), payload),
        };
        let plain = opened.map_err(|_| NoiseError::Decrypt)?;
        self.received_count = self.received_count.next();
        Ok(plain)
    }

    /// Reserves a record header at the end of `out`. The caller appends frames, then seals.
    pub fn begin(out: &mut Vec<u8>) -> RecordMark {
        let mark = RecordMark(out.len());
        out.extend_from_slice(&[RecordKind::Transport as u8, 0, 0]);
        mark
    }

    /// Encrypts what was appended since the mark in place, appends the tag and fills the header. If nothing was
    /// appended, the header is taken back: there are no empty records.
    ///
    /// # Panics
    /// If more than [`PLAINTEXT_BYTES_MAX`] bytes were appended: the caller splits. Also after 2^64 - 1 records.
    pub fn seal(&mut self, out: &mut Vec<u8>, mark: RecordMark) {
        let (header, plain) = out[mark.0..].split_at_mut(HEADER_BYTES);
        if plain.is_empty() {
            out.truncate(mark.0);
            return;
        }
        assert!(plain.len() <= PLAINTEXT_BYTES_MAX, "{} bytes do not fit one record", plain.len());
        header[1..].copy_from_slice(&((plain.len() + TAG_BYTES) as u16).to_le_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce(self.sent_count.get()));
        let sealed = match &self.expanded {
            Some(keys) => keys.send.seal_in_place_separate_tag(nonce, Aad::empty(), plain),
            None => aead(&self.send_key).seal_in_place_separate_tag(nonce, Aad::empty(), plain),
        };
        out.extend_from_slice(sealed.expect("a record is far below the limits of AES-GCM").as_ref());
        self.sent_count = self.sent_count.next();
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("sent_count", &self.sent_count.get())
            .field("received_count", &self.received_count.get())
            .finish_non_exhaustive()
    }
}

/// Which side of a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side<'a> {
    /// The client, with the server's key where it knows it.
    Initiator(Option<&'a [u8; 32]>),
    /// The server.
    Responder,
}

/// What a side authenticates itself with.
#[derive(Clone, Copy)]
pub(super) enum Secret<'a> {
    /// Its static key.
    Static(&'a StaticKey),
    /// A ticket's psk.
    Psk(&'a [u8; 32]),
}

/// Sets up one side's handshake.
///
/// # Panics
/// If an initiator of `IK` has no server key, or the secret is not of the pattern's kind.
pub(super) fn handshake(
    side: Side<'_>,
    pattern: Pattern,
    prologue: &[u8],
    secret: Secret<'_>,
    seed: [u8; 32],
) -> Box<snow::HandshakeState> {
    let name = match pattern {
        Pattern::IK => "Noise_IK_25519_AESGCM_SHA256",
        Pattern::XX => "Noise_XX_25519_AESGCM_SHA256",
        Pattern::NNpsk0 => "Noise_NNpsk0_25519_AESGCM_SHA256",
    };
    let static_key = match secret {
        Secret::Static(key) => Some(key.clone()),
        Secret::Psk(_) => None,
    };
    let resolver = Box::new(Resolver { static_key, seed });
    let builder = snow::Builder::with_resolver(name.parse().expect("a Noise name that snow knows"), resolver)
        .prologue(prologue)
        .and_then(|builder| match secret {
            Secret::Static(key) => builder.local_private_key(&key.pair.private),
            Secret::Psk(psk) => builder.psk(0, psk),
        })
        .expect("each is set once");
    let state = match side {
        Side::Initiator(Some(server_key)) => {
            builder.remote_public_key(server_key).and_then(snow::Builder::build_initiator)
        }
        Side::Initiator(None) => builder.build_initiator(),
        Side::Responder => builder.build_responder(),
    };
    Box::new(state.expect("the resolver has every primitive, and IK's initiator its server key"))
}

/// Takes the session's keys out of a finished handshake.
pub(super) fn transport_of(state: &mut snow::HandshakeState) -> Transport {
    assert!(state.is_handshake_finished(), "keys of an unfinished handshake");
    let (to_responder, to_initiator) = state.dangerously_get_raw_split();
    if state.is_initiator() {
        Transport::new(to_responder, to_initiator)
    } else {
        Transport::new(to_initiator, to_responder)
    }
}
