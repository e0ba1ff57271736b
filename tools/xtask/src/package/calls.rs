//! The system calls that the server makes, against what the shipped filters allow.

use super::unit::Unit;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::Path;

/// A container runtime's profile, as far as it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    names: Vec<String>,
    action: String,
}

/// Fails if a call in strace's list is not allowed by the profile or by the unit.
pub(super) fn are_allowed(list: &str, profile: &Path, unit: &Unit) -> Result<()> {
    let made = made(list);
    if !made.contains("io_uring_enter") {
        bail!("strace saw no io_uring: its list is of something else");
    }
    let text = read_to_string(profile).with_context(|| profile.display().to_string())?;
    check("the seccomp profile", &made, &allowed_by_profile(&text)?)?;
    if let Some(allowed) = unit.allowed_calls()? {
        check("the systemd unit", &made, &allowed)?;
    }
    println!("package: {} kinds of system calls, all allowed by the shipped filters", made.len());
    Ok(())
}

fn check(whose: &str, made: &BTreeSet<String>, allowed: &BTreeSet<String>) -> Result<()> {
    // clone3 is refused on purpose, with the error that makes the C library use clone; the unit knows no such exception.
    let missing: Vec<&String> =
        made.iter().filter(|name| !allowed.contains(*name) && *name != "clone3").collect();
    if missing.is_empty() { Ok(()) } else { bail!("{whose} forbids {missing:?}, which the server uses") }
}

/// The names of the calls after the server was started.
fn made(list: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in list.lines() {
        let call = line.trim_start_matches(|letter: char| letter.is_ascii_digit()).trim_start();
        if call.starts_with("execve(") && call.contains("/usr/bin/tern\"") {
            // Before it there were only the preparations.
            names.clear();
        }
        let call = call.strip_prefix("<... ").unwrap_or(call);
        let name: String =
            call.chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect();
        if !name.is_empty() {
            names.insert(name);
        }
    }
    names
}

fn allowed_by_profile(text: &str) -> Result<BTreeSet<String>> {
    let profile: Profile = serde_json::from_str(text).context("the seccomp profile")?;
    if profile.default_action != "SCMP_ACT_ERRNO" {
        bail!("the seccomp profile allows what it does not name");
    }
    let allows = profile.syscalls.into_iter().filter(|rule| rule.action == "SCMP_ACT_ALLOW");
    Ok(allows.flat_map(|rule| rule.names).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::root;

    fn shipped() -> BTreeSet<String> {
        allowed_by_profile(&read_to_string(root().join("deploy/seccomp.json")).unwrap()).unwrap()
    }

    #[test]
    fn the_profile_has_what_tern_needs_and_not_what_it_should_not() {
        let allowed = shipped();
        for name in
            ["io_uring_setup", "io_uring_enter", "io_uring_register", "set_mempolicy", "clone", "socket"]
        {
            assert!(allowed.contains(name), "{name}");
        }
        for name in ["mount", "ptrace", "bpf", "unshare", "setns", "clone3", "init_module", "keyctl"] {
            assert!(!allowed.contains(name), "{name}");
        }
        assert!(allowed_by_profile("{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": []}").is_err());
    }

    #[test]
    fn calls_are_read_from_strace() {
        let list = "7 mount(\"x\") = 0\n7 execve(\"/usr/bin/tern\", [\"tern\"]) = 0\n7 read(3 <unfinished ...>\n8 \
                    futex(0x1, 2) = 0\n7 <... read resumed>) = 1\n7 clone3({flags=1}) = 9\n7 +++ exited with 0 +++\n";
        let made = made(list);
        assert_eq!(made.iter().collect::<Vec<_>>(), ["clone3", "execve", "futex", "read"]);
        assert!(check("it", &made, &shipped()).is_ok());
        let forbidden: BTreeSet<String> = ["mount".to_string()].into();
        let told = check("it", &forbidden, &shipped()).unwrap_err().to_string();
        assert!(told.contains("it forbids [\"mount\"]"), "{told}");
    }
}
