//! Device keys: made, derived and kept.

use anyhow::{Context, Result, anyhow, bail};
use aws_lc_rs::{digest, pbkdf2};
use std::fs::OpenOptions;
use std::io::Write;
use std::num::NonZeroU32;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use tern_protocol::hex::{from_hex, to_hex};
use tern_protocol::phone::noise::KeyPair;

/// One salt for every batch, so that the keys can be derived again from the password alone. That makes weak
/// passwords cheap to guess: these keys are for tests only.
const SALT: &[u8] = b"tern-ctl account generate, for tests only";
/// Rounds of the one slow hash of a batch.
const ROUNDS: NonZeroU32 = NonZeroU32::new(200_000).unwrap();

/// A password that nobody can guess.
pub(crate) fn fresh_password() -> Result<String> {
    Ok(to_hex(&random::<16>()?))
}

/// Bytes of the operating system's randomness.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the operating system gave no random bytes"))?;
    Ok(bytes)
}

/// The keys of a batch of test accounts.
///
/// `batch = PBKDF2-HMAC-SHA256(password, "tern-ctl account generate, for tests only", 200000 rounds, 32 bytes)`, once;
/// the private key of NAME is `SHA-256(batch || NAME)`.
pub(crate) struct Batch([u8; 32]);

impl Batch {
    /// The slow part, once for all accounts.
    pub(crate) fn new(password: &str) -> Self {
        let mut derived = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, SALT, password.as_bytes(), &mut derived);
        Self(derived)
    }

    /// The key pair of one account.
    pub(crate) fn keys_of(&self, name: &str) -> KeyPair {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.0);
        context.update(name.as_bytes());
        let mut seed = [0; 32];
        seed.copy_from_slice(context.finish().as_ref());
        KeyPair::from_seed(seed)
    }
}

/// Makes a key pair and writes the private key to a new file that only its owner can read.
///
/// # Errors
/// The file is there already, or cannot be written; then there is none, as half a key would never be replaced.
pub(crate) fn make(file: &Path) -> Result<KeyPair> {
    let keys = KeyPair::from_seed(random()?);
    save(file, &keys)?;
    Ok(keys)
}

/// Reads the private key of a file.
///
/// # Errors
/// The file is missing, open to others, or not a key.
pub(crate) fn load(file: &Path) -> Result<KeyPair> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("key file {shown}"))?;
    refuse_if_open(file)?;
    let private = from_hex(text.trim()).with_context(|| format!("{shown} is not 64 hex digits"))?;
    Ok(KeyPair::from_seed(private))
}

/// What is secret in a file is so only while others cannot read it.
///
/// # Errors
/// They can.
pub(crate) fn refuse_if_open(file: &Path) -> Result<()> {
    let mode = std::fs::metadata(file).with_context(|| file.display().to_string())?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("{} can be read by others: chmod 600 it", file.display());
    }
    Ok(())
}

fn save(file: &Path, keys: &KeyPair) -> Result<()> {
    let shown = file.display();
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("key file {shown}"))?;
    let written = writeln!(out, "{}", to_hex(&keys.private)).and_then(|()| out.sync_all());
    written.map_err(|error| {
        // Of the two errors the first one is of interest.
        let _ = std::fs::remove_file(file);
        anyhow!(error).context(format!("key file {shown}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivation_is_as_documented() {
        // Computed with Python's hashlib: pbkdf2_hmac and sha256.
        let batch = Batch::new("secret");
        assert_eq!(to_hex(&batch.0), "0b7ecdaab0ef749e9b88a79d863ba352c8c09eb6f8761d50432c93db7f196dfe");
        let seed = "bc15bbd949281d8815b2d8b625cc069f439a075f20c36ce2335ae7a45ef25329";
        assert_eq!(batch.keys_of("t0").public, KeyPair::from_seed(from_hex(seed).unwrap()).public);
        assert_ne!(batch.keys_of("t0").public, batch.keys_of("t1").public);
    }

    #[test]
    fn a_key_file_is_private_and_never_replaced() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("anna.key");
        let keys = make(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let error = make(&file).unwrap_err();
        assert!(format!("{error:#}").contains("anna.key: File exists"), "{error:#}");
        assert_eq!(from_hex(std::fs::read_to_string(&file).unwrap().trim()), Some(keys.private));
        assert_eq!(load(&file).unwrap(), keys);
    }
}
