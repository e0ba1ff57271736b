//! The compact client protocol: what a phone and the server say to each other over one TCP connection.
//!
//! `PHONE.md` beside this crate is the specification. From the outside in:
//!
//! - [`preface`]: the eight clear bytes that open a connection.
//! - [`record`]: how the byte stream is cut into records.
//! - [`noise`]: keys, and the encryption of transport records.
//! - [`frame`]: what a transport record says.
//! - [`ticket`]: what lets a device come back at a tenth of a login's cost.
//! - [`server`] and [`client`]: the two sides of a connection, without I/O.
//!
//! Nothing here draws randomness or reads a clock: seeds and keys are arguments.

pub mod client;
pub mod frame;
mod login;
pub mod noise;
pub mod preface;
pub mod record;
mod resolver;
pub mod server;
pub mod ticket;

pub use login::valid_name;

#[cfg(test)]
mod cacophony_tests;
#[cfg(test)]
mod conversation_tests;
#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod specification_tests;
