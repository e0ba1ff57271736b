//! The file that tells the latency of every message, for those who ask about a part of a run.

use crate::clock::Clock;
use crate::ledger::Each;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Lines `delivery,SINCE,TOOK` and `sent,SINCE,TOOK`: since when (microseconds of Unix time), and how long it took from
/// then on (nanoseconds).
pub(crate) struct LatencyFile {
    out: BufWriter<File>,
}

impl LatencyFile {
    /// Made before the run, so that a path that is no good is told at once.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("--latencies {}", path.display()))?;
        Ok(Self { out: BufWriter::new(file) })
    }

    /// Writes what one worker noted.
    pub(crate) fn write(&mut self, clock: Clock, each: &Each) -> Result<()> {
        for (what, all) in [("delivery", &each.deliveries), ("sent", &each.ticks)] {
            for &(since_ns, took_ns) in all {
                writeln!(self.out, "{what},{},{took_ns}", clock.unix_us(since_ns))
                    .context("latencies cannot be written")?;
            }
        }
        self.out.flush().context("latencies cannot be written")
    }
}
