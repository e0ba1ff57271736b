//! What a seed decides in advance: the size of the world, tight limits, the traffic, and what goes wrong when.

use crate::disk::Crash;
use crate::network::{Direction, Pace};
use crate::oracle::BODY_BYTES_MIN;
use crate::places::Places;
use crate::random::Random;
use crate::schedule::{MS, SECOND, US};
use tern_core::lanes::LANE_BYTES_MIN;
use tern_core::limits::Limits;

/// One account of the run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountPlan {
    /// Its name.
    pub name: String,
    /// Its devices; more than one only where the control plane makes it.
    pub device_count: u16,
    /// Phones whose devices may be added later.
    pub spare_count: u16,
    /// Its phone registers at the door; otherwise the control plane makes it.
    pub registers: bool,
}

/// Something that goes wrong, or that somebody does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The node stops and starts again after `down_ns`.
    Crash(Crash, u64),
    /// The same, right after a phone gets its next `sent` tick.
    CrashOnTick(Crash, u64),
    /// The node is asked to stop politely, then starts again.
    Drain,
    /// A drive is slow for so long.
    DiskSlow(u16, u64),
    /// A drive has no room for new files for so long.
    DiskFull(u16, u64),
    /// A drive fails its next write.
    DiskWriteFails(u16),
    /// A shard gets little time for so long.
    ShardSlow(u16, u64),
    /// Sockets cannot be moved for so long.
    MovesFail(u64),
    /// The node's wall clock is wrong by so many days for so long, or until its next start.
    ClockWrong(i64, u64),
    /// From now on, starts included, the node's wall clock is wrong by so many seconds.
    SetClock(i64),
    /// A phone's link breaks.
    Cut(usize),
    /// A phone's link goes silent.
    Vanish(usize),
    /// One direction of a phone's link stands still for so long.
    Stall(usize, Direction, u64),
    /// A phone leaves and comes back after so long.
    Leave(usize, u64),
    /// A phone composes so many messages to an account.
    Compose(usize, usize, u64),
    /// An attacker connects.
    Attack,
    /// One connects and plays again what the phone that made this account said first.
    Replay(usize),
    /// A phone of an account adds a device to it. Which phone: a number to choose by.
    AddDevice(usize, usize),
    /// A phone of an account revokes one of its devices, maybe its own. Which ones: numbers to choose by. Whether it
    /// forgets about it when its connection ends without an answer.
    RevokeDevice(usize, usize, usize, bool),
    /// The node stops soon after a phone has asked to add or to revoke a device: within the first time, for the second.
    CrashOnChange(Crash, u64, u64),
    /// The operator removes an account. Whether it gives that up when the node stops, or refuses it. With a crash the
    /// node stops soon after: within the first time, for the second.
    RemoveAccount(usize, bool, Option<(Crash, u64, u64)>),
    /// The node stops while a shard writes elsewhere what lives in thin segments, or soon after, for so long.
    CrashOnRewriting(Crash, u64),
    /// The node stops when it starts the next time: within the first time, for the second.
    CrashOnBoot(Crash, u64, u64),
}

/// Chance for changes of devices is drawn apart from the rest: runs without them are what they are.
const APART: u64 = 0x7265_766f_6b65_0001;
/// Likewise for phones that come back again and again, whose tickets fill the log.
const CHURN: u64 = 0x6368_7572_6e00_0001;
/// Likewise for wrong clocks.
const APART_CLOCKS: u64 = 0x7761_6c6c_0000_0001;
/// Likewise for the end of an account.
const APART_REMOVALS: u64 = 0x676f_6e65_0000_0001;
/// Likewise for addresses and their limits.
const APART_PLACES: u64 = 0x706c_6163_6573_0001;
/// Likewise for mail and ids that nobody keeps for as long as phones are away.
const APART_TIME: u64 = 0x6c61_7073_6500_0001;
/// Likewise for clocks that are set and stay so.
const APART_STEPS: u64 = 0x7374_6570_7300_0001;
/// Likewise for phones that watch each other.
const APART_COMPANY: u64 = 0x7761_7463_6800_0001;
/// Likewise for stops that follow each other.
const APART_STARTS: u64 = 0x7374_6172_7400_0001;
/// Most phones of a run: each needs a connection, on one shard if need be.
const PHONE_COUNT_MAX: usize = 12;

