//! Phones 2k and 2k+1 talk with each other, both ways: `pairs`, and `flap`, where connections are dropped meanwhile.

use crate::clock::ns;
use crate::enough::Enough;
use crate::fleet::{Counts, Flaps, Fleet, Schedule, Stage, Traffic};
use crate::latencies::LatencyFile;
use crate::ledger::{Each, Place};
use crate::report::{Report, Resumed, per_s};
use crate::session::{Over, Session, Which};
use anyhow::Result;
use std::path::Path;

/// What is said, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Talk {
    pub(crate) pace: Pace,
    /// Connections dropped per second, over all phones.
    pub(crate) flaps_per_s: Option<f64>,
    pub(crate) duration_s: f64,
    /// Say nothing new: only take what waits.
    pub(crate) verify_only: bool,
}

/// How fast.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// So many messages under way for each phone.
    Window(u32),
    /// So many messages per second over all phones.
    Rate(f64),
}

/// Runs it until its time is up or somebody says that it is enough: the report, and whether the run is complete. Every
/// latency goes to the file `latencies`, if there is one.
pub(crate) fn run(talk: &Talk, latencies: Option<&Path>, session: &mut Session) -> Result<(Report, bool)> {
    let mut latencies = latencies.map(LatencyFile::create).transpose()?;
    if latencies.is_some() {
        session.crew.each(|fleet| fleet.books.tally.each = Some(Box::<Each>::default()))?;
    }
    let login_window = session.sample();
    let mut complete = session.log_in("login", Which::All)?;
    let login_count = session.crew.counts()?.logins;
    let login = (login_window.and_then(|window| window.finish()), login_count);
    if !complete || talk.verify_only {
        let mut report = session.report_of_leftovers()?;
        report.server = session.server(login, None, 0);
        session.leave(Which::All)?;
        return Ok((report, complete));
    }

    session.wait_for_ids();
    // Until now SIGINT ends the process.
    let enough = Enough::default();
    enough.on_sigint()?;
    let traffic_window = session.sample();
    let start_ns = session.now_ns();
    let until_ns = start_ns + ns(talk.duration_s);
    let (orders, phone_count) = (*talk, session.phone_count);
    session.crew.each(move |fleet| start(fleet, &orders, phone_count, start_ns, until_ns))?;
    let over = session.run("traffic", until_ns, |_| enough.is_said())?;
    // The figures of the window are those of its end, whatever a worker was in the middle of.
    let counts = session.crew.each(|fleet| {
        let counts = fleet.counts();
        fleet.end_traffic();
        counts
    })?;
    let elapsed_ns = session.now_ns() - start_ns;
    let delivered_in_window = counts.iter().map(|counts| counts.sums.delivered).sum();
    let flap_count = session.crew.counts()?.flaps;
    traffic_window.iter().for_each(|window| window.stop());

    if enough.is_said() {
        eprintln!("tern-load: enough is sent, and what is under way is waited for; SIGINT ends that, too");
    }
    complete = over != Over::Patience;
    if complete {
        // What is ticked must arrive; and everyone whose connection was dropped comes back.
        let settled = |counts: &Counts| counts.sums.outstanding() == 0 && counts.settled();
        let over = session.run("drain", u64::MAX, settled)?;
        // A message without a tick is no fault of the server's, but no clean run either: it is in no latency.
        complete = over == Over::Done && session.crew.counts()?.in_stage(Stage::Refused) == 0;
    }
    if let Some(file) = &mut latencies {
        let each = session.crew.each(|fleet| fleet.books.tally.each.take())?;
        each.into_iter().flatten().try_for_each(|each| file.write(session.clock, &each))?;
    }
    let (lost, unknown) = session.missing()?;
    if unknown > 0 {
        eprintln!("tern-load: {unknown} ticked messages wait for phones that could not come back");
    }
    let mut report = session.report()?;
    report.lost = Some(lost);
    report.msgs_per_s = per_s(delivered_in_window, elapsed_ns);
    report.flaps = talk.flaps_per_s.map(|_| flap_count);
    let Counts { resumed: by_ticket, busy_logins: busy, .. } = session.crew.counts()?;
    report.resumed = talk.flaps_per_s.map(|_| Resumed { by_ticket, busy, ..Resumed::default() });
    let usage = traffic_window.and_then(|window| window.finish());
    report.server = session.server(login, usage, delivered_in_window);
    session.leave(Which::All)?;
    report.set_faults(session.crew.counts()?.sums.faults);
    Ok((report, complete && unknown == 0))
}

/// Sets a worker's share going.
fn start(fleet: &mut Fleet, talk: &Talk, all_count: u32, start_ns: u64, until_ns: u64) {
    let phone_count = fleet.phones.len() as u32;
    let share = f64::from(phone_count) / f64::from(all_count);
    // Workers take turns, like the phones of one.
    let late_ns = |rate: f64| (f64::from(fleet.first_phone()) / f64::from(all_count) * 1e9 / rate) as u64;
    let traffic = match talk.pace {
        Pace::Window(count) => Traffic::Window { count, place: Place::BothTicks, until_ns },
        Pace::Rate(rate) => {
            let rate = rate * share;
            Traffic::Scheduled(Schedule::new(rate, phone_count, start_ns + late_ns(rate), until_ns))
        }
    };
    fleet.flaps = talk.flaps_per_s.map(|rate| {
        let rate = rate * share;
        Flaps::new(rate, start_ns + late_ns(rate), until_ns)
    });
    fleet.set_traffic(traffic);
}
