//! One round, lived through on real processes.

use super::loads::Load as Wanted;
use super::plan::{Act, Kind, Plan};
use super::tally::Tally;
use crate::node::{Load, Node, NodePlan};
use crate::quit::Quit;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::{File, create_dir_all, read_to_string, remove_dir_all, write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// Longest wait until a generator's phones log in, and for its end.
const LOGIN_WAIT: Duration = Duration::from_secs(60);
const LOAD_WAIT: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What the generator counts as faults.
const FAULTS: [&str; 5] = ["lost", "duplicated", "misordered", "misdelivered", "early_ticks"];
/// `tern`: a second signal cut the drain off.
const EXIT_CUT_OFF: i32 = 7;

/// Where a round lives, and with which programs.
pub(super) struct Site<'a> {
    pub(super) directory: PathBuf,
    pub(super) binaries: &'a Path,
    pub(super) quit: &'a Quit,
}

impl Site<'_> {
    /// Lives through all of it. The error says what went wrong, all at once.
    pub(super) fn live_through(&self, plan: &Plan, tally: &mut Tally) -> Result<()> {
        self.clear()?;
        create_dir_all(&self.directory).context("a directory for the round")?;
        let config = self.path("tern.toml");
        write(&config, &plan.config).context("the configuration")?;
        write(self.path("plan.txt"), plan.to_string()).context("the plan")?;
        let mut faults = Vec::new();
        let node = NodePlan {
            program: self.binaries.join("tern"),
            config: Some(config),
            log: Some(self.path("server.log")),
            ..NodePlan::new(&self.path("data"), plan.shards, None)
        };
        let lived = self.acts(plan, node, &mut faults, tally);
        self.quit.check()?;
        faults.extend(lived.err().map(|error| format!("{error:#}")));
        faults.extend(bad_lines(&read_to_string(self.path("server.log")).unwrap_or_default()));
        if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("; ")) }
    }

    /// What is left of a round, and what it is called by.
    pub(super) fn kept(&self) -> String {
        format!("kept: {}", self.directory.display())
    }

    /// Removes what is left of it.
    pub(super) fn clear(&self) -> Result<()> {
        match remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(self.directory.display().to_string())
            }
            _ => Ok(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// All acts, the end, and a look at what the end left.
    fn acts(&self, plan: &Plan, node: NodePlan, faults: &mut Vec<String>, tally: &mut Tally) -> Result<()> {
        let mut node = self.start(node)?;
        for (number, act) in plan.acts.iter().enumerate() {
            node = self.act(number, act, node, faults, tally)?;
        }
        let node = self.start(drained(node)?)?;
        tally.drains += 1;
        ensure!(
            found(&node, "torn")?.is_empty(),
            "after a drain a commit is torn: {:?}",
            found(&node, "torn")?
        );
        let mut load = self.generate(&node, "verification", &Wanted::verification(plan.phones()))?;
        let (report, is_clean) = self.end_of(&mut load).map(|()| load)?.finish_unless(self.quit)?;
        faults.extend(faults_of(&report));
        if !is_clean || report["delivered"] != 0 {
            faults.push(format!("after the last start the generator is not content: {report}"));
        }
        drained(node).map(drop)
    }

    /// One load, and what is done meanwhile.
    fn act(
        &self,
        number: usize,
        act: &Act,
        mut node: Node,
        faults: &mut Vec<String>,
        tally: &mut Tally,
    ) -> Result<Node> {
        let waiting =
            act.waiting.as_ref().map(|wanted| self.generate(&node, &format!("waiting-{number}"), wanted));
        let mut waiting = waiting.transpose()?;
        let mut load = self.generate(&node, &format!("load-{number}"), &act.load)?;
        for disturbance in &act.disturbances {
            self.quit.sleep(Duration::from_millis(disturbance.after_ms))?;
            if load.has_ended()? {
                break;
            }
            node = self
                .disturb(node, disturbance.kind, tally)
                .with_context(|| format!("{:?}", disturbance.kind))?;
        }
        self.end_of(&mut load)?;
        let (report, is_clean) = load.finish_unless(self.quit)?;
        tally.add(&report);
        faults.extend(faults_of(&report));
        if !is_clean {
            faults.push(format!("load-{number}: the generator is not content: {report}"));
        }
        if let Some(mut waiting) = waiting.take() {
            // Those who wait count as lost when the server is gone for a moment: only that all came is asked.
            self.end_of(&mut waiting)?;
            let (report, _) = waiting.finish_unless(self.quit)?;
            faults.extend(faults_of(&report));
            if report["logged_in"] != report["phones"] {
                faults.push(format!("waiting-{number}: not all came: {report}"));
            }
        }
        Ok(node)
    }

    fn disturb(&self, node: Node, kind: Kind, tally: &mut Tally) -> Result<Node> {
        let pause = |ms| self.quit.sleep(Duration::from_millis(ms));
        let (plan, down_ms) = match kind {
            Kind::HangUp => {
                tally.hang_ups += 1;
                node.signal(Signal::SIGHUP)?;
                return Ok(node);
            }
            Kind::Stop { for_ms } => {
                tally.stops += 1;
                node.signal(Signal::SIGSTOP)?;
                pause(for_ms)?;
                node.signal(Signal::SIGCONT)?;
                return Ok(node);
            }
            Kind::Kill { down_ms } => {
                tally.kills += 1;
                (killed(node)?, down_ms)
            }
            Kind::KillTwice { down_ms, again_ms } => {
                tally.kills += 2;
                let plan = killed(node)?;
                let mut process = tern_node::Node::of(plan.command()?.spawn().context("tern")?)?;
                pause(again_ms)?;
                process.signal(Signal::SIGKILL)?;
                was_killed(process.wait_for_the_end()?.status)?;
                (plan, down_ms)
            }
            Kind::Drain { down_ms } => {
                tally.drains += 1;
                (drained(node)?, down_ms)
            }
            Kind::CutOff { down_ms, again_ms } => {
                tally.drains += 1;
                let plan = ended_by(
                    node,
                    [Signal::SIGTERM, Signal::SIGTERM],
                    || pause(again_ms),
                    |status| matches!(status.code(), Some(0 | EXIT_CUT_OFF)),
                )?;
                (plan, down_ms)
            }
            Kind::DrainKilled { down_ms, again_ms } => {
                tally.kills += 1;
                let plan = ended_by(
                    node,
                    [Signal::SIGTERM, Signal::SIGKILL],
                    || pause(again_ms),
                    |status| status.success() || status.signal() == Some(Signal::SIGKILL as i32),
                )?;
                (plan, down_ms)
            }
        };
        pause(down_ms)?;
        self.start(plan)
    }

    /// Starts the server. Its log must be whole: nothing that is done here damages it.
    fn start(&self, plan: NodePlan) -> Result<Node> {
        let node = Node::start_unless(plan, self.quit, None).context("server.log says why")?;
        for what in ["rot", "orphan_count", "nameless_count", "has_rot_in_tables"] {
            let found = found(&node, what)?;
            ensure!(found.is_empty(), "a start found damage: {what} {found:?}");
        }
        Ok(node)
    }

    /// Starts the generator and waits until its phones log in: before that it makes accounts, and cannot do without the
    /// server. By its own word: what the server counts comes late, and may be of those before.
    fn generate(&self, node: &Node, name: &str, wanted: &Wanted) -> Result<Load> {
        let log = self.path(&format!("{name}.log"));
        let file = File::create(&log).context("a log for the generator")?;
        let mut command = Command::new(self.binaries.join("tern-load"));
        command.args(&wanted.words).args(["--phone", node.phone(), "--admin", node.admin(), "--json"]);
        let mut load = Load::spawn(None, command.stderr(file))?;
        let started = Instant::now();
        while !read_to_string(&log).is_ok_and(|said| said.contains(" login: ")) && !load.has_ended()? {
            ensure!(started.elapsed() < LOGIN_WAIT, "{name}: nobody logs in within {LOGIN_WAIT:?}");
            self.quit.sleep(LOOK_EVERY)?;
        }
        Ok(load)
    }

    fn end_of(&self, load: &mut Load) -> Result<()> {
        let started = Instant::now();
        while !load.has_ended()? {
            ensure!(
                started.elapsed() < LOAD_WAIT,
                "the generator did not come to its end within {LOAD_WAIT:?}"
            );
            self.quit.sleep(LOOK_EVERY)?;
        }
        Ok(())
    }
}

