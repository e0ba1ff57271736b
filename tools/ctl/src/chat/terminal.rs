//! The command: lines in, lines out, one connection after the other.

use super::connection::{self, Input};
use super::keep::{self, Keep, Server};
use super::link::{Link, Note, Up, Way};
use super::talk::{Now, Say, Talk, plain};
use super::words;
use crate::account::check_name;
use crate::keys::random;
use anyhow::{Context, Result, bail};
use clap::{Arg, Args};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tern_protocol::hex::{from_hex, to_hex};
use tern_protocol::ids::DeviceId;
use tern_protocol::phone::client::{Client, ClientConfig, ClientError, Event};
use tern_protocol::phone::frame::{ClientFrame, ErrorCode, GoodbyeReason, ServerFrame};
use tern_protocol::phone::noise::KeyPair;

/// How often it is looked what is due.
const BEAT: Duration = Duration::from_millis(100);
/// A connection that was silent for so long is tried with a ping, or earlier if the server wants it.
const PING_MS: u64 = 60_000;
const PONG_LIMIT_MS: u64 = 20_000;
const LOGIN_LIMIT_MS: u64 = 20_000;
/// After the end of input: how long ticks are waited for.
const LEAVE_MS: u64 = 10_000;
/// After `/quit`: the same, for a person who is in a hurry.
const QUIT_MS: u64 = 2_000;
/// Handshakes by the known key that may end without a word: a server that is going down does that too.
const SILENT_COUNT_MAX: u32 = 3;

/// Whom to talk as, and where.
#[derive(Args, Debug)]
pub(crate) struct ChatArgs {
    /// The account's name.
    name: String,
    /// Where the server takes phones.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7322", value_parser = keep::door_of)]
    phone: String,
    /// The private key of this device [default: NAME.key]. Beside it a .state file keeps tickets and known servers.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The server's public key (64 hex digits); without it the one known from before, or the first one shown.
    #[arg(long, value_name = "HEX")]
    server_key: Option<String>,
    /// Make the account at the door, and the key file, if they are not there.
    #[arg(long)]
    register: bool,
}

/// The flags of all other commands that a chat has no use for: neither shown nor taken.
pub(crate) fn refused_args() -> [Arg; 2] {
    let refuse = |_: &str| Err::<String, _>("a chat asks no admin endpoint");
    [("token_file", "token-file"), ("ca", "ca")]
        .map(|(id, flag)| Arg::new(id).long(flag).hide(true).num_args(1).value_parser(refuse))
}

/// Talks until the person leaves.
pub(crate) fn chat(args: &ChatArgs) -> Result<()> {
    check_name(&args.name)?;
    let key_file = args.key.clone().unwrap_or_else(|| PathBuf::from(format!("{}.key", args.name)));
    let keys = keep::key(&key_file, args.register)?;
    let keep = Keep::beside(&key_file)?;
    let named_key = match &args.server_key {
        Some(hex) => {
            Some(from_hex(hex).with_context(|| format!("--server-key {hex}: allowed are 64 hex digits"))?)
        }
        None => None,
    };
    let (sender, inputs) = channel();
    connection::read_lines(sender.clone());
    let terminal = Terminal {
        name: args.name.clone(),
        door: args.phone.clone(),
        register: args.register,
        keys,
        keep,
        named_key,
        talk: Talk::new(&args.name, u64::from_le_bytes(random()?)),
        start: Instant::now(),
        sender,
        link: Link::Down { again_ms: 0 },
        link_count: 0,
        failed_count: 0,
        welcomed: None,
        silent_count: 0,
        leaving_ms: None,
        quitting_ms: None,
    };
    terminal.run(&inputs)
}

struct Terminal {
    name: String,
    door: String,
    register: bool,
    keys: KeyPair,
    keep: Keep,
    /// The server's key as the person named it, until a server has shown that it has it: what is known from before is
    /// not given up for a slip of the hand.
    named_key: Option<[u8; 32]>,
    talk: Talk,
    start: Instant,
    sender: Sender<Input>,
    link: Link,
    /// Numbers connections.
    link_count: u32,
    /// Connections in a row that did not come to a welcome.
    failed_count: u32,
    /// The device that the server has welcomed, until it says more.
    welcomed: Option<DeviceId>,
    /// Those of them that the server ended without a word, though its key is known.
    silent_count: u32,
    /// Since when there is no more input.
    leaving_ms: Option<u64>,
    /// Since when the person wants to leave.
    quitting_ms: Option<u64>,
}

