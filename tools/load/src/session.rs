//! What every mode does: accounts, logins, waiting with patience, goodbyes, the report.

use crate::admin::Admin;
use crate::args::CommonArgs;
use crate::books::{Books, partner};
use crate::clock::{Clock, ns};
use crate::crew::Crew;
use crate::fleet::{Counts, Fleet, FleetConfig, SPARE_DESCRIPTOR_COUNT, Stage, name};
use crate::ledger::{Run, Tally};
use crate::logins::Logins;
use crate::report::{Latency, Report, Server, tenths};
use crate::usage::{SAMPLE_EVERY, Sampler, Usage};
use anyhow::{Context, Result, bail};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;
use tern_admin::NewAccount;
use tern_protocol::hex::to_hex;
use tern_protocol::ids::AccountId;
use tern_protocol::phone::noise::KeyPair;

/// Phones of one worker, where the limit on open files allows so many.
const PHONES_PER_WORKER: u32 = 19_000;
/// Descriptors that a process has besides.
const OTHER_DESCRIPTOR_COUNT: u32 = 64;
/// Workers whose phones log in at the same time: each has some handshakes under way, and all of them must fit the
/// accept queue.
const LOGIN_WORKER_COUNT: usize = 4;
/// Accounts that are made with one request.
const ACCOUNT_BATCH_COUNT: u32 = 1_000;
const LOOK_EVERY_NS: u64 = 5_000_000;
const CHECK_EVERY_NS: u64 = 50_000_000;
/// How long phones may take to say goodbye.
const GOODBYE_NS: u64 = 3_000_000_000;

/// Why a phase is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Over {
    /// What was waited for is here.
    Done,
    /// Its time is up.
    Time,
    /// No progress for longer than patience allows.
    Patience,
}

/// Some of the phones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// All of them.
    All,
    /// Those with even numbers, which send in `offline`.
    Even,
    /// Those with odd numbers.
    Odd,
}

impl Which {
    /// Their numbers among so many.
    pub(crate) fn of(self, phone_count: u32) -> impl Iterator<Item = u32> {
        let (first, step) = match self {
            Self::All => (0, 1),
            Self::Even => (0, 2),
            Self::Odd => (1, 2),
        };
        (first..phone_count).step_by(step)
    }
}

/// How a mode's phones connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Phones of one source address.
    pub(crate) phones_per_source: u32,
    /// Whether they keep tickets.
    pub(crate) keeps_tickets: bool,
}

/// A run.
pub(crate) struct Session {
    pub(crate) crew: Crew,
    pub(crate) admin: Option<Admin>,
    pub(crate) clock: Clock,
    pub(crate) phone_count: u32,
    door: SocketAddr,
    run: Run,
    patience_ns: u64,
    watch: Watch,
    print_every_ns: u64,
    next_print_ns: u64,
}

/// What patience looks at.
#[derive(Default)]
struct Watch {
    progress: u64,
    online_peak_count: u64,
    since_ns: u64,
}

/// What the workers found, added up.
struct Findings {
    tally: Tally,
    logins: Logins,
    refusal: Option<String>,
}

