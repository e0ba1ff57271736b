//! The demonstration itself: builds, starts, lets the generator and hostile clients work, kills in the middle.

use super::account::{Account, Attack, flow, micros};
use super::event::{Event, Progress};
use super::run::DemoArgs;
use super::steps::Step;
use super::watch::{Watch, grown};
use crate::attackers::Attackers;
use crate::node::{Load, Node, NodePlan};
use crate::quit::Quit;
use crate::tree::{binary, cargo, output_of, words};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// What the demonstration needs.
const PACKAGES: [&str; 4] = ["tern-server", "tern-load", "tern-ctl", "tern-bench"];
/// Longest wait until phones talk, besides the logins' own time.
const TALK_WAIT: Duration = Duration::from_secs(60);
/// Messages for absent phones: some hundreds each, in so far as these are not too many altogether.
const ABSENT_EACH: u32 = 500;
const ABSENT_ALL: u32 = 100_000;
/// Seconds of dropping connections.
const FLAP_SECONDS: u32 = 4;
/// How long phones are held before all of them drop, seconds.
const HOLD_SECONDS: u32 = 1;
/// Seconds of talk without attackers, and of talk with them.
const QUIET_SECONDS: u32 = 3;
const ATTACK_SECONDS: u32 = 5;
/// What attackers do, all at once: each begins 1,000 connections a second. By these counters the server tells of it.
const ATTACKS: [&str; 2] = ["garbage", "tickets"];
const ATTACK_COUNTERS: [&str; 2] = ["protocol_errors", "tickets_refused"];

/// Whom everything is told.
pub(super) struct Teller {
    events: Sender<Event>,
    quit: Quit,
    /// There is a screen, which no child may write to.
    is_live: bool,
}

impl Teller {
    pub(super) fn new(events: Sender<Event>, quit: Quit, is_live: bool) -> Self {
        Self { events, quit, is_live }
    }

    fn tell(&self, event: Event) {
        if self.events.send(event).is_err() {
            // Nobody looks any more.
            self.quit.ask();
        }
    }

    fn say(&self, text: String) {
        self.tell(Event::Say(text));
    }

    /// Where a child's standard error goes.
    fn stderr(&self) -> Stdio {
        if self.is_live { Stdio::piped() } else { Stdio::inherit() }
    }

    /// Tells what a child says. The thread ends with the child.
    fn listen(&self, out: impl Read + Send + 'static) {
        let events = self.events.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let event = Progress::parse(&line).map_or(Event::Line(line), Event::Progress);
                if events.send(event).is_err() {
                    return;
                }
            }
        });
    }
}

/// Runs everything: the account, and what `tern-ctl status` said before the end. When it returns, or panics, there is
/// nothing more to tell.
pub(super) fn drive(args: &DemoArgs, teller: Teller) -> Result<(Account, String)> {
    let teller = &teller;
    teller.tell(Event::Begin(Step::Build));
    PACKAGES.iter().try_for_each(|package| build(package, teller))?;

    teller.tell(Event::Begin(Step::Start));
    let place = tempfile::tempdir().context("temporary directory")?;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let shards = u16::try_from(threads.min(4)).unwrap_or(1);
    teller.say(format!("a server with {shards} shards on a new data directory"));
    let node = start(NodePlan::new(&place.path().join("data"), shards, None), teller)?;
    let ready_ms = node.ready_after.as_millis();
    teller.tell(Event::Result(format!("{shards} shards after {ready_ms} ms")));
    teller.say(format!("it serves phones at {} after {ready_ms} ms", node.phone()));
    let endpoint = node.endpoint()?;
    let _watch = teller.is_live.then(|| Watch::start(endpoint, teller.events.clone()));

    let (talk, node, restart_ms) = talk(args, node, teller)?;
    let absent = absent(args, &node, teller)?;
    let flap = flap(args, &node, teller)?;
    let storm = storm(args, &node, teller)?;
    let attack = attack(args, &node, teller)?;
    let status = output_of(Command::new(binary("tern-ctl")).args(["--admin", node.admin(), "status"]))?;
    teller.tell(Event::Begin(Step::Stop));
    teller.say("SIGTERM: the server drains".into());
    node.drain()?;
    teller.tell(Event::Done);
    Ok((Account { talk, absent, flap, storm, attack, restart_ms }, status))
}

/// One call of cargo for each package, so that a feature of one never reaches the binary of another.
fn build(package: &str, teller: &Teller) -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--release", "-p", package]).stdin(Stdio::null()).stderr(teller.stderr());
    // A group of its own: whoever ends the build ends the compilers too.
    let child = command.process_group(0).spawn().with_context(|| words(&command))?;
    let mut group = Group(child);
    if let Some(stderr) = group.0.stderr.take() {
        teller.listen(stderr);
    }
    loop {
        if let Some(status) = group.0.try_wait()? {
            if !status.success() {
                bail!("{} ended with {status}", words(&command));
            }
            return Ok(());
        }
        teller.quit.sleep(Duration::from_millis(50))?;
    }
}

