//! The container image: made of the package's files and the libraries that they load, with no other image below it, so
//! that nothing has to be fetched; then taken apart and served from.

use super::container;
use super::root::Root;
use super::serving::Serving;
use super::skips::Skips;
use crate::tree::{binary, output_of, root as tree, run, works};
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What of the package goes into the image: no unit, no documentation, no generator.
const FILES: [&str; 3] = ["/usr/bin/tern", "/usr/bin/tern-ctl", "/etc/tern/tern.toml"];
/// Whom the image runs as; has no name anywhere else.
const USER: &str = "7322:7322";
/// Its name.
pub(super) const TAG: &str = "localhost/tern:latest";

/// Makes the image beside the package and tries it. Where there is no podman, that is said.
pub(super) fn image(package: &Path, skips: &Skips) -> Result<()> {
    if !works(Command::new("podman").arg("--version")) {
        skips.for_want("the image", "podman is not here (Debian package podman)");
        return Ok(());
    }
    let context = package.with_file_name("image");
    assemble(package, &context)?;
    let store = Store::new()?;
    let file = tree().join("deploy/Containerfile");
    let mut build = store.podman(&["build", "--quiet", "--format", "docker", "--isolation", "chroot"]);
    run(build.args(["--tag", TAG, "--file"]).args([&file, &context]))?;
    check_settings(&store)?;
    serve_from(&store)?;
    container::under_runtime(&store, skips)?;
    let archive = package.with_file_name("tern-image.tar");
    if archive.exists() {
        fs::remove_file(&archive)?;
    }
    run(store.podman(&["save", "--quiet", "--output"]).arg(&archive).arg(TAG))?;
    println!("package: image built and served from: {}", archive.display());
    Ok(())
}

/// Lays out what the Containerfile copies: `root/`, which belongs to root, and `data/`.
fn assemble(package: &Path, context: &Path) -> Result<()> {
    if context.exists() {
        fs::remove_dir_all(context)?;
    }
    let (root, data) = (context.join("root"), context.join("data"));
    for directory in [&root.join("var/lib"), &root.join("etc"), &data] {
        fs::create_dir_all(directory)?;
    }
    let unpacked = tempfile::tempdir().context("a temporary directory")?;
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(unpacked.path()))?;
    for file in FILES {
        copy(&unpacked.path().join(&file[1..]), &root, file)?;
    }
    for program in ["usr/bin/tern", "usr/bin/tern-ctl"] {
        bring_libraries(&unpacked.path().join(program), &root)?;
    }
    fs::write(root.join("etc/passwd"), "tern:x:7322:7322::/var/lib/tern:/\n")?;
    fs::write(root.join("etc/group"), "tern:x:7322:\n")?;
    Ok(())
}

fn copy(from: &Path, root: &Path, name: &str) -> Result<()> {
    let to = root.join(name.trim_start_matches('/'));
    if to.exists() {
        // A library that two programs share. One that a running server has mapped must not be written over.
        return Ok(());
    }
    fs::create_dir_all(to.parent().context("a file's directory")?)?;
    fs::copy(from, &to).with_context(|| from.display().to_string())?;
    Ok(())
}

/// Copies the shared libraries that a program loads, and the loader, as this system has them.
fn bring_libraries(program: &Path, root: &Path) -> Result<()> {
    let list = output_of(Command::new("ldd").arg(program))?;
    if paths(&list).next().is_none() {
        bail!("ldd names no library of {}: {list:?}", program.display());
    }
    paths(&list).try_for_each(|library| copy(Path::new(library), root, library))
}

