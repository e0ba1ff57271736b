//! What a phone still has to send: go-back-N for each recipient, the same ids in the same order on every retry.

use std::collections::BTreeMap;
use tern_protocol::ids::MessageId;

#[derive(Debug, Default)]
struct Stream {
    /// Unticked messages, oldest first: id and serial number.
    unticked: Vec<(MessageId, usize)>,
    /// How many of them were sent on this connection.
    sent_count: usize,
    /// Nothing is sent before this time.
    blocked_until_ns: u64,
}

/// All unticked messages of a phone.
#[derive(Debug, Default)]
pub struct Outbox {
    streams: BTreeMap<usize, Stream>,
}

impl Outbox {
    /// Adds a message at the end of its recipient's stream.
    pub fn push(&mut self, to: usize, id: MessageId, serial: usize) {
        self.streams.entry(to).or_default().unticked.push((id, serial));
    }

    /// A tick came: the message is done.
    pub fn ticked(&mut self, to: usize, id: MessageId) {
        let Some(stream) = self.streams.get_mut(&to) else { return };
        if let Some(at) = stream.unticked.iter().position(|&(other, _)| other == id) {
            stream.unticked.remove(at);
            stream.sent_count -= usize::from(at < stream.sent_count);
        }
    }

    /// There is no such recipient any more.
    pub fn forget(&mut self, to: usize) {
        self.streams.remove(&to);
    }

    /// The message was refused: its stream starts again from it, not before `until_ns`.
    pub fn refused(&mut self, to: usize, id: MessageId, until_ns: u64) {
        let Some(stream) = self.streams.get_mut(&to) else { return };
        if let Some(at) = stream.unticked.iter().position(|&(other, _)| other == id) {
            stream.sent_count = stream.sent_count.min(at);
            stream.blocked_until_ns = until_ns;
        }
    }

    /// A new connection, or patience is over: everything unticked is sent again, from the first.
    pub fn restart(&mut self) {
        for stream in self.streams.values_mut() {
            stream.sent_count = 0;
            stream.blocked_until_ns = 0;
        }
    }

    /// The next message to send: recipient and serial number. Only recipients that `reachable` knows.
    pub fn next(&mut self, now_ns: u64, reachable: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
        let (&to, stream) = self.streams.iter_mut().find(|(to, stream)| {
            stream.sent_count < stream.unticked.len() && stream.blocked_until_ns <= now_ns && reachable(**to)
        })?;
        let serial = stream.unticked[stream.sent_count].1;
        stream.sent_count += 1;
        Some((to, serial))
    }

    /// When a refused stream may go on, if one waits.
    #[must_use]
    pub fn blocked_until_ns(&self) -> Option<u64> {
        let waiting = self.streams.values().filter(|stream| stream.sent_count < stream.unticked.len());
        waiting.map(|stream| stream.blocked_until_ns).min()
    }

    /// Messages that were sent on this connection and have no tick yet.
    #[must_use]
    pub fn under_way_count(&self) -> usize {
        self.streams.values().map(|stream| stream.sent_count).sum()
    }

    /// Recipients with something to send.
    pub fn recipients(&self) -> impl Iterator<Item = usize> {
        self.streams.iter().filter(|(_, stream)| !stream.unticked.is_empty()).map(|(&to, _)| to)
    }

    /// Whether everything has its tick.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.values().all(|stream| stream.unticked.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &mut Outbox, now_ns: u64) -> Vec<usize> {
        std::iter::from_fn(|| outbox.next(now_ns, |_| true).map(|(_, serial)| serial)).collect()
    }

    #[test]
    fn a_refusal_goes_back_and_a_restart_begins_with_the_first_unticked() {
        let mut outbox = Outbox::default();
        for serial in 0..4 {
            outbox.push(9, MessageId(serial as u64), serial);
        }
        assert_eq!(drain(&mut outbox, 0), [0, 1, 2, 3]);
        outbox.ticked(9, MessageId(0));
        outbox.refused(9, MessageId(2), 50);
        assert_eq!(outbox.under_way_count(), 1);
        assert_eq!(drain(&mut outbox, 49), [0; 0]);
        assert_eq!(outbox.blocked_until_ns(), Some(50));
        assert_eq!(drain(&mut outbox, 50), [2, 3]);
        outbox.refused(9, MessageId(0), 90);
        assert_eq!(outbox.under_way_count(), 3, "a refusal of what was ticked says nothing");
        outbox.restart();
        assert_eq!(drain(&mut outbox, 60), [1, 2, 3]);
    }
}
