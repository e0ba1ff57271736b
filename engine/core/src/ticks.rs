//! `delivered` and `read` ticks: a recipient's home owes them until the sender's home has them.

use crate::account::AccountIndex;
use crate::home::{Ends, entry_kind, waiting_for};
use crate::io::Now;
use crate::shard::{Shard, bug};
use alloc::collections::VecDeque;
use tern_protocol::envelope::{Envelope, FLAG_AGAIN, FLAG_IMPLIES_SENT, Kind};
use tern_protocol::ids::{DeviceId, Seq};
use tern_storage::mailbox::{EntryKind, TickState};

/// How often the time until a tick is sent again doubles, and one more: a home that does not take it is short of memory,
/// or its sender does not fetch; asking at the same rate for ever would cost both homes what they need.
const ROUND_COUNT: usize = 5;

/// A tick that nobody has confirmed.
#[derive(Clone, Copy, Debug)]
struct OwedTick {
    /// When to look again, monotonic nanoseconds.
    due_ns: u64,
    /// Whose mailbox holds the message.
    account: AccountIndex,
    seq: Seq,
    /// What it said the first time of `sent`, and says each time: its sender's home takes the first that comes, and what
    /// a later one says beside would be heard by nobody.
    implies_sent: bool,
}

/// The ticks that nobody has confirmed, by how often they were sent: within one round the times only grow.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    rounds: [VecDeque<OwedTick>; ROUND_COUNT],
}

impl Owed {
    /// A tick was owed when the shard stopped: it is sent at once.
    pub(crate) fn push_recovered(&mut self, now_ns: u64, account: AccountIndex, seq: Seq) {
        self.rounds[0].push_back(OwedTick { due_ns: now_ns, account, seq, implies_sent: false });
    }

    /// How many there are, those included that were confirmed and are not in front yet.
    pub(crate) fn count(&self) -> usize {
        self.rounds.iter().map(VecDeque::len).sum()
    }

    /// When to look again, monotonic nanoseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.rounds.iter().filter_map(VecDeque::front).map(|tick| tick.due_ns).min()
    }
}

impl Shard {
    /// A tick comes home: it is mail for its message's sender.
    pub(crate) fn take_tick(&mut self, now: Now, envelope: Envelope<'_>) {
        let kind = entry_kind(envelope.kind());
        let answer = if kind == EntryKind::Read { Kind::ReadTaken } else { Kind::Confirm };
        let ends = Ends::back_from(envelope);
        let (id, seq) = (envelope.id(), envelope.seq().0);
        let index = self.accounts.by_id(envelope.to());
        let account = index.and_then(|index| self.accounts.get(index));
        let is_heard = account.is_some_and(|account| !waiting_for(account, kind, ends.device).is_empty());
        let Some(index) = index.filter(|_| is_heard) else {
            // Nobody is left to tell: the other side need not go on owing.
            self.cast_to(now, answer, 0, ends, id, seq);
            return;
        };
        let hash = self.dedup.hash(envelope.to(), envelope.from(), id, kind);
        let made_s = (envelope.time_ms() / 1000) as u32;
        // Phones say `read` again by themselves.
        let again = kind == EntryKind::Read || envelope.has(FLAG_AGAIN);
        if self.dedup.has_tick(made_s, hash, again) {
            let account = self.accounts.get_mut(index);
            if account.is_none_or(|a| a.mailbox.volatile(envelope.from(), id, kind).is_none()) {
                self.cast_to(now, answer, 0, ends, id, seq);
            }
            return;
        }
        let no_room = self.no_room_for(index, kind, envelope.from(), envelope.bytes().len());
        if no_room.is_none() && self.append(now, index, envelope) {
            // Without memory for its id the tick goes on all the same: at worst its sender hears it twice.
            if !self.dedup.is_full() {
                self.dedup.insert_new(made_s, hash);
            }
            self.counters.ticks_read += u64::from(kind == EntryKind::Read);
            if kind == EntryKind::Read && bug!(self, read_lost) {
                self.cast_to(now, answer, 0, ends, id, seq);
            }
        }
    }

