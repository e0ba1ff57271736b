//! Messages on their way: each is kept until its final answer, and sent again in the order of its stream.

use std::collections::VecDeque;
use tern_protocol::ids::{AccountId, MessageId};

/// Messages under way at once; the server allows 4,096.
const FLIGHT_COUNT_MAX: usize = 256;
/// An answer may be lost by an overloaded server; after so long the stream starts again.
const PATIENCE_MS: u64 = 30_000;

/// One message without a final answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outgoing {
    pub(super) to: AccountId,
    pub(super) id: MessageId,
    pub(super) text: String,
    /// When it was last sent on this connection; `None` if it was not.
    sent_ms: Option<u64>,
    /// Not before; set where the server was busy.
    not_before_ms: u64,
}

/// In the order in which they were written.
#[derive(Default, Debug)]
pub(super) struct Outbox {
    messages: VecDeque<Outgoing>,
}

impl Outbox {
    pub(super) fn add(&mut self, to: AccountId, id: MessageId, text: String) {
        self.messages.push_back(Outgoing { to, id, text, sent_ms: None, not_before_ms: 0 });
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The message has its final answer: it is returned, if it was still here.
    pub(super) fn done(&mut self, id: MessageId) -> Option<Outgoing> {
        let index = self.messages.iter().position(|message| message.id == id)?;
        self.messages.remove(index)
    }

    /// The message was refused for now: its stream starts again from it, not before `at_ms` (go-back-N).
    pub(super) fn busy(&mut self, id: MessageId, at_ms: u64) {
        let Some(index) = self.messages.iter().position(|message| message.id == id) else { return };
        let to = self.messages[index].to;
        for message in self.messages.range_mut(index..).filter(|message| message.to == to) {
            message.sent_ms = None;
        }
        self.messages[index].not_before_ms = at_ms;
    }

    /// The connection is gone: everything is sent again on the next one.
    pub(super) fn disconnected(&mut self) {
        for message in &mut self.messages {
            (message.sent_ms, message.not_before_ms) = (None, 0);
        }
    }

    /// What is to be sent now, oldest first; none overtakes one of its stream.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<(AccountId, MessageId, String)> {
        self.lose_patience(now_ms);
        let mut flight_count = self.messages.iter().filter(|message| message.sent_ms.is_some()).count();
        let (mut due, mut held) = (Vec::new(), Vec::new());
        for message in self.messages.iter_mut().filter(|message| message.sent_ms.is_none()) {
            if flight_count >= FLIGHT_COUNT_MAX {
                break;
            }
            if held.contains(&message.to) {
                continue;
            }
            if message.not_before_ms > now_ms {
                held.push(message.to);
                continue;
            }
            message.sent_ms = Some(now_ms);
            flight_count += 1;
            due.push((message.to, message.id, message.text.clone()));
        }
        due
    }

    /// A message that has waited too long for its answer: its stream starts again from it.
    fn lose_patience(&mut self, now_ms: u64) {
        let is_late = |message: &Outgoing| message.sent_ms.is_some_and(|at| now_ms >= at + PATIENCE_MS);
        while let Some(late) = self.messages.iter().find(|message| is_late(message)).map(|late| late.id) {
            self.busy(late, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: AccountId = AccountId(1);
    const BOB: AccountId = AccountId(2);

    fn filled() -> Outbox {
        let mut outbox = Outbox::default();
        for (to, id) in [(ANN, 1), (BOB, 2), (ANN, 3), (ANN, 4)] {
            outbox.add(to, MessageId(id), format!("text {id}"));
        }
        outbox
    }

    fn due(outbox: &mut Outbox, now_ms: u64) -> Vec<u64> {
        outbox.due(now_ms).into_iter().map(|(_, id, _)| id.0).collect()
    }

    #[test]
    fn each_is_sent_once_on_a_connection_and_again_on_the_next() {
        let mut outbox = filled();
        assert_eq!(due(&mut outbox, 0), [1, 2, 3, 4]);
        assert!(due(&mut outbox, 1).is_empty());
        assert_eq!(outbox.done(MessageId(2)).map(|message| message.text), Some("text 2".into()));
        assert_eq!(outbox.done(MessageId(2)), None);
        outbox.disconnected();
        assert_eq!(due(&mut outbox, 2), [1, 3, 4]);
    }

    #[test]
    fn a_busy_stream_starts_again_from_the_refused_message() {
        let mut outbox = filled();
        due(&mut outbox, 0);
        outbox.busy(MessageId(3), 500);
        outbox.add(ANN, MessageId(5), String::new());
        outbox.add(BOB, MessageId(6), String::new());
        assert_eq!(due(&mut outbox, 499), [6], "another stream goes on");
        assert_eq!(due(&mut outbox, 500), [3, 4, 5], "1 was not refused");
        // The refusal of what followed says the same, later.
        outbox.busy(MessageId(4), 900);
        assert_eq!(due(&mut outbox, 900), [4, 5]);
        outbox.busy(MessageId(77), 0);
    }

    #[test]
    fn an_answer_that_does_not_come_starts_the_stream_again() {
        let mut outbox = filled();
        due(&mut outbox, 0);
        outbox.done(MessageId(1));
        assert!(due(&mut outbox, PATIENCE_MS - 1).is_empty());
        assert_eq!(due(&mut outbox, PATIENCE_MS), [2, 3, 4]);
    }

    #[test]
    fn not_too_many_are_under_way() {
        let mut outbox = Outbox::default();
        for id in 0..FLIGHT_COUNT_MAX as u64 + 2 {
            outbox.add(ANN, MessageId(id), String::new());
        }
        assert_eq!(due(&mut outbox, 0).len(), FLIGHT_COUNT_MAX);
        outbox.done(MessageId(0));
        assert_eq!(due(&mut outbox, 0), [FLIGHT_COUNT_MAX as u64]);
        assert_eq!(outbox.len(), FLIGHT_COUNT_MAX + 1);
    }
}
