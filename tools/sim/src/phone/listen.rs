//! What a phone makes of what it hears, and the rules that it holds the server to.

use super::{Acknowledged, Phone, ToldClock};
use crate::network::Direction;
use crate::oracle::Receipt;
use crate::scene::{Event, Scene};
use crate::schedule::MS;
use tern_protocol::envelope::Kind;
use tern_protocol::ids::{AccountId, DeviceId, MessageId};
use tern_protocol::phone::client;
use tern_protocol::phone::frame::{ClientFrame, ErrorCode, GoodbyeReason, PresenceState, ServerFrame};
use tern_protocol::phone::ticket::Ticket;

/// A client's event with its bytes owned.
#[derive(Debug)]
enum Heard {
    Welcome {
        account: AccountId,
        device: DeviceId,
        time_ms: u64,
        server_key: Option<[u8; 32]>,
    },
    Ticket(Ticket),
    ServerKey([u8; 32]),
    TicketRefused,
    Deliver {
        number: u32,
        from: AccountId,
        id: MessageId,
        time_s: u32,
        from_name: String,
        body: Vec<u8>,
    },
    Sent {
        id: MessageId,
    },
    Delivered {
        number: u32,
        by: AccountId,
        id: MessageId,
        time_s: u32,
    },
    Copy {
        number: u32,
        to: AccountId,
        id: MessageId,
        time_s: u32,
        body: Vec<u8>,
    },
    Read {
        number: u32,
        by: AccountId,
        id: MessageId,
        time_s: u32,
    },
    Devices(Vec<(DeviceId, [u8; 32])>),
    DevicesRefused(ErrorCode),
    /// The account does not know the device's key.
    KeyRefused,
    /// There is no such account.
    AccountRefused,
    /// There is no such recipient.
    Unknown {
        id: MessageId,
    },
    ReadTaken {
        author: AccountId,
        id: MessageId,
    },
    Busy {
        id: MessageId,
        retry_ms: u32,
    },
    Expired(MessageId),
    Presence(AccountId, PresenceState, u32),
    Typing(AccountId),
    Found {
        account: Option<AccountId>,
        name: String,
    },
    Drained,
    Nothing,
    Goodbye {
        reason: GoodbyeReason,
        retry_ms: u32,
    },
    ConnectBusy {
        retry_ms: u32,
    },
    /// Something that the server must never say to an honest phone.
    Wrong(String),
}

impl Heard {
    fn own(event: client::Event<'_>) -> Self {
        match event {
            client::Event::Welcome { account, device, time_ms, server_key, .. } => {
                Self::Welcome { account, device, time_ms, server_key }
            }
            client::Event::Frame(frame) => match frame {
                ServerFrame::Deliver { number, from, id, time_s, from_name, body } => {
                    Self::Deliver { number, from, id, time_s, from_name: from_name.into(), body: body.into() }
                }
                ServerFrame::Sent { id } => Self::Sent { id },
                ServerFrame::Delivered { number, by, id, time_s } => {
                    Self::Delivered { number, by, id, time_s }
                }
                ServerFrame::Ticket { ticket, .. } => Self::Ticket(ticket),
                ServerFrame::ServerKey { key } => Self::ServerKey(key),
                ServerFrame::Drained => Self::Drained,
                ServerFrame::Pong { .. } => Self::Nothing,
                ServerFrame::Copy { number, to, id, time_s, body } => {
                    Self::Copy { number, to, id, time_s, body: body.into() }
                }
                ServerFrame::Read { number, by, id, time_s } => Self::Read { number, by, id, time_s },
                ServerFrame::ReadTaken { author, id } => Self::ReadTaken { author, id },
                ServerFrame::Presence { account, state, seen_s } => Self::Presence(account, state, seen_s),
                ServerFrame::Typing { from, .. } => Self::Typing(from),
                ServerFrame::Expired { id } => Self::Expired(id),
                ServerFrame::Busy { id, retry_ms } => Self::Busy { id, retry_ms },
                ServerFrame::Found { account, name } => Self::Found { account, name: name.into() },
                ServerFrame::Goodbye { reason, retry_ms } => Self::Goodbye { reason, retry_ms },
                // Two connections may have shown one ticket.
                ServerFrame::Error { code: ErrorCode::TicketUsed, .. } => Self::TicketRefused,
                ServerFrame::Error { code: ErrorCode::WrongKey | ErrorCode::NameTaken, .. } => {
                    Self::KeyRefused
                }
                ServerFrame::Error { code: ErrorCode::UnknownAccount, .. } => Self::AccountRefused,
                ServerFrame::Unknown { id } => Self::Unknown { id },
                ServerFrame::Devices { list } => {
                    Self::Devices(list.iter().map(|device| (device.device, device.key)).collect())
                }
                ServerFrame::DevicesRefused { code } => Self::DevicesRefused(code),
                ServerFrame::Error { .. }
                | ServerFrame::Welcome { .. }
                | ServerFrame::WatchRefused { .. } => Self::Wrong(format!("{frame:?}")),
            },
            client::Event::TicketRefused => Self::TicketRefused,
            client::Event::ConnectBusy { retry_ms } => Self::ConnectBusy { retry_ms },
            client::Event::VersionRefused { .. } => Self::Wrong(format!("{event:?}")),
        }
    }

