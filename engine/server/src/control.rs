//! The main thread's life: starts the node, serves the admin endpoint from before the recovery, listens for signals, and
//! tells systemd, until the node ends.

use crate::admin::{self, Identity, Plane};
use crate::config::AdminAccess;
use crate::exit::{Ending, Failure};
use crate::log;
use crate::notify::Notifier;
use crate::ports;
use crate::reload::{Reloaded, Reloader};
use crate::resolve::failure_of_start;
use crate::signals::{Signals, Wish};
use std::future::pending;
use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::Duration;
use tern_driver::{Exit, FatalError, Node, NodeConfig, StartError};
use tern_storage::io::SegmentId;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info, warn};

/// How often a start is looked after.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a start that takes long is told to the log.
const TELL_START_EVERY: Duration = Duration::from_secs(10);
/// How much longer systemd shall wait for a start that goes on.
const MORE_TIME: Duration = Duration::from_secs(60);

/// How long a node that has ended waits for its threads: longer than their rings wait for what is under way.
const END_WAIT: Duration = Duration::from_secs(5);

/// The way in to the admin endpoint.
pub(crate) struct AdminDoor {
    pub(crate) listener: TcpListener,
    /// Who the endpoint is; changed by SIGHUP.
    pub(crate) tls: Option<Arc<RwLock<Identity>>>,
    /// The files of its token, certificate and key.
    pub(crate) access: AdminAccess,
}

/// Starts the node and stays with it until it ends. `started` is called once it serves.
///
/// # Errors
/// Whatever keeps it from serving.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(
    plane: Arc<Plane>,
    config: NodeConfig,
    door: AdminDoor,
    mut signals: Signals,
    started: impl FnOnce(),
) -> Result<Ending, Failure> {
    let AdminDoor { listener, tls, access } = door;
    let start_up = |error: io::Error| Failure::start_up(format!("admin endpoint: {error}"));
    listener.set_nonblocking(true).map_err(start_up)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(start_up)?;
    // Before the recovery, which may take long: whoever asks is told how far it is, and a signal ends it.
    signals.hear();
    let notifier = Notifier::from_environment();
    let service = tokio::spawn(admin::serve(listener, tls.clone(), Arc::clone(&plane)));
    let reloader = Reloader::new(Reloaded { access, gate: Arc::clone(plane.gate()), tls });
    let reload = || reloader.ask();
    let Some(mut node) = start(&plane, config, &mut signals, &notifier, reload).await? else {
        // The door was shut: nobody was served, so that there is nothing to make safe. The shards' threads end with the
        // process.
        info!("stopped before the node served");
        return Ok(Ending::Drained);
    };
    // From here on a signal drains.
    node.open().map_err(|error| failure_of_start(&error))?;
    started();
    tell_recovery(&node);
    let exited = node.exited();
    plane.serves(node);
    say_ready(&plane);
    notifier.tell_once(&format!("READY=1\nSTATUS=serving, phone {}", plane.phone()));

    let mut tells = interval(log::TELL_EVERY);
    let mut pings = notifier.ping_every().map(interval);
    // What was kept back is said once.
    pings.iter_mut().for_each(|pings| pings.set_missed_tick_behavior(MissedTickBehavior::Delay));
    let exit = loop {
        tokio::select! {
            exit = exited.recv_async() => break exit,
            wish = signals.next() => match wish {
                Wish::End => {
                    if !plane.drain() {
                        cut_off();
                    }
                    notifier.tell_once("STOPPING=1\nSTATUS=draining");
                }
                Wish::Reload => reload(),
            },
            _ = tells.tick() => log::tell_suppressed(),
            () = tick(pings.as_mut()) => {
                // A shard that is stuck is what a watchdog is for.
                if plane.stuck().is_empty() {
                    notifier.tell("WATCHDOG=1");
                }
            }
        }
    };
    log::tell_last_suppressed();
    service.abort();
    let ending = match exit {
        Ok(exit) => ending(&exit),
        // Every shard dropped its end without a word: none is left to keep the promise.
        Err(flume::RecvError::Disconnected) => ending(&Exit::Panicked("the shards are gone".into())),
    };
    let late = plane.stop_within(END_WAIT);
    if late.is_empty() { Ok(ending) } else { leave_behind(&late, ending) }
}

