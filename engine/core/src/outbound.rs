//! The order of what a session sends: messages without a final answer, and which of them were refused (go-back-N).
//!
//! A message goes on only if none before it to the same recipient is refused. The list knows the order of the phone's
//! stream, so it does not matter whether a lane or the recipient's home refused, nor which `busy` comes first.

use crate::refusal::PATIENCE_NS;
use alloc::collections::VecDeque;
use tern_protocol::ids::{AccountId, MessageId};

/// Most messages of one session without a final answer.
const COUNT_MAX: usize = 4096;
/// Memory for so many is kept when none is left.
const KEPT_COUNT: usize = 64;

/// Whether a message may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    Now,
    /// One before it was refused, by this one.
    Later(Refuser),
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
}

/// The messages of a session without a final answer, in the order in which the phone first sent them.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    messages: VecDeque<Message>,
    refused_count: usize,
}

impl Outbound {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Messages for which there is memory.
    pub(crate) fn capacity(&self) -> usize {
        self.messages.capacity()
    }

    /// The phone sends a message, for the first time or again. `None` if it would be one more and there are too many;
    /// `has_room` says whether there is memory for one more.
    pub(crate) fn turn(&mut self, to: AccountId, id: MessageId, now_ns: u64, has_room: bool) -> Option<Turn> {
        let known = self.find(to, id);
        let index = known.or_else(|| has_room.then(|| self.append(to, id, now_ns)).flatten())?;
        if self.refused_count == 0 {
            return Some(Turn::Now);
        }
        let waits = |m: &Message| m.to == to && m.refused_until_ns > now_ns;
        if let Some(refused) = self.messages.iter().take(index).find(|message| waits(message)) {
            return Some(Turn::Later(refused.refuser));
        }
        self.refused_count -= usize::from(self.messages[index].refused_until_ns != 0);
        self.messages[index].refused_until_ns = 0;
        Some(Turn::Now)
    }

    /// A message was refused.
    pub(crate) fn refuse(&mut self, to: AccountId, id: MessageId, now_ns: u64, by: Refuser) {
        let Some(index) = self.find(to, id) else { return };
        let message = &mut self.messages[index];
        self.refused_count += usize::from(message.refused_until_ns == 0);
        message.refused_until_ns = now_ns + PATIENCE_NS;
        message.refuser = by;
        message.home_refused |= by == Refuser::Home;
    }

    /// A message has its final answer.
    pub(crate) fn done(&mut self, id: MessageId) -> Option<Done> {
        let index = self.messages.iter().position(|message| message.id == id)?;
        let message = self.messages.remove(index)?;
        self.refused_count -= usize::from(message.refused_until_ns != 0);
        if self.messages.is_empty() && self.messages.capacity() > KEPT_COUNT {
            self.messages = VecDeque::new();
        }
        Some(Done { waiting_home: message.home_refused.then_some(message.to), since_us: message.since_us })
    }

    fn append(&mut self, to: AccountId, id: MessageId, now_ns: u64) -> Option<usize> {
        if self.messages.len() == COUNT_MAX {
            return None;
        }
        let since_us = (now_ns / 1000) as u32;
        let (refused_until_ns, refuser) = (0, Refuser::Limit);
        self.messages.push_back(Message { to, id, since_us, refused_until_ns, refuser, home_refused: false });
        Some(self.messages.len() - 1)
    }

