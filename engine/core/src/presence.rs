//! What nobody keeps: who is there, and who is typing. Dropped where there is no room, forgotten in a crash.

use crate::account::AccountIndex;
use crate::home::Ends;
use crate::io::{Lane, Now};
use crate::session::SessionId;
use crate::shard::Shard;
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
/// In the number of a `Presence` envelope: the watch that it answers was refused.
const REFUSED: u64 = 1 << 40;

#[derive(Clone, Copy, Debug)]
struct Watcher {
    account: AccountId,
    device: DeviceId,
    /// Monotonic seconds, as all times here but when an account was seen: no jump of the clock ends a watch, or keeps it.
    until_s: u32,
}

/// What an account's home knows of its presence beside the sessions.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// None for most: few are watched.
    watched: Option<Box<Watched>>,
}

#[derive(Debug)]
struct Watched {
    by: Vec<Watcher>,
    /// What they know.
    told: PresenceState,
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
}

/// Monotonic seconds.
const fn seconds(now: Now) -> u32 {
    (now.mono_ns / 1_000_000_000) as u32
}

impl Presence {
    /// Watches that it holds.
    pub(crate) fn watch_count(&self) -> usize {
        self.watched.as_ref().map_or(0, |watched| watched.by.len())
    }
}

impl Shard {
    /// The phone says how present it is.
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
        self.cast_ephemeral(now, Kind::Watch, ends, 0);
    }

    /// The phone's owner is typing, or has stopped.
    pub(crate) fn session_typing(&mut self, now: Now, id: SessionId, to: AccountId, on: bool) {
        let Some(session) = self.sessions.get(id) else { return };
        let ends = Ends { to, from: session.account_id, device: session.device };
        self.cast_ephemeral(now, Kind::Typing, ends, u64::from(on));
    }

    /// With the messages, where what finds no room is dropped.
    fn cast_ephemeral(&mut self, now: Now, kind: Kind, ends: Ends, seq: u64) {
        let Some(home) = self.config.partitions.home_of(ends.to) else { return };
        let parts = Parts {
            kind,
            flags: 0,
            to: ends.to,
            from: ends.from,
            from_device: ends.device,
            id: MessageId(0),
            time_ms: now.wall_ms,
            seq,
            from_name: "",
            body: &[],
        };
        if !self.router.cast(home, Lane::Bulk, &parts) {
            self.counters.ephemeral_dropped += 1;
        }
    }

    /// Someone wants to know how present an account of this shard is.
    pub(crate) fn take_watch(&mut self, now: Now, envelope: Envelope<'_>) {
        let Some(index) = self.accounts.by_id(envelope.to()) else { return };
        let state = self.presence_of(index);
        let now_s = seconds(now);
        let Some(account) = self.accounts.get_mut(index) else { return };
        let (old, seen_s) = (account.presence.watched.take(), account.seen_s);
        let is_new = old.is_none();
        let look_s = now_s.saturating_add(WATCH_S);
        let mut watched = old.unwrap_or_else(|| Box::new(Watched { by: Vec::new(), told: state, look_s }));
        let watcher = Watcher {
            account: envelope.from(),
            device: envelope.sender_device(),
            until_s: now_s.saturating_add(WATCH_S),
        };
        let before = watched.by.len();
        watched.by.retain(|old| {
            old.until_s > now_s && (old.account, old.device) != (watcher.account, watcher.device)
        });
        self.watches.count -= before - watched.by.len();
        let has_room = watched.by.len() < WATCHER_COUNT_MAX
            && self.watches.count < self.config.limits.watch_count as usize;
        if has_room {
            watched.by.push(watcher);
            self.watches.count += 1;
        } else {
            self.counters.refused_watches += 1;
        }
        if !watched.by.is_empty() {
            account.presence.watched = Some(watched);
            if is_new {
                self.watches.looks.push_back((look_s, index));
            }
        }
        let refused = if has_room { 0 } else { REFUSED };
        self.cast_presence(now, envelope.to(), watcher, state, seen_s, refused);
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
            self.watches.count -= before - watched.by.len();
            if watched.by.is_empty() {
                account.presence.watched = None;
            } else {
                watched.look_s = now_s.saturating_add(WATCH_S);
                self.watches.looks.push_back((watched.look_s, index));
            }
        }
    }

    /// Tells the watchers of an account, if its state is another than they know.
    pub(crate) fn presence_changed(&mut self, index: AccountIndex) {
        let now = self.now;
        let (now_s, seen_s) = (seconds(now), (now.wall_ms / 1000) as u32);
        let Some(account) = self.accounts.get_mut(index) else { return };
        account.seen_s = seen_s;
        if account.presence.watched.is_none() {
            return;
        }
        let state = self.presence_of(index);
        let Some(account) = self.accounts.get_mut(index) else { return };
        // Taken out for the call, and put back where somebody still watches.
        let Some(mut watched) = account.presence.watched.take() else { return };
        let id = account.id;
        let before = watched.by.len();
        watched.by.retain(|watcher| watcher.until_s > now_s);
        self.watches.count -= before - watched.by.len();
        if replace(&mut watched.told, state) != state {
            for &watcher in &watched.by {
                self.cast_presence(now, id, watcher, state, seen_s, 0);
            }
        }
        if !watched.by.is_empty()
            && let Some(account) = self.accounts.get_mut(index)
        {
            account.presence.watched = Some(watched);
        }
    }

    fn cast_presence(
        &mut self,
        now: Now,
        account: AccountId,
        watcher: Watcher,
        state: PresenceState,
        seen_s: u32,
        refused: u64,
    ) {
        let ends = Ends { to: watcher.account, from: account, device: watcher.device };
        self.cast_ephemeral(now, Kind::Presence, ends, refused | u64::from(seen_s) << 8 | state as u64);
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
        if let Some(state) = PresenceState::from_wire(state) {
            let account = envelope.from();
            self.answer(envelope, &ServerFrame::Presence { account, state, seen_s });
            if envelope.seq().0 & REFUSED != 0 {
                let retry_ms = WATCH_RETRY_MS + self.rng.next_u32() % WATCH_RETRY_MS;
                self.answer(envelope, &ServerFrame::WatchRefused { account, retry_ms });
            }
        }
    }

    /// Someone types to an account of this shard: all its devices that are there hear of it.
    pub(crate) fn tell_typing(&mut self, envelope: Envelope<'_>) {
        let Some(index) = self.accounts.by_id(envelope.to()) else { return };
        let frame = ServerFrame::Typing { from: envelope.from(), on: envelope.seq().0 != 0 };
        for place in 0..DEVICES_MAX {
            let session = self.accounts.device_mut(index, place).and_then(|device| device.session);
            if let Some(conn) = session.and_then(|id| self.sessions.get(id)).map(|session| session.conn) {
                self.say(conn, &frame);
            }
        }
    }
}
