//! The login payload inside the last handshake message of a client, and the rule for names.

use crate::envelope::NAME_BYTES_MAX;
use alloc::vec::Vec;

const FLAG_REGISTER: u8 = 1;

/// Whether `name` may be an account's name: 1 to 64 bytes of `a-z`, `0-9`, `.`, `_` and `-`, beginning with a letter
/// or digit.
#[must_use]
pub fn valid_name(name: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= NAME_BYTES_MAX
        && bytes.first().is_some_and(plain)
        && bytes.iter().all(|byte| plain(byte) || b"._-".contains(byte))
}

/// What the client wants to log in as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Login<'a> {
    /// Make the account if the name is free.
    pub(super) register: bool,
    /// UTF-8, not yet held against [`valid_name`].
    pub(super) name: &'a str,
}

impl<'a> Login<'a> {
    /// Appends the payload.
    ///
    /// # Panics
    /// If the name is longer than [`NAME_BYTES_MAX`].
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.name.len() <= NAME_BYTES_MAX, "name too long for a login");
        out.push(if self.register { FLAG_REGISTER } else { 0 });
        out.push(self.name.len() as u8);
        out.extend_from_slice(self.name.as_bytes());
    }

    /// Reads exactly one payload; `None` if it is anything else.
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let (&[flags, name_bytes], name) = payload.split_first_chunk()?;
        if flags & !FLAG_REGISTER != 0 || name.len() != usize::from(name_bytes) {
            return None;
        }
        let name = core::str::from_utf8(name).ok()?;
        Some(Self { register: flags & FLAG_REGISTER != 0, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_the_rule() {
        let longest = "a".repeat(64);
        for good in ["a", "0", "ann", "ann.lee_2-x", longest.as_str()] {
            assert!(valid_name(good), "{good}");
        }
        let too_long = "a".repeat(65);
        for bad in ["", ".a", "_a", "-a", "Ann", "ann lee", "ann@x", "änn", too_long.as_str()] {
            assert!(!valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert!(Login::parse(&[1, 1, b'a']).is_some());
        assert_eq!(Login::parse(&[2, 1, b'a']), None);
        assert_eq!(Login::parse(&[0x81, 1, b'a']), None);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_and_no_piece_of_it(register: bool, name in "[a-z0-9]{0,64}") {
            let login = Login { register, name: &name };
            let mut bytes = Vec::new();
            login.encode(&mut bytes);
            prop_assert_eq!(Login::parse(&bytes), Some(login));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Login::parse(&bytes[..cut]), None);
            }
            bytes.push(b'x');
            prop_assert_eq!(Login::parse(&bytes), None);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Login::parse(&bytes);
        }
    }
}