/// What the start found in the logs by this name, of all shards, where there is anything.
fn found(node: &Node, what: &str) -> Result<Vec<Value>> {
    let status = node.get("/v1/status")?;
    let shards = status["shards"].as_array().context("shards")?;
    let values = shards.iter().map(|shard| shard["recovery"].get(what).cloned().context(what.to_string()));
    let is_something = |value: &Value| match value {
        Value::Array(list) => !list.is_empty(),
        value => *value != 0 && *value != false,
    };
    Ok(values.collect::<Result<Vec<_>>>()?.into_iter().filter(is_something).collect())
}

/// Ends it by SIGTERM.
fn drained(node: Node) -> Result<NodePlan> {
    node.signal(Signal::SIGTERM)?;
    let (status, plan) = node.end()?;
    ensure!(status.success(), "the server did not drain: {status}");
    Ok(plan)
}

/// Ends it by SIGKILL, unless it has ended by itself, which it must not.
fn killed(node: Node) -> Result<NodePlan> {
    node.signal(Signal::SIGKILL)?;
    let (status, plan) = node.end()?;
    was_killed(status)?;
    Ok(plan)
}

fn was_killed(status: ExitStatus) -> Result<()> {
    let by_signal = status.signal() == Some(Signal::SIGKILL as i32);
    ensure!(by_signal, "the server ended by itself: {status}");
    Ok(())
}