impl Terminal {
    fn run(mut self, inputs: &Receiver<Input>) -> Result<()> {
        loop {
            match inputs.recv_timeout(BEAT) {
                Ok(input) => self.take(input)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            // A burst is shown and said together.
            while let Ok(input) = inputs.try_recv() {
                self.take(input)?;
            }
            self.keep_up()?;
            self.speak()?;
            if self.is_done()? {
                return self.leave();
            }
        }
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: self.start.elapsed().as_millis() as u64, unix_ms: unix.as_millis() as u64 }
    }

    fn take(&mut self, input: Input) -> Result<()> {
        let now = self.now();
        match input {
            Input::Line(line) => self.talk.typed(&line, now),
            Input::End => self.leaving_ms = Some(now.mono_ms),
            Input::Connected(number, socket) if number == self.link_count => self.begin(socket)?,
            Input::Bytes(number, bytes) if number == self.link_count => self.hear(&bytes, now)?,
            Input::Lost(number, why) if number == self.link_count => self.lost(&why, None)?,
            // Of a connection that was given up.
            Input::Connected(..) | Input::Bytes(..) | Input::Lost(..) => {}
        }
        Ok(())
    }

    /// The socket is there: the handshake begins, with a ticket if there is one.
    fn begin(&mut self, socket: TcpStream) -> Result<()> {
        let now = self.now();
        let known = self.server();
        let ticket =
            known.ticket.filter(|(_, until_s)| now.unix_ms / 1000 < *until_s).map(|(ticket, _)| ticket);
        let by = match (&ticket, &known.key) {
            (Some(_), _) => Way::Ticket,
            (None, Some(_)) => Way::KnownKey,
            (None, None) => Way::AnyKey,
        };
        let client = Client::new(ClientConfig {
            name: self.name.clone(),
            keys: self.keys,
            server_key: known.key,
            ticket,
            register: self.register,
            partition_hint: known.partition,
            seed: random()?,
        });
        self.link = Link::Up(Box::new(Up {
            socket,
            client,
            by,
            began_ms: now.mono_ms,
            said_ms: now.mono_ms,
            ping_ms: PING_MS,
            pong_due_ms: None,
            has_heard: false,
        }));
        Ok(())
    }

    fn hear(&mut self, bytes: &[u8], now: Now) -> Result<()> {
        let Link::Up(up) = &mut self.link else { return Ok(()) };
        (up.has_heard, up.pong_due_ms) = (true, None);
        let mut notes = Vec::new();
        let (talk, welcomed, name) = (&mut self.talk, &mut self.welcomed, &self.name);
        let result = up.client.receive(bytes, &mut |event| {
            let is_end = |frame| matches!(frame, ServerFrame::Error { .. } | ServerFrame::Goodbye { .. });
            // An account that is made by this login is there with the first frame behind the welcome.
            if let Some(device) = welcomed.take_if(|_| matches!(event, Event::Frame(frame) if !is_end(frame)))
            {
                talk.show(format!("connected as {name}, device {}", device.0));
            }
            notes.extend(Note::of(event));
            talk.hear(event, now);
        });
        for note in notes {
            self.heed(note, now)?;
        }
        match result {
            Ok(()) => Ok(()),
            Err(ClientError::Handshake) if matches!(&self.link, Link::Up(up) if up.by == Way::KnownKey) => {
                self.wrong_server()
            }
            Err(error) => {
                if matches!(&self.link, Link::Up(up) if up.by == Way::Ticket) {
                    self.drop_ticket()?;
                }
                let is_begun = matches!(&self.link, Link::Up(up) if up.client.ready());
                self.lost(words::not_understood(&error, is_begun), None)
            }
        }
    }

    /// What is taken for true of the server: what the person says, before what is known.
    fn server(&self) -> Server {
        let known = self.keep.of(&self.door);
        match self.named_key {
            Some(key) if known.key != Some(key) => Server { key: Some(key), ticket: None, ..known },
            _ => known,
        }
    }

