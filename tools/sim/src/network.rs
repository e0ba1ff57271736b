//! The simulated network: byte streams that split anywhere, delay, stall, end, break and vanish.

use crate::random::Random;
use std::collections::VecDeque;
use std::ops::Range;

/// One TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LinkId(pub usize);

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the phone to the node.
    Up = 0,
    /// From the node to the phone.
    Down = 1,
}

/// Who opened a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// An honest phone, by its index.
    Phone(usize),
    /// An attacker, by its index.
    Attacker(usize),
}

/// When the network wants to be looked at again: an [`Network::arrive`] for this link and direction, so much later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// Which link.
    pub link: LinkId,
    /// Which way.
    pub direction: Direction,
    /// Nanoseconds from now.
    pub delay_ns: u64,
}

/// How slow the network is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Longest time that a piece travels, nanoseconds.
    pub delay_ns_max: u64,
    /// How often a write is cut in pieces, percent.
    pub split_percent: u64,
}

#[derive(Debug, Default)]
struct Pipe {
    /// Written, not there yet.
    flying: VecDeque<u8>,
    /// In the reader's socket buffer.
    arrived: VecDeque<u8>,
    /// The writer is done; the end travels behind the bytes.
    finished: bool,
    /// The end is there.
    end_arrived: bool,
    /// An `arrive` is on its way.
    scheduled: bool,
    /// Nothing moves before this time.
    stalled_until_ns: u64,
    /// The reader does not read any more.
    deaf: bool,
    /// Bytes that the reader took.
    read_bytes: u64,
    /// Bytes that the writer wrote.
    written_bytes: u64,
    /// When it wrote last, virtual nanoseconds.
    written_ns: u64,
    /// When the reader had taken all that was written, virtual nanoseconds: lately.
    read_whole_ns: VecDeque<u64>,
}

/// So many times are kept at which a reader had taken all.
const READ_WHOLE_COUNT: usize = 64;

#[derive(Debug)]
struct Link {
    owner: Owner,
    pipes: [Pipe; 2],
    /// Nothing moves any more and nobody is told.
    vanished: bool,
    /// It was broken, or stood still for a time.
    troubled: bool,
}

/// All links of a run.
#[derive(Debug)]
pub struct Network {
    links: Vec<Link>,
    random: Random,
    /// How slow it is now.
    pub pace: Pace,
    /// What time it is, virtual nanoseconds: whoever has the clock says so.
    pub now_ns: u64,
}

impl Network {
    /// A network without links.
    #[must_use]
    pub const fn new(random: Random, pace: Pace) -> Self {
        Self { links: Vec::new(), random, pace, now_ns: 0 }
    }

    /// Opens a link.
    pub fn open(&mut self, owner: Owner) -> LinkId {
        self.links.push(Link {
            owner,
            pipes: [Pipe::default(), Pipe::default()],
            vanished: false,
            troubled: false,
        });
        LinkId(self.links.len() - 1)
    }

    /// Who opened it.
    #[must_use]
    pub fn owner(&self, link: LinkId) -> Owner {
        self.links[link.0].owner
    }

    /// Number of links ever opened.
    #[must_use]
    pub const fn link_count(&self) -> usize {
        self.links.len()
    }

    /// Writes bytes; they arrive later, in pieces.
    pub fn write(&mut self, link: LinkId, direction: Direction, bytes: &[u8]) -> Option<Arrival> {
        let now_ns = self.now_ns;
        let pipe = self.pipe(link, direction);
        if pipe.finished {
            return None;
        }
        pipe.written_ns = now_ns;
        pipe.flying.extend(bytes);
        pipe.written_bytes += bytes.len() as u64;
        self.schedule(link, direction)
    }

    /// The writer of `direction` has no more to say; the reader hears so after the bytes.
    pub fn finish(&mut self, link: LinkId, direction: Direction) -> Option<Arrival> {
        self.pipe(link, direction).finished = true;
        self.schedule(link, direction)
    }

    /// The reader of `direction` closed its socket: what comes is thrown away.
    pub fn deafen(&mut self, link: LinkId, direction: Direction) {
        let pipe = self.pipe(link, direction);
        pipe.deaf = true;
        pipe.arrived.clear();
    }

