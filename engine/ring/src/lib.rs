//! A safe reactor over io_uring: one thread, one ring, every buffer owned by the ring until its completion.
//!
//! The only crate of the workspace with `unsafe`. A [`Ring`] belongs to the thread that made it. Sockets live in its
//! table of direct descriptors and are named by their [`Slot`]; nothing but the kernel picks slots. A turn of the
//! owner's loop is:
//!
//! ```no_run
//! # use tern_ring::{Config, Event, Listener, Ring};
//! # use std::time::Duration;
//! let mut ring = Ring::new(&Config::default())?;
//! ring.accept(Listener::bind("127.0.0.1:0".parse().unwrap(), 1024)?);
//! loop {
//!     ring.enter(Some(Duration::from_millis(100)))?; // submits everything, waits for something
//!     while let Some(event) = ring.next_event() {
//!         match event {
//!             Event::Accepted { slot, .. } => ring.receive_always(slot, 7).unwrap(),
//!             Event::Received { slot, bytes, .. } => {
//!                 let answer = bytes.to_vec(); // the bytes go back to the kernel at the next `next_event`
//!                 ring.send(slot, 7, &answer).unwrap();
//!             }
//!             Event::Ended { slot, .. } => ring.close(slot, 7).unwrap(),
//!             _ => {}
//!         }
//!     }
//! }
//! # #[allow(unreachable_code)]
//! # std::io::Result::Ok(())
//! ```
//!
//! # Why safe code cannot break memory
//! - What the kernel reads or writes lives in heap blocks that the ring owns: send and file data are copied into pooled
//!   blocks, received data lie in the provided buffers. A block is only used again after the final completion of its
//!   operation; [`Event::Received`] borrows the ring, so its bytes cannot outlive the buffer.
//! - The address of an accepted connection is written into storage that the listener owns until all its accepts ended.
//! - Dropping a ring cancels everything and waits; what the kernel still holds after that is leaked, never freed.
//! - A slot is only closed after the last operation on it has ended, and is only reported closed after that; the
//!   generation in each completion's user data tells a late one from one of the slot's next socket.

mod block;
mod buffers;
mod completion;
mod config;
mod connect;
mod enter;
mod error;
mod event;
mod fetch;
mod file;
pub mod huge_pages;
mod listener;
pub mod numa;
mod operation;
mod park;
pub mod probe;
mod reset;
mod ring;
mod slots;
mod socket;
mod userdata;
mod wake;
mod watch;

pub use config::Config;
pub use error::SlotError;
pub use event::{Event, ListenerId, Slot};
pub use fetch::fetch;
pub use file::{DurableFile, allocate, forget_cached};
pub use listener::{BoundAddress, Listener};
pub use ring::{Ring, Stats};
pub use wake::{Peer, RingHandle, Waker};