    fn heed(&mut self, note: Note, now: Now) -> Result<()> {
        let mut server = self.server();
        match note {
            Note::Welcome { account, device, server_key, keep_alive_s } => {
                (self.failed_count, self.silent_count) = (0, 0);
                if server.key.is_some() && server_key.is_some() && server.key != server_key {
                    return self.wrong_server();
                }
                self.named_key = None;
                if let (None, Some(key)) = (server.key, server_key) {
                    let hex = to_hex(&key);
                    self.talk.show(format!("! first contact: the server at {} has the key {hex}", self.door));
                    self.talk.show(
                        "! it is trusted from now on; ask the operator whether it is the right one".into(),
                    );
                    server.key = Some(key);
                }
                if let Link::Up(up) = &mut self.link {
                    up.ping_ms = PING_MS.min(u64::from(keep_alive_s.max(1)) * 1000);
                    if up.by == Way::Ticket {
                        // It is used up with `Start`, which is written after this.
                        server.ticket = None;
                    }
                }
                server.partition = Some(account.partition());
                self.welcomed = Some(device);
            }
            Note::Ticket { ticket, valid_s } => {
                server.ticket = Some((ticket, now.unix_ms / 1000 + u64::from(valid_s)));
            }
            Note::ServerKey(key) => {
                if server.key != Some(key) {
                    self.talk.show(format!(
                        "! the server has changed its key to {}, and said so itself",
                        to_hex(&key)
                    ));
                }
                server.key = Some(key);
            }
            Note::TicketRefused | Note::Refused { code: ErrorCode::TicketUsed, .. } => {
                self.drop_ticket()?;
                return self.lost("the ticket is used up", Some(0));
            }
            Note::Refused { code: ErrorCode::Internal, detail } => return self.lost(&plain(&detail), None),
            Note::Refused { code, detail } => return self.refused(code, &plain(&detail)),
            Note::Goodbye { reason: GoodbyeReason::Replaced, .. } => {
                bail!("this device has logged in elsewhere: a key is for one device");
            }
            Note::Goodbye { reason: GoodbyeReason::Removed, .. } => {
                bail!("this device was taken off the account, or the account is gone");
            }
            Note::Goodbye { reason, retry_ms } => {
                return self.lost(words::goodbye(reason), Some(retry_ms));
            }
            Note::Busy { retry_ms } => return self.lost("the server is busy", Some(retry_ms)),
            Note::Version { min, max } => {
                bail!(
                    "the server at {} speaks versions {min} to {max} of the protocol, this is 1",
                    self.door
                );
            }
        }
        self.keep.put(&self.door, server)
    }

    /// The ticket does not work: the device's key must do.
    fn drop_ticket(&mut self) -> Result<()> {
        let server = self.keep.of(&self.door);
        self.keep.put(&self.door, Server { ticket: None, ..server })
    }

    fn refused(&self, code: ErrorCode, detail: &str) -> Result<()> {
        let text = words::refused(code, detail);
        if matches!(code, ErrorCode::WrongKey | ErrorCode::NameTaken) {
            let key = to_hex(&self.keys.public);
            bail!("{text}\nif the account is yours, type on one of its devices: /add {key}");
        }
        bail!("{text}")
    }

    /// Somebody answers at the server's address who does not have the server's key.
    fn wrong_server(&self) -> Result<()> {
        let known = self.server().key.map_or(String::new(), |key| to_hex(&key));
        let whose = if self.named_key.is_some() { "--server-key names" } else { "is known for it" };
        bail!(
            "!! the server at {} does not have the key that {whose}, {known}\n\
             !! someone may be listening in, or the server was set up anew. Nothing was sent.\n\
             !! ask the operator for the present key and say --server-key HEX (known servers: {})",
            self.door,
            self.keep.file().display()
        )
    }

