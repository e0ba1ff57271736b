//! Memory is asked for before it is needed.
//!
//! Of what a message touches hardly anything is in a near cache when thousands of phones talk: its edge, the keys, the
//! session, the account, the mailbox, each a look at far memory behind the one that names it. But a turn knows a batch
//! of phones at once. While one is served, the memory of those behind it is on its way, each link of the chain some
//! phones later than the one before it. The same for what is handled in a run of envelopes, and for what is sealed when
//! the turn ends. What that is worth: `bench/README.md`.
//!
//! Nothing here changes what a shard does: whatever is asked for is looked up again when its turn comes.

use crate::account::{Account, AccountIndex};
use crate::edge::State;
use crate::home::entry_kind;
use crate::io::ConnId;
use crate::session::{Session, SessionId};
use crate::shard::Shard;
use core::mem::size_of_val;
use tern_protocol::envelope::{Envelope, HEADER_BYTES, Kind};
use tern_protocol::ids::{AccountId, MessageId};
use tern_storage::mailbox::Mailbox;

/// Most bytes of one thing: an expanded key has fewer. The rest of what is longer is read from front to back, which the
/// processor sees by itself.
const BYTES_MAX: usize = 1024;

/// Asks the processor for some bytes from an address on, which must have no other effect: the driver's to do.
#[derive(Clone, Copy, Debug)]
pub struct Fetch(pub fn(*const u8, usize));

impl Fetch {
    /// For where time does not matter.
    pub const NOTHING: Self = Self(|_, _| ());

    /// Asks for a thing, if there is one.
    pub(crate) fn of<T: ?Sized>(self, thing: Option<&T>) {
        if let Some(thing) = thing {
            (self.0)((&raw const *thing).cast(), size_of_val(thing).min(BYTES_MAX));
        }
    }

    /// Asks for the first of some things and for the place behind the last: where one more will come.
    fn of_ends<T>(self, things: &[T]) {
        self.of(things.first());
        (self.0)(things.as_ptr_range().end.cast(), size_of::<T>());
    }
}

/// So many phones before one is heard, something of it is asked for.
type Link = (usize, fn(&Shard, ConnId));

/// The chain, its first link first.
const LINKS: [Link; 6] = [
    (10, Shard::expect_edge),
    (8, Shard::expect_session),
    (5, Shard::expect_account),
    (3, Shard::expect_lists),
    (2, Shard::expect_entries),
    (1, Shard::expect_mail),
];

/// Envelopes before one its account is asked for, its mailbox, and what lies in that.
const ENVELOPE_LINKS: [usize; 3] = [9, 6, 3];
/// Accounts of envelopes that were looked at and not handled: one more than are looked ahead.
const KEPT_COUNT: usize = ENVELOPE_LINKS[0] + 1;

/// The envelopes of a run that come.
pub(crate) struct Coming<'a> {
    /// Those that were not looked at.
    rest: &'a [u8],
    /// Likely the accounts of those that were, by their number from the beginning of the run.
    accounts: [Option<AccountIndex>; KEPT_COUNT],
    seen_count: usize,
    handled_count: usize,
}

impl Shard {
    /// Phones are going to be heard, `heard` says which after how many others. To be called before each; `are_new` if none
    /// of them was expected before.
    pub fn expect(&self, are_new: bool, heard: impl Fn(usize) -> Option<ConnId>) {
        for (count, expect) in LINKS {
            let first = if are_new { 0 } else { count };
            (first..=count).filter_map(&heard).for_each(|conn| expect(self, conn));
        }
    }

    fn expect_edge(&self, conn: ConnId) {
        self.edges.fetch(conn, self.config.fetch);
    }

    fn expect_session(&self, conn: ConnId) {
        let Some(edge) = self.edges.get(conn) else { return };
        let keys = edge.transport.as_ref().and_then(|transport| transport.opens_with());
        self.config.fetch.of(keys);
        if let State::Adopted(session) = edge.state {
            self.sessions.fetch(session, self.config.fetch);
        }
    }

    fn expect_account(&self, conn: ConnId) {
        let Some(session) = self.session_at(conn) else { return };
        session.fetch_under_way(self.config.fetch);
        self.accounts.fetch(session.account, self.config.fetch);
    }

