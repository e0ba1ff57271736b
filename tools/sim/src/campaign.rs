//! Many seeds: plays them so that a panic in one is a failure of that one.

use crate::world::{self, Bugs, Outcome};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// What the last panic of this thread said, and where.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// How one seed went.
#[derive(Debug)]
pub struct Played {
    /// The seed.
    pub seed: u64,
    /// The outcome, or what the panic said.
    pub result: Result<Outcome, String>,
}

impl Played {
    /// What went wrong, if something did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match &self.result {
            Ok(outcome) => outcome.failure.as_deref(),
            Err(panic) => Some(panic),
        }
    }
}

/// Plays a seed. A panic of the core, whose own assertions are invariants too, is a failure like others.
/// `tells` prints everything that happens.
#[must_use]
pub fn play(seed: u64, bugs: Bugs, tells: bool) -> Played {
    let result = catch_unwind(AssertUnwindSafe(|| world::run(seed, bugs, tells)))
        .map_err(|_| LAST_PANIC.with(|last| format!("panicked: {}", last.take())));
    Played { seed, result }
}

/// Panics are kept for the report instead of being printed where they happen.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            eprintln!("{text}\n{}", std::backtrace::Backtrace::force_capture());
        }
        LAST_PANIC.with(|last| last.replace(text));
    }));
}

/// The set with only the bug of this name; `None` for an unknown name.
#[cfg(feature = "bugs")]
#[must_use]
pub fn bug(name: &str) -> Option<Bugs> {
    let mut bugs = Bugs::default();
    let switch = match name {
        "tick_before_commit" => &mut bugs.tick_before_commit,
        "sequence_reused" => &mut bugs.sequence_reused,
        "floor_forgotten" => &mut bugs.floor_forgotten,
        "clock_believed" => &mut bugs.clock_believed,
        "dropped_stays" => &mut bugs.dropped_stays,
        "clocks_apart" => &mut bugs.clocks_apart,
        "dedup_forgotten" => &mut bugs.dedup_forgotten,
        "leftover_dropped" => &mut bugs.leftover_dropped,
        "busy_breaks_order" => &mut bugs.busy_breaks_order,
        "generation_ignored" => &mut bugs.generation_ignored,
        "replay_replaces" => &mut bugs.replay_replaces,
        "key_untold" => &mut bugs.key_untold,
        "revoked_too_early" => &mut bugs.revoked_too_early,
        "rewritten_too_early" => &mut bugs.rewritten_too_early,
        "rewritten_counts_twice" => &mut bugs.rewritten_counts_twice,
        "removing_told_early" => &mut bugs.removing_told_early,
        "replay_registers" => &mut bugs.replay_registers,
        "revoking_told_early" => &mut bugs.revoking_told_early,
        "buffers_kept" => &mut bugs.buffers_kept,
        "boxes_kept" => &mut bugs.boxes_kept,
        "answers_kept" => &mut bugs.answers_kept,
        "addresses_kept" => &mut bugs.addresses_kept,
        "half_open_kept" => &mut bugs.half_open_kept,
        "timer_kept" => &mut bugs.timer_kept,
        "watches_kept" => &mut bugs.watches_kept,
        "expires_early" => &mut bugs.expires_early,
        "old_taken_for_new" => &mut bugs.old_taken_for_new,
        "acknowledged_stays" => &mut bugs.acknowledged_stays,
        "timer_not_reset" => &mut bugs.timer_not_reset,
        "readers_hurried" => &mut bugs.readers_hurried,
        "copy_lost" => &mut bugs.copy_lost,
        "read_lost" => &mut bugs.read_lost,
        "read_told_early" => &mut bugs.read_told_early,
        "delivered_early" => &mut bugs.delivered_early,
        "drained_early" => &mut bugs.drained_early,
        "window_ignored" => &mut bugs.window_ignored,
        "starts_unsynced" => &mut bugs.starts_unsynced,
        "cache_believed" => &mut bugs.cache_believed,
        _ => return None,
    };
    *switch = true;
    Some(bugs)
}
