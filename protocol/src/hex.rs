//! Keys and tokens as people copy them and files keep them: hex digits.

use alloc::string::String;
use core::fmt::Write;

/// Lower-case hex digits.
pub fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("text grows");
    }
    text
}

/// Exactly `N` bytes from `2 N` hex digits of either case; `None` for anything else.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_there_and_back() {
        let bytes = [0, 1, 0x7f, 0x80, 0xff];
        assert_eq!(to_hex(&bytes), "00017f80ff");
        assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        assert_eq!(from_hex("00FF"), Some([0, 255]));
        for wrong in ["", "0", "0g00", "+100", "000000", "äb"] {
            assert_eq!(from_hex::<2>(wrong), None, "{wrong}");
        }
    }
}