    fn expect_lists(&self, conn: ConnId) {
        let Some(session) = self.session_at(conn) else { return };
        session.fetch_lists(self.config.fetch);
        self.config.fetch.of(self.mailbox(session.account).and_then(Mailbox::memory));
    }

    fn expect_entries(&self, conn: ConnId) {
        let mailbox = self.session_at(conn).and_then(|session| self.mailbox(session.account));
        if let Some(entries) = mailbox.and_then(Mailbox::first_entries) {
            self.config.fetch.of_ends(entries);
        }
    }

    fn expect_mail(&self, conn: ConnId) {
        let mailbox = self.session_at(conn).and_then(|session| self.mailbox(session.account));
        let first = mailbox.and_then(|mailbox| mailbox.first_entries()?.first());
        let mail = first.and_then(|entry| entry.mail);
        // Of what is acknowledged the header is read, if anything.
        self.config.fetch.of(mail.and_then(|mail| self.cache.get(mail).first_chunk::<HEADER_BYTES>()));
    }

    fn session_at(&self, conn: ConnId) -> Option<&Session> {
        match self.edges.get(conn)?.state {
            State::Adopted(session) => self.sessions.get(session),
            _ => None,
        }
    }

    fn mailbox(&self, account: AccountIndex) -> Option<&Mailbox> {
        self.accounts.get(account).map(|account| &account.mailbox)
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
        let mut coming = Coming { rest: run, accounts: [None; KEPT_COUNT], seen_count: 0, handled_count: 0 };
        let [far, near, next] = ENVELOPE_LINKS;
        (0..far).for_each(|_| self.see_one(&mut coming));
        (0..near).for_each(|number| self.expect_mailbox(&coming, number));
        (0..next).for_each(|number| self.expect_inside(&coming, number));
        coming
    }

    /// One of them is handled.
    pub(crate) fn look_on(&self, coming: &mut Coming<'_>) {
        let [_, near, next] = ENVELOPE_LINKS;
        self.see_one(coming);
        self.expect_mailbox(coming, coming.handled_count + near);
        self.expect_inside(coming, coming.handled_count + next);
        coming.handled_count += 1;
    }

    /// Looks at one more: asks for its account, and for where its id would be known.
    fn see_one(&self, coming: &mut Coming<'_>) {
        let Some((header, rest)) = Envelope::skim_first(coming.rest) else { return };
        coming.rest = rest;
        let fetch = self.config.fetch;
        let (to, from) = (AccountId(header.to.get()), AccountId(header.from.get()));
        let account = self.accounts.likely(to);
        account.into_iter().for_each(|account| self.accounts.fetch(account, fetch));
        coming.accounts[coming.seen_count % KEPT_COUNT] = account;
        coming.seen_count += 1;
        let id = MessageId(header.id.get());
        let (kind, made_s) = match Kind::from_wire(header.kind) {
            Some(kind @ Kind::Message) => (kind, id.unix_s()),
            Some(kind @ (Kind::Delivered | Kind::Read)) => (kind, (header.time_ms.get() / 1000) as u32),
            _ => return,
        };
        self.dedup.fetch(made_s, self.dedup.hash(to, from, id, entry_kind(kind)), fetch);
    }

    fn expect_mailbox(&self, coming: &Coming<'_>, number: usize) {
        let Some(account) = coming.account(number).and_then(|index| self.accounts.get(index)) else { return };
        self.config.fetch.of(account.mailbox.memory());
        if let Some(session) = first_session(account) {
            self.sessions.fetch(session, self.config.fetch);
        }
    }

    fn expect_inside(&self, coming: &Coming<'_>, number: usize) {
        let fetch = self.config.fetch;
        let Some(account) = coming.account(number).and_then(|index| self.accounts.get(index)) else { return };
        if let Some(entries) = account.mailbox.first_entries() {
            fetch.of_ends(entries);
        }
        if let Some(session) = first_session(account).and_then(|session| self.sessions.get(session)) {
            session.fetch_under_way(fetch);
            self.edges.fetch(session.conn, fetch);
        }
    }
}

impl Coming<'_> {
    /// Likely the account of the envelope with this number.
    fn account(&self, number: usize) -> Option<AccountIndex> {
        if number < self.seen_count { self.accounts[number % KEPT_COUNT] } else { None }
    }
}

/// Most accounts have one device.
fn first_session(account: &Account) -> Option<SessionId> {
    account.device(0)?.session
}
