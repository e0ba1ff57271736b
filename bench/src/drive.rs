//! The driving side: phones 2k and 2k+1 with the packet pattern of `tern-load pairs`.

use crate::cpu::Cpu;
use crate::pace::{GRAIN, Pace, Schedule};
use crate::run::Kind;
use crate::wire::{self, Counts, FrameSizes};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tern_protocol::phone::record;
use tern_ring::{Config, Event, Ring, Slot};

/// How long everything may stand still before it is an error.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most messages that a phone with a schedule has under way, and that one record takes.
const UNDER_WAY_MAX: u8 = 64;

/// Messages of this size that one record certainly takes.
pub(crate) const fn record_count_max(body_bytes: usize) -> usize {
    60_000 / (body_bytes + 64)
}

/// What to drive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) server_pid: u32,
    pub(crate) phones: u32,
    pub(crate) pace: Pace,
    pub(crate) body_bytes: usize,
    pub(crate) duration: Duration,
}

/// What was seen in the window.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) messages: u64,
    /// From the scheduled time to the delivery, nanoseconds; empty without a schedule.
    pub(crate) latency_ns: Histogram<u64>,
    pub(crate) elapsed: Duration,
    pub(crate) server: Cpu,
    pub(crate) client: Cpu,
}

#[derive(Default)]
struct Phone {
    slot: Option<Slot>,
    input: Vec<u8>,
    in_flight: u8,
    /// Scheduled messages that were not sent yet.
    unsent_count: usize,
    /// When its messages that were not delivered yet were due, from the schedule's start.
    due: VecDeque<Duration>,
    /// Deliveries to acknowledge.
    owed: u8,
    /// An acknowledgement of ticks is due with the next record.
    ticked: bool,
    sending: bool,
    dirty: bool,
}

struct Driver {
    plan: Plan,
    sizes: FrameSizes,
    /// Messages that fit one record.
    record_count_max: usize,
    ring: Ring,
    phones: Vec<Phone>,
    dirty: Vec<u32>,
    out: Vec<u8>,
    connected_count: u32,
    message_count: u64,
    latency_ns: Histogram<u64>,
    /// When the phones began to send: they do not before.
    opened: Option<Instant>,
    schedule: Option<Schedule>,
}

/// Connects everyone, warms up for a tenth of the duration, measures for the duration.
pub(crate) fn drive(plan: Plan) -> Result<Seen> {
    let sizes = Config { descriptor_count: plan.phones + 64, buffer_count: 4096, ..Config::default() };
    let latency_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3).context("a histogram")?;
    let mut driver = Driver {
        plan,
        sizes: FrameSizes::new(plan.body_bytes),
        record_count_max: record_count_max(plan.body_bytes),
        ring: Ring::new(&sizes).context("no ring")?,
        phones: (0..plan.phones).map(|_| Phone::default()).collect(),
        dirty: Vec::new(),
        out: Vec::new(),
        connected_count: 0,
        message_count: 0,
        latency_ns,
        opened: None,
        schedule: match plan.pace {
            Pace::Window(_) => None,
            Pace::Rate(rate) => Some(Schedule::new(rate, plan.phones)),
        },
    };
    driver.connect_all()?;
    driver.opened = Some(Instant::now());
    (0..plan.phones).for_each(|phone| driver.mark(phone));
    driver.run_for(plan.duration / 10)?;
    let pid = std::process::id();
    let (server, client) = (Cpu::of(plan.server_pid)?, Cpu::of(pid)?);
    driver.latency_ns.reset();
    let (before_count, start) = (driver.message_count, Instant::now());
    driver.run_for(plan.duration)?;
    Ok(Seen {
        messages: driver.message_count - before_count,
        latency_ns: driver.latency_ns,
        elapsed: start.elapsed(),
        server: Cpu::of(plan.server_pid)?.since(server),
        client: Cpu::of(pid)?.since(client),
    })
}

impl Driver {
    /// One phone after the other, so that no listen queue overflows; each says who it is.
    fn connect_all(&mut self) -> Result<()> {
        for phone in 0..self.plan.phones {
            self.ring.connect(self.plan.address, None, u64::from(phone))?;
            while self.connected_count <= phone {
                self.turn(PATIENCE)?;
            }
        }
        // The greetings must be there before the first message for their phone.
        self.run_for(Duration::from_millis(200))
    }

