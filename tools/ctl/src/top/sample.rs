//! What the endpoint told at one moment.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tern_admin::Admin;

/// Longest wait for the mailboxes, for which a node asks all its shards; a stuck one costs it two seconds.
const MAILBOX_WAIT: Duration = Duration::from_secs(3);
/// Mailboxes that are asked for, of each shard.
const MAILBOX_COUNT: usize = 10;

/// Counters by name.
pub(super) type Counters = BTreeMap<String, u64>;

/// The answers of one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) status: Status,
    pub(super) process: Process,
    /// None: there was no answer in time, which hides nothing else.
    pub(super) hottest: Option<Vec<Hottest>>,
}

/// `GET /v1/status`, as far as it is shown.
#[derive(Clone, Deserialize, Debug)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) boot_id: String,
    pub(super) uptime_s: u64,
    /// What is wrong with the node, if something is.
    #[serde(default)]
    pub(super) trouble: Option<String>,
    /// Times that something ran into each limit.
    #[serde(default)]
    pub(super) limit_hits: Counters,
    /// Those among them that are hit where nothing is wrong.
    #[serde(default)]
    pub(super) everyday_limits: Vec<String>,
    pub(super) phone: String,
    pub(super) latency_bounds_ns: Vec<u64>,
    pub(super) totals: Counters,
    pub(super) shards: Vec<Shard>,
}

/// One shard of it.
#[derive(Clone, Deserialize, Debug)]
pub(super) struct Shard {
    pub(super) counters: Counters,
    pub(super) thread: Counters,
    pub(super) latency: Latency,
}

/// Durations by bucket, since the node's start.
#[derive(Clone, Deserialize, Debug)]
pub(super) struct Latency {
    pub(super) commit: Vec<u64>,
    pub(super) sent: Vec<u64>,
    pub(super) turn: Vec<u64>,
    pub(super) turn_sum_ns: u64,
}

/// `GET /v1/process`, as far as it is shown.
#[derive(Clone, Deserialize, Debug)]
pub(super) struct Process {
    pub(super) cpu_user_us: u64,
    pub(super) cpu_system_us: u64,
    pub(super) rss_bytes: u64,
}

/// `GET /v1/top`.
#[derive(Clone, Deserialize, Debug)]
pub(super) struct Top {
    pub(super) shards: Vec<Hottest>,
}

/// The fullest mailboxes of one shard.
#[derive(Clone, Deserialize, Debug)]
pub(super) struct Hottest {
    pub(super) shard: u16,
    pub(super) complete: bool,
    pub(super) mailboxes: Vec<Mailbox>,
    #[serde(default)]
    pub(super) busiest: Vec<Busy>,
}

/// An account that gets much.
#[derive(Clone, Deserialize, Debug)]
pub(super) struct Busy {
    pub(super) name: String,
    pub(super) messages_per_s: u64,
}

/// One of them.
#[derive(Clone, Deserialize, Debug)]
pub(super) struct Mailbox {
    pub(super) name: String,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) online: bool,
}

impl Sample {
    /// Asks the endpoint.
    ///
    /// # Errors
    /// It does not answer, or not as it should.
    pub(super) fn take(admin: &Admin) -> Result<Self> {
        let status: Status = read(admin, "/v1/status")?;
        let (at, process) = (Instant::now(), read(admin, "/v1/process")?);
        // A node that recovers has no mailboxes to look at yet.
        let hottest = if status.shards.is_empty() {
            Some(Vec::new())
        } else {
            let path = format!("/v1/top?count={MAILBOX_COUNT}");
            read(&admin.clone().within(MAILBOX_WAIT), &path).ok().map(|top: Top| top.shards)
        };
        Ok(Self { at, status, process, hottest })
    }
}

fn read<T: DeserializeOwned>(admin: &Admin, path: &str) -> Result<T> {
    serde_json::from_value(admin.get(path)?).with_context(|| format!("the answer to {path}"))
}
