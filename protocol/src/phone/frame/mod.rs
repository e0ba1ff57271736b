//! Frames: what a decrypted transport record says.
//!
//! Layout: bytes after this header (u24, little-endian), kind (u8), fixed fields, then bytes. A record holds one or
//! more whole frames. Client kinds are below 0x80, server kinds above. Reserved, not decoded: client 0x07 (read),
//! 0x08 (presence), 0x09 (typing); server 0x8d (read), 0x8e (presence), 0x8f (typing), 0x90 (redirect).

mod client;
mod codec;
mod server;
#[cfg(test)]
mod tests;

pub use client::ClientFrame;
pub(super) use codec::first_frame_bytes;
pub use codec::{BODY_BYTES_MAX, FRAME_HEADER_BYTES, FrameError};
pub use server::{ErrorCode, GoodbyeReason, ServerFrame};
