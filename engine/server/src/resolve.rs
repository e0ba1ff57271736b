//! What a configuration comes to on this machine with this data directory: the one answer for `serve`, `config check`
//! and `config show`.

use crate::config::Settings;
use crate::cores::{self, CoreMap, Machine};
use crate::data::{self, MadeWith, Wanted};
use crate::exit::{Ending, Failure};
use crate::memory::{self, Allowance, gib};
use std::thread::available_parallelism;
use tern_core::limits::Limits;
use tern_driver::{StartError, limits_in_force};

/// What there is to run on.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Sockets, cores, NUMA nodes, network queues.
    pub(crate) machine: Machine,
    /// Hardware threads that the process may use, less where a quota of processor time is worth less. Counted before
    /// any of its threads is pinned: a pinned one counts only its own.
    pub(crate) parallelism: usize,
    /// Memory that the process may have, bytes; none: unknown.
    pub(crate) memory_bytes: Option<usize>,
}

impl Host {
    /// This one.
    pub(crate) fn here() -> Self {
        Self {
            machine: cores::here(),
            parallelism: available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: memory::here(),
        }
    }
}

/// The values in force.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct InForce {
    /// Shards of the node.
    pub(crate) shard_count: u16,
    /// Bytes of a log segment.
    pub(crate) segment_bytes: u32,
    /// The limits of each shard.
    pub(crate) limits: Limits,
    /// Which hardware thread does what.
    pub(crate) map: CoreMap,
    /// What the limits allow in all.
    pub(crate) allowance: Allowance,
    /// What an operator should know and `serve` goes on with.
    pub(crate) warnings: Vec<String>,
}

impl InForce {
    /// For `settings` on `host`. Nothing is made.
    ///
    /// # Errors
    /// What this machine cannot have, and a data directory that was made otherwise: key, value, what is allowed.
    pub(crate) fn of(settings: &Settings, host: &Host) -> Result<Self, Failure> {
        let made = data::made_with(&settings.data);
        if let Some(made) = made {
            agrees(settings, made)?;
        }
        let shard_count = made.map(|made| made.shard_count).or(settings.shard_count());
        let shard_count = shard_count.unwrap_or_else(|| {
            let (machine, most) = (&host.machine, settings.shards_max());
            cores::default_shard_count(&settings.cores, machine, host.parallelism, most)
        });
        let map = CoreMap::resolve(&settings.cores, &host.machine, host.parallelism, shard_count)?;
        let limits = memory::fit(&settings.limits, shard_count, host.memory_bytes);
        let limits = limits_in_force(shard_count, limits).map_err(|error| failure_of_start(&error))?;
        let allowance = Allowance::of(&limits, shard_count);
        let mut warnings = Vec::new();
        if let Some(bytes) = host.memory_bytes {
            warnings.extend(check_memory(&limits, shard_count, &allowance, bytes)?);
        }
        warnings.extend(cores::why_unpinned(&settings.cores, &host.machine, host.parallelism, shard_count));
        Ok(Self {
            shard_count,
            segment_bytes: made.map_or(settings.segment_bytes(), |made| made.segment_bytes),
            limits,
            map,
            allowance,
            warnings,
        })
    }

    /// What is asked of the data directory.
    pub(crate) fn wanted(&self, settings: &Settings) -> Wanted {
        Wanted {
            shard_count: settings.shard_count(),
            shard_count_default: self.shard_count,
            segment_bytes: settings.segment_bytes_given(),
            segment_bytes_default: self.segment_bytes,
        }
    }
}

/// How a start that fails so ends the process. Damage and its like have their own codes.
pub(crate) fn failure_of_start(error: &StartError) -> Failure {
    use tern_driver::FatalError;
    let ending = match error {
        StartError::Recovery(..) | StartError::MoreShards(_) => Ending::Damaged,
        StartError::Fatal(FatalError::LogWrite(_)) | StartError::Unsynced(..) => Ending::LogWrite,
        StartError::Panicked(_) => Ending::ShardPanic,
        StartError::Config(_) | StartError::Shards { .. } | StartError::Limits(_) => Ending::Usage,
        StartError::Fatal(FatalError::LogFullAtBoot)
        | StartError::Missing(_)
        | StartError::Bind(..)
        | StartError::Data(..)
        | StartError::System(_) => Ending::StartUp,
    };
    Failure { ending, text: error.to_string() }
}

/// The directory as it was made decides; a configuration that says otherwise is refused.
fn agrees(settings: &Settings, made: MadeWith) -> Result<(), Failure> {
    let named = settings.cores.shards.named().len();
    if let Some(shards) = settings.shard_count()
        && shards != made.shard_count
        && named > 0
    {
        let made = made.shard_count;
        return Err(Failure::start_up(format!(
            "cores.shards makes {shards} shards, but data directory {} was made with {made}; changing it is not available \
             yet, allowed: {made} hardware threads, or more of them together with shards = {made}",
            settings.data.display()
        )));
    }
    let wanted = Wanted {
        shard_count: settings.shard_count(),
        shard_count_default: made.shard_count,
        segment_bytes: settings.segment_bytes_given(),
        segment_bytes_default: made.segment_bytes,
    };
    made.agrees(&settings.data, wanted)
}