    /// The connection is over: come again after `retry_ms`, or by ourselves ever later.
    fn lost(&mut self, why: &str, retry_ms: Option<u32>) -> Result<()> {
        let now_ms = self.now().mono_ms;
        self.link_count += 1;
        let old = std::mem::replace(&mut self.link, Link::Down { again_ms: now_ms });
        self.talk.disconnected();
        if let Link::Up(up) = &old {
            let _ = up.socket.shutdown(Shutdown::Both);
            let said_nothing = !up.has_heard && retry_ms.is_none();
            match up.by {
                // Perhaps the server does not know its secret any more.
                Way::Ticket if said_nothing => self.drop_ticket()?,
                Way::KnownKey if said_nothing => self.silent_count += 1,
                _ => {}
            }
            if self.silent_count >= SILENT_COUNT_MAX {
                return self.wrong_server();
            }
            if up.has_heard && retry_ms != Some(0) {
                self.talk.show(format!("not connected: {why}; coming back"));
            }
        } else if self.failed_count == 0 {
            self.talk.show(format!("no connection to {}: {why}; trying again", self.door));
        }
        let wait_ms = retry_ms.unwrap_or(200 << self.failed_count.min(5));
        self.failed_count += 1;
        self.link = Link::Down { again_ms: now_ms + self.talk.with_jitter(wait_ms) };
        Ok(())
    }

    /// Timers of the connection.
    fn keep_up(&mut self) -> Result<()> {
        let now_ms = self.now().mono_ms;
        match &mut self.link {
            Link::Down { again_ms } if now_ms >= *again_ms => {
                self.link = Link::Connecting;
                connection::connect(self.door.clone(), self.link_count, self.sender.clone());
                Ok(())
            }
            Link::Up(up) if up.pong_due_ms.is_some_and(|due_ms| now_ms >= due_ms) => {
                self.lost("the server is silent", None)
            }
            Link::Up(up) if !up.client.ready() && now_ms >= up.began_ms + LOGIN_LIMIT_MS => {
                // A server that is slow is not a wrong one.
                self.lost("the login takes too long", Some(1000))
            }
            Link::Up(up) if up.client.ready() && now_ms >= up.said_ms + up.ping_ms => {
                up.client.send(&ClientFrame::Ping { token: 1 });
                up.pong_due_ms = Some(now_ms + PONG_LIMIT_MS);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Shows what there is, then tells the server: what was not shown is not acknowledged.
    fn speak(&mut self) -> Result<()> {
        let now = self.now();
        let is_ready = matches!(&self.link, Link::Up(up) if up.client.ready());
        if is_ready {
            self.talk.say_what_is_due(now);
        }
        let mut out = std::io::stdout().lock();
        for line in self.talk.lines.drain(..) {
            writeln!(out, "{line}").context("standard output")?;
        }
        out.flush().context("standard output")?;
        drop(out);
        let Link::Up(up) = &mut self.link else { return Ok(()) };
        if is_ready {
            self.talk.ack.take().into_iter().for_each(|number| up.client.ack(number));
            for say in self.talk.says.drain(..) {
                match &say {
                    Say::Frame(frame) => up.client.send(frame),
                    Say::Send { to, id, text } => {
                        up.client.send(&ClientFrame::Send { to: *to, id: *id, body: text.as_bytes() });
                    }
                    Say::Lookup(name) => up.client.send(&ClientFrame::Lookup { name }),
                }
            }
        }
        let mut bytes = Vec::new();
        up.client.flush(&mut bytes);
        if bytes.is_empty() {
            return Ok(());
        }
        up.said_ms = now.mono_ms;
        match up.socket.write_all(&bytes) {
            Ok(()) => Ok(()),
            // What the server said before it closed is still to be read: the reader tells the end.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => self.lost(&error.to_string(), None),
        }
    }

    /// Whether to leave now: what was written is waited for, but not for ever.
    fn is_done(&mut self) -> Result<bool> {
        let now_ms = self.now().mono_ms;
        if self.talk.quits {
            let since_ms = *self.quitting_ms.get_or_insert(now_ms);
            return Ok(self.talk.unticked_count() == 0 || now_ms >= since_ms + QUIT_MS);
        }
        let Some(since_ms) = self.leaving_ms else { return Ok(false) };
        Ok(self.talk.is_settled() || now_ms >= since_ms + LEAVE_MS)
    }

    fn leave(mut self) -> Result<()> {
        let unticked_count = self.talk.unticked_count();
        if let Link::Up(up) = &mut self.link {
            up.client.send(&ClientFrame::Goodbye);
            let mut bytes = Vec::new();
            up.client.flush(&mut bytes);
            let _ = up.socket.write_all(&bytes);
        }
        if unticked_count > 0 {
            bail!("{unticked_count} messages have no tick: they may have arrived or not");
        }
        if !self.talk.quits && !self.talk.is_settled() {
            bail!("not all mail was fetched from {} in time", self.door);
        }
        Ok(())
    }
}
