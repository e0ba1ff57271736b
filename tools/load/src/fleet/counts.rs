//! Where a fleet stands: read by the thread that leads the run while the workers go on.

use super::phone::Stage;
use crate::ledger::Sums;
use std::ops::AddAssign;

/// Counts of one worker, or of all.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    /// Phones in each stage.
    pub(super) phones: [u64; Stage::COUNT],
    /// Of those online, how many found their mailbox empty once.
    pub(super) drained: u64,
    /// Phones that were logged in at least once.
    pub(crate) first_logins: u64,
    /// Logins, later ones too.
    pub(crate) logins: u64,
    /// Of these, by a ticket.
    pub(crate) resumed: u64,
    /// Connections that were lost, other than on purpose.
    pub(crate) lost: u64,
    /// Connections that were dropped on purpose.
    pub(crate) flaps: u64,
    /// Logins that were told to come back later.
    pub(crate) busy_logins: u64,
    /// Keep-alives that were sent, and their answers.
    pub(crate) pings: u64,
    pub(crate) pongs: u64,
    /// Why the last connect failed, as the system's number; none since one was made.
    pub(crate) connect_error: Option<i32>,
    /// What the books say.
    pub(crate) sums: Sums,
}

impl Counts {
    pub(super) fn of_away(phone_count: u64) -> Self {
        let mut counts = Self::default();
        counts.phones[Stage::Away as usize] = phone_count;
        counts
    }

    /// Phones in a stage.
    pub(crate) fn in_stage(&self, stage: Stage) -> u64 {
        self.phones[stage as usize]
    }

    /// Phones on their way to be online.
    pub(crate) fn coming(&self) -> u64 {
        self.in_stage(Stage::Waiting) + self.in_stage(Stage::LoggingIn)
    }

    /// Whether every phone that is wanted is online and has what waited for it.
    pub(crate) fn settled(&self) -> bool {
        self.coming() == 0 && self.in_stage(Stage::Online) == self.drained
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.phones.iter_mut().zip(other.phones).for_each(|(mine, theirs)| *mine += theirs);
        self.drained += other.drained;
        self.first_logins += other.first_logins;
        self.logins += other.logins;
        self.resumed += other.resumed;
        self.lost += other.lost;
        self.flaps += other.flaps;
        self.busy_logins += other.busy_logins;
        self.pings += other.pings;
        self.pongs += other.pongs;
        self.connect_error = self.connect_error.or(other.connect_error);
        self.sums += other.sums;
    }
}
