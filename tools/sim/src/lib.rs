//! The simulated world: whole nodes, a network, drives and phones in one thread and virtual time, with an oracle.
//!
//! [`world::run`] plays one seed and says which invariant broke, if one did. A seed and a commit reproduce a run. The
//! simulator knows the core and never the driver: [`node`] does what the driver does, by the same contract.

pub mod attacker;
pub mod campaign;
pub mod devices;
pub mod disk;
pub mod fetched;
pub mod lanes;
pub mod lapse;
pub mod logs;
pub mod network;
pub mod node;
pub mod oracle;
pub mod outbox;
pub mod phone;
pub mod places;
pub mod plan;
pub mod random;
pub mod removals;
pub mod scene;
pub mod schedule;
pub mod slots;
pub mod steps;
pub mod trace;
pub mod world;