    /// Breaks the link: bytes on their way are lost, both ends hear of it.
    pub fn reset(&mut self, link: LinkId) -> Vec<Arrival> {
        let keep = self.random.chance(50);
        self.links[link.0].troubled = true;
        for pipe in &mut self.links[link.0].pipes {
            pipe.flying.clear();
            if !keep {
                pipe.arrived.clear();
            }
            pipe.finished = true;
            pipe.stalled_until_ns = 0;
        }
        [Direction::Up, Direction::Down].into_iter().filter_map(|d| self.schedule(link, d)).collect()
    }

    /// The link goes silent for ever: no end, no error, no bytes.
    pub fn vanish(&mut self, link: LinkId) {
        self.links[link.0].vanished = true;
        self.links[link.0].troubled = true;
    }

    /// One direction stands still until `until_ns`.
    pub fn stall(&mut self, link: LinkId, direction: Direction, until_ns: u64) {
        self.links[link.0].troubled = true;
        self.pipe(link, direction).stalled_until_ns = until_ns;
    }

    /// A piece arrives: moves some bytes, or the end, to the reader's socket. Says when to look again.
    pub fn arrive(&mut self, link: LinkId, direction: Direction, now_ns: u64) -> Option<Arrival> {
        let split = self.random.chance(self.pace.split_percent);
        let vanished = self.links[link.0].vanished;
        let draw = self.random.word();
        let pipe = self.pipe(link, direction);
        pipe.scheduled = false;
        if vanished {
            return None;
        }
        if pipe.stalled_until_ns > now_ns {
            pipe.scheduled = true;
            return Some(Arrival { link, direction, delay_ns: pipe.stalled_until_ns - now_ns });
        }
        let count = match pipe.flying.len() {
            0 => 0,
            all if split => 1 + (draw % all as u64) as usize,
            all => all,
        };
        if pipe.deaf {
            pipe.flying.clear();
        } else {
            pipe.arrived.extend(pipe.flying.drain(..count));
        }
        pipe.end_arrived |= pipe.finished && pipe.flying.is_empty();
        self.schedule(link, direction)
    }

    /// Takes up to `bytes_max` bytes from the reader's socket.
    pub fn read(&mut self, link: LinkId, direction: Direction, bytes_max: usize) -> Vec<u8> {
        let now_ns = self.now_ns;
        let pipe = self.pipe(link, direction);
        let count = pipe.arrived.len().min(bytes_max);
        pipe.read_bytes += count as u64;
        if count > 0 && pipe.read_bytes == pipe.written_bytes {
            pipe.read_whole_ns.truncate(READ_WHOLE_COUNT - 1);
            pipe.read_whole_ns.push_front(now_ns);
        }
        pipe.arrived.drain(..count).collect()
    }

    /// Bytes that the reader could take now.
    #[must_use]
    pub fn readable_bytes(&self, link: LinkId, direction: Direction) -> usize {
        self.links[link.0].pipes[direction as usize].arrived.len()
    }

    /// Whether the reader took everything and the end is there.
    #[must_use]
    pub fn ended(&self, link: LinkId, direction: Direction) -> bool {
        let pipe = &self.links[link.0].pipes[direction as usize];
        pipe.end_arrived && pipe.arrived.is_empty()
    }

    /// Whether the end is there, also behind bytes that the reader did not take.
    #[must_use]
    pub fn end_arrived(&self, link: LinkId, direction: Direction) -> bool {
        self.links[link.0].pipes[direction as usize].end_arrived
    }

    /// Bytes on their way: what fills the writer's socket buffer.
    #[must_use]
    pub fn flying_bytes(&self, link: LinkId, direction: Direction) -> usize {
        self.links[link.0].pipes[direction as usize].flying.len()
    }

    /// Bytes written so far: the position behind the last byte.
    #[must_use]
    pub fn written_bytes(&self, link: LinkId, direction: Direction) -> u64 {
        self.links[link.0].pipes[direction as usize].written_bytes
    }

    /// Bytes that the reader took so far.
    #[must_use]
    pub fn read_bytes(&self, link: LinkId, direction: Direction) -> u64 {
        self.links[link.0].pipes[direction as usize].read_bytes
    }

