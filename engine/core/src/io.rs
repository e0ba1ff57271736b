//! Everything that goes into a shard and comes out of it: closed lists, plain data.

use crate::control::{ControlReply, ControlRequest};
use crate::handover::HandOver;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::Range;
use tern_protocol::ids::ShardId;
use tern_storage::io::{DiskDone, DiskOp};

/// The time of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Monotonic nanoseconds, for timers.
    pub mono_ns: u64,
    /// Wall milliseconds of Unix time, for stamps and expiry; never decreasing.
    pub wall_ms: u64,
}

/// A socket in this shard's descriptor table: the slot, and which use of the slot it is.
///
/// The kernel picks slots and uses them again at once; the generation is what tells a late completion of an old
/// socket from one of the new.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnId {
    /// Index into the ring's descriptor table.
    pub slot: u32,
    /// Which use of that slot, counted by the shard.
    pub generation: u32,
}

/// Which of a pair's two mesh queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Ticks, confirmations, refusals, lookups: small, and goes first.
    Control = 0,
    /// Messages.
    Bulk = 1,
}

/// Number of lanes in each direction between two shards.
pub const LANE_COUNT: usize = 2;

/// Joins the state and the socket of one hand-over at its new shard; unique for its source shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HandOverToken(pub u64);

/// What happened, for [`crate::shard::Shard::step`].
#[derive(Debug)]
pub enum Input<'a> {
    /// The listener accepted a socket into `slot` of this shard's descriptor table.
    Accepted {
        /// Where the kernel put it.
        slot: u32,
        /// The other end; `None` where the driver could not learn it.
        peer: Option<SocketAddr>,
    },
    /// Bytes arrived. They may be decrypted in place; what is incomplete is copied before the step returns.
    Received {
        /// On which socket.
        conn: ConnId,
        /// The bytes, at least one.
        bytes: &'a mut [u8],
    },
    /// The other end closed its side, or the socket failed. No more bytes come. Only while a receive is armed, after
    /// [`Output::WatchForEnd`], or behind the `Sent` of a send that failed.
    Ended {
        /// Which socket.
        conn: ConnId,
    },
    /// The whole of the last [`Output::Send`] of this socket is with the kernel (or the socket failed: `Ended` follows).
    Sent {
        /// Which socket.
        conn: ConnId,
    },
    /// The last operation of the socket is over and its slot is free; the answer to [`Output::Close`].
    Closed {
        /// Which socket.
        conn: ConnId,
    },
    /// What became of [`Output::MoveSocket`]. When it moved, this shard's slot is already being closed and
    /// `Closed` follows; when it did not (the other table is full), the socket is still here.
    SocketMoved {
        /// Which socket.
        conn: ConnId,
        /// Whether it is now in the other shard's table.
        moved: bool,
    },
    /// A socket came from another shard into `slot`.
    HandOverSocket {
        /// Who sent it.
        from: ShardId,
        /// What joins it to its state.
        token: HandOverToken,
        /// Where the kernel put it.
        slot: u32,
    },
    /// The state of a socket came from another shard.
    HandOverState {
        /// Who sent it.
        from: ShardId,
        /// The state.
        state: Box<HandOver>,
    },
    /// Envelopes came over the mesh: one or more, each whole.
    Mesh {
        /// Who sent them.
        from: ShardId,
        /// The run of envelopes.
        envelopes: &'a [u8],
    },
    /// A lane that was short of room has this much now.
    LaneRoom {
        /// To which shard.
        to: ShardId,
        /// Which lane.
        lane: Lane,
        /// Bytes that may be sent now, in all.
        room_bytes: usize,
    },
    /// So many bytes of this shard's large envelopes have been taken by their receivers since the start, in all; told at
    /// the start of a turn when it has changed.
    BoxesTaken {
        /// Bytes; they only ever grow.
        taken_bytes: u64,
    },
    /// A disk operation ended.
    Disk(DiskDone),
    /// The control plane asks; answered by [`Output::Reply`] with the same token.
    Control {
        /// Comes back with the reply.
        token: u64,
        /// What it asks.
        request: ControlRequest,
    },
    /// Nothing happened but time: the deadline passed, or [`Output::Continue`] was asked for.
    Tick,
    /// The turn ends: what phones said for each other is handled by now, and every edge that has something to say says it, in
    /// one record and one send. A turn without it leaves both lying.
    Flush,
    /// Stop politely: refuse new work, tell phones, close; [`Output::Drained`] when done.
    Drain,
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Output {
    /// Receive once into a buffer; exactly one `Received` or `Ended` follows. Used before an edge is adopted.
    ReceiveOnce(ConnId),
    /// Read nothing for now, and say `Ended` if the other end goes meanwhile: no receive is under way. The next
    /// `ReceiveOnce`, `ReceiveAlways`, `MoveSocket` or `Close` of the socket ends this.
    WatchForEnd(ConnId),
    /// Receive until the socket ends. The edge is adopted and will not move any more.
    ReceiveAlways(ConnId),
    /// Send these bytes of the arena, all of them, then say `Sent`. At most one is under way for each socket.
    Send {
        /// On which socket.
        conn: ConnId,
        /// Bytes of [`Outputs::arena`].
        data: Range<usize>,
    },
    /// Close the socket once a send that is under way has ended (or after a second); `Closed` follows.
    Close(ConnId),
    /// Move the socket into `to`'s table under `token`; `SocketMoved` follows. No receive is under way.
    MoveSocket {
        /// Which socket.
        conn: ConnId,
        /// To which shard.
        to: ShardId,
        /// What joins it to its state there.
        token: HandOverToken,
    },
    /// Carry the state of a moved socket to its new shard.
    MoveState {
        /// To which shard.
        to: ShardId,
        /// The state; its token is inside.
        state: Box<HandOver>,
    },
    /// A socket that nobody claimed: close it.
    CloseSlot(u32),
    /// Carry these envelopes to another shard; large ones boxed. The shard never sends more than the lane's room, as
    /// [`crate::lanes::cost_bytes`] counts it, and than the room for boxed ones.
    Mesh {
        /// To which shard.
        to: ShardId,
        /// On which lane.
        lane: Lane,
        /// Bytes of [`Outputs::arena`]: whole envelopes.
        data: Range<usize>,
    },
    /// Ask `LaneRoom` of a lane that ran short, as soon as it has room for `bytes` again.
    WantRoom {
        /// To which shard.
        to: ShardId,
        /// Which lane.
        lane: Lane,
        /// How much is waited for.
        bytes: usize,
    },
    /// A disk operation; its data are in [`Outputs::arena`].
    Disk(DiskOp),
    /// The answer to a control request.
    Reply {
        /// The request's token.
        token: u64,
        /// The answer.
        reply: ControlReply,
    },
    /// The boot epoch is durable: it may be let in whoever comes.
    Serving,
    /// More work is waiting than one step may do: step with `Tick` soon, after other inputs.
    Continue,
    /// Everything accepted is safe and every edge is closed: the answer to [`Input::Drain`].
    Drained,
    /// The promise cannot be kept any more: stop the node at once with the exit code that this names.
    Fatal(FatalError),
}

/// Why a shard stops its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FatalError {
    /// A write to the log failed: nothing after it may be acknowledged.
    LogWrite(tern_storage::io::DiskError),
    /// The drive was full at the very start, so that not even the boot epoch could be written.
    LogFullAtBoot,
}

/// Bytes that a buffer keeps which is larger only from time to time: large commits come in bursts.
pub(crate) const KEPT_BYTES: usize = 64 << 10;

/// A reusable list of outputs with the bytes that they refer to.
#[derive(Debug, Default)]
pub struct Outputs {
    /// What to do, in order.
    pub list: Vec<Output>,
    /// The bytes that ranges in `list` refer to.
    pub arena: Vec<u8>,
}

impl Outputs {
    /// Empties both lists and keeps their memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.arena.clear();
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.list.push(output);
    }

    /// Gives back memory that only a large turn needs.
    pub(crate) fn shrink(&mut self) {
        self.list.shrink_to(1024);
        self.arena.shrink_to(KEPT_BYTES);
    }
}
