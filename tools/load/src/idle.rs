//! `tern-load idle`: phones log in and stay, silent but for their keep-alives.

use crate::args::IdleArgs;
use crate::clock::ns;
use crate::fleet::{Counts, Fleet, Stage};
use crate::logins::Logins;
use crate::report::{Hold, Report, Resumed, tenths};
use crate::session::{Over, Session, Which};
use crate::usage::{SAMPLE_REST_EVERY, Sampler};
use anyhow::Result;

/// Runs it: the report, and whether the run is complete.
pub(crate) fn run(args: &IdleArgs, session: &mut Session) -> Result<(Report, bool)> {
    let rss_before = session.admin.as_ref().and_then(|admin| admin.figures().ok());
    let login_window = session.sample();
    let logged_in = session.log_in("login", Which::All)?;
    let login_count = session.crew.counts()?.logins;
    let login = (login_window.and_then(|window| window.finish()), login_count);
    let mut report = session.report()?;
    let mut complete = logged_in;
    let mut hold = None;
    if complete && args.resume {
        complete = resume(session, &mut report)?;
    }
    let before = session.crew.counts()?;
    // Without a hold they are held until now.
    let rss_bytes = |session: &Session| Some(session.admin.as_ref()?.figures().ok()?.rss_bytes);
    let mut rss_held_bytes = rss_bytes(session);
    complete &= before.lost == 0;
    if complete && !args.common.verify_only {
        let window = session.sample_every(SAMPLE_REST_EVERY);
        let start_ns = session.now_ns();
        let over = session.run("hold", start_ns + ns(args.hold), |_| false)?;
        let after = session.crew.counts()?;
        let held_ns = session.now_ns() - start_ns;
        let usage = window.and_then(|window| window.finish());
        // Before a storm: what the server takes for that is no part of a phone's cost.
        rss_held_bytes = rss_bytes(session);
        let all_online = after.in_stage(Stage::Online) == u64::from(session.phone_count);
        complete &= over == Over::Time && after.lost == before.lost && all_online;
        hold = Some(Hold {
            seconds: held_ns as f64 / 1e9,
            lost_count: after.lost - before.lost,
            pings: after.pings - before.pings,
            pongs: after.pongs - before.pongs,
            cpu_user_us: usage.map(|used| used.cpu_user_us),
            cpu_system_us: usage.map(|used| used.cpu_system_us),
        });
    }
    if complete && args.storm {
        complete = storm(session, &mut report)?;
    }
    report.delivered = session.crew.counts()?.sums.leftovers;
    report.server = session.server(login, None, 0);
    if let (Some(server), Some(before), Some(held_bytes)) = (&mut report.server, rss_before, rss_held_bytes) {
        let grown_bytes = held_bytes.saturating_sub(before.rss_bytes);
        server.rss_bytes_per_phone = grown_bytes.checked_div(report.logged_in);
    }
    report.hold = hold;
    session.leave(Which::All)?;
    report.set_faults(session.crew.counts()?.sums.faults);
    Ok((report, complete))
}

/// All leave and come back. False if some did not make it.
fn resume(session: &mut Session, report: &mut Report) -> Result<bool> {
    session.crew.each(|fleet| fleet.count_logins_anew())?;
    session.leave(Which::All)?;
    let window = Coming::start(session)?;
    let complete = session.log_in("resume", Which::All)?;
    report.resumed = Some(window.finish(session)?);
    Ok(complete)
}

/// All connections are dropped at once, and all phones come back. False if some did not make it.
fn storm(session: &mut Session, report: &mut Report) -> Result<bool> {
    session.crew.each(|fleet| fleet.count_logins_anew())?;
    let window = Coming::start(session)?;
    let start_ns = session.now_ns();
    session.crew.each(Fleet::storm)?;
    let over = session.run("storm", u64::MAX, Counts::settled)?;
    let back_ns = session.now_ns();
    session.crew.each(|fleet| fleet.logins.end_wave())?;
    let is_back = over == Over::Done;
    let all_back_s = (back_ns - start_ns) as f64 / 1e9;
    report.resumed = Some(Resumed {
        all_back_s: is_back.then(|| (all_back_s * 100.0).round() / 100.0),
        dropped_unix_us: Some(session.clock.unix_us(start_ns)),
        back_unix_us: is_back.then(|| session.clock.unix_us(back_ns)),
        ..window.finish(session)?
    });
    Ok(is_back)
}

/// What coming back costs the server, from here on.
struct Coming {
    before: Counts,
    window: Option<Sampler>,
}

impl Coming {
    fn start(session: &Session) -> Result<Self> {
        Ok(Self { before: session.crew.counts()?, window: session.sample() })
    }

    fn finish(self, session: &Session) -> Result<Resumed> {
        let usage = self.window.and_then(|window| window.finish());
        let after = session.crew.counts()?;
        let mut logins = Logins::default();
        session.crew.each(|fleet| fleet.logins.clone())?.iter().for_each(|one| logins.add(one));
        let mut found = Report::default();
        logins.report(&mut found);
        let cpu_us = usage.map(|used| used.cpu_user_us + used.cpu_system_us);
        let login_count = after.logins - self.before.logins;
        Ok(Resumed {
            by_ticket: after.resumed - self.before.resumed,
            login_per_s: found.login_per_s,
            login_p50_us: found.login_p50_us,
            login_p99_us: found.login_p99_us,
            server_cpu_us_per_login: cpu_us
                .filter(|_| login_count > 0)
                .map(|us| tenths(us as f64 / login_count as f64)),
            busy: after.busy_logins - self.before.busy_logins,
            all_back_s: None,
            dropped_unix_us: None,
            back_unix_us: None,
        })
    }
}
