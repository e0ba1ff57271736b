//! The configuration that a node runs with, checked.

use super::admin::AdminAccess;
use super::cores::{CoresSettings, CoresTable, Threads};
use super::file::ConfigFile;
use super::limits::{self, LimitsTable};
use super::log::LogSettings;
use crate::cli::ServeArgs;
use crate::exit::Failure;
use std::net::SocketAddr;
use std::path::PathBuf;
use tern_core::limits::Limits;
use tern_core::networks::{Network, NetworkError};
use tern_driver::shards_max;

/// Bytes of a log segment where nothing else is said.
const SEGMENT_BYTES: u32 = 32 << 20;

/// What a node runs with.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Settings {
    /// Data directory.
    pub(crate) data: PathBuf,
    /// Where phones connect.
    pub(crate) phone: SocketAddr,
    /// Networks of balancers: a connection from here must begin with a PROXY header.
    pub(crate) phone_proxy: Vec<Network>,
    /// Admin endpoint; off loopback with a token and TLS.
    pub(crate) admin: SocketAddr,
    /// Who may ask it.
    pub(crate) admin_access: AdminAccess,
    /// How the log is written.
    pub(crate) log: LogSettings,
    /// Number of shards, where file or flags say it.
    shards: Option<u16>,
    /// The core map.
    pub(crate) cores: CoresSettings,
    /// Whether phones may register.
    pub(crate) open_registration: bool,
    /// Bytes of a log segment, where the file says it.
    segment_bytes: Option<u32>,
    /// The limits that the file says; the others are built in, or made from the machine's memory.
    pub(crate) limits: LimitsTable,
}

impl Settings {
    /// Reads the file that the flags name, lays the flags over it and checks everything.
    ///
    /// # Errors
    /// The text names key, value and what is allowed.
    pub(crate) fn load(args: &ServeArgs) -> Result<Self, Failure> {
        let file = args.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        Self::merge(file, args)
    }

