//! What every mode does: accounts, logins, waiting with patience, goodbyes, the report.

use crate::admin::Admin;
use crate::args::CommonArgs;
use crate::books::{Books, partner};
use crate::clock::{Clock, ns};
use crate::fleet::{Fleet, FleetConfig, Stage, name};
use crate::ledger::Run;
use crate::report::{Latency, Report, Server, tenths};
use crate::usage::{Sampler, Usage};
use anyhow::{Context, Result};
use std::net::{SocketAddr, ToSocketAddrs};
use tern_protocol::phone::noise::KeyPair;

const CHECK_EVERY_NS: u64 = 50_000_000;
const PRINT_EVERY_NS: u64 = 1_000_000_000;
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

/// A run.
pub(crate) struct Session {
    pub(crate) fleet: Fleet,
    pub(crate) admin: Option<Admin>,
    run: Run,
    patience_ns: u64,
    watch: Watch,
    next_print_ns: u64,
}

/// What patience looks at.
#[derive(Default)]
struct Watch {
    progress: u64,
    online_peak_count: u32,
    since_ns: u64,
}

impl Session {
    /// Derives the keys, makes the accounts, opens the ring. Nobody is connected yet.
    pub(crate) fn set_up(common: &CommonArgs) -> Result<Self> {
        let door = resolve(&common.phone)?;
        let admin = common.admin.as_deref().map(Admin::new);
        let keys: Vec<KeyPair> =
            (0..common.phones).map(|phone| KeyPair::from_seed(device_key(common.seed, phone))).collect();
        let mut low = [0; 4];
        aws_lc_rs::rand::fill(&mut low).ok().context("no random numbers from the system")?;
        let run = Run { started_s: Clock::unix_s() + 1, first_low: u32::from_le_bytes(low) };
        let mut books = Books::new(common.phones, common.body, run);
        let mut server_key = None;
        if let Some(admin) = &admin {
            server_key = Some(admin.server_key()?);
            let accounts: Vec<(String, [u8; 32])> =
                keys.iter().enumerate().map(|(phone, keys)| (name(phone as u32), keys.public)).collect();
            books.accounts = admin.create(&accounts)?.into_iter().map(Some).collect();
        }
        let config = FleetConfig { door, server_key, registers: admin.is_none() };
        let fleet = Fleet::new(config, keys, books, Clock::new())?;
        let patience_ns = ns(common.patience);
        Ok(Self { fleet, admin, run, patience_ns, watch: Watch::default(), next_print_ns: 0 })
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.fleet.clock.now_ns()
    }

    /// Turns until it is done, time is up, or patience is at its end.
    pub(crate) fn run(&mut self, phase: &str, until_ns: u64, done: impl Fn(&Fleet) -> bool) -> Result<Over> {
        let mut check_ns = 0;
        self.watch = Watch { since_ns: self.now_ns(), ..Watch::default() };
        loop {
            let now_ns = self.now_ns();
            if done(&self.fleet) {
                return Ok(Over::Done);
            }
            if now_ns >= until_ns {
                return Ok(Over::Time);
            }
            if now_ns >= check_ns {
                check_ns = now_ns + CHECK_EVERY_NS;
                self.print(phase, now_ns);
                if self.stuck(now_ns) {
                    eprintln!("tern-load: {phase}: no progress for {} s", self.patience_ns / 1_000_000_000);
                    return Ok(Over::Patience);
                }
            }
            self.fleet.turn(until_ns.min(check_ns))?;
        }
    }

    fn stuck(&mut self, now_ns: u64) -> bool {
        let fleet = &self.fleet;
        let coming = |stage| matches!(stage, Stage::Waiting | Stage::LoggingIn);
        let expects =
            fleet.books.tally.outstanding() > 0 || fleet.phones.iter().any(|phone| coming(phone.stage));
        let progress = fleet.books.tally.progress();
        if !expects || progress != self.watch.progress {
            self.watch = Watch { progress, online_peak_count: fleet.online_count, since_ns: now_ns };
        } else if fleet.online_count > self.watch.online_peak_count {
            self.watch.online_peak_count = fleet.online_count;
            self.watch.since_ns = now_ns;
        }
        now_ns - self.watch.since_ns > self.patience_ns
    }

