//! The limits that Tern is measured against: what the kernel asks for when nothing is thought about.
//!
//! - `raw-echo`: an io_uring server that sends every record back.
//! - `stub`: a server that moves the records of `tern-load pairs` and makes as many group commits, without
//!   cryptography, accounts, mailboxes or a log.
//!
//! The two run as a process of their own, driven by [`drive`] with the generator's packet pattern, on the reactor that
//! Tern itself uses. `README.md` has the commands.
//!
//! And `hostile`, which attacks a Tern of this machine while others measure what their phones notice of it.

mod cpu;
mod drive;
mod hostile;
mod pace;
mod run;
mod serve;
mod wire;

pub use hostile::hostile;
pub use run::{Kind, main};