/// Mail is what grows when phones stay away: it must fit. All limits at their ends at once is another matter.
fn check_memory(
    limits: &Limits,
    shard_count: u16,
    allowance: &Allowance,
    memory_bytes: usize,
) -> Result<Option<String>, Failure> {
    if allowance.mail() > memory_bytes {
        return Err(Failure::usage(format!(
            "limits.mail_bytes = {}: {shard_count} shards may take {} of mail, and there is {} of memory (machine or \
             cgroup), allowed: less than {}",
            limits.mail_bytes,
            gib(allowance.mail()),
            gib(memory_bytes),
            memory_bytes / usize::from(shard_count)
        )));
    }
    Ok((allowance.sum() > memory_bytes).then(|| {
        format!(
            "the limits allow {} of memory in all, and there is {}: the kernel may end the node before it says busy. \
             Lower what is named in [limits]",
            allowance.to_text(),
            gib(memory_bytes)
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ServeArgs;
    use std::path::Path;

    const GIB: usize = 1 << 30;

    fn host(memory_bytes: usize) -> Host {
        let machine = Machine { allowed: vec![0, 1], ..cores::made(1, 2, 1, 1) };
        Host { machine, parallelism: 2, memory_bytes: Some(memory_bytes) }
    }

    fn settings(data: &Path, text: &str) -> Settings {
        let file = data.with_extension("toml");
        std::fs::write(&file, text).unwrap();
        let args = ServeArgs { config: Some(file), data: vec![data.into()], ..ServeArgs::default() };
        Settings::load(&args).unwrap()
    }

    fn resolve(text: &str, memory_bytes: usize) -> Result<InForce, String> {
        let place = tempfile::tempdir().unwrap();
        let settings = settings(&place.path().join("data"), text);
        InForce::of(&settings, &host(memory_bytes)).map_err(|failure| failure.text)
    }

    #[test]
    fn the_values_in_force_are_those_of_the_machine_and_the_directory() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        let fresh = InForce::of(&settings(&data, ""), &host(4 * GIB)).unwrap();
        assert_eq!((fresh.shard_count, fresh.segment_bytes), (2, 32 << 20));
        assert_eq!(fresh.map.shards, [0, 1]);
        let made = settings(&data, "shards = 3\nsegment_bytes = 16777216");
        let wanted = InForce::of(&made, &host(4 * GIB)).unwrap().wanted(&made);
        drop(data::DataDirectory::open(&data, wanted).unwrap());
        let again = InForce::of(&settings(&data, ""), &host(4 * GIB)).unwrap();
        assert_eq!((again.shard_count, again.segment_bytes), (3, 16 << 20));
        assert!(again.warnings[0].contains("2 hardware threads for 3 shards"), "{:?}", again.warnings);
        let failure = InForce::of(&settings(&data, "segment_bytes = 33554432"), &host(4 * GIB)).unwrap_err();
        assert_eq!(failure.ending, Ending::StartUp);
        assert!(failure.text.contains("segment_bytes = 33554432"), "{}", failure.text);
        let failure = InForce::of(&settings(&data, "[cores]\nshards = \"0,1\""), &host(4 * GIB)).unwrap_err();
        assert!(failure.text.contains("cores.shards makes 2 shards"), "{}", failure.text);
    }

    #[test]
    fn lanes_are_those_that_the_node_has() {
        let of = |shards: u16| resolve(&format!("shards = {shards}"), 64 * GIB).unwrap().limits;
        assert_eq!(of(2).lane_bytes, Limits::default().lane_bytes);
        assert!(of(60).lane_bytes < 8192 && of(60).lane_backlog_bytes < Limits::default().lane_backlog_bytes);
    }

    #[test]
    fn memory_that_is_not_there_is_refused_or_warned_of() {
        assert_eq!(resolve("", 4 * GIB).unwrap().warnings, [] as [&str; 0]);
        let refused = resolve("[limits]\nmail_bytes = 3000000000", 4 * GIB).unwrap_err();
        for part in
            ["limits.mail_bytes = 3000000000", "2 shards may take 5.6 GiB", "4.0 GiB", "less than 2147483648"]
        {
            assert!(refused.contains(part), "{refused:?} without {part:?}");
        }
        let warned = resolve("[limits]\nmail_bytes = 2000000000", 4 * GIB).unwrap().warnings;
        assert!(warned[0].contains("mail 3.7 GiB") && warned[0].contains("there is 4.0 GiB"), "{warned:?}");
    }
}
