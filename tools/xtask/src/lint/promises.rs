//! `PROMISES.toml`: promises that README makes to its users, each with the tests that prove it. Checked is that README
//! still says it and that the tests are there and run; not that no promise is missing, nor what a test proves.
//!
//! ```toml
//! [[promise]]
//! text = "words that occur in README.md"
//! tests = ["package::path::test_name"]
//! ```
//! White space and line breaks in `text` and README count as one space. A test's package is a workspace member; each
//! part of the path is a module or a file; the function has `#[test]` and is not ignored.

use crate::tree::sources;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promises {
    promise: Vec<Promise>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promise {
    text: String,
    tests: Vec<String>,
}

/// One source file of a package.
struct Source {
    package: String,
    path: PathBuf,
    text: String,
}

/// Checks the whole file; tells everything that is wrong.
pub(super) fn check(root: &Path) -> Result<()> {
    let promises = read_to_string(root.join("PROMISES.toml")).context("PROMISES.toml")?;
    let readme = read_to_string(root.join("README.md")).context("README.md")?;
    let wrong = problems(&promises, &readme, &read_sources(root)?)?;
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

fn read_sources(root: &Path) -> Result<Vec<Source>> {
    #[derive(Deserialize)]
    struct Manifest {
        package: Option<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
    }
    let mut packages: Vec<(PathBuf, String)> = Vec::new();
    for path in sources("Cargo.toml")? {
        let text = read_to_string(root.join(&path)).with_context(|| path.display().to_string())?;
        let manifest: Manifest = toml::from_str(&text).with_context(|| path.display().to_string())?;
        if let (Some(package), Some(directory)) = (manifest.package, path.parent()) {
            packages.push((directory.to_path_buf(), package.name));
        }
    }
    let mut all = Vec::new();
    for path in sources(".rs")? {
        let home = packages.iter().find(|(directory, _)| path.starts_with(directory));
        if let (Some((_, package)), Ok(text)) = (home, read_to_string(root.join(&path))) {
            all.push(Source { package: package.clone(), path, text });
        }
    }
    Ok(all)
}

fn problems(promises: &str, readme: &str, sources: &[Source]) -> Result<Vec<String>> {
    let Promises { promise } = toml::from_str(promises).context("PROMISES.toml")?;
    let readme = one_space(readme);
    let mut wrong = Vec::new();
    for Promise { text, tests } in &promise {
        let text = one_space(text);
        if text.is_empty() || !readme.contains(&text) {
            wrong.push(format!("README.md does not say {text:?}"));
        }
        if tests.is_empty() {
            wrong.push(format!("no test proves {text:?}"));
        }
        wrong.extend(tests.iter().filter_map(|test| problem_of(test, sources)));
    }
    Ok(wrong)
}

fn one_space(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn problem_of(test: &str, sources: &[Source]) -> Option<String> {
    let parts: Vec<&str> = test.split("::").collect();
    let [package, path @ .., name] = parts.as_slice() else {
        return Some(format!("{test:?} is no package::path::test"));
    };
    let package = package.replace('_', "-");
    let attributes = sources
        .iter()
        .filter(|source| source.package == package && has_path(source, path))
        .find_map(|source| attributes_of(&source.text, name));
    match attributes {
        None => Some(format!("no test {test}")),
        Some(list) if !list.iter().any(|line| line.contains("test]")) => {
            Some(format!("{test} is a function without #[test]"))
        }
        Some(list) if list.iter().any(|line| line.contains("ignore")) => Some(format!("{test} is ignored")),
        Some(_) => None,
    }
}

/// Whether each part is a file, a directory or a module of the file.
fn has_path(source: &Source, parts: &[&str]) -> bool {
    let path = source.path.with_extension("");
    parts.iter().all(|part| {
        path.iter().any(|one| one == *part)
            || source.text.lines().any(|line| line.trim_start().contains(&format!("mod {part} {{")))
    })
}

/// The attribute lines above `fn name(`.
fn attributes_of<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    let at = lines.iter().position(|line| line.starts_with(&head) || line.contains(&format!(" {head}")))?;
    let above = lines[..at].iter().rev();
    Some(above.take_while(|line| line.starts_with('#') || line.starts_with("//")).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(promises: &str) -> String {
        let text = "mod tests {\n    /// Why.\n    #[test]\n    fn good() {}\n    fn plain() {}\n    #[test]\n    #[ignore]\n    \
                    fn off() {}\n}";
        let sources = [Source { package: "tern-a".into(), path: "a/src/deep.rs".into(), text: text.into() }];
        problems(promises, "Nothing that\nwas ticked  is lost.", &sources).unwrap().join("; ")
    }

    #[test]
    fn a_kept_promise_passes() {
        for test in ["tern-a::deep::tests::good", "tern_a::deep::good", "tern-a::good"] {
            let promises = format!("[[promise]]\ntext = \"that was\\nticked is lost\"\ntests = [\"{test}\"]");
            assert_eq!(check_text(&promises), "", "{test}");
        }
    }

    #[test]
    fn a_broken_one_is_told() {
        for (text, tests, problem) in [
            ("something else", "\"tern-a::good\"", "README.md does not say"),
            ("is lost", "", "no test proves"),
            ("is lost", "\"tern-a::none\"", "no test tern-a::none"),
            ("is lost", "\"tern-b::good\"", "no test tern-b::good"),
            ("is lost", "\"tern-a::shallow::good\"", "no test"),
            ("is lost", "\"tern-a::plain\"", "without #[test]"),
            ("is lost", "\"tern-a::off\"", "is ignored"),
        ] {
            let found = check_text(&format!("[[promise]]\ntext = \"{text}\"\ntests = [{tests}]"));
            assert!(found.contains(problem), "{tests}: {found:?}");
        }
    }
}
