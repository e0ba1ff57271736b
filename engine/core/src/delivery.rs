//! Delivery: what fits the window goes from the mailbox to the device; the rest waits where it is.

use crate::io::Now;
use crate::session::SessionId;
use crate::shard::{Shard, bug};
use alloc::vec::Vec;
use tern_protocol::envelope::{Envelope, FLAG_IMPLIES_SENT, Kind};
use tern_protocol::ids::{AccountId, MessageId};
use tern_protocol::phone::frame::ServerFrame;

/// Bytes of frames behind which a session waits for its edge's last send.
const DELIVERY_BACKLOG_BYTES: usize = 32 << 10;

impl Shard {
    /// Fills a session's window from its mailbox.
    pub(crate) fn deliver(&mut self, now: Now, id: SessionId) {
        let mut said_sent = core::mem::take(&mut self.said_sent);
        self.fill_window(now, id, &mut said_sent);
        for (to, message) in said_sent.drain(..) {
            let took_ns = self.session_is_done_with(now, id, to, message);
            took_ns.into_iter().for_each(|ns| self.measures.sent.record(ns));
        }
        self.said_sent = said_sent;
    }

    /// A piece of what sessions still have to look through, one session each turn.
    pub(crate) fn go_on_passing(&mut self, now: Now) {
        if let Some(id) = self.sessions.next_passing() {
            self.deliver(now, id);
        }
    }

    /// Tells a phone that its mailbox was empty.
    pub(crate) fn tell_drained(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.told_drained = true;
        let conn = session.conn;
        self.say(conn, &ServerFrame::Drained);
    }

    /// Passes over a step's budget of what is for other devices; if there is more of it, it goes on in a later turn.
    /// Also gathers the messages whose `sent` was implied, where a refused stream may be waiting for one.
    fn fill_window(&mut self, now: Now, id: SessionId, said_sent: &mut Vec<(AccountId, MessageId)>) {
        // Half of what makes a slow reader: delivery alone never does.
        let backlog_bytes = DELIVERY_BACKLOG_BYTES.min(self.config.limits.edge_backlog_bytes / 2);
        let Some(session) = self.sessions.get_mut(id).filter(|session| !session.is_passing()) else { return };
        let Some(account) = self.accounts.get_mut(session.account) else { return };
        let left_count = self.config.limits.delivery_count.saturating_sub(session.acknowledged);
        let most_count = if bug!(self, window_ignored) { u16::MAX } else { self.config.limits.window_count };
        let window_count = usize::from(most_count).min(left_count as usize);
        let mut index = account.mailbox.index_above(session.cursor);
        let mut budget = self.config.limits.step_budget;
        while session.window_len() < window_count {
            let Some(entry) = account.mailbox.at(index) else {
                session.is_behind = false;
                if !session.told_drained {
                    self.tell_drained(id);
                }
                return;
            };
            if budget == 0 {
                self.sessions.passes_later(id);
                return;
            }
            index += 1;
            let place = entry.seq;
            let mail = entry.mail.filter(|_| entry.waiting.has(session.place()));
            let Some(mail) = mail else {
                session.cursor = place;
                budget -= 1;
                continue;
            };
            let envelope =
                Envelope::parse(self.cache.get(mail)).expect("the cache holds what was parsed before");
            let number = session.acknowledged + session.window_len() as u32 + 1;
            let time_s = (envelope.time_ms() / 1000) as u32;
            let said = if envelope.kind() == Kind::Delivered {
                if account.uncommitted_copy(envelope.from(), envelope.id()).is_some() {
                    return;
                }
                let tick = ServerFrame::Delivered { number, by: envelope.from(), id: envelope.id(), time_s };
                if envelope.has(FLAG_IMPLIES_SENT) {
                    // Both or neither: a tick that waits would say `Sent` again when it goes.
                    let sent = ServerFrame::Sent { id: envelope.id() };
                    let said = self.edges.say(session.conn, &sent, backlog_bytes);
                    self.counters.ticks_sent += u64::from(said);
                    if said && session.waits_for_answers() {
                        said_sent.push((envelope.from(), envelope.id()));
                    }
                    said && self.edges.say(session.conn, &tick, usize::MAX)
                } else {
                    self.edges.say(session.conn, &tick, backlog_bytes)
                }
            } else if let Some(frame) = short_frame(envelope, number, time_s) {
                self.edges.say(session.conn, &frame, backlog_bytes)
            } else {
                let message = ServerFrame::Deliver {
                    number,
                    from: envelope.from(),
                    id: envelope.id(),
                    time_s,
                    from_name: envelope.sender_name(),
                    body: envelope.body(),
                };
                self.edges.say(session.conn, &message, backlog_bytes)
            };
            if !said {
                // `Sent` brings us back here.
                session.is_behind = true;
                return;
            }
            if envelope.kind() == Kind::Message {
                self.counters.messages_out += 1;
                // What waited for a device that was away, or is slow, says how long it was, and nothing of this node.
                if session.told_drained && !session.is_behind {
                    let waited_ms = now.wall_ms.saturating_sub(envelope.time_ms()) + 1;
                    self.measures.delivery.record(waited_ms * 1_000_000);
                }
            }
            session.cursor = place;
            session.delivers(place);
        }
        session.is_behind |= account.mailbox.at(index).is_some();
    }
}

/// The frame of a read tick or a copy; `None` for a message.
fn short_frame(envelope: Envelope<'_>, number: u32, time_s: u32) -> Option<ServerFrame<'_>> {
    let (peer, id) = (envelope.from(), envelope.id());
    match envelope.kind() {
        Kind::Read => Some(ServerFrame::Read { number, by: peer, id, time_s }),
        Kind::Copy => Some(ServerFrame::Copy { number, to: peer, id, time_s, body: envelope.body() }),
        _ => None,
    }
}
