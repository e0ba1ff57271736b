//! The configuration that a node runs with, checked.

use super::file::ConfigFile;
use super::limits::LimitsTable;
use crate::cli::ServeArgs;
use crate::exit::Failure;
use std::net::SocketAddr;
use std::path::PathBuf;
use tern_core::limits::Limits;

/// Most shards of a node: with this many, lanes and threads are still sensible on today's largest machines.
const SHARDS_MAX: u16 = 1024;
/// Bytes of a log segment where nothing else is said.
const SEGMENT_BYTES: u32 = 32 << 20;

/// What a node runs with.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Settings {
    /// Data directory.
    pub(crate) data: PathBuf,
    /// Where phones connect.
    pub(crate) phone: SocketAddr,
    /// Admin endpoint; loopback.
    pub(crate) admin: SocketAddr,
    /// Number of shards, where file or flags say it; otherwise the data directory or the machine decides.
    pub(crate) shards: Option<u16>,
    /// The core map, where the file says it.
    pub(crate) cpus: Option<Vec<usize>>,
    /// Whether phones may register.
    pub(crate) open_registration: bool,
    /// Bytes of a log segment, where the file says it.
    segment_bytes: Option<u32>,
    /// The limits.
    pub(crate) limits: Limits,
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
        let settings = Self {
            data: data.clone(),
            phone: args.phone.or(file.phone).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7322))),
            admin: args.admin.or(file.admin).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7323))),
            shards: args.shards.or(file.shards),
            cpus: file.cpus,
            open_registration: args.open_registration || file.open_registration.unwrap_or(false),
            segment_bytes: file.segment_bytes,
            limits: file.limits.unwrap_or_default().resolve(),
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Failure> {
        let wrong = |key: &str, value: &dyn std::fmt::Display, allowed: &str| {
            Err(Failure::usage(format!("{key} = {value}, allowed: {allowed}")))
        };
        if !self.admin.ip().is_loopback() {
            return wrong("admin", &self.admin, "a loopback address: the endpoint has no authentication yet");
        }
        if let Some(shards) = self.shards
            && !(1..=SHARDS_MAX).contains(&shards)
        {
            return wrong("shards", &shards, "1 to 1024");
        }
        if let (Some(cpus), Some(shards)) = (&self.cpus, self.shards)
            && !cpus.is_empty()
            && cpus.len() != usize::from(shards)
        {
            let given = format!("{cpus:?}");
            return wrong("cpus", &given, "one hardware thread for each shard, or an empty list");
        }
        if let Err(error) = self.limits.validate() {
            let value = LimitsTable::value_of(&self.limits, error.name);
            return wrong(&format!("limits.{}", error.name), &value, error.allowed);
        }
        let least = 2 * self.limits.commit_bytes as u64 + 8192;
        let bytes = self.segment_bytes();
        if u64::from(bytes) < least || bytes > 1 << 30 || !bytes.is_multiple_of(4096) {
            let allowed =
                format!("a multiple of 4096 from 2 x limits.commit_bytes + 8192 = {least} to 1 GiB");
            return wrong("segment_bytes", &bytes, &allowed);
        }
        Ok(())
    }

    /// Bytes of a segment in a new data directory.
    pub(crate) fn segment_bytes(&self) -> u32 {
        self.segment_bytes.unwrap_or(SEGMENT_BYTES)
    }

    /// Bytes of a segment as the file says them; an existing data directory must agree.
    pub(crate) fn segment_bytes_given(&self) -> Option<u32> {
        self.segment_bytes
    }

    /// The whole configuration as a file that means the same.
    pub(crate) fn to_toml(&self) -> String {
        let file = ConfigFile {
            data: Some(vec![self.data.clone()]),
            phone: Some(self.phone),
            admin: Some(self.admin),
            shards: self.shards,
            cpus: self.cpus.clone(),
            open_registration: Some(self.open_registration),
            segment_bytes: Some(self.segment_bytes()),
            limits: Some(LimitsTable::of(&self.limits)),
        };
        toml::to_string(&file).expect("a configuration made of numbers, paths and addresses is TOML")
    }
}

fn default_data() -> Vec<PathBuf> {
    vec![PathBuf::from("./tern-data")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let file = ConfigFile::parse(text).map_err(|error| error.to_string())?;
        Settings::merge(file, &ServeArgs::default()).map_err(|failure| failure.text)
    }

    #[test]
    fn an_empty_file_gives_the_built_in_values() {
        let settings = settings("").unwrap();
        assert_eq!(settings.phone.to_string(), "127.0.0.1:7322");
        assert_eq!(settings.limits, Limits::default());
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
        assert_eq!(settings.shards, Some(3));
    }

    #[test]
    fn what_show_prints_means_the_same() {
        let first =
            settings("shards = 2\ncpus = [0, 1]\n[limits]\nwindow_count = 7\nbody_bytes = 100").unwrap();
        assert_eq!(first.limits.window_count, 7);
        let second = settings(&first.to_toml()).unwrap();
        assert_eq!(Settings { segment_bytes: first.segment_bytes, ..second }, first);
    }

    #[test]
    fn errors_name_key_value_and_what_is_allowed() {
        for (text, parts) in [
            ("[limits]\nwindow_count = 0", &["limits.window_count", "= 0", "1 to 4096"][..]),
            ("[limits]\nwindow = 9", &["window", "window_count"][..]),
            ("shard = 1", &["shard", "shards"][..]),
            ("shards = 0", &["shards", "= 0", "1 to 1024"][..]),
            ("shards = \"two\"", &["shards", "two", "u16"][..]),
            ("admin = \"0.0.0.0:1\"", &["admin", "0.0.0.0:1", "loopback"][..]),
            ("segment_bytes = 4097", &["segment_bytes", "4097", "multiple of 4096"][..]),
            ("data = []", &["data", "[]", "one directory"][..]),
            ("shards = 2\ncpus = [1]", &["cpus", "[1]", "each shard"][..]),
        ] {
            let error = settings(text).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{text:?} gave {error:?}, without {part:?}");
            }
        }
    }

    #[test]
    fn several_drives_are_refused_by_name() {
        let args = ServeArgs { data: vec!["a".into(), "b".into()], ..ServeArgs::default() };
        let failure = Settings::merge(ConfigFile::default(), &args).unwrap_err();
        assert!(failure.text.contains("not available yet"));
    }
}