    /// Whether it is a part of a session.
    const fn is_inside(&self) -> bool {
        !matches!(
            self,
            Self::Welcome { .. }
                | Self::TicketRefused
                | Self::KeyRefused
                | Self::AccountRefused
                | Self::Goodbye { .. }
                | Self::ConnectBusy { .. }
                | Self::Wrong(_)
        )
    }
}

impl Phone {
    /// Bytes or the end arrived on the phone's link.
    pub fn listen(&mut self, scene: &mut Scene) {
        while let Some(connection) = &mut self.connection {
            let link = connection.link;
            let bytes_max =
                if scene.random().chance(20) { scene.random().range(1, 40) as usize } else { 1 << 16 };
            let bytes = scene.network.read(link, Direction::Down, bytes_max);
            if bytes.is_empty() {
                break;
            }
            connection.heard_ns = scene.now_ns();
            let mut heard = Vec::new();
            let result = connection.client.receive(&bytes, &mut |event| heard.push(Heard::own(event)));
            for one in heard {
                scene.schedule.tell(|| format!("phone {} <- {one:?}", self.index));
                self.hear(scene, one);
            }
            if let Err(error) = result {
                scene
                    .schedule
                    .fail(format!("phone {} cannot read what the server says: {error:?}", self.index));
            }
        }
        if self.link().is_some_and(|link| scene.network.ended(link, Direction::Down)) {
            self.check_silent_end(scene);
            self.give_up(scene);
        } else {
            self.act(scene);
        }
    }

