//! The books of a shard's log: every record that was ever seen in its stable image, and the rules between them.

use crate::oracle::Oracle;
use std::collections::BTreeMap;
use tern_protocol::envelope::{Envelope, Kind};
use tern_protocol::ids::{AccountId, DeviceId, MessageId, Seq};
use tern_storage::io::SegmentId;
use tern_storage::log::{LogConfig, Record, Recovery};

/// What a place in a mailbox holds: kind, sender and id.
type Mail = (u8, AccountId, MessageId);

/// The books of one log.
#[derive(Debug)]
pub struct LogBooks {
    config: LogConfig,
    /// Every mail record, by mailbox and place.
    mail: BTreeMap<(AccountId, Seq), Mail>,
    /// The other way round.
    places: BTreeMap<(AccountId, Mail), Seq>,
    /// The highest floor of each device.
    floors: BTreeMap<(AccountId, DeviceId), Seq>,
}

impl LogBooks {
    /// Empty books of a shard's log.
    #[must_use]
    pub const fn new(shard: u16, segment_bytes: u32) -> Self {
        let config = LogConfig {
            stream: shard,
            segment_bytes,
            commit_bytes_max: 4096,
            spare_count: 0,
            segment_count_max: u32::MAX,
            salt_seed: 0,
        };
        Self { config, mail: BTreeMap::new(), places: BTreeMap::new(), floors: BTreeMap::new() }
    }

    /// Reads the stable image after a stop and enters what is new. `files` are the segments. Whether the shard wrote mail
    /// again since the last time: then a place may be seen for the first time behind higher ones.
    ///
    /// # Errors
    /// Names the broken invariant: rot where none was made, a place used twice or going back, a message stored twice,
    /// a floor that covers what was not acknowledged.
    pub fn read<'a>(
        &mut self,
        files: impl Iterator<Item = (SegmentId, &'a [u8])>,
        has_rewritten: bool,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let mut files: Vec<_> = files
            .filter_map(|(segment, bytes)| Some((Recovery::generation(&bytes[..4096])?, segment, bytes)))
            .collect();
        files.sort_by_key(|&(generation, segment, _)| (generation, segment));
        let mut recovery = Recovery::new(self.config);
        let mut mail = Vec::new();
        for (_, segment, bytes) in files {
            let result = recovery.segment(segment, bytes, &mut |_, lsn, record| match record {
                Record::Mail { mailbox, seq, envelope } => mail.push((lsn, mailbox, seq, envelope.to_vec())),
                Record::Floor { mailbox, device, up_to } => {
                    let floor = self.floors.entry((mailbox, device)).or_insert(up_to);
                    *floor = up_to.max(*floor);
                }
                _ => {}
            });
            result.map_err(|error| format!("the books cannot read {segment:?}: {error:?}"))?;
        }
        let (_, report) = recovery.finish();
        if !report.rot.is_empty() {
            return Err(format!("a stop left what reads as rot: {report:?}"));
        }
        mail.sort_by_key(|&(lsn, ..)| lsn);
        self.enter(&mail, has_rewritten, oracle)?;
        self.apply_floors(oracle)
    }

    /// Floors and places of every mailbox, to follow a seed.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("log of shard {}:\n", self.config.stream);
        for ((mailbox, device), up_to) in &self.floors {
            text.push_str(&format!("    {mailbox:?} {device:?} up to {:x}\n", up_to.0));
        }
        for ((mailbox, seq), (kind, from, id)) in &self.mail {
            text.push_str(&format!("    {mailbox:?} {:x}: kind {kind} from {from:?} {id:?}\n", seq.0));
        }
        text
    }

    fn enter(
        &mut self,
        mail: &[(u64, AccountId, Seq, Vec<u8>)],
        has_rewritten: bool,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let mut last: BTreeMap<AccountId, Seq> = BTreeMap::new();
        for &(mailbox, seq) in self.mail.keys() {
            last.insert(mailbox, seq);
        }
        for (_, mailbox, seq, envelope) in mail {
            let (mailbox, seq) = (*mailbox, *seq);
            let envelope =
                Envelope::parse(envelope).map_err(|error| format!("a stored envelope: {error:?}"))?;
            let what = (envelope.kind() as u8, envelope.from(), envelope.id());
            match self.mail.get(&(mailbox, seq)) {
                Some(known) if *known == what => continue,
                Some(known) => return Err(format!("{seq:?} of {mailbox:?} held {known:?} and now {what:?}")),
                None => {}
            }
            let before = last.insert(mailbox, seq);
            if !has_rewritten && before.is_some_and(|before| before >= seq) {
                return Err(format!("{mailbox:?} got {seq:?} after {before:?}"));
            }
            self.mail.insert((mailbox, seq), what);
            if let Some(first) = self.places.insert((mailbox, what), seq)
                && !(is_tick(envelope.kind()) && oracle.is_forgotten(mailbox, envelope.id()))
            {
                return Err(format!("{what:?} is stored twice in {mailbox:?}: at {first:?} and {seq:?}"));
            }
            if matches!(envelope.kind(), Kind::Message | Kind::Copy) {
                oracle.written(envelope.bytes());
            }
        }
        Ok(())
    }

    /// Tells the model what must not be handed out again.
    fn apply_floors(&self, oracle: &mut Oracle) -> Result<(), String> {
        for (&(mailbox, device), &up_to) in self.floors.iter().filter(|((_, d), _)| *d != DeviceId::TICKS) {
            for (_, &(kind, from, id)) in self.mail.range((mailbox, Seq(0))..=(mailbox, up_to)) {
                if kind != Kind::Message as u8 {
                    continue;
                }
                let sender = oracle.account_of(from).ok_or_else(|| format!("mail of unknown {from:?}"))?;
                let serial = oracle.serial_of(sender, id).ok_or_else(|| format!("nobody composed {id:?}"))?;
                oracle.floored(serial, device)?;
            }
        }
        Ok(())
    }
}

const fn is_tick(kind: Kind) -> bool {
    matches!(kind, Kind::Delivered | Kind::Read)
}
