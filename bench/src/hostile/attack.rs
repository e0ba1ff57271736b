//! The kinds of attack, and what each says on a connection.

use clap::ValueEnum;
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;
use tern_protocol::ids::{AccountId, DeviceId, MessageId};
use tern_protocol::phone::client::Client;
use tern_protocol::phone::frame::ClientFrame;
use tern_protocol::phone::preface::{PREFACE_BYTES, Pattern, Preface, VERSION};
use tern_protocol::phone::record::{HANDSHAKE_BYTES_MAX, RecordKind};
use tern_protocol::phone::ticket::TICKET_BYTES;

/// Addresses of an attack that does not come from a single one.
const SOURCE_COUNT: u64 = 250;
/// Addresses of one that comes from everywhere: more than a shard keeps the rates of.
const STRANGER_COUNT: u64 = 250 * 250;
/// A body that a frame holds and no server takes, whatever its limit is.
const BODY_BYTES: usize = 60_001;
/// Keep-alives of one flood.
const FLOOD_COUNT: u32 = 6_000;
/// What one meddler says: more than an account may ask for at once.
const MEDDLING_COUNT: u32 = 3_000;
/// What waits for one sleeper: more than its window.
const SLEEPER_MAIL_COUNT: u32 = 100;
const SLEEPER_BODY_BYTES: usize = 8 << 10;
/// What a trickle says at once of a record of 65,535 bytes.
const TRICKLE_BYTES: usize = 60_000;

/// What hostile clients do.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(super) enum Attack {
    /// 100,000 connects a minute from one address, which say nothing.
    Connects,
    /// Random bytes: every other time behind a good preface, as a handshake message that fails.
    Garbage,
    /// Connections that send a byte of their preface now and then, and never all of it.
    Slowloris,
    /// Resume tickets that the server never made.
    Tickets,
    /// Records longer than a handshake may be, records of no bytes, and records of those who are logged in.
    Records,
    /// Phones that log in and send a message that is larger than allowed.
    Bodies,
    /// Half-open connections: a good preface, half a handshake message, and silence.
    Halves,
    /// Phones that log in and acknowledge what they were never sent.
    Acks,
    /// Phones that log in and say more at once than one connection may.
    Floods,
    /// The first message of a phone's login, recorded once and said again by strangers.
    Replays,
    /// Connects that say nothing, nearly each from an address of its own: what no limit of an address holds up.
    Strangers,
    /// More half-open connections than the server has room for.
    Crowds,
    /// The first message of a long handshake (XX), which makes the server pay for its answer, and then silence.
    Dropouts,
    /// Devices with a good key that say that they are another account's.
    Thieves,
    /// Phones that log in and want to revoke devices that are not theirs, and to have read what they never got.
    Meddlers,
    /// Phones that log in and begin a record of the largest size: most of it at once, then a byte now and then.
    Trickles,
    /// Phones that log in and read and acknowledge nothing more. Where `writers` were before, they have more mail than
    /// their window.
    Sleepers,
    /// No attack: the phones of the sleepers to be, each of which sends itself what it will then not read.
    Writers,
}

impl Attack {
    /// Its name on the command line.
    pub(super) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Whose accounts it uses.
    pub(super) const fn accounts(self) -> Self {
        match self {
            Self::Writers => Self::Sleepers,
            other => other,
        }
    }

    /// Connections begun per second when nothing else is said.
    pub(super) const fn per_s(self) -> f64 {
        match self {
            Self::Connects => 100_000.0 / 60.0,
            Self::Strangers | Self::Crowds => 2_000.0,
            Self::Garbage | Self::Tickets | Self::Records => 1_000.0,
            Self::Slowloris | Self::Halves | Self::Dropouts => 500.0,
            // Each begins with four Diffie-Hellman operations on both sides.
            Self::Bodies | Self::Acks | Self::Replays | Self::Thieves | Self::Trickles => 200.0,
            // Each of them says some thousands of things, or much.
            Self::Floods | Self::Meddlers | Self::Sleepers | Self::Writers => 10.0,
        }
    }

    /// Connections that are open at once, at most, when nothing else is said.
    pub(super) const fn open_max(self) -> u32 {
        match self {
            Self::Crowds => 6_000,
            _ => 2_000,
        }
    }

