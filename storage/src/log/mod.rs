//! The log: one stream of records for each shard and drive, written by group commits and read back after any stop.
//!
//! # Format, version 3
//!
//! All numbers are little-endian. A stream has one sequence of records (LSN, from 1) and one of group commits (from
//! 1), spread over segment files of equal length. Each *head* (mail 1, tables 2; 3 is kept for cold mail) appends to
//! its own open segment. One commit is in flight at a time; it may have a part in each head's segment, and both parts
//! carry its number. A commit is not atomic over its heads, and need not be: no record depends on one in the other.
//!
//! **Segment**: a header block of 4096 bytes, then commits.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `TERNSEG1` |
//! | 8 | 4 | format version |
//! | 12 | 2 | stream |
//! | 14 | 1 | head |
//! | 15 | 1 | zero |
//! | 16 | 8 | generation: which use of a file this is, growing over the stream |
//! | 24 | 8 | salt: random, never shown to clients |
//! | 32 | 4 | segment bytes |
//! | 36 | 4 | crc32c of bytes 0..36 |
//! | 40 | 4 | end magic `SEG` 0xFF |
//!
//! A file of zeros was never in use. One that is given back gets the header `TERNFREE`, version 3 (4), zeros (28), and the end
//! magic `FREE`; either magic tells. Before version 3 it got zeros. So zeros in front of a commit that says version 3 are
//! a header that is lost, and in front of another one a file that is not in use. A header lies in one sector, and so is written
//! whole or not at all; where the first commit got to the drive without it, that one goes like a torn tail, and the file is
//! not in use. The *seed* of a segment is crc32c(generation, salt), 8 bytes each;
//! the checksums below go on from it. So a commit of an earlier use of the file is not taken for one of this, and a
//! client cannot put a commit or a record that would be believed into the body of a message.
//!
//! **Commit**: starts on a block and is padded to one with zeros: a committed block is never written again.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `TCOM` |
//! | 4 | 4 | crc32c of bytes 8..104, seeded |
//! | 8 | 8 | commit |
//! | 16 | 8 | LSN of the first record of this part |
//! | 24 | 4 | bytes of this header and the records, without padding |
//! | 28 | 4 | number of records |
//! | 32 | 16 | generation and salt, as in the segment's header |
//! | 48 | 1 | head |
//! | 49 | 1 | version of the format; zero before 3 |
//! | 50 | 6 | zero |
//! | 56 | 3 x 16 | for each head: generation (8) and end (4) of what was durable when this commit began, zero (4) |
//!
//! **Record**: crc32c (4; seeded, over the rest and the payload), payload bytes (4), kind (1), version (1), partition
//! (2), low half of the commit (4), LSN (8), payload. Records follow each other without padding.
//!
//! | kind | payload |
//! | --- | --- |
//! | 1 mail | seq (8), mailbox (8), envelope |
//! | 2 floor | mailbox (8), device (2), zero (6), up to seq (8) |
//! | 3 epoch | epoch (4) |
//! | 4 account | account (8), bytes of the account's home |
//! | 5 account gone | account (8) |
//! | 6 ids of an hour, as older builds wrote them | hour of Unix time (4), count (4), keyed hashes (8 each) |
//! | 7 ids | first second of Unix time (4), seconds from there (4), count (4), keyed hashes (8 each) |
//! | 8 accounts gone | first account (8), last account (8) |
//! | 9 ids of several spans | as kind 7, for each span, one behind the other |
//! | 10 epoch after rot, as older builds wrote it | epoch (4), the last second of Unix time whose tickets are worth nothing (4) |
//! | 12 epoch after damage | epoch (4), the same second or zero (4), generation (8) and bytes (4) below which lay what that damage took, the number above which new accounts begin in each partition (8), hidden places |
//!
//! A hidden place is a file that was left alone, or blocks of mail that could not be read: the file's number (4), from where
//! (4) to where (4), the first era without it (4), the first with it again or zero (4), and the second of Unix time when it was
//! missed first (4).
//!
//! A sound record of another kind or version ends the recovery: a later build wrote it, and without it something would be
//! lost. Segments say the version of the format (3; those of 1 and 2 are read, and get nothing new).
//!
//! # What a stop leaves behind
//!
//! Every commit states up to where both heads were durable when it began. The highest commit found (its header is
//! enough) is therefore the witness of what is damaged:
//!
//! - **torn tail**: a damaged commit at or after the end that the witness states was never acknowledged. It is cut
//!   off: its head goes on in a fresh segment, and zeros are written over its first block, so that it is not taken for
//!   rot later. They go before any commit: a crash before they are there finds the same witness, and so the same tail. One
//!   right after them finds a clean end: the head goes on in place then, over what is left of the tail.
//! - **rot**: damage before that end, or before a later commit in the same segment. It is reported; records whose own
//!   checksums hold are served, and reading goes on at the next block that holds a commit of this segment.
//! - **clean end**: zeros, or whatever an earlier use left there. The head goes on in place.
//! - Rot in the very last commit cannot be told from a torn tail, and is reported as one.
//! - **rot in a segment's header**, also where it is zeros: its first commit repeats what it says; a segment of which neither
//!   can be read is reported and left alone.
//! - **a block that the drive does not give** is rot, also at the end of a segment: nothing is written there, its head
//!   goes on in a fresh segment, and numbers go on far behind all that is known, because it may be read again later. How far
//!   is random, for a later start may find this again and not what is written now. That neither takes the numbers of the
//!   other is likely then and not certain; which of them was the later one, the numbers do not tell.
//! - **write error**: [`LogEvent::Failed`]; the log takes nothing more. **No space**: [`LogEvent::Full`].
//!
//! # Freeing
//!
//! A record is live if and only if memory points at it. A sealed segment is free when no live record and no last
//! floor is in it; the oldest mail segment also when only floors are, because those speak of mail in it or in older
//! ones. A freed segment is marked as such with the next commit, one segment at a time and in the order of freeing:
//! so mail never comes back without the floor that had covered it. Then the file is used again. After a start the first
//! commit goes before: it says what damage means, and until it is durable the next start must find that, too. And while
//! a segment is left alone for its header, whose mail may come back, floors stay in the log.
//!
//! Floors that are written while a place cannot be read, a whole segment or blocks of one, may cover mail there that nobody has
//! seen. So another *era* ([`era`]) of numbers begins at the first start without it, the record of the epoch says in which eras
//! it was not there, and when it is back its mail is judged without the floors of these eras. For that the last floors of
//! before stay in the log, too. A copy of such mail does not tell that it was away: the first one of each mailbox takes all
//! its floors along, as they are by then. The record says also when a place was missed first: its mail is older. A segment
//! with such blocks is not freed before that would have expired, nor are floors kept for it longer; each start looks at it.
//!
//! The record names 160 places. If there are more, those of a file become one, what lies between them included; mail of more
//! files than these is judged by all floors, and while more are left alone each start takes them for new damage.
//!
//! An era begins also at the start at which such a place is not hidden any more. So where nothing is of a later era than the
//! last epoch's record, the files that this names hold no later epoch; no head goes on in them at the first start with them.
//!
//! # Rewriting
//!
//! A segment in which little lives is *thin*: the caller copies its live records to where its heads write now, and when
//! the copies are durable the old places die and the segment is free as above. A crash in between leaves some records
//! twice, which say the same: of mail with the same place either will do, of the rest the last one wins. See
//! [`Log::begin_leaving`]. While there will be no more files, one spare is kept for copies.

/// The era of a record: its number in the stream grows by one with each start at which something may be hidden.
#[must_use]
pub const fn era(lsn: u64) -> u32 {
    (lsn >> ERA_BITS) as u32
}

/// Low bits of an LSN that do not count for its era.
const ERA_BITS: u32 = 32;

mod commit;
mod record;
mod recovery;
mod rewriting;
mod segment;
mod stream;
mod usage;

#[cfg(test)]
mod tests;

pub use commit::{Commit, NoRoom};
pub use record::{HiddenPlace, IdGroup, Record};
pub use recovery::{Recovery, RecoveryError, RecoveryReport, Sink, UNREADABLE};
pub use segment::{FORMAT_VERSION, Head, Position, Reach};
pub use stream::{Log, LogConfig, LogEvent, LogStats};