    fn hear(&mut self, scene: &mut Scene, heard: Heard) {
        if heard.is_inside() {
            self.account_is_there(scene);
        }
        if let (Some(connection), Heard::Ticket(_) | Heard::Drained) = (&mut self.connection, &heard) {
            connection.has_session = true;
        }
        match heard {
            Heard::Welcome { account, device, time_ms, server_key } => {
                self.clock = ToldClock::at(scene, time_ms);
                self.hear_welcome(scene, account, device, server_key);
            }
            Heard::Deliver { number, from, id, time_s, from_name, body } => {
                self.count_delivery(scene, number);
                let (account, device) = (self.account, self.device);
                let from_name = &from_name;
                let body = &body;
                let life = scene.life;
                let receipt = Receipt { account, device, from, from_name, id, time_s, body, life };
                self.hear_message(scene, number, &receipt);
            }
            Heard::Sent { id } => self.hear_sent(scene, id),
            Heard::Delivered { number, by, id, time_s } => {
                self.count_delivery(scene, number);
                self.hear_delivered(scene, number, by, id);
                self.check_stamp(scene, id, time_s);
            }
            Heard::Copy { number, to, id, time_s, body } => {
                self.count_delivery(scene, number);
                let verdict = scene.oracle.copied(self.account, self.device, to, id, &body);
                let Some(serial) = scene.judge(verdict) else { return };
                self.note_delivery(scene, number, Acknowledged::Copy(serial));
                self.check_fresh(scene, Kind::Copy, to, id);
                self.check_stamp(scene, id, time_s);
            }
            Heard::Read { number, by, id, time_s } => {
                self.count_delivery(scene, number);
                self.note_delivery(scene, number, Acknowledged::Tick);
                let verdict = scene.oracle.read(self.account, self.device, by, id);
                scene.judge(verdict);
                self.check_fresh(scene, Kind::Read, by, id);
                self.check_stamp(scene, id, time_s);
            }
            Heard::Devices(list) => self.hear_devices(scene, &list),
            Heard::DevicesRefused(code) => self.hear_devices_refused(scene, code),
            Heard::KeyRefused => self.hear_key_refused(scene),
            Heard::AccountRefused => {
                scene.account_is_gone(self.account);
                self.hear_key_refused(scene);
            }
            Heard::Unknown { id } => self.hear_unknown(scene, id),
            Heard::ReadTaken { author, id } => self.hear_read_taken(scene, author, id),
            Heard::Busy { id, retry_ms } => {
                let verdict = scene.oracle.serial_of(self.account, id);
                let Some(serial) = scene.judge(verdict.ok_or_else(|| format!("busy for unknown {id:?}")))
                else {
                    return;
                };
                let jitter_ms = scene.random().below(u64::from(retry_ms) + 1);
                let until_ns = scene.now_ns() + (u64::from(retry_ms) + jitter_ms) * MS;
                self.progress_ns = scene.now_ns();
                self.outbox.refused(scene.oracle.messages[serial].to, id, until_ns);
            }
            Heard::Presence(account, state, seen_s) => self.hear_presence(scene, account, state, seen_s),
            Heard::Typing(from) => self.hear_typing(scene, from),
            Heard::Expired(id) => {
                let verdict = scene.oracle.refused_as_old(self.account, id, scene.now_ns());
                if let Some(serial) = scene.judge(verdict) {
                    self.progress_ns = scene.now_ns();
                    self.outbox.ticked(scene.oracle.messages[serial].to, id);
                }
            }
            Heard::Found { account, name } => self.hear_found(scene, account, &name),
            Heard::Drained => self.hear_drained(scene),
            Heard::Nothing => {}
            Heard::ServerKey(key) => self.hear_server_key(scene, key),
            Heard::Ticket(ticket) => {
                self.check_key(scene);
                self.ticket = Some((ticket, 0, self.server_key));
            }
            Heard::TicketRefused => {
                self.ticket = None;
                self.hang_up(scene);
                self.come_back(scene, 1);
            }
            Heard::Goodbye { reason, retry_ms } => self.hear_goodbye(scene, reason, retry_ms),
            Heard::ConnectBusy { retry_ms } => {
                self.hang_up(scene);
                self.come_back(scene, u64::from(retry_ms));
            }
            Heard::Wrong(what) => {
                scene.schedule.fail(format!("the server told honest phone {}: {what}", self.index));
            }
        }
    }

    fn hear_welcome(
        &mut self,
        scene: &mut Scene,
        account: AccountId,
        device: DeviceId,
        server_key: Option<[u8; 32]>,
    ) {
        let is_expected = |key, c: &super::Connection| key == c.present_key || c.knew == Some(key);
        let connection = self.connection.as_ref();
        let right_key = server_key.is_none_or(|key| connection.is_some_and(|c| is_expected(key, c)));
        let is_own = self.device == device || self.device == DeviceId(0);
        self.device = device;
        self.check_not_revoked(scene);
        let right = right_key && is_own;
        scene.schedule.check(right, || format!("phone {} is welcomed as {device:?}", self.index));
        self.server_key = server_key.or(self.server_key);
        self.progress_ns = scene.now_ns();
        if let Some(connection) = &mut self.connection {
            (connection.is_welcome, connection.told) = (true, Some(account));
        }
        if !self.may_register() {
            self.account_is_there(scene);
        }
        for (author, id) in self.unread.clone() {
            self.say_read(author, id);
        }
        // Sends go right behind `Start`, before anything came from the home.
        self.act(scene);
    }

