//! Snow's cryptography on aws-lc-rs: X25519, AES-256-GCM and SHA-256, and randomness from a seed.

use super::noise::{KeyPair, StaticKey};
use super::record::TAG_BYTES;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::digest::{SHA256, digest};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};

const KEY_BYTES: usize = 32;
const HASH_BYTES: usize = 32;
const HASH_BLOCK_BYTES: usize = 64;

/// The primitives of one handshake.
pub(super) struct Resolver {
    /// The side's own static key, ready for use: snow hands out only its private bytes.
    /// None in `NNpsk0`.
    pub(super) static_key: Option<StaticKey>,
    /// What this handshake's ephemeral key is made from.
    pub(super) seed: [u8; 32],
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom { seed: self.seed, counter: 0 }))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519Key::new(self.static_key.clone()))),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::SHA256 => Some(Box::new(Sha256 { input: Vec::with_capacity(128) })),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::AESGCM => Some(Box::new(AesGcm { key: [0; KEY_BYTES] })),
            _ => None,
        }
    }
}

/// SHA-256 of the seed and a counter, block after block.
struct SeededRandom {
    seed: [u8; 32],
    counter: u64,
}

impl Random for SeededRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        for piece in dest.chunks_mut(HASH_BYTES) {
            let mut block = [0_u8; 40];
            block[..32].copy_from_slice(&self.seed);
            block[32..].copy_from_slice(&self.counter.to_le_bytes());
            self.counter += 1;
            piece.copy_from_slice(&digest(&SHA256, &block).as_ref()[..piece.len()]);
        }
        Ok(())
    }
}

/// A key pair of X25519 (RFC 7748). The public key is derived once, when aws-lc takes the private bytes in; for the
/// static key not even that.
struct X25519Key {
    static_key: Option<StaticKey>,
    own: Option<Arc<PrivateKey>>,
    private: [u8; KEY_BYTES],
    public: [u8; KEY_BYTES],
}

impl X25519Key {
    const fn new(static_key: Option<StaticKey>) -> Self {
        Self { static_key, own: None, private: [0; KEY_BYTES], public: [0; KEY_BYTES] }
    }

    fn take(&mut self, private: [u8; KEY_BYTES], public: [u8; KEY_BYTES], key: Arc<PrivateKey>) {
        self.private = private;
        self.public = public;
        self.own = Some(key);
    }
}

impl Dh for X25519Key {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    fn set(&mut self, privkey: &[u8]) {
        // Only tests fix another key: the ephemeral one.
        let known = self.static_key.clone().filter(|key| privkey == key.pair().private);
        let key = known.unwrap_or_else(|| {
            StaticKey::new(&KeyPair::from_seed(privkey.try_into().expect("keys have 32 bytes")))
        });
        self.take(key.pair().private, key.pair().public, key.expanded().clone());
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = [0_u8; KEY_BYTES];
        rng.try_fill_bytes(&mut private)?;
        let key = PrivateKey::from_private_key(&X25519, &private).map_err(|_| snow::Error::Dh)?;
        let public = key.compute_public_key().map_err(|_| snow::Error::Dh)?;
        let public = public.as_ref().try_into().map_err(|_| snow::Error::Dh)?;
        self.take(private, public, Arc::new(key));
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.private
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        // Snow's buffers are as long as the longest curve's keys.
        let (Some(own), Some(theirs)) = (&self.own, pubkey.get(..KEY_BYTES)) else {
            return Err(snow::Error::Dh);
        };
        // aws-lc refuses an all-zero result (RFC 7748, section 6.1).
        agreement::agree(own, UnparsedPublicKey::new(&X25519, theirs), snow::Error::Dh, |shared| {
            out[..KEY_BYTES].copy_from_slice(shared);
            Ok(())
        })
    }
}

/// AES-256-GCM as Noise uses it (section 12.4 of its specification). Expanded at use: in a handshake each key is used
/// at most once, and some never.
struct AesGcm {
    key: [u8; KEY_BYTES],
}

impl AesGcm {
    fn aead(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.key).expect("32 bytes are a key of AES-256"))
    }
}

/// Four zero bytes, then the counter, big-endian.
pub(super) fn nonce(counter: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    bytes
}

impl Cipher for AesGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; KEY_BYTES]) {
        self.key = *key;
    }

    fn encrypt(&self, counter: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (text, after) = out.split_at_mut(plaintext.len());
        text.copy_from_slice(plaintext);
        let nonce = Nonce::assume_unique_for_key(nonce(counter));
        let tag = self
            .aead()
            .seal_in_place_separate_tag(nonce, Aad::from(authtext), text)
            .expect("handshake messages are far below the limits of AES-GCM");
        after[..TAG_BYTES].copy_from_slice(tag.as_ref());
        plaintext.len() + TAG_BYTES
    }

    fn decrypt(
        &self,
        counter: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let (text, tag) = ciphertext.split_last_chunk::<TAG_BYTES>().ok_or(snow::Error::Decrypt)?;
        let out = out.get_mut(..text.len()).ok_or(snow::Error::Decrypt)?;
        let nonce = Nonce::assume_unique_for_key(nonce(counter));
        self.aead()
            .open_separate_gather(nonce, Aad::from(authtext), text, tag, out)
            .map_err(|_| snow::Error::Decrypt)?;
        Ok(text.len())
    }
}

/// SHA-256 over collected input: one call without allocation beats a streaming context for inputs this short.
struct Sha256 {
    input: Vec<u8>,
}

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        HASH_BLOCK_BYTES
    }

    fn hash_len(&self) -> usize {
        HASH_BYTES
    }

    fn reset(&mut self) {
        self.input.clear();
    }

    fn input(&mut self, data: &[u8]) {
        self.input.extend_from_slice(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..HASH_BYTES].copy_from_slice(digest(&SHA256, &self.input).as_ref());
    }
}