/// Ends it by one signal and another.
fn ended_by(
    node: Node,
    [first, second]: [Signal; 2],
    between: impl FnOnce() -> Result<()>,
    is_well: impl FnOnce(ExitStatus) -> bool,
) -> Result<NodePlan> {
    node.signal(first)?;
    between()?;
    node.signal(second)?;
    let (status, plan) = node.end()?;
    ensure!(is_well(status), "the server ended otherwise: {status}");
    Ok(plan)
}

/// What the generator says that the server must not do.
fn faults_of(report: &Value) -> impl Iterator<Item = String> {
    let counts = FAULTS.map(|name| (name, report[name].as_u64().unwrap_or(0)));
    counts.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name}: {count}"))
}

/// Lines of the server's log that no disturbance explains.
fn bad_lines(log: &str) -> impl Iterator<Item = String> {
    let is_bad = |line: &&str| ["ERROR", "panicked", "PANIC"].iter().any(|word| line.contains(word));
    log.lines().filter(is_bad).take(5).map(|line| format!("server.log: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_fault_is_told_by_its_name_and_so_is_a_line_that_should_not_be_there() {
        let report = json!({ "sent": 5, "lost": 1, "duplicated": 0, "early_ticks": 2, "misordered": null });
        assert_eq!(faults_of(&report).collect::<Vec<_>>(), ["lost: 1", "early_ticks: 2"]);
        let log = "2026-12-01T13:27:55Z  WARN tern_driver::report: limits hit\n\
                   2026-12-01T13:27:56Z ERROR tern::control: shard 1 ended\nthread 'shard-1' panicked at x.rs";
        assert_eq!(bad_lines(log).count(), 2);
    }

    #[test]
    fn whoever_ends_by_itself_was_not_killed() {
        was_killed(ExitStatus::from_raw(Signal::SIGKILL as i32)).unwrap();
        for status in [ExitStatus::from_raw(0), ExitStatus::from_raw(6 << 8)] {
            assert!(was_killed(status).is_err(), "{status}");
        }
    }
}
