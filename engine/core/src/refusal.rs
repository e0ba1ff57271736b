//! Go-back-N: a stream of messages from one sender to one mailbox that was refused goes on only from the refused one.

use tern_protocol::ids::MessageId;

/// How long a refused stream waits for its message before the sender counts as having given it up.
const PATIENCE_NS: u64 = 60_000_000_000;

/// One refused stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    /// The message that the stream must start again from.
    id: MessageId,
    /// The first one behind it that came out of turn.
    next: Option<MessageId>,
    until_ns: u64,
    /// Whether the recipient's home named the message to start again from.
    moved_back: bool,
}

impl Refusal {
    /// Refuses a stream at `id`.
    pub(crate) const fn new(id: MessageId, now_ns: u64) -> Self {
        Self { id, next: None, until_ns: now_ns + PATIENCE_NS, moved_back: false }
    }

    /// Whether the stream may go on with `id`; the refusal is then over.
    pub(crate) fn lets_pass(&mut self, id: MessageId, now_ns: u64) -> bool {
        if self.id == id || self.is_stale(now_ns) {
            return true;
        }
        self.next.get_or_insert(id);
        false
    }

    /// The sender will not send `id` again: it has its answer by another way. The stream then waits for the message
    /// behind it, since copies of still later ones may be on their way. Whether the refusal is over.
    pub(crate) fn is_over_without(&mut self, id: MessageId) -> bool {
        if self.id != id {
            return false;
        }
        match self.next.take() {
            Some(next) => {
                self.id = next;
                false
            }
            None => true,
        }
    }

    /// The recipient's home refused an earlier message of the stream: it starts again from there, and if the sender is
    /// done with that one, from where it was refused here.
    pub(crate) fn move_back(&mut self, id: MessageId) {
        if id != self.id && !core::mem::replace(&mut self.moved_back, true) {
            self.next = Some(core::mem::replace(&mut self.id, id));
        }
    }

    /// Whether the sender has given the message up.
    pub(crate) const fn is_stale(&self, now_ns: u64) -> bool {
        self.until_ns <= now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_refused_message_passes() {
        let mut refusal = Refusal::new(MessageId(5), 0);
        assert!(!refusal.lets_pass(MessageId(6), 1));
        assert!(!refusal.lets_pass(MessageId(7), 1));
        assert!(refusal.lets_pass(MessageId(5), 1));
    }

    #[test]
    fn a_message_that_is_done_leaves_the_turn_to_the_one_behind_it() {
        let mut refusal = Refusal::new(MessageId(5), 0);
        refusal.lets_pass(MessageId(6), 1);
        refusal.lets_pass(MessageId(7), 1);
        assert!(!refusal.is_over_without(MessageId(9)));
        assert!(!refusal.is_over_without(MessageId(5)));
        assert!(!refusal.lets_pass(MessageId(8), 1), "an old copy of 8 must not overtake 6");
        assert!(refusal.lets_pass(MessageId(6), 1));
    }

    #[test]
    fn a_stream_moved_back_comes_to_where_it_was_refused_here() {
        let mut refusal = Refusal::new(MessageId(5), 0);
        refusal.move_back(MessageId(3));
        refusal.move_back(MessageId(4));
        assert!(!refusal.lets_pass(MessageId(5), 1), "3 must come before 5");
        assert!(!refusal.is_over_without(MessageId(3)));
        assert!(!refusal.lets_pass(MessageId(7), 1), "an old copy of 7 must not overtake 5");
        assert!(refusal.lets_pass(MessageId(5), 1));
    }

    #[test]
    fn both_may_refuse_copies_of_the_same_message() {
        let mut refusal = Refusal::new(MessageId(5), 0);
        refusal.move_back(MessageId(5));
        assert!(refusal.is_over_without(MessageId(5)));
    }

    #[test]
    fn patience_ends() {
        let mut refusal = Refusal::new(MessageId(5), 0);
        assert!(!refusal.lets_pass(MessageId(6), PATIENCE_NS - 1));
        assert!(refusal.lets_pass(MessageId(6), PATIENCE_NS));
    }
}