    /// The sender's home has the tick: the entry owes nothing any more.
    pub(crate) fn tick_is_confirmed(&mut self, now: Now, envelope: Envelope<'_>) {
        let Some(index) = self.accounts.by_id(envelope.to()) else { return };
        self.stream_is_done_with((index, envelope.from(), envelope.sender_device()), envelope.id());
        let Some(account) = self.accounts.get_mut(index) else { return };
        let settles = account.mailbox.change(envelope.seq(), |entry| {
            let is_it =
                entry.tick == TickState::Owed && entry.from == envelope.from() && entry.id == envelope.id();
            if is_it {
                entry.tick = TickState::Settled;
            }
            is_it
        });
        if settles == Some(true) {
            self.counters.ticks_delivered += 1;
            self.answer_if_over(now, index, envelope.seq());
            self.drop_over(index);
            // What still waits for another device owes no tick again after a restart, however long that takes.
            let stays = self
                .accounts
                .get(index)
                .is_some_and(|account| account.mailbox.find(envelope.seq()).is_some());
            if stays {
                self.queue_floor(index, DeviceId::TICKS);
            }
        }
    }

    /// Sends the `delivered` tick that an entry owes, and looks again later whether it still does.
    pub(crate) fn send_tick(&mut self, now: Now, index: AccountIndex, seq: Seq) {
        self.send_tick_in_round(now, (index, seq), 0, None);
    }

    fn send_tick_in_round(
        &mut self,
        now: Now,
        (index, seq): (AccountIndex, Seq),
        round: usize,
        implied_sent: Option<bool>,
    ) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        let mailbox_id = account.id;
        let owed = account.mailbox.change(seq, |entry| {
            // Acknowledged by all before its commit: safe by rule (c), and the sender hears both at once.
            let is_by_rule_c = entry.position.is_none() && entry.waiting.is_empty();
            let implies_sent = implied_sent.unwrap_or(is_by_rule_c);
            let is_owed = entry.tick == TickState::Owed;
            entry.answered |= is_owed && implies_sent;
            is_owed.then_some((implies_sent, entry.from, entry.from_device, entry.id))
        });
        let Some((implies_sent, to, device, id)) = owed.flatten() else { return };
        let again = if round > 0 { FLAG_AGAIN } else { 0 };
        let flags = again | if implies_sent { FLAG_IMPLIES_SENT } else { 0 };
        let ends = Ends { to, from: mailbox_id, device };
        self.cast_to(now, Kind::Delivered, flags, ends, id, seq.0);
        if bug!(self, read_told_early) {
            self.cast_to(now, Kind::Read, 0, ends, id, 0);
        }
        let due_ns = now.mono_ns + (self.config.limits.tick_retry_ms << round) * 1_000_000;
        self.owed.rounds[round].push_back(OwedTick { due_ns, account: index, seq, implies_sent });
    }

    /// Sends ticks again that nobody has confirmed in time. Those that are settled leave the front at once: waiting
    /// for their time would end a sleep for each, and find their entries cold.
    pub(crate) fn retry_ticks(&mut self, now: Now) {
        let mut left_count = self.config.limits.step_budget;
        for round in 0..ROUND_COUNT {
            while left_count > 0
                && let Some(&OwedTick { due_ns, account, seq, implies_sent }) =
                    self.owed.rounds[round].front()
            {
                let entry = self.accounts.get(account).and_then(|account| account.mailbox.find(seq));
                let is_owed = entry.is_some_and(|entry| entry.tick == TickState::Owed);
                if is_owed && due_ns > now.mono_ns {
                    break;
                }
                left_count -= 1;
                self.owed.rounds[round].pop_front();
                if is_owed {
                    self.counters.ticks_retried += 1;
                    let next_round = (round + 1).min(ROUND_COUNT - 1);
                    self.send_tick_in_round(now, (account, seq), next_round, Some(implies_sent));
                }
            }
        }
    }
}
