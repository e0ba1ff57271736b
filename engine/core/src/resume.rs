//! Resume tickets: a device comes back without its key. A ticket is used up by a record of its account, and the
//! session waits for that record: no crash makes a ticket good again.

use crate::edge::{Greeting, State};
use crate::io::{ConnId, Now, Outputs};
use crate::shard::{Shard, bug};
use crate::writer::{Item, Waiter};
use alloc::boxed::Box;
use core::mem::{replace, take};
use rand_chacha::rand_core::RngCore;
use tern_protocol::ids::{AccountId, DeviceId, ShardId};
use tern_protocol::phone::frame::{ClientFrame, ErrorCode, ServerFrame};
use tern_protocol::phone::preface::PREFACE_BYTES;
use tern_protocol::phone::server::{Handshake, ticket_refusal};
use tern_protocol::phone::ticket::{KeyMark, TICKET_BYTES, TicketClaims};

/// Bytes of a preface with the id of a ticket.
pub(crate) const PROLOGUE_BYTES: usize = PREFACE_BYTES + TICKET_BYTES;

/// What a genuine ticket says, and the key that its holder must prove to have.
pub(crate) type Opened = (TicketClaims, [u8; 32]);

impl Shard {
    /// Opens a shown ticket, before any Diffie-Hellman. None if it is forged.
    pub(crate) fn open_ticket(&self, prologue: &[u8; PROLOGUE_BYTES]) -> Option<Opened> {
        self.ticket_keys.open(prologue.last_chunk::<TICKET_BYTES>().expect("a prologue ends with the id"))
    }

    /// The home of a ticket's account, if it is another shard.
    pub(crate) fn is_elsewhere(&self, (claims, _): &Opened) -> Option<ShardId> {
        self.config.partitions.home_of(claims.account).filter(|&home| home != self.config.shard)
    }

    /// The handshake of a ticket. None if it does not work here and now: it is another shard's, used up, or too old.
    pub(crate) fn begin_with_ticket(
        &mut self,
        now: Now,
        prologue: &[u8; PROLOGUE_BYTES],
        (claims, psk): Opened,
    ) -> Option<Handshake> {
        let home = self.config.partitions.home_of(claims.account);
        if home != Some(self.config.shard) || !self.is_good(now, &claims) {
            return None;
        }
        let seed = self.random_seed();
        Some(Handshake::with_ticket(prologue, claims, &psk, seed))
    }

    /// Tells a connection that its ticket does not work.
    pub(crate) fn refuse_ticket(&mut self, conn: ConnId) {
        self.counters.tickets_refused += 1;
        if let Some(edge) = self.edges.get_mut(conn) {
            ticket_refusal(&mut edge.opening().raw_out);
        }
        self.hang_up(conn);
    }

    /// Whether a ticket would let its device in now.
    fn is_good(&mut self, now: Now, claims: &TicketClaims) -> bool {
        let valid_ms = self.config.limits.ticket_ms;
        let age_ms = now.wall_ms.saturating_sub(u64::from(claims.made_s) * 1000);
        let found = self.accounts.find_device(claims.account, claims.device);
        let stays = found.filter(|&(account, place)| !self.is_going(account, place));
        let device = stays.and_then(|(account, place)| self.accounts.device_mut(account, place));
        // One from the future of a clock that is behind may be as old as any.
        let now_s = now.wall_ms / 1000;
        let is_after = |start_s| claims.made_s > start_s && u64::from(claims.made_s) <= now_s;
        let may_be_used = self.tickets_after_s.is_some_and(|start_s| !is_after(start_s));
        // Using it up takes a record: with the last of the drive the device's key must do.
        age_ms < valid_ms
            && !may_be_used
            && !self.writer.log.is_low()
            && device.is_some_and(|device| claims.number >= device.ticket_floor)
    }

    /// A client has proven that it holds a ticket.
    pub(crate) fn log_in_by_ticket(&mut self, now: Now, conn: ConnId, claims: &TicketClaims) {
        if self.is_good(now, claims) {
            let needs_key = self.needs_key(claims);
            self.greet(now, conn, claims.account, claims.device, Some(claims.number), needs_key);
        } else {
            self.turn_away(conn);
        }
    }

