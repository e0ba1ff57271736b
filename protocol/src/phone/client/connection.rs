//! The state machine of a client's connection.

use super::super::frame::{ClientFrame, FRAME_HEADER_BYTES, ServerFrame, first_frame_bytes};
use super::super::login::Login;
use super::super::noise::{self, PLAINTEXT_BYTES_MAX, Secret, Side, StaticKey, Transport};
use super::super::preface::{Pattern, Preface, VERSION};
use super::super::record::{self, HANDSHAKE_BYTES_MAX, HEADER_BYTES, RecordKind};
use super::event::{ClientConfig, ClientError, Event};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

/// The client's side of one connection.
pub struct Client {
    stage: Stage,
    /// The incomplete record at the end of what was received.
    input: Vec<u8>,
    /// Preface and handshake records to be written.
    clear_output: Vec<u8>,
    /// Whole frames to be sealed and written, after `Start` and the acknowledgement.
    frames: Vec<u8>,
    start_owed: bool,
    ack_owed: Option<u32>,
}

enum Stage {
    Handshake(Box<Pending>),
    /// The handshake is over, the welcome outstanding.
    Login {
        transport: Transport,
        server_key: Option<[u8; 32]>,
    },
    Ready {
        transport: Transport,
    },
    Over,
}

struct Pending {
    state: Box<snow::HandshakeState>,
    login: Vec<u8>,
    by_ticket: bool,
}

