//! Accounts come, and phones log in to them.

use crate::account::{Account, Revoking};
use crate::control::{AccountInfo, ControlReply, ControlRequest, Created, NewAccount};
use crate::edge::{Greeting, State};
use crate::io::{ConnId, Now, Output, Outputs};
use crate::shard::{Shard, bug};
use crate::writer::{Item, Waiter};
use alloc::boxed::Box;
use alloc::vec::Vec;
use tern_protocol::ids::{AccountId, DeviceId, PartitionId, Seq};
use tern_protocol::phone::frame::{ErrorCode, GoodbyeReason, ServerFrame};
use tern_protocol::phone::server::KeyLogin;
use tern_protocol::phone::valid_name;
use tern_storage::mailbox::DEVICES_MAX;

/// Seconds after which a silent phone should ping, at most.
const KEEP_ALIVE_S_MAX: u64 = 240;
/// Most accounts in one page of a listing.
const PAGE_COUNT_MAX: u32 = 10_000;

/// After how many silent seconds a phone should ping: a fifth of its patience is left for the ping to arrive.
const fn keep_alive_s(idle_ms: u64) -> u16 {
    let most_s = idle_ms / 1000 * 4 / 5;
    // At least one: `idle_ms` is at least 2,000.
    (if most_s < KEEP_ALIVE_S_MAX { most_s } else { KEEP_ALIVE_S_MAX }) as u16
}

impl Shard {
    /// An authenticated edge wants in; this shard is the home of its name.
    pub(crate) fn log_in(&mut self, now: Now, conn: ConnId, login: &KeyLogin) {
        if self.draining {
            let retry_ms = self.drain_ms();
            self.goodbye(conn, GoodbyeReason::Draining, retry_ms);
            return;
        }
        let Some(index) = self.accounts.by_name(&login.name) else {
            self.greet_new(now, conn, login);
            return;
        };
        let account = self.accounts.get(index);
        if account.is_some_and(|account| account.removing != Revoking::No) {
            self.come_back_later(conn);
            return;
        }
        let place = account.and_then(|account| account.place_of_key(&login.device_key));
        let device = account.and_then(|account| Some((account.id, account.device(place?)?.id)));
        let is_leaving = account.is_some_and(|account| account.is_leaving(&login.device_key));
        if device.is_none() && is_leaving {
            self.come_back_later(conn);
            return;
        }
        let Some((id, device)) = device else {
            let code = if login.register { ErrorCode::NameTaken } else { ErrorCode::WrongKey };
            self.refuse_login(conn, code, "another key");
            return;
        };
        let is_known = account.and_then(|account| account.device(place?)).is_some_and(|found| found.is_known);
        if !is_known || account.is_some_and(|account| account.position.is_none()) {
            // Its registration or its adding is not durable yet: the welcome waits for it.
            let needs_key = login.by_previous_key;
            self.writer.wait(Waiter::Welcome { conn, account: id, device, needs_key });
            return;
        }
        self.greet(now, conn, id, device, None, login.by_previous_key);
    }

    /// Ends the edge of a client that keeps to the protocol, and may not come in as who it says it is.
    fn refuse_login(&mut self, conn: ConnId, code: ErrorCode, detail: &str) {
        let counters = &mut self.counters;
        let counter = match code {
            ErrorCode::UnknownAccount => &mut counters.logins_unknown,
            ErrorCode::WrongKey => &mut counters.logins_wrong_key,
            ErrorCode::NameTaken => &mut counters.logins_name_taken,
            ErrorCode::RegistrationClosed => &mut counters.logins_closed,
            _ => &mut counters.protocol_errors,
        };
        *counter += 1;
        self.end_with(conn, code, detail);
    }

