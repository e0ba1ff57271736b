//! `tern-ctl chat`: a phone in a terminal, and an example of a client.
//!
//! - `terminal`: the command: lines in, lines out, one connection after the other.
//! - `connection`: threads that read the socket and standard input.
//! - `link`: the state of that connection.
//! - `talk`: what the person and the server say, and what comes of it; no I/O.
//! - `outbox`: messages that have no `sent` tick yet.
//! - `keep`: the key file, and the file with the known servers and their tickets.
//! - `words`: how it is shown.

mod connection;
mod keep;
mod link;
mod outbox;
mod talk;
#[cfg(test)]
mod talk_tests;
mod terminal;
mod words;

pub(crate) use terminal::{ChatArgs, chat, refused_args};
