//! The serving side: an echo, or the stub.

use crate::run::Kind;
use crate::wire::{self, Counts, FrameSizes};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tern_protocol::phone::record;
use tern_ring::{Config, DurableFile, Event, Listener, Ring, Slot};

/// The log is written round and round in so many bytes.
const LOG_BYTES: u64 = 64 << 20;
const BLOCK_BYTES: usize = 4096;

/// Group commits to make, as many as Tern would.
#[derive(Clone, Debug)]
pub(crate) struct Commits {
    pub(crate) per_s: f64,
    pub(crate) bytes: usize,
    pub(crate) directory: std::path::PathBuf,
}

#[derive(Default)]
struct Connection {
    input: Vec<u8>,
    phone: u32,
    owed: Counts,
    /// Bytes to send back.
    echo: Vec<u8>,
    sending: bool,
    dirty: bool,
}

struct Log {
    file: DurableFile,
    data: Vec<u8>,
    every: Duration,
    due: Instant,
    offset: u64,
    under_way: bool,
    /// Messages since the last commit.
    message_count: u64,
    commit_count: u64,
}

struct Server {
    kind: Kind,
    sizes: FrameSizes,
    ring: Ring,
    connections: Vec<Connection>,
    /// Slots by phone.
    slots: Vec<Option<u32>>,
    open_count: u32,
    dirty: Vec<u32>,
    out: Vec<u8>,
    log: Option<Log>,
}

/// Serves until the last of the connections is closed; the number of commits.
pub(crate) fn serve(kind: Kind, phones: u32, body_bytes: usize, commits: Option<Commits>) -> Result<u64> {
    let descriptor_count = phones + 64;
    let sizes = Config { descriptor_count, buffer_count: 4096, ..Config::default() };
    let mut ring = Ring::new(&sizes).context("no ring")?;
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 4096)?;
    let address = listener.local_addr()?;
    ring.accept(listener);
    let mut server = Server {
        kind,
        sizes: FrameSizes::new(body_bytes),
        ring,
        connections: (0..descriptor_count).map(|_| Connection::default()).collect(),
        slots: vec![None; phones as usize],
        open_count: 0,
        dirty: Vec::new(),
        out: Vec::new(),
        log: commits.map(|commits| Log::open(&commits)).transpose()?,
    };
    println!("ready phone={address} pid={}", std::process::id());
    std::io::stdout().flush()?;
    let mut served = false;
    while !served || server.open_count > 0 {
        server.turn()?;
        served |= server.open_count > 0;
    }
    Ok(server.log.map_or(0, |log| log.commit_count))
}

impl Log {
    fn open(commits: &Commits) -> Result<Self> {
        let path = commits.directory.join("stub.log");
        zeroed(&path).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self {
            file: DurableFile::open(&path)?,
            data: vec![0x5a; commits.bytes.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES)],
            every: Duration::from_secs_f64(1.0 / commits.per_s),
            due: Instant::now(),
            offset: 0,
            under_way: false,
            message_count: 0,
            commit_count: 0,
        })
    }

    /// Commits if it is time and there is something to commit; one at a time.
    fn commit(&mut self, ring: &mut Ring, now: Instant) {
        if self.under_way || self.message_count == 0 || now < self.due {
            return;
        }
        if self.offset + self.data.len() as u64 > LOG_BYTES {
            self.offset = 0;
        }
        ring.write_durable(&self.file, self.offset, &self.data, 0);
        self.offset += self.data.len() as u64;
        self.under_way = true;
        self.message_count = 0;
        // What was due while one was under way is not made up for: a group commit takes all that waits.
        self.due = (self.due + self.every).max(now);
    }
}

/// Preallocated and zeroed, as Tern's segments are.
fn zeroed(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..LOG_BYTES >> 20 {
        file.write_all(&zeros)?;
    }
    Ok(file.sync_all()?)
}

impl Server {
    fn turn(&mut self) -> Result<()> {
        let mut wait = Duration::from_secs(1);
        if let Some(log) = &mut self.log {
            let now = Instant::now();
            log.commit(&mut self.ring, now);
            if !log.under_way && log.message_count > 0 {
                wait = wait.min(log.due.saturating_duration_since(now));
            }
        }
        self.ring.enter(Some(wait)).context("the ring failed")?;
        while let Some(event) = self.ring.next_event() {
            match event {
                Event::Accepted { slot, .. } => {
                    self.connections[slot.0 as usize] = Connection::default();
                    self.open_count += 1;
                    self.ring.receive_always(slot, 0)?;
                }
                Event::Received { slot, bytes, .. } => {
                    let connection = &mut self.connections[slot.0 as usize];
                    if self.kind == Kind::Echo {
                        connection.echo.extend_from_slice(bytes);
                        mark(&mut self.dirty, connection, slot.0);
                    } else {
                        connection.input.extend_from_slice(bytes);
                        self.take_records(slot.0)?;
                    }
                }
                Event::Sent { slot, .. } => {
                    let connection = &mut self.connections[slot.0 as usize];
                    connection.sending = false;
                    mark(&mut self.dirty, connection, slot.0);
                }
                Event::Ended { slot, .. } | Event::SendFailed { slot, .. } => {
                    let _ = self.ring.close(slot, 0);
                }
                Event::Closed { .. } => self.open_count -= 1,
                Event::Written { result, .. } => {
                    result.map_err(std::io::Error::from_raw_os_error).context("the log cannot be written")?;
                    if let Some(log) = &mut self.log {
                        log.under_way = false;
                        log.commit_count += 1;
                    }
                }
                _ => {}
            }
        }
        self.flush();
        Ok(())
    }

    fn take_records(&mut self, slot: u32) -> Result<()> {
        let mut input = std::mem::take(&mut self.connections[slot as usize].input);
        let mut done_bytes = 0;
        while let Some((_, bytes)) = record::split(&input[done_bytes..]).ok().context("not a record")? {
            let counts = wire::read(&input[done_bytes + record::HEADER_BYTES..done_bytes + bytes]);
            done_bytes += bytes;
            self.connections[slot as usize].phone = counts.phone;
            self.slots[counts.phone as usize] = Some(slot);
            let Some(partner) = self.slots[(counts.phone ^ 1) as usize] else { continue };
            if counts.messages == 0 && counts.answers == 0 {
                continue;
            }
            if let Some(log) = &mut self.log {
                log.message_count += u64::from(counts.messages);
            }
            // The delivery goes to the partner, and so do the ticks: it sent what was acknowledged.
            let theirs = &mut self.connections[partner as usize];
            theirs.owed.messages += counts.messages;
            theirs.owed.answers += counts.answers;
            mark(&mut self.dirty, theirs, partner);
        }
        input.drain(..done_bytes);
        self.connections[slot as usize].input = input;
        Ok(())
    }

    fn flush(&mut self) {
        for slot in self.dirty.drain(..) {
            let connection = &mut self.connections[slot as usize];
            connection.dirty = false;
            if connection.sending {
                continue;
            }
            self.out.clear();
            let owed = std::mem::take(&mut connection.owed);
            if owed != Counts::default() {
                self.sizes.server_record(owed, &mut self.out);
            }
            self.out.append(&mut connection.echo);
            if !self.out.is_empty() {
                connection.sending = self.ring.send(Slot(slot), 0, &self.out).is_ok();
            }
        }
    }
}

fn mark(dirty: &mut Vec<u32>, connection: &mut Connection, slot: u32) {
    if !connection.dirty {
        connection.dirty = true;
        dirty.push(slot);
    }
}
