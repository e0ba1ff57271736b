//! `bench idle`: many phones that wait. What each costs in memory, user and kernel apart, and what all cost in CPU.
//!
//! Two sizes with the same number of shards, each with a fresh server: the difference is what a phone costs, whatever a
//! node costs by itself. Kernel memory is what /proc/meminfo says for the whole machine (slabs, page tables, stacks),
//! so it counts both ends of every connection, and also what other programs do meanwhile.

use super::place;
use crate::node::{Load, Node, NodePlan};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs::{read_to_string, write};
use std::time::{Duration, Instant};

/// Phones where nothing else is said.
const PHONE_COUNT: u32 = 100_000;
/// Phones of a shard on average: a ring's descriptor table is limited by RLIMIT_NOFILE, of which 20,000 are assumed,
/// and phones fall to shards by lot.
const PHONES_PER_SHARD: u32 = 16_700;
/// The smaller size.
const SMALL_PART: u32 = 4;
/// How long the smaller size is held at most.
const FEW_SECONDS_MAX: u32 = 30;
/// Longest wait for the logins, for each phone.
const LOGIN_WAIT: Duration = Duration::from_millis(5);
/// What a node of many shards on few cores needs: room for the phones of one, and small segments.
const CONFIG: &str = "segment_bytes = 4194304\n[limits]\nconnection_count = 19000\n";

/// Memory at one moment, bytes.
#[derive(Clone, Copy)]
struct Memory {
    kernel: u64,
    available: u64,
}

/// One run at both sizes.
pub(super) fn run(phones: Option<u32>, seconds: u32) -> Result<Value> {
    let phones = phones.unwrap_or(PHONE_COUNT);
    let small = (phones / SMALL_PART) & !1;
    if small == 0 {
        bail!("--phones {phones}, allowed: {} or more", 2 * SMALL_PART);
    }
    let shards = u16::try_from(phones.div_ceil(PHONES_PER_SHARD)).context("too many phones")?;
    // Only for its memory: one more hold until the keep-alives would tell nothing new.
    let few = hold(small, shards, seconds.min(FEW_SECONDS_MAX))?;
    let many = hold(phones, shards, seconds)?;
    let slope = |name: &str| {
        let of = |run: &Value| run[name].as_f64();
        let grown = of(&many).zip(of(&few)).map(|(many, few)| many - few);
        grown.map(|bytes| (bytes / f64::from(phones - small)).round())
    };
    let slopes = json!({
        "server_user_bytes": slope("server_user_bytes"),
        "generator_user_bytes": slope("generator_user_bytes"),
        "kernel_bytes_both_ends": slope("kernel_bytes"),
        "machine_bytes": slope("machine_bytes"),
    });
    Ok(json!({
        "shards": shards,
        "phones": phones,
        "bytes_per_phone_by_slope": slopes,
        "server_user_bytes_per_phone_by_total": per(&many["server_user_bytes"], phones),
        "server_user_bytes_per_phone_since_boot": since_boot(&many, phones),
        "idle_cpu_percent_of_a_core": many["idle_cpu_percent_of_a_core"],
        "pings_in_hold": many["pings_in_hold"],
        "login_per_s": many["login_per_s"],
        "cpu_us_per_login": many["cpu_us_per_login"],
        "few": few,
        "many": many,
    }))
}

