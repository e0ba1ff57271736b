//! The driving side: phones 2k and 2k+1 with the packet pattern of `tern-load pairs`.

use crate::cpu::Cpu;
use crate::run::Kind;
use crate::wire::{self, Counts, FrameSizes};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tern_protocol::phone::record;
use tern_ring::{Config, Event, Ring, Slot};

/// How long everything may stand still before it is an error.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to drive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) server_pid: u32,
    pub(crate) phones: u32,
    pub(crate) window: u8,
    pub(crate) body_bytes: usize,
    pub(crate) duration: Duration,
}

/// What was seen in the window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) messages: u64,
    pub(crate) elapsed: Duration,
    pub(crate) server: Cpu,
    pub(crate) client: Cpu,
}

#[derive(Default)]
struct Phone {
    slot: Option<Slot>,
    input: Vec<u8>,
    in_flight: u8,
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
    ring: Ring,
    phones: Vec<Phone>,
    dirty: Vec<u32>,
    out: Vec<u8>,
    connected_count: u32,
    message_count: u64,
    /// Phones send only in the window.
    open: bool,
}

/// Connects everyone, warms up for a tenth of the duration, measures for the duration.
pub(crate) fn drive(plan: Plan) -> Result<Seen> {
    let sizes = Config { descriptor_count: plan.phones + 64, buffer_count: 4096, ..Config::default() };
    let mut driver = Driver {
        plan,
        sizes: FrameSizes::new(plan.body_bytes),
        ring: Ring::new(&sizes).context("no ring")?,
        phones: (0..plan.phones).map(|_| Phone::default()).collect(),
        dirty: Vec::new(),
        out: Vec::new(),
        connected_count: 0,
        message_count: 0,
        open: false,
    };
    driver.connect_all()?;
    driver.open = true;
    (0..plan.phones).for_each(|phone| driver.mark(phone));
    driver.run_for(plan.duration / 10)?;
    let pid = std::process::id();
    let (server, client) = (Cpu::of(plan.server_pid)?, Cpu::of(pid)?);
    let (before_count, start) = (driver.message_count, Instant::now());
    driver.run_for(plan.duration)?;
    Ok(Seen {
        messages: driver.message_count - before_count,
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
            ensure!(!self.open || since.elapsed() < PATIENCE, "no message for {PATIENCE:?}");
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

    fn turn(&mut self, wait: Duration) -> Result<()> {
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
        let state = &mut self.phones[phone as usize];
        let mut done_bytes = 0;
        while let Some((_, bytes)) = record::split(&state.input[done_bytes..]).ok().context("not a record")? {
            let counts = wire::read(&state.input[done_bytes + record::HEADER_BYTES..done_bytes + bytes]);
            done_bytes += bytes;
            self.message_count += u64::from(counts.messages);
            if self.plan.kind == Kind::Echo {
                state.in_flight -= counts.messages;
            } else {
                state.owed += counts.messages;
                state.in_flight -= counts.answers;
                state.ticked |= counts.answers > 0;
            }
        }
        state.input.drain(..done_bytes);
        self.mark(phone);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        for phone in self.dirty.drain(..) {
            let state = &mut self.phones[phone as usize];
            state.dirty = false;
            let Some(slot) = state.slot.filter(|_| !state.sending) else { continue };
            let messages = if self.open { self.plan.window - state.in_flight } else { 0 };
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
