//! What is seen of a node that does not serve: while it recovers, when a shard is stuck, while it drains; and what
//! systemd is told.

use crate::disk::ann_and_absent_bob;
use crate::phone::id;
use crate::process::{Node, Setup};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Waits until the endpoint answers this way.
fn wait_for(node: &Node, path: &str, wanted: impl Fn(u16, &str) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, text) = node.get(path);
        if wanted(status, &text) {
            return;
        }
        assert!(Instant::now() < deadline, "{path}: {status} {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A thread of a node that does not run for now: what a defect or a drive that hangs would do to it.
pub(crate) struct Held(pub(crate) Pid);

impl Held {
    pub(crate) fn shard(node: &Node, shard: u16) -> Self {
        Self::named(node, &format!("shard-{shard}"))
    }

    fn named(node: &Node, name: &str) -> Self {
        let tasks = format!("/proc/{}/task", node.process_id());
        let name_of = |task: &Path| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        let mut tasks = std::fs::read_dir(tasks).expect("its threads").flatten().map(|task| task.path());
        let task = tasks.find(|task| name_of(task).trim() == name);
        let number = task.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
        let thread = Pid::from_raw(number.expect("a thread of that name"));
        ptrace::seize(thread, ptrace::Options::empty()).expect("a test may trace its children");
        ptrace::interrupt(thread).expect("it is traced");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        Self(thread)
    }

    pub(crate) fn let_go(self) {}

    /// Waits until it ends with its process, which is not over for its parent before.
    fn wait_for_its_end(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match waitpid(self.0, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => return,
                Ok(_) => assert!(Instant::now() < deadline, "the process does not end"),
                Err(error) => panic!("{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Held {
    /// Also when a test fails: a thread that is held would keep its process from ending.
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

fn said_to_systemd(socket: &UnixDatagram) -> Vec<String> {
    let mut all = Vec::new();
    let mut bytes = [0; 512];
    while let Ok(count) = socket.recv(&mut bytes) {
        all.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
    }
    all
}

#[test]
fn while_it_recovers_it_tells_how_far_it_is_and_a_signal_ends_it() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let socket = UnixDatagram::bind(place.path().join("notify")).expect("a socket");
    socket.set_nonblocking(true).expect("it can be set");
    let name = place.path().join("notify").display().to_string();
    let mut node = Node::start(Setup { environment: vec![("NOTIFY_SOCKET", name)], ..Setup::shards(2) });
    let deadline = Instant::now() + Duration::from_secs(10);
    while !said_to_systemd(&socket).iter().any(|lines| lines.starts_with("READY=1\n")) {
        assert!(Instant::now() < deadline, "systemd is not told that it serves");
        std::thread::sleep(Duration::from_millis(10));
    }
    node.kill();
    // A segment on a drive that does not answer: whoever opens a pipe to read waits for somebody who writes.
    let segment = node.data().join("shard-001/seg-000000ff.log");
    assert!(Command::new("mkfifo").arg(&segment).status().expect("mkfifo runs").success());
    for signal in ["TERM", "INT"] {
        node.begin_again();
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(node.admin).is_err() {
            assert!(Instant::now() < deadline, "the admin endpoint is not there");
            std::thread::sleep(Duration::from_millis(20));
        }
        let recovering = "recovering: 1 of 2 shards are done";
        wait_for(&node, "/healthz", |status, text| status == 503 && text.contains(recovering));
        assert!(std::net::TcpStream::connect(node.phone).is_err(), "one shard would serve without the other");
        let status = node.json("/v1/status");
        assert_eq!((&status["state"], &status["shards"]), (&"recovering".into(), &serde_json::json!([])));
        let (status, text) = node.get("/v1/accounts");
        assert!(status == 503 && text.contains(recovering), "{status} {text}");
        let (_, metrics) = node.get("/metrics");
        for line in [
            "tern_serving 0",
            "tern_recovery_seconds{shard=\"1\"} NaN",
            "tern_recovery_segments{shard=\"1\"} 0",
        ] {
            assert!(metrics.lines().any(|found| found == line), "no {line} in {metrics}");
        }
        node.signal(signal);
        assert_eq!(node.wait_for_the_end().code(), Some(0));
        let said = said_to_systemd(&socket);
        assert!(said.iter().any(|lines| lines.contains("STATUS=recovering")), "{said:?}");
        assert!(said.iter().any(|lines| lines.contains("EXTEND_TIMEOUT_USEC=")), "{said:?}");
        assert!(!said.iter().any(|lines| lines.contains("READY=1")), "{said:?}");
    }
    std::fs::remove_file(&segment).expect("the pipe goes");
    node.start_again();
    assert_eq!(node.get("/healthz"), (200, "ok\n".into()));
}

#[test]
fn a_signal_ends_a_start_that_waits_for_its_address() {
    let mut node = Node::start(Setup::shards(1));
    node.kill();
    let deadline = Instant::now() + Duration::from_secs(10);
    let _taken = loop {
        match std::net::TcpListener::bind(node.phone) {
            Ok(taken) => break taken,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    node.begin_again();
    while std::net::TcpStream::connect(node.admin).is_err() {
        assert!(Instant::now() < deadline, "the admin endpoint is not there");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (status, text) = node.get("/healthz");
    assert!(status == 503 && text.contains("recovering"), "{status} {text}");
    // Which reads files again, if there are any, and ends nothing.
    node.signal("HUP");
    node.signal("TERM");
    assert_eq!(node.wait_for_the_end().code(), Some(0));
}

/// The other end of a pipe that the node reads: it waits for what is written from now on.
fn write_to(pipe: &Path) -> std::fs::File {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // It can be opened once somebody reads it.
        let mut options = std::fs::File::options();
        match options.write(true).custom_flags(nix::libc::O_NONBLOCK).open(pipe) {
            Ok(silent) => return silent,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_ends_a_start_that_hangs_in_a_file() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let pipe = place.path().join("token");
    let config = format!("[admin]\ntoken_file = \"{}\"\n", pipe.display());
    let mut node = Node::start(Setup { config, ..Setup::shards(1) });
    node.kill();
    std::fs::remove_file(&pipe).expect("the token was made");
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().expect("mkfifo runs").success());
    for signal in ["TERM", "INT"] {
        node.begin_again();
        let _silent = write_to(&pipe);
        // Which are kept for later, as many as there is room for, and end nothing.
        (0..10).for_each(|_| node.signal("HUP"));
        node.signal(signal);
        let ended = node.wait_for_last_words();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("stopped before the node served"), "{}", ended.stderr);
    }
}

#[test]
fn a_reload_that_hangs_in_a_file_holds_up_nothing() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let socket = UnixDatagram::bind(place.path().join("notify")).expect("a socket");
    socket.set_nonblocking(true).expect("it can be set");
    let name = place.path().join("notify").display().to_string();
    let pipe = place.path().join("token");
    let config = format!("[admin]\ntoken_file = \"{}\"\n", pipe.display());
    let environment = vec![("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "200000".into())];
    let mut node = Node::start(Setup { config, environment, ..Setup::shards(1) });
    std::fs::remove_file(&pipe).expect("the token was made");
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().expect("mkfifo runs").success());
    node.signal("HUP");
    let mut late = write_to(&pipe);
    said_to_systemd(&socket);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !said_to_systemd(&socket).iter().any(|lines| lines == "WATCHDOG=1") {
        assert!(Instant::now() < deadline, "the watchdog hears nothing more");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(node.get("/healthz"), (200, "ok\n".into()));
    // What comes late is taken all the same.
    late.write_all(b"a-token-that-comes-late\n").expect("the node reads it");
    drop(late);
    while node.get_as("/v1/status", "a-token-that-comes-late").0 != 200 {
        assert!(Instant::now() < deadline, "nothing is reloaded");
        std::thread::sleep(Duration::from_millis(10));
    }
    (0..4).for_each(|_| node.signal("HUP"));
    let _silent = write_to(&pipe);
    node.signal("TERM");
    assert_eq!(node.wait_for_the_end().code(), Some(0));
}

#[test]
fn a_stuck_shard_is_named_and_the_watchdog_hears_nothing() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let socket = UnixDatagram::bind(place.path().join("notify")).expect("a socket");
    socket.set_nonblocking(true).expect("it can be set");
    let name = place.path().join("notify").display().to_string();
    let environment = vec![("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "200000".into())];
    let mut node = Node::start(Setup { environment, ..Setup::shards(2) });
    let pings = |socket: &UnixDatagram| {
        let said = said_to_systemd(socket);
        said.iter().filter(|lines| *lines == "WATCHDOG=1").count()
    };
    let serving = |node: &Node| {
        let (_, metrics) = node.get("/metrics");
        metrics.lines().find_map(|line| Some(line.strip_prefix("tern_serving ")? == "1"))
    };
    assert_eq!((node.get("/healthz"), serving(&node)), ((200, "ok\n".into()), Some(true)));
    std::thread::sleep(Duration::from_secs(1));
    assert!(pings(&socket) >= 3, "twenty a second");

    let held = Held::shard(&node, 1);
    wait_for(&node, "/healthz", |status, text| {
        status == 503 && text.contains("shard 1 should have turned ") && !text.contains("shard 0")
    });
    let status = node.json("/v1/status");
    assert_eq!(status["state"], "stuck");
    let top = node.json("/v1/top");
    assert_eq!((&top["shards"][0]["complete"], &top["shards"][1]["complete"]), (&true.into(), &false.into()));
    let (_, metrics) = node.get("/metrics");
    let age = |shard: u16| -> f64 {
        let start = format!("tern_shard_turn_late_seconds{{shard=\"{shard}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&start));
        value.unwrap_or_else(|| panic!("no {start}")).parse().expect("a number")
    };
    assert!(age(1) > 5.0 && age(0) < 3.0, "{} and {}", age(1), age(0));
    assert_eq!(serving(&node), Some(false));
    pings(&socket);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(pings(&socket), 0, "so systemd restarts it");
    held.let_go();
    wait_for(&node, "/healthz", |status, _| status == 200);
    assert_eq!(serving(&node), Some(true));

    // A drain that does not end yet, because one shard does not take part.
    let held = Held::shard(&node, 0);
    node.signal("TERM");
    wait_for(&node, "/healthz", |status, text| status == 503 && text.contains("draining"));
    assert_eq!((&node.json("/v1/status")["state"], serving(&node)), (&"draining".into(), Some(false)));
    assert!(said_to_systemd(&socket).iter().any(|lines| lines.starts_with("STOPPING=1")));
    held.let_go();
    assert_eq!(node.wait_for_the_end().code(), Some(0));
}

#[test]
fn a_thread_that_a_drive_holds_up_does_not_keep_the_process() {
    // Drained, and ended by a write to the log that fails.
    for code in [0, 4] {
        let mut node = Node::start(Setup::shards(2));
        let (mut ann, bob) = ann_and_absent_bob(&node);
        let held = Held::named(&node, "segments");
        if code == 0 {
            node.signal("TERM");
        } else {
            node.forbid_writing();
            ann.send(bob, id(1), b"not safe");
        }
        held.wait_for_its_end();
        let ended = node.wait_for_last_words();
        assert_eq!(ended.status.code(), Some(code), "{}", ended.stderr);
        let told = "the process ends without them";
        assert!(ended.stderr.contains(told) && ended.stderr.contains("segments"), "{}", ended.stderr);
    }
}