    /// A name that nobody has. What came so far may be an old login, played again: the account is made by what only the
    /// phone itself can say next.
    fn greet_new(&mut self, now: Now, conn: ConnId, login: &KeyLogin) {
        let refusal = if !login.register {
            Some((ErrorCode::UnknownAccount, "no such account"))
        } else if !self.config.open_registration {
            Some((ErrorCode::RegistrationClosed, "ask the operator for an account"))
        } else {
            None
        };
        if let Some((code, detail)) = refusal {
            self.refuse_login(conn, code, detail);
            return;
        }
        if self.lacks_room_for_account().is_some() {
            self.refuse_busy(conn);
            return;
        }
        let account = self.accounts.next_id(self.partition_of(&login.name));
        let registers = Some(NewAccount { name: login.name.clone(), device_keys: [login.device_key].into() });
        if bug!(self, replay_registers) {
            registers.iter().for_each(|new| _ = self.create_account(new));
        }
        let (device, needs_key) = (DeviceId(1), login.by_previous_key);
        self.welcome(now, conn, Greeting { account, device, number: 0, ticket: None, needs_key, registers });
    }

    /// A phone that was greeted as a new account's is really there: the account is made, and the session begins when that
    /// is on stable storage.
    pub(crate) fn register(&mut self, now: Now, conn: ConnId, greeting: Greeting, new: &NewAccount) {
        let is_free = self.accounts.by_name(&new.name).is_none()
            && self.accounts.next_id(self.partition_of(&new.name)) == greeting.account;
        if !is_free {
            // Somebody else was faster, or itself on another connection: it is greeted again as what it is then.
            self.counters.registrations_overtaken += 1;
            self.come_back_later(conn);
            return;
        }
        if !self.may_register(now, conn) {
            self.refuse_busy(conn);
            return;
        }
        match self.create_account(new) {
            Created::New(id) => {
                assert_eq!(id, greeting.account, "told before it was given out");
                self.begin_when_stable(conn, greeting);
            }
            Created::Full | Created::LogFull => self.refuse_busy(conn),
            other => unreachable!("a free and valid name, and one key: {other:?}"),
        }
    }

    /// The account is there and durable: say welcome, and wait for proof that this is no replay.
    /// `ticket` is the number of the one that it came with; `needs_key` says that it may know only an older key of the
    /// server.
    pub(crate) fn greet(
        &mut self,
        now: Now,
        conn: ConnId,
        account: AccountId,
        device: DeviceId,
        ticket: Option<u32>,
        needs_key: bool,
    ) {
        if !self.edges.get_mut(conn).is_some_and(|edge| matches!(edge.state, State::Greeting)) {
            return;
        }
        let Some((index, place)) = self.accounts.find_device(account, device) else {
            self.goodbye(conn, GoodbyeReason::Removed, 0);
            return;
        };
        if self.is_going(index, place) {
            self.come_back_later(conn);
            return;
        }
        let registers = None;
        let greeting = Greeting { account, device, number: 0, ticket, needs_key, registers };
        self.welcome(now, conn, greeting);
        if bug!(self, replay_replaces) {
            self.replace_session(index, place);
        }
    }

    /// Says welcome; `greeting` gets its number.
    fn welcome(&mut self, now: Now, conn: ConnId, greeting: Greeting) {
        let Some(edge) = self.edges.get_mut(conn) else { return };
        self.greeting_count += 1;
        let (account, device, number) = (greeting.account, greeting.device, self.greeting_count);
        edge.state = State::Greeted(Box::new(Greeting { number, ..greeting }));
        let limits = &self.config.limits;
        let welcome = ServerFrame::Welcome {
            account,
            device,
            time_ms: now.wall_ms,
            keep_alive_s: keep_alive_s(limits.idle_ms),
            window: limits.window_count,
            body_bytes_max: limits.body_bytes as u32,
        };
        self.say(conn, &welcome);
    }

    /// A connection ends without having said what only its phone can say. If it was welcomed, its handshake may have
    /// been somebody else's, played again.
    pub(crate) fn count_unproven(&mut self, conn: ConnId) {
        if self.edges.get_mut(conn).is_some_and(|edge| matches!(edge.state, State::Greeted(_))) {
            self.counters.logins_unproven += 1;
        }
    }

