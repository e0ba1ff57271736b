//! The edges of a shard: a table by slot, the queues of those whose handshakes wait, and the memory of all buffers.

use crate::addresses::Holder;
use crate::ahead::Fetch;
use crate::buffers::{Buffers, Pool};
use crate::chunks::Chunks;
use crate::edge::{Edge, State};
use crate::io::ConnId;
use crate::limits::Limits;
use crate::line::Line;
use crate::share::Share;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem::take;
use tern_protocol::phone::frame::ServerFrame;

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// The address that the edge counts for.
    holder: Holder,
    edge: Option<Edge>,
}

const _: () = assert!(size_of::<Slot>() <= 160, "an idle phone costs at most 600 bytes in all");

/// The edges of a shard, by slot.
#[derive(Debug)]
pub(crate) struct Edges {
    slots: Chunks<Slot>,
    pub(crate) dirty: Vec<ConnId>,
    /// Handshakes that wait for a later turn.
    pub(crate) line: Line,
    /// Connections in the order in which they came to this shard. Those that have logged in or ended stay until they are
    /// looked at: when there are twice as many as were left the last time.
    half_open: VecDeque<ConnId>,
    half_open_look_at_count: usize,
    /// Handshakes that are half done: their answer is made in the next turn.
    pub(crate) unanswered: VecDeque<ConnId>,
    /// Empty buffers that edges borrow while they have something to say or half a record.
    pool: Pool,
    /// Bytes of the edges' buffers, as they were counted last.
    counted_bytes: usize,
    share: Share,
    open_count: usize,
}

/// Connections in a queue below which nobody looks for those that have ended.
const LOOK_AT_COUNT_MIN: usize = 1024;
/// Half-open connections that are looked at for one that may be given up.
const LOOKS_FOR_ONE: usize = 64;
/// Frames of presence and typing that may wait for the end of the turn, bytes: the answers to a thousand watches.
const EPHEMERAL_BYTES_MAX: usize = 32 << 10;
/// Those that may wait for a send to end, bytes: a phone that does not read is not to cost more.
const EPHEMERAL_BACKLOG_BYTES_MAX: usize = 4 << 10;