/// The plan of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Shards of the node.
    pub shard_count: u16,
    /// Partitions.
    pub partition_count: u16,
    /// The accounts.
    pub accounts: Vec<AccountPlan>,
    /// The limits of each shard.
    pub limits: Limits,
    /// Length of segment files.
    pub segment_bytes: u32,
    /// The network.
    pub pace: Pace,
    /// Longest disk operation while nothing is wrong, nanoseconds.
    pub disk_ns_max: u64,
    /// Longest time between a completion and the turn that takes it, nanoseconds.
    pub turn_ns_max: u64,
    /// Longest time that one half of a hand-over travels, nanoseconds.
    pub move_ns_max: u64,
    /// What happens when, in order of time.
    pub faults: Vec<(u64, Fault)>,
    /// When all faults are over, nanoseconds.
    pub calm_ns: u64,
    /// Whether the node's key changes when it stops.
    pub changes_keys: bool,
    /// Where connections come from.
    pub places: Places,
    /// Whether phones say that they are there, or typing, and ask for others.
    pub is_social: bool,
    /// For how long mail is kept and ids are remembered, milliseconds, where phones are away for longer.
    pub kept_ms: Option<u64>,
    /// Whether the node's clock is set to other times, and phones go by what they are told.
    pub sets_clock: bool,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64, random: &mut Random) -> Self {
        let shard_count = random.pick(&[1, 2, 2, 3, 4]);
        let limits = limits(random);
        debug_assert_eq!(limits.validate(), Ok(()));
        let accounts = accounts(random);
        let segment_bytes = segment_bytes(&limits, random);
        let calm_ns = random.range(3, 9) * SECOND;
        let mut plan = Self {
            seed,
            shard_count,
            partition_count: shard_count * random.range(1, 6) as u16,
            accounts,
            limits,
            segment_bytes,
            pace: Pace {
                delay_ns_max: random.pick(&[200 * US, 3 * MS, 3 * MS, 40 * MS]),
                split_percent: random.pick(&[0, 30, 90]),
            },
            disk_ns_max: random.pick(&[200 * US, 4 * MS, 4 * MS, 40 * MS]),
            turn_ns_max: random.pick(&[20 * US, 200 * US, 3 * MS]),
            move_ns_max: random.pick(&[50 * US, MS, 20 * MS]),
            faults: Vec::new(),
            calm_ns,
            changes_keys: seed % 2 == 1,
            places: Places::default(),
            is_social: Random::new(seed ^ APART_COMPANY).below(3) == 0,
            kept_ms: None,
            sets_clock: false,
        };
        plan.add_traffic(random);
        plan.add_faults(random);
        plan.change_devices(&mut Random::new(seed ^ APART));
        plan.churn(&mut Random::new(seed ^ CHURN));
        plan.set_clocks_wrong(&mut Random::new(seed ^ APART_CLOCKS));
        plan.remove_account(&mut Random::new(seed ^ APART_REMOVALS));
        plan.know_places(&mut Random::new(seed ^ APART_PLACES));
        plan.let_time_run_out(&mut Random::new(seed ^ APART_TIME));
        plan.set_clocks(&mut Random::new(seed ^ APART_STEPS));
        plan.stop_in_a_row(&mut Random::new(seed ^ APART_STARTS));
        plan.faults.sort_by_key(|&(time_ns, _)| time_ns);
        plan
    }

    /// Number of phones: one for each device that is there from the start.
    #[must_use]
    pub fn phone_count(&self) -> usize {
        self.accounts.iter().map(|account| usize::from(account.device_count)).sum()
    }

    /// Longest padding of a body, bytes.
    #[must_use]
    pub const fn padding_bytes_max(&self) -> usize {
        self.limits.body_bytes - BODY_BYTES_MIN
    }

    /// Whether any attacker comes.
    #[must_use]
    pub fn has_attackers(&self) -> bool {
        self.faults.iter().any(|(_, fault)| matches!(fault, Fault::Attack | Fault::Replay(_)))
    }

    /// Whether the memory for edges suffices if each phone has as much waiting as it may: buffers grow by doubling, and
    /// half of the limit is for all.
    #[must_use]
    pub fn has_ample_memory(&self) -> bool {
        let spare_count: usize = self.accounts.iter().map(|account| usize::from(account.spare_count)).sum();
        4 * (self.phone_count() + spare_count) * self.limits.edge_backlog_bytes <= self.limits.edge_bytes
    }

    fn add(&mut self, random: &mut Random, fault: Fault) {
        let time_ns = random.below(self.calm_ns);
        self.faults.push((time_ns, fault));
    }

    /// In every other run the clock goes wrong: by more than the expiry, forward or back, with mail and stops about it.
    fn set_clocks_wrong(&mut self, random: &mut Random) {
        if random.chance(50) {
            return;
        }
        for _ in 0..random.range(1, 3) {
            let days = random.pick(&[31, 31, 2200, -1, -2200]);
            let long_ns = random.pick(&[MS, SECOND, 4 * SECOND]);
            self.add(random, Fault::ClockWrong(days, long_ns));
        }
    }

    /// In two of five runs an account is removed, with mail, slow and full drives and stops about it; and what its phones
    /// said first is played again.
    fn remove_account(&mut self, random: &mut Random) {
        if random.below(5) >= 2 {
            return;
        }
        let account = random.index(self.accounts.len());
        let time_ns = SECOND + random.below(self.calm_ns - SECOND);
        let soon = |random: &mut Random| (time_ns + random.below(20 * MS)).min(self.calm_ns - 1);
        let crash = random.chance(60).then(|| {
            let within_ns = random.pick(&[5 * MS, 50 * MS, 200 * MS]);
            (random.pick(&[Crash::Kill, Crash::Power]), within_ns, random.range(1, 600) * MS)
        });
        let mut steps = vec![(time_ns, Fault::RemoveAccount(account, random.chance(60), crash))];
        for _ in 0..random.pick(&[0, 2, 4, 6]) {
            let other = (account + 1 + random.index(self.accounts.len() - 1)) % self.accounts.len();
            let (from, to) = if random.chance(80) { (other, account) } else { (account, other) };
            steps.push((soon(random), Fault::Compose(from, to, random.pick(&[1, 2, 4]))));
        }
        let shard = random.below(u64::from(self.shard_count)) as u16;
        if random.chance(50) {
            steps.push((time_ns, Fault::DiskSlow(shard, random.range(20, 400) * MS)));
        }
        if random.chance(25) {
            let full_ns = time_ns - random.below(SECOND / 2);
            steps.push((full_ns, Fault::DiskFull(shard, random.range(300, 1500) * MS)));
        }
        for _ in 0..random.pick(&[0, 1, 3]) {
            let after_ns = time_ns + random.below(self.calm_ns - time_ns);
            steps.push((after_ns, Fault::Replay(account)));
        }
        self.faults.extend(steps);
    }

    /// In two of three runs devices come and go, with mail, slow drives and stops about it.
    fn change_devices(&mut self, random: &mut Random) {
        if random.below(3) == 0 {
            return;
        }
        let mut room = PHONE_COUNT_MAX - self.phone_count();
        for account in &mut self.accounts {
            let count = random.pick(&[0, 1, 2, 3]).min(room);
            room -= count;
            account.spare_count = count as u16;
        }
        for account in 0..self.accounts.len() {
            for _ in 0..self.accounts[account].spare_count {
                // Early, so that there is something to revoke.
                let time_ns = random.below(self.calm_ns / 2);
                self.faults.push((time_ns, Fault::AddDevice(account, random.index(16))));
            }
            if self.accounts[account].spare_count + self.accounts[account].device_count == 1 {
                continue;
            }
            for _ in 0..random.pick(&[0, 1, 1, 2, 3]) {
                self.revoke_one(account, random);
            }
        }
    }

    /// In every third run some phones lose their connections all the time: each ticket is a record. The node may stop
    /// while the log is being rewritten for it.
    fn churn(&mut self, random: &mut Random) {
        if random.below(3) != 0 {
            return;
        }
        for phone in 0..self.phone_count() {
            for _ in 0..random.pick(&[0, 20, 60, 120]) {
                self.add(random, Fault::Cut(phone));
            }
        }
        for _ in 0..random.pick(&[0, 1, 1, 2]) {
            let crash = random.pick(&[Crash::Kill, Crash::Power]);
            let down_ns = random.range(1, 600) * MS;
            self.add(random, Fault::CrashOnRewriting(crash, down_ns));
        }
    }

    /// In every third run the node is killed or loses its power, with mail about it, and stops again while it starts, or
    /// soon after.
    fn stop_in_a_row(&mut self, random: &mut Random) {
        if random.below(3) != 0 {
            return;
        }
        let crash = |random: &mut Random| random.pick(&[Crash::Kill, Crash::Kill, Crash::Power]);
        for _ in 0..random.pick(&[1, 1, 2]) {
            let time_ns = random.below(self.calm_ns);
            for _ in 0..random.pick(&[1, 1, 2, 3]) {
                let within_ns = random.pick(&[2 * MS, 20 * MS, 300 * MS, 2 * SECOND]);
                let fault = Fault::CrashOnBoot(crash(random), within_ns, random.range(1, 300) * MS);
                self.faults.push((time_ns, fault));
            }
            self.faults.push((time_ns, Fault::Crash(crash(random), random.range(1, 300) * MS)));
            for _ in 0..random.pick(&[0, 2, 4]) {
                let from = random.index(self.accounts.len());
                let to = (from + 1 + random.index(self.accounts.len() - 1)) % self.accounts.len();
                let before_ns = time_ns.saturating_sub(random.below(50 * MS));
                self.faults.push((before_ns, Fault::Compose(from, to, random.pick(&[1, 2, 4]))));
            }
        }
    }

    fn revoke_one(&mut self, account: usize, random: &mut Random) {
        let time_ns = SECOND / 2 + random.below(self.calm_ns - SECOND / 2);
        let soon = |random: &mut Random| (time_ns + random.below(20 * MS)).min(self.calm_ns - 1);
        let mut steps = Vec::new();
        for _ in 0..random.pick(&[1, 1, 1, 2]) {
            let forgets = random.chance(60);
            steps.push((
                soon(random),
                Fault::RevokeDevice(account, random.index(16), random.index(16), forgets),
            ));
        }
        for _ in 0..random.pick(&[0, 2, 4, 6]) {
            let from = (account + 1 + random.index(self.accounts.len() - 1)) % self.accounts.len();
            steps.push((soon(random), Fault::Compose(from, account, random.pick(&[1, 2, 4]))));
        }
        if random.chance(50) {
            let shard = random.below(u64::from(self.shard_count)) as u16;
            steps.push((time_ns, Fault::DiskSlow(shard, random.range(20, 400) * MS)));
        }
        if random.chance(25) {
            let shard = random.below(u64::from(self.shard_count)) as u16;
            let full_ns = time_ns - random.below(SECOND / 2);
            steps.push((full_ns, Fault::DiskFull(shard, random.range(300, 1500) * MS)));
        }
        if random.chance(60) {
            let crash = random.pick(&[Crash::Kill, Crash::Power]);
            let within_ns = random.pick(&[5 * MS, 50 * MS, 200 * MS]);
            steps.push((time_ns, Fault::CrashOnChange(crash, within_ns, random.range(1, 600) * MS)));
        }
        self.faults.extend(steps);
    }

    fn add_traffic(&mut self, random: &mut Random) {
        let bursts = random.range(4, 20);
        for _ in 0..bursts {
            let from = random.index(self.accounts.len());
            let to = (from + 1 + random.index(self.accounts.len() - 1)) % self.accounts.len();
            let count = random.pick(&[1, 1, 2, 3, 8]);
            self.add(random, Fault::Compose(from, to, count));
        }
        if random.chance(40) {
            // Everybody to one: a full mailbox, and a lane without room.
            let to = random.index(self.accounts.len());
            let time_ns = random.below(self.calm_ns);
            for from in (0..self.accounts.len()).filter(|&from| from != to) {
                self.faults.push((time_ns, Fault::Compose(from, to, random.range(4, 12))));
            }
        }
        for phone in 0..self.phone_count() {
            for _ in 0..random.pick(&[0, 1, 1, 2]) {
                let away_ns = random.range(50, 2500) * MS;
                self.add(random, Fault::Leave(phone, away_ns));
            }
        }
    }

    fn add_faults(&mut self, random: &mut Random) {
        let crash = |random: &mut Random| random.pick(&[Crash::Kill, Crash::Power]);
        let phones = self.phone_count();
        for _ in 0..random.pick(&[0, 0, 1, 1, 2, 3]) {
            let down_ns = random.range(1, 600) * MS;
            let fault = match random.below(10) {
                0..=3 => Fault::Crash(crash(random), down_ns),
                4..=7 => Fault::CrashOnTick(crash(random), down_ns),
                8 => Fault::Drain,
                _ => Fault::DiskWriteFails(random.below(u64::from(self.shard_count)) as u16),
            };
            self.add(random, fault);
        }
        for _ in 0..random.pick(&[0, 0, 1, 2, 4]) {
            let shard = random.below(u64::from(self.shard_count)) as u16;
            let long_ns = random.range(20, 1500) * MS;
            let fault = match random.below(4) {
                0 => Fault::DiskSlow(shard, long_ns),
                1 => Fault::DiskFull(shard, long_ns),
                2 => Fault::ShardSlow(shard, long_ns),
                _ => Fault::MovesFail(long_ns),
            };
            self.add(random, fault);
        }
        for _ in 0..random.pick(&[0, 1, 2, 4]) {
            let phone = random.index(phones);
            let direction = random.pick(&[Direction::Up, Direction::Down]);
            let fault = match random.below(4) {
                0 => Fault::Vanish(phone),
                1 => Fault::Stall(phone, direction, random.range(20, 2500) * MS),
                _ => Fault::Cut(phone),
            };
            self.add(random, fault);
        }
        if random.chance(50) {
            for _ in 0..random.range(1, 3) {
                self.add(random, Fault::Attack);
            }
        }
    }
}

