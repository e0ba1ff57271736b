//! What could not be tried here, and why.

use anyhow::{Result, bail};
use std::cell::RefCell;

/// A part that was left out.
struct Skip {
    part: &'static str,
    why: String,
    /// For want of a program, which may be installed; otherwise this system forbids it.
    is_for_want: bool,
}

/// All of them. Each is also said when it is noted.
#[derive(Default)]
pub(super) struct Skips(RefCell<Vec<Skip>>);

impl Skips {
    /// A program is not here.
    pub(super) fn for_want(&self, part: &'static str, why: impl Into<String>) {
        self.note(Skip { part, why: why.into(), is_for_want: true });
    }

    /// This system does not let it be tried.
    pub(super) fn forbidden(&self, part: &'static str, why: impl Into<String>) {
        self.note(Skip { part, why: why.into(), is_for_want: false });
    }

    fn note(&self, skip: Skip) {
        println!("package: {}: SKIPPED, {}", skip.part, skip.why);
        self.0.borrow_mut().push(skip);
    }

    /// For the last line: what was skipped is no success.
    ///
    /// # Errors
    /// Nothing may be left out for want of a program, and something was.
    pub(super) fn summary(&self, is_strict: bool) -> Result<String> {
        let skips = self.0.borrow();
        let want: Vec<String> = skips
            .iter()
            .filter(|skip| is_strict && skip.is_for_want)
            .map(|skip| format!("{} ({})", skip.part, skip.why))
            .collect();
        if !want.is_empty() {
            bail!("--strict, and these were not tried: {}", want.join(", "));
        }
        let parts: Vec<&str> = skips.iter().map(|skip| skip.part).collect();
        Ok(if parts.is_empty() { String::new() } else { format!(", SKIPPED: {}", parts.join(", ")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_skipped_is_told_and_want_of_a_program_is_strictly_a_failure() {
        let skips = Skips::default();
        assert_eq!(skips.summary(true).unwrap(), "");
        skips.forbidden("a live systemd", "it needs root");
        assert_eq!(skips.summary(true).unwrap(), ", SKIPPED: a live systemd");
        skips.for_want("the image", "podman is not here");
        assert_eq!(skips.summary(false).unwrap(), ", SKIPPED: a live systemd, the image");
        let error = skips.summary(true).unwrap_err().to_string();
        assert!(error.contains("the image (podman is not here)") && !error.contains("root"), "{error}");
    }
}