    /// When the last bytes were written, virtual nanoseconds.
    #[must_use]
    pub fn written_ns(&self, link: LinkId, direction: Direction) -> u64 {
        self.links[link.0].pipes[direction as usize].written_ns
    }

    /// Whether there was a time at which the reader had taken all that was written.
    #[must_use]
    pub fn was_read_whole(&self, link: LinkId, direction: Direction, times_ns: Range<u64>) -> bool {
        let pipe = &self.links[link.0].pipes[direction as usize];
        pipe.read_whole_ns.iter().any(|time_ns| times_ns.contains(time_ns))
    }

    /// Whether a link was ever broken, stood still or went silent.
    #[must_use]
    pub fn was_troubled(&self, link: LinkId) -> bool {
        self.links[link.0].troubled
    }

    fn pipe(&mut self, link: LinkId, direction: Direction) -> &mut Pipe {
        &mut self.links[link.0].pipes[direction as usize]
    }

    fn schedule(&mut self, link: LinkId, direction: Direction) -> Option<Arrival> {
        let delay_ns = self.random.below(self.pace.delay_ns_max) + 1;
        let vanished = self.links[link.0].vanished;
        let pipe = self.pipe(link, direction);
        let due = !pipe.flying.is_empty() || (pipe.finished && !pipe.end_arrived);
        if vanished || pipe.scheduled || !due {
            return None;
        }
        pipe.scheduled = true;
        Some(Arrival { link, direction, delay_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(seed: u64) -> Network {
        Network::new(Random::new(seed), Pace { delay_ns_max: 1000, split_percent: 80 })
    }

    /// Lets everything arrive; returns the number of pieces.
    fn settle(network: &mut Network, mut arrival: Option<Arrival>) -> usize {
        let mut pieces = 0;
        let mut now_ns = 0;
        while let Some(next) = arrival {
            now_ns += next.delay_ns;
            pieces += 1;
            arrival = network.arrive(next.link, next.direction, now_ns);
        }
        pieces
    }

    #[test]
    fn bytes_arrive_whole_and_in_order_in_many_pieces() {
        let sent: Vec<u8> = (0..2000_u32).map(|n| n as u8).collect();
        let mut network = network(7);
        let link = network.open(Owner::Phone(0));
        let arrival = network.write(link, Direction::Up, &sent);
        assert!(network.write(link, Direction::Up, b"more").is_none(), "one arrival at a time");
        assert!(settle(&mut network, arrival) > 2);
        let mut got = network.read(link, Direction::Up, 10);
        got.extend(network.read(link, Direction::Up, usize::MAX));
        assert_eq!(got[..2000], sent);
        assert_eq!(&got[2000..], b"more");
        assert!(!network.ended(link, Direction::Up));
        let arrival = network.finish(link, Direction::Up);
        settle(&mut network, arrival);
        assert!(network.ended(link, Direction::Up));
        assert!(!network.ended(link, Direction::Down));
    }

    #[test]
    fn a_stall_holds_and_a_vanished_link_says_nothing() {
        let mut network = network(1);
        let link = network.open(Owner::Attacker(0));
        network.stall(link, Direction::Up, 5000);
        network.write(link, Direction::Up, b"x").unwrap();
        let again = network.arrive(link, Direction::Up, 1000).unwrap();
        assert_eq!((again.delay_ns, network.readable_bytes(link, Direction::Up)), (4000, 0));
        network.vanish(link);
        assert_eq!(network.arrive(link, Direction::Up, 5000), None);
        assert_eq!(network.finish(link, Direction::Up), None);
        assert_eq!(network.readable_bytes(link, Direction::Up), 0);
    }

    #[test]
    fn a_reset_loses_what_flies_and_ends_both_ways() {
        let mut network = network(3);
        let link = network.open(Owner::Phone(1));
        network.write(link, Direction::Down, b"lost");
        // The piece that was on its way already carries the end now.
        assert_eq!(network.reset(link).len(), 1);
        for direction in [Direction::Up, Direction::Down] {
            network.arrive(link, direction, 0);
            assert!(network.ended(link, direction));
        }
    }
}
