//! `tern cores`: the machine, the map in force, and a proposal.

use super::map::{CoreMap, default_shard_count, why_unpinned};
use super::proposal::propose;
use super::show::{Report, to_toml};
use super::{here, receive, recorded, steers};
use crate::cli::CoresArgs;
use crate::config::Settings;
use crate::data;
use crate::exit::Failure;
use std::thread::available_parallelism;

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
    let made_with = if args.sysfs.is_none() { data::made_with(&settings.data) } else { None };
    let parallelism = match args.sysfs {
        None => available_parallelism().map_or(1, std::num::NonZero::get),
        Some(_) => usize::MAX,
    };
    let shards_max = settings.shards_max();
    let shard_count = made_with
        .map(|made| made.shard_count)
        .or(settings.shard_count())
        .unwrap_or_else(|| default_shard_count(&settings.cores, &machine, parallelism, shards_max));
    let map = CoreMap::resolve(&settings.cores, &machine, parallelism, shard_count)?;
    let mut warnings: Vec<String> =
        why_unpinned(&settings.cores, &machine, parallelism, shard_count).into_iter().collect();
    warnings.extend(receive::warnings(&map, &machine));
    let proposal = propose(&machine, usize::from(shards_max));
    let report = Report {
        shard_count: usize::from(shard_count),
        memory_by_node: map.binds_memory(&machine),
        steered: steers(settings.cores.steer, &map, &machine, settings.phone),
        proposal_toml: to_toml(&proposal, &machine),
        proposal: CoreMap { shards: proposal.shards, control: proposal.control },
        hints: receive::hints(&map, &machine),
        warnings,
        map: &map,
        machine: &machine,
    };
    if args.json {
        let json = serde_json::to_string(&report).expect("numbers, names and lists are JSON");
        return Ok(format!("{json}\n"));
    }
    Ok(report.to_text())
}
