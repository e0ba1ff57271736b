//! `tern config` and what `tern serve` refuses before it makes anything.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// A place with a configuration file and a data directory that is not made yet.
struct Place(TempDir);

impl Place {
    fn new(config: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write(config);
        place
    }

    fn write(&self, config: &str) {
        std::fs::write(self.path("tern.toml"), config).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `tern WORDS` with this configuration, on ports of the kernel's choice.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
        command.current_dir(self.0.path()).args(words).args(["--config", "tern.toml", "--data", "data"]);
        command.args(["--phone", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What `config check` says is wrong, and how it ends.
    fn check(&self) -> (Option<i32>, String) {
        let output = self.run(&["config", "check"]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn serve(&self) -> Node {
        let mut node = Node(self.command(&["serve"]).stdout(Stdio::piped()).spawn().unwrap());
        let mut ready = String::new();
        BufReader::new(node.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert!(ready.starts_with("ready "), "{ready:?}");
        node
    }
}

/// A node; killed when dropped.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn value(toml: &[u8], key: &str) -> String {
    let text = std::str::from_utf8(toml).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).to_string()
}

#[test]
fn the_limits_for_a_public_service_are_lower_than_the_defaults() {
    let public = include_str!("../../../deploy/public.toml");
    let (place, default) = (Place::new(public), Place::new(""));
    assert_eq!(place.run(&["config", "check"]).stdout, b"ok\n");
    let (shown, default) = (place.run(&["config", "show"]).stdout, default.run(&["config", "show"]).stdout);
    let named = public.lines().filter_map(|line| line.split_once(" = "));
    let number = |text: &str| text.parse::<u64>().unwrap();
    let mut count = 0;
    for (name, limit) in named {
        assert_eq!(value(&shown, name), limit);
        // Zero is no limit.
        let before = number(&value(&default, name));
        assert!(before == 0 || number(limit) < before, "{name}");
        count += 1;
    }
    assert!(count >= 10);
}

#[test]
fn show_is_a_file_that_check_accepts() {
    let place = Place::new("shards = 2\n");
    let shown = place.run(&["config", "show"]).stdout;
    place.write(std::str::from_utf8(&shown).unwrap());
    assert_eq!(place.run(&["config", "check"]).stdout, b"ok\n");
    place.write("[limits]\nwindow_count = 0\n");
    let (code, said) = place.check();
    assert_eq!(code, Some(2));
    assert!(said.contains("limits.window_count = 0, allowed: 1 to 4096"), "{said}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::new("shards = 1\n");
    for words in [&["config", "show"][..], &["config", "check"], &["cores"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = place.command(words).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
    }
}

#[test]
fn show_prints_what_the_directory_and_the_machine_make_of_it() {
    let place = Place::new("shards = 3\nsegment_bytes = 16777216\n");
    drop(place.serve());
    place.write("");
    let shown = place.run(&["config", "show"]);
    assert_eq!(
        (value(&shown.stdout, "shards"), value(&shown.stdout, "segment_bytes")),
        ("3".into(), "16777216".into())
    );
    assert!(shown.stdout.starts_with(b"# Memory that the limits allow: "), "{shown:?}");
    // What was shown serves on the same directory, and one of another kind is refused by both.
    place.write(std::str::from_utf8(&shown.stdout).unwrap());
    assert_eq!(place.check().0, Some(0), "{:?}", place.check());
    drop(place.serve());
    place.write("segment_bytes = 33554432\n");
    let (code, said) = place.check();
    assert_eq!(code, Some(3));
    assert!(said.contains("segment_bytes = 33554432") && said.contains("made with 16777216"), "{said}");
    assert_eq!(place.run(&["serve"]).status.code(), Some(3));
    // Lanes are as small as so many shards make them.
    let many = Place::new("shards = 60\n");
    let lane_bytes: usize = value(&many.run(&["config", "show"]).stdout, "lane_bytes").parse().unwrap();
    assert!(lane_bytes < 8192, "{lane_bytes}");
}

#[test]
fn show_says_so_where_it_does_not_know_what_the_directory_was_made_with() {
    let place = Place::new("");
    let said = || String::from_utf8(place.run(&["config", "show"]).stderr).unwrap();
    assert!(!said().contains("new directory"), "one that is not there yet is one");
    std::fs::write(place.path("data"), "").unwrap();
    assert!(said().contains("is not a directory; what is shown is for a new directory"), "{}", said());
}

#[test]
fn numbers_on_the_command_line_are_refused_with_what_is_allowed() {
    let place = Place::new("");
    let rotate = ["rotate-key", "--data", "data", "--keep-days"];
    for (words, value, allowed) in [
        (&["serve", "--shards"][..], "two", "a whole number from 1 on"),
        (&["serve", "--shards"], "-1", "a whole number from 1 on"),
        (&rotate, "-1", "a whole number of days, 0 or more"),
        (&rotate, "long", "a whole number of days, 0 or more"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
        let output = command.current_dir(place.0.path()).args(words).arg(value).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("'{value}'")) && said.contains(allowed), "{said}");
    }
}

#[test]
fn a_node_that_cannot_serve_makes_nothing() {
    for (config, code, parts) in [
        ("[cores]\nshards = \"0-127\"\n", 2, &["cores.shards", "128", "1 to 111"][..]),
        ("shards = 99\n[limits]\nbody_bytes = 60000\n", 2, &["shards = 99", "1 to 98", "body_bytes = 60000"]),
        (
            "shards = 2\n[limits]\nmail_bytes = 900000000000000\n",
            2,
            &["limits.mail_bytes", "memory", "allowed"],
        ),
        (
            "shards = 1\n[limits]\nconnection_count = 2000000000\nedge_bytes = 9000000000000\nunanswered_count = 4294967295\n",
            2,
            &["limits.connection_count = 2000000000", "1 to 1073741823"],
        ),
        ("shards = 1\n[admin]\ntoken_file = \"short\"\n", 2, &["admin.token_file = short", "no token in it"]),
        ("shards = 1\n[admin]\ntoken_file = \"file/token\"\n", 3, &["admin.token_file = file/token"]),
    ] {
        let place = Place::new(config);
        std::fs::write(place.path("file"), "no directory").unwrap();
        std::fs::write(place.path("short"), "short\n").unwrap();
        std::fs::set_permissions(place.path("short"), PermissionsExt::from_mode(0o600)).unwrap();
        for output in [place.run(&["config", "check"]), place.run(&["serve"])] {
            assert_eq!(output.status.code(), Some(code), "{config}: {output:?}");
            let said = String::from_utf8(output.stderr).unwrap();
            for part in parts {
                assert!(said.contains(part), "{config} gave {said:?}, without {part:?}");
            }
        }
        assert!(!place.path("data").exists(), "{config}");
    }
}

#[test]
fn too_few_open_files_are_found_before_anything_is_made() {
    let place = Place::new("shards = 1\n");
    for words in [&["config", "check"][..], &["serve"]] {
        let tern = place.command(words);
        let mut limited = Command::new("prlimit");
        limited.arg("--nofile=1000:1000").arg(tern.get_program()).args(tern.get_args());
        let output = limited.current_dir(place.0.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("open files are limited to 1000") && said.contains("LimitNOFILE="), "{said}");
    }
    assert!(!place.path("data").exists());
}

#[test]
fn open_files_that_are_too_few_for_the_whole_log_are_told_and_served_with() {
    let place = Place::new("shards = 2\n[limits]\nconnection_count = 100\nsegment_count = 3000\n");
    let tern = place.command(&["config", "check"]);
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=1500:1500").arg(tern.get_program()).args(tern.get_args());
    let output = limited.current_dir(place.0.path()).output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"ok\n"[..]), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    for part in
        ["open files are limited to 1500", "limits.segment_count = 3000", "2 shards", "LimitNOFILE=6520"]
    {
        assert!(said.starts_with("tern: warning: ") && said.contains(part), "{said:?} without {part:?}");
    }
}

#[test]
fn check_looks_at_every_file_and_makes_none() {
    let place = Place::new(
        "shards = 1\n[admin]\ntoken_file = \"token\"\ntls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n",
    );
    let (code, said) = place.check();
    assert_eq!(code, Some(2));
    assert!(said.contains("admin.tls_cert = cert.pem") && said.contains("No such file"), "{said}");
    std::fs::write(place.path("token"), "short").unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    std::fs::write(place.path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(place.path("key.pem"), other.signing_key.serialize_pem()).unwrap();
    std::fs::write(place.path("data"), "a file").unwrap();
    let (_, said) = place.check();
    for part in [
        "admin.tls_key = key.pem",
        "admin.token_file = token",
        "data directory data: data is not a directory",
    ] {
        assert!(said.contains(part), "all that is wrong is told at once: {said:?} without {part:?}");
    }
    std::fs::remove_file(place.path("data")).unwrap();
    std::fs::remove_file(place.path("token")).unwrap();
    std::fs::write(place.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    assert_eq!(place.check(), (Some(0), String::new()));
    assert!(!place.path("token").exists() && !place.path("data").exists());
    std::fs::create_dir(place.path("data")).unwrap();
    std::fs::write(place.path("data/photo.jpg"), "").unwrap();
    let (code, said) = place.check();
    assert_eq!(code, Some(5));
    assert!(said.contains("photo.jpg") && said.contains("wrong directory"), "{said}");
}

#[test]
fn a_drive_without_room_for_the_first_files_is_found_before_anything_is_made() {
    let place = Place::new("shards = 2\nsegment_bytes = 4194304\n");
    std::fs::create_dir(place.path("data")).unwrap();
    let with_mib = |size_mib: u32, words: &[&str]| {
        let tern = place.command(words);
        let mount = format!("mount -t tmpfs -o size={size_mib}m tern data");
        let script = format!("{mount} && \"$0\" \"$@\"; code=$?; ls -A data; exit $code");
        let mut command = Command::new("unshare");
        command.current_dir(place.0.path()).args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &script,
        ]);
        let output = command.arg(tern.get_program()).args(tern.get_args()).output().unwrap();
        let made = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), made, String::from_utf8(output.stderr).unwrap())
    };
    for words in [&["config", "check"][..], &["serve"]] {
        let (code, made, said) = with_mib(6, words);
        assert_eq!((code, &*made), (Some(3), ""), "{said}");
        assert!(said.contains("has 6 MiB free, and the logs of 2 shards begin with 8 MiB"), "{said}");
    }
    assert_eq!(with_mib(9, &["config", "check"]).0, Some(0));
}

#[test]
fn what_systemd_brings_is_not_missed_before_the_start() {
    let place = Place::new(
        "shards = 1\n[admin]\ntoken_file = \"none/token\"\ntls_cert = \"/run/credentials/tern.service/no.pem\"\n\
         tls_key = \"/run/credentials/tern.service/no.key\"\n",
    );
    let (code, said) = place.check();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("warning: admin.tls_cert") && said.contains("warning: admin.token_file"), "{said}");
    // Where nobody brings it, nothing is made either.
    place.write("shards = 1\n[admin]\ntoken_file = \"none/token\"\n");
    let output = place.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && said.contains("none/token: it cannot be made"), "{output:?}");
    assert!(!place.path("data").exists());
}

