//! The server's side of a connection's beginning: from the preface to a login request and a [`Transport`].

use super::frame::{ErrorCode, ServerFrame};
use super::login::{Login, valid_name};
use super::noise::{self, KeyPair, Secret, Side, StaticKey, Transport};
use super::preface::{PREFACE_BYTES, Pattern, Preface, VERSION};
use super::record::{self, HANDSHAKE_BYTES_MAX, RecordKind};
use super::ticket::TicketClaims;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// The server's side of one handshake; lives only until it is over.
pub struct Handshake {
    state: Box<snow::HandshakeState>,
    pattern: Pattern,
    /// What the ticket says, in `NNpsk0`.
    claims: Option<TicketClaims>,
    /// The key before this one, for clients that have not heard of the change; until it has been tried.
    previous: Option<Previous>,
    /// Whether it was the one that fitted.
    by_previous: bool,
    /// What the client asked for in the message that was taken last, if that was the one that says so.
    asked: Option<Asked>,
}

/// A login as it came, not looked at.
struct Asked {
    name: String,
    register: bool,
}

struct Previous {
    key: StaticKey,
    preface: [u8; PREFACE_BYTES],
    seed: [u8; 32],
}

/// Who knocks, by what was proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LoginRequest {
    /// The client holds the private half of the device key. Nothing else is proven.
    Key(KeyLogin),
    /// The client holds the psk of a ticket that this server made. Whether it is used up is its device's home to say.
    Ticket(TicketClaims),
}

/// A login with the device's own key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyLogin {
    /// The account's name, checked with [`valid_name`].
    pub name: String,
    /// Make the account if the name is free.
    pub register: bool,
    /// The device's static public key.
    pub device_key: [u8; 32],
    /// Whether the client came by the server's previous key: it should be told the present one.
    pub by_previous_key: bool,
}

/// What a handshake record led to.
#[derive(Debug)]
pub enum Progress {
    /// Another record of the client is needed; the reply, if any, was appended.
    More,
    /// The handshake is over; the reply, if any, was appended.
    Done {
        /// What the client asks for.
        login: LoginRequest,
        /// For all records from now on.
        transport: Transport,
    },
}

/// Why a handshake failed. What is in the output by then may still be sent; then the connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeError {
    /// Not a Noise message for this state, these keys and this preface.
    Noise,
    /// The login payload is malformed.
    Login,
    /// The name breaks the rules of [`valid_name`]. An `Error` frame that says so was appended.
    Name,
}

impl Handshake {
    /// Sets up the handshake that `parsed` asks for. `preface` are the bytes that it was parsed from; `seed` is
    /// 32 fresh random bytes, which nothing else may use.
    ///
    /// Takes the key in anew: a server that has many handshakes keeps a [`StaticKey`] and uses
    /// [`Handshake::with_static_key`].
    ///
    /// # Panics
    /// If the pattern is `NNpsk0`: see [`Handshake::with_ticket`].
    #[must_use]
    pub fn new(preface: &[u8; PREFACE_BYTES], parsed: &Preface, keys: &KeyPair, seed: [u8; 32]) -> Self {
        Self::with_static_key(preface, parsed, &StaticKey::new(keys), None, seed)
    }

    /// Like [`Handshake::new`], with a key that is ready: saves one key derivation of five (a tenth of the cost).
    /// Where the server's key has changed, the `previous` one is tried for a client of `IK` that does not know the
    /// present one.
    ///
    /// # Panics
    /// If the pattern is `NNpsk0`.
    #[must_use]
    pub fn with_static_key(
        preface: &[u8; PREFACE_BYTES],
        parsed: &Preface,
        key: &StaticKey,
        previous: Option<&StaticKey>,
        seed: [u8; 32],
    ) -> Self {
        let pattern = parsed.pattern;
        assert_ne!(pattern, Pattern::NNpsk0, "a ticket is needed");
        let state = noise::handshake(Side::Responder, pattern, preface, Secret::Static(key), seed);
        let previous = previous.filter(|_| pattern == Pattern::IK);
        let previous = previous.map(|key| Previous { key: key.clone(), preface: *preface, seed });
        Self { state, pattern, claims: None, previous, by_previous: false, asked: None }
    }

    /// Sets up the handshake of a client that showed a ticket. `prologue` are the bytes of the preface and the ticket's
    /// id; the claims and the psk are what [`super::ticket::TicketKeys::open`] found in it.
    #[must_use]
    pub fn with_ticket(prologue: &[u8], claims: TicketClaims, psk: &[u8; 32], seed: [u8; 32]) -> Self {
        let pattern = Pattern::NNpsk0;
        let state = noise::handshake(Side::Responder, pattern, prologue, Secret::Psk(psk), seed);
        Self { state, pattern, claims: Some(claims), previous: None, by_previous: false, asked: None }
    }

