//! A `tern serve` in a temporary directory, which a test may kill and start again on the same addresses.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// How a node is started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) shards: u16,
    pub(crate) config: String,
    /// Megabytes of a small file system of its own for the data directory.
    pub(crate) drive_mb: Option<u32>,
    /// Its limit of open files, as `ulimit` is told it.
    pub(crate) open_files: Option<String>,
    /// What its environment has beside the test's own.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The pipe that it logs to; else what it says is kept.
    pub(crate) stderr: Option<PathBuf>,
}

impl Setup {
    pub(crate) fn shards(shards: u16) -> Self {
        Self {
            shards,
            config: String::new(),
            drive_mb: None,
            open_files: None,
            environment: Vec::new(),
            stderr: None,
        }
    }
}

/// A running node.
pub(crate) struct Node {
    process: tern_node::Node,
    dir: tempfile::TempDir,
    /// How it is started again.
    pub(crate) setup: Setup,
    pub(crate) phone: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Node {
    pub(crate) fn start(setup: Setup) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("tern.toml"), &setup.config).expect("the configuration is written");
        let any = "127.0.0.1:0".parse().expect("an address");
        let process = serve(dir.path(), &setup, any, any);
        let (phone, admin) = (process.ready().phone, process.ready().admin);
        Self { process, dir, setup, phone, admin }
    }

    /// How one ends that does not get as far as serving.
    pub(crate) fn start_in_vain(setup: &Setup) -> tern_node::Ended {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("tern.toml"), &setup.config).expect("the configuration is written");
        let any = "127.0.0.1:0".parse().expect("an address");
        begin(dir.path(), setup, any, any).wait_for_the_end().expect("the node ends")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("SIGKILL is always possible");
    }

    /// Starts it again on the same addresses: the listeners must bind at once, though the ports were just in use.
    pub(crate) fn start_again(&mut self) {
        let process = serve(self.dir.path(), &self.setup, self.phone, self.admin);
        assert_eq!((process.ready().phone, process.ready().admin), (self.phone, self.admin));
        self.process = process;
    }

    /// Starts it again and does not wait until it serves.
    pub(crate) fn begin_again(&mut self) {
        self.process = begin(self.dir.path(), &self.setup, self.phone, self.admin);
    }

    /// Its process.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.pid()
    }

    /// Status and text of what the admin endpoint says.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.get_as(path, "no token")
    }

    /// Likewise, by a token; an endpoint that has none does not look at it.
    pub(crate) fn get_as(&self, path: &str, token: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url = format!("http://{}{path}", self.admin);
        let request = agent.get(&url).header("authorization", format!("Bearer {token}"));
        let mut response = request.call().expect("the admin endpoint answers");
        (response.status().as_u16(), response.body_mut().read_to_string().expect("text"))
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn drain(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_for_the_end()
    }

    /// Gives the stopped node a new key; the old one works for so many days, and none before it.
    pub(crate) fn rotate_key(&self, keep_days: u32) {
        let output = self.try_to_rotate_key(keep_days, &["--end-previous"]);
        assert!(output.status.success(), "the key is not rotated: {output:?}");
    }

    /// Likewise, with these flags; it may be refused.
    pub(crate) fn try_to_rotate_key(&self, keep_days: u32, flags: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
        command.arg("rotate-key").arg("--data").arg(self.data());
        command.args(["--keep-days", &keep_days.to_string()]).args(flags).output().expect("tern starts")
    }

    /// Stops its process for a while, or lets it go on.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid();
        let status = Command::new("kill").args([&format!("-{signal}"), &*pid]).status();
        assert!(status.expect("kill runs").success());
    }

    /// From now on it may open no file with a number as high as this.
    pub(crate) fn limit_open_files(&self, soft: u32) {
        let (pid, limit) = (self.pid(), format!("--nofile={soft}:"));
        let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(status.expect("prlimit runs").success());
    }

    fn pid(&self) -> String {
        self.process.pid().to_string()
    }

    /// What the admin endpoint says.
    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        let url = format!("http://{}{path}", self.admin);
        let text = ureq::get(&url).call().expect("the admin endpoint answers").into_body().read_to_string();
        serde_json::from_str(&text.expect("text")).expect("JSON")
    }

    /// From now on every write to a file fails.
    pub(crate) fn forbid_writing(&self) {
        let pid = self.pid();
        let status = Command::new("prlimit").args(["--pid", &pid, "--fsize=0"]).status();
        assert!(status.expect("prlimit runs").success());
    }

    pub(crate) fn wait_for_the_end(&mut self) -> ExitStatus {
        self.wait_for_last_words().status
    }

    /// Likewise, with what it said.
    pub(crate) fn wait_for_last_words(&mut self) -> tern_node::Ended {
        self.process.wait_for_the_end().expect("the node ends")
    }

    /// A counter or gauge of the shards, summed: `tern_` and its field, as the list of counters spells it, and
    /// `_total` for a counter.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let status = self.json("/v1/status");
        let field = name.trim_start_matches("tern_").trim_end_matches("_total");
        status["totals"][field]
            .as_u64()
            .unwrap_or_else(|| panic!("no counter {field} in {}", status["totals"]))
    }

    /// Waits until a gauge is at a value: gauges are published a few times a second.
    pub(crate) fn wait_for_level(&self, name: &str, level: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.metric(name) != level {
            assert!(Instant::now() < deadline, "{name} stays at {}, not {level}", self.metric(name));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a counter has reached a value: counters are published a few times a second.
    pub(crate) fn wait_for(&self, name: &str, at_least: u64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.metric(name) < at_least {
            assert!(Instant::now() < deadline, "{name} stays at {}, not {at_least}", self.metric(name));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn serve(dir: &Path, setup: &Setup, phone: SocketAddr, admin: SocketAddr) -> tern_node::Node {
    let mut node = begin(dir, setup, phone, admin);
    node.wait_until_ready(tern_node::READY_WAIT, || Ok(())).expect("tern serves");
    node
}

fn begin(dir: &Path, setup: &Setup, phone: SocketAddr, admin: SocketAddr) -> tern_node::Node {
    let mut command = command(dir, setup, phone, admin);
    let Some(pipe) = &setup.stderr else {
        return tern_node::Node::begin(&mut command).expect("tern starts");
    };
    let stderr = OpenOptions::new().write(true).open(pipe).expect("somebody may read");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn();
    tern_node::Node::of(child.expect("tern starts")).expect("its output is a pipe")
}

fn command(dir: &Path, setup: &Setup, phone: SocketAddr, admin: SocketAddr) -> Command {
    let data = dir.join("data");
    std::fs::create_dir_all(&data).expect("the data directory is made");
    let tern = env!("CARGO_BIN_EXE_tern");
    let mut command = match setup.drive_mb {
        None => {
            // Ignored signals stay ignored: a test may forbid writing with a limit of the file size, and get an error.
            let mut command = Command::new("sh");
            let limit = setup.open_files.as_ref();
            let limit = limit.map_or(String::new(), |words| format!("ulimit {words}; "));
            command.args(["-c", &format!("{limit}trap '' XFSZ; exec \"$0\" \"$@\""), tern]);
            command
        }
        Some(size_mb) => {
            // A mount of the child's own, which ends with it.
            let script = format!("mount -t tmpfs -o size={size_mb}m tern \"$0\" && exec \"$@\"");
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).arg(&data).arg(tern);
            command
        }
    };
    command.arg("serve").arg("--config").arg(dir.join("tern.toml")).arg("--data").arg(&data);
    command.args(["--open-registration", "--shards", &setup.shards.to_string()]);
    command.args(["--phone", &phone.to_string(), "--admin", &admin.to_string()]);
    command.envs(setup.environment.iter().cloned());
    command
}

/// Another binary of this workspace; built if it is not there yet.
pub(crate) fn sibling(package: &str) -> PathBuf {
    let tern = Path::new(env!("CARGO_BIN_EXE_tern"));
    tern_node::built(tern, package, package).expect("it builds")
}