    fn print(&mut self, phase: &str, now_ns: u64) {
        if now_ns >= self.next_print_ns {
            self.next_print_ns = now_ns + PRINT_EVERY_NS;
            let tally = &self.fleet.books.tally;
            eprintln!(
                "{:6.1} s {phase}: online {} sent {} ticked {} delivered {} redelivered {} busy {}",
                now_ns as f64 / 1e9,
                self.fleet.online_count,
                tally.sent,
                tally.ticked,
                tally.delivered,
                tally.redelivered,
                tally.busy
            );
        }
    }

    /// Logs phones in and waits until each has what waited for it. False if some did not make it.
    pub(crate) fn log_in(&mut self, phase: &str, phones: &[u32]) -> Result<bool> {
        self.fleet.logins.end_wave();
        phones.iter().for_each(|&phone| self.fleet.want_online(phone));
        let settled = |fleet: &Fleet| {
            // The count first: it is wrong for most turns, and looking at every phone is not free.
            fleet.online_count as usize >= phones.len()
                && phones.iter().all(|&phone| fleet.phones[phone as usize].drained)
                || fleet.refusal.is_some()
        };
        let over = self.run(phase, u64::MAX, settled)?;
        self.fleet.logins.end_wave();
        Ok(over == Over::Done && self.fleet.refusal.is_none())
    }

    /// Lets phones say goodbye, acknowledgements included.
    pub(crate) fn leave(&mut self, phones: &[u32]) -> Result<()> {
        phones.iter().for_each(|&phone| self.fleet.leave(phone));
        let gone = |fleet: &Fleet| {
            phones
                .iter()
                .all(|&phone| matches!(fleet.phones[phone as usize].stage, Stage::Away | Stage::Refused))
        };
        let until_ns = self.now_ns() + GOODBYE_NS;
        while !gone(&self.fleet) && self.now_ns() < until_ns {
            self.fleet.turn(until_ns)?;
        }
        Ok(())
    }

    /// Opens a window over the server's process, if there is an admin endpoint.
    pub(crate) fn sample(&self) -> Option<Sampler> {
        self.admin.as_ref().map(Sampler::start)
    }

    /// Waits for the second from which this run's ids are stamped. To be called before the first message.
    pub(crate) fn wait_for_ids(&self) {
        Clock::wait_until(self.run.started_s);
    }

    /// Messages that are ticked and not delivered, although their addressee drained its mailbox; and those of which
    /// that can not be said, because the addressee is not here.
    pub(crate) fn missing(&self) -> (u64, u64) {
        let (mut lost, mut unknown) = (0, 0);
        for (sender, flow) in self.fleet.books.flows.iter().enumerate() {
            let addressee = &self.fleet.phones[partner(sender as u32) as usize];
            let missing_count = u64::from(flow.missing_count());
            if addressee.stage == Stage::Online && addressee.drained {
                lost += missing_count;
            } else {
                unknown += missing_count;
            }
        }
        (lost, unknown)
    }

    /// The fields that every mode fills in the same way.
    pub(crate) fn report(&self) -> Report {
        let tally = &self.fleet.books.tally;
        let mut report = Report {
            phones: self.fleet.phones.len() as u32,
            sent: tally.sent,
            ticked: tally.ticked,
            unticked: tally.sent - tally.ticked,
            delivered: tally.delivered,
            redelivered: tally.redelivered,
            refused: tally.refused,
            latency_us: Latency::of(&tally.latency_ns),
            tick_latency_us: Latency::of(&tally.tick_latency_ns),
            ..Report::default()
        };
        report.set_faults(tally.faults);
        self.fleet.logins.report(&mut report);
        if let Some(refusal) = &self.fleet.refusal {
            eprintln!("tern-load: refused: {refusal}");
        }
        if tally.refused + tally.leftovers + tally.leftover_ticks > 0 {
            eprintln!(
                "tern-load: refused for good {}, of earlier runs: {} messages, {} ticks",
                tally.refused, tally.leftovers, tally.leftover_ticks
            );
        }
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

    #[test]
    fn every_phone_of_every_seed_has_its_own_key() {
        let keys: std::collections::HashSet<[u8; 32]> =
            (0..4_u64).flat_map(|seed| (0..100).map(move |phone| device_key(seed, phone))).collect();
        assert_eq!(keys.len(), 400);
        assert_eq!(device_key(1, 2), device_key(1, 2));
    }
}