    fn run_for(&mut self, duration: Duration) -> Result<()> {
        let until = Instant::now() + duration;
        let (mut progress, mut since) = (self.message_count, Instant::now());
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.turn(left.min(PATIENCE))?;
            if self.message_count != progress {
                (progress, since) = (self.message_count, Instant::now());
            }
            ensure!(self.opened.is_none() || since.elapsed() < PATIENCE, "no message for {PATIENCE:?}");
        }
        Ok(())
    }

    fn mark(&mut self, phone: u32) {
        let state = &mut self.phones[phone as usize];
        if !state.dirty {
            state.dirty = true;
            self.dirty.push(phone);
        }
    }

    /// Hands out what is due; how long until there is more.
    fn submit_due(&mut self) -> Option<Duration> {
        let now = self.opened?.elapsed();
        let mut schedule = self.schedule.take()?;
        while let Some((phone, due)) = schedule.pop(now) {
            let state = &mut self.phones[phone as usize];
            state.unsent_count += 1;
            state.due.push_back(due);
            self.mark(phone);
        }
        let next = schedule.next_due();
        self.schedule = Some(schedule);
        Some(next.saturating_sub(now).max(GRAIN))
    }

    fn turn(&mut self, wait: Duration) -> Result<()> {
        let wait = self.submit_due().map_or(wait, |due| wait.min(due));
        self.flush()?;
        self.ring.enter(Some(wait)).context("the ring failed")?;
        while let Some(event) = self.ring.next_event() {
            match event {
                Event::Connected { slot, key } => {
                    self.ring.receive_always(slot, key)?;
                    let phone = key as u32;
                    self.phones[phone as usize].slot = Some(slot);
                    self.connected_count += 1;
                    if self.plan.kind == Kind::Stub {
                        self.out.clear();
                        self.sizes.phone_record(Counts { phone, ..Counts::default() }, true, &mut self.out);
                        self.ring.send(slot, key, &self.out)?;
                        self.phones[phone as usize].sending = true;
                    }
                }
                Event::Received { key, bytes, .. } => {
                    self.phones[key as usize].input.extend_from_slice(bytes);
                    self.take_records(key as u32)?;
                }
                Event::Sent { key, .. } => {
                    self.phones[key as usize].sending = false;
                    self.mark(key as u32);
                }
                Event::ConnectFailed { error, .. } | Event::SendFailed { error, .. } => {
                    return Err(std::io::Error::from_raw_os_error(error)).context("a connection broke");
                }
                Event::Ended { .. } => anyhow::bail!("the server closed a connection"),
                _ => {}
            }
        }
        Ok(())
    }

    fn take_records(&mut self, phone: u32) -> Result<()> {
        let mut input = std::mem::take(&mut self.phones[phone as usize].input);
        let mut done_bytes = 0;
        while let Some((_, bytes)) = record::split(&input[done_bytes..]).ok().context("not a record")? {
            let counts = wire::read(&input[done_bytes + record::HEADER_BYTES..done_bytes + bytes]);
            done_bytes += bytes;
            if counts.messages > 0 {
                // An echo comes back to its sender.
                let sender = if self.plan.kind == Kind::Echo { phone } else { phone ^ 1 };
                self.delivered(sender, counts.messages);
            }
            let state = &mut self.phones[phone as usize];
            if self.plan.kind == Kind::Echo {
                state.in_flight -= counts.messages;
            } else {
                state.owed += counts.messages;
                state.in_flight -= counts.answers;
                state.ticked |= counts.answers > 0;
            }
        }
        input.drain(..done_bytes);
        self.phones[phone as usize].input = input;
        self.mark(phone);
        Ok(())
    }

    /// Messages of `sender` are at their addressee, in the order in which they were due.
    fn delivered(&mut self, sender: u32, count: u8) {
        self.message_count += u64::from(count);
        let due = &mut self.phones[sender as usize].due;
        let now = self.opened.map(|opened| opened.elapsed()).unwrap_or_default();
        for due in due.drain(..due.len().min(usize::from(count))) {
            self.latency_ns.saturating_record(now.saturating_sub(due).as_nanos() as u64);
        }
    }

    fn flush(&mut self) -> Result<()> {
        for phone in self.dirty.drain(..) {
            let state = &mut self.phones[phone as usize];
            state.dirty = false;
            let Some(slot) = state.slot.filter(|_| !state.sending) else { continue };
            let messages = match self.plan.pace {
                _ if self.opened.is_none() => 0,
                Pace::Window(window) => window - state.in_flight,
                Pace::Rate(_) => {
                    let places = usize::from(UNDER_WAY_MAX - state.in_flight);
                    let messages = state.unsent_count.min(places).min(self.record_count_max);
                    state.unsent_count -= messages;
                    messages as u8
                }
            };
            let answers = std::mem::take(&mut state.owed);
            let acknowledges = answers > 0 || std::mem::take(&mut state.ticked);
            if messages == 0 && !acknowledges {
                continue;
            }
            state.in_flight += messages;
            self.out.clear();
            self.sizes.phone_record(Counts { messages, answers, phone }, acknowledges, &mut self.out);
            self.ring.send(slot, u64::from(phone), &self.out)?;
            state.sending = true;
        }
        Ok(())
    }
}