    /// The account that it was welcomed as is there for good.
    fn account_is_there(&mut self, scene: &mut Scene) {
        let Some(connection) = &mut self.connection else { return };
        connection.registers = false;
        let Some(id) = connection.told.take() else { return };
        let (serial, now_ns) = (scene.oracle.messages.len(), scene.now_ns());
        let verdict = scene.oracle.learn_id(self.account, id);
        scene.judge(verdict);
        let verdict = scene.oracle.devices.is_there(self.index, self.device, serial, now_ns);
        scene.judge(verdict);
        scene.exists.insert(self.account);
    }

    /// A message was for an account that is no more.
    fn hear_unknown(&mut self, scene: &mut Scene, id: MessageId) {
        let serial = scene.oracle.serial_of(self.account, id);
        let Some(serial) = scene.judge(serial.ok_or_else(|| format!("unknown is the recipient of {id:?}")))
        else {
            return;
        };
        let to = scene.oracle.messages[serial].to;
        scene.account_is_gone(to);
        self.progress_ns = scene.now_ns();
        self.outbox.ticked(to, id);
    }

    /// The server has another key than the phone may know.
    fn hear_server_key(&mut self, scene: &mut Scene, key: [u8; 32]) {
        let Some(connection) = &self.connection else { return };
        let (index, is_right, is_news) =
            (self.index, key == connection.present_key, connection.knew != Some(key));
        scene.schedule.check(is_right, || format!("phone {index} is told a key that is not the server's"));
        scene.schedule.check(is_news, || format!("phone {index} is told the server's key, which it knew"));
        self.server_key = Some(key);
    }

    /// A session goes on: by now the phone knows the server's present key, whichever way it came.
    fn check_key(&mut self, scene: &mut Scene) {
        let Some(connection) = &self.connection else { return };
        let (index, knows) = (self.index, self.server_key == Some(connection.present_key));
        scene.schedule.check(knows, || format!("phone {index} was not told the server's present key"));
    }

    /// The mailbox was empty for the first time on this connection. Who came to fetch it may close now.
    fn hear_drained(&mut self, scene: &mut Scene) {
        self.check_key(scene);
        let Some(connection) = &mut self.connection else { return };
        let (index, is_first) = (self.index, !std::mem::replace(&mut connection.is_drained, true));
        scene
            .schedule
            .check(is_first, || format!("phone {index} was told Drained twice within one connection"));
        let has_come = |kind, peer, id| match kind {
            Kind::Message => connection.got.contains(&(peer, id)),
            _ => connection.got_beside.contains(&(kind as u8, peer, id)),
        };
        let verdict = scene.oracle.fetched(self.account, self.device, connection.began_ms, has_come);
        scene.judge(verdict);
    }

    /// The server's stamp on something about a message of this account.
    fn check_stamp(&self, scene: &mut Scene, id: MessageId, time_s: u32) {
        let serial = scene.oracle.serial_of(self.account, id);
        let verdict = serial.map_or(Ok(()), |serial| scene.oracle.stamped(serial, time_s));
        scene.judge(verdict);
    }

    fn count_delivery(&mut self, scene: &mut Scene, number: u32) {
        let Some(connection) = &mut self.connection else { return };
        let expected = connection.next_number;
        connection.next_number = number + 1;
        let index = self.index;
        scene.schedule.check(number == expected, || {
            format!("phone {index} got delivery number {number} instead of {expected}")
        });
    }

    fn hear_message(&mut self, scene: &mut Scene, number: u32, receipt: &Receipt<'_>) {
        let key = (receipt.from, receipt.id);
        let again = !self.seen.insert(key);
        let verdict = scene.oracle.seen(receipt, again);
        let Some(serial) = scene.judge(verdict) else { return };
        self.note_delivery(scene, number, Acknowledged::Message(serial));
        if scene.random().chance(self.style.read_percent) {
            scene.oracle.messages[serial].read_said = true;
            self.unread.push((receipt.from, receipt.id));
            self.say_read(receipt.from, receipt.id);
        }
        let Some(connection) = &mut self.connection else { return };
        let fresh = connection.got.insert(key);
        let index = self.index;
        scene
            .schedule
            .check(fresh, || format!("phone {index} got message {serial} twice within one connection"));
    }

