//! The order of what a session sends: messages without a final answer, and which of them were refused (go-back-N).
//!
//! A message goes on only if none before it to the same recipient is refused. The list knows the order of the phone's
//! stream, so it does not matter whether a lane or the recipient's home refused, nor which `busy` comes first.
//!
//! A message that has its answer is forgotten, and a copy of it may still be on its way from a phone that was told to go
//! back before the answer reached it. To the list it is a new one. If it is refused, those behind it wait for a message
//! that the phone will not send again: so when they have waited for a while, its home is asked whether it has it.

mod many;

use self::many::Many;
use crate::ahead::Fetch;
use crate::refusal::PATIENCE_NS;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use tern_protocol::ids::{AccountId, MessageId};

/// Most messages of one session without a final answer.
const COUNT_MAX: usize = 4096;
/// A message that has been refused for so long while others behind it came is asked after, and again after twice as long.
const DOUBT_NS: u64 = 1_000_000_000;

/// Whether a message may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    Now,
    /// One before it was refused.
    Later {
        /// By whom.
        by: Refuser,
        /// Which one, if the recipient's home is to be asked whether it has that already.
        in_doubt: Option<MessageId>,
    },
}

/// Who did not let a message pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refuser {
    /// The lane to the recipient's home, which is full: a matter of milliseconds.
    Lane,
    /// A limit of the sender's account or of its shard.
    Limit,
    /// The recipient's home, which then waits for the message.
    Home,
}

/// A message that needs no more answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Done {
    /// The recipient, if its home may still wait for the message.
    pub(crate) waiting_home: Option<AccountId>,
    since_us: u32,
}

impl Done {
    /// How long the message took, nanoseconds.
    pub(crate) fn took_ns(self, now_ns: u64) -> u64 {
        u64::from(((now_ns / 1000) as u32).wrapping_sub(self.since_us)) * 1000
    }
}

#[derive(Clone, Copy, Debug)]
struct Message {
    to: AccountId,
    id: MessageId,
    /// When it arrived: monotonic microseconds, the low bits. Seventy minutes are enough for what is measured.
    since_us: u32,
    /// Until when those behind it wait for it, monotonic nanoseconds; zero while it is not refused.
    refused_until_ns: u64,
    /// Who refused it last.
    refuser: Refuser,
    /// Whether its recipient's home may be waiting for it.
    home_refused: bool,
    /// How often its home was asked about it since it was refused last.
    asked_count: u8,
}

/// The messages of a session without a final answer, in the order in which the phone first sent them.
///
/// Most sessions have a handful, and a list is looked through. A long one is kept by message and by recipient as well:
/// a phone that says the same message again and again must not make its shard look through thousands each time.
#[derive(Debug)]
pub(crate) enum Outbound {
    Few(Few),
    Many(Box<Many>),
}

/// Most messages that are looked through.
const FEW_COUNT: usize = 64;
/// A long list with no more than these is looked through again.
const FEW_AGAIN_COUNT: usize = 32;
/// Memory of one message of a long list, in messages of a short one.
const MANY_COST: usize = 3;

impl Default for Outbound {
    fn default() -> Self {
        Self::Few(Few::default())
    }
}

impl Outbound {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks for the memory of the first message.
    pub(crate) fn fetch(&self, fetch: Fetch) {
        if let Self::Few(few) = self {
            fetch.of(few.messages.front());
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.messages.len(),
            Self::Many(many) => many.len(),
        }
    }

    /// Messages for which there is memory.
    pub(crate) fn capacity(&self) -> usize {
        match self {
            Self::Few(few) => few.messages.capacity(),
            Self::Many(many) => many.len() * MANY_COST,
        }
    }

    /// The phone sends a message, for the first time or again. `None` if it would be one more and there are too many;
    /// `has_room` says whether there is memory for one more.
    pub(crate) fn turn(&mut self, to: AccountId, id: MessageId, now_ns: u64, has_room: bool) -> Option<Turn> {
        let has_room = has_room && self.len() < COUNT_MAX;
        if let Self::Few(few) = self
            && few.messages.len() == FEW_COUNT
            && has_room
        {
            *self = Self::Many(Box::new(few.messages.drain(..).collect()));
        }
        match self {
            Self::Few(few) => few.turn(to, id, now_ns, has_room),
            Self::Many(many) => many.turn(to, id, now_ns, has_room),
        }
    }

