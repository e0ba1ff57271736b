//! From what a phone is told to the ledger: who may have sent it, whether it is whole, what the phone does next.

use crate::ledger::{Delivery, Flow, Leftovers, Run, Tally};
use std::collections::HashMap;
use tern_protocol::ids::{AccountId, MessageId};
use tern_protocol::phone::client::Event;
use tern_protocol::phone::frame::{ErrorCode, ServerFrame};
use tern_protocol::phone::ticket::Ticket;

/// Bytes that a body begins with, as far as it is long enough: run, sender, addressee, place in the flow.
const BODY_HEAD_BYTES: usize = 16;
const FILLER: u8 = 0x2e;

/// The phone that a phone talks with.
pub(crate) const fn partner(phone: u32) -> u32 {
    phone ^ 1
}

/// Why the server lets a phone not in, and what helps, for the person who runs the generator.
fn refused(code: ErrorCode, detail: &str) -> String {
    match code {
        ErrorCode::WrongKey | ErrorCode::NameTaken => {
            "the account is there with another key: say the --seed that it was made with, or take others (--first)".into()
        }
        ErrorCode::UnknownAccount | ErrorCode::RegistrationClosed => {
            "there is no such account, and the server registers nobody at the door: with --admin the accounts are made"
                .into()
        }
        other => format!("{other:?}: {detail}"),
    }
}

/// What a login told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Welcome {
    /// The server's key, confirmed or learnt; none where a ticket was used.
    pub(crate) server_key: Option<[u8; 32]>,
    /// Ping after so many silent seconds.
    pub(crate) keep_alive_s: u16,
}

/// The token of a `Ping` that asks whether the server still answers; keep-alives have others.
pub(crate) const QUESTION: u32 = 1;

/// What a batch of received bytes asks of the connection.
#[derive(Default, Debug)]
pub(crate) struct Signals {
    /// Acknowledge up to this number.
    pub(crate) ack: Option<u32>,
    /// Logged in.
    pub(crate) welcome: Option<Welcome>,
    /// The mailbox was empty.
    pub(crate) drained: bool,
    /// A ticket for the next connection.
    pub(crate) ticket: Option<Ticket>,
    /// Answers to keep-alives.
    pub(crate) pongs: u32,
    /// The connection is over; come back after so many milliseconds.
    pub(crate) retry_ms: Option<u32>,
    /// The connection is over, for good: what the server said.
    pub(crate) refused: Option<String>,
}

/// The flows (by their sender) and the accounts of one worker's phones. Phones are numbered from 0 here; in bodies
/// and names by their number in the whole fleet.
pub(crate) struct Books {
    run: Run,
    /// None until there is something to write down: most phones of a large fleet are idle.
    flows: Vec<Option<Box<Flow>>>,
    pub(crate) tally: Tally,
    pub(crate) accounts: Vec<Option<AccountId>>,
    /// Accounts of phones that have not logged in yet, as leftover mail names them; each login is held to it.
    claimed: HashMap<u32, AccountId>,
    /// Phones that were welcomed for the first time. They may have registered, and then their accounts are there with the
    /// next frame.
    welcomed: HashMap<u32, (AccountId, Welcome)>,
    leftovers: Leftovers,
    bodies: Bodies,
}

impl Books {
    /// Empty books for as many phones as accounts, of which the first is `first_phone` of the fleet (even, so that
    /// pairs stay together).
    pub(crate) fn new(
        accounts: Vec<Option<AccountId>>,
        first_phone: u32,
        body_bytes: usize,
        run: Run,
    ) -> Self {
        assert!(first_phone.is_multiple_of(2), "a pair is never split");
        Self {
            run,
            flows: accounts.iter().map(|_| None).collect(),
            tally: Tally::default(),
            accounts,
            claimed: HashMap::new(),
            welcomed: HashMap::new(),
            leftovers: Leftovers::default(),
            bodies: Bodies { first_phone, first_low: run.first_low, template: vec![FILLER; body_bytes] },
        }
    }

    /// The flow that `phone` sends, and the sums that it writes to.
    pub(crate) fn flow(&mut self, phone: u32) -> (&mut Flow, &mut Tally) {
        let run = self.run;
        let flow = self.flows[phone as usize].get_or_insert_with(|| Box::new(Flow::new(run)));
        (flow, &mut self.tally)
    }

    /// The flow that `phone` sends, if there was ever something to write down.
    pub(crate) fn flow_if_any(&mut self, phone: u32) -> Option<&mut Flow> {
        self.flows[phone as usize].as_deref_mut()
    }

    /// Messages of `phone` that are ticked and not delivered.
    pub(crate) fn missing_count(&self, phone: u32) -> u32 {
        self.flows[phone as usize].as_deref().map_or(0, Flow::missing_count)
    }

