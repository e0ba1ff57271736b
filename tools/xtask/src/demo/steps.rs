//! The steps of the demonstration, in order, and how each stands.

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Build,
    Start,
    LogIn,
    Talk,
    Kill,
    Recover,
    Store,
    Drain,
    Flap,
    Storm,
    Attack,
    Stop,
}

impl Step {
    /// All, in order.
    pub(super) const ALL: [Self; 12] = [
        Self::Build,
        Self::Start,
        Self::LogIn,
        Self::Talk,
        Self::Kill,
        Self::Recover,
        Self::Store,
        Self::Drain,
        Self::Flap,
        Self::Storm,
        Self::Attack,
        Self::Stop,
    ];

    /// For people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Start => "start a server on new data",
            Self::LogIn => "phones register and log in",
            Self::Talk => "they talk in pairs",
            Self::Kill => "kill -9, start again",
            Self::Recover => "they come back and go on",
            Self::Store => "mail for phones that are away",
            Self::Drain => "these come for their mail",
            Self::Flap => "connections drop all the time",
            Self::Storm => "all drop at once and come back",
            Self::Attack => "hostile clients beside them",
            Self::Stop => "SIGTERM: drain and end",
        }
    }
}

/// How a step stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stand {
    /// Its turn will come.
    Ahead,
    /// Since then, milliseconds.
    UnderWay { since_ms: u64 },
    /// And took so long, milliseconds.
    Done { took_ms: u64 },
}

/// All steps.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    entries: [(Stand, String); Step::ALL.len()],
}

impl Default for Steps {
    fn default() -> Self {
        Self { entries: Step::ALL.map(|_| (Stand::Ahead, String::new())) }
    }
}

impl Steps {
    /// A step begins; the one under way is over. One that is over does not begin again.
    pub(super) fn begin(&mut self, step: Step, now_ms: u64) {
        if self.entries[step as usize].0 == Stand::Ahead {
            self.end(now_ms);
            self.entries[step as usize].0 = Stand::UnderWay { since_ms: now_ms };
        }
    }

    /// The step under way is over.
    pub(super) fn end(&mut self, now_ms: u64) {
        for (stand, _) in &mut self.entries {
            if let Stand::UnderWay { since_ms } = *stand {
                *stand = Stand::Done { took_ms: now_ms.saturating_sub(since_ms) };
            }
        }
    }

    /// Whether it is this one's turn.
    pub(super) fn is_under_way(&self, step: Step) -> bool {
        matches!(self.entries[step as usize].0, Stand::UnderWay { .. })
    }

    /// What came out of the step under way.
    pub(super) fn note(&mut self, text: String) {
        let under_way = |entry: &&mut (Stand, String)| matches!(entry.0, Stand::UnderWay { .. });
        if let Some(entry) = self.entries.iter_mut().find(under_way) {
            entry.1 = text;
        }
    }

    /// Each step, how it stands, and what came out of it.
    pub(super) fn each(&self) -> impl Iterator<Item = (Step, Stand, &str)> {
        Step::ALL.into_iter().zip(&self.entries).map(|(step, (stand, note))| (step, *stand, note.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_step_after_the_other() {
        let mut steps = Steps::default();
        steps.note("nobody's".into());
        steps.begin(Step::Build, 100);
        steps.note("built".into());
        steps.begin(Step::Start, 350);
        // A late word about a step that is over changes nothing.
        steps.begin(Step::Build, 400);
        let found: Vec<_> = steps.each().take(3).collect();
        assert_eq!(
            found,
            [
                (Step::Build, Stand::Done { took_ms: 250 }, "built"),
                (Step::Start, Stand::UnderWay { since_ms: 350 }, ""),
                (Step::LogIn, Stand::Ahead, ""),
            ]
        );
        steps.end(500);
        assert_eq!(steps.each().nth(1), Some((Step::Start, Stand::Done { took_ms: 150 }, "")));
        assert!(Step::ALL.iter().all(|step| step.title().len() <= 32), "the screen has no more columns");
        assert!(Step::ALL.iter().enumerate().all(|(index, step)| *step as usize == index));
    }
}
