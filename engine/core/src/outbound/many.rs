//! A long list of messages without a final answer: nothing in it is looked for by looking through it.

use super::{Message, Refuser, Turn};
use alloc::collections::{BTreeMap, BTreeSet};
use tern_protocol::ids::{AccountId, MessageId};

/// The list, by the order in which the phone first sent its messages. Ids are the phone's choice: ordered, so that it
/// cannot make them collide.
#[derive(Debug, Default)]
pub(crate) struct Many {
    messages: BTreeMap<u64, Message>,
    /// Where each message is.
    places: BTreeMap<(AccountId, MessageId), u64>,
    /// Where refused ones are.
    refused: BTreeSet<(AccountId, u64)>,
    next: u64,
}

impl FromIterator<Message> for Many {
    fn from_iter<T: IntoIterator<Item = Message>>(messages: T) -> Self {
        let mut many = Self::default();
        messages.into_iter().for_each(|message| _ = many.append(message));
        many
    }
}

impl Many {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// All of them in their order; none is left.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Message> + use<> {
        core::mem::take(self).messages.into_values()
    }

    pub(super) fn turn(&mut self, to: AccountId, id: MessageId, now_ns: u64, has_room: bool) -> Option<Turn> {
        let known = self.places.get(&(to, id)).copied();
        let place = known.or_else(|| has_room.then(|| self.append(Message::new(to, id, now_ns))))?;
        while let Some(&(_, before)) = self.refused.range((to, 0)..(to, place)).next() {
            let refused = self.messages.get_mut(&before).filter(|message| message.refused_until_ns > now_ns);
            if let Some(refused) = refused {
                return Some(refused.holds_up(now_ns));
            }
            // Nobody waits for it any more, nor looks at it again.
            self.let_pass(to, before);
        }
        self.let_pass(to, place);
        Some(Turn::Now)
    }

    pub(super) fn refuse(&mut self, to: AccountId, id: MessageId, now_ns: u64, by: Refuser) {
        let Some(&place) = self.places.get(&(to, id)) else { return };
        if let Some(message) = self.messages.get_mut(&place) {
            message.refuse(now_ns, by);
            self.refused.insert((to, place));
        }
    }

    pub(super) fn done(&mut self, to: AccountId, id: MessageId) -> Option<Message> {
        let place = self.places.remove(&(to, id))?;
        self.refused.remove(&(to, place));
        self.messages.remove(&place)
    }

    fn append(&mut self, message: Message) -> u64 {
        let place = self.next;
        self.next += 1;
        self.places.insert((message.to, message.id), place);
        if message.is_refused() {
            self.refused.insert((message.to, place));
        }
        self.messages.insert(place, message);
        place
    }

    fn let_pass(&mut self, to: AccountId, place: u64) {
        if self.refused.remove(&(to, place))
            && let Some(message) = self.messages.get_mut(&place)
        {
            message.refused_until_ns = 0;
        }
    }

    /// Whether the three agree.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let place = |(&place, message): (&u64, &Message)| ((message.to, message.id), place);
        assert_eq!(self.messages.iter().map(place).collect::<BTreeMap<_, _>>(), self.places);
        let refused = self.messages.iter().filter(|(_, message)| message.is_refused());
        assert_eq!(
            refused.map(|(&place, message)| (message.to, place)).collect::<BTreeSet<_>>(),
            self.refused
        );
    }
}
