//! Memory is asked for before it is needed.
//!
//! Of what a message touches hardly anything is in a near cache when thousands of phones talk: its edge, the keys, the
//! session, the account, the mailbox, each a look at far memory behind the one that names it. But a turn knows a batch
//! of phones at once. While one is served, the memory of those behind it is on its way, each link of the chain some
//! phones later than the one before it. The same for what is handled in a run of envelopes, and for what is sealed when
//! the turn ends. With 1,000 phones that is a tenth of all the time that a message takes, the kernel's included.
//!
//! Nothing here changes what a shard does: nothing is asked for that is not looked up again.

use crate::account::Account;
use crate::edge::State;
use crate::home::entry_kind;
use crate::io::ConnId;
use crate::session::{Session, SessionId};
use crate::shard::Shard;
use core::mem::size_of_val;
use tern_protocol::envelope::{Envelope, Header, Kind};
use tern_protocol::ids::{AccountId, MessageId};
use tern_storage::mailbox::Mailbox;

/// Asks the processor for some bytes from an address on, which must have no other effect: the driver's to do.
#[derive(Clone, Copy, Debug)]
pub struct Fetch(pub fn(*const u8, usize));

impl Fetch {
    /// For where time does not matter.
    pub const NOTHING: Self = Self(|_, _| ());

    /// Asks for a thing, if there is one.
    pub(crate) fn of<T: ?Sized>(self, thing: Option<&T>) {
        if let Some(thing) = thing {
            (self.0)((&raw const *thing).cast(), size_of_val(thing));
        }
    }

    /// Asks for the first of some things and for the place behind it: if there is none, for where one will come.
    fn of_first<T>(self, things: &[T]) {
        (self.0)(things.as_ptr().cast(), (things.len().min(1) + 1) * size_of::<T>());
    }
}

/// The envelopes of a run that come some envelopes later, each the beginning of what is left of the run there.
pub(crate) struct Coming<'a> {
    far: &'a [u8],
    near: &'a [u8],
    next: &'a [u8],
}

impl Shard {
    /// Phones are going to be heard: `heard` says which one after how many others.
    pub fn expect(&self, heard: impl Fn(usize) -> Option<ConnId>) {
        let fetch = self.config.fetch;
        let session = |count| heard(count).and_then(|conn| self.session_at(conn));
        if let Some(conn) = heard(20) {
            self.edges.fetch(conn, fetch);
        }
        if let Some(edge) = heard(15).and_then(|conn| self.edges.get(conn)) {
            fetch.of(edge.transport.as_ref().and_then(|transport| transport.opens_with()));
            if let State::Adopted(session) = edge.state {
                self.sessions.fetch(session, fetch);
            }
        }
        if let Some(session) = session(10) {
            session.fetch_under_way(fetch);
            self.accounts.fetch(session.account, fetch);
        }
        if let Some(session) = session(6) {
            session.fetch_lists(fetch);
            fetch.of(self.mailbox_of(session).and_then(Mailbox::memory));
        }
        if let Some(mailbox) = session(3).and_then(|session| self.mailbox_of(session)) {
            fetch.of_first(mailbox.first_entries());
        }
        if let Some(mailbox) = session(2).and_then(|session| self.mailbox_of(session)) {
            let mail = mailbox.first_entries().first().and_then(|entry| entry.mail);
            fetch.of(mail.map(|mail| self.cache.get(mail)));
        }
    }

    fn session_at(&self, conn: ConnId) -> Option<&Session> {
        match self.edges.get(conn)?.state {
            State::Adopted(session) => self.sessions.get(session),
            _ => None,
        }
    }

    fn mailbox_of(&self, session: &Session) -> Option<&Mailbox> {
        self.accounts.get(session.account).map(|account| &account.mailbox)
    }

    /// What is to be said to these edges will be sealed, one after the other.
    pub(crate) fn expect_flush(&self, edges: &[ConnId]) {
        let fetch = self.config.fetch;
        if let Some(&conn) = edges.get(6) {
            self.edges.fetch(conn, fetch);
        }
        if let Some(edge) = edges.get(4).and_then(|&conn| self.edges.get(conn)) {
            fetch.of(edge.transport.as_ref().and_then(|transport| transport.seals_with()));
            fetch.of(edge.buffers.as_deref());
        }
        if let Some(edge) = edges.get(2).and_then(|&conn| self.edges.get(conn)) {
            fetch.of(Some(edge.plain_out()));
        }
    }

    /// A run of envelopes will be handled.
    pub(crate) fn look_ahead<'a>(&self, run: &'a [u8]) -> Coming<'a> {
        let mut coming = Coming { far: run, near: run, next: run };
        self.go_ahead(&mut coming.far, 9, Self::expect_account);
        self.go_ahead(&mut coming.near, 6, Self::expect_mailbox);
        self.go_ahead(&mut coming.next, 3, Self::expect_entries);
        coming
    }

    /// One more of them will.
    pub(crate) fn look_on(&self, coming: &mut Coming<'_>) {
        self.go_ahead(&mut coming.far, 1, Self::expect_account);
        self.go_ahead(&mut coming.near, 1, Self::expect_mailbox);
        self.go_ahead(&mut coming.next, 1, Self::expect_entries);
    }

    fn go_ahead(&self, run: &mut &[u8], count: usize, expect: impl Fn(&Self, &Header)) {
        for _ in 0..count {
            let Some((header, rest)) = Envelope::skim_first(run) else { return };
            expect(self, header);
            *run = rest;
        }
    }

    fn expect_account(&self, header: &Header) {
        let fetch = self.config.fetch;
        let (to, from) = (AccountId(header.to.get()), AccountId(header.from.get()));
        self.accounts.fetch_by_id(to, fetch);
        let id = MessageId(header.id.get());
        let (kind, made_s) = match Kind::from_wire(header.kind) {
            Some(kind @ Kind::Message) => (kind, id.unix_s()),
            Some(kind @ (Kind::Delivered | Kind::Read)) => (kind, (header.time_ms.get() / 1000) as u32),
            _ => return,
        };
        self.dedup.fetch(made_s, self.dedup.hash(to, from, id, entry_kind(kind)), fetch);
    }

    fn expect_mailbox(&self, header: &Header) {
        let Some(account) = self.account_of(header) else { return };
        self.config.fetch.of(account.mailbox.memory());
        if let Some(session) = first_session(account) {
            self.sessions.fetch(session, self.config.fetch);
        }
    }

    fn expect_entries(&self, header: &Header) {
        let fetch = self.config.fetch;
        let Some(account) = self.account_of(header) else { return };
        fetch.of_first(account.mailbox.first_entries());
        if let Some(session) = first_session(account).and_then(|session| self.sessions.get(session)) {
            session.fetch_under_way(fetch);
            self.edges.fetch(session.conn, fetch);
        }
    }

    fn account_of(&self, header: &Header) -> Option<&Account> {
        self.accounts.get(self.accounts.by_id(AccountId(header.to.get()))?)
    }
}

/// Most accounts have one device.
fn first_session(account: &Account) -> Option<SessionId> {
    account.device(0)?.session
}
