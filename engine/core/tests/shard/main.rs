//! The core from outside: one shard, the real client, a perfect network and disk.

mod allocation;
mod budgets;
mod clocks;
mod ephemeral;
mod floods;
mod holding;
mod hostile;
mod journey;
mod limits;
mod measures;
mod memory;
mod passing;
mod proxied;
mod ready_keys;
mod rest;
mod resume;
mod revoked;
mod revoking;
mod rewriting;
mod rot;
mod safe;
mod several;
mod storms;
mod stuck;
mod watches;
mod world;
