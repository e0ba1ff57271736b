//! One record: its stored form, and what it means.

use super::segment::{Head, Reach, Seal};
use crate::io::SegmentId;
use alloc::vec::Vec;
use tern_protocol::ids::{AccountId, DeviceId, PartitionId, Seq};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The version of the records that this build writes.
const RECORD_VERSION: u8 = 1;

/// What stands before each record's payload.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RecordHeader {
    /// Over the rest of this header and the payload, starting from the segment's seed.
    crc: U32,
    /// Bytes of the payload.
    length: U32,
    kind: u8,
    version: u8,
    partition: U16,
    /// Low half of the commit's number: a record that was copied into another commit by a drive is not believed, where the
    /// header of that is sound.
    commit_low: U32,
    lsn: U64,
}

/// Bytes of a record before its payload.
pub(super) const RECORD_HEADER_BYTES: usize = 24;
const _: () = assert!(size_of::<RecordHeader>() == RECORD_HEADER_BYTES && align_of::<RecordHeader>() == 1);
const CRC_BYTES: usize = 4;

/// The fixed part of a mail record's payload; the envelope follows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MailPart {
    seq: U64,
    mailbox: U64,
}

/// A floor record's payload.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FloorPart {
    mailbox: U64,
    device: U16,
    reserved: [u8; 6],
    up_to: U64,
}

/// The fixed part of what is known of damage; [`HiddenPlace`]s follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct DamagePart {
    epoch: U32,
    tickets_after_s: U32,
    rot_generation: U64,
    rot_end_bytes: U32,
    numbers_above: U64,
}

/// A record of several removed accounts.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct GonePart {
    first: U64,
    last: U64,
}

/// The fixed part of ids that were made in one span of time; `count` hashes of 8 bytes follow.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct IdsPart {
    from_s: U32,
    span_s: U32,
    count: U32,
}

/// The same of older builds: ids of an hour. Read, and not written any more.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HourPart {
    hour: U32,
    count: U32,
}

const HOUR_S: u32 = 3600;

const _: () =
    assert!(size_of::<MailPart>() == 16 && size_of::<FloorPart>() == 24 && size_of::<IdsPart>() == 12);

/// What the log keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// An envelope in a mailbox.
    Mail {
        /// Whose mailbox.
        mailbox: AccountId,
        /// Its place there.
        seq: Seq,
        /// The encoded envelope.
        envelope: &'a [u8],
    },
    /// A device has acknowledged its mailbox up to a place. The last one wins.
    Floor {
        /// Whose mailbox.
        mailbox: AccountId,
        /// Which device.
        device: DeviceId,
        /// The last place that it has.
        up_to: Seq,
    },
    /// The boot epoch from here on. The highest one wins.
    Epoch(u32),
    /// The boot epoch from here on, where damage may have taken from the log which resume tickets were used.
    EpochAfterRot {
        /// Which one.
        epoch: u32,
        /// Tickets that were made up to this second of Unix time are worth nothing.
        tickets_after_s: u32,
    },
    /// The boot epoch from here on, and what is known of damage.
    EpochAfterDamage {
        /// Which one.
        epoch: u32,
        /// Tickets that were made up to this second of Unix time are worth nothing; zero for none.
        tickets_after_s: u32,
        /// What that damage may have taken lay below this.
        rot_reach: Reach,
        /// What that damage may have taken of accounts has no higher numbers in their partitions.
        numbers_above: u64,
        /// What [`HiddenPlace::encode`] has written, for each place that could not be read.
        hidden: &'a [u8],
    },
    /// An account as it is now. The last one wins.
    Account {
        /// Which one.
        account: AccountId,
        /// Encoded by its home.
        payload: &'a [u8],
    },
    /// An account was removed. It must stay live as long as older records of the account may be in the log.
    AccountGone(AccountId),
    /// All accounts of a partition from one id to another were removed: many records of the kind above in one.
    AccountsGone {
        /// The lowest id.
        first: AccountId,
        /// The highest.
        last: AccountId,
    },
    /// Message ids, as keyed hashes.
    Ids {
        /// What [`IdGroup::encode`] has written: at least one of them.
        groups: &'a [u8],
    },
    /// Message ids of an hour, as older builds wrote them.
    IdsOfHour(IdGroup<'a>),
}

