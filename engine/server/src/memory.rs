//! How much memory the limits allow, and how much there is.
//!
//! A shard's mail, buffers, remembered ids, accounts and connections grow until a limit says `busy`. Where the limits of
//! all shards together allow more than the machine has, the kernel's OOM killer comes before `busy` does. So those that
//! the configuration does not name are made from what there is.

use crate::config::LimitsTable;
use std::fs::read_to_string;
use std::path::Path;
use tern_core::limits::{DEDUP_LIVE_FACTOR, Limits, MAIL_SLACK_BYTES};

/// Bytes of an account with one device, its key and its name.
const ACCOUNT_BYTES: usize = 300;
/// Bytes of a remembered id in its table, which is between half and nearly full.
const ID_BYTES: usize = 16;
/// Bytes of its hash in the record that may have to be written elsewhere: of these there are never more than the limit.
const ID_RECORD_BYTES: usize = 8;
/// Bytes for each id of the limit: those of the last ten minutes may be several times as many before `busy`.
const ID_LIMIT_BYTES: usize = DEDUP_LIVE_FACTOR * ID_BYTES + ID_RECORD_BYTES;
/// Bytes of the kernel for a phone's socket while nothing is under way.
const SOCKET_BYTES: usize = 4608;
/// Bytes of a phone's edge and session: half of it at rest, all of it while it talks.
const SESSION_BYTES: usize = 1024;
/// Bytes of a connection.
const CONNECTION_BYTES: usize = SOCKET_BYTES + SESSION_BYTES;
/// Bytes of a message that a session remembers until its answer.
const UNANSWERED_BYTES: usize = 32;
/// Bytes of an active phone's expanded keys.
const READY_KEY_BYTES: usize = 1331;
/// Bytes of a watch.
const WATCH_BYTES: usize = 32;
/// Bytes of the lanes between all shards together.
const MESH_BYTES: usize = 64 << 20;
/// One part in so many is for buffers, ids and accounts each, and is kept for everything that is not counted here: what
/// sockets have under way, the log's buffers, the system.
const PART: usize = 8;
/// Of such a part one in so many is for messages without an answer, expanded keys and watches each.
const SMALL_PART: usize = 4;
/// Least mail of a shard: with less a node is of no use.
const MAIL_BYTES_MIN: usize = 16 << 20;
/// Fewest ids: with fewer the horizon is of no use.
const ID_COUNT_MIN: usize = 100_000;
/// Fewest expanded keys and watches.
const READY_KEY_COUNT_MIN: u32 = 1_024;
const WATCH_COUNT_MIN: u32 = 65_536;
/// Fewest accounts of a shard by default.
const ACCOUNT_COUNT_MIN: u32 = 10_000;

/// What the limits of all shards together allow, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Allowance {
    mail: usize,
    buffers: usize,
    ids: usize,
    accounts: usize,
    connections: usize,
    /// What is small each: messages without an answer, expanded keys, watches, lanes.
    rest: usize,
}

impl Allowance {
    /// Of so many shards with these limits.
    pub(crate) fn of(limits: &Limits, shard_count: u16) -> Self {
        let all =
            |count: usize, bytes: usize| usize::from(shard_count).saturating_mul(count.saturating_mul(bytes));
        let small = [
            all(limits.unanswered_count as usize, UNANSWERED_BYTES),
            all(limits.ready_key_count as usize, READY_KEY_BYTES),
            all(limits.watch_count as usize, WATCH_BYTES),
            if shard_count > 1 { MESH_BYTES } else { 0 },
        ];
        Self {
            mail: all(limits.mail_bytes.saturating_add(MAIL_SLACK_BYTES), 1),
            buffers: all(limits.edge_bytes, 1),
            ids: all(limits.dedup_count, ID_LIMIT_BYTES),
            accounts: all(limits.account_count as usize, ACCOUNT_BYTES),
            connections: all(limits.connection_count as usize, CONNECTION_BYTES),
            rest: small.into_iter().fold(0, usize::saturating_add),
        }
    }

    /// All of it.
    pub(crate) fn sum(&self) -> usize {
        [self.mail, self.buffers, self.ids, self.accounts, self.connections, self.rest]
            .into_iter()
            .fold(0, usize::saturating_add)
    }

    /// What mail alone may take.
    pub(crate) fn mail(&self) -> usize {
        self.mail
    }

    /// One line for people.
    pub(crate) fn to_text(self) -> String {
        format!(
            "{} (mail {}, buffers {}, remembered ids {}, accounts {}, connections {}, other {})",
            gib(self.sum()),
            gib(self.mail),
            gib(self.buffers),
            gib(self.ids),
            gib(self.accounts),
            gib(self.connections),
            gib(self.rest)
        )
    }

