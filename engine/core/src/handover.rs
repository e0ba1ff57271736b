//! An edge on its way to its home shard: its state travels here, its socket by descriptor, joined by a token.

use crate::io::{HandOverToken, Input, Now, Output, Outputs};
use crate::shard::Shard;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;
use tern_protocol::ids::ShardId;
use tern_protocol::phone::noise::Transport;
use tern_protocol::phone::server::LoginRequest;

/// The state of a moving edge.
#[derive(Debug)]
pub struct HandOver {
    /// What joins it to its socket.
    pub token: HandOverToken,
    /// Who it proved to be; `None` when it moves by its preface's hint, before any cryptography.
    pub(crate) login: Option<(LoginRequest, Transport)>,
    /// Bytes that were to be sent and were not yet.
    pub(crate) unsent: Vec<u8>,
    /// Bytes that were read and not used yet.
    pub(crate) leftover: Vec<u8>,
    /// The other end.
    pub(crate) peer: Option<SocketAddr>,
    /// When it was accepted, monotonic milliseconds of the node: the login deadline runs from there.
    pub(crate) accepted_ms: u64,
}

/// The half of a hand-over that came first.
#[derive(Debug)]
enum Half {
    Socket(u32),
    State(Box<HandOver>),
}

#[derive(Debug)]
struct Waiting {
    from: ShardId,
    token: HandOverToken,
    deadline_ns: u64,
    half: Half,
}

/// Hand-overs of which one half has come. Few at a time, all with the same patience, so a queue in order of deadlines.
#[derive(Debug, Default)]
pub(crate) struct HandOvers {
    waiting: VecDeque<Waiting>,
    next_token: u64,
}

impl HandOvers {
    /// A token that this shard has not used before.
    pub(crate) fn new_token(&mut self) -> HandOverToken {
        self.next_token += 1;
        HandOverToken(self.next_token)
    }

    /// When the first one is given up.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.deadline_ns)
    }

    /// How many wait for their other half.
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    fn take(&mut self, from: ShardId, token: HandOverToken) -> Option<Half> {
        let index = self.waiting.iter().position(|w| w.from == from && w.token == token)?;
        self.waiting.remove(index).map(|waiting| waiting.half)
    }
}

impl Shard {
    /// Takes one half of a hand-over and, when both are there, the edge.
    pub(crate) fn take_half(&mut self, now: Now, input: Input<'_>, out: &mut Outputs) {
        let (from, token, half) = match input {
            Input::HandOverSocket { from, token, slot } => (from, token, Half::Socket(slot)),
            Input::HandOverState { from, state } => (from, state.token, Half::State(state)),
            _ => return,
        };
        if self.draining {
            // The node is going away, and this shard may have said already that it is done.
            if let Some(Half::Socket(slot)) = self.hand_overs.take(from, token) {
                out.push(Output::CloseSlot(slot));
            }
            if let Half::Socket(slot) = half {
                out.push(Output::CloseSlot(slot));
            }
            return;
        }
        match (self.hand_overs.take(from, token), half) {
            (Some(Half::State(state)), Half::Socket(slot))
            | (Some(Half::Socket(slot)), Half::State(state)) => {
                self.counters.taken_over += 1;
                self.adopt(now, slot, *state, out);
            }
            (_, half) if self.hand_overs.waiting.len() >= self.config.limits.hand_over_count as usize => {
                // The other half will not find it, and is given up in time.
                self.counters.hand_over_failures += 1;
                self.counters.hand_overs_full += 1;
                if let Half::Socket(slot) = half {
                    out.push(Output::CloseSlot(slot));
                }
            }
            (_, half) => {
                let deadline_ns = now.mono_ns + self.config.limits.hand_over_ms * 1_000_000;
                self.hand_overs.waiting.push_back(Waiting { from, token, deadline_ns, half });
            }
        }
    }

    /// Gives up hand-overs whose other half did not come in time.
    pub(crate) fn expire_hand_overs(&mut self, now: Now, out: &mut Outputs) {
        while self.hand_overs.next_deadline().is_some_and(|deadline_ns| deadline_ns <= now.mono_ns) {
            self.counters.hand_over_failures += 1;
            self.counters.hand_overs_late += 1;
            if let Some(Waiting { half: Half::Socket(slot), .. }) = self.hand_overs.waiting.pop_front() {
                out.push(Output::CloseSlot(slot));
            }
        }
    }
}