impl Client {
    /// Begins a connection; preface and first message are in the output at once.
    ///
    /// # Panics
    /// If the name is longer than 64 bytes, or `server_key` is a point of low order, which is nobody's key.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        let pattern = match (&config.ticket, &config.server_key) {
            (Some(_), _) => Pattern::NNpsk0,
            (None, Some(_)) => Pattern::IK,
            (None, None) => Pattern::XX,
        };
        let preface = Preface { version: VERSION, pattern, partition_hint: config.partition_hint };
        let mut clear_output = preface.encode().to_vec();
        let mut login = Vec::new();
        let state = if let Some(ticket) = &config.ticket {
            clear_output.extend_from_slice(&ticket.id);
            let secret = Secret::Psk(&ticket.psk);
            noise::handshake(Side::Initiator(None), pattern, &clear_output, secret, config.seed)
        } else {
            Login { register: config.register, name: &config.name }.encode(&mut login);
            let side = Side::Initiator(config.server_key.as_ref());
            let key = StaticKey::new(&config.keys);
            noise::handshake(side, pattern, &clear_output, Secret::Static(&key), config.seed)
        };
        let mut pending = Box::new(Pending { state, login, by_ticket: config.ticket.is_some() });
        let in_first = pattern == Pattern::IK;
        pending.write(in_first, &mut clear_output).expect("a server key of low order is nobody's");
        Self {
            stage: Stage::Handshake(pending),
            input: Vec::new(),
            clear_output,
            frames: Vec::new(),
            start_owed: false,
            ack_owed: None,
        }
    }

    /// Feeds received bytes, cut anywhere; calls `event` for each thing that they say. Bytes after the end of the
    /// connection (a mistake of the server's, its `Error` or `Goodbye`, or a clear refusal) are ignored.
    ///
    /// # Errors
    /// [`ClientError`] ends the connection. What was told before it still holds.
    pub fn receive(&mut self, bytes: &[u8], event: &mut dyn FnMut(Event<'_>)) -> Result<(), ClientError> {
        if self.over() {
            return Ok(());
        }
        let mut input = mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut done_bytes = 0;
        while !self.over() {
            let result = match record::split(&input[done_bytes..]) {
                Ok(None) => break,
                Ok(Some((kind, total_bytes))) => {
                    let payload = &mut input[done_bytes + HEADER_BYTES..done_bytes + total_bytes];
                    done_bytes += total_bytes;
                    self.take_record(kind, payload, event)
                }
                Err(error) => Err(ClientError::Record(error)),
            };
            if let Err(error) = result {
                self.end();
                return Err(error);
            }
        }
        // An idle client owns no buffer.
        if !self.over() && done_bytes < input.len() {
            input.drain(..done_bytes);
            self.input = input;
        }
        Ok(())
    }

    /// Whether the client is logged in.
    #[must_use]
    pub const fn ready(&self) -> bool {
        matches!(self.stage, Stage::Ready { .. })
    }

    /// Whether the connection has ended: nothing more will be told or written.
    #[must_use]
    pub const fn over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Keeps the session's keys expanded from now on ([`noise::EXPANDED_BYTES`]): for a program with
    /// many clients, most of them silent, that knows which ones will say something. Nothing before the login is over.
    pub fn expand_keys(&mut self) {
        if let Stage::Ready { transport } = &mut self.stage {
            transport.expand();
        }
    }

    /// Queues a frame. It waits for the login if need be; `Start` goes first by itself.
    ///
    /// # Panics
    /// If the frame does not fit a record; see [`crate::phone::frame::BODY_BYTES_MAX`].
    pub fn send(&mut self, frame: &ClientFrame<'_>) {
        if !self.over() {
            frame.encode(&mut self.frames);
        }
    }

    /// Appends a record with this plaintext, whatever it is: for those who try what a server does with bad frames.
    /// Nothing before the login is over.
    ///
    /// # Panics
    /// If it does not fit a record.
    pub fn seal_as_it_is(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        let Stage::Ready { transport } = &mut self.stage else { return };
        assert!(plaintext.len() <= PLAINTEXT_BYTES_MAX);
        let mark = Transport::begin(out);
        out.extend_from_slice(plaintext);
        transport.seal(out, mark);
    }

    /// Acknowledges all deliveries up to `number`: remembered, and sent before other frames at the next flush.
    pub fn ack(&mut self, number: u32) {
        if !self.over() {
            self.ack_owed = self.ack_owed.max(Some(number));
        }
    }

    /// Appends the bytes to write now: handshake bytes, then the queued frames sealed into as few records as possible.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        // Taken, not emptied: an idle client owns no buffer.
        out.append(&mut mem::take(&mut self.clear_output));
        let Stage::Ready { transport } = &mut self.stage else { return };
        let mut mark = Transport::begin(out);
        let first_bytes = out.len();
        if mem::take(&mut self.start_owed) {
            ClientFrame::Start.encode(out);
        }
        if let Some(number) = self.ack_owed.take() {
            ClientFrame::Ack { number }.encode(out);
        }
        let mut room_bytes = PLAINTEXT_BYTES_MAX - (out.len() - first_bytes);
        let frames = mem::take(&mut self.frames);
        let mut rest = &frames[..];
        loop {
            let (now, later) = rest.split_at(fitting_bytes(rest, room_bytes));
            out.extend_from_slice(now);
            transport.seal(out, mark);
            if later.is_empty() {
                return;
            }
            rest = later;
            room_bytes = PLAINTEXT_BYTES_MAX;
            mark = Transport::begin(out);
        }
    }

    /// Whether [`Client::flush`] would write something.
    #[must_use]
    pub fn has_output(&self) -> bool {
        let frames_owed = self.start_owed || self.ack_owed.is_some() || !self.frames.is_empty();
        !self.clear_output.is_empty() || self.ready() && frames_owed
    }

    fn end(&mut self) {
        *self = Self {
            stage: Stage::Over,
            input: Vec::new(),
            clear_output: Vec::new(),
            frames: Vec::new(),
            start_owed: false,
            ack_owed: None,
        };
    }

    fn take_record(
        &mut self,
        kind: RecordKind,
        payload: &mut [u8],
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), ClientError> {
        match (kind, &mut self.stage) {
            (RecordKind::Version, Stage::Handshake(_)) => {
                let &[min, max] = payload.as_array().ok_or(ClientError::Unexpected)?;
                self.end();
                event(Event::VersionRefused { min, max });
                Ok(())
            }
            (RecordKind::Busy, Stage::Handshake(_)) => {
                let retry_ms = *payload.as_array().ok_or(ClientError::Unexpected)?;
                self.end();
                event(Event::ConnectBusy { retry_ms: u32::from_le_bytes(retry_ms) });
                Ok(())
            }
            (RecordKind::TicketRefused, Stage::Handshake(pending)) if pending.by_ticket => {
                self.end();
                event(Event::TicketRefused);
                Ok(())
            }
            (RecordKind::Handshake, Stage::Handshake(pending)) => {
                let (transport, server_key) = pending.finish(payload, &mut self.clear_output)?;
                self.stage = Stage::Login { transport, server_key };
                Ok(())
            }
            (RecordKind::Transport, Stage::Login { transport, .. } | Stage::Ready { transport }) => {
                let mut rest: &[u8] = transport.open(payload).map_err(ClientError::Noise)?;
                while !rest.is_empty() && !self.over() {
                    let (frame, after) = ServerFrame::decode_first(rest).map_err(ClientError::Frame)?;
                    rest = after;
                    self.take_frame(frame, event)?;
                }
                Ok(())
            }
            _ => Err(ClientError::Unexpected),
        }
    }

    fn take_frame(
        &mut self,
        frame: ServerFrame<'_>,
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), ClientError> {
        if matches!(frame, ServerFrame::Error { .. } | ServerFrame::Goodbye { .. }) {
            self.end();
            event(Event::Frame(frame));
            return Ok(());
        }
        if let Stage::Login { .. } = self.stage {
            let ServerFrame::Welcome { account, device, time_ms, keep_alive_s, window, .. } = frame else {
                return Err(ClientError::Unexpected);
            };
            let Stage::Login { transport, server_key } = mem::replace(&mut self.stage, Stage::Over) else {
                unreachable!("seen above")
            };
            self.stage = Stage::Ready { transport };
            self.start_owed = true;
            event(Event::Welcome { account, device, time_ms, window, server_key, keep_alive_s });
            return Ok(());
        }
        if matches!(frame, ServerFrame::Welcome { .. }) {
            return Err(ClientError::Unexpected);
        }
        event(Event::Frame(frame));
        Ok(())
    }
}

