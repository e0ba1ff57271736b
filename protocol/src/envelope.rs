//! The envelope: the one encoded form of what moves between shards, between nodes, into the log and to the replica.
//!
//! Layout: [`Header`] (56 bytes, little-endian, no padding), then `from_name_bytes` of the sender's name, then the
//! body. An envelope is encoded once, at the edge or home where it comes into being, and its bytes never change.

use crate::ids::{AccountId, DeviceId, MessageId, Seq};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Longest name of an account, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;
/// The envelope format that this build writes.
pub const ENVELOPE_VERSION: u8 = 1;
/// Set in [`Header::flags`] of a `Delivered` tick whose message never had a `sent` tick of its own.
pub const FLAG_IMPLIES_SENT: u8 = 1;
/// Flag of a tick: it may have been said before.
pub const FLAG_AGAIN: u8 = 2;
/// Flag of a message: its sender's home can make no copies of it for the sender's other devices. It is answered, but not
/// taken unless it was taken before.
pub const FLAG_ANSWER_ONLY: u8 = 4;

/// What an envelope carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A message for a mailbox; the body is the sender's.
    Message = 1,
    /// To the sender's home: the message is safe. Ephemeral: a lost one is answered again on the sender's retry.
    Sent = 2,
    /// To the sender's home and into its mailbox: a device has the message. `seq` names the place it had there.
    Delivered = 3,
    /// To the recipient's home: the sender's home has the `Delivered` tick; `seq` is repeated from it.
    Confirm = 4,
    /// To the sender's home: refused, come back in `seq` milliseconds; go back to this id. Ephemeral.
    Busy = 5,
    /// To the sender's home: a retry older than the home remembers; its fate is unknown. Ephemeral.
    Expired = 6,
    /// To the sender's home: no such account. Ephemeral.
    Unknown = 7,
    /// To a name's home: which account is it? The body is the name; `id` is the asker's token.
    Lookup = 8,
    /// The answer: `to` asked, `seq` is the account id or zero, the body is the name.
    Found = 9,
    /// Into the mailbox of its own sender, for the sender's other devices; `from` is whom the message was sent to.
    Copy = 10,
    /// To the sender's home and into its mailbox: a device has read the message.
    Read = 11,
    /// To the reader's home: the sender's home has the `Read` tick. Ephemeral: the reader says it again without it.
    ReadTaken = 12,
    /// To an account's home: its presence is of interest to `from` for a time. Ephemeral.
    Watch = 13,
    /// To a watcher's home: `seq` is the state in the low 8 bits, above them when it was last seen. Ephemeral.
    Presence = 14,
    /// To an account's home: `seq` is whether `from` is typing. Ephemeral.
    Typing = 15,
    /// To an account's home: has it this message? It answers `Sent` if it has, and else not at all. Ephemeral.
    Ask = 16,
}

impl Kind {
    /// Reads the wire value.
    #[must_use]
    pub const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Message,
            2 => Self::Sent,
            3 => Self::Delivered,
            4 => Self::Confirm,
            5 => Self::Busy,
            6 => Self::Expired,
            7 => Self::Unknown,
            8 => Self::Lookup,
            9 => Self::Found,
            10 => Self::Copy,
            11 => Self::Read,
            12 => Self::ReadTaken,
            13 => Self::Watch,
            14 => Self::Presence,
            15 => Self::Typing,
            16 => Self::Ask,
            _ => return None,
        })
    }
}

/// The fixed part of an envelope as it lies in memory, on the mesh and on disk.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Bytes of the whole envelope, this header included.
    pub length: U32,
    /// [`ENVELOPE_VERSION`].
    pub version: u8,
    /// A [`Kind`].
    pub kind: u8,
    /// `FLAG_` bits.
    pub flags: u8,
    /// Bytes of the sender's name after the header.
    pub from_name_bytes: u8,
    /// The account whose home this goes to; zero in `Lookup`, which is routed by its name.
    pub to: U64,
    /// The account that it comes from.
    pub from: U64,
    /// The message that it carries or speaks of.
    pub id: U64,
    /// When the sender's edge took it, wall milliseconds of Unix time.
    pub time_ms: U64,
    /// A number that the kind gives a meaning; in messages that of the sender's session, which orders its streams.
    pub seq: U64,
    /// The sender's device.
    pub from_device: U16,
    /// The device that it is for; zero means every one.
    pub to_device: U16,
    /// Zero; keeps the header a multiple of eight.
    pub reserved: U32,
}