    /// What is counted, as lines for people.
    pub(crate) fn legend() -> [String; 4] {
        [
            "mail: mail_bytes, its places in mailboxes included; buffers: edge_bytes".into(),
            format!(
                "remembered ids: {DEDUP_LIVE_FACTOR} x dedup_count, as those of the last ten minutes may be, of {ID_BYTES} bytes, \
                 and {ID_RECORD_BYTES} more for dedup_count"
            ),
            format!(
                "accounts: {ACCOUNT_BYTES} bytes each of account_count; connections: {CONNECTION_BYTES} each of \
                 connection_count, {SOCKET_BYTES} of them the kernel's"
            ),
            "other: unanswered_count, ready_key_count, watch_count, the lanes between shards".into(),
        ]
    }
}

/// `1.5 GiB`.
pub(crate) fn gib(bytes: usize) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1_u32 << 30))
}

/// Makes the limits that the configuration leaves open from the machine's memory: never more than the built-in values, or
/// what the connections need, and together at most seven eighths of it, unless the machine is too small for anything of
/// use.
pub(crate) fn fit(given: &LimitsTable, shard_count: u16, memory_bytes: Option<usize>) -> Limits {
    let mut limits = given.resolve();
    let Some(memory_bytes) = memory_bytes else { return limits };
    let shards = usize::from(shard_count.max(1));
    let part = memory_bytes / PART / shards;
    if !given.names("edge_bytes") {
        limits.edge_bytes = limits.edge_bytes.min(part).max(limits.edge_bytes_min());
    }
    if !given.names("dedup_count") {
        limits.dedup_count = limits.dedup_count.min(part / ID_LIMIT_BYTES).max(ID_COUNT_MIN);
    }
    if !given.names("account_count") {
        let fits = count_in(part, ACCOUNT_BYTES);
        limits.account_count = limits.account_count.min(fits).max(ACCOUNT_COUNT_MIN);
    }
    let small = part / SMALL_PART;
    if !given.names("unanswered_count") {
        let fits = count_in(small, UNANSWERED_BYTES);
        limits.unanswered_count = limits.unanswered_count.min(fits).max(limits.unanswered_count_min());
    }
    if !given.names("ready_key_count") {
        let fits = count_in(small, READY_KEY_BYTES);
        limits.ready_key_count = limits.ready_key_count.min(fits).max(READY_KEY_COUNT_MIN);
    }
    if !given.names("watch_count") {
        let fits = count_in(small, WATCH_BYTES);
        limits.watch_count = limits.watch_count.min(fits).max(WATCH_COUNT_MIN);
    }
    if !given.names("mail_bytes") {
        let others = Allowance::of(&Limits { mail_bytes: 0, ..limits }, shard_count).sum();
        let left = (memory_bytes - memory_bytes / PART).saturating_sub(others) / shards;
        limits.mail_bytes = limits.mail_bytes.min(left).max(MAIL_BYTES_MIN);
    }
    limits
}

/// How many of so many bytes.
fn count_in(part: usize, bytes: usize) -> u32 {
    u32::try_from(part / bytes).unwrap_or(u32::MAX)
}

/// The memory that this process may have: the machine's, or what the control groups that it is in allow (version 2),
/// bytes. None where the kernel tells neither.
pub(crate) fn here() -> Option<usize> {
    let of_machine = read_to_string("/proc/meminfo").ok().as_deref().and_then(total);
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    of_machine.into_iter().chain(of_groups(Path::new("/sys/fs/cgroup"), &groups)).min()
}

/// `MemTotal` of /proc/meminfo.
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<usize>().ok().map(|kib| kib * 1024)
}

