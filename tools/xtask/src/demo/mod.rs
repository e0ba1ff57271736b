//! `cargo xtask demo`: the main job before your eyes. Phones log in, talk, go away and come back to what waited; all drop
//! at once; hostile clients come; the server is killed in the middle, and nothing that was ticked is lost.
//!
//! The parts: [`drive`] builds, starts and kills, and tells [`event`]s; [`watch`] asks the server how it is; [`state`] is
//! what both make of the screen, a plain struct; [`draw`] paints it and [`screen`] owns the terminal. Where there is no
//! terminal, [`plain`] prints lines instead. [`account`] is what is left at the end.

mod account;
mod draw;
mod drive;
mod event;
mod plain;
mod run;
mod screen;
mod state;
mod steps;
mod watch;

pub(crate) use run::{DemoArgs, demo};
