//! The documentation that the package installs: whatever file it sends its reader to is installed, too.

use super::DOCUMENTATION;
use crate::tree::{root as tree, run};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Unpacks the package and follows the links of its documents.
pub(super) fn check(package: &Path) -> Result<()> {
    let unpacked = tempfile::tempdir().context("a temporary directory")?;
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(unpacked.path()))?;
    let dead = dead_links(&unpacked.path().join(&DOCUMENTATION[1..]), &tree())?;
    if dead.is_empty() { Ok(()) } else { bail!("the package has no file for {}", dead.join(", ")) }
}

/// Links of all documents below `documents` to files that are not there: each as `document: link`. They lie as in the
/// sources; a link to a directory of these that holds a crate is meant for who has them.
fn dead_links(documents: &Path, sources: &Path) -> Result<Vec<String>> {
    let mut dead = Vec::new();
    let all = documents_below(documents)?;
    if all.is_empty() {
        bail!("no document in {}", documents.display());
    }
    for document in all {
        let text = fs::read_to_string(&document).with_context(|| document.display().to_string())?;
        let name = document.strip_prefix(documents)?;
        for link in links(&text) {
            let target = tidy(&name.parent().context("a document's directory")?.join(link));
            if !documents.join(&target).exists() && !sources.join(&target).join("Cargo.toml").exists() {
                dead.push(format!("{}: {link}", name.display()));
            }
        }
    }
    dead.sort();
    Ok(dead)
}

fn documents_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(documents_below(&path)?);
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Where a Markdown text links to in its own tree, without the place in the file.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let files = targets.map(|(target, _)| target.split('#').next().unwrap_or_default());
    files.filter(|file| !file.is_empty() && !file.contains(':'))
}

/// Without `.` and `..`, as far as that is possible.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if tidied.pop() => {}
            part => tidied.push(part),
        }
    }
    tidied
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Manifest {
        package: Package,
    }

    #[derive(Deserialize)]
    struct Package {
        metadata: Metadata,
    }

    #[derive(Deserialize)]
    struct Metadata {
        deb: Deb,
    }

    #[derive(Deserialize)]
    struct Deb {
        assets: Vec<[String; 3]>,
    }

    /// Lays out what the manifest says about documentation, as `cargo deb` does.
    fn lay_out(place: &Path) {
        let home = tree().join("engine/server");
        let text = fs::read_to_string(home.join("Cargo.toml")).unwrap();
        let manifest: Manifest = toml::from_str(&text).unwrap();
        for [source, target, _] in manifest.package.metadata.deb.assets {
            let Some(target) = format!("/{target}").strip_prefix(DOCUMENTATION).map(|rest| place.join(rest))
            else {
                continue;
            };
            fs::create_dir_all(&target).unwrap();
            let source = home.join(source);
            let (directory, name) = (source.parent().unwrap(), source.file_name().unwrap().to_str().unwrap());
            let end = name.strip_prefix('*');
            for file in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
                let found = file.file_name().unwrap().to_str().unwrap();
                if end.map_or(found == name, |end| found.ends_with(end)) {
                    fs::copy(&file, target.join(found)).unwrap();
                }
            }
        }
    }

    #[test]
    fn what_the_installed_documents_link_to_is_installed() {
        let place = tempfile::tempdir().unwrap();
        lay_out(place.path());
        assert_eq!(dead_links(place.path(), &tree()).unwrap(), [""; 0]);
        // README and the alerts' file name these without a link.
        for named in ["deploy/grafana/tern.json", "deploy/prometheus/tern.rules.yml", "deploy/seccomp.json"] {
            assert!(place.path().join(named).exists(), "{named}");
        }
    }

    #[test]
    fn a_dead_link_is_told_and_a_crate_is_for_who_has_the_sources() {
        let (place, sources) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(dead_links(place.path(), sources.path()).is_err(), "no document is no success");
        fs::create_dir_all(place.path().join("deploy")).unwrap();
        fs::create_dir_all(sources.path().join("core")).unwrap();
        fs::write(sources.path().join("core/Cargo.toml"), "").unwrap();
        let top = "[a](deploy/more.md#part) [b](#part) [c](https://example.org/x) [d](core/) [e](gone.toml)";
        fs::write(place.path().join("README.md"), top).unwrap();
        fs::write(place.path().join("deploy/more.md"), "[f](../README.md) [g](./more.md) [h](../gone/)")
            .unwrap();
        let dead = dead_links(place.path(), sources.path()).unwrap();
        assert_eq!(dead, ["README.md: gone.toml", "deploy/more.md: ../gone/"]);
    }
}
