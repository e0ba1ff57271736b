//! `bench paced`: many phones that say little. Nothing is queued, so what counts is what a single message costs.

use super::floor::{Pace, Traffic};
use super::pairs::against_the_floor;
use anyhow::Result;
use serde_json::Value;

const PHONE_COUNT: u32 = 10_000;
const PER_S: u32 = 2_000;

/// One run of Tern with a fresh server, then the stub and the echo paced the same way. The stub's and Tern's latencies
/// both count from the scheduled time to the delivery.
pub(super) fn run(seconds: u32) -> Result<Value> {
    against_the_floor(Traffic { phones: PHONE_COUNT, pace: Pace::Rate(PER_S), seconds })
}
