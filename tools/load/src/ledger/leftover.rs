//! Mail that an earlier run of the generator left in a mailbox: not in this run's figures, but it has an order too.

use super::Tally;
use std::collections::{HashMap, HashSet};
use tern_protocol::ids::MessageId;

/// What is known about one addressee's leftovers.
#[derive(Default, Debug)]
struct Mailbox {
    known: HashSet<u64>,
    seen_now: HashSet<u64>,
    last: Option<MessageId>,
}

/// The leftovers of all addressees; empty unless there are some.
#[derive(Default, Debug)]
pub(crate) struct Leftovers {
    mailboxes: HashMap<u32, Mailbox>,
}

impl Leftovers {
    /// A message of an earlier run came to phone `to`, from the phone that it talks with. True the first time.
    pub(crate) fn on_deliver(&mut self, to: u32, id: MessageId, tally: &mut Tally) -> bool {
        let mailbox = self.mailboxes.entry(to).or_default();
        if !mailbox.seen_now.insert(id.0) {
            tally.sums.faults.duplicated += 1;
            return false;
        }
        if !mailbox.known.insert(id.0) {
            tally.sums.redelivered += 1;
            return false;
        }
        tally.sums.leftovers += 1;
        if mailbox.last.is_some_and(|last| !follows(last, id)) {
            tally.sums.faults.misordered += 1;
        }
        mailbox.last = Some(id);
        true
    }

    /// The phone has a new connection.
    pub(crate) fn addressee_connected(&mut self, to: u32) {
        if let Some(mailbox) = self.mailboxes.get_mut(&to) {
            mailbox.seen_now.clear();
        }
    }
}

/// Whether one sender made `next` after `last`. In one second the low halves count up, and may wrap.
fn follows(last: MessageId, next: MessageId) -> bool {
    match next.unix_s().cmp(&last.unix_s()) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => ((next.0 as u32).wrapping_sub(last.0 as u32) as i32) > 0,
        std::cmp::Ordering::Less => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_keep_their_order_and_come_once() {
        let (mut leftovers, mut tally) = (Leftovers::default(), Tally::default());
        assert!(leftovers.on_deliver(1, MessageId::new(5, u32::MAX), &mut tally));
        assert!(leftovers.on_deliver(1, MessageId::new(5, 0), &mut tally), "the low half may wrap");
        assert!(leftovers.on_deliver(1, MessageId::new(6, 7), &mut tally));
        assert_eq!(tally.sums.faults.misordered, 0);
        leftovers.addressee_connected(1);
        assert!(!leftovers.on_deliver(1, MessageId::new(6, 7), &mut tally));
        assert_eq!((tally.sums.redelivered, tally.sums.faults.duplicated), (1, 0));
        assert!(!leftovers.on_deliver(1, MessageId::new(6, 7), &mut tally));
        assert_eq!(tally.sums.faults.duplicated, 1);
        assert!(leftovers.on_deliver(1, MessageId::new(6, 6), &mut tally));
        assert_eq!(tally.sums.faults.misordered, 1);
    }
}
