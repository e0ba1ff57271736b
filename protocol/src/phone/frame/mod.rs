//! Frames: what a decrypted transport record says.
//!
//! Layout: bytes after this header (u24, little-endian), kind (u8), fixed fields, then bytes. A record holds one or
//! more whole frames. Client kinds are below 0x80, server kinds above. Reserved, not decoded: server
//! 0x90 (redirect).

mod client;
mod codec;
mod codes;
mod devices;
mod server;
#[cfg(test)]
mod tests;

pub use client::ClientFrame;
pub(super) use codec::first_frame_bytes;
pub use codec::{BODY_BYTES_MAX, FRAME_HEADER_BYTES, FrameError};
pub use codes::{ErrorCode, GoodbyeReason, PresenceState};
pub use devices::{DeviceInfo, DeviceList};
pub use server::ServerFrame;