    /// The control plane asks.
    pub(crate) fn control(&mut self, token: u64, request: ControlRequest, out: &mut Outputs) {
        match request {
            ControlRequest::ListAccounts { after, limit } => {
                let (list, next) = self.list_accounts(after, limit);
                let reply = ControlReply::Accounts { list, next };
                out.push(Output::Reply { token, reply });
            }
            ControlRequest::LookForHottest { from, count } => {
                let reply = ControlReply::Looked(self.look_for_hottest(from, count));
                out.push(Output::Reply { token, reply });
            }
            ControlRequest::ListBusiest { count } => {
                let reply = ControlReply::Busiest(self.list_busiest(count));
                out.push(Output::Reply { token, reply });
            }
            _ if self.draining => out.push(Output::Reply { token, reply: ControlReply::Refused }),
            ControlRequest::CreateAccounts(accounts) => {
                let created = accounts.iter().map(|account| self.create_account(account)).collect();
                self.writer.wait(Waiter::Reply { token, reply: ControlReply::Created(created) });
            }
            ControlRequest::RemoveAccount { name } => self.remove_account(token, &name, out),
        }
    }

    fn create_account(&mut self, new: &NewAccount) -> Created {
        if !valid_name(&new.name) {
            return Created::BadName;
        }
        let partition = self.partition_of(&new.name);
        assert_eq!(self.config.partitions.shard_of(partition), self.config.shard, "another shard's name");
        if let Some(account) = self.accounts.by_name(&new.name).and_then(|index| self.accounts.get(index)) {
            let same = account.devices().map(|device| &device.key).eq(new.device_keys.iter());
            let stays = account.removing == Revoking::No;
            return if same && stays { Created::Existing(account.id) } else { Created::Taken };
        }
        if new.device_keys.is_empty() || new.device_keys.len() > DEVICES_MAX {
            return Created::BadKeys;
        }
        if let Some(full) = self.lacks_room_for_account() {
            return full;
        }
        let id = self.accounts.next_id(partition);
        // Places before this one were given out before the account was there.
        let since = Seq(self.next_seq.0 - 1);
        let index = self.accounts.add(Account::new(id, &new.name, &new.device_keys, since));
        self.writer.push_urgent(Item::Account(index));
        self.counters.accounts_created += 1;
        Created::New(id)
    }

    fn partition_of(&self, name: &str) -> PartitionId {
        PartitionId::of_name(name, self.config.partitions.partition_count())
    }

    /// Why no account can be made now, if so; that is counted.
    fn lacks_room_for_account(&mut self) -> Option<Created> {
        if self.accounts.count() >= self.config.limits.account_count as usize {
            self.counters.accounts_full += 1;
            return Some(Created::Full);
        }
        if self.writer.log.is_low() {
            self.count_low_log();
            return Some(Created::LogFull);
        }
        None
    }

    fn list_accounts(&self, after: AccountId, limit: u32) -> (Vec<AccountInfo>, Option<AccountId>) {
        let limit = limit.min(PAGE_COUNT_MAX) as usize;
        let (page, next) = self.accounts.page(after, limit, self.config.partitions.partition_count());
        let list = page
            .into_iter()
            .map(|account| AccountInfo {
                id: account.id,
                name: (&*account.name).into(),
                devices: account.devices().map(|device| device.id).collect(),
                online_count: account.devices().filter(|device| device.session.is_some()).count() as u32,
                mailbox_count: account.mailbox.open_count() as u32,
            })
            .collect();
        (list, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Limits, WAIT_MS_MAX};

    #[test]
    fn who_pings_when_told_is_not_taken_for_silent() {
        let is_allowed = |idle_ms| Limits { idle_ms, ..Limits::default() }.validate().is_ok();
        let shortest_ms = (0..).find(|&idle_ms| is_allowed(idle_ms)).unwrap();
        for idle_ms in (shortest_ms..10_000).chain([60_000, 299_999, 300_000, 600_000, WAIT_MS_MAX]) {
            let keep_alive_s = u64::from(keep_alive_s(idle_ms));
            assert!((1..=KEEP_ALIVE_S_MAX).contains(&keep_alive_s), "{idle_ms}");
            assert!(keep_alive_s * 1000 + idle_ms / 5 <= idle_ms, "{idle_ms}: {keep_alive_s} s");
        }
        assert_eq!((keep_alive_s(10_000), keep_alive_s(600_000)), (8, 240));
    }
}