impl Edges {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            slots: Chunks::new(),
            dirty: Vec::new(),
            line: Line::default(),
            half_open: VecDeque::new(),
            half_open_look_at_count: LOOK_AT_COUNT_MIN,
            unanswered: VecDeque::new(),
            pool: Pool::new(limits.edge_bytes / 4),
            counted_bytes: 0,
            // Buffers grow by doubling: what is reserved is an eighth, so that twice that stays within the limit.
            share: Share::new(limits.edge_bytes, 8, limits.connection_count as usize),
            open_count: 0,
        }
    }

    /// Bytes of all buffers.
    pub(crate) const fn buffer_bytes(&self) -> usize {
        self.counted_bytes + self.pool.held_bytes()
    }

    /// Bytes of the buffers that edges hold.
    pub(crate) const fn lent_bytes(&self) -> usize {
        self.counted_bytes
    }

    /// Counts what an edge holds now.
    fn recount(&mut self, conn: ConnId) {
        let Some(buffers) = self.get_mut(conn).and_then(|edge| edge.buffers.as_mut()) else { return };
        let bytes = buffers.held_bytes();
        let before = core::mem::replace(&mut buffers.counted_bytes, bytes);
        self.counted_bytes = self.counted_bytes + bytes - before;
    }

    /// Counts what an edge holds now. False if memory is short and its half a record is more than its share: frames
    /// that it is to say leave with the turn, or were asked about when they were said.
    pub(crate) fn may_keep_tail(&mut self, conn: ConnId) -> bool {
        self.recount(conn);
        let tail_bytes = self.get_mut(conn).and_then(Edge::tail).map_or(0, |tail| tail.capacity());
        self.share.fits(tail_bytes, self.counted_bytes)
    }

    /// An edge's buffers; one that has none gets used ones, unless memory is so short that their size matters.
    pub(crate) fn buffers(&mut self, conn: ConnId) -> Option<&mut Buffers> {
        if self.get_mut(conn)?.buffers.is_none() {
            let has_plenty = self.share.has_plenty(self.counted_bytes + self.pool.next_bytes());
            let lent = if has_plenty { self.pool.lend() } else { Box::default() };
            self.get_mut(conn)?.buffers = Some(lent);
        }
        self.get_mut(conn)?.buffers.as_deref_mut()
    }

    /// Counts what an edge holds now, and takes back what it does not use.
    pub(crate) fn settle(&mut self, conn: ConnId) {
        self.recount(conn);
        let Some(edge) = self.get_mut(conn) else { return };
        if let Some(buffers) = edge.buffers.take_if(|buffers| buffers.are_empty()) {
            self.take_back(buffers);
        }
    }

    pub(crate) fn take_back(&mut self, mut buffers: Box<Buffers>) {
        self.counted_bytes -= take(&mut buffers.counted_bytes);
        self.pool.give_back(buffers);
    }

    /// The edge of `conn` if it is still the one in its slot.
    pub(crate) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Edge> {
        let slot = self.slots.get_mut(conn.slot as usize)?;
        if slot.generation == conn.generation { slot.edge.as_mut() } else { None }
    }

    /// Likewise, to look at.
    pub(crate) fn get(&self, conn: ConnId) -> Option<&Edge> {
        let slot = self.slots.get(conn.slot as usize)?;
        if slot.generation == conn.generation { slot.edge.as_ref() } else { None }
    }

    /// Asks for the memory of an edge.
    pub(crate) fn fetch(&self, conn: ConnId, fetch: Fetch) {
        fetch.of(self.slots.get(conn.slot as usize));
    }

    /// Whether the next turn has handshakes to go on with.
    pub(crate) fn has_handshakes(&self) -> bool {
        self.deferred_count() > 0 || !self.unanswered.is_empty()
    }

    /// The half-open connection whose phone has kept the shard waiting for longest, among the oldest.
    pub(crate) fn longest_waited_for(&mut self) -> Option<ConnId> {
        let mut line = take(&mut self.half_open);
        while line.front().is_some_and(|&conn| !self.is_half_open(conn)) {
            line.pop_front();
        }
        let waits = |&conn: &ConnId| self.get_mut(conn).is_some_and(|edge| edge.waits_for_phone());
        let found = line.iter().take(LOOKS_FOR_ONE).copied().find(waits);
        self.half_open = line;
        found
    }

    fn is_half_open(&mut self, conn: ConnId) -> bool {
        self.get_mut(conn).is_some_and(|edge| edge.half_open && !matches!(edge.state, State::Closing { .. }))
    }

    /// The address that a connection counts for.
    pub(crate) fn holder(&mut self, conn: ConnId) -> Holder {
        let slot = self.slots.get_mut(conn.slot as usize);
        slot.filter(|slot| slot.generation == conn.generation).map_or(Holder::default(), |slot| slot.holder)
    }

    /// A connection counts for an address.
    pub(crate) fn set_holder(&mut self, conn: ConnId, holder: Holder) {
        if let Some(slot) = self.slots.get_mut(conn.slot as usize)
            && slot.generation == conn.generation
        {
            slot.holder = holder;
        }
    }

    /// Sockets that are open.
    pub(crate) const fn open_count(&self) -> usize {
        self.open_count
    }

    /// The present owner of a slot. Only the deliberate bug asks for it.
    #[cfg(feature = "bugs")]
    pub(crate) fn present(&self, slot: u32) -> Option<ConnId> {
        let slot_state = self.slots.get(slot as usize)?;
        slot_state.edge.as_ref()?;
        Some(ConnId { slot, generation: slot_state.generation })
    }

    /// All sockets that are open.
    pub(crate) fn all(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.edge.is_some())
            .map(|(index, slot)| ConnId { slot: index as u32, generation: slot.generation })
    }

    pub(crate) fn open(&mut self, slot: u32, edge: Edge) -> ConnId {
        let place = self.slots.get_or_grow(slot as usize);
        assert!(place.edge.is_none(), "the driver put a socket into a slot that is in use");
        place.generation = place.generation.wrapping_add(1);
        (place.holder, place.edge) = (Holder::default(), Some(edge));
        self.open_count += 1;
        let conn = ConnId { slot, generation: place.generation };
        if self.half_open.len() >= self.half_open_look_at_count {
            let mut line = take(&mut self.half_open);
            line.retain(|&conn| self.is_half_open(conn));
            self.half_open_look_at_count = (2 * line.len()).max(LOOK_AT_COUNT_MIN);
            line.shrink_to(self.half_open_look_at_count);
            self.half_open = line;
        }
        self.half_open.push_back(conn);
        conn
    }

    pub(crate) fn free(&mut self, conn: ConnId) -> Option<Edge> {
        let slot = self.slots.get_mut(conn.slot as usize)?;
        if slot.generation != conn.generation {
            return None;
        }
        let edge = slot.edge.take()?;
        self.open_count -= 1;
        Some(edge)
    }

    /// Whether an edge waits to be told why its session ended.
    pub(crate) fn is_dismissed(&mut self, conn: ConnId) -> bool {
        self.get_mut(conn).is_some_and(|edge| matches!(edge.state, State::Dismissed))
    }

    /// Whether an edge waits for its account or its ticket to be on stable storage.
    pub(crate) fn waits_for_log(&mut self, conn: ConnId) -> bool {
        self.get_mut(conn).is_some_and(|edge| matches!(edge.state, State::Greeting | State::Starting(_)))
    }

    pub(crate) fn mark_dirty(&mut self, conn: ConnId) {
        if let Some(edge) = self.get_mut(conn)
            && !edge.dirty
        {
            edge.dirty = true;
            self.dirty.push(conn);
        }
    }

    /// Keeps received bytes for later.
    pub(crate) fn keep_tail(&mut self, conn: ConnId, bytes: &[u8]) {
        if !bytes.is_empty()
            && let Some(buffers) = self.buffers(conn)
        {
            buffers.tail.extend_from_slice(bytes);
        }
    }

    /// Puts back what is left of a tail that was taken out to be used.
    pub(crate) fn put_tail(&mut self, conn: ConnId, tail: Vec<u8>) {
        let is_empty = tail.is_empty();
        if (!is_empty || self.get_mut(conn).is_some_and(|edge| edge.buffers.is_some()))
            && let Some(buffers) = self.buffers(conn)
        {
            buffers.tail = tail;
        }
        self.settle(conn);
    }

    /// Appends a frame to what the edge says at the end of the turn. False if there is no such edge, its backlog
    /// is above `backlog_bytes_max`, or memory is short and it holds more than its share behind a send.
    pub(crate) fn say(&mut self, conn: ConnId, frame: &ServerFrame<'_>, backlog_bytes_max: usize) -> bool {
        let Some(edge) = self.get_mut(conn) else { return false };
        let waits = edge.sending;
        // What may be dropped is never why something else finds no room. Buffers grow by doubling.
        let (waiting_bytes, held_bytes) = edge.buffers.as_ref().map_or((0, 0), |buffers| {
            let waiting_bytes = buffers.plain_out.len() - buffers.ephemeral_bytes;
            (waiting_bytes, buffers.held_bytes().saturating_sub(2 * buffers.ephemeral_bytes))
        });
        // What does not wait for a send is gone at the end of the turn.
        if waiting_bytes > backlog_bytes_max || waits && !self.share.fits(held_bytes, self.counted_bytes) {
            return false;
        }
        self.add_frame(conn, frame).is_some()
    }

    /// Likewise, what may be dropped. False if as much of it waits as may, or memory is short.
    pub(crate) fn say_ephemeral(&mut self, conn: ConnId, frame: &ServerFrame<'_>) -> bool {
        let Some(edge) = self.get_mut(conn) else { return false };
        let bytes_max = if edge.sending { EPHEMERAL_BACKLOG_BYTES_MAX } else { EPHEMERAL_BYTES_MAX };
        let waiting_bytes = edge.buffers.as_ref().map_or(0, |buffers| buffers.ephemeral_bytes);
        if waiting_bytes >= bytes_max || !self.share.has_plenty(self.counted_bytes) {
            return false;
        }
        let added_bytes = self.add_frame(conn, frame);
        if let Some(buffers) = self.buffers(conn) {
            buffers.ephemeral_bytes += added_bytes.unwrap_or(0);
        }
        added_bytes.is_some()
    }

    /// Appends a frame; how many bytes it has.
    fn add_frame(&mut self, conn: ConnId, frame: &ServerFrame<'_>) -> Option<usize> {
        let buffers = self.buffers(conn)?;
        let before = buffers.plain_out.len();
        frame.encode(&mut buffers.plain_out);
        let bytes = buffers.plain_out.len() - before;
        self.recount(conn);
        self.mark_dirty(conn);
        Some(bytes)
    }
}
