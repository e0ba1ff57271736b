//! What nobody keeps: who is there, and who is typing. Dropped where there is no room, forgotten in a crash.

use crate::account::AccountIndex;
use crate::home::Ends;
use crate::io::{ConnId, Now};
use crate::session::SessionId;
use crate::shard::{Shard, bug};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem::replace;
use rand_chacha::rand_core::RngCore;
use tern_protocol::envelope::{Envelope, Kind, Parts};
use tern_protocol::ids::{AccountId, DeviceId, MessageId};
use tern_protocol::phone::frame::{PresenceState, ServerFrame};
use tern_storage::mailbox::DEVICES_MAX;

/// How long a watch lasts, seconds.
const WATCH_S: u32 = 600;
/// Who may watch one account at a time, and all accounts of a shard: `limits.watch_count`. A further one is answered
/// once, refused, and not told of changes.
pub(crate) const WATCHER_COUNT_MAX: usize = 1024;
/// How long one who was refused shall wait at least, milliseconds; and up to as much again.
const WATCH_RETRY_MS: u32 = 60_000;
/// How long a change waits behind the one before it: however often a phone says something else, each watcher hears of
/// its account once in this time, and the last state always.
const REST_NS: u64 = 1_000_000_000;
/// In the number of a `Presence` envelope: the watch that it answers was refused.
const REFUSED: u64 = 1 << 40;

#[derive(Clone, Copy, Debug)]
struct Watcher {
    account: AccountId,
    /// Monotonic seconds, as all times here but when an account was seen: no jump of the clock ends a watch, or keeps it.
    until_s: u32,
    device: DeviceId,
    /// What it was told last; none if that found no room.
    knows: Option<PresenceState>,
}

const _: () =
    assert!(size_of::<Watcher>() == 16, "a watch costs no more than before it knew what it was told");

/// What an account's home knows of its presence beside the sessions.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// None for most: few are watched.
    watched: Option<Box<Watched>>,
}

#[derive(Debug)]
struct Watched {
    by: Vec<Watcher>,
    /// Whether it stands in one of the queues of changes.
    queued: bool,
    /// When to look for ended ones: the only entry of [`Watches::looks`] that counts, whatever else is there.
    look_s: u32,
}

/// The watches of all accounts of a shard.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    /// Those that accounts hold, ended ones included until somebody looks.
    pub(crate) count: usize,
    /// When to look for ended ones next, and where, in order of time.
    looks: VecDeque<(u32, AccountIndex)>,
    /// Accounts that may have changed, whose watchers are told now: a turn's budget of them in each turn.
    changed: VecDeque<AccountIndex>,
    /// Accounts whose watchers were told just now, and until when they are not told again, monotonic nanoseconds. A
    /// watched account stands in one of these two queues, once, or in none.
    resting: VecDeque<(u64, AccountIndex)>,
}

/// Monotonic seconds.
const fn seconds(now: Now) -> u32 {
    (now.mono_ns / 1_000_000_000) as u32
}

impl Watches {
    /// When a change may be told that waits for its time, monotonic nanoseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.resting.front().map(|resting| resting.0)
    }

    /// Whether changes are left for the next turn.
    pub(crate) fn has_more(&self) -> bool {
        !self.changed.is_empty()
    }
}

impl Presence {
    /// Watches that it holds.
    pub(crate) fn watch_count(&self) -> usize {
        self.watched.as_ref().map_or(0, |watched| watched.by.len())
    }
}

