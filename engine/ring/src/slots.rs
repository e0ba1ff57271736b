//! The ring's view of its direct descriptors: what is under way on each.

/// Where a slot is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Free,
    /// A connect is under way.
    Connecting,
    Open,
    /// A descriptor message is under way.
    Moving,
    /// A shutdown is under way, which ends what else is.
    ShuttingDown,
    /// Waiting for operations to end, then it is closed.
    Closing,
    /// The close is with the kernel.
    CloseSubmitted,
    /// Likewise, of a failed connect, whose slot the caller never learnt of.
    Abandoned,
}

/// The receive of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Receive {
    None,
    Once,
    Always,
    /// Wanted, and waiting for buffers to come back.
    StarvedOnce,
    /// Likewise, multishot.
    StarvedAlways,
    /// A multishot one that is being cancelled; the poll is armed after its last completion.
    Unarming,
    /// A poll instead: it says when there is something to receive.
    Parked,
}

impl Receive {
    /// Whether the kernel has it.
    pub(crate) const fn is_armed(self) -> bool {
        matches!(self, Self::Once | Self::Always | Self::Unarming | Self::Parked)
    }
}

/// The poll that waits for the other end to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Watch {
    None,
    /// Wanted. If it comes back cancelled, it was given up and then wanted again: it is armed anew.
    Armed,
    /// Given up: what it says is for nobody.
    Cancelling,
}

/// One slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotState {
    pub(crate) key: u64,
    /// Which use of the slot; in the user data of its operations.
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
    pub(crate) receive: Receive,
    pub(crate) watch: Watch,
    pub(crate) sending: bool,
}

impl SlotState {
    pub(crate) const FREE: Self = Self {
        key: 0,
        generation: 0,
        phase: Phase::Free,
        receive: Receive::None,
        watch: Watch::None,
        sending: false,
    };

    /// Whether nothing is under way that the close must wait for.
    pub(crate) const fn is_quiet(&self) -> bool {
        !self.receive.is_armed() && matches!(self.watch, Watch::None) && !self.sending
    }

    /// A new socket is here.
    pub(crate) fn open(&mut self, phase: Phase, key: u64) {
        let generation = self.generation.wrapping_add(1);
        *self = Self { key, generation, phase, ..Self::FREE };
    }

    /// The socket is gone.
    pub(crate) fn free(&mut self) {
        let generation = self.generation.wrapping_add(1);
        *self = Self { generation, ..Self::FREE };
    }
}

const _: () = assert!(size_of::<SlotState>() <= 16);