    fn find(&self, to: AccountId, id: MessageId) -> Option<usize> {
        self.messages.iter().position(|message| message.id == id && message.to == to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: AccountId = AccountId(1);
    const OTHER: AccountId = AccountId(2);

    fn sent(numbers: core::ops::Range<u64>) -> Outbound {
        let mut outbound = Outbound::default();
        for n in numbers {
            assert_eq!(outbound.turn(TO, MessageId(n), 0, true), Some(Turn::Now));
        }
        outbound
    }

    #[test]
    fn what_was_sent_behind_a_refused_message_waits_for_it() {
        let mut outbound = sent(1..4);
        outbound.refuse(TO, MessageId(2), 0, Refuser::Lane);
        assert_eq!(outbound.turn(TO, MessageId(3), 1, true), Some(Turn::Later(Refuser::Lane)));
        assert_eq!(outbound.turn(TO, MessageId(1), 1, true), Some(Turn::Now), "it came before");
        assert_eq!(outbound.turn(OTHER, MessageId(9), 1, true), Some(Turn::Now), "another stream");
        assert_eq!(outbound.turn(TO, MessageId(2), 1, true), Some(Turn::Now));
        assert_eq!(outbound.turn(TO, MessageId(3), 1, true), Some(Turn::Now));
    }

    #[test]
    fn it_does_not_matter_who_refuses_first() {
        let mut outbound = sent(1..6);
        outbound.refuse(TO, MessageId(4), 0, Refuser::Lane);
        outbound.refuse(TO, MessageId(2), 0, Refuser::Home);
        outbound.refuse(TO, MessageId(3), 0, Refuser::Home);
        assert_eq!(outbound.turn(TO, MessageId(4), 1, true), Some(Turn::Later(Refuser::Home)));
        for n in 2..6 {
            assert_eq!(outbound.turn(TO, MessageId(n), 1, true), Some(Turn::Now));
        }
    }

    #[test]
    fn nobody_waits_for_a_message_that_has_its_answer() {
        let mut outbound = sent(1..4);
        outbound.refuse(TO, MessageId(1), 0, Refuser::Home);
        outbound.refuse(TO, MessageId(2), 0, Refuser::Lane);
        assert_eq!(outbound.done(MessageId(1)).unwrap().waiting_home, Some(TO), "its home must hear of it");
        assert_eq!(
            outbound.turn(TO, MessageId(3), 1, true),
            Some(Turn::Later(Refuser::Lane)),
            "2 is still refused"
        );
        assert_eq!(outbound.done(MessageId(2)).unwrap().waiting_home, None);
        assert_eq!(outbound.done(MessageId(2)), None);
        assert_eq!(outbound.turn(TO, MessageId(3), 1, true), Some(Turn::Now));
        outbound.done(MessageId(3));
        assert!(outbound.is_empty() && outbound.refused_count == 0);
    }

    #[test]
    fn without_room_only_what_is_known_passes() {
        let mut outbound = sent(1..3);
        outbound.refuse(TO, MessageId(1), 0, Refuser::Lane);
        assert_eq!(outbound.turn(TO, MessageId(3), 1, false), None);
        assert_eq!(outbound.turn(TO, MessageId(1), 1, false), Some(Turn::Now));
        assert_eq!(outbound.len(), 2);
    }

    #[test]
    fn memory_for_many_is_given_back() {
        let mut outbound = sent(0..1000);
        assert!(outbound.capacity() >= 1000);
        (0..1000).for_each(|n| assert_eq!(outbound.done(MessageId(n)).unwrap().waiting_home, None));
        assert!(outbound.capacity() <= KEPT_COUNT);
    }

    #[test]
    fn how_long_a_message_took_is_known_also_when_the_clock_wraps() {
        let wrap_ns = (1 << 32) * 1000 - 5_000;
        let mut outbound = Outbound::default();
        outbound.turn(TO, MessageId(1), wrap_ns, true);
        outbound.turn(TO, MessageId(1), wrap_ns + 9_000, true);
        assert_eq!(outbound.done(MessageId(1)).unwrap().took_ns(wrap_ns + 20_000), 20_000);
    }

    #[test]
    fn patience_and_memory_end() {
        let mut outbound = sent(1..COUNT_MAX as u64 + 1);
        outbound.refuse(TO, MessageId(1), 0, Refuser::Lane);
        assert_eq!(outbound.turn(TO, MessageId(2), PATIENCE_NS - 1, true), Some(Turn::Later(Refuser::Lane)));
        assert_eq!(outbound.turn(TO, MessageId(2), PATIENCE_NS, true), Some(Turn::Now));
        assert_eq!(outbound.turn(TO, MessageId(0), PATIENCE_NS, true), None);
    }
}