impl Session {
    /// Derives the keys, makes the accounts, starts the workers. Nobody is connected yet.
    pub(crate) fn set_up(common: &CommonArgs, manner: Manner) -> Result<Self> {
        let clock = Clock::new();
        let door = resolve(&common.phone)?;
        let admin = common.admin.as_deref().map(|address| Admin::new(address, &common.access)).transpose()?;
        let mut low = [0; 4];
        aws_lc_rs::rand::fill(&mut low).ok().context("no random numbers from the system")?;
        let run = Run { started_s: Clock::unix_s() + 1, first_low: u32::from_le_bytes(low) };
        let server_key = admin.as_ref().map(Admin::server_key).transpose()?;
        let per_worker_max = phones_per_worker(common.phones)?;
        let per_worker = per_worker_max.min(share(common.phones, common.threads));
        let mut crew = Crew::default();
        for first_phone in (0..common.phones).step_by(per_worker as usize) {
            let phone_count = per_worker.min(common.phones - first_phone);
            let (keys, accounts) =
                members(common.seed, common.first + first_phone, phone_count, admin.as_ref())?;
            let config = FleetConfig {
                door,
                server_key,
                registers: admin.is_none(),
                first_account: common.first,
                first_phone,
                phones_per_source: manner.phones_per_source,
                keeps_tickets: manner.keeps_tickets,
                one_of_many: common.phones > per_worker_max,
            };
            let body_bytes = common.body;
            let make =
                move || Fleet::new(config, keys, Books::new(accounts, first_phone, body_bytes, run), clock);
            // Slice after slice, so that the lists of one are gone before those of the next are made.
            crew.hire(make)?;
            if common.phones > per_worker_max {
                eprintln!("tern-load: {} of {} accounts are there", first_phone + phone_count, common.phones);
            }
        }
        Ok(Self {
            crew,
            admin,
            clock,
            phone_count: common.phones,
            door,
            run,
            patience_ns: ns(common.patience),
            watch: Watch::default(),
            print_every_ns: ns(common.progress),
            next_print_ns: 0,
        })
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Waits until it is done, time is up, or patience is at its end.
    pub(crate) fn run(&mut self, phase: &str, until_ns: u64, done: impl Fn(&Counts) -> bool) -> Result<Over> {
        self.run_with(phase, until_ns, |_, counts| Ok(done(counts)))
    }

    /// Likewise; `step` may give orders each time that it looks.
    fn run_with(
        &mut self,
        phase: &str,
        until_ns: u64,
        mut step: impl FnMut(&Crew, &Counts) -> Result<bool>,
    ) -> Result<Over> {
        let mut check_ns = 0;
        self.watch = Watch { since_ns: self.now_ns(), ..Watch::default() };
        loop {
            let counts = self.crew.counts()?;
            if step(&self.crew, &counts)? {
                return Ok(Over::Done);
            }
            let now_ns = self.now_ns();
            if now_ns >= until_ns {
                return Ok(Over::Time);
            }
            if now_ns >= check_ns {
                check_ns = now_ns + CHECK_EVERY_NS;
                self.print(phase, &counts, now_ns);
                if self.stuck(&counts, now_ns) {
                    let seconds = self.patience_ns / 1_000_000_000;
                    eprintln!(
                        "tern-load: {phase}: no progress for {seconds} s{}",
                        nobody(self.door, &counts)
                    );
                    return Ok(Over::Patience);
                }
            }
            std::thread::sleep(Duration::from_nanos(LOOK_EVERY_NS.min(until_ns - now_ns)));
        }
    }

    fn stuck(&mut self, counts: &Counts, now_ns: u64) -> bool {
        let expects = counts.sums.outstanding() > 0 || counts.coming() > 0;
        let (progress, online) = (counts.sums.progress(), counts.in_stage(Stage::Online));
        if !expects || progress != self.watch.progress {
            self.watch = Watch { progress, online_peak_count: online, since_ns: now_ns };
        } else if online > self.watch.online_peak_count {
            self.watch.online_peak_count = online;
            self.watch.since_ns = now_ns;
        }
        now_ns - self.watch.since_ns > self.patience_ns
    }

    fn print(&mut self, phase: &str, counts: &Counts, now_ns: u64) {
        if now_ns >= self.next_print_ns {
            self.next_print_ns = now_ns + self.print_every_ns;
            let sums = &counts.sums;
            eprintln!(
                "{:6.1} s {phase}: online {} lost {} flaps {} sent {} ticked {} delivered {} redelivered {} busy {} resent {}",
                now_ns as f64 / 1e9,
                counts.in_stage(Stage::Online),
                counts.lost,
                counts.flaps,
                sums.sent,
                sums.ticked,
                sums.delivered,
                sums.redelivered,
                sums.busy,
                sums.resent
            );
        }
    }

    /// Logs phones in, some workers at a time, and waits until each has what waited for it. False if some did not
    /// make it.
    pub(crate) fn log_in(&mut self, phase: &str, which: Which) -> Result<bool> {
        self.crew.each(|fleet| fleet.logins.end_wave())?;
        let mut started = 0;
        let over = self.run_with(phase, u64::MAX, |crew, counts| {
            if started < crew.size()
                && (0..started).filter(|&worker| !crew.counts_of(worker).settled()).count()
                    < LOGIN_WORKER_COUNT
            {
                crew.one(started, move |fleet| {
                    which.of(fleet.phones.len() as u32).for_each(|phone| fleet.want_online(phone));
                })?;
                started += 1;
                return Ok(false);
            }
            Ok(started == crew.size() && counts.settled() || counts.in_stage(Stage::Refused) > 0)
        })?;
        self.crew.each(|fleet| fleet.logins.end_wave())?;
        Ok(over == Over::Done && self.crew.counts()?.in_stage(Stage::Refused) == 0)
    }

    /// Lets phones say goodbye, acknowledgements included.
    pub(crate) fn leave(&mut self, which: Which) -> Result<()> {
        self.crew.each(move |fleet| {
            which.of(fleet.phones.len() as u32).for_each(|phone| fleet.leave(phone));
        })?;
        let until_ns = self.now_ns() + GOODBYE_NS;
        let staying_count = match which {
            Which::All => 0,
            Which::Even | Which::Odd => self.phone_count / 2,
        };
        loop {
            let counts = self.crew.counts()?;
            let gone = counts.in_stage(Stage::Away) + counts.in_stage(Stage::Refused);
            if gone + u64::from(staying_count) >= u64::from(self.phone_count) || self.now_ns() >= until_ns {
                return Ok(());
            }
            std::thread::sleep(Duration::from_nanos(LOOK_EVERY_NS));
        }
    }

    /// Opens a window over the server's process, if there is an admin endpoint.
    pub(crate) fn sample(&self) -> Option<Sampler> {
        self.sample_every(SAMPLE_EVERY)
    }

    /// Likewise, with so much between the samples.
    pub(crate) fn sample_every(&self, every: Duration) -> Option<Sampler> {
        self.admin.as_ref().map(|admin| Sampler::start(admin, every))
    }

    /// Waits for the second from which this run's ids are stamped. To be called before the first message.
    pub(crate) fn wait_for_ids(&self) {
        Clock::wait_until(self.run.started_s);
    }

    /// Messages that are ticked and not delivered, although their addressee drained its mailbox; and those of which
    /// that can not be said, because the addressee is not here, or the server does not answer it.
    pub(crate) fn missing(&mut self) -> Result<(u64, u64)> {
        if self.crew.each(Fleet::question_addressees)?.contains(&true) {
            let until_ns = self.now_ns() + self.patience_ns;
            self.run("answers", until_ns, Counts::settled)?;
        }
        let of_workers = self.crew.each(|fleet| {
            let (mut lost, mut unknown) = (0, 0);
            for sender in 0..fleet.phones.len() as u32 {
                let addressee = &fleet.phones[partner(sender) as usize];
                let missing_count = u64::from(fleet.books.missing_count(sender));
                if addressee.stage == Stage::Online && addressee.drained {
                    lost += missing_count;
                } else {
                    unknown += missing_count;
                }
            }
            (lost, unknown)
        })?;
        Ok(of_workers.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)))
    }

    /// When the last `sent` tick and the last delivery came.
    pub(crate) fn last_ns(&self) -> Result<(u64, u64)> {
        let of_workers =
            self.crew.each(|fleet| (fleet.books.tally.last_tick_ns, fleet.books.tally.last_delivery_ns))?;
        Ok(of_workers.iter().fold((0, 0), |sum, one| (sum.0.max(one.0), sum.1.max(one.1))))
    }

    fn findings(&self) -> Result<Findings> {
        let mut sum = Findings { tally: Tally::default(), logins: Logins::default(), refusal: None };
        for worker in 0..self.crew.size() {
            // One after the other: a worker's histograms are large.
            let (tally, logins, refusal) = self.crew.one(worker, |fleet| {
                (fleet.books.tally.clone(), fleet.logins.clone(), fleet.refusal.clone())
            })?;
            sum.tally.add(&tally);
            sum.logins.add(&logins);
            sum.refusal = sum.refusal.or(refusal);
        }
        Ok(sum)
    }

    /// The fields that every mode fills in the same way.
    pub(crate) fn report(&self) -> Result<Report> {
        let Findings { tally, logins, refusal } = self.findings()?;
        let sums = &tally.sums;
        let mut report = Report {
            phones: self.phone_count,
            latency_us: Latency::of(&tally.latency_ns),
            steady_latency_us: Latency::of(&tally.steady_latency_ns),
            tick_latency_us: Latency::of(&tally.tick_latency_ns),
            ..Report::default()
        };
        report.set_sums(sums);
        logins.report(&mut report);
        if let Some(refusal) = &refusal {
            eprintln!("tern-load: refused: {refusal}");
        }
        if sums.refused + sums.leftovers + sums.leftover_ticks + sums.resent > 0 {
            eprintln!(
                "tern-load: refused for good {}, sent again for want of an answer {} times, of earlier runs: {} \
                 messages, {} ticks",
                sums.refused, sums.resent, sums.leftovers, sums.leftover_ticks
            );
        }
        Ok(report)
    }

    /// The report of a run in which nothing was sent: `delivered` is what earlier runs left.
    pub(crate) fn report_of_leftovers(&self) -> Result<Report> {
        Ok(Report { delivered: self.crew.counts()?.sums.leftovers, ..self.report()? })
    }

    /// What a mode found, and whether it is complete. Where it broke off, what the workers last said still counts: a
    /// fault is a fault.
    pub(crate) fn conclude(&self, found: Result<(Report, bool)>) -> (Report, bool) {
        found.unwrap_or_else(|error| {
            eprintln!("tern-load: {error:#}");
            (self.report_so_far(), false)
        })
    }

    fn report_so_far(&self) -> Report {
        let Counts { first_logins, sums, .. } = self.crew.last_counts();
        let mut report = Report { phones: self.phone_count, logged_in: first_logins, ..Report::default() };
        report.set_sums(&sums);
        report
    }

    /// The server's part: null without an admin endpoint.
    pub(crate) fn server(
        &self,
        login: (Option<Usage>, u64),
        traffic: Option<Usage>,
        delivered: u64,
    ) -> Option<Server> {
        let admin = self.admin.as_ref()?;
        let per =
            |us: u64, count: u64| (count > 0).then(|| (us as f64 * 1000.0 / count as f64).round() / 1000.0);
        let (login_usage, login_count) = login;
        Some(Server {
            cpu_user_us_per_msg: traffic.and_then(|used| per(used.cpu_user_us, delivered)),
            cpu_system_us_per_msg: traffic.and_then(|used| per(used.cpu_system_us, delivered)),
            cpu_us_per_login: login_usage
                .and_then(|used| per(used.cpu_user_us + used.cpu_system_us, login_count))
                .map(tenths),
            rss_bytes: admin.figures().ok().map(|figures| figures.rss_bytes),
            rss_bytes_per_phone: None,
            log_bytes_written: traffic.map(|used| used.log_bytes_written),
            log_commits: traffic.map(|used| used.log_commits),
        })
    }
}