/// Starts the node on a thread of its own, once its address is free. None: a signal came first.
async fn start(
    plane: &Plane,
    config: NodeConfig,
    signals: &mut Signals,
    notifier: &Notifier,
    reload: impl Fn(),
) -> Result<Option<Node>, Failure> {
    // Before the recovery, so that a taken port costs none.
    if !ports::phone_comes_free(config.phone, signals, &reload).await? {
        return Ok(None);
    }
    let (tell, mut told) = oneshot::channel();
    let progress = Arc::clone(plane.start_progress());
    // The node's helper threads stay where this one may run, which is where its maker may.
    let starter = move || {
        let _ = tell.send(Node::start_watched(config, &progress));
    };
    thread::Builder::new()
        .name("start".into())
        .spawn(starter)
        .map_err(|error| Failure::start_up(StartError::System(error).to_string()))?;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told_at, mut last) = (Instant::now(), None);
    loop {
        tokio::select! {
            biased;
            node = &mut told => {
                let node = node.unwrap_or_else(|_| Err(StartError::Panicked("the start ended without a word".into())));
                return node.map(Some).map_err(|error| failure_of_start(&error));
            }
            wish = signals.next() => match wish {
                Wish::End => return Ok(None),
                Wish::Reload => reload(),
            },
            _ = looks.tick() => {
                let recovering = plane.recovering();
                // Only a start that goes on gets more time.
                if last != Some(recovering) {
                    last = Some(recovering);
                    notifier.tell(&format!("STATUS={recovering}\nEXTEND_TIMEOUT_USEC={}", MORE_TIME.as_micros()));
                }
                if told_at.elapsed() >= TELL_START_EVERY {
                    told_at = Instant::now();
                    info!("{recovering}");
                }
            }
        }
    }
}

/// Ends the process without waiting for anything: a drive that does not answer would hold up the shards' threads as it
/// holds up their drain. It costs what SIGKILL costs, which is nothing that was ticked.
fn cut_off() -> ! {
    warn!("asked twice to stop: the drain is cut off");
    log::tell_last_suppressed();
    log::write_out();
    std::process::exit(Ending::CutOff as i32)
}

/// Ends the process without some of the node's threads, which would keep it for ever: deaf to signals, and with no code
/// that says why. What they were at is not needed any more: the next start removes an unfinished segment.
fn leave_behind(late: &[String], ending: Ending) -> ! {
    warn!(
        threads = late.join(", "),
        "threads have not ended, as where a drive does not answer: the process ends without them"
    );
    log::write_out();
    std::process::exit(ending as i32)
}

/// The next tick, if anybody wants ticks.
async fn tick(ticks: Option<&mut tokio::time::Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => pending().await,
    }
}

/// The contract's one line on standard output. Whoever started the process may have closed the pipe; that is no
/// reason to stop.
fn say_ready(plane: &Plane) {
    let line = format!("ready phone={} admin={} pid={}\n", plane.phone(), plane.admin(), std::process::id());
    let mut out = io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    info!(phone = %plane.phone(), admin = %plane.admin(), "serving");
}

/// Rot is an operator's matter at once; a torn tail is what a kill leaves.
fn tell_recovery(node: &Node) {
    for (shard, report) in node.recovery().iter().enumerate() {
        if !report.rot.is_empty() {
            warn!(shard, rot = places(&report.rot), "the log is damaged in places: the rest is served");
        }
        if report.has_rot_in_tables {
            warn!(
                shard,
                "records of accounts are damaged: devices and accounts that were removed may be back, look at their lists; \
                 resume tickets of before that was found are refused"
            );
        }
        if report.orphan_count > 0 {
            let count = report.orphan_count;
            warn!(
                shard,
                count,
                "mail of accounts whose record is damaged: it stays in the log, and their ids stay taken"
            );
        }
        if report.nameless_count > 0 {
            let count = report.nameless_count;
            warn!(
                shard,
                count,
                "accounts that can be read again, whose names others have taken: they stay in the log with their mail"
            );
        }
        let torn = report.torn.len();
        info!(shard, records = report.record_count, commits = report.commit_count, torn, "recovered");
    }
}

/// As `segment 7 at 4096, segment 9 at 0`.
fn places(list: &[(SegmentId, u32)]) -> String {
    let places: Vec<String> =
        list.iter().map(|(segment, offset)| format!("segment {} at {offset}", segment.0)).collect();
    places.join(", ")
}

fn ending(exit: &Exit) -> Ending {
    match exit {
        Exit::Drained => {
            info!("{exit}");
            Ending::Drained
        }
        Exit::Fatal(FatalError::LogFullAtBoot) => {
            error!("{exit}");
            Ending::StartUp
        }
        Exit::Fatal(_) => {
            error!("{exit}; nothing after it was acknowledged");
            Ending::LogWrite
        }
        Exit::Panicked(_) => {
            error!("{exit}");
            Ending::ShardPanic
        }
    }
}
