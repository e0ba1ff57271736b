//! Each deliberate bug is found within 2,000 seeds: the simulator bites.

use tern_sim::campaign;
use tern_sim::world::Bugs;

/// Seeds in which a bug must be found.
const SEED_COUNT: u64 = 2000;

/// Plays seeds until one fails with one of `signs`: the bug must be found by what it breaks, and the same seed must
/// pass without it, so that no other failure counts.
fn is_found(name: &str, signs: &[&str]) {
    campaign::quiet_panics();
    let bugs = campaign::bug(name).expect("a known bug");
    for seed in 0..SEED_COUNT {
        let played = campaign::play(seed, bugs, false);
        if let Some(failure) = played.failure()
            && signs.iter().any(|sign| failure.contains(sign))
        {
            println!("{name}: seed {seed}: {failure}");
            let without = campaign::play(seed, Bugs::default(), false);
            assert_eq!(without.failure(), None, "seed {seed} fails without the bug, too");
            return;
        }
    }
    panic!("{name} was not found within {SEED_COUNT} seeds");
}

#[test]
fn a_tick_before_the_commit_is_found() {
    is_found("tick_before_commit", &["before it was safe"]);
}

#[test]
fn a_sequence_reused_after_a_crash_is_found() {
    is_found(
        "sequence_reused",
        &["held", "after Some", "covers message", "never reached", "never got", "place"],
    );
}

#[test]
fn a_floor_forgotten_at_recovery_is_found() {
    is_found("floor_forgotten", &["handed out again", "come back after a stop"]);
}

#[test]
fn a_clock_that_is_taken_at_its_word_is_found() {
    is_found("clock_believed", &["Expired", "never reached", "never got"]);
}

#[test]
fn what_stays_old_when_a_clock_is_put_right_is_found() {
    is_found("dropped_stays", &["Expired, and is young"]);
}

#[test]
fn shards_that_begin_at_different_times_are_found() {
    is_found("clocks_apart", &["Expired, and is young"]);
}

#[test]
fn dedup_forgotten_at_recovery_is_found() {
    is_found("dedup_forgotten", &["stored twice", "twice within one connection"]);
}

#[test]
fn a_hand_over_without_its_leftover_is_found() {
    is_found("leftover_dropped", &["no rest", "protocol errors", "honest phone"]);
}

#[test]
fn an_order_broken_by_busy_is_found() {
    is_found("busy_breaks_order", &["order"]);
}

#[test]
fn a_slot_reused_without_its_generation_is_found() {
    is_found("generation_ignored", &["protocol errors", "honest phone", "sends", "receive", "slot"]);
}

#[test]
fn a_session_replaced_by_a_replay_is_found() {
    is_found("replay_replaces", &["was told Replaced"]);
}

#[test]
fn a_device_that_is_let_go_of_before_its_revoking_is_stable_is_found() {
    is_found("revoked_too_early", &["never reached"]);
}

#[test]
fn a_revoking_that_is_answered_before_it_is_stable_is_found() {
    is_found(
        "revoking_told_early",
        &["was revoked, and is welcomed again", "listed again", "which was revoked"],
    );
}

#[test]
fn a_removal_that_is_answered_before_it_is_stable_is_found() {
    is_found("removing_told_early", &["was revoked, and is welcomed again", "accounts are there for sure"]);
}

#[test]
fn an_account_that_a_replay_makes_is_found() {
    is_found("replay_registers", &["accounts are there for sure"]);
}

#[test]
fn a_segment_that_is_overwritten_before_its_records_are_safe_elsewhere_is_found() {
    is_found(
        "rewritten_too_early",
        &[
            "UnknownAccount",
            "never reached",
            "is not made",
            "are both",
            "stored twice",
            // An earlier record of an account or of a floor is the last one that is left.
            "is gone, and nobody asked",
            "is welcomed again",
            "lacks what came of",
            "come back after a stop",
        ],
    );
}

#[test]
fn mail_that_recovery_takes_twice_is_found() {
    is_found("rewritten_counts_twice", &["mailbox places must grow"]);
}

#[test]
fn a_changed_key_that_is_not_told_is_found() {
    is_found("key_untold", &["was not told the server's present key"]);
}

#[test]
fn buffers_that_stay_counted_are_found() {
    is_found("buffers_kept", &["bytes of buffers"]);
}

#[test]
fn large_envelopes_that_stay_counted_are_found() {
    is_found("boxes_kept", &["bytes of boxed envelopes"]);
}

#[test]
fn answers_that_stay_counted_are_found() {
    is_found("answers_kept", &["messages without an answer"]);
}

#[test]
fn acknowledged_mail_that_comes_again_without_a_stop_is_found() {
    is_found("acknowledged_stays", &["in the same life of the node"]);
}

#[test]
fn a_phone_that_talks_and_is_sent_away_as_idle_is_found() {
    is_found("timer_not_reset", &["was told Idle"]);
}

#[test]
fn a_timer_that_outlives_its_connection_is_found() {
    is_found("timer_kept", &["timers"]);
}

#[test]
fn a_phone_that_reads_and_is_hung_up_on_is_found() {
    is_found("readers_hurried", &["without a word"]);
}

#[test]
fn addresses_that_go_on_holding_connections_are_found() {
    is_found("addresses_kept", &["addresses", "no rest"]);
}

#[test]
fn addresses_that_go_on_holding_logins_are_found() {
    is_found("half_open_kept", &["no rest"]);
}

#[test]
fn mail_that_expires_too_early_is_found() {
    is_found("expires_early", &["never reached", "which it did not acknowledge"]);
}

#[test]
fn old_ids_that_are_taken_for_new_are_found() {
    is_found(
        "old_taken_for_new",
        &[
            "stored twice",
            "twice after dedup",
            "twice within one connection",
            "handed out again",
            "order",
            "came before its copy was safe",
        ],
    );
}

#[test]
fn a_start_that_believes_what_was_never_synced_is_found() {
    is_found("starts_unsynced", &["before it was safe", "was ticked and never reached"]);
}

#[test]
fn a_start_that_believes_what_failed_to_be_written_is_found() {
    is_found("cache_believed", &["before it was safe", "was ticked and never reached"]);
}

#[test]
fn watches_that_stay_counted_are_found() {
    is_found("watches_kept", &["watches"]);
}

#[test]
fn copies_that_a_start_forgets_are_found() {
    is_found("copy_lost", &["the copy of message"]);
}

#[test]
fn a_read_tick_that_is_answered_before_it_is_safe_is_found() {
    is_found("read_lost", &["was taken and never reached"]);
}

#[test]
fn a_read_tick_for_what_nobody_read_is_found() {
    is_found("read_told_early", &["came before it was read"]);
}

#[test]
fn a_delivered_tick_that_comes_before_any_acknowledgement_is_found() {
    is_found("delivered_early", &["came before any acknowledgement"]);
}

#[test]
fn a_phone_that_is_told_too_early_that_its_mailbox_was_empty_is_found() {
    is_found("drained_early", &["was told that its mailbox was empty"]);
}

#[test]
fn a_window_that_is_ignored_is_found() {
    is_found("window_ignored", &["ahead of what it acknowledged"]);
}
