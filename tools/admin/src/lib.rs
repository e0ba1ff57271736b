//! A node's admin endpoint, as the tools see it: a client, the durations in its answers, and how those are written
//! for people.

mod access;
mod buckets;
mod client;
mod short;
#[cfg(feature = "tls")]
mod tls;

pub use access::{Access, parse_address};
pub use buckets::{Percentiles, gained, quantile};
pub use client::{Admin, Made, NewAccount, did_nothing};
pub use short::{bytes, count, duration};
