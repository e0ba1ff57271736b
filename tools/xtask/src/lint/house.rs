//! Rules of the house that are visible in the text of the sources.

use crate::tree::sources;
use anyhow::{Result, bail};
use std::fs::read_to_string;
use std::path::Path;

/// The one crate that may.
const RING: &str = "engine/ring/";

/// No unsafe code, and no leave for it, outside `engine/ring`.
pub(super) fn unsafe_only_in_ring(root: &Path) -> Result<()> {
    each_line(root, |path, line| (!path.starts_with(RING) && is_unsafe(line)).then_some("unsafe code"))
}

/// No test is switched off.
pub(super) fn nothing_ignored(root: &Path) -> Result<()> {
    each_line(root, |_, line| is_ignored(line).then_some("an ignored test"))
}

fn each_line(root: &Path, find: impl Fn(&Path, &str) -> Option<&'static str>) -> Result<()> {
    let mut found = Vec::new();
    for path in sources(".rs")? {
        // A file that git knows may be gone from the work tree.
        let Ok(text) = read_to_string(root.join(&path)) else { continue };
        for (index, line) in text.lines().enumerate() {
            if let Some(what) = find(&path, line) {
                found.push(format!("{}:{}: {what}", path.display(), index + 1));
            }
        }
    }
    if found.is_empty() { Ok(()) } else { bail!("{}", found.join("\n")) }
}

/// Looks at code, not at comments; the word alone, as in a text, is nothing.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let follows = |word: &str, next: &[&str]| {
        code.match_indices(word).any(|(at, _)| {
            let rest = code[at + word.len()..].trim_start();
            next.iter().any(|start| rest.starts_with(start))
        })
    };
    let gives_leave = ["allow(", "expect(", "warn("].iter().any(|word| code.contains(word));
    follows("unsafe", &["{", "fn ", "impl", "extern", "trait"]) || gives_leave && code.contains("unsafe_code")
}

fn is_ignored(line: &str) -> bool {
    let code = line.trim_start();
    // Also behind another attribute of the same line.
    code.starts_with('#') && code.contains(concat!("#[", "ignore"))
        || (code.starts_with("#[cfg_attr") && code.contains(", ignore"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_code_from_text() {
        let word = "unsafe";
        for code in [
            format!("let x = {word} {{ y }};"),
            format!("pub {word} fn f()"),
            format!("#![allow({word}_code)]"),
            format!("#[expect(dead_code, {word}_code)]"),
            format!("{word} impl Send for X {{}}"),
        ] {
            assert!(is_unsafe(&code), "{code}");
        }
        for text in
            [format!("// {word} {{ is for ring"), format!("say(\"{word}\")"), format!("{word}_code = 1")]
        {
            assert!(!is_unsafe(&text), "{text}");
        }
        assert!(is_ignored(concat!("    #[", "ignore = \"slow\"]")));
        assert!(is_ignored(concat!("#[test] #[", "ignore]")));
        assert!(is_ignored("#[cfg_attr(miri, ignore)]"));
        assert!(!is_ignored("let ignored = 1;"));
    }
}