/// Bytes of [`Header`].
pub const HEADER_BYTES: usize = 56;
const _: () = assert!(size_of::<Header>() == HEADER_BYTES && align_of::<Header>() == 1);

/// Why bytes are not an envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnvelopeError {
    /// Shorter than its header or than its own length says, or longer.
    Length,
    /// A version that this build does not read.
    Version(u8),
    /// A kind that this build does not know.
    Kind(u8),
    /// The sender's name does not fit or is not UTF-8.
    Name,
}

/// What goes into a new envelope.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// What it carries.
    pub kind: Kind,
    /// `FLAG_` bits.
    pub flags: u8,
    /// Where it goes.
    pub to: AccountId,
    /// Whose it is.
    pub from: AccountId,
    /// The sender's device.
    pub from_device: DeviceId,
    /// The message that it carries or speaks of.
    pub id: MessageId,
    /// Wall milliseconds.
    pub time_ms: u64,
    /// The kind's number.
    pub seq: u64,
    /// The sender's name; at most [`NAME_BYTES_MAX`] bytes.
    pub from_name: &'a str,
    /// The rest.
    pub body: &'a [u8],
}

impl Parts<'_> {
    /// Bytes of the envelope that [`Parts::encode`] makes.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        HEADER_BYTES + self.from_name.len() + self.body.len()
    }

    /// Appends the envelope to `out`.
    ///
    /// # Panics
    /// If the name is longer than [`NAME_BYTES_MAX`] or the whole does not fit 32 bits: callers hold the limits.
    pub fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        assert!(self.from_name.len() <= NAME_BYTES_MAX, "name too long for an envelope");
        let length = u32::try_from(self.encoded_bytes()).expect("limits keep envelopes below 4 GiB");
        let header = Header {
            length: U32::new(length),
            version: ENVELOPE_VERSION,
            kind: self.kind as u8,
            flags: self.flags,
            from_name_bytes: self.from_name.len() as u8,
            to: U64::new(self.to.0),
            from: U64::new(self.from.0),
            id: U64::new(self.id.0),
            time_ms: U64::new(self.time_ms),
            seq: U64::new(self.seq),
            from_device: U16::new(self.from_device.0),
            to_device: U16::ZERO,
            reserved: U32::ZERO,
        };
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(self.from_name.as_bytes());
        out.extend_from_slice(self.body);
    }
}

/// A borrowed, checked envelope.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    kind: Kind,
    from_name: &'a str,
}