/// Where nobody is online: where the phones would be, and why they are not, if the system says that.
fn nobody(door: SocketAddr, counts: &Counts) -> String {
    match counts.connect_error.map(std::io::Error::from_raw_os_error) {
        _ if counts.in_stage(Stage::Online) > 0 => String::new(),
        Some(error) => format!("; nobody is online at {door}: {error}"),
        None => format!("; nobody is online at {door}"),
    }
}

/// How many phones each worker gets: the limit on open files is the limit of a ring's descriptor table.
fn phones_per_worker(phone_count: u32) -> Result<u32> {
    let spare_count = SPARE_DESCRIPTOR_COUNT + OTHER_DESCRIPTOR_COUNT;
    let wanted = phone_count.min(PHONES_PER_WORKER);
    let Err((soft, hard)) = tern_ring::probe::raise_descriptor_limit(u64::from(wanted + spare_count)) else {
        return Ok(wanted);
    };
    match slice(hard, spare_count) {
        0 => bail!(
            "open files: limits are {soft} and {hard}, at least {} are needed; raise the hard limit (ulimit -Hn)",
            spare_count + 2
        ),
        phones => Ok(phones),
    }
}

/// An even number, so that pairs stay together.
fn slice(hard_limit: u64, spare_count: u32) -> u32 {
    let room = hard_limit.saturating_sub(u64::from(spare_count));
    u32::try_from(room).unwrap_or(u32::MAX).min(PHONES_PER_WORKER) & !1
}