    /// Remembers to acknowledge.
    fn note_delivery(&mut self, scene: &mut Scene, number: u32, what: Acknowledged) {
        let due_ns = scene.now_ns() + self.ack_delay_ns(scene);
        let Some(connection) = &mut self.connection else { return };
        connection.unacknowledged.push((number, what));
        connection.ack_due_ns = Some(connection.ack_due_ns.unwrap_or(due_ns).min(due_ns));
        let (index, ahead_count) = (self.index, connection.unacknowledged.len());
        let is_within = ahead_count <= usize::from(scene.plan.limits.window_count);
        scene.schedule.check(is_within, || {
            format!("phone {index} was given {ahead_count} deliveries ahead of what it acknowledged")
        });
    }

    fn hear_sent(&mut self, scene: &mut Scene, id: MessageId) {
        let verdict = scene.oracle.sent(self.account, id);
        let Some(serial) = scene.judge(verdict) else { return };
        self.progress_ns = scene.now_ns();
        self.outbox.ticked(scene.oracle.messages[serial].to, id);
        if let Some(fault) = scene.crash_on_tick.take() {
            let delay_ns = scene.random().below(3 * MS);
            scene.schedule.after(delay_ns, Event::Crash(fault));
        }
    }

    fn hear_delivered(&mut self, scene: &mut Scene, number: u32, by: AccountId, id: MessageId) {
        self.note_delivery(scene, number, Acknowledged::Tick);
        let verdict = scene.oracle.delivered(self.index, by, id, scene.life);
        let Some(serial) = scene.judge(verdict) else { return };
        let Some(connection) = &mut self.connection else { return };
        let fresh = connection.got_ticks.insert((by, id)) || scene.oracle.forgets_ticks(serial);
        let index = self.index;
        scene.schedule.check(fresh, || {
            format!("phone {index} got the delivered tick of message {serial} twice within one connection")
        });
        // Only `sent` ends the retries: another device of the recipient may still depend on an unsafe copy.
        self.progress_ns = scene.now_ns();
        scene.oracle.messages[serial].delivered = true;
    }

    /// Of copies and read ticks, too, each comes once on a connection.
    fn check_fresh(&mut self, scene: &mut Scene, kind: Kind, peer: AccountId, id: MessageId) {
        let Some(connection) = &mut self.connection else { return };
        let is_forgotten = kind == Kind::Read
            && scene
                .oracle
                .serial_of(self.account, id)
                .is_some_and(|serial| scene.oracle.forgets_ticks(serial));
        let fresh = connection.got_beside.insert((kind as u8, peer, id)) || is_forgotten;
        let index = self.index;
        scene
            .schedule
            .check(fresh, || format!("phone {index} got the {kind:?} of {id:?} twice within one connection"));
    }

    fn hear_read_taken(&mut self, scene: &mut Scene, author: AccountId, id: MessageId) {
        self.unread.retain(|unread| *unread != (author, id));
        let verdict = scene.oracle.read_taken(self.account, author, id);
        scene.judge(verdict);
    }

    /// Says that a message was read; again on every connection until it is taken.
    pub(super) fn say_read(&mut self, author: AccountId, id: MessageId) {
        if let Some(connection) = &mut self.connection {
            connection.client.send(&ClientFrame::Read { author, id });
        }
    }

    fn hear_found(&mut self, scene: &mut Scene, account: Option<AccountId>, name: &str) {
        let Some(index) = scene.oracle.accounts.iter().position(|known| known.name == name) else {
            scene.schedule.fail(format!("an answer for {name}, which nobody asked for"));
            return;
        };
        let Some(id) = account else {
            let asked = self.connection.as_ref().and_then(|connection| connection.asked.get(&index));
            let existed = asked.is_some_and(|asked| asked.1);
            let found = &scene.oracle.accounts[index];
            // It may have come and gone before anybody but its own phone could know of it.
            if found.removal_asked && (existed || found.is_gone) {
                scene.account_is_gone(index);
                self.outbox.forget(index);
                return;
            }
            scene.schedule.check(!existed, || format!("account {index} is not found any more"));
            return;
        };
        let verdict = scene.oracle.learn_id(index, id);
        scene.judge(verdict);
        self.known.insert(index, id);
    }
}
