//! Hostile clients, to see what they do to others: each kind of attack at a given rate, for a given time, over
//! connections from addresses of its own in 127.0.0.0/8. Loopback only.

mod args;
mod attack;
mod crowd;

pub use args::hostile;