    /// The body of message `seq` of the flow that `phone` sends.
    pub(crate) fn body(&mut self, phone: u32, seq: u32) -> &[u8] {
        self.bodies.make(phone, seq)
    }

    /// A phone has a new connection: as a sender it starts again, as an addressee it may get things again.
    pub(crate) fn connected(&mut self, phone: u32, now_ns: u64) {
        if let Some(flow) = self.flow_if_any(phone) {
            flow.sender_connected(now_ns);
        }
        if let Some(flow) = self.flow_if_any(partner(phone)) {
            flow.addressee_connected(now_ns);
        }
        self.leftovers.addressee_connected(phone);
    }

    /// A phone's acknowledgement of everything that came is on its way.
    pub(crate) fn acknowledged(&mut self, phone: u32) {
        if let Some(flow) = self.flow_if_any(partner(phone)) {
            flow.acknowledged();
        }
    }

    /// Takes one event of `phone`. `jitter` is between 0 and 1.
    pub(crate) fn take(
        &mut self,
        phone: u32,
        event: Event<'_>,
        now_ns: u64,
        jitter: f64,
        signals: &mut Signals,
    ) {
        match event {
            Event::Welcome { account, server_key, keep_alive_s, .. } => {
                let welcome = Welcome { server_key, keep_alive_s };
                if self.accounts[phone as usize].is_some() {
                    self.logged_in(phone, account);
                    signals.welcome = Some(welcome);
                } else {
                    self.welcomed.insert(phone, (account, welcome));
                }
            }
            Event::Frame(frame) => {
                if !self.welcomed.is_empty()
                    && !matches!(frame, ServerFrame::Goodbye { .. } | ServerFrame::Error { .. })
                    && let Some((account, welcome)) = self.welcomed.remove(&phone)
                {
                    self.logged_in(phone, account);
                    signals.welcome = Some(welcome);
                }
                self.take_frame(phone, frame, now_ns, jitter, signals);
            }
            Event::ConnectBusy { retry_ms } => signals.retry_ms = Some(retry_ms),
            Event::VersionRefused { min, max } => {
                signals.refused = Some(format!("the server speaks versions {min} to {max}"));
            }
            Event::TicketRefused => signals.retry_ms = Some(0),
        }
    }

    /// A phone is logged in, and its account is there.
    fn logged_in(&mut self, phone: u32, account: AccountId) {
        let claimed = self.claimed.get(&phone).copied();
        let known = self.accounts[phone as usize].or(claimed);
        self.tally.sums.faults.misdelivered += u64::from(known.is_some_and(|known| known != account));
        self.accounts[phone as usize] = Some(account);
    }

    fn take_frame(
        &mut self,
        phone: u32,
        frame: ServerFrame<'_>,
        now_ns: u64,
        jitter: f64,
        signals: &mut Signals,
    ) {
        match frame {
            ServerFrame::Deliver { number, from, id, body, .. } => {
                signals.ack = Some(number);
                self.take_delivery(phone, from, id, body, now_ns);
            }
            ServerFrame::Sent { id } => {
                let (flow, tally) = self.flow(phone);
                flow.on_sent(id, now_ns, tally);
            }
            ServerFrame::Delivered { number, by, id, .. } => {
                signals.ack = Some(number);
                if self.is_account_of(partner(phone), by) {
                    let (flow, tally) = self.flow(phone);
                    flow.on_delivered(id, tally);
                } else {
                    self.tally.sums.faults.misdelivered += 1;
                }
            }
            ServerFrame::Drained => signals.drained = true,
            ServerFrame::Busy { id, retry_ms } => {
                let wait_ms = f64::from(retry_ms) * (1.0 + jitter / 2.0);
                let (flow, tally) = self.flow(phone);
                flow.on_busy(id, now_ns + (wait_ms * 1e6) as u64, tally);
            }
            ServerFrame::Expired { id } | ServerFrame::Unknown { id } => {
                let (flow, tally) = self.flow(phone);
                flow.on_refused(id, tally);
            }
            ServerFrame::Goodbye { retry_ms, .. } => signals.retry_ms = Some(retry_ms),
            ServerFrame::Error { code, detail } => signals.refused = Some(refused(code, detail)),
            // Anybody may say that they have read what there never was, and PHONE.md has their author drop it. A phone
            // of this run says no such thing.
            ServerFrame::Read { number, by, .. } => {
                signals.ack = Some(number);
                let is_ours = self.accounts.contains(&Some(by));
                self.tally.sums.faults.misdelivered += u64::from(is_ours);
            }
            // One device to an account, no reading and nobody to watch.
            ServerFrame::ReadTaken { .. } | ServerFrame::Copy { .. } => {
                self.tally.sums.faults.misdelivered += 1;
            }
            ServerFrame::Ticket { ticket, .. } => signals.ticket = Some(ticket),
            // The server is there, and whatever waited for this phone would have come by now.
            ServerFrame::Pong { token: QUESTION } => signals.drained = true,
            ServerFrame::Pong { .. } => signals.pongs += 1,
            // `Welcome` has an event of its own.
            ServerFrame::Welcome { .. }
            | ServerFrame::Found { .. }
            | ServerFrame::ServerKey { .. }
            | ServerFrame::Presence { .. }
            | ServerFrame::WatchRefused { .. }
            | ServerFrame::Typing { .. }
            | ServerFrame::Devices { .. }
            | ServerFrame::DevicesRefused { .. } => {}
        }
    }

