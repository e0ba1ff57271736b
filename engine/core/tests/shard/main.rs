//! The core from outside: one shard, the real client, a perfect network and disk.

mod allocation;
mod floods;
mod hostile;
mod journey;
mod proxied;
mod resume;
mod measures;
mod resume;
mod rot;
mod several;
mod storms;
mod stuck;
mod world;
