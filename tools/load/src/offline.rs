//! `tern-load offline`: half of the phones send to the absent other half; then these come and drain.

use crate::args::OfflineArgs;
use crate::fleet::{Counts, Fleet, Traffic};
use crate::ledger::Place;
use crate::report::{Report, per_s};
use crate::session::{Over, Session, Which};
use anyhow::Result;

/// Messages that each sender has under way without a `sent` tick.
const WINDOW_COUNT: u32 = 256;

/// Runs it: the report, and whether the run is complete.
pub(crate) fn run(args: &OfflineArgs, session: &mut Session) -> Result<(Report, bool)> {
    let (senders, absent) = (Which::Even, Which::Odd);
    if session.admin.is_none() {
        // Without the admin endpoint an account is made by its phone.
        if !session.log_in("registration", absent)? {
            return Ok((session.report()?, false));
        }
        session.leave(absent)?;
    }
    let before_count = session.crew.counts()?.logins;
    let login_window = session.sample();
    let logged_in = session.log_in("login", senders)?;
    let login_count = session.crew.counts()?.logins - before_count;
    let login = (login_window.and_then(|window| window.finish()), login_count);
    if !logged_in || args.common.verify_only {
        let complete = logged_in && session.log_in("login", absent)?;
        let mut report = session.report_of_leftovers()?;
        report.server = session.server(login, None, 0);
        session.leave(Which::All)?;
        return Ok((report, complete));
    }

    let (message_count, sender_count) = (args.messages, u64::from(session.phone_count / 2));
    session.crew.each(move |fleet| share_out(fleet, sender_count, message_count))?;
    session.wait_for_ids();
    let store_window = session.sample();
    let start_ns = session.now_ns();
    session.crew.each(|fleet| {
        fleet.set_traffic(Traffic::Window {
            count: WINDOW_COUNT,
            place: Place::SentTick,
            until_ns: u64::MAX,
        });
    })?;
    let all_ticked = |counts: &Counts| {
        let sums = &counts.sums;
        sums.sent == args.messages && sums.ticked + sums.refused == sums.sent
    };
    let mut complete = session.run("store", u64::MAX, all_ticked)? == Over::Done;
    session.crew.each(|fleet| fleet.traffic = Traffic::Nothing)?;
    let usage = store_window.and_then(|window| window.finish());
    let ticked = session.crew.counts()?.sums.ticked;
    let stored_ns = session.last_ns()?.0.saturating_sub(start_ns);
    session.leave(senders)?;

    let drain_ns = session.now_ns();
    complete &= session.log_in("drain", absent)?;
    complete &= session.run("drain", u64::MAX, |counts| counts.sums.delivered >= ticked)? == Over::Done;
    let drained_ns = session.last_ns()?.1.saturating_sub(drain_ns);
    let delivered = session.crew.counts()?.sums.delivered;
    // The senders come back: their `delivered` ticks wait like mail.
    complete &= session.log_in("ticks", senders)?;
    let confirmed = |counts: &Counts| counts.sums.confirmed + counts.sums.refused >= args.messages;
    complete &= session.run("ticks", u64::MAX, confirmed)? == Over::Done;

    let (lost, unknown) = session.missing()?;
    let mut report = session.report()?;
    report.lost = Some(lost);
    report.stored_per_s = per_s(ticked, stored_ns);
    report.drained_per_s = per_s(delivered, drained_ns);
    report.server = session.server(login, usage, delivered);
    session.leave(Which::All)?;
    report.set_faults(session.crew.counts()?.sums.faults);
    Ok((report, complete && unknown == 0))
}

/// Gives each of a worker's senders its share of the messages.
fn share_out(fleet: &mut Fleet, sender_count: u64, message_count: u64) {
    for phone in Which::Even.of(fleet.phones.len() as u32) {
        let place = u64::from(fleet.first_phone() + phone) / 2;
        let extra = u64::from(place < message_count % sender_count);
        fleet.phones[phone as usize].quota_count = (message_count / sender_count + extra) as u32;
    }
}
