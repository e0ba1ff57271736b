//! `tern cores`: the machine, the map in force, and a proposal.

use super::map::{CoreMap, default_shard_count};
use super::proposal::propose;
use super::show::{Report, to_toml};
use super::{here, receive, recorded, steers};
use crate::cli::CoresArgs;
use crate::config::{SHARDS_MAX, Settings};
use crate::data;
use crate::exit::Failure;
use std::thread::available_parallelism;

/// Whether this machine can have the configured map.
///
/// # Errors
/// What it cannot have, by key and value.
pub(crate) fn check(settings: &Settings) -> Result<(), Failure> {
    // The number of shards is checked when the data directory is known; one is always few enough.
    CoreMap::resolve(&settings.cores, &here(), settings.shard_count().unwrap_or(1)).map(drop)
}

/// The text that `tern cores` prints.
///
/// # Errors
/// A wrong configuration, one that this machine cannot have, or a recording with no processors in it.
pub(crate) fn cores(args: &CoresArgs) -> Result<String, Failure> {
    let settings = Settings::load(&args.serve)?;
    let machine = match &args.sysfs {
        None => here(),
        Some(sys) => recorded(sys).ok_or_else(|| {
            Failure::usage(format!("--sysfs {}: no devices/system/cpu/online in it", sys.display()))
        })?,
    };
    // A data directory of this machine says nothing about another one.
    let made_with = if args.sysfs.is_none() { data::shard_count_of(&settings.data) } else { None };
    let parallelism = match args.sysfs {
        None => available_parallelism().map_or(1, std::num::NonZero::get),
        Some(_) => usize::MAX,
    };
    let shard_count = made_with
        .or(settings.shard_count())
        .unwrap_or_else(|| default_shard_count(&machine, parallelism, SHARDS_MAX));
    let map = CoreMap::resolve(&settings.cores, &machine, shard_count)?;
    let proposal = propose(&machine, usize::from(SHARDS_MAX));
    let report = Report {
        shard_count: usize::from(shard_count),
        memory_by_node: map.binds_memory(&machine),
        steered: steers(settings.cores.steer, &map, &machine, settings.phone),
        proposal_toml: to_toml(&proposal, &machine),
        proposal: CoreMap { shards: proposal.shards, control: proposal.control },
        hints: receive::hints(&map, &machine),
        warnings: receive::warnings(&map, &machine, usize::from(shard_count)),
        map: &map,
        machine: &machine,
    };
    if args.json {
        let json = serde_json::to_string(&report).expect("numbers, names and lists are JSON");
        return Ok(format!("{json}\n"));
    }
    Ok(report.to_text())
}