    fn merge(file: ConfigFile, args: &ServeArgs) -> Result<Self, Failure> {
        let data =
            if args.data.is_empty() { file.data.unwrap_or_else(default_data) } else { args.data.clone() };
        let [data] = data.as_slice() else {
            return Err(Failure::usage(format!(
                "data = {data:?}, allowed: one directory; several are not available yet"
            )));
        };
        if data.as_os_str().is_empty() {
            return Err(Failure::usage("data = [\"\"], allowed: a directory such as \"/var/lib/tern\""));
        }
        let admin_table = file.admin.unwrap_or_default();
        let admin =
            args.admin.or(admin_table.listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7323)));
        let settings = Self {
            data: data.clone(),
            phone: args.phone.or(file.phone).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7322))),
            phone_proxy: networks("phone_proxy", &file.phone_proxy.unwrap_or_default())?,
            admin,
            admin_access: AdminAccess::of(&admin_table, admin)?,
            log: LogSettings::of(&file.log.unwrap_or_default()),
            shards: args.shards.or(file.shards),
            cores: file.cores.unwrap_or_default().resolve()?,
            open_registration: args.open_registration || file.open_registration.unwrap_or(false),
            segment_bytes: file.segment_bytes,
            limits: file.limits.unwrap_or_default(),
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Failure> {
        let wrong = |key: &str, value: &dyn std::fmt::Display, allowed: &str| {
            Err(Failure::usage(format!("{key} = {value}, allowed: {allowed}")))
        };
        if meet(self.phone, self.admin) {
            let allowed = format!("another port than that of phone = {}", self.phone);
            return wrong("admin", &self.admin, &allowed);
        }
        if !(1..=1000).contains(&self.log.repeats_per_s) {
            return wrong("log.repeats_per_s", &self.log.repeats_per_s, "1 to 1000");
        }
        let limits = self.limits.resolve();
        if let Err(error) = limits.validate() {
            let value = LimitsTable::value_of(&limits, error.name);
            return wrong(&format!("limits.{}", error.name), &value, &limits::allowed(&limits, &error));
        }
        let shards_max = self.shards_max();
        let allowed = || {
            let body_bytes = limits.body_bytes;
            format!(
                "1 to {shards_max}: the lanes between more do not fit 64 MiB with limits.body_bytes = {body_bytes}"
            )
        };
        if let Some(shards) = self.shards
            && !(1..=shards_max).contains(&shards)
        {
            return wrong("shards", &shards, &allowed());
        }
        let named = self.cores.shards.named().len();
        if self.shards.is_none() && named > usize::from(shards_max) {
            return wrong("cores.shards: hardware threads", &named, &allowed());
        }
        if let (Some(shards), Threads::These(threads)) = (self.shards, &self.cores.shards)
            && usize::from(shards) > threads.len()
        {
            let count = threads.len();
            let allowed = format!("at most {count}, since cores.shards names {count} hardware threads");
            return wrong("shards", &shards, &allowed);
        }
        let least = 2 * limits.commit_bytes as u64 + 8192;
        let bytes = self.segment_bytes();
        if u64::from(bytes) < least || bytes > 1 << 30 || !bytes.is_multiple_of(4096) {
            let allowed =
                format!("a multiple of 4096 from 2 x limits.commit_bytes + 8192 = {least} to 1 GiB");
            return wrong("segment_bytes", &bytes, &allowed);
        }
        Ok(())
    }

    /// Number of shards, where file or flags say it or the core map names their threads; otherwise the data directory
    /// or the machine decides.
    pub(crate) fn shard_count(&self) -> Option<u16> {
        let named = self.cores.shards.named().len();
        self.shards.or_else(|| u16::try_from(named).ok().filter(|&count| count > 0))
    }

    /// Most shards that a node can have with these settings.
    pub(crate) fn shards_max(&self) -> u16 {
        shards_max(self.limits.resolve().body_bytes)
    }

    /// Bytes of a segment in a new data directory.
    pub(crate) fn segment_bytes(&self) -> u32 {
        self.segment_bytes.unwrap_or(SEGMENT_BYTES)
    }

    /// Bytes of a segment as the file says them; an existing data directory must agree.
    pub(crate) fn segment_bytes_given(&self) -> Option<u32> {
        self.segment_bytes
    }

    /// The whole configuration as a file that means the same, with what `serve` makes of it here.
    pub(crate) fn to_toml(&self, shard_count: u16, segment_bytes: u32, limits: &Limits) -> String {
        let file = ConfigFile {
            data: Some(vec![self.data.clone()]),
            phone: Some(self.phone),
            phone_proxy: Some(self.phone_proxy.iter().map(Network::to_string).collect()),
            shards: Some(shard_count),
            cores: Some(CoresTable::of(&self.cores)),
            open_registration: Some(self.open_registration),
            segment_bytes: Some(segment_bytes),
            admin: Some(self.admin_access.to_table(self.admin)),
            log: Some(self.log.to_table()),
            limits: Some(LimitsTable::of(limits)),
        };
        toml::to_string(&file).expect("a configuration made of numbers, paths and addresses is TOML")
    }
}

/// Whether who listens at one address keeps others from the other one. The unspecified address of IPv6 is that of IPv4,
/// too.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let covers =
        |one: SocketAddr, other: SocketAddr| one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    let is_same = one.ip() == other.ip() || covers(one, other) || covers(other, one);
    one.port() == other.port() && one.port() != 0 && is_same
}

/// Reads networks; an error names the key, the one that is wrong, and why.
fn networks(key: &str, texts: &[String]) -> Result<Vec<Network>, Failure> {
    let read = |text: &String| {
        text.parse().map_err(|error: NetworkError| {
            Failure::usage(format!("{key}: {text:?}, allowed: networks like \"10.0.0.0/8\"; {error}"))
        })
    };
    texts.iter().map(read).collect()
}

/// A value that is not allowed.
#[derive(Debug)]
pub(super) struct Wrong(String);

impl Wrong {
    /// Names key, value and what is allowed.
    pub(super) fn new(key: &str, value: impl std::fmt::Display, allowed: &str) -> Self {
        Self(format!("{key} = {value}, allowed: {allowed}"))
    }
}

impl From<Wrong> for Failure {
    fn from(Wrong(text): Wrong) -> Self {
        Self::usage(text)
    }
}