    /// Whether `account` is that phone's, as far as it is known: without the admin endpoint it is learnt at its login.
    fn is_account_of(&mut self, phone: u32, account: AccountId) -> bool {
        let known = self.accounts[phone as usize];
        known.unwrap_or_else(|| *self.claimed.entry(phone).or_insert(account)) == account
    }

    fn take_delivery(&mut self, phone: u32, from: AccountId, id: MessageId, body: &[u8], now_ns: u64) {
        let sender = partner(phone);
        if !self.is_account_of(sender, from) {
            self.tally.sums.faults.misdelivered += 1;
            return;
        }
        let (flow, tally) = self.flow(sender);
        match flow.on_deliver(id, now_ns, tally) {
            Delivery::Earlier => {
                self.leftovers.on_deliver(phone, id, &mut self.tally);
                self.tally.sums.faults.misdelivered += u64::from(!self.bodies.is_for(body, sender, phone));
            }
            // A body that is not the one that was sent under this id is somebody else's.
            Delivery::First | Delivery::Again => {
                self.tally.sums.faults.misdelivered += u64::from(!self.bodies.is_whole(body, sender, id));
            }
            Delivery::Duplicate | Delivery::Unknown => {}
        }
    }
}

/// Makes and checks bodies.
struct Bodies {
    first_phone: u32,
    first_low: u32,
    template: Vec<u8>,
}

impl Bodies {
    fn make(&mut self, phone: u32, seq: u32) -> &[u8] {
        let head = head(self.first_low, self.first_phone + phone, seq);
        let head_bytes = self.template.len().min(BODY_HEAD_BYTES);
        self.template[..head_bytes].copy_from_slice(&head[..head_bytes]);
        &self.template
    }

    fn is_whole(&mut self, body: &[u8], sender: u32, id: MessageId) -> bool {
        let seq = (id.0 as u32).wrapping_sub(self.first_low);
        self.make(sender, seq) == body
    }

    /// As far as it can be told of a body of an earlier run, whose length may have been another.
    fn is_for(&self, body: &[u8], sender: u32, addressee: u32) -> bool {
        let named = |phone: u32| (self.first_phone + phone).to_le_bytes();
        body.get(4..12).is_none_or(|ends| ends == [named(sender), named(addressee)].concat())
    }
}

