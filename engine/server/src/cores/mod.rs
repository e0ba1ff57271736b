//! The core map: which hardware thread each shard runs on, and where the control thread runs.
//!
//! `topology` is the machine as plain data, read by `sysfs` and `nic`; `proposal` deals shards over it; `map` is what
//! the configuration makes of it; `receive` says where packets arrive and how to steer them; `show` and `command` are
//! `tern cores`.

mod command;
mod list;
mod map;
mod nic;
mod proposal;
mod receive;
mod show;
mod sysfs;
mod topology;

pub(crate) use command::cores;
pub(crate) use list::{format_list, parse_list};
pub(crate) use map::{CoreMap, default_shard_count, pin_control, why_unpinned};
pub(crate) use receive::steers;
pub(crate) use sysfs::here;
pub(crate) use topology::Machine;

use sysfs::recorded;
#[cfg(test)]
pub(crate) use topology::made::machine as made;
