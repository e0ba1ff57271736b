//! The admin endpoint's token: a secret that the operator's tools show.

use super::atomic;
use super::secret::random;
use crate::exit::Failure;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use nix::unistd::{AccessFlags, eaccess};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, absolute};
use tern_protocol::hex::to_hex;

/// Fewest characters of a token that somebody chose.
const LENGTH_MIN: usize = 16;

/// A token, as its hash: comparing hashes tells nothing of length or likeness, and the token is not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token([u8; 32]);

impl Token {
    /// The token with this text.
    pub(crate) fn new(text: &str) -> Self {
        Self(hash(text.as_bytes()))
    }

    /// Whether it is this one. Takes as long whatever is given.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        verify_slices_are_equal(&self.0, &hash(given)).is_ok()
    }

    /// Reads the token from a file, or makes one (64 hex digits, mode 0600) where there is none.
    ///
    /// # Errors
    /// The file cannot be read or made, others may read it, or its text is no token.
    pub(crate) fn from_file(path: &Path) -> Result<Self, Failure> {
        Self::read(path)?.map_or_else(|| Self::make(path), Ok)
    }

    /// Likewise, but makes nothing: none where one can be made, if need be in the data directory that is made before it.
    ///
    /// # Errors
    /// As for [`Token::from_file`]; whether there is room for it is not looked at.
    pub(crate) fn look(path: &Path, data: &Path) -> Result<Option<Self>, Failure> {
        let token = Self::read(path)?;
        let is_made_first = || !data.exists() && is_same(atomic::place_of(path), data);
        if token.is_none() && !is_made_first() {
            let may = AccessFlags::W_OK | AccessFlags::X_OK;
            eaccess(atomic::place_of(path), may).map_err(|error| cannot_be_made(path, error.into()))?;
        }
        Ok(token)
    }

    /// Reads the token from a file; none where there is no file.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or its text is no token.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let shown = path.display();
        let failed =
            |error: std::io::Error| Failure::start_up(format!("admin.token_file = {shown}: {error}"));
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            let text = format!("admin.token_file = {shown}: its mode is {mode:03o}, allowed: 600, or less");
            return Err(Failure::usage(text));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let text = text.trim_ascii();
        if text.len() < LENGTH_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let allowed = format!("one line of at least {LENGTH_MIN} visible ASCII characters");
            return Err(Failure::usage(format!(
                "admin.token_file = {shown}: no token in it, allowed: {allowed}"
            )));
        }
        Ok(Some(Self::new(text)))
    }

    /// The file is there whole or not at all: half a token would be refused at every later start.
    fn make(path: &Path) -> Result<Self, Failure> {
        let text = to_hex(&random::<32>()?);
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| cannot_be_made(path, ErrorKind::InvalidFilename.into()))?;
        atomic::replace(atomic::place_of(path), name, format!("{text}\n").as_bytes())
            .map_err(|error| cannot_be_made(path, error))?;
        tracing::info!(file = %path.display(), "made a token for the admin endpoint");
        Ok(Self::new(&text))
    }
}

/// Whether both are names of one directory that is not there yet, as far as the names tell.
fn is_same(a: &Path, b: &Path) -> bool {
    matches!((absolute(a), absolute(b)), (Ok(a), Ok(b)) if a == b)
}

fn cannot_be_made(path: &Path, error: std::io::Error) -> Failure {
    Failure::start_up(format!("admin.token_file = {}: it cannot be made: {error}", path.display()))
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{metadata, read_to_string, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_made_once_and_read_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("token");
        assert_eq!(Token::look(&path, place.path()).unwrap(), None);
        assert!(!path.exists(), "who only looks makes nothing");
        let made = Token::from_file(&path).unwrap();
        assert_eq!(Token::look(&path, place.path()).unwrap().as_ref(), Some(&made));
        assert_eq!(metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = read_to_string(&path).unwrap();
        assert_eq!(text.trim().len(), 64);
        let read = Token::from_file(&path).unwrap();
        assert!(made.is(text.trim().as_bytes()) && read.is(text.trim().as_bytes()));
        assert!(!read.is(text.as_bytes()) && !read.is(b""));
    }

    #[test]
    fn what_others_can_read_or_guess_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("token");
        write(&path, "0123456789abcdef\n").unwrap();
        set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let failure = Token::from_file(&path).unwrap_err();
        assert!(failure.text.contains("640") && failure.text.contains("600"), "{}", failure.text);
        set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
        assert!(Token::from_file(&path).unwrap().is(b"0123456789abcdef"));
        for text in ["", "short", "0123456789abcdef 0123456789abcdef"] {
            set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            write(&path, text).unwrap();
            assert!(Token::from_file(&path).unwrap_err().text.contains("no token"), "{text:?}");
        }
        let nowhere = place.path().join("none/token");
        for failure in
            [Token::look(&nowhere, place.path()).unwrap_err(), Token::from_file(&nowhere).unwrap_err()]
        {
            assert!(failure.text.contains("cannot be made"), "{}", failure.text);
        }
    }
}
