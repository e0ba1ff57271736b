//! What the person and the server say, and what comes of it: lines to show and frames to send. No I/O, no clock.

mod hear;

use super::outbox::Outbox;
use super::words;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tern_protocol::hex::from_hex;
use tern_protocol::ids::{AccountId, DeviceId, MessageId};
use tern_protocol::phone::frame::{ClientFrame, PresenceState};

/// Longest line that is sent as one message.
const TEXT_BYTES_MAX: usize = 8192;
/// A `Read` without its answer is said again.
const READ_AGAIN_MS: u64 = 60_000;
/// A lookup without its answer is asked again.
const ASK_AGAIN_MS: u64 = 10_000;
/// A watch lasts 600 s.
const WATCH_AGAIN_MS: u64 = 540_000;

/// The two clocks: monotonic for waiting, Unix time for stamps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) mono_ms: u64,
    pub(super) unix_ms: u64,
}

/// Something to say to the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Say {
    /// A frame without text.
    Frame(ClientFrame<'static>),
    /// A message.
    Send { to: AccountId, id: MessageId, text: String },
    /// Whose name is this?
    Lookup(String),
}

/// Whom the person talks to.
#[derive(Debug)]
enum Partner {
    Nobody,
    /// The server is asked for the name; what is written meanwhile is held.
    Asked {
        name: String,
        asked_ms: Option<u64>,
        held: Vec<String>,
    },
    Known {
        name: String,
        account: AccountId,
        /// When its presence is asked for next.
        watch_at_ms: u64,
    },
}

/// A message of this account, as far as its ticks have been shown.
#[derive(Debug)]
struct Own {
    /// Its number on the screen; `None` for one of an earlier run.
    number: Option<u32>,
    shown: Tick,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Tick {
    None,
    Sent,
    Delivered,
    Read,
}

/// A message that was shown and whose author is to hear of it.
#[derive(Debug)]
struct Reading {
    author: AccountId,
    id: MessageId,
    said_ms: Option<u64>,
}

/// One person's conversation, over any number of connections.
#[derive(Debug)]
pub(super) struct Talk {
    name: String,
    me: Option<(AccountId, DeviceId)>,
    /// The server's clock less ours.
    ahead_ms: i64,
    low: u16,
    jitter: u64,
    partner: Partner,
    presence: Option<(AccountId, PresenceState)>,
    typing: Option<(AccountId, u64)>,
    names: HashMap<AccountId, String>,
    outbox: Outbox,
    own: BTreeMap<MessageId, Own>,
    own_count: u32,
    taken: BTreeSet<(MessageId, AccountId)>,
    readings: Vec<Reading>,
    drained: bool,
    /// Lines to show, in order.
    pub(super) lines: Vec<String>,
    /// Up to where deliveries were taken; to be acknowledged once the lines are shown.
    pub(super) ack: Option<u32>,
    /// What to say, in order.
    pub(super) says: Vec<Say>,
    /// Whether the person wants to leave.
    pub(super) quits: bool,
}

impl Talk {
    /// `seed` is random: message ids and waiting times begin with it.
    pub(super) fn new(name: &str, seed: u64) -> Self {
        Self {
            name: name.into(),
            me: None,
            ahead_ms: 0,
            low: seed as u16,
            jitter: seed | 1,
            partner: Partner::Nobody,
            presence: None,
            typing: None,
            names: HashMap::new(),
            outbox: Outbox::default(),
            own: BTreeMap::new(),
            own_count: 0,
            taken: BTreeSet::new(),
            readings: Vec::new(),
            drained: false,
            lines: Vec::new(),
            ack: None,
            says: Vec::new(),
            quits: false,
        }
    }

    /// Messages without a final answer.
    pub(super) fn unticked_count(&self) -> usize {
        let held = if let Partner::Asked { held, .. } = &self.partner { held.len() } else { 0 };
        self.outbox.len() + held
    }

    /// Whether nothing is under way: all mail was shown, all that was written is safe.
    pub(super) fn is_settled(&self) -> bool {
        let asks = matches!(self.partner, Partner::Asked { .. });
        self.drained && !asks && self.outbox.len() == 0 && self.readings.is_empty()
    }

    /// The connection is gone: on the next one what has no answer is said again.
    pub(super) fn disconnected(&mut self) {
        self.outbox.disconnected();
        self.readings.iter_mut().for_each(|reading| reading.said_ms = None);
        match &mut self.partner {
            Partner::Asked { asked_ms, .. } => *asked_ms = None,
            Partner::Known { watch_at_ms, .. } => *watch_at_ms = 0,
            Partner::Nobody => {}
        }
        (self.ack, self.drained) = (None, false);
        self.says.clear();
    }