/// One fresh server with so many phones.
fn hold(phones: u32, shards: u16, seconds: u32) -> Result<Value> {
    let data = place()?;
    let config = data.path().join("tern.toml");
    write(&config, CONFIG).context("the configuration")?;
    let plan = NodePlan { config: Some(config), ..NodePlan::new(&data.path().join("data"), shards, None) };
    let node = Node::start(plan)?;
    let before = Memory::now()?;
    let at_boot = node.get("/v1/process")?["rss_bytes"].as_u64().context("rss_bytes")?;
    let (count, hold) = (phones.to_string(), seconds.to_string());
    // Long patience: with a million phones the kernel has moments in which nothing moves.
    let options = ["--phones", &count, "--hold", &hold, "--patience", "60"].map(String::from);
    let load = Load::start(&node, None, "idle", &options)?;
    wait_for_logins(&node, u64::from(phones))?;
    // The middle of the hold: what the logins needed is given back, and all are still here.
    std::thread::sleep(Duration::from_secs(u64::from(seconds)) / 2);
    let (now, generator) = (Memory::now()?, rss_bytes(load.id())?);
    let (report, success) = load.finish()?;
    if !success {
        bail!("the generator is not content: {report}");
    }
    let held = &report["hold"];
    let field = |name: &str| held[name].as_f64().with_context(|| format!("hold.{name}"));
    let cpu_us = field("cpu_user_us")? + field("cpu_system_us")?;
    node.drain()?;
    Ok(json!({
        "phones": phones,
        "server_user_bytes_at_boot": at_boot,
        "server_user_bytes": report["server"]["rss_bytes"],
        "server_user_bytes_per_phone_since_login": report["server"]["rss_bytes_per_phone"],
        "generator_user_bytes": generator,
        "kernel_bytes": now.kernel.saturating_sub(before.kernel),
        "machine_bytes": before.available.saturating_sub(now.available),
        "login_per_s": report["login_per_s"],
        "login_p50_us": report["login_p50_us"],
        "login_p99_us": report["login_p99_us"],
        "cpu_us_per_login": report["server"]["cpu_us_per_login"],
        "idle_cpu_percent_of_a_core": (cpu_us / field("seconds")? / 100.0).round() / 100.0,
        "pings_in_hold": held["pings"],
    }))
}

/// Until the server has seen so many logins.
pub(super) fn wait_for_logins(node: &Node, logins: u64) -> Result<()> {
    let deadline = Instant::now() + LOGIN_WAIT.mul_f64(logins as f64) + Duration::from_secs(60);
    while node.get("/v1/process")?["logins"].as_u64().context("logins")? < logins {
        if Instant::now() > deadline {
            bail!("{logins} phones did not log in in time");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// What each phone added to what the node took before it had any account.
fn since_boot(run: &Value, phones: u32) -> Option<f64> {
    let (now, then) = (run["server_user_bytes"].as_f64()?, run["server_user_bytes_at_boot"].as_f64()?);
    Some(((now - then) / f64::from(phones)).round())
}

fn per(bytes: &Value, phones: u32) -> Option<f64> {
    bytes.as_f64().map(|bytes| (bytes / f64::from(phones)).round())
}

impl Memory {
    fn now() -> Result<Self> {
        Self::of(&read_to_string("/proc/meminfo").context("/proc/meminfo")?)
    }

    fn of(meminfo: &str) -> Result<Self> {
        let bytes = |name| kib(meminfo, name).map(|kib| kib * 1024);
        let kernel = ["Slab:", "KernelStack:", "PageTables:", "Percpu:"];
        let kernel = kernel.into_iter().map(bytes).sum::<Result<u64>>()?;
        Ok(Self { kernel, available: bytes("MemAvailable:")? })
    }
}

fn rss_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = read_to_string(&path).context(path)?;
    Ok(kib(&text, "VmRSS:")? * 1024)
}

/// The number of a line `name   number kB`.
fn kib(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    let number = line.split_whitespace().next().with_context(|| format!("{name} is empty"))?;
    number.parse().with_context(|| format!("{name} {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        let text = "MemTotal:  9 kB\nMemAvailable:   100 kB\nSlab:  7 kB\nKernelStack: 1 kB\nPageTables:  2 kB\nPercpu: 3 kB\n";
        let memory = Memory::of(text).unwrap();
        assert_eq!((memory.kernel, memory.available), (13 * 1024, 102_400));
        assert!(Memory::of("Slab: 7 kB").is_err());
        assert!(rss_bytes(std::process::id()).unwrap() > 100_000);
    }
}