/// A child and its children; ended when dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let (Ok(None), Ok(group)) = (self.0.try_wait(), i32::try_from(self.0.id())) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

fn start(plan: NodePlan, teller: &Teller) -> Result<Node> {
    let listen = |stderr| teller.listen(stderr);
    let listener: Option<&dyn Fn(_)> = if teller.is_live { Some(&listen) } else { None };
    let node = Node::start_unless(plan, &teller.quit, listener)?;
    teller.tell(Event::Serves { phone: node.phone().into() });
    Ok(node)
}

/// Pairs talk; SIGKILL in the middle, start again on the same ports. Also how long the start took.
fn talk(args: &DemoArgs, node: Node, teller: &Teller) -> Result<(Value, Node, u64)> {
    teller.tell(Event::Begin(Step::LogIn));
    teller.say(format!("{} phones talk in pairs for {} s, encrypted, with ticks", args.phones, args.seconds));
    let options = [
        ("--phones", args.phones),
        ("--window", 4),
        ("--body", 128),
        ("--duration", args.seconds),
        ("--patience", 30),
    ];
    let mut load = generate(&node, "pairs", &options, teller)?;
    wait_for_talk(args, &node, &mut load, teller)?;
    teller.tell(Event::Begin(Step::Talk));
    teller.quit.sleep(Duration::from_millis(u64::from(args.seconds) * 500))?;
    let before = node.get("/v1/status")?;
    let ticks = &before["totals"]["ticks_sent"];
    teller.tell(Event::Result(format!("{ticks} ticks")));
    teller.tell(Event::Begin(Step::Kill));
    teller.say(format!("kill -9 the server, {ticks} ticks after its start"));
    let plan = node.kill()?;
    teller.tell(Event::Killed);
    let node = start(plan, teller)?;
    let restart_ms = node.ready_after.as_millis() as u64;
    teller.tell(Event::Result(format!("back after {restart_ms} ms")));
    teller.tell(Event::Begin(Step::Recover));
    teller.say(format!("it serves again after {restart_ms} ms; the phones come back by themselves"));
    let result = finish(load, teller)?;
    teller.tell(Event::Result(format!("{} redelivered, {} lost", result["redelivered"], result["lost"])));
    Ok((result, node, restart_ms))
}

/// Until the first message: what comes then should hit phones that talk. The status at that moment.
fn wait_for_talk(args: &DemoArgs, node: &Node, load: &mut Load, teller: &Teller) -> Result<Value> {
    let started = Instant::now();
    let silent = node.get("/v1/status")?["totals"]["messages_in"].as_u64();
    loop {
        let status = node.get("/v1/status")?;
        let field = |name: &str| status["totals"][name].as_u64().with_context(|| name.to_string());
        if silent == Some(0) {
            teller.tell(Event::Result(format!("{} of {}", field("sessions_now")?, args.phones)));
        }
        if Some(field("messages_in")?) != silent {
            return Ok(status);
        }
        if load.has_ended()? {
            bail!("the generator ended before its phones talked");
        }
        if started.elapsed() > TALK_WAIT + Duration::from_millis(10) * args.phones {
            bail!("{} phones did not begin to talk in {:?}", args.phones, started.elapsed());
        }
        teller.quit.sleep(Duration::from_millis(20))?;
    }
}

/// Messages for phones that are away, which then come.
fn absent(args: &DemoArgs, node: &Node, teller: &Teller) -> Result<Value> {
    let messages = (args.phones * ABSENT_EACH).min(ABSENT_ALL);
    teller.tell(Event::Begin(Step::Store));
    teller.say(format!(
        "{messages} messages for phones that are away; then they come and drain their mailboxes"
    ));
    let options = [("--phones", args.phones), ("--messages", messages), ("--body", 128), ("--patience", 30)];
    let load = generate(node, "offline", &options, teller)?;
    let result = finish(load, teller)?;
    teller.tell(Event::Begin(Step::Drain));
    teller.tell(Event::Result(format!("{} fetched, {} lost", result["delivered"], result["lost"])));
    Ok(result)
}

/// Phones talk at a steady rate while connections are dropped and come back by ticket.
fn flap(args: &DemoArgs, node: &Node, teller: &Teller) -> Result<Value> {
    let (rate, flaps) = ((args.phones * 5).min(2_000), (args.phones / 4).clamp(1, 250));
    teller.tell(Event::Begin(Step::Flap));
    teller.say(format!(
        "{rate} messages/s while {flaps} connections/s are dropped; their phones come back by ticket"
    ));
    let options = [
        ("--phones", args.phones),
        ("--rate", rate),
        ("--flaps", flaps),
        ("--duration", FLAP_SECONDS),
        ("--body", 128),
        ("--patience", 30),
    ];
    let load = generate(node, "flap", &options, teller)?;
    let result = finish(load, teller)?;
    teller.tell(Event::Result(format!("{} dropped, {} lost", result["flaps"], result["lost"])));
    Ok(result)
}