impl<'a> Envelope<'a> {
    /// Checks that `bytes` are exactly one envelope.
    ///
    /// # Errors
    /// [`EnvelopeError`] says what is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| EnvelopeError::Length)?;
        if header.length.get() as usize != bytes.len() {
            return Err(EnvelopeError::Length);
        }
        if header.version != ENVELOPE_VERSION {
            return Err(EnvelopeError::Version(header.version));
        }
        let kind = Kind::from_wire(header.kind).ok_or(EnvelopeError::Kind(header.kind))?;
        let name_bytes = usize::from(header.from_name_bytes);
        let name = rest.get(..name_bytes).filter(|n| n.len() <= NAME_BYTES_MAX).ok_or(EnvelopeError::Name)?;
        let from_name = core::str::from_utf8(name).map_err(|_| EnvelopeError::Name)?;
        Ok(Self { bytes, header, kind, from_name })
    }

    /// Takes the first envelope of a run of them, and what follows it.
    ///
    /// # Errors
    /// [`EnvelopeError`] where the run does not begin with a whole envelope.
    pub fn parse_first(run: &'a [u8]) -> Result<(Self, &'a [u8]), EnvelopeError> {
        let (header, _) = Header::ref_from_prefix(run).map_err(|_| EnvelopeError::Length)?;
        let (first, rest) =
            run.split_at_checked(header.length.get() as usize).ok_or(EnvelopeError::Length)?;
        Ok((Self::parse(first)?, rest))
    }

    /// The head of the first envelope of a run, and what follows that envelope, looked at no further: to see what comes.
    #[must_use]
    pub fn skim_first(run: &'a [u8]) -> Option<(&'a Header, &'a [u8])> {
        let (header, _) = Header::ref_from_prefix(run).ok()?;
        Some((header, run.get(header.length.get() as usize..)?))
    }

    /// The encoded form, as it came.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What it carries.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether all bits of `flag` are set.
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.header.flags & flag == flag
    }

    /// Where it goes.
    #[must_use]
    pub fn to(&self) -> AccountId {
        AccountId(self.header.to.get())
    }

    /// Whose it is.
    #[must_use]
    pub fn from(&self) -> AccountId {
        AccountId(self.header.from.get())
    }

    /// The sender's device.
    #[must_use]
    pub fn sender_device(&self) -> DeviceId {
        DeviceId(self.header.from_device.get())
    }

    /// The message that it carries or speaks of.
    #[must_use]
    pub fn id(&self) -> MessageId {
        MessageId(self.header.id.get())
    }

    /// When the sender's edge took it, wall milliseconds.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.header.time_ms.get()
    }

    /// The kind's number as a mailbox place.
    #[must_use]
    pub fn seq(&self) -> Seq {
        Seq(self.header.seq.get())
    }

    /// The sender's name.
    #[must_use]
    pub const fn sender_name(&self) -> &'a str {
        self.from_name
    }

    /// The rest.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES + self.from_name.len()..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;
    use std::string::String;
    use std::vec::Vec;

    fn every_kind() -> Vec<Kind> {
        (0..=u8::MAX).filter_map(Kind::from_wire).collect()
    }

    #[test]
    fn numbers_of_kinds_have_no_gaps() {
        let numbers: Vec<u8> = every_kind().into_iter().map(|kind| kind as u8).collect();
        assert_eq!(numbers, (1..=Kind::Ask as u8).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read(to: u64, from: u64, id: u64, time_ms: u64, seq: u64, device: u16,
            flags: u8, kind in select(every_kind()), name in "[a-z0-9.-]{0,64}", body: Vec<u8>) {
            let parts = Parts { kind, flags, to: AccountId(to), from: AccountId(from), from_device: DeviceId(device),
                id: MessageId(id), time_ms, seq, from_name: &name, body: &body };
            let mut run = Vec::new();
            parts.encode(&mut run);
            run.extend_from_slice(b"next");
            let (envelope, rest) = Envelope::parse_first(&run).unwrap();
            prop_assert_eq!(rest, b"next");
            prop_assert_eq!(envelope.kind(), kind);
            prop_assert_eq!((envelope.to().0, envelope.from().0, envelope.id().0), (to, from, id));
            prop_assert_eq!((envelope.time_ms(), envelope.seq().0, envelope.sender_device().0), (time_ms, seq, device));
            prop_assert_eq!(String::from(envelope.sender_name()), name);
            prop_assert_eq!(envelope.body(), &body[..]);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Envelope::parse_first(&bytes);
        }

        #[test]
        fn cut_anywhere_is_refused(body: Vec<u8>, cut in 0_usize..1000) {
            let parts = Parts { kind: Kind::Message, flags: 0, to: AccountId(1), from: AccountId(2),
                from_device: DeviceId(1), id: MessageId(3), time_ms: 4, seq: 0, from_name: "ann", body: &body };
            let mut bytes = Vec::new();
            parts.encode(&mut bytes);
            let cut = cut % bytes.len();
            prop_assert!(Envelope::parse(&bytes[..cut]).is_err());
        }
    }
}
