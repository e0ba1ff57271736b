//! The `[cores]` table: what the file says of the core map. What the machine says is another matter: `crate::cores`.

use crate::cores::{format_list, parse_list};
use crate::exit::Failure;
use serde::{Deserialize, Serialize};

/// `[cores]` of the file.
#[derive(Clone, Default, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CoresTable {
    /// Hardware threads of the shards: `auto`, `none`, or numbers and ranges, one thread for each shard in this order.
    shards: Option<String>,
    /// Hardware threads of the control thread, likewise.
    control: Option<String>,
    /// Whether listeners take the connections that arrive at their shard's thread; not said: where that is even.
    steer: Option<bool>,
}

/// Hardware threads as they are configured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Threads {
    /// Whatever suits the machine.
    #[default]
    Auto,
    /// No pinning.
    Nowhere,
    /// These, in order; never empty, none twice.
    These(Vec<usize>),
}

/// `[cores]`, checked as far as it can be without looking at the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct CoresSettings {
    /// Threads of the shards.
    pub(crate) shards: Threads,
    /// Threads of the control thread.
    pub(crate) control: Threads,
    /// Whether listeners are steered; none: where packets reach every shard's thread.
    pub(crate) steer: Option<bool>,
}

impl Threads {
    /// The threads that are named one by one.
    pub(crate) fn named(&self) -> &[usize] {
        match self {
            Self::These(list) => list,
            Self::Auto | Self::Nowhere => &[],
        }
    }

    fn parse(key: &str, text: Option<&str>) -> Result<Self, Failure> {
        let text = text.unwrap_or("auto");
        match text.trim() {
            "auto" => return Ok(Self::Auto),
            "none" => return Ok(Self::Nowhere),
            _ => {}
        }
        let Some(list) = parse_list(text).filter(|list| !list.is_empty()) else {
            return Err(Failure::usage(format!(
                "cores.{key} = {text:?}, allowed: \"auto\", \"none\", or hardware threads from 0 to 1023 such as \
                 \"1-19,21-39\""
            )));
        };
        let mut seen = list.clone();
        seen.sort_unstable();
        if let Some(twice) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
            let thread = twice[0];
            return Err(Failure::usage(format!(
                "cores.{key} = {text:?}: hardware thread {thread} is named twice, allowed: each thread once"
            )));
        }
        Ok(Self::These(list))
    }

    fn to_text(&self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::Nowhere => "none".into(),
            Self::These(list) => format_list(list),
        }
    }
}

impl CoresTable {
    /// Checks the table.
    ///
    /// # Errors
    /// A text that is no list of threads, a thread that is named twice, or both as a shard's and as the control thread's.
    pub(super) fn resolve(&self) -> Result<CoresSettings, Failure> {
        let shards = Threads::parse("shards", self.shards.as_deref())?;
        let control = Threads::parse("control", self.control.as_deref())?;
        if let Some(both) = control.named().iter().find(|thread| shards.named().contains(thread)) {
            let text = control.to_text();
            return Err(Failure::usage(format!(
                "cores.control = \"{text}\": hardware thread {both} is in cores.shards too, allowed: threads that no \
                 shard has"
            )));
        }
        Ok(CoresSettings { shards, control, steer: self.steer })
    }

    /// A table that means the same.
    pub(super) fn of(cores: &CoresSettings) -> Self {
        Self {
            shards: Some(cores.shards.to_text()),
            control: Some(cores.control.to_text()),
            steer: cores.steer,
        }
    }
}
