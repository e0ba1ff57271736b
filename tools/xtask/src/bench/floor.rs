//! The programs of `bench/` on the same hardware threads as Tern: the floor for its figures.

use super::{GENERATOR_CPU, SERVER_CPU};
use crate::tree::{binary, output_of};
use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// What phones do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    pub(super) phones: u32,
    pub(super) pace: Pace,
    pub(super) seconds: u32,
}

/// How fast they do it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// Messages that each phone has under way.
    Window(u32),
    /// Messages per second over all phones.
    Rate(u32),
}

impl Traffic {
    /// The options, the same for `tern-load pairs` and for the programs of the floor.
    pub(super) fn options(self) -> Vec<String> {
        let (pace, value) = match self.pace {
            Pace::Window(count) => ("--window", count),
            Pace::Rate(per_s) => ("--rate", per_s),
        };
        let (phones, value, seconds) = (self.phones.to_string(), value.to_string(), self.seconds.to_string());
        ["--phones", &phones, pace, &value, "--duration", &seconds, "--body", "128"]
            .map(String::from)
            .to_vec()
    }
}

/// The stub, with as many commits of the same size as the run of Tern that gave `tern`; data go to `data`.
pub(super) fn stub(data: &Path, traffic: Traffic, tern: &Value) -> Result<Value> {
    json_of(&mut stub_command(data, traffic, (tern, traffic.seconds))?)
}

/// How it is called; with the run of Tern, its seconds.
pub(super) fn stub_command(data: &Path, traffic: Traffic, (tern, seconds): (&Value, u32)) -> Result<Command> {
    let field = |name: &str| tern["server"][name].as_u64().with_context(|| format!("server.{name}"));
    let (commits, bytes) = (field("log_commits")?, field("log_bytes_written")?);
    let mut command = command("stub", traffic, (SERVER_CPU, GENERATOR_CPU));
    if commits > 0 {
        let rate = (commits as f64 / f64::from(seconds)).to_string();
        command.args(["--commits-per-s", &rate, "--commit-bytes", &(bytes / commits).to_string()]);
        command.arg("--data").arg(data);
    }
    Ok(command)
}

/// The raw echo.
pub(super) fn echo(traffic: Traffic) -> Result<Value> {
    json_of(&mut command("raw-echo", traffic, (SERVER_CPU, GENERATOR_CPU)))
}

/// As many stubs at the same time as there are hardware threads named, each with its own generator beside it on its own
/// thread. They know nothing of each other and commit nothing.
pub(super) fn stubs_apart(traffic: Traffic, cpus: &[usize]) -> Result<Vec<Value>> {
    std::thread::scope(|scope| {
        let run = |&cpu: &usize| scope.spawn(move || json_of(&mut command("stub", traffic, (cpu, cpu))));
        let all: Vec<_> = cpus.iter().map(run).collect();
        all.into_iter().map(|one| one.join().map_err(|_| anyhow!("a stub's thread panicked"))?).collect()
    })
}

/// A program of the floor with its server and its generator on these hardware threads.
fn command(program: &str, traffic: Traffic, (server, generator): (usize, usize)) -> Command {
    let mut command = Command::new(binary(program));
    command.args(traffic.options());
    command.args(["--server-core", &server.to_string(), "--client-core", &generator.to_string()]);
    command
}

/// Runs a program whose last line of standard output is a JSON object.
pub(super) fn json_of(command: &mut Command) -> Result<Value> {
    let text = output_of(command)?;
    serde_json::from_str(text.lines().last().unwrap_or_default())
        .with_context(|| format!("{}: no JSON at the end", crate::tree::words(command)))
}

/// The server's CPU time for a message, user and system, microseconds.
pub(super) fn cpu_us(run: &Value) -> Option<f64> {
    let field = |name: &str| run["server"][name].as_f64();
    Some(field("cpu_user_us_per_msg")? + field("cpu_system_us_per_msg")?)
}

/// How many times as much as the floor; null where one of the two is not known.
pub(super) fn ratio(tern: Option<f64>, floor: Option<f64>) -> Value {
    json!(tern.zip(floor).filter(|both| both.1 > 0.0).map(|(tern, floor)| thousandths(tern / floor)))
}

/// Rounded: more digits would claim more than was measured.
pub(super) fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_need_both_sides() {
        let run = |user: f64, system: f64| json!({ "server": { "cpu_user_us_per_msg": user, "cpu_system_us_per_msg": system } });
        assert_eq!(ratio(cpu_us(&run(2.0, 10.0)), cpu_us(&run(0.5, 7.5))), json!(1.5));
        assert_eq!(ratio(cpu_us(&json!({ "server": null })), Some(1.0)), Value::Null);
        assert_eq!(ratio(Some(1.0), Some(0.0)), Value::Null);
    }

    #[test]
    fn window_and_rate_are_the_generator_s_options() {
        let traffic = Traffic { phones: 10, pace: Pace::Rate(5), seconds: 3 };
        assert_eq!(traffic.options().join(" "), "--phones 10 --rate 5 --duration 3 --body 128");
        let traffic = Traffic { pace: Pace::Window(2), ..traffic };
        assert_eq!(traffic.options().join(" "), "--phones 10 --window 2 --duration 3 --body 128");
    }
}
