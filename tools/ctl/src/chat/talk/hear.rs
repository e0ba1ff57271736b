//! What the server says, and what comes of it.

use super::{Now, Own, Partner, Reading, Talk, Tick, plain, words};
use std::collections::BTreeSet;
use tern_protocol::ids::{AccountId, MessageId};
use tern_protocol::phone::client::Event;
use tern_protocol::phone::frame::{DeviceList, PresenceState, ServerFrame};

/// Messages of which ticks and repetitions are recognised.
const REMEMBERED_COUNT: usize = 10_000;
/// How long someone who types is taken to type.
const TYPING_MS: u64 = 10_000;

impl Talk {
    /// The server says something.
    pub(crate) fn hear(&mut self, event: Event<'_>, now: Now) {
        match event {
            Event::Welcome { account, device, time_ms, .. } => {
                self.me = Some((account, device));
                self.ahead_ms = (time_ms as i64).saturating_sub(now.unix_ms as i64);
            }
            Event::Frame(frame) => self.hear_frame(frame, now),
            // The rest is about the connection.
            _ => {}
        }
    }

    /// The same, inside the conversation.
    pub(crate) fn hear_frame(&mut self, frame: ServerFrame<'_>, now: Now) {
        match frame {
            ServerFrame::Deliver { number, from, id, time_s, from_name, body } => {
                self.ack = Some(number);
                self.names.insert(from, plain(from_name));
                if remember(&mut self.taken, (id, from)) {
                    let text = plain(&String::from_utf8_lossy(body));
                    self.show(format!("{} {}: {text}", words::clock(time_s.into()), plain(from_name)));
                    self.readings.push(Reading { author: from, id, said_ms: None });
                    self.typing = self.typing.filter(|(typist, _)| *typist != from);
                }
            }
            ServerFrame::Copy { number, to, id, time_s, body } => {
                self.ack = Some(number);
                if !self.own.contains_key(&id) {
                    let (shown, text) = (self.own_message(id), plain(&String::from_utf8_lossy(body)));
                    let (clock, name) = (words::clock(time_s.into()), self.name_of(to));
                    self.show(format!("#{shown} {clock} > {name}, from another device: {text}"));
                }
            }
            ServerFrame::Sent { id } => {
                self.outbox.done(id);
                self.tick(id, Tick::Sent, None);
            }
            ServerFrame::Delivered { number, by, id, .. } => {
                self.ack = Some(number);
                self.tick(id, Tick::Delivered, Some(by));
            }
            ServerFrame::Read { number, by, id, .. } => {
                self.ack = Some(number);
                self.tick(id, Tick::Read, Some(by));
            }
            ServerFrame::ReadTaken { author, id } => {
                self.readings.retain(|reading| (reading.author, reading.id) != (author, id));
            }
            ServerFrame::Busy { id, retry_ms } => {
                let at_ms = now.mono_ms + self.with_jitter(retry_ms);
                self.outbox.busy(id, at_ms);
            }
            ServerFrame::Expired { id } => {
                self.gave_up(id, "is too old to be tried again: it may have arrived or not")
            }
            ServerFrame::Unknown { id } => self.gave_up(id, "did not go: its recipient is gone"),
            ServerFrame::Found { account, name } => self.found(account, name, now),
            ServerFrame::Presence { account, state, seen_s } => self.presence(account, state, seen_s),
            ServerFrame::WatchRefused { account, retry_ms } => self.watch_refused(account, retry_ms, now),
            ServerFrame::Typing { from, on } => self.typing(from, on, now),
            ServerFrame::Devices { list } => self.devices(list),
            ServerFrame::DevicesRefused { code } => self.show(words::devices_refused(code)),
            ServerFrame::Drained => self.drained = true,
            // What concerns the connection itself: see `Note`.
            _ => {}
        }
    }

    fn tick(&mut self, id: MessageId, tick: Tick, by: Option<AccountId>) {
        let own = self.own.entry(id).or_insert(Own { number: None, shown: Tick::None });
        let is_news = own.shown < tick;
        own.shown = own.shown.max(tick);
        let what = match own.number {
            Some(number) => format!("#{number}"),
            None => format!("your message of {}", words::clock(id.unix_s().into())),
        };
        if self.own.len() > REMEMBERED_COUNT {
            self.own.pop_first();
        }
        if !is_news {
            return;
        }
        let name = by.map_or(String::new(), |by| self.name_of(by));
        self.show(match tick {
            Tick::None | Tick::Sent => format!("{what} ✓ sent"),
            Tick::Delivered => format!("{what} ✓✓ delivered to {name}"),
            Tick::Read => format!("{what} ✓✓ read by {name}"),
        });
    }

    fn gave_up(&mut self, id: MessageId, why: &str) {
        if let Some(message) = self.outbox.done(id) {
            self.show(format!("{:?} {why}", message.text));
        }
    }

    fn found(&mut self, account: Option<AccountId>, name: &str, now: Now) {
        if let Some(account) = account {
            self.names.insert(account, plain(name));
        }
        let Partner::Asked { name: asked, held, .. } = &mut self.partner else { return };
        if asked != name {
            return;
        }
        let Some(account) = account else {
            self.show(format!("there is no {}", plain(name)));
            self.refuse_held();
            self.partner = Partner::Nobody;
            return;
        };
        let held = std::mem::take(held);
        self.partner = Partner::Known { name: name.into(), account, watch_at_ms: 0 };
        self.show(format!("you talk to {name}"));
        for text in held {
            self.write(&text, now);
        }
    }

    fn presence(&mut self, account: AccountId, state: PresenceState, seen_s: u32) {
        let is_partner =
            matches!(&self.partner, Partner::Known { account: partner, .. } if *partner == account);
        if is_partner && self.presence.replace((account, state)) != Some((account, state)) {
            let name = self.name_of(account);
            self.show(words::presence(&name, state, seen_s));
        }
    }

    /// Its state was told for once; changes are asked for again later.
    fn watch_refused(&mut self, refused: AccountId, retry_ms: u32, now: Now) {
        if let Partner::Known { account, watch_at_ms, .. } = &mut self.partner
            && *account == refused
        {
            *watch_at_ms = now.mono_ms + u64::from(retry_ms);
        }
    }

    fn typing(&mut self, from: AccountId, on: bool, now: Now) {
        let is_known = self.typing.is_some_and(|(typist, until_ms)| typist == from && now.mono_ms < until_ms);
        self.typing = on.then_some((from, now.mono_ms + TYPING_MS));
        if on && !is_known {
            let name = self.name_of(from);
            self.show(format!("{name} is typing"));
        }
    }

    fn devices(&mut self, list: DeviceList<'_>) {
        self.lines.extend(list.iter().map(|device| words::device(&device)));
    }
}

/// Whether it is new.
fn remember(taken: &mut BTreeSet<(MessageId, AccountId)>, message: (MessageId, AccountId)) -> bool {
    let is_new = taken.insert(message);
    if taken.len() > REMEMBERED_COUNT {
        taken.pop_first();
    }
    is_new
}
