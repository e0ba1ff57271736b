//! Go-back-N: a stream of messages from one sender to one mailbox that was refused goes on only from the refused one.

use tern_protocol::ids::MessageId;

/// How long a refused stream waits for its message, at both ends, before the sender counts as having given it up.
pub(crate) const PATIENCE_NS: u64 = 60_000_000_000;

/// One refused stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    /// The message that the stream must start again from.
    id: MessageId,
    /// The first one behind it that came out of turn.
    next: Option<MessageId>,
    until_ns: u64,
    /// The sender's session: a later one starts its stream again from its oldest message anyway.
    session: u64,
}

impl Refusal {
    /// Refuses a stream at `id`.
    pub(crate) const fn new(id: MessageId, session: u64, now_ns: u64) -> Self {
        Self { id, next: None, until_ns: now_ns + PATIENCE_NS, session }
    }

    /// Whether the stream may go on with `id`; the refusal is then over.
    pub(crate) fn lets_pass(&mut self, id: MessageId, session: u64, now_ns: u64) -> bool {
        if self.id == id || self.session != session || self.is_stale(now_ns) {
            return true;
        }
        self.next.get_or_insert(id);
        false
    }

    /// The sender will not send `id` again: it has its answer by another way. The stream then waits for the message
    /// behind it, since copies of still later ones may be on their way. Whether the refusal is over.
    pub(crate) fn is_over_without(&mut self, id: MessageId) -> bool {
        if self.next == Some(id) {
            self.next = None;
        }
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
        let mut refusal = Refusal::new(MessageId(5), 1, 0);
        assert!(!refusal.lets_pass(MessageId(6), 1, 1));
        assert!(!refusal.lets_pass(MessageId(7), 1, 1));
        assert!(refusal.lets_pass(MessageId(5), 1, 1));
    }

    #[test]
    fn a_message_that_is_done_leaves_the_turn_to_the_one_behind_it() {
        let mut refusal = Refusal::new(MessageId(5), 1, 0);
        refusal.lets_pass(MessageId(6), 1, 1);
        refusal.lets_pass(MessageId(7), 1, 1);
        assert!(!refusal.is_over_without(MessageId(9)));
        assert!(!refusal.is_over_without(MessageId(5)));
        assert!(!refusal.lets_pass(MessageId(8), 1, 1), "an old copy of 8 must not overtake 6");
        assert!(refusal.lets_pass(MessageId(6), 1, 1));
    }

    #[test]
    fn nothing_waits_for_a_message_that_was_done_out_of_turn() {
        let mut refusal = Refusal::new(MessageId(5), 1, 0);
        refusal.lets_pass(MessageId(6), 1, 1);
        assert!(!refusal.is_over_without(MessageId(6)));
        assert!(refusal.is_over_without(MessageId(5)));
    }

    #[test]
    fn a_later_session_starts_its_stream_again() {
        let mut refusal = Refusal::new(MessageId(5), 1, 0);
        assert!(!refusal.lets_pass(MessageId(6), 1, 1));
        assert!(refusal.lets_pass(MessageId(6), 2, 1));
    }

    #[test]
    fn patience_ends() {
        let mut refusal = Refusal::new(MessageId(5), 1, 0);
        assert!(!refusal.lets_pass(MessageId(6), 1, PATIENCE_NS - 1));
        assert!(refusal.lets_pass(MessageId(6), 1, PATIENCE_NS));
    }
}
