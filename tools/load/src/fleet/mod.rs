//! The phones of one ring: connections, reconnects, and the turn that moves everything.
//!
//! A phone's connection is named by a key `attempt << 32 | phone`; events of an attempt that was given up are
//! recognised by it and ignored. In one turn everything received is taken in first; then each phone that has
//! something to say says it in one record and one send.

mod connection;
mod counts;
mod flaps;
mod phone;
mod schedule;
mod timers;
mod turn;

pub(crate) use connection::name;
pub(crate) use counts::Counts;
pub(crate) use flaps::Flaps;
pub(crate) use phone::Stage;
pub(crate) use schedule::Schedule;
pub(crate) use turn::{Fleet, FleetConfig, SPARE_DESCRIPTOR_COUNT, Traffic};