/// All connections drop at once, without a word, and all phones come back by ticket.
fn storm(args: &DemoArgs, node: &Node, teller: &Teller) -> Result<Value> {
    teller.tell(Event::Begin(Step::Storm));
    teller.say(format!("all {} phones drop at once and come back by ticket", args.phones));
    let options = [("--phones", args.phones), ("--hold", HOLD_SECONDS), ("--patience", 30)];
    let load = generate_with(node, "idle", &options, &["--storm"], teller)?;
    let result = finish(load, teller)?;
    let resumed = &result["resumed"];
    let back = format!("back after {} s, {} by ticket", resumed["all_back_s"], resumed["by_ticket"]);
    teller.tell(Event::Result(back));
    Ok(result)
}

/// Phones talk at a steady rate, first among themselves, then beside hostile clients.
fn attack(args: &DemoArgs, node: &Node, teller: &Teller) -> Result<Attack> {
    let rate = (args.phones * 2).min(2_000);
    teller.tell(Event::Begin(Step::Attack));
    let talk = |seconds: u32| {
        let options = [
            ("--phones", args.phones),
            ("--rate", rate),
            ("--duration", seconds),
            ("--body", 128),
            ("--patience", 30),
        ];
        generate(node, "pairs", &options, teller)
    };
    teller.say(format!("{rate} messages/s undisturbed, to compare with"));
    let quiet = finish(talk(QUIET_SECONDS)?, teller)?;
    let quiet_p99 = micros(&quiet["latency_us"]["p99"]);
    teller.tell(Event::Result(format!("p99 {quiet_p99} without them")));
    let mut load = talk(ATTACK_SECONDS)?;
    let before = wait_for_talk(args, node, &mut load, teller)?;
    teller.say("the same beside clients that send garbage and forged tickets, 2,000 connections/s".into());
    let attackers = ATTACKS.map(|attack| Attackers::start(node, attack, ATTACK_SECONDS, None));
    let attackers = attackers.into_iter().collect::<Result<Vec<_>>>()?;
    let attacked = finish(load, teller)?;
    let mut connected = 0;
    for crowd in attackers {
        connected += crowd.finish()?["connected"].as_u64().context("connected")?;
    }
    // What a shard counts is told a moment later.
    teller.quit.sleep(Duration::from_millis(200))?;
    let after = node.get("/v1/status")?;
    let refused = ATTACK_COUNTERS.map(|name| (name, grown(&before, &after, name)));
    if let Some((name, _)) = refused.iter().find(|(_, count)| *count == 0) {
        bail!("the attackers were there, and the server counted no {name}");
    }
    let p99 = micros(&attacked["latency_us"]["p99"]);
    teller.tell(Event::Result(format!("p99 {p99}, quiet {quiet_p99}")));
    Ok(Attack { quiet, attacked, connected, refused: refused.into() })
}

fn generate(node: &Node, mode: &str, options: &[(&str, u32)], teller: &Teller) -> Result<Load> {
    generate_with(node, mode, options, &[], teller)
}

fn generate_with(
    node: &Node,
    mode: &str,
    options: &[(&str, u32)],
    flags: &[&str],
    teller: &Teller,
) -> Result<Load> {
    let options = options.iter().flat_map(|(name, value)| [(*name).to_string(), value.to_string()]);
    let options: Vec<String> = options.chain(flags.iter().map(|flag| (*flag).to_string())).collect();
    let mut command = Load::command(node, mode, &options);
    if teller.is_live {
        command.args(["--progress", "0.2"]);
    } else {
        eprintln!("xtask: {}", words(&command));
    }
    let mut load = Load::spawn(None, command.stderr(teller.stderr()))?;
    if let Some(stderr) = load.stderr() {
        teller.listen(stderr);
    }
    Ok(load)
}

fn finish(load: Load, teller: &Teller) -> Result<Value> {
    let (result, success) = load.finish_unless(&teller.quit)?;
    if !success {
        bail!("the generator is not content: {}: {result}", flow(&result));
    }
    teller.tell(Event::Report(result.clone()));
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// What becomes of a generator that says this and ends so.
    fn end_of(lost: u32, code: u32) -> Result<Value> {
        let (events, _told) = channel();
        let teller = Teller::new(events, Quit::default(), false);
        let said = format!(r#"{{"sent":5,"ticked":5,"delivered":4,"lost":{lost}}}"#);
        let mut generator = Command::new("sh");
        generator.args(["-c", &format!("echo '{said}'; exit {code}")]);
        finish(Load::spawn(None, &mut generator)?, &teller)
    }

    #[test]
    fn a_part_that_lost_a_message_ends_the_demonstration() {
        assert_eq!(end_of(0, 0).unwrap()["sent"], 5);
        let error = end_of(1, 1).unwrap_err().to_string();
        assert!(error.contains("5 sent, 5 ticked, 4 delivered, 1 lost"), "{error}");
        // Nor is one that could not do all of its work a success.
        assert!(end_of(0, 3).is_err());
    }
}