/// The least that a group or one above it allows. Past `memory.high` a process is not killed but slowed to a crawl.
fn of_groups(root: &Path, groups: &str) -> Option<usize> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit =
        |group: &Path, name: &str| read_to_string(root.join(group).join(name)).ok()?.trim().parse().ok();
    let all = Path::new(own).ancestors();
    all.flat_map(|group| [limit(group, "memory.max"), limit(group, "memory.high")]).flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: usize = 1 << 30;

    fn given(text: &str) -> LimitsTable {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_nobody_names_fits_the_machine() {
        for (gib, shards) in
            [(1, 1), (1, 2), (2, 2), (4, 2), (23, 2), (32, 14), (64, 38), (24, 56), (256, 111), (1024, 4)]
        {
            let limits = fit(&given(""), shards, Some(gib * GIB));
            limits.validate().unwrap();
            let sum = Allowance::of(&limits, shards).sum();
            assert!(sum <= gib * GIB / 8 * 7, "{shards} shards may take {} of {gib} GiB", super::gib(sum));
            assert!(limits.mail_bytes >= 32 << 20, "{shards} shards on {gib} GiB: {}", limits.mail_bytes);
            assert!(limits.mail_bytes <= Limits::default().mail_bytes);
        }
        let large = fit(&given(""), 4, Some(1024 * GIB));
        assert_eq!(large, Limits::default(), "never more than the built-in values");
        assert_eq!(fit(&given(""), 14, None), Limits::default(), "nothing is known of the machine");
    }

    #[test]
    fn a_million_phones_on_a_small_machine_leave_room_for_their_mail() {
        let limits = fit(&given("connection_count = 19000"), 56, Some(24 * GIB));
        limits.validate().unwrap();
        let sum = Allowance::of(&limits, 56).sum();
        assert!(sum <= 24 * GIB / 8 * 7, "{}", super::gib(sum));
        assert!(limits.mail_bytes >= 32 << 20 && limits.account_count >= 100_000, "{limits:?}");
        assert!(limits.ready_key_count >= 10_000 && limits.dedup_count >= 500_000, "{limits:?}");
    }

    #[test]
    fn connections_and_the_ids_of_the_last_minutes_take_room_from_mail() {
        let of = |text: &str| fit(&given(text), 1, Some(6 * GIB));
        let few = of("connection_count = 16000\nedge_bytes = 700000000\nunanswered_count = 600000");
        let many = of("connection_count = 116000\nedge_bytes = 700000000\nunanswered_count = 600000");
        assert_eq!(few.mail_bytes - many.mail_bytes, 100_000 * 5632);
        let more_ids = of("dedup_count = 11000000").mail_bytes;
        assert_eq!(of("dedup_count = 10000000").mail_bytes - more_ids, 1_000_000 * (2 * 16 + 8));
        let text = Allowance::of(&many, 1).to_text();
        assert!(text.contains("connections 0.6 GiB"), "{text}");
    }

    #[test]
    fn what_is_named_stays() {
        let text = "mail_bytes = 9000000000\nedge_bytes = 99000000\ndedup_count = 2000\naccount_count = 7
            unanswered_count = 3000000\nready_key_count = 9\nwatch_count = 3000001";
        let limits = fit(&given(text), 14, Some(2 * GIB));
        assert_eq!((limits.mail_bytes, limits.edge_bytes), (9_000_000_000, 99_000_000));
        assert_eq!((limits.dedup_count, limits.account_count), (2000, 7));
        let small = (limits.unanswered_count, limits.ready_key_count, limits.watch_count);
        assert_eq!(small, (3_000_000, 9, 3_000_001));
        // The rest makes room for what is named.
        let much = fit(&given("dedup_count = 100000000"), 2, Some(8 * GIB)).mail_bytes;
        assert!(much < fit(&given(""), 2, Some(8 * GIB)).mail_bytes, "{much}");
    }

    #[test]
    fn a_machine_that_is_too_small_gets_the_least() {
        let limits = fit(&given(""), 8, Some(GIB / 4));
        limits.validate().unwrap();
        assert_eq!(limits.mail_bytes, MAIL_BYTES_MIN);
        assert!(Allowance::of(&limits, 8).sum() > GIB / 4);
    }

    #[test]
    fn the_machines_memory_is_read() {
        assert_eq!(total("MemTotal:       24610276 kB\nMemFree: 1 kB\n"), Some(24_610_276 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(here().unwrap() > 64 << 20);
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("system.slice/tern.service");
        std::fs::create_dir_all(&group).unwrap();
        let put = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
        let of = || of_groups(root.path(), "0::/system.slice/tern.service\n");
        assert_eq!(of(), None);
        put("system.slice/tern.service/memory.max", "max\n");
        put("system.slice/memory.max", "2000\n");
        assert_eq!(of(), Some(2000));
        put("system.slice/tern.service/memory.high", "1000\n");
        assert_eq!(of(), Some(1000));
        put("system.slice/memory.max", "500\n");
        assert_eq!(of(), Some(500), "a group above may allow less");
        // In a container the group that is seen is the root.
        put("memory.max", "3000\n");
        assert_eq!(of_groups(root.path(), "0::/\n"), Some(3000));
        assert_eq!(of_groups(root.path(), "3:memory:/a\n"), None);
    }
}