    /// Takes one whole handshake record's payload; appends a whole reply record to `out`. `IK` and `NNpsk0`: `Done`
    /// after the first message, message 2 appended. `XX`: `More` after the first, message 2 appended; `Done` after the
    /// third, nothing appended.
    ///
    /// [`Handshake::take`] and [`Handshake::answer`] in one: for who has nothing else to do in between.
    ///
    /// # Errors
    /// [`HandshakeError`]; the handshake is then over.
    pub fn read(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<Progress, HandshakeError> {
        self.take(payload)?;
        self.answer(out)
    }

    /// Whether a reply costs enough to be put off: with a device's key it takes two key agreements, with a ticket one.
    #[must_use]
    pub fn is_costly(&self) -> bool {
        self.claims.is_none() && !self.state.is_handshake_finished()
    }

    /// Takes one whole handshake record's payload; nothing is said yet. With `IK` this is about half of the handshake's
    /// cost: [`Handshake::answer`] is the other half.
    ///
    /// # Errors
    /// [`HandshakeError`]; the handshake is then over.
    pub fn take(&mut self, payload: &[u8]) -> Result<(), HandshakeError> {
        let mut inner = [0_u8; HANDSHAKE_BYTES_MAX];
        let inner_bytes = self.read_message(payload, &mut inner)?;
        let inner = &inner[..inner_bytes];
        let is_first_of_xx = self.pattern == Pattern::XX && !self.state.is_handshake_finished();
        if is_first_of_xx || self.claims.is_some() {
            // Message 1 of XX is clear, and a ticket says it all: nothing may be said here.
            return if inner.is_empty() { Ok(()) } else { Err(HandshakeError::Login) };
        }
        let login = Login::parse(inner).ok_or(HandshakeError::Login)?;
        self.asked = Some(Asked { name: String::from(login.name), register: login.register });
        Ok(())
    }

    /// What the message that was taken leads to; appends the reply that the pattern wants.
    ///
    /// # Errors
    /// [`HandshakeError`]; the handshake is then over. Also if no message was taken that waits for an answer.
    pub fn answer(&mut self, out: &mut Vec<u8>) -> Result<Progress, HandshakeError> {
        if !self.state.is_handshake_finished() {
            self.reply(out)?;
        }
        if let Some(claims) = self.claims {
            let transport = noise::transport_of(&mut self.state);
            return Ok(Progress::Done { login: LoginRequest::Ticket(claims), transport });
        }
        let Some(Asked { name, register }) = self.asked.take() else { return Ok(Progress::More) };
        let device_key = self.state.get_remote_static().and_then(|key| key.try_into().ok());
        let device_key = device_key.expect("both patterns transmit the client's static key");
        let mut transport = noise::transport_of(&mut self.state);
        if !valid_name(&name) {
            let mark = Transport::begin(out);
            ServerFrame::Error { code: ErrorCode::BadName, detail: "not a name" }.encode(out);
            transport.seal(out, mark);
            return Err(HandshakeError::Name);
        }
        let by_previous_key = self.by_previous;
        let login = LoginRequest::Key(KeyLogin { name, register, device_key, by_previous_key });
        Ok(Progress::Done { login, transport })
    }

    fn read_message(&mut self, payload: &[u8], inner: &mut [u8]) -> Result<usize, HandshakeError> {
        if let Ok(inner_bytes) = self.state.read_message(payload, inner) {
            return Ok(inner_bytes);
        }
        // Nothing of the seed has been used: an ephemeral key is made only for the reply.
        let Previous { key, preface, seed } = self.previous.take().ok_or(HandshakeError::Noise)?;
        self.state = noise::handshake(Side::Responder, self.pattern, &preface, Secret::Static(&key), seed);
        self.by_previous = true;
        self.state.read_message(payload, inner).map_err(|_| HandshakeError::Noise)
    }

    /// Appends the handshake message that is the server's turn, with an empty payload.
    fn reply(&mut self, out: &mut Vec<u8>) -> Result<(), HandshakeError> {
        let mut message = [0_u8; HANDSHAKE_BYTES_MAX];
        let bytes = self.state.write_message(&[], &mut message).map_err(|_| HandshakeError::Noise)?;
        record::append(RecordKind::Handshake, &message[..bytes], out);
        Ok(())
    }
}

impl core::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Handshake").field("pattern", &self.pattern).finish_non_exhaustive()
    }
}

/// Appends the clear answer to a preface of another version; then the server closes.
pub fn version_refusal(out: &mut Vec<u8>) {
    record::append(RecordKind::Version, &[VERSION, VERSION], out);
}

/// Appends the clear answer to a connection for which there is no time for a handshake; then the server closes.
pub fn busy_refusal(retry_ms: u32, out: &mut Vec<u8>) {
    record::append(RecordKind::Busy, &retry_ms.to_le_bytes(), out);
}

/// Appends the clear answer to a ticket that does not work; then the server closes.
pub fn ticket_refusal(out: &mut Vec<u8>) {
    record::append(RecordKind::TicketRefused, &[], out);
}
