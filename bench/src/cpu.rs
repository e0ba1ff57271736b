//! CPU time of a process, from `/proc`.

use anyhow::{Context, Result};

/// Linux counts in `/proc/PID/stat` by 1/100 s, whatever the kernel's own tick.
const TICK_US: u64 = 10_000;

/// User and system time, microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cpu {
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
}

impl Cpu {
    /// Of a process since its start.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        parse(&stat).context("/proc/PID/stat has another form")
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user_us: self.user_us - before.user_us, system_us: self.system_us - before.system_us }
    }
}

/// Fields 14 and 15 (proc_pid_stat(5)); the second one is a name in parentheses that may hold anything.
fn parse(stat: &str) -> Option<Cpu> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next_us = || fields.next()?.parse::<u64>().ok().map(|ticks| ticks * TICK_US);
    Some(Cpu { user_us: next_us()?, system_us: next_us()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_is_skipped() {
        let stat = "12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14";
        assert_eq!(parse(stat), Some(Cpu { user_us: 110_000, system_us: 120_000 }));
        assert!(Cpu::of(std::process::id()).is_ok());
    }
}
