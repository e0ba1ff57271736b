//! `PROMISES.toml`: promises that README makes to its users, each with the tests that prove it. Checked is that README
//! still says it, that it is there once, and that the tests are there and run; not that no promise is missing, nor what
//! a test proves.
//!
//! ```toml
//! [[promise]]
//! text = "words that occur in README.md"
//! tests = ["package::path::test_name"]
//! ```
//! White space and line breaks in `text` and README count as one space. A test's package is a workspace member; each
//! part of the path is a module or a file; the function has `#[test]`, is not ignored, is no comment, and neither it nor
//! its file waits for a `cfg` that `cargo xtask test` never builds with.

use crate::tree::sources;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::HashSet;
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
    /// Without its comments.
    text: String,
}

/// What may stand in a `cfg` of a test or of its file: `cargo xtask test` builds with it on each machine that is tested on.
const KNOWN_CFGS: [&str; 3] = ["test", "feature = \"bugs\"", "target_arch = \"x86_64\""];

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
            all.push(Source { package: package.clone(), path, text: without_comments(&text) });
        }
    }
    Ok(all)
}

fn problems(promises: &str, readme: &str, sources: &[Source]) -> Result<Vec<String>> {
    let Promises { promise } = toml::from_str(promises).context("PROMISES.toml")?;
    let readme = one_space(readme);
    let (mut wrong, mut said) = (Vec::new(), HashSet::new());
    for Promise { text, tests } in &promise {
        let text = one_space(text);
        if !said.insert(text.trim_end_matches('.').to_owned()) {
            wrong.push(format!("{text:?} is there twice"));
        }
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
    let found = sources
        .iter()
        .filter(|source| source.package == package && has_path(source, path))
        .find_map(|source| Some((source, attributes_of(&source.text, &format!("fn {name}("))?)));
    let Some((source, attributes)) = found else { return Some(format!("no test {test}")) };
    let has = |word: &str| attributes.iter().any(|line| line.contains(word));
    if !has("test]") && !has("::test(") {
        Some(format!("{test} is a function without #[test]"))
    } else if has("ignore") {
        Some(format!("{test} is ignored"))
    } else if attributes.iter().any(|line| is_left_out(line)) || is_file_left_out(source, sources) {
        Some(format!("{test} waits for a cfg that no test is built with"))
    } else {
        None
    }
}

/// Lines that are comments become empty, so that nothing in them counts.
fn without_comments(text: &str) -> String {
    let mut is_inside = false;
    let keep = |line: &str| {
        let begins = !is_inside && line.trim_start().starts_with("/*");
        let was_inside = is_inside || begins;
        is_inside = was_inside && !line.contains("*/");
        let is_comment = was_inside || line.trim_start().starts_with("//");
        if is_comment { String::from("//") } else { line.into() }
    };
    text.lines().map(keep).collect::<Vec<_>>().join("\n")
}

/// Whether an attribute asks for something that no test is built with.
fn is_left_out(attribute: &str) -> bool {
    let condition = attribute.split_once("cfg(").and_then(|(_, rest)| rest.rsplit_once(")]"));
    condition.is_some_and(|(condition, _)| !KNOWN_CFGS.contains(&condition))
}

/// Whether a file says so of itself, or whoever names it as a module does. A target's own file nobody has to name.
fn is_file_left_out(source: &Source, sources: &[Source]) -> bool {
    let own = source.text.lines().map(str::trim).filter(|line| line.starts_with("#!["));
    let stem = source.path.file_stem().unwrap_or_default().to_string_lossy();
    let directory = source.path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let module = if stem == "mod" { directory.clone() } else { stem };
    if ["lib", "main"].contains(&&*module) || ["tests", "bin", "examples"].contains(&&*directory) {
        return own.into_iter().any(is_left_out);
    }
    let mut namings = sources
        .iter()
        .filter(|other| other.package == source.package)
        .filter_map(|other| attributes_of(&other.text, &format!("mod {module};")));
    let is_named = namings.any(|attributes| !attributes.into_iter().any(is_left_out));
    own.into_iter().any(is_left_out) || !is_named
}

/// Whether each part is a file, a directory or a module of the file.
fn has_path(source: &Source, parts: &[&str]) -> bool {
    let path = source.path.with_extension("");
    parts
        .iter()
        .all(|part| path.iter().any(|one| one == *part) || source.text.contains(&format!("mod {part} {{")))
}

/// The attribute lines above the line that has `head`, such as `fn name(`.
fn attributes_of<'a>(text: &'a str, head: &str) -> Option<Vec<&'a str>> {
    let inside = format!(" {head}");
    if !text.contains(head) {
        return None;
    }
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| line.starts_with(head) || line.contains(&inside))?;
    let above = lines[..at].iter().rev();
    Some(above.take_while(|line| line.starts_with('#') || line.starts_with("//")).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(promises: &str) -> String {
        let text = "mod tests {\n    /// Why.\n    #[test]\n    fn good() {}\n    fn plain() {}\n    #[test]\n    #[ignore]\n    \
                    fn off() {}\n    // #[test]\n    // fn gone() {}\n    /*\n    #[test]\n    fn away() {}\n    */\n    \
                    #[test]\n    #[cfg(feature = \"bugs\")]\n    fn bug() {}\n    #[cfg(feature = \"never\")]\n    #[test]\n    \
                    fn never() {}\n}";
        let test = "#[test]\nfn other() {}";
        let whole = format!("#![cfg(windows)]\n{test}").replace("other", "foreign");
        let sources = [
            ("a/src/lib.rs", "mod deep;\n// mod forgotten;\n#[cfg(windows)]\nmod elsewhere;\nmod strange;"),
            ("a/src/deep.rs", text),
            ("a/src/forgotten.rs", &test.replace("other", "lonely")),
            ("a/src/elsewhere.rs", test),
            ("a/src/strange.rs", &whole),
            ("a/tests/whole.rs", &test.replace("other", "whole")),
        ]
        .map(|(path, text)| Source {
            package: "tern-a".into(),
            path: path.into(),
            text: without_comments(text),
        });
        problems(promises, "Nothing that\nwas ticked  is lost.", &sources).unwrap().join("; ")
    }

    #[test]
    fn those_of_this_tree_are_kept() {
        check(&crate::tree::root()).unwrap();
    }

    #[test]
    fn a_kept_promise_passes() {
        for test in [
            "tern-a::deep::tests::good",
            "tern_a::deep::good",
            "tern-a::good",
            "tern-a::bug",
            "tern-a::whole::whole",
        ] {
            let promises = format!("[[promise]]\ntext = \"that was\\nticked is lost\"\ntests = [\"{test}\"]");
            assert_eq!(check_text(&promises), "", "{test}");
        }
    }

    #[test]
    fn one_that_is_there_twice_is_told() {
        let promise = |text: &str| format!("[[promise]]\ntext = \"{text}\"\ntests = [\"tern-a::good\"]\n");
        let twice = [promise("ticked is lost."), promise("ticked\\nis lost")].concat();
        assert_eq!(check_text(&twice), "\"ticked is lost\" is there twice");
        assert_eq!(check_text(&[promise("ticked is lost"), promise("is lost")].concat()), "");
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
            ("is lost", "\"tern-a::gone\"", "no test tern-a::gone"),
            ("is lost", "\"tern-a::away\"", "no test tern-a::away"),
            ("is lost", "\"tern-a::never\"", "waits for a cfg"),
            ("is lost", "\"tern-a::lonely\"", "waits for a cfg"),
            ("is lost", "\"tern-a::other\"", "waits for a cfg"),
            ("is lost", "\"tern-a::foreign\"", "waits for a cfg"),
        ] {
            let found = check_text(&format!("[[promise]]\ntext = \"{text}\"\ntests = [{tests}]"));
            assert!(found.contains(problem), "{tests}: {found:?}");
        }
    }
}
