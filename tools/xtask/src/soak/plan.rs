//! What a round does, drawn from its seed before it begins.

use super::dice::Dice;
use super::limits;
use super::loads::Load;
use std::fmt;

/// A round: one data directory, some loads one after the other, and what is done to the server meanwhile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) shards: u16,
    /// The configuration, TOML.
    pub(super) config: String,
    pub(super) acts: Vec<Act>,
}

/// A load, and what is done to the server under it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Act {
    pub(super) load: Load,
    /// Phones that only wait.
    pub(super) waiting: Option<Load>,
    pub(super) disturbances: Vec<Disturbance>,
}

/// Something that is done to the server, so long after the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Disturbance {
    pub(super) after_ms: u64,
    pub(super) kind: Kind,
}

/// What it is. Whoever is ended is started again on the same data and ports, `down_ms` later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// SIGKILL.
    Kill { down_ms: u64 },
    /// SIGKILL, and another one so long after the next start begins.
    KillTwice { down_ms: u64, again_ms: u64 },
    /// SIGTERM, and the end that the server makes of itself.
    Drain { down_ms: u64 },
    /// SIGTERM, and another one so long after that.
    CutOff { down_ms: u64, again_ms: u64 },
    /// SIGTERM, and SIGKILL so long after that.
    DrainKilled { down_ms: u64, again_ms: u64 },
    /// SIGSTOP, and SIGCONT so long after that.
    Stop { for_ms: u64 },
    /// SIGHUP.
    HangUp,
}

impl Plan {
    /// The round of a seed.
    pub(super) fn draw(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let shards = dice.range(1, 4) as u16;
        let acts: Vec<Act> = (0..dice.range(1, 3)).map(|_| Act::draw(&mut dice)).collect();
        let loads: Vec<&Load> =
            acts.iter().flat_map(|act| [Some(&act.load), act.waiting.as_ref()]).flatten().collect();
        let config = limits::draw(&mut dice, &loads);
        Self { seed, shards, config, acts }
    }

    /// In one line, without the configuration.
    pub(super) fn short(&self) -> String {
        let acts = self.acts.iter().map(|act| {
            let waiting = if act.waiting.is_some() { " beside phones that wait" } else { "" };
            format!("{}{waiting}, {} disturbances", act.load.words[..3].join(" "), act.disturbances.len())
        });
        format!("{} shards; {}", self.shards, acts.collect::<Vec<_>>().join("; "))
    }

    /// The phones that talk in any of the acts.
    pub(super) fn phones(&self) -> u64 {
        self.acts.iter().map(|act| act.load.phones).max().unwrap_or(2)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "seed {}, {} shards\n\n{}", self.seed, self.shards, self.config)?;
        for act in &self.acts {
            for load in [Some(&act.load), act.waiting.as_ref()].into_iter().flatten() {
                writeln!(formatter, "tern-load {}", load.words.join(" "))?;
            }
            for Disturbance { after_ms, kind } in &act.disturbances {
                writeln!(formatter, "  {after_ms} ms later: {kind:?}")?;
            }
        }
        Ok(())
    }
}

impl Act {
    fn draw(dice: &mut Dice) -> Self {
        let load = Load::draw(dice);
        let waiting = dice.chance(25).then(|| Load::draw_waiting(dice));
        let disturbances = (0..dice.range(0, 5)).map(|_| Disturbance::draw(dice)).collect();
        Self { load, waiting, disturbances }
    }
}

impl Disturbance {
    fn draw(dice: &mut Dice) -> Self {
        let after_ms = dice.range(0, 2_500);
        let down_ms = if dice.chance(50) { 0 } else { dice.range(0, 2_000) };
        let kind = match dice.range(0, 12) {
            0..=3 => Kind::Kill { down_ms },
            4 | 5 => Kind::KillTwice { down_ms, again_ms: dice.range(0, 100) },
            6 | 7 => Kind::Drain { down_ms },
            8 => Kind::CutOff { down_ms, again_ms: dice.range(0, 20) },
            9 => Kind::DrainKilled { down_ms, again_ms: dice.range(0, 20) },
            10 | 11 => Kind::Stop { for_ms: dice.range(50, 4_000) },
            _ => Kind::HangUp,
        };
        Self { after_ms, kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_round_again_and_others_draw_others() {
        assert_eq!(Plan::draw(7), Plan::draw(7));
        assert_ne!(Plan::draw(7).acts, Plan::draw(8).acts);
        // Nothing may be drawn while a round lives: all that it does is in its plan.
        let plans: Vec<Plan> = (0..200).map(Plan::draw).collect();
        let kinds = plans.iter().flat_map(|plan| &plan.acts).flat_map(|act| &act.disturbances);
        let mut kinds: Vec<_> = kinds.map(|disturbance| std::mem::discriminant(&disturbance.kind)).collect();
        kinds.dedup();
        assert!(kinds.len() >= 7);
        assert!((1..=4).all(|count| plans.iter().any(|plan| plan.shards == count)));
        for mode in ["pairs", "offline", "flap"] {
            assert!(plans.iter().any(|plan| plan.acts.iter().any(|act| act.load.words[0] == mode)), "{mode}");
        }
    }
}
