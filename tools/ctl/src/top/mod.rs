//! `tern-ctl top`: what the node does now, once a second, until `q`.
//!
//! `sample` is what the endpoint told, `view` what changed between two samples, `draw` how that looks, `live` the
//! terminal and the clock.

mod draw;
mod live;
mod sample;
mod view;

pub(crate) use live::top;