    /// Whether a device got its ticket before it could know the server's present key. It shows no key when it comes, so
    /// that the ticket alone can tell, and it may come when the previous key has long ended.
    fn needs_key(&self, claims: &TicketClaims) -> bool {
        if bug!(self, key_untold) && self.previous_key.is_none() {
            return false;
        }
        claims.knows != KeyMark::of(&self.server_key.pair().public)
    }

    /// The ticket was good when it was shown, and is used up by now: nobody did wrong.
    fn turn_away(&mut self, conn: ConnId) {
        self.counters.tickets_refused += 1;
        let (code, detail) = (ErrorCode::TicketUsed, "log in with the device's key");
        self.say(conn, &ServerFrame::Error { code, detail });
        self.hang_up(conn);
    }

    /// The first transport frame came on a connection with a ticket: it is used up now, and with it all before it.
    pub(crate) fn use_up_ticket(&mut self, conn: ConnId, greeting: Greeting, number: u32) {
        let found = self.accounts.find_device(greeting.account, greeting.device);
        let stays = found.filter(|&(account, place)| !self.is_going(account, place));
        let device = stays.and_then(|(account, place)| {
            self.accounts.device_mut(account, place).map(|device| (account, device))
        });
        let Some((index, device)) = device.filter(|(_, device)| number >= device.ticket_floor) else {
            self.turn_away(conn);
            return;
        };
        device.ticket_floor = number.saturating_add(1);
        self.writer.push_urgent(Item::Account(index));
        self.begin_when_stable(conn, greeting);
    }

    /// The session begins once all changes of accounts so far are on stable storage.
    pub(crate) fn begin_when_stable(&mut self, conn: ConnId, greeting: Greeting) {
        if let Some(edge) = self.edges.get_mut(conn) {
            edge.state = State::Starting(Box::new(greeting));
            self.writer.wait(Waiter::Begin { conn });
        }
    }

    /// What it had to wait for is on stable storage: the session begins, with what the phone said behind `Start`.
    pub(crate) fn begin(&mut self, now: Now, conn: ConnId, out: &mut Outputs) {
        let Some(edge) = self.edges.get_mut(conn) else { return };
        if !matches!(edge.state, State::Starting(_)) {
            return;
        }
        let State::Starting(greeting) = replace(&mut edge.state, State::Greeting) else { return };
        let frames = edge.buffers.as_mut().map(|buffers| take(&mut buffers.ahead)).unwrap_or_default();
        self.start_session(now, conn, *greeting, out);
        let mut rest = &frames[..];
        while !rest.is_empty() {
            let Ok((frame, after)) = ClientFrame::decode_first(rest) else {
                self.refuse(conn, ErrorCode::Malformed, "frame");
                break;
            };
            rest = after;
            if !self.use_frame(now, conn, frame, out) {
                break;
            }
        }
        self.use_tail(now, conn, out);
    }

    /// Gives a device its next ticket. By now it knows the server's present key.
    pub(crate) fn give_ticket(&mut self, now: Now, conn: ConnId, account: AccountId, device: DeviceId) {
        let valid_s = u32::try_from(self.config.limits.ticket_ms / 1000).unwrap_or(u32::MAX);
        let found = self.accounts.find_device(account, device);
        let state = found.and_then(|(account, place)| self.accounts.device_mut(account, place));
        let Some(number) = state.map(|state| state.ticket_floor).filter(|_| valid_s > 0) else { return };
        let mut random = [0; 8];
        self.rng.fill_bytes(&mut random);
        let knows = KeyMark::of(&self.server_key.pair().public);
        let claims = TicketClaims { account, device, number, made_s: (now.wall_ms / 1000) as u32, knows };
        let ticket = self.ticket_keys.issue(&claims, random);
        self.say(conn, &ServerFrame::Ticket { ticket, valid_s });
    }
}