fn head(run: u32, sender: u32, seq: u32) -> [u8; BODY_HEAD_BYTES] {
    let mut head = [0; BODY_HEAD_BYTES];
    for (place, number) in [run, sender, partner(sender), seq].into_iter().enumerate() {
        head[place * 4..place * 4 + 4].copy_from_slice(&number.to_le_bytes());
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Faults;
    use tern_protocol::phone::frame::GoodbyeReason;

    const RUN: Run = Run { started_s: 100, first_low: 7 };

    /// The first of its phones is the fleet's number 6.
    fn books(body_bytes: usize) -> (Books, MessageId) {
        let mut books = Books::new((1..=4).map(|n| Some(AccountId(n))).collect(), 6, body_bytes, RUN);
        let (flow, tally) = books.flow(0);
        flow.submit(1, 0, tally);
        let id = flow.next_to_send(1).expect("one was submitted").id;
        (books, id)
    }

    fn deliver(books: &mut Books, phone: u32, from: u64, id: MessageId, body: &[u8]) -> Signals {
        let mut signals = Signals::default();
        let event = Event::Frame(ServerFrame::Deliver {
            number: 9,
            from: AccountId(from),
            id,
            time_s: 0,
            from_name: "load-0",
            body,
        });
        books.take(phone, event, 5, 0.0, &mut signals);
        signals
    }

    #[test]
    fn a_refusal_says_what_helps_and_no_word_of_the_program() {
        for (code, helps) in [
            (ErrorCode::WrongKey, "--seed"),
            (ErrorCode::NameTaken, "--seed"),
            (ErrorCode::UnknownAccount, "--admin"),
            (ErrorCode::RegistrationClosed, "--admin"),
        ] {
            let text = refused(code, "another key");
            assert!(text.contains(helps) && !text.contains(&format!("{code:?}")), "{text}");
        }
        assert!(refused(ErrorCode::Internal, "the drive is full").ends_with("the drive is full"));
    }

    #[test]
    fn a_whole_message_for_the_right_phone_is_delivered() {
        for body_bytes in [0, 5, 16, 128] {
            let (mut books, id) = books(body_bytes);
            let body = books.body(0, 0).to_vec();
            assert_eq!(body[..], [&head(7, 6, 0)[..], &[FILLER; 128]].concat()[..body_bytes]);
            assert_eq!(deliver(&mut books, 1, 1, id, &body).ack, Some(9));
            assert_eq!((books.tally.sums.delivered, books.tally.sums.faults), (1, Faults::default()));
        }
    }

    #[test]
    fn wrong_phone_wrong_sender_and_wrong_body_are_misdelivered() {
        let (mut books, id) = books(128);
        let body = books.body(0, 0).to_vec();
        deliver(&mut books, 2, 1, id, &body);
        deliver(&mut books, 1, 3, id, &body);
        assert_eq!((books.tally.sums.delivered, books.tally.sums.faults.misdelivered), (0, 2));
        let mut changed = body.clone();
        changed[127] ^= 1;
        deliver(&mut books, 1, 1, id, &changed);
        assert_eq!((books.tally.sums.delivered, books.tally.sums.faults.misdelivered), (1, 3));
        let mut signals = Signals::default();
        let tick = Event::Frame(ServerFrame::Delivered { number: 1, by: AccountId(3), id, time_s: 0 });
        books.take(0, tick, 5, 0.0, &mut signals);
        assert_eq!(books.tally.sums.faults.misdelivered, 4);
    }

    #[test]
    fn what_a_stranger_says_to_have_read_is_dropped() {
        let (mut books, id) = books(128);
        let known: Vec<AccountId> = books.accounts.iter().flatten().copied().collect();
        let mut said = |by| {
            let mut signals = Signals::default();
            let tick = Event::Frame(ServerFrame::Read { number: 7, by, id, time_s: 0 });
            books.take(0, tick, 5, 0.0, &mut signals);
            (signals.ack, books.tally.sums.faults.misdelivered)
        };
        assert_eq!(said(AccountId(99)), (Some(7), 0));
        assert_eq!(said(known[1]), (Some(7), 1), "phones of this run say no such thing");
    }

    #[test]
    fn a_sender_that_is_not_known_yet_is_held_to_its_first_claim() {
        let (mut books, _) = books(16);
        books.accounts[0] = None;
        let old = |n| MessageId::new(RUN.started_s - 1, n);
        deliver(&mut books, 1, 1, old(3), &head(99, 6, 5));
        assert_eq!(books.tally.sums.faults.misdelivered, 0);
        deliver(&mut books, 1, 8, old(4), &head(99, 6, 6));
        assert_eq!(books.tally.sums.faults.misdelivered, 1, "two senders claim to be one phone");
        let welcome = |account| Event::Welcome {
            account: AccountId(account),
            device: tern_protocol::ids::DeviceId(1),
            time_ms: 0,
            window: 1,
            server_key: Some([0; 32]),
            keep_alive_s: 240,
        };
        let mut signals = Signals::default();
        for goes_wrong in [true, false] {
            books.take(0, welcome(1), 5, 0.0, &mut signals);
            let goodbye = ServerFrame::Goodbye { reason: GoodbyeReason::Busy, retry_ms: 1 };
            let next = if goes_wrong { goodbye } else { ServerFrame::Drained };
            assert_eq!((signals.welcome, books.accounts[0]), (None, None), "nothing is made yet");
            books.take(0, Event::Frame(next), 5, 0.0, &mut signals);
        }
        assert!(signals.welcome.is_some() && books.accounts[0] == Some(AccountId(1)));
        assert_eq!(books.tally.sums.faults.misdelivered, 1);
        books.take(0, welcome(8), 5, 0.0, &mut Signals::default());
        assert_eq!(books.tally.sums.faults.misdelivered, 2, "another account than before");
    }

    #[test]
    fn leftovers_are_checked_and_left_out_of_the_figures() {
        let (mut books, _) = books(128);
        let old = MessageId::new(RUN.started_s - 1, 3);
        let body = head(99, 6, 5);
        assert_eq!(deliver(&mut books, 1, 1, old, &body).ack, Some(9));
        assert_eq!((books.tally.sums.leftovers, books.tally.sums.delivered), (1, 0));
        assert_eq!(books.tally.sums.faults, Faults::default());
        deliver(&mut books, 1, 1, MessageId::new(RUN.started_s - 1, 4), &head(99, 0, 6));
        assert_eq!(books.tally.sums.faults.misdelivered, 1);
    }
}
