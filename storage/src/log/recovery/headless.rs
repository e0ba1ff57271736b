//! Files whose header cannot be believed: lost, of a spare, or of nobody knows what.

use super::{BLOCK, Recovery, RecoveryError, Sink};
use crate::io::SegmentId;
use crate::log::commit::{CommitHeader, Probe};
use crate::log::segment::{FORMAT_VERSION, Head, Seal, Segment};
use alloc::vec::Vec;

/// A file that has no header, and one commit behind where it should be. Either the header is lost, or both were being
/// written when all stopped: the commit alone got to the drive, and nothing was committed after it.
#[derive(Debug)]
pub(super) struct Headless {
    pub(super) segment: SegmentId,
    described: Segment,
    commit: u64,
    /// The file, as far as it tells something. All of it could be read.
    bytes: Vec<u8>,
    pub(super) right_length: bool,
}

impl Recovery {
    /// A file whose header is zeros. Builds since format 3 leave none behind that was in use: if one of them wrote the first
    /// commit, the header is lost, or did not get to the drive along with that. In front of older commits it is a spare.
    pub(super) fn without_header(
        &mut self,
        segment: SegmentId,
        bytes: &[u8],
        unreadable: &[u32],
        sink: &mut Sink<'_>,
    ) -> Result<(), RecoveryError> {
        let Some((header, seal)) = bytes.get(BLOCK..).and_then(newer_commit) else {
            // What is further behind may be the body of a message that looks like a commit: it is not served. Behind a first
            // commit of an older build nothing is of a newer one.
            let is_older = bytes.get(BLOCK..).and_then(CommitHeader::self_sealed).is_some();
            if !is_older && bytes.chunks(BLOCK).skip(2).any(|block| newer_commit(block).is_some()) {
                self.quarantine(segment);
            } else {
                self.spare(segment, bytes.len(), unreadable);
            }
            return Ok(());
        };
        let Some(described) = self.described_by(header, seal, bytes) else {
            self.quarantine(segment);
            return Ok(());
        };
        if Head::from_stored(described.head).is_none() {
            return Err(RecoveryError::Head(described.head));
        }
        let is_second = |block| matches!(CommitHeader::probe(block, &seal), Probe::Ours(_) | Probe::Damaged);
        // What the drive does not give may be a second one: then this one is no torn tail, and the file is not made anew.
        if !unreadable.is_empty() || bytes.chunks(BLOCK).skip(2).any(is_second) {
            return self.lost_header(segment, described, bytes, unreadable, sink);
        }
        let commit_end = BLOCK.saturating_add(header.length_bytes()).next_multiple_of(BLOCK);
        self.headless.push(Headless {
            segment,
            described,
            commit: header.commit(),
            bytes: bytes[..commit_end.min(bytes.len())].to_vec(),
            right_length: bytes.len() == self.config.segment_bytes as usize,
        });
        Ok(())
    }

    /// A segment that its first commit describes.
    pub(super) fn lost_header(
        &mut self,
        segment: SegmentId,
        described: Segment,
        bytes: &[u8],
        unreadable: &[u32],
        sink: &mut Sink<'_>,
    ) -> Result<(), RecoveryError> {
        self.report.rot.push((segment, 0));
        self.used((segment, described, true), bytes, unreadable, sink)
    }

    /// A segment of which nobody knows what it is: it is left alone.
    pub(super) fn quarantine(&mut self, segment: SegmentId) {
        self.report.rot.push((segment, 0));
        self.report.left_alone.push(segment);
        self.usage.found_quarantined(segment);
        self.is_hiding = true;
    }

    /// A later commit says that the one behind a header that is not there was durable, and so the header.
    pub(super) fn settle_headless(&mut self, sink: &mut Sink<'_>) -> Result<(), RecoveryError> {
        while let Some(index) = self.headless.iter().position(|found| found.commit < self.witness) {
            let Headless { segment, described, bytes, .. } = self.headless.swap_remove(index);
            self.lost_header(segment, described, &bytes, &[], sink)?;
        }
        Ok(())
    }

    /// A header that rotted is given back by the first commit, which repeats what it says. One of the two numbers
    /// must still agree: otherwise the commit is of an earlier use of the file.
    pub(super) fn adopt(&self, bytes: &[u8], generation: u64, salt: u64) -> Option<Segment> {
        let (header, seal) = CommitHeader::self_sealed(bytes.get(BLOCK..)?)?;
        let agrees = seal.generation == generation || seal.salt == salt;
        agrees.then(|| self.described_by(header, seal, bytes))?
    }

    /// The segment whose first commit has this header, unless it is there already.
    fn described_by(&self, header: &CommitHeader, seal: Seal, bytes: &[u8]) -> Option<Segment> {
        let scanned = self.scanned.iter().map(|scanned| scanned.seal.generation);
        let headless = self.headless.iter().map(|found| found.described.seal.generation);
        let is_new = scanned.chain(headless).all(|generation| generation != seal.generation);
        is_new.then_some(Segment {
            version: FORMAT_VERSION,
            stream: self.config.stream,
            head: header.head(),
            seal,
            segment_bytes: bytes.len() as u32,
        })
    }
}

/// The commit at the start of a block, if a build wrote it that marks the files that it gives back.
fn newer_commit(block: &[u8]) -> Option<(&CommitHeader, Seal)> {
    CommitHeader::self_sealed(block).filter(|(header, _)| header.marks_freed())
}

/// Whether a file whose header cannot be read was never in use since it was made: the first write to it has a commit
/// behind the header, and the drive gives that place, with nothing there.
pub(super) fn is_unused(bytes: &[u8], unreadable: &[u32]) -> bool {
    unreadable == [0] && bytes.len() > BLOCK && bytes[BLOCK..].iter().all(|&byte| byte == 0)
}