/// A place whose mail was not there for some starts, and may be back. Floors of that time say nothing of its mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HiddenPlace {
    /// In which file.
    pub segment: SegmentId,
    /// Where it begins there; zero where the file was left alone.
    pub offset: u32,
    /// Where it ends; the highest number where the file was left alone.
    pub end: u32,
    /// The era ([`super::era`]) in which it was not there for the first time.
    pub from: u32,
    /// The era in which it was back; zero while it is not.
    pub back: u32,
    /// When it was not there for the first time, seconds of Unix time: what it has was made before that.
    pub since_s: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HiddenPart {
    segment: U32,
    offset: U32,
    end: U32,
    from: U32,
    back: U32,
    since_s: U32,
}

const _: () = assert!(
    super::commit::COMMIT_HEADER_BYTES
        + RECORD_HEADER_BYTES
        + size_of::<DamagePart>()
        + HiddenPlace::COUNT_MAX * size_of::<HiddenPart>()
        <= crate::io::BLOCK_BYTES as usize
);

impl HiddenPlace {
    /// Most of them that a record names: with them it fits the one block that a full log has left for the epoch.
    pub const COUNT_MAX: usize = 160;

    /// Appends it to others.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self { segment, offset, end, from, back, since_s } = *self;
        let [segment, offset, end, from, back, since_s] =
            [segment.0, offset, end, from, back, since_s].map(U32::new);
        let part = HiddenPart { segment, offset, end, from, back, since_s };
        out.extend_from_slice(part.as_bytes());
    }

    /// Those of a record.
    pub fn all(hidden: &[u8]) -> impl Iterator<Item = Self> {
        let parts = <[HiddenPart]>::ref_from_bytes(hidden).unwrap_or_default();
        parts.iter().map(|part| Self {
            segment: SegmentId(part.segment.get()),
            offset: part.offset.get(),
            end: part.end.get(),
            from: part.from.get(),
            back: part.back.get(),
            since_s: part.since_s.get(),
        })
    }
}

/// Message ids that were made in one span of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdGroup<'a> {
    /// Where the span begins, seconds of Unix time.
    pub from_s: u32,
    /// Its length, seconds.
    pub span_s: u32,
    /// Hashes of 8 bytes each, little-endian.
    pub hashes: &'a [u8],
}

impl<'a> IdGroup<'a> {
    /// Bytes of a group beside its hashes.
    pub const HEADER_BYTES: usize = size_of::<IdsPart>();

    /// Appends it to others.
    ///
    /// # Panics
    /// If hashes are not whole.
    pub fn encode(&self, groups: &mut Vec<u8>) {
        assert!(self.hashes.len().is_multiple_of(8), "hashes have 8 bytes each");
        let count = U32::new((self.hashes.len() / 8) as u32);
        let part = IdsPart { from_s: U32::new(self.from_s), span_s: U32::new(self.span_s), count };
        groups.extend_from_slice(part.as_bytes());
        groups.extend_from_slice(self.hashes);
    }

    /// The groups of a record, up to one that is not whole.
    pub fn all(mut groups: &'a [u8]) -> impl Iterator<Item = Self> {
        core::iter::from_fn(move || {
            let (group, rest) = Self::split_first(groups)?;
            groups = rest;
            Some(group)
        })
    }

    fn split_first(groups: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (part, rest) = IdsPart::ref_from_prefix(groups).ok()?;
        let (hashes, rest) = rest.split_at_checked((part.count.get() as usize).checked_mul(8)?)?;
        Some((Self { from_s: part.from_s.get(), span_s: part.span_s.get(), hashes }, rest))
    }

    /// Where the span ends, seconds of Unix time.
    #[must_use]
    pub const fn until_s(&self) -> u32 {
        self.from_s.saturating_add(self.span_s)
    }