impl Pending {
    /// Appends the handshake message that is the client's turn, with or without the login.
    fn write(&mut self, with_login: bool, out: &mut Vec<u8>) -> Result<(), ClientError> {
        let mut message = [0_u8; HANDSHAKE_BYTES_MAX];
        let payload = if with_login { &self.login[..] } else { &[] };
        let bytes = self.state.write_message(payload, &mut message).map_err(|_| ClientError::Handshake)?;
        record::append(RecordKind::Handshake, &message[..bytes], out);
        Ok(())
    }

    /// Takes the server's message 2 and, in `XX`, appends message 3: the session's keys and the server's key, if it
    /// was proven.
    fn finish(
        &mut self,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(Transport, Option<[u8; 32]>), ClientError> {
        let mut inner = [0_u8; HANDSHAKE_BYTES_MAX];
        self.state.read_message(payload, &mut inner).map_err(|_| ClientError::Handshake)?;
        if !self.state.is_handshake_finished() {
            self.write(true, out)?;
        }
        let server_key = self.state.get_remote_static().and_then(|key| key.try_into().ok());
        if server_key.is_none() && !self.by_ticket {
            return Err(ClientError::Handshake);
        }
        Ok((noise::transport_of(&mut self.state), server_key))
    }
}

/// Bytes of the whole frames at the head of `frames` that fit `room_bytes`; not zero where a full record has room.
fn fitting_bytes(frames: &[u8], room_bytes: usize) -> usize {
    if frames.len() <= room_bytes {
        return frames.len();
    }
    let mut taken_bytes = 0;
    while taken_bytes + FRAME_HEADER_BYTES <= frames.len() {
        let next_bytes = first_frame_bytes(&frames[taken_bytes..]);
        if taken_bytes + next_bytes > room_bytes {
            break;
        }
        taken_bytes += next_bytes;
    }
    taken_bytes
}