    /// Whether bytes come one by one: all of them, or those at the end of [`Self::half_record`].
    pub(super) const fn drips(self) -> bool {
        matches!(self, Self::Slowloris | Self::Trickles)
    }

    /// Whether a connection goes on until the server ends it; others leave by themselves after a while.
    pub(super) const fn stays(self) -> bool {
        match self {
            Self::Slowloris | Self::Halves | Self::Crowds | Self::Dropouts => true,
            _ => self.logs_in(),
        }
    }

    /// Whether it logs in first, or tries to.
    pub(super) const fn logs_in(self) -> bool {
        matches!(
            self,
            Self::Bodies
                | Self::Acks
                | Self::Floods
                | Self::Thieves
                | Self::Meddlers
                | Self::Trickles
                | Self::Sleepers
                | Self::Writers
        )
    }

    /// Whether it repeats what was recorded of a phone; whether that phone knew the server's key.
    pub(super) const fn replays(self) -> Option<bool> {
        match self {
            Self::Replays => Some(true),
            Self::Dropouts => Some(false),
            _ => None,
        }
    }

    /// Whether it reads nothing more once it is logged in.
    pub(super) const fn sleeps(self) -> bool {
        matches!(self, Self::Sleepers)
    }

    /// What it says once it is logged in, as the `count`th of them; `own` is its account.
    pub(super) fn say(self, client: &mut Client, own: AccountId, count: u32) {
        let unix_s = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() as u32;
        let id = |n: u32| MessageId::new(unix_s, count.wrapping_mul(SLEEPER_MAIL_COUNT) + n);
        match self {
            Self::Bodies => client.send(&ClientFrame::Send { to: own, id: id(0), body: &[0; BODY_BYTES] }),
            Self::Acks => client.send(&ClientFrame::Ack { number: u32::MAX }),
            Self::Floods => (0..FLOOD_COUNT).for_each(|token| client.send(&ClientFrame::Ping { token })),
            Self::Meddlers => (0..MEDDLING_COUNT).for_each(|n| match n % 6 {
                0 => client.send(&ClientFrame::Read { author: AccountId(own.0 ^ 1), id: id(0) }),
                _ => client.send(&ClientFrame::RevokeDevice { device: DeviceId(2 + n as u16) }),
            }),
            Self::Writers => (0..SLEEPER_MAIL_COUNT).for_each(|n| {
                client.send(&ClientFrame::Send { to: own, id: id(n), body: &[0; SLEEPER_BODY_BYTES] });
            }),
            _ => {}
        }
    }

    /// What it says behind that: the part of a record that comes at once, then the bytes that drip.
    pub(super) fn half_record(self) -> Option<(Vec<u8>, usize)> {
        (self == Self::Trickles).then(|| {
            let mut bytes = vec![7; usize::from(u16::MAX)];
            bytes[..3].copy_from_slice(&[RecordKind::Transport as u8, 0xff, 0xff]);
            (bytes, TRICKLE_BYTES)
        })
    }

    /// Where the connection with this number comes from.
    pub(super) fn source(self, number: u64) -> IpAddr {
        let count = match self {
            Self::Connects => 1,
            Self::Strangers => STRANGER_COUNT,
            _ => SOURCE_COUNT,
        };
        let place = number % count;
        let [third, last] = [place / SOURCE_COUNT, 1 + place % SOURCE_COUNT].map(|part| part as u8);
        Ipv4Addr::new(127, 64 + self as u8, third, last).into()
    }