    const fn encoded_bytes(&self) -> usize {
        Self::HEADER_BYTES + self.hashes.len()
    }
}

impl Record<'_> {
    /// Which head it is appended to.
    #[must_use]
    pub const fn head(&self) -> Head {
        match self {
            Self::Mail { .. } | Self::Floor { .. } => Head::Mail,
            Self::Epoch(_)
            | Self::EpochAfterRot { .. }
            | Self::EpochAfterDamage { .. }
            | Self::Account { .. }
            | Self::AccountGone(_)
            | Self::AccountsGone { .. }
            | Self::Ids { .. }
            | Self::IdsOfHour(_) => Head::Tables,
        }
    }

    /// Bytes that it takes in a commit, its header included.
    #[must_use]
    pub const fn encoded_bytes(&self) -> usize {
        RECORD_HEADER_BYTES
            + match self {
                Self::Mail { envelope, .. } => size_of::<MailPart>() + envelope.len(),
                Self::Floor { .. } => size_of::<FloorPart>(),
                Self::Epoch(_) => 4,
                Self::EpochAfterRot { .. } => 8,
                Self::EpochAfterDamage { hidden, .. } => size_of::<DamagePart>() + hidden.len(),
                Self::Account { payload, .. } => 8 + payload.len(),
                Self::AccountGone(_) => 8,
                Self::AccountsGone { .. } => size_of::<GonePart>(),
                Self::Ids { groups } => groups.len(),
                Self::IdsOfHour(group) => group.encoded_bytes(),
            }
    }

    /// The partition that it belongs to; zero where it belongs to the whole shard.
    #[must_use]
    pub const fn partition(&self) -> PartitionId {
        match self {
            Self::Mail { mailbox: account, .. }
            | Self::Floor { mailbox: account, .. }
            | Self::Account { account, .. }
            | Self::AccountGone(account)
            | Self::AccountsGone { first: account, .. } => account.partition(),
            Self::Epoch(_)
            | Self::EpochAfterRot { .. }
            | Self::EpochAfterDamage { .. }
            | Self::Ids { .. }
            | Self::IdsOfHour(_) => PartitionId(0),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Mail { .. } => 1,
            Self::Floor { .. } => 2,
            Self::Epoch(_) => 3,
            Self::Account { .. } => 4,
            Self::AccountGone(_) => 5,
            Self::Ids { groups } if IdGroup::all(groups).nth(1).is_some() => 9,
            // One group is what builds before this one know, too.
            Self::Ids { .. } | Self::IdsOfHour(_) => 7,
            Self::AccountsGone { .. } => 8,
            Self::EpochAfterRot { .. } => 10,
            // 11 was a form of it that no release wrote.
            Self::EpochAfterDamage { .. } => 12,
        }
    }

    /// Appends the record.
    ///
    /// # Panics
    /// If hashes are not whole, or the payload does not fit 32 bits.
    pub(super) fn encode(&self, seal: &Seal, commit: u64, lsn: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let length = self.encoded_bytes() - RECORD_HEADER_BYTES;
        let header = RecordHeader {
            crc: U32::ZERO,
            length: U32::new(u32::try_from(length).expect("a record fits 32 bits")),
            kind: self.kind(),
            version: RECORD_VERSION,
            partition: U16::new(self.partition().0),
            commit_low: U32::new(commit as u32),
            lsn: U64::new(lsn),
        };
        out.extend_from_slice(header.as_bytes());
        match *self {
            Self::Mail { mailbox, seq, envelope } => {
                let part = MailPart { seq: U64::new(seq.0), mailbox: U64::new(mailbox.0) };
                out.extend_from_slice(part.as_bytes());
                out.extend_from_slice(envelope);
            }
            Self::Floor { mailbox, device, up_to } => {
                let part = FloorPart {
                    mailbox: U64::new(mailbox.0),
                    device: U16::new(device.0),
                    reserved: [0; 6],
                    up_to: U64::new(up_to.0),
                };
                out.extend_from_slice(part.as_bytes());
            }
            Self::Epoch(epoch) => out.extend_from_slice(&epoch.to_le_bytes()),
            Self::EpochAfterRot { epoch, tickets_after_s } => {
                out.extend_from_slice(&epoch.to_le_bytes());
                out.extend_from_slice(&tickets_after_s.to_le_bytes());
            }
            Self::EpochAfterDamage { epoch, tickets_after_s, rot_reach, numbers_above, hidden } => {
                let part = DamagePart {
                    epoch: U32::new(epoch),
                    tickets_after_s: U32::new(tickets_after_s),
                    rot_generation: U64::new(rot_reach.generation),
                    rot_end_bytes: U32::new(rot_reach.end_bytes),
                    numbers_above: U64::new(numbers_above),
                };
                out.extend_from_slice(part.as_bytes());
                out.extend_from_slice(hidden);
            }
            Self::Account { account, payload } => {
                out.extend_from_slice(&account.0.to_le_bytes());
                out.extend_from_slice(payload);
            }
            Self::AccountGone(account) => out.extend_from_slice(&account.0.to_le_bytes()),
            Self::AccountsGone { first, last } => {
                let part = GonePart { first: U64::new(first.0), last: U64::new(last.0) };
                out.extend_from_slice(part.as_bytes());
            }
            Self::Ids { groups } => out.extend_from_slice(groups),
            Self::IdsOfHour(group) => group.encode(out),
        }
        let crc = crc32c::crc32c_append(seal.seed, &out[start + CRC_BYTES..]);
        out[start..start + CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A record as it lies in a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredRecord<'a> {
    /// Whether its checksum holds.
    pub(super) valid: bool,
    /// Its number in the stream; meaningless unless `valid`, like all below.
    pub(super) lsn: u64,
    /// Low half of its commit's number.
    pub(super) commit_low: u32,
    kind: u8,
    version: u8,
    payload: &'a [u8],
    /// Bytes that it takes, its header included.
    pub(super) bytes: usize,
}

/// Reads the record at the start of `bytes`; `None` where its length does not fit.
#[inline]
pub(super) fn read_record<'a>(bytes: &'a [u8], seal: &Seal) -> Option<StoredRecord<'a>> {
    let mut record = read_sound_record(bytes)?;
    let crc = crc32c::crc32c_append(seal.seed, &bytes[CRC_BYTES..record.bytes]);
    record.valid = bytes[..CRC_BYTES] == crc.to_le_bytes();
    Some(record)
}

