//! The core from outside: one shard, the real client, a perfect network and disk.

mod allocation;
mod journey;
mod rot;
mod stuck;
mod world;