impl Shard {
    /// The phone says how present it is. However often it does: that costs nobody anything, see [`REST_NS`].
    pub(crate) fn session_presence(&mut self, id: SessionId, state: PresenceState) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if replace(&mut session.presence, state) != state {
            let account = session.account;
            self.presence_changed(account);
        }
    }

    /// The phone wants to know how present an account is.
    pub(crate) fn session_watch(&mut self, now: Now, id: SessionId, account: AccountId) {
        let Some(session) = self.sessions.get(id) else { return };
        let ends = Ends { to: account, from: session.account_id, device: session.device };
        let (conn, own) = (session.conn, session.account);
        if self.may_ask(now, own) {
            self.cast_ephemeral(now, Kind::Watch, ends, 0);
        } else {
            let retry_ms = self.watch_retry_ms();
            self.say_ephemeral(conn, &ServerFrame::WatchRefused { account, retry_ms });
        }
    }

    /// The phone's owner is typing, or has stopped.
    pub(crate) fn session_typing(&mut self, now: Now, id: SessionId, to: AccountId, on: bool) {
        let Some(session) = self.sessions.get(id) else { return };
        let ends = Ends { to, from: session.account_id, device: session.device };
        let own = session.account;
        if self.may_ask(now, own) {
            self.cast_ephemeral(now, Kind::Typing, ends, u64::from(on));
        }
    }

    /// Whether it found room; what does not is dropped.
    fn cast_ephemeral(&mut self, now: Now, kind: Kind, ends: Ends, seq: u64) -> bool {
        let Some(home) = self.config.partitions.home_of(ends.to) else { return true };
        let parts = Parts { seq, ..ends.parts(now, kind, MessageId(0)) };
        let is_cast = self.router.cast_ephemeral(home, &parts);
        self.counters.ephemeral_dropped += u64::from(!is_cast);
        is_cast
    }

    /// Someone wants to know how present an account of this shard is.
    pub(crate) fn take_watch(&mut self, now: Now, envelope: Envelope<'_>) {
        let Some(index) = self.accounts.by_id(envelope.to()) else { return };
        let state = self.presence_of(index);
        let now_s = seconds(now);
        let Some(account) = self.accounts.get(index) else { return };
        let mut watcher = Watcher {
            account: envelope.from(),
            device: envelope.sender_device(),
            until_s: now_s.saturating_add(WATCH_S),
            knows: Some(state),
        };
        let seen_s = account.seen_s;
        let count = self.other_watches_of(index, watcher, now_s);
        let account_is_full = count >= WATCHER_COUNT_MAX;
        let is_full = account_is_full || self.watches.count >= self.config.limits.watch_count as usize;
        let refused = if is_full { REFUSED } else { 0 };
        let is_told = self.cast_presence(now, envelope.to(), watcher, state, seen_s, refused);
        if is_full {
            self.counters.account_watches_full += u64::from(account_is_full);
            self.counters.refused_watches += u64::from(!account_is_full);
            return;
        }
        watcher.knows = watcher.knows.filter(|_| is_told);
        let Some(account) = self.accounts.get_mut(index) else { return };
        if account.presence.watched.is_none() {
            self.watches.looks.push_back((watcher.until_s, index));
        }
        let look_s = watcher.until_s;
        let new = || Box::new(Watched { by: Vec::new(), queued: false, look_s });
        account.presence.watched.get_or_insert_with(new).by.push(watcher);
        self.watches.count += 1;
        if !is_told {
            self.tell_watchers_later(index);
        }
    }

    /// Forgets an earlier watch of the same device, and those that have ended. How many are left.
    fn other_watches_of(&mut self, index: AccountIndex, watcher: Watcher, now_s: u32) -> usize {
        let watched = self.accounts.get_mut(index).and_then(|account| account.presence.watched.as_mut());
        let mut count = 0;
        if let Some(watched) = watched {
            let before = watched.by.len();
            watched.by.retain(|old| {
                old.until_s > now_s && (old.account, old.device) != (watcher.account, watcher.device)
            });
            count = watched.by.len();
            self.watches.count -= before - count;
        }
        count
    }

    /// Forgets watches that have ended, of some of the accounts that are due. The rest follows at the next chores.
    pub(crate) fn forget_watches(&mut self, now: Now) {
        let now_s = seconds(now);
        for _ in 0..self.config.limits.step_budget {
            let look = self.watches.looks.front().filter(|look| look.0 <= now_s);
            let Some(&(look_s, index)) = look else { break };
            self.watches.looks.pop_front();
            let Some(account) = self.accounts.get_mut(index) else { continue };
            // Of an account that was watched before, or that had this place before: there will be another look.
            let watched = account.presence.watched.as_mut().filter(|watched| watched.look_s == look_s);
            let Some(watched) = watched else { continue };
            let before = watched.by.len();
            watched.by.retain(|watcher| watcher.until_s > now_s);
            watched.by.shrink_to(2 * watched.by.len());
            if !bug!(self, watches_kept) {
                self.watches.count -= before - watched.by.len();
            }
            if watched.by.is_empty() {
                account.presence.watched = None;
            } else {
                watched.look_s = now_s.saturating_add(WATCH_S);
                self.watches.looks.push_back((watched.look_s, index));
            }
        }
    }

    /// An account may be more or less present than it was. Its watchers are told at the end of the turn, or, if they
    /// were told something just before, when they have had their rest.
    pub(crate) fn presence_changed(&mut self, index: AccountIndex) {
        if let Some(account) = self.accounts.get_mut(index) {
            account.seen_s = (self.now.wall_ms / 1000) as u32;
            self.tell_watchers_later(index);
        }
    }

    fn tell_watchers_later(&mut self, index: AccountIndex) {
        let watched = self.accounts.get_mut(index).and_then(|account| account.presence.watched.as_mut());
        if watched.is_some_and(|watched| !replace(&mut watched.queued, true)) {
            self.watches.changed.push_back(index);
        }
    }

    /// Tells watchers of changes: a turn's budget of them, the last account's whole. The rest follows in the next turn.
    pub(crate) fn tell_changes(&mut self, now: Now) {
        let mut left = self.config.limits.step_budget as usize;
        while left > 0 && self.watches.resting.front().is_some_and(|resting| resting.0 <= now.mono_ns) {
            let Some((_, index)) = self.watches.resting.pop_front() else { break };
            left -= 1;
            self.rest_is_over(index);
        }
        while left > 0 {
            let Some(index) = self.watches.changed.pop_front() else { break };
            left = left.saturating_sub(self.tell_watchers(now, index).max(1));
        }
    }

    /// The account's watchers may be told something again, if there is anything that they do not know.
    fn rest_is_over(&mut self, index: AccountIndex) {
        let state = self.presence_of(index);
        let watched = self.accounts.get_mut(index).and_then(|account| account.presence.watched.as_mut());
        let Some(watched) = watched else { return };
        watched.queued = watched.by.iter().any(|watcher| watcher.knows != Some(state));
        if watched.queued {
            self.watches.changed.push_back(index);
        }
    }

    /// Tells those who do not know the account's state. For whom there is no room now hears it after the rest. Returns
    /// how many watchers were looked at.
    fn tell_watchers(&mut self, now: Now, index: AccountIndex) -> usize {
        let state = self.presence_of(index);
        let now_s = seconds(now);
        let Some(account) = self.accounts.get_mut(index) else { return 0 };
        // Taken out for the call, and put back.
        let Some(mut watched) = account.presence.watched.take() else { return 0 };
        let (id, seen_s) = (account.id, account.seen_s);
        let told = |watcher: &&mut Watcher| watcher.until_s > now_s && watcher.knows != Some(state);
        for watcher in watched.by.iter_mut().filter(told) {
            let is_told = self.cast_presence(now, id, *watcher, state, seen_s, 0);
            watcher.knows = Some(state).filter(|_| is_told);
        }
        let count = watched.by.len();
        self.watches.resting.push_back((now.mono_ns + REST_NS, index));
        if let Some(account) = self.accounts.get_mut(index) {
            account.presence.watched = Some(watched);
        }
        count
    }

    fn cast_presence(
        &mut self,
        now: Now,
        account: AccountId,
        watcher: Watcher,
        state: PresenceState,
        seen_s: u32,
        refused: u64,
    ) -> bool {
        let ends = Ends { to: watcher.account, from: account, device: watcher.device };
        self.cast_ephemeral(now, Kind::Presence, ends, refused | u64::from(seen_s) << 8 | state as u64)
    }

    /// The state of an account's most present device.
    fn presence_of(&self, index: AccountIndex) -> PresenceState {
        let Some(account) = self.accounts.get(index) else { return PresenceState::Offline };
        let sessions = account.devices().filter_map(|device| self.sessions.get(device.session?));
        sessions.map(|session| session.presence).max().unwrap_or(PresenceState::Offline)
    }

    /// The answer to a watch, or a change of what is watched.
    pub(crate) fn tell_presence(&mut self, envelope: Envelope<'_>) {
        let (state, seen_s) = (envelope.seq().0 as u8, (envelope.seq().0 >> 8) as u32);
        let found = self.accounts.find_device(envelope.to(), envelope.sender_device());
        let Some((index, place)) = found else { return };
        let Some(state) = PresenceState::from_wire(state) else { return };
        let account = envelope.from();
        self.say_to_device(index, place, &ServerFrame::Presence { account, state, seen_s });
        if envelope.seq().0 & REFUSED != 0 {
            let retry_ms = self.watch_retry_ms();
            self.say_to_device(index, place, &ServerFrame::WatchRefused { account, retry_ms });
        }
    }

    /// When one who was refused may ask again.
    fn watch_retry_ms(&mut self) -> u32 {
        WATCH_RETRY_MS + self.rng.next_u32() % WATCH_RETRY_MS
    }

    /// Someone types to an account of this shard: all its devices that are there hear of it.
    pub(crate) fn tell_typing(&mut self, envelope: Envelope<'_>) {
        let Some(index) = self.accounts.by_id(envelope.to()) else { return };
        let frame = ServerFrame::Typing { from: envelope.from(), on: envelope.seq().0 != 0 };
        for place in 0..DEVICES_MAX {
            self.say_to_device(index, place, &frame);
        }
    }

    /// Appends what may be dropped to what an edge says: presence and typing never end one.
    fn say_ephemeral(&mut self, conn: ConnId, frame: &ServerFrame<'_>) {
        let is_said = self.edges.say_ephemeral(conn, frame);
        self.counters.ephemeral_unread += u64::from(!is_said);
    }

    fn say_to_device(&mut self, index: AccountIndex, place: usize, frame: &ServerFrame<'_>) {
        let session = self.accounts.device_mut(index, place).and_then(|device| device.session);
        if let Some(conn) = session.and_then(|id| self.sessions.get(id)).map(|session| session.conn) {
            self.say_ephemeral(conn, frame);
        }
    }
}