    /// A message was refused.
    pub(crate) fn refuse(&mut self, to: AccountId, id: MessageId, now_ns: u64, by: Refuser) {
        match self {
            Self::Few(few) => few.refuse(to, id, now_ns, by),
            Self::Many(many) => many.refuse(to, id, now_ns, by),
        }
    }

    /// A message has its final answer.
    pub(crate) fn done(&mut self, to: AccountId, id: MessageId) -> Option<Done> {
        let message = match self {
            Self::Few(few) => few.done(to, id),
            Self::Many(many) => many.done(to, id),
        }?;
        if let Self::Many(many) = self
            && many.len() <= FEW_AGAIN_COUNT
        {
            *self = Self::Few(many.take_all().collect());
        }
        Some(Done { waiting_home: message.home_refused.then_some(message.to), since_us: message.since_us })
    }
}

impl Message {
    fn new(to: AccountId, id: MessageId, now_ns: u64) -> Self {
        let since_us = (now_ns / 1000) as u32;
        let refuser = Refuser::Limit;
        Self { to, id, since_us, refused_until_ns: 0, refuser, home_refused: false, asked_count: 0 }
    }

    fn is_refused(&self) -> bool {
        self.refused_until_ns != 0
    }

    fn refuse(&mut self, now_ns: u64, by: Refuser) {
        self.refused_until_ns = now_ns + PATIENCE_NS;
        self.refuser = by;
        self.home_refused |= by == Refuser::Home;
        self.asked_count = 0;
    }

    /// One behind it has to wait.
    fn holds_up(&mut self, now_ns: u64) -> Turn {
        let refused_ns = self.refused_until_ns - PATIENCE_NS;
        let is_in_doubt = now_ns >= refused_ns + (DOUBT_NS << self.asked_count);
        self.asked_count += u8::from(is_in_doubt);
        Turn::Later { by: self.refuser, in_doubt: is_in_doubt.then_some(self.id) }
    }
}

/// A short list.
#[derive(Debug, Default)]
pub(crate) struct Few {
    messages: VecDeque<Message>,
    refused_count: usize,
}

impl FromIterator<Message> for Few {
    fn from_iter<T: IntoIterator<Item = Message>>(messages: T) -> Self {
        let messages: VecDeque<_> = messages.into_iter().collect();
        let refused_count = messages.iter().filter(|message| message.is_refused()).count();
        Self { messages, refused_count }
    }
}

impl Few {
    fn turn(&mut self, to: AccountId, id: MessageId, now_ns: u64, has_room: bool) -> Option<Turn> {
        let known = self.find(to, id);
        let index = known.or_else(|| has_room.then(|| self.append(to, id, now_ns)))?;
        if self.refused_count == 0 {
            return Some(Turn::Now);
        }
        let waits = |m: &Message| m.to == to && m.refused_until_ns > now_ns;
        if let Some(refused) = self.messages.iter_mut().take(index).find(|message| waits(message)) {
            return Some(refused.holds_up(now_ns));
        }
        self.refused_count -= usize::from(self.messages[index].is_refused());
        self.messages[index].refused_until_ns = 0;
        Some(Turn::Now)
    }

    fn refuse(&mut self, to: AccountId, id: MessageId, now_ns: u64, by: Refuser) {
        let Some(index) = self.find(to, id) else { return };
        let message = &mut self.messages[index];
        self.refused_count += usize::from(!message.is_refused());
        message.refuse(now_ns, by);
    }

    fn done(&mut self, to: AccountId, id: MessageId) -> Option<Message> {
        let message = self.messages.remove(self.find(to, id)?)?;
        self.refused_count -= usize::from(message.is_refused());
        Some(message)
    }

    fn append(&mut self, to: AccountId, id: MessageId, now_ns: u64) -> usize {
        self.messages.push_back(Message::new(to, id, now_ns));
        self.messages.len() - 1
    }

    fn find(&self, to: AccountId, id: MessageId) -> Option<usize> {
        self.messages.iter().position(|message| message.id == id && message.to == to)
    }
}

#[cfg(test)]
mod tests;
