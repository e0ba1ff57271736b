//! A `tern serve` in a temporary directory, which a test may kill and start again on the same addresses.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a node is started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) shards: u16,
    pub(crate) config: String,
    /// Megabytes of a small file system of its own for the data directory.
    pub(crate) drive_mb: Option<u32>,
    /// Its limit of open files, soft and hard.
    pub(crate) open_files: Option<u32>,
}

impl Setup {
    pub(crate) fn shards(shards: u16) -> Self {
        Self { shards, config: String::new(), drive_mb: None, open_files: None }
    }
}

/// A running node.
pub(crate) struct Node {
    child: Child,
    dir: tempfile::TempDir,
    setup: Setup,
    pub(crate) phone: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Node {
    pub(crate) fn start(setup: Setup) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("tern.toml"), &setup.config).expect("the configuration is written");
        let any = "127.0.0.1:0".parse().expect("an address");
        let (child, phone, admin) = serve(dir.path(), &setup, any, any);
        Self { child, dir, setup, phone, admin }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("SIGKILL is always possible");
        self.child.wait().expect("the child is ours");
    }

    /// Starts it again on the same addresses: the listeners must bind at once, though the ports were just in use.
    pub(crate) fn start_again(&mut self) {
        let (child, phone, admin) = serve(self.dir.path(), &self.setup, self.phone, self.admin);
        assert_eq!((phone, admin), (self.phone, self.admin));
        self.child = child;
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn drain(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        self.wait_for_the_end()
    }

    /// Gives the stopped node a new key; the old one works for so many days.
    pub(crate) fn rotate_key(&self, keep_days: u32) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
        command.arg("rotate-key").arg("--data").arg(self.data());
        let status = command.args(["--keep-days", &keep_days.to_string()]).status().expect("tern starts");
        assert!(status.success(), "the key is not rotated");
    }

    /// Stops its process for a while, or lets it go on.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &*pid]).status();
        assert!(status.expect("kill runs").success());
    }

    /// From now on it may open no file with a number as high as this.
    pub(crate) fn limit_open_files(&self, soft: u32) {
        let (pid, limit) = (self.child.id().to_string(), format!("--nofile={soft}:"));
        let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(status.expect("prlimit runs").success());
    }

    /// What the admin endpoint says.
    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        let url = format!("http://{}{path}", self.admin);
        let text = ureq::get(&url).call().expect("the admin endpoint answers").into_body().read_to_string();
        serde_json::from_str(&text.expect("text")).expect("JSON")
    }

    /// From now on every write to a file fails.
    pub(crate) fn forbid_writing(&self) {
        let pid = self.child.id().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, "--fsize=0"]).status();
        assert!(status.expect("prlimit runs").success());
    }

    pub(crate) fn wait_for_the_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status;
            }
            assert!(Instant::now() < deadline, "the node does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
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

    /// Waits until a counter has reached a value: counters are published a few times a second.
    pub(crate) fn wait_for(&self, name: &str, at_least: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.metric(name) < at_least {
            assert!(Instant::now() < deadline, "{name} stays at {}, not {at_least}", self.metric(name));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(dir: &Path, setup: &Setup, phone: SocketAddr, admin: SocketAddr) -> (Child, SocketAddr, SocketAddr) {
    let data = dir.join("data");
    std::fs::create_dir_all(&data).expect("the data directory is made");
    let tern = env!("CARGO_BIN_EXE_tern");
    let mut command = match setup.drive_mb {
        None => {
            // Ignored signals stay ignored: a test may forbid writing with a limit of the file size, and get an error.
            let mut command = Command::new("sh");
            let limit = setup.open_files.map_or(String::new(), |count| format!("ulimit -n {count}; "));
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
    let mut child = command.stdout(Stdio::piped()).spawn().expect("tern starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("tern says ready");
    let field = |name: &str| {
        let value = line.split_whitespace().find_map(|word| word.strip_prefix(name));
        value.unwrap_or_else(|| panic!("no {name} in {line:?}")).parse().expect("an address")
    };
    assert!(line.starts_with("ready "), "{line:?}");
    (child, field("phone="), field("admin="))
}

/// Another binary of this workspace; built if it is not there yet.
pub(crate) fn sibling(package: &str) -> PathBuf {
    let tern = Path::new(env!("CARGO_BIN_EXE_tern"));
    let path = tern.with_file_name(package);
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", package, "--bin", package]);
    if tern.parent().and_then(Path::file_name).is_some_and(|profile| profile == "release") {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo runs").success(), "{package} does not build");
    assert!(path.exists(), "{} is not there", path.display());
    path
}