/// The phones of each of so many threads: an even number, so that pairs stay together.
const fn share(phone_count: u32, threads: u32) -> u32 {
    (phone_count / 2).div_ceil(threads) * 2
}

/// The keys of a slice of phones, and their accounts as far as they can be known.
fn members(
    seed: u64,
    first_phone: u32,
    phone_count: u32,
    admin: Option<&Admin>,
) -> Result<(Vec<KeyPair>, Vec<Option<AccountId>>)> {
    let phones = first_phone..first_phone + phone_count;
    let keys: Vec<KeyPair> =
        phones.clone().map(|phone| KeyPair::from_seed(device_key(seed, phone))).collect();
    let Some(admin) = admin else { return Ok((keys, vec![None; phone_count as usize])) };
    let mut accounts = Vec::with_capacity(phone_count as usize);
    for batch in keys.chunks(ACCOUNT_BATCH_COUNT as usize) {
        let first = first_phone + accounts.len() as u32;
        let account = |(phone, keys): (u32, &KeyPair)| NewAccount {
            name: name(phone),
            device_keys: [to_hex(&keys.public)],
        };
        let batch: Vec<NewAccount> = (first..).zip(batch).map(account).collect();
        accounts.extend(admin.create(&batch)?.into_iter().map(Some));
    }
    Ok((keys, accounts))
}