/// `libc.so.6 => /lib/libc.so.6 (0x1)`, or the loader's path alone; the kernel's own has none.
fn paths(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

/// Images of this run only: the user's own stay what they are.
pub(super) struct Store {
    directory: tempfile::TempDir,
}

impl Store {
    fn new() -> Result<Self> {
        Ok(Self { directory: tempfile::tempdir().context("a temporary directory")? })
    }

    /// A call of podman on them.
    pub(super) fn podman(&self, words: &[&str]) -> Command {
        let at = self.directory.path();
        let mut command = Command::new("podman");
        command.args(["--storage-driver", "vfs", "--root"]).arg(at.join("images"));
        command.arg("--runroot").arg(at.join("run")).args(words);
        command
    }
}

/// What a runtime reads of the image.
fn check_settings(store: &Store) -> Result<()> {
    let format = "{{.Config.User}} {{.Config.Entrypoint}} {{.Config.Cmd}} {{.Config.StopSignal}} \
                  {{.Config.Volumes}} {{.Config.ExposedPorts}}";
    let said = output_of(&mut store.podman(&["inspect", "--format", format, TAG]))?;
    let expected = format!(
        "{USER} [/usr/bin/tern] [serve --config /etc/tern/tern.toml] SIGTERM map[/var/lib/tern:{{}} /var/lib/tern-admin:{{}}] map[7322/tcp:{{}}]"
    );
    if said.trim() == expected { Ok(()) } else { bail!("the image says {said:?}, not {expected:?}") }
}

/// Takes the image's files out and serves from them: what is not in the image is not there.
fn serve_from(store: &Store) -> Result<()> {
    let place = tempfile::tempdir().context("a temporary directory")?;
    let archive = store.directory.path().join("files.tar");
    // It has no health check then, for which podman would want a systemd.
    let container = output_of(&mut store.podman(&["create", "--no-healthcheck", TAG]))?;
    run(store.podman(&["export", "--output"]).arg(&archive).arg(container.trim()))?;
    let list = output_of(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&archive))?;
    let owner = |name: &str| {
        let line = list.lines().find(|line| line.ends_with(&format!(" {name}")));
        line.and_then(|line| line.split_whitespace().nth(1)).map(String::from)
    };
    let owners = ["var/lib/", "var/lib/tern/", "usr/bin/tern"].map(owner);
    let expected = ["0/0", "7322/7322", "0/0"].map(|owner| Some(owner.to_string()));
    if owners != expected {
        bail!("the image's files belong to {owners:?}, not {expected:?}");
    }
    run(Command::new("tar").args(["--no-same-owner", "-xf"]).arg(&archive).arg("-C").arg(place.path()))?;
    let data = place.path().join("var/lib/tern");
    // Whoever runs this is not the image's user.
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
    let root = Root::of(place)?;
    let command = ["/usr/bin/tern", "serve", "--config", "/etc/tern/tern.toml"].map(String::from);
    let serving = Serving::start(&root, &command)?;
    serving.is_healthy()?;
    // The generator is no part of the image: it comes in when the server is up, with what it needs itself.
    let (generator, inside) = (binary("tern-load"), root.inside("/"));
    copy(&generator, &inside, "/usr/bin/tern-load")?;
    bring_libraries(&generator, &inside)?;
    serving.carries_messages()?;
    serving.has_accounts()?;
    serving.stop().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let list =
            "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld.so.2 (0x7f)\n";
        assert_eq!(paths(list).collect::<Vec<_>>(), ["/lib/x/libc.so.6", "/lib64/ld.so.2"]);
        assert_eq!(paths("\tnot a dynamic executable\n").count(), 0);
    }

    #[test]
    fn the_image_has_nothing_below_it() {
        let text = fs::read_to_string(tree().join("deploy/Containerfile")).unwrap();
        let from: Vec<&str> = text.lines().filter(|line| line.starts_with("FROM")).collect();
        assert_eq!(from, ["FROM scratch"]);
        assert!(!text.lines().any(|line| line.starts_with("RUN")), "there is no shell to run anything");
        assert!(text.contains(&format!("USER {USER}")));
    }

    #[test]
    fn a_recovery_has_its_time_before_a_container_counts_as_unhealthy() {
        let text = fs::read_to_string(tree().join("deploy/Containerfile")).unwrap();
        let check = text.lines().find(|line| line.starts_with("HEALTHCHECK")).unwrap();
        assert!(check.split(' ').any(|word| word == "--start-period=1h"), "{check}");
    }
}
