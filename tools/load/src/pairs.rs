//! `tern-load pairs`: phones 2k and 2k+1 talk with each other.

use crate::args::PairsArgs;
use crate::clock::ns;
use crate::fleet::{Fleet, Schedule, Traffic};
use crate::ledger::Place;
use crate::report::{Report, per_s};
use crate::session::{Over, Session};
use anyhow::Result;

/// Runs it: the report, and whether the run is complete.
pub(crate) fn run(args: &PairsArgs, session: &mut Session) -> Result<(Report, bool)> {
    let phones: Vec<u32> = (0..args.common.phones).collect();
    let login_window = session.sample();
    let mut complete = session.log_in("login", &phones)?;
    let login_count = session.fleet.logins.all_count;
    let login = (login_window.and_then(|window| window.finish()), login_count);
    if !complete || args.common.verify_only {
        let mut report = session.report();
        report.delivered = session.fleet.books.tally.leftovers;
        report.server = session.server(login, None, 0);
        session.leave(&phones)?;
        return Ok((report, complete));
    }

    session.wait_for_ids();
    let traffic_window = session.sample();
    let start_ns = session.now_ns();
    let until_ns = start_ns + ns(args.duration);
    session.fleet.set_traffic(match (args.pace.window, args.pace.rate) {
        (Some(count), _) => Traffic::Window { count, place: Place::BothTicks, until_ns },
        (None, Some(rate)) => Traffic::Scheduled(Schedule::new(rate, args.common.phones, start_ns, until_ns)),
        (None, None) => Traffic::Nothing,
    });
    let over = session.run("traffic", until_ns, |_| false)?;
    let elapsed_ns = session.now_ns() - start_ns;
    let delivered_in_window = session.fleet.books.tally.delivered;
    traffic_window.iter().for_each(|window| window.stop());

    complete = over == Over::Time;
    session.fleet.traffic = Traffic::Nothing;
    if complete {
        let settled = |fleet: &Fleet| fleet.books.tally.outstanding() == 0;
        let over = session.run("drain", u64::MAX, settled)?;
        // A message without a tick at the end is no fault, but a tick or delivery that is owed is.
        let tally = &session.fleet.books.tally;
        complete = over == Over::Done || tally.ticked == tally.confirmed && tally.ticked == tally.delivered;
    }
    let (lost, unknown) = session.missing();
    if unknown > 0 {
        eprintln!("tern-load: {unknown} ticked messages wait for phones that could not come back");
    }
    let mut report = session.report();
    report.lost = Some(lost);
    report.msgs_per_s = per_s(delivered_in_window, elapsed_ns);
    let usage = traffic_window.and_then(|window| window.finish());
    report.server = session.server(login, usage, delivered_in_window);
    session.leave(&phones)?;
    report.set_faults(session.fleet.books.tally.faults);
    Ok((report, complete && unknown == 0))
}