fn resolve(address: &str) -> Result<SocketAddr> {
    let mut all = address.to_socket_addrs().with_context(|| format!("--phone {address}"))?;
    all.next().with_context(|| format!("--phone {address} names no address"))
}

/// SHA-256 of the seed and the phone's number: the same keys in every run with this seed.
fn device_key(seed: u64, phone: u32) -> [u8; 32] {
    let mut input = *b"tern-load device key............";
    input[20..28].copy_from_slice(&seed.to_le_bytes());
    input[28..].copy_from_slice(&phone.to_le_bytes());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &input);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser;

    #[test]
    fn slices_are_even_and_leave_room() {
        assert_eq!(slice(20_000, 576), 19_000);
        assert_eq!(slice(1_001, 576), 424);
        assert_eq!((slice(577, 576), slice(100, 576)), (0, 0));
        assert_eq!(slice(u64::MAX, 576), 19_000);
        assert_eq!((share(1_000, 1), share(1_000, 2), share(1_000, 3)), (1_000, 500, 334));
        assert_eq!((share(2, 256), share(10, 4)), (2, 4));
        assert_eq!(Which::Odd.of(5).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn a_fault_that_was_found_before_a_worker_ended_is_told() {
        let line = "tern-load pairs --phone 127.0.0.1:1 --phones 4 --window 1 --duration 1";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let manner = Manner { phones_per_source: 4, keeps_tickets: false };
        let session = Session::set_up(cli.mode.common(), manner).unwrap();
        session.crew.one(0, |fleet| fleet.books.tally.sums.faults.misordered = 2).unwrap();
        let ended: Result<()> = session.crew.one(0, |_| panic!("a defect of the generator"));
        let (report, complete) = session.conclude(Err(ended.unwrap_err()));
        assert_eq!((report.misordered, report.phones, report.lost), (2, 4, None));
        assert_eq!((complete, report.exit_code(complete)), (false, 1));
    }

    #[test]
    fn every_phone_of_every_seed_has_its_own_key() {
        let keys: std::collections::HashSet<[u8; 32]> =
            (0..4_u64).flat_map(|seed| (0..100).map(move |phone| device_key(seed, phone))).collect();
        assert_eq!(keys.len(), 400);
        assert_eq!(device_key(1, 2), device_key(1, 2));
    }
}