    /// Says what is due; called from time to time while the phone is logged in.
    pub(super) fn say_what_is_due(&mut self, now: Now) {
        let now_ms = now.mono_ms;
        let is_due = |last: Option<u64>, again_ms| last.is_none_or(|last| now_ms >= last + again_ms);
        match &mut self.partner {
            Partner::Asked { name, asked_ms, .. } if is_due(*asked_ms, ASK_AGAIN_MS) => {
                *asked_ms = Some(now_ms);
                self.says.push(Say::Lookup(name.clone()));
            }
            Partner::Known { account, watch_at_ms, .. } if now_ms >= *watch_at_ms => {
                *watch_at_ms = now_ms + WATCH_AGAIN_MS;
                self.says.push(Say::Frame(ClientFrame::Watch { account: *account }));
            }
            _ => {}
        }
        for reading in self.readings.iter_mut().filter(|reading| is_due(reading.said_ms, READ_AGAIN_MS)) {
            reading.said_ms = Some(now_ms);
            self.says.push(Say::Frame(ClientFrame::Read { author: reading.author, id: reading.id }));
        }
        let due = self.outbox.due(now_ms);
        self.says.extend(due.into_iter().map(|(to, id, text)| Say::Send { to, id, text }));
    }

    /// The person typed a line.
    pub(super) fn typed(&mut self, line: &str, now: Now) {
        let line = line.trim_end_matches(['\r', '\n']);
        let Some(command) = line.strip_prefix('/') else { return self.write(line, now) };
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        let rest = rest.trim();
        match word {
            "to" if tern_protocol::phone::valid_name(rest) => {
                self.refuse_held();
                self.partner = Partner::Asked { name: rest.into(), asked_ms: None, held: Vec::new() };
            }
            "to" => self.show(format!("{rest:?} is not a name")),
            "who" => self.who(),
            "typing" => self.say_to_partner(|account| ClientFrame::Typing { to: account, on: true }),
            "away" => self.frame(ClientFrame::Presence { state: PresenceState::Away }),
            "here" => self.frame(ClientFrame::Presence { state: PresenceState::Available }),
            "devices" => self.frame(ClientFrame::Devices),
            "add" => match from_hex(rest) {
                Some(key) => self.frame(ClientFrame::AddDevice { key }),
                None => self.show("/add KEYHEX: a device's public key, 64 hex digits".into()),
            },
            "revoke" => match rest.parse() {
                Ok(number) => self.frame(ClientFrame::RevokeDevice { device: DeviceId(number) }),
                Err(_) => self.show("/revoke N: the number of a device, see /devices".into()),
            },
            "quit" => self.quits = true,
            _ => self.lines.extend(words::HELP.lines().map(String::from)),
        }
    }

    /// Something that is not kept where there is no connection.
    fn frame(&mut self, frame: ClientFrame<'static>) {
        self.says.push(Say::Frame(frame));
    }

    fn say_to_partner(&mut self, frame: impl FnOnce(AccountId) -> ClientFrame<'static>) {
        match &self.partner {
            Partner::Known { account, .. } => self.says.push(Say::Frame(frame(*account))),
            Partner::Asked { .. } | Partner::Nobody => self.show("talk to someone first: /to NAME".into()),
        }
    }

    fn who(&mut self) {
        let me = self.me.map_or(String::from("not connected yet"), |(account, device)| {
            format!("{}, device {}", words::number(account), device.0)
        });
        self.show(format!("you are {}: {me}", self.name));
        self.presence = None;
        match &mut self.partner {
            Partner::Known { watch_at_ms, .. } => *watch_at_ms = 0,
            Partner::Asked { .. } | Partner::Nobody => self.show("you talk to nobody: /to NAME".into()),
        }
    }

    /// A message to the partner.
    fn write(&mut self, text: &str, now: Now) {
        if text.is_empty() {
            return;
        }
        if text.len() > TEXT_BYTES_MAX {
            return self.show(format!("not sent: {} bytes, allowed are {TEXT_BYTES_MAX}", text.len()));
        }
        let (to, name) = match &mut self.partner {
            Partner::Known { account, name, .. } => (*account, name.clone()),
            Partner::Asked { held, .. } => return held.push(text.into()),
            Partner::Nobody => return self.show("not sent: say to whom with /to NAME".into()),
        };
        let unix_ms = now.unix_ms.saturating_add_signed(self.ahead_ms);
        self.low = self.low.wrapping_add(1);
        let device = self.me.map_or(0, |(_, device)| device.0);
        let id = MessageId::new((unix_ms / 1000) as u32, u32::from(device) << 16 | u32::from(self.low));
        self.outbox.add(to, id, text.into());
        let number = self.own_message(id);
        self.show(format!("#{number} {} > {name}: {}", words::clock(unix_ms / 1000), plain(text)));
    }

    /// Gives a message of this account its number.
    fn own_message(&mut self, id: MessageId) -> u32 {
        self.own_count += 1;
        self.own.insert(id, Own { number: Some(self.own_count), shown: Tick::None });
        self.own_count
    }

    /// Lines that were written to a name that is not looked for any more.
    fn refuse_held(&mut self) {
        let Partner::Asked { held, .. } = &mut self.partner else { return };
        let held = std::mem::take(held);
        self.lines.extend(held.iter().map(|text| format!("not sent: {}", plain(text))));
    }

    fn name_of(&self, account: AccountId) -> String {
        self.names.get(&account).cloned().unwrap_or_else(|| words::number(account))
    }

    pub(super) fn show(&mut self, line: String) {
        self.lines.push(line);
    }

    /// A waiting time, and up to half as much again (xorshift64: only spread is needed).
    pub(super) fn with_jitter(&mut self, wait_ms: u32) -> u64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let wait_ms = u64::from(wait_ms);
        wait_ms + self.jitter % (wait_ms / 2 + 1)
    }
}

/// Text that cannot command the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