fn accounts(random: &mut Random) -> Vec<AccountPlan> {
    let count = random.range(2, 5);
    let door_percent = random.pick(&[0, 50, 100]);
    (0..count)
        .map(|n| {
            let registers = random.chance(door_percent);
            let device_count = if !registers && random.chance(25) { 2 } else { 1 };
            let name = format!("phone-{n}-{:x}", random.below(1 << 16));
            AccountPlan { name, device_count, spare_count: 0, registers }
        })
        .collect()
}

/// Tight limits, so that the paths behind them are walked.
fn limits(random: &mut Random) -> Limits {
    let body_bytes = random.pick(&[64, 300, 2000]);
    let window_count: u16 = random.pick(&[1, 2, 4, 16, 64]);
    let limits = Limits {
        body_bytes,
        window_count,
        delivery_count: u32::from(window_count).max(30),
        mailbox_count: random.pick(&[4, 8, 40, 1000]).max(u32::from(window_count)),
        mailbox_bytes: 128 << 10,
        mail_bytes: 1 << 20,
        segment_count: 4096,
        connection_count: random.pick(&[16, 64]),
        login_ms: 2_000,
        idle_ms: 5_000,
        hand_over_ms: random.pick(&[30, 500]),
        edge_backlog_bytes: 2 * body_bytes + 4096 + random.pick(&[0, 16 << 10]),
        step_budget: random.pick(&[1, 4, 64, 512]),
        handshakes_per_turn: random.pick(&[1, 4, 16]),
        lane_bytes: random.pick(&[LANE_BYTES_MIN, body_bytes + 1024, body_bytes + 1024 + (16 << 10)]),
        lane_backlog_bytes: random.pick(&[4096, 64 << 10]).max(2 * (body_bytes + 1024)),
        commit_bytes: body_bytes + 8192 + random.pick(&[0, 32 << 10]),
        write_back_ms: random.pick(&[0, 2, 20, 50]),
        floor_delay_ms: random.pick(&[0, 20, 200]),
        dedup_horizon_ms: 24 * 3_600_000,
        dedup_count: 100_000,
        expiry_ms: 30 * 24 * 3_600_000,
        tick_retry_ms: random.pick(&[200, 1000]),
        busy_ms: random.pick(&[20, 200]),
        account_count: 1000,
        ticket_ms: random.pick(&[0, 2_000, 24 * 3_600_000]),
        deferred_count: 8,
        hand_over_count: 8,
        ..Limits::default()
    };
    // Some accounts are slowed down; drawn from what is known, so that older seeds stay what they were.
    let is_slow = body_bytes == 300;
    Limits {
        account_messages_per_s: if is_slow { 20 } else { 2_000 },
        account_messages_burst: if is_slow { 3 } else { 20_000 },
        ready_key_count: 2,
        edge_bytes: 4096 * limits.connection_count as usize + (128 << 10),
        unanswered_count: 4 * limits.connection_count,
        ..limits
    }
}

fn segment_bytes(limits: &Limits, random: &mut Random) -> u32 {
    // A header block, and one commit padded to whole blocks.
    let smallest = (limits.commit_bytes + 3 * 4096).next_multiple_of(4096);
    (smallest + random.pick(&[0, 16 << 10, 64 << 10])) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_valid_and_differ() {
        let plans: Vec<Plan> = (0..300).map(|seed| Plan::new(seed, &mut Random::new(seed))).collect();
        for plan in &plans {
            assert_eq!(plan.limits.validate(), Ok(()), "seed {}", plan.seed);
            assert!(plan.faults.iter().all(|&(time_ns, _)| time_ns < plan.calm_ns));
        }
        assert_eq!(plans[5], Plan::new(5, &mut Random::new(5)));
        let changes = |plan: &Plan| plan.faults.iter().any(|(_, f)| matches!(f, Fault::RevokeDevice(..)));
        assert!(plans.iter().any(changes) && !plans.iter().all(changes));
        assert!(plans.iter().any(Plan::has_attackers) && !plans.iter().all(Plan::has_attackers));
    }
}