/// Like [`read_record`] for a record whose checksum has been seen to hold.
#[inline]
pub(super) fn read_sound_record(bytes: &[u8]) -> Option<StoredRecord<'_>> {
    let (header, rest) = RecordHeader::ref_from_prefix(bytes).ok()?;
    let payload = rest.get(..header.length.get() as usize)?;
    Some(StoredRecord {
        valid: true,
        lsn: header.lsn.get(),
        commit_low: header.commit_low.get(),
        kind: header.kind,
        version: header.version,
        payload,
        bytes: RECORD_HEADER_BYTES + payload.len(),
    })
}

impl<'a> StoredRecord<'a> {
    /// What it says that it is.
    pub(super) const fn kind_and_version(&self) -> (u8, u8) {
        (self.kind, self.version)
    }

    /// What it means; `None` for a kind or version that this build does not know.
    #[inline]
    pub(super) fn meaning(&self) -> Option<Record<'a>> {
        if self.version != RECORD_VERSION {
            return None;
        }
        let payload = self.payload;
        Some(match self.kind {
            1 => {
                let (part, envelope) = MailPart::ref_from_prefix(payload).ok()?;
                Record::Mail { mailbox: AccountId(part.mailbox.get()), seq: Seq(part.seq.get()), envelope }
            }
            2 => {
                let part = FloorPart::ref_from_bytes(payload).ok()?;
                Record::Floor {
                    mailbox: AccountId(part.mailbox.get()),
                    device: DeviceId(part.device.get()),
                    up_to: Seq(part.up_to.get()),
                }
            }
            3 => Record::Epoch(U32::read_from_bytes(payload).ok()?.get()),
            4 => {
                let (account, payload) = U64::ref_from_prefix(payload).ok()?;
                Record::Account { account: AccountId(account.get()), payload }
            }
            5 => Record::AccountGone(AccountId(U64::read_from_bytes(payload).ok()?.get())),
            6 => {
                let (part, hashes) = HourPart::ref_from_prefix(payload).ok()?;
                let from_s = part.hour.get().checked_mul(HOUR_S)?;
                let is_whole = hashes.len() as u64 == u64::from(part.count.get()) * 8;
                is_whole.then_some(Record::IdsOfHour(IdGroup { from_s, span_s: HOUR_S, hashes }))?
            }
            7 | 9 => {
                let groups = payload;
                let bytes: usize = IdGroup::all(groups).map(|group| group.encoded_bytes()).sum();
                (bytes == groups.len()).then_some(Record::Ids { groups })?
            }
            8 => {
                let part = GonePart::ref_from_bytes(payload).ok()?;
                Record::AccountsGone { first: AccountId(part.first.get()), last: AccountId(part.last.get()) }
            }
            10 => {
                let [epoch, tickets_after_s] = <[U32; 2]>::read_from_bytes(payload).ok()?.map(U32::get);
                Record::EpochAfterRot { epoch, tickets_after_s }
            }
            12 => {
                let (part, hidden) = DamagePart::ref_from_prefix(payload).ok()?;
                let is_whole = hidden.len().is_multiple_of(size_of::<HiddenPart>());
                let (epoch, tickets_after_s) = (part.epoch.get(), part.tickets_after_s.get());
                let (generation, end_bytes) = (part.rot_generation.get(), part.rot_end_bytes.get());
                is_whole.then_some(Record::EpochAfterDamage {
                    epoch,
                    tickets_after_s,
                    rot_reach: Reach { generation, end_bytes },
                    numbers_above: part.numbers_above.get(),
                    hidden,
                })?
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_an_older_build_are_read_by_the_hour() {
        let mut payload = Vec::new();
        payload.extend_from_slice(&500_000_u32.to_le_bytes());
        payload.extend_from_slice(&2_u32.to_le_bytes());
        payload.extend_from_slice(&[7; 16]);
        let record = |payload| {
            let (kind, version) = (6, RECORD_VERSION);
            StoredRecord { valid: true, lsn: 1, commit_low: 1, kind, version, payload, bytes: 48 }
        };
        let ids = IdGroup { from_s: 1_800_000_000, span_s: 3_600, hashes: &[7; 16] };
        assert_eq!(record(&payload).meaning(), Some(Record::IdsOfHour(ids)));
        assert_eq!(record(&payload[..20]).meaning(), None);
    }

    #[test]
    fn ids_of_several_spans_are_one_record() {
        let all = [
            IdGroup { from_s: 300, span_s: 300, hashes: &[7; 16] },
            IdGroup { from_s: 900, span_s: 300, hashes: &[] },
            IdGroup { from_s: 0, span_s: u32::MAX, hashes: &[8; 24] },
        ];
        let mut groups = Vec::new();
        let seal = Seal::new(1, 2);
        for (group, kind) in all.iter().zip([7, 9, 9]) {
            group.encode(&mut groups);
            let (ids, mut out) = (Record::Ids { groups: &groups }, Vec::new());
            ids.encode(&seal, 1, 1, &mut out);
            assert_eq!(out.len(), ids.encoded_bytes());
            let record = read_record(&out, &seal).expect("it is whole");
            assert_eq!((record.kind, record.meaning()), (kind, Some(ids)));
            let cut = StoredRecord { payload: &record.payload[..groups.len() - 1], ..record };
            assert_eq!(cut.meaning(), None);
        }
        assert!(IdGroup::all(&groups).eq(all));
    }
}