    /// What the connection with this number says, if it does not log in.
    pub(super) fn script(self, number: u64, random: &mut Random) -> Vec<u8> {
        let is_odd = number % 2 == 1;
        match self {
            Self::Halves | Self::Crowds => {
                let mut bytes = preface(Pattern::IK);
                record(&random.bytes(100), 200, &mut bytes);
                bytes
            }
            Self::Garbage if is_odd => {
                let mut bytes = preface(Pattern::IK);
                let message = random.bytes(200);
                record(&message, message.len(), &mut bytes);
                bytes
            }
            // The first byte is none of a preface, whatever the others are.
            Self::Garbage => [vec![0], random.bytes(199)].concat(),
            Self::Slowloris => preface(Pattern::XX)[..PREFACE_BYTES - 1].to_vec(),
            Self::Tickets => {
                let mut bytes = preface(Pattern::NNpsk0);
                bytes.extend(random.bytes(TICKET_BYTES));
                let message = random.bytes(48);
                record(&message, message.len(), &mut bytes);
                bytes
            }
            Self::Records => {
                let mut bytes = preface(Pattern::IK);
                match number % 3 {
                    0 => record(&random.bytes(HANDSHAKE_BYTES_MAX + 1), HANDSHAKE_BYTES_MAX + 1, &mut bytes),
                    1 => record(&[], 0, &mut bytes),
                    _ => {
                        bytes.extend([RecordKind::Transport as u8, 0xff, 0xff]);
                        bytes.extend(random.bytes(HANDSHAKE_BYTES_MAX + 1));
                    }
                }
                bytes
            }
            // They say nothing, or log in first, or say what was recorded elsewhere.
            _ => Vec::new(),
        }
    }
}

fn preface(pattern: Pattern) -> Vec<u8> {
    Preface { version: VERSION, pattern, partition_hint: None }.encode().to_vec()
}

/// A handshake record that says it has so many bytes.
fn record(payload: &[u8], claimed: usize, out: &mut Vec<u8>) {
    out.push(RecordKind::Handshake as u8);
    out.extend((claimed as u16).to_le_bytes());
    out.extend(payload);
}

/// Random enough to be no protocol: SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.take(count.div_ceil(8)).flatten().take(count).collect()
    }

    pub(super) fn seed(&mut self) -> [u8; 32] {
        self.bytes(32).try_into().expect("as many as asked for")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_protocol::phone::preface::PrefaceError;
    use tern_protocol::phone::record::{RecordError, split, split_handshake};

    fn script(attack: Attack, number: u64) -> Vec<u8> {
        attack.script(number, &mut Random::new(7))
    }

    fn preface_of(bytes: &[u8]) -> Result<Preface, PrefaceError> {
        Preface::parse(bytes.first_chunk().expect("as long as a preface"))
    }

    #[test]
    fn each_is_wrong_where_it_should_be() {
        assert!(preface_of(&script(Attack::Garbage, 0)).is_err());
        let noise = script(Attack::Garbage, 1);
        assert_eq!(preface_of(&noise).unwrap().pattern, Pattern::IK);
        assert_eq!(split(&noise[PREFACE_BYTES..]), Ok(Some((RecordKind::Handshake, 203))));
        assert_eq!(script(Attack::Slowloris, 0).len(), PREFACE_BYTES - 1);
        let ticket = script(Attack::Tickets, 0);
        assert_eq!(preface_of(&ticket).unwrap().pattern, Pattern::NNpsk0);
        let rest = &ticket[PREFACE_BYTES + TICKET_BYTES..];
        assert_eq!(split(rest), Ok(Some((RecordKind::Handshake, rest.len()))));
        let half = script(Attack::Halves, 0);
        assert!(preface_of(&half).is_ok());
        assert_eq!(split(&half[PREFACE_BYTES..]), Ok(None), "the rest never comes");
        let errors =
            [RecordError::Length, RecordError::Length, RecordError::Kind(RecordKind::Transport as u8)];
        for (error, number) in errors.into_iter().zip(0..) {
            let bytes = script(Attack::Records, number);
            assert!(preface_of(&bytes).is_ok());
            assert_eq!(split_handshake(&bytes[PREFACE_BYTES..]), Err(error));
        }
    }

    #[test]
    fn each_comes_from_as_many_addresses_as_it_should() {
        let sources = |attack: Attack| {
            (0..1_000).map(|number| attack.source(number)).collect::<std::collections::HashSet<_>>()
        };
        assert_eq!(sources(Attack::Connects).len(), 1);
        assert_eq!(sources(Attack::Garbage).len(), 250);
        assert_eq!(sources(Attack::Strangers).len(), 1_000);
        assert!(sources(Attack::Garbage).is_disjoint(&sources(Attack::Tickets)));
        assert!(sources(Attack::Bodies).iter().all(IpAddr::is_loopback));
    }
}