#[test]
fn a_token_in_the_data_directory_is_made_after_it() {
    let place = Place::new("shards = 1\n[admin]\ntoken_file = \"./data/token\"\n");
    assert_eq!(place.check(), (Some(0), String::new()));
    assert!(!place.path("data").exists());
    drop(place.serve());
    assert!(place.path("data/token").is_file());
    drop(place.serve());
    // Of another directory below it nobody makes anything.
    let other = Place::new("shards = 1\n[admin]\ntoken_file = \"data/secret/token\"\n");
    assert_eq!(other.run(&["serve"]).status.code(), Some(3));
    assert!(!other.path("data").exists());
}

#[test]
fn a_token_that_could_not_be_written_is_made_by_the_next_start() {
    let place = Place::new("shards = 1\n[admin]\ntoken_file = \"token\"\n");
    drop(place.serve());
    std::fs::remove_file(place.path("token")).unwrap();
    // As a full drive refuses it: the file can be made, and nothing be written.
    let tern = place.command(&["serve"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]).arg(tern.get_program());
    let output = limited.args(tern.get_args()).current_dir(place.0.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && said.contains("token: it cannot be made"), "{output:?}");
    let left: Vec<_> =
        std::fs::read_dir(place.0.path()).unwrap().flatten().map(|it| it.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("token")), "{left:?}");
    drop(place.serve());
}

#[test]
fn taken_ports_are_told_unless_they_are_the_nodes_own() {
    let place = Place::new("shards = 1\n");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = place.path("data");
    let check = |phone: &str, admin: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
        command.args(["config", "check", "--phone", phone, "--admin", admin, "--data"]).arg(&data);
        command.output().unwrap()
    };
    let free = "127.0.0.1:0";
    for (key, output) in [("phone = ", check(&address, free)), ("admin = ", check(free, &address))] {
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&format!("{key}{address}")), "{said}");
    }
    let node = place.serve();
    let output = check(&address, free);
    assert_eq!(output.status.code(), Some(0), "its own node has them: {output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("a node is running on"), "{output:?}");
    drop(node);
    assert_eq!(check(&address, free).status.code(), Some(3));
}

#[test]
fn shards_that_auto_cannot_pin_are_told() {
    let place = Place::new("shards = 64\n");
    let (code, said) = place.check();
    if std::thread::available_parallelism().unwrap().get() < 64 {
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("warning: no shard is pinned"), "{said}");
    }
}
