//! The client's side of a connection as a state machine: bytes in, events out; frames in, bytes out.
//!
//! It decides nothing that a person or program should decide: when to acknowledge, retry, ping or reconnect.

mod connection;
mod event;

pub use connection::Client;
pub use event::{ClientConfig, ClientError, Event};
