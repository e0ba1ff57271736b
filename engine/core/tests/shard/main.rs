//! The core from outside: one shard, the real client, a perfect network and disk.

mod allocation;
mod journey;
mod resume;
mod rot;
mod several;
mod stuck;
mod world;
