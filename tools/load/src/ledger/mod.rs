//! The generator's books: which message was submitted, ticked and delivered, and what the server did wrong.
//!
//! Pure: no socket, no clock. A [`Flow`] is one direction of one pair, seen from both ends at once, which is what
//! lets it tell an early tick from a timely one. All flows write their counts into one [`Tally`].
//!
//! - A message's id is `unix seconds << 32 | (first_low + seq)`, so that its place in the flow is known from the id
//!   alone, and two runs do not use the same ids (`first_low` is drawn once for each run).
//! - The client's own dedup memory is [`SeqSet`]: it lasts for the whole run, over reconnects.

mod flow;
mod leftover;
mod seq_set;
mod tally;

pub(crate) use flow::{Delivery, Flow, Place, Run};
pub(crate) use leftover::Leftovers;
pub(crate) use seq_set::SeqSet;
pub(crate) use tally::{Each, Faults, Sums, Tally};
