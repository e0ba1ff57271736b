//! `tern-load offline`: half of the phones send to the absent other half; then these come and drain.

use crate::args::OfflineArgs;
use crate::fleet::{Fleet, Traffic};
use crate::ledger::Place;
use crate::report::{Report, per_s};
use crate::session::{Over, Session};
use anyhow::Result;

/// Messages that each sender has under way without a `sent` tick.
const WINDOW_COUNT: u32 = 256;

/// Runs it: the report, and whether the run is complete.
pub(crate) fn run(args: &OfflineArgs, session: &mut Session) -> Result<(Report, bool)> {
    let phones = args.common.phones;
    let senders: Vec<u32> = (0..phones).step_by(2).collect();
    let absent: Vec<u32> = (1..phones).step_by(2).collect();
    if session.admin.is_none() {
        // Without the admin endpoint an account is made by its phone.
        if !session.log_in("registration", &absent)? {
            return Ok((session.report(), false));
        }
        session.leave(&absent)?;
    }
    let before_count = session.fleet.logins.all_count;
    let login_window = session.sample();
    let logged_in = session.log_in("login", &senders)?;
    let login_count = session.fleet.logins.all_count - before_count;
    let login = (login_window.and_then(|window| window.finish()), login_count);
    if !logged_in || args.common.verify_only {
        let complete = logged_in && session.log_in("login", &absent)?;
        let mut report = session.report();
        report.delivered = session.fleet.books.tally.leftovers;
        report.server = session.server(login, None, 0);
        session.leave(&senders)?;
        session.leave(&absent)?;
        return Ok((report, complete));
    }

    share_out(session, &senders, args.messages);
    session.wait_for_ids();
    let store_window = session.sample();
    let start_ns = session.now_ns();
    session.fleet.set_traffic(Traffic::Window {
        count: WINDOW_COUNT,
        place: Place::SentTick,
        until_ns: u64::MAX,
    });
    let all_ticked = |fleet: &Fleet| {
        let tally = &fleet.books.tally;
        tally.sent == args.messages && tally.ticked + tally.refused == tally.sent
    };
    let mut complete = session.run("store", u64::MAX, all_ticked)? == Over::Done;
    session.fleet.traffic = Traffic::Nothing;
    let usage = store_window.and_then(|window| window.finish());
    let ticked = session.fleet.books.tally.ticked;
    let stored_ns = session.fleet.books.tally.last_tick_ns.saturating_sub(start_ns);
    session.leave(&senders)?;

    let drain_ns = session.now_ns();
    complete &= session.log_in("drain", &absent)?;
    complete &= session.run("drain", u64::MAX, |fleet| fleet.books.tally.delivered >= ticked)? == Over::Done;
    let drained_ns = session.fleet.books.tally.last_delivery_ns.saturating_sub(drain_ns);
    let delivered = session.fleet.books.tally.delivered;
    // The senders come back: their `delivered` ticks wait like mail.
    complete &= session.log_in("ticks", &senders)?;
    let confirmed = |fleet: &Fleet| fleet.books.tally.confirmed + fleet.books.tally.refused >= args.messages;
    complete &= session.run("ticks", u64::MAX, confirmed)? == Over::Done;

    let (lost, unknown) = session.missing();
    let mut report = session.report();
    report.lost = Some(lost);
    report.stored_per_s = per_s(ticked, stored_ns);
    report.drained_per_s = per_s(delivered, drained_ns);
    report.server = session.server(login, usage, delivered);
    session.leave(&senders)?;
    session.leave(&absent)?;
    report.set_faults(session.fleet.books.tally.faults);
    Ok((report, complete && unknown == 0))
}

/// Gives each sender its share of the messages.
fn share_out(session: &mut Session, senders: &[u32], message_count: u64) {
    let sender_count = senders.len() as u64;
    for (place, &sender) in senders.iter().enumerate() {
        let extra = u64::from((place as u64) < message_count % sender_count);
        session.fleet.phones[sender as usize].quota_count = (message_count / sender_count + extra) as u32;
    }
}