fn default_data() -> Vec<PathBuf> {
    vec![PathBuf::from("./tern-data")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let file = ConfigFile::parse(text)?;
        Settings::merge(file, &ServeArgs::default()).map_err(|failure| failure.text)
    }

    #[test]
    fn an_empty_file_gives_the_built_in_values() {
        let settings = settings("").unwrap();
        assert_eq!(settings.phone.to_string(), "127.0.0.1:7322");
        assert_eq!(settings.limits.resolve(), Limits::default());
    }

    #[test]
    fn what_grows_with_connections_and_is_not_named_is_made_large_enough_for_them() {
        let limits = settings("[limits]\nconnection_count = 1048000").unwrap().limits.resolve();
        assert_eq!((limits.edge_bytes, limits.unanswered_count), (4_292_739_072, 4_192_000));
        // What is large enough stays, and so does what is named.
        let limits = settings("[limits]\nconnection_count = 60000").unwrap().limits.resolve();
        let built_in = Limits::default();
        let expected = (built_in.edge_bytes, built_in.unanswered_count);
        assert_eq!((limits.edge_bytes, limits.unanswered_count), expected);
        let named = "[limits]\nconnection_count = 70000\nedge_bytes = 286851072\nunanswered_count = 280000";
        let limits = settings(named).unwrap().limits.resolve();
        assert_eq!((limits.edge_bytes, limits.unanswered_count), (286_851_072, 280_000));
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = ConfigFile::parse("phone = \"127.0.0.1:1\"\nshards = 3\ndata = [\"a\"]").unwrap();
        let args = ServeArgs {
            phone: Some("127.0.0.1:2".parse().unwrap()),
            data: vec!["b".into()],
            ..ServeArgs::default()
        };
        let settings = Settings::merge(file, &args).unwrap();
        assert_eq!(settings.phone.port(), 2);
        assert_eq!(settings.data, PathBuf::from("b"));
        assert_eq!(settings.shard_count(), Some(3));
    }

    #[test]
    fn what_the_readme_shows_is_read_and_says_the_defaults() {
        let readme = include_str!("../../../../README.md");
        let blocks = readme.split("```toml\n").skip(1);
        let examples: Vec<&str> = blocks.filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
        assert_eq!(examples.len(), 3);
        for example in examples {
            let shown = settings(example).unwrap_or_else(|error| panic!("{example}: {error}"));
            assert_eq!(shown.limits.resolve(), Limits::default(), "{example}");
        }
    }

    #[test]
    fn named_threads_say_how_many_shards() {
        assert_eq!(settings("").unwrap().shard_count(), None);
        assert_eq!(settings("[cores]\nshards = \"\"\"\n 4-6,\n 1\n\"\"\"").unwrap().shard_count(), Some(4));
        assert_eq!(settings("shards = 2\n[cores]\nshards = \"4-6\"").unwrap().shard_count(), Some(2));
    }

    /// What `show` prints on a machine that gives these settings all that they say, in a new data directory.
    fn shown(settings: &Settings) -> Settings {
        let shard_count = settings.shard_count().unwrap_or(1);
        let toml = settings.to_toml(shard_count, settings.segment_bytes(), &settings.limits.resolve());
        Settings::merge(ConfigFile::parse(&toml).unwrap(), &ServeArgs::default()).unwrap()
    }

    #[test]
    fn what_show_prints_means_the_same() {
        let first =
            settings("shards = 2\nphone_proxy = [\"10.0.0.0/8\", \"::1\"]\n[cores]\nshards = \"4-6,1\"\ncontrol = \"none\"\nsteer = true\n[limits]\nwindow_count = 7\nbody_bytes = 100").unwrap();
        assert!(first.limits.resolve().window_count == 7);
        let second = shown(&first);
        assert_eq!(
            (second.limits.resolve(), second.segment_bytes()),
            (first.limits.resolve(), first.segment_bytes())
        );
        assert_eq!(
            Settings { limits: first.limits.clone(), segment_bytes: first.segment_bytes, ..second },
            first
        );
    }

    #[test]
    fn errors_name_key_value_and_what_is_allowed() {
        for (text, parts) in [
            ("[limits]\nwindow_count = 0", &["limits.window_count", "= 0", "1 to 4096"][..]),
            ("[limits]\nwindow = 9", &["window", "window_count"][..]),
            ("shard = 1", &["shard", "shards"][..]),
            ("shards = 0", &["shards", "= 0", "1 to 111"][..]),
            ("shards = 112", &["shards = 112", "1 to 111", "limits.body_bytes = 32768"][..]),
            (
                "shards = 99\n[limits]\nbody_bytes = 60000",
                &["shards = 99", "1 to 98", "body_bytes = 60000"][..],
            ),
            ("[cores]\nshards = \"0-127\"", &["cores.shards", "= 128", "1 to 111"][..]),
            ("shards = \"two\"", &["shards", "two", "a whole number"][..]),
            (
                "admin = \"0.0.0.0:1\"",
                &["admin.listen", "0.0.0.0:1", "loopback", "token_file", "tls_key"][..],
            ),
            ("admin = \"here\"", &["admin", "here", "socket address"][..]),
            (
                "phone = \"0.0.0.0:7323\"",
                &["admin = 127.0.0.1:7323, allowed", "another port than that of phone = 0.0.0.0:7323"][..],
            ),
            ("admin = 7", &["admin", "7", "an address, or a table with listen"][..]),
            ("[admin]\nlisen = \"[::1]:1\"", &["lisen", "listen"][..]),
            ("[admin]\nlisten = \"0.0.0.0:1\"\ntoken_file = \"t\"", &["0.0.0.0:1", "admin.tls_cert"][..]),
            ("[admin]\ntls_cert = \"c.pem\"", &["admin.tls_cert = c.pem", "admin.tls_key"][..]),
            ("[admin]\ntls_key = \"k.pem\"", &["admin.tls_key = k.pem", "admin.tls_cert"][..]),
            ("[log]\nformat = \"xml\"", &["format", "xml", "text", "json"][..]),
            ("[log]\nrepeats_per_s = 0", &["log.repeats_per_s", "= 0", "1 to 1000"][..]),
            ("segment_bytes = 4097", &["segment_bytes", "4097", "multiple of 4096"][..]),
            ("phone_proxy = [\"10.0.0.1/8\"]", &["phone_proxy", "10.0.0.1/8", "bits set"][..]),
            ("phone_proxy = [\"::1\", \"x\"]", &["phone_proxy", "\"x\"", "IPv4 or IPv6"][..]),
            (
                "[limits]\nconnection_count = 70000\nedge_bytes = 268435456",
                &["limits.edge_bytes = 268435456", "4096 x connection_count + 131072 = 286851072"][..],
            ),
            (
                "[limits]\nconnection_count = 70000\nunanswered_count = 279999",
                &["limits.unanswered_count = 279999", "4 x connection_count = 280000"][..],
            ),
            (
                "[limits]\nconnection_count = 2000000000",
                &["limits.connection_count = 2000000000", "1 to 1073741823"][..],
            ),
            ("[limits]\naddress_connects_burst = 0", &["limits.address_connects_burst", "rate 0"][..]),
            ("data = []", &["data", "[]", "one directory"][..]),
            ("data = [\"\"]", &["data = [\"\"]", "a directory such as"][..]),
            ("[admin]\ntoken = \"x\"", &["unknown key token, the nearest is token_file"][..]),
            ("shards = 70000", &["line 1", "shards = 70000", "a whole number from 0 to 65535"][..]),
            ("open_registration = 1", &["open_registration = 1", "true or false"][..]),
            ("phone = \"here\"", &["phone = \"here\"", "an address with a port"][..]),
            ("phone = 7", &["phone = 7", "an address with a port"][..]),
            ("data = \"a\"", &["data = \"a\"", "a list in [brackets]"][..]),
            ("data = [7]", &["data = [7]", "a text in \"quotes\""][..]),
            ("[limits]\nbody_bytes = -1", &["limits.body_bytes = -1", "a whole number, 0 or more"][..]),
            (
                "[limits]\nwindow = 9",
                &["limits.window = 9", "unknown key window, the nearest is window_count"][..],
            ),
            ("[core]\nshards = \"0\"", &["unknown key core, the nearest is cores"][..]),
            ("[cores]\nsteering = true", &["cores.steering", "the nearest is steer"][..]),
            ("[cores]\nshards = \"2-x\"", &["cores.shards = \"2-x\"", "\"auto\"", "\"1-19,21-39\""][..]),
            ("[cores]\nshards = \"\"", &["cores.shards = \"\"", "allowed"][..]),
            ("[cores]\ncontrol = \"7,5-8\"", &["cores.control", "thread 7 is named twice"][..]),
            (
                "[cores]\nshards = \"0-3\"\ncontrol = \"3\"",
                &["cores.control = \"3\"", "thread 3 is in cores.shards"],
            ),
            (
                "shards = 3\n[cores]\nshards = \"1-2\"",
                &["shards = 3", "at most 2", "cores.shards names 2"][..],
            ),
            ("shards = 1\nshards = 2", &["line 2: shards = 2", "duplicate key"][..]),
            ("phone =", &["line 1: phone ="][..]),
        ] {
            let error = settings(text).unwrap_err();
            let of_rust = ["u16", "i128", "usize"].iter().find(|word| error.contains(**word));
            assert_eq!(of_rust, None, "{text:?} gave {error:?}");
            for part in parts {
                assert!(error.contains(part), "{text:?} gave {error:?}, without {part:?}");
            }
        }
    }

    #[test]
    fn the_admin_endpoint_is_an_address_or_a_table() {
        assert_eq!(settings("admin = \"[::1]:9\"").unwrap().admin.port(), 9);
        let text = "[admin]\nlisten = \"0.0.0.0:9\"\ntoken_file = \"t\"\ntls_cert = \"c\"\ntls_key = \"k\"\n\
                    [log]\nformat = \"json\"";
        let first = settings(text).unwrap();
        assert_eq!(first.admin.to_string(), "0.0.0.0:9");
        assert_eq!(first.admin_access.tls.as_ref().unwrap().key, PathBuf::from("k"));
        let second = shown(&first);
        assert_eq!(
            (second.admin, &second.admin_access, second.log),
            (first.admin, &first.admin_access, first.log)
        );
        // A flag moves the endpoint; what guards it stays.
        let args = ServeArgs { admin: Some("127.0.0.1:1".parse().unwrap()), ..ServeArgs::default() };
        let moved = Settings::merge(ConfigFile::parse(text).unwrap(), &args).unwrap();
        assert_eq!((moved.admin.port(), moved.admin_access), (1, first.admin_access));
    }

    #[test]
    fn two_doors_at_one_address_are_refused_and_at_two_are_not() {
        let settings = |phone: &str, admin: &str| {
            settings(&format!(
                "phone = \"{phone}\"\n[admin]\nlisten = \"{admin}\"\ntoken_file = \"t\"\ntls_cert = \"c\"\ntls_key = \"k\""
            ))
        };
        for (phone, admin) in [
            ("127.0.0.1:9", "127.0.0.1:9"),
            ("0.0.0.0:9", "127.0.0.1:9"),
            ("10.0.0.1:9", "0.0.0.0:9"),
            ("[::]:9", "127.0.0.1:9"),
            ("[::]:9", "0.0.0.0:9"),
            ("[::1]:9", "[::]:9"),
        ] {
            assert!(
                settings(phone, admin).is_err_and(|text| text.contains("another port")),
                "{phone} {admin}"
            );
        }
        for (phone, admin) in [
            ("127.0.0.1:9", "127.0.0.1:8"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("10.0.0.1:9", "127.0.0.1:9"),
            ("0.0.0.0:9", "[::1]:9"),
        ] {
            assert!(settings(phone, admin).is_ok(), "{phone} {admin}");
        }
    }

    #[test]
    fn several_drives_are_refused_by_name() {
        let args = ServeArgs { data: vec!["a".into(), "b".into()], ..ServeArgs::default() };
        let failure = Settings::merge(ConfigFile::default(), &args).unwrap_err();
        assert!(failure.text.contains("not available yet"));
    }
}
