//! `tern config check`: everything that would keep `serve` from serving here, found without making or changing anything.

use crate::admin::Identity;
use crate::config::Settings;
use crate::data::{self, Token};
use crate::exit::Failure;
use crate::ports;
use crate::resolve::{Host, InForce, failure_of_start};
use nix::sys::statvfs::statvfs;
use std::path::Path;
use tern_driver::check_machine;

/// Where systemd gives a service the files of `LoadCredential=`, while it runs.
const CREDENTIALS: &str = "/run/credentials/";

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What `serve` would refuse.
    pub(crate) wrong: Vec<Failure>,
    /// What it would go on with, and what could not be looked at.
    pub(crate) warnings: Vec<String>,
}

impl Found {
    /// All that can be found.
    pub(crate) fn of(settings: &Settings) -> Self {
        let mut found = Self::default();
        match InForce::of(settings, &Host::here()) {
            Ok(in_force) => {
                found.wrong.extend(want_of_room(&settings.data, &in_force));
                found.warnings.extend(in_force.warnings);
                match check_machine(in_force.shard_count, &in_force.limits) {
                    Ok(few) => found.warnings.extend(few.map(|few| few.to_string())),
                    Err(error) => found.wrong.push(failure_of_start(&error)),
                }
            }
            Err(failure) => found.wrong.push(failure),
        }
        found.note(data::look(&settings.data));
        found.look_at_access(settings);
        if data::in_use(&settings.data) {
            // Then its ports are taken as well, by the node that is meant.
            let data = settings.data.display();
            found
                .warnings
                .push(format!("a node is running on {data}: whether the ports are free was not tried"));
        } else {
            found.note(ports::phone_is_free(settings.phone));
            found.note(ports::bind_admin(settings.admin).map(drop));
        }
        found
    }

    fn note(&mut self, result: Result<(), Failure>) {
        self.wrong.extend(result.err());
    }

    fn look_at_access(&mut self, settings: &Settings) {
        let access = &settings.admin_access;
        if let Some(tls) = &access.tls {
            let later = [&tls.cert, &tls.key].map(|file| comes_later(file));
            if later == [false; 2] {
                self.note(Identity::read(tls).map(drop));
            } else {
                self.warnings.push(format!(
                    "admin.tls_cert = {}: systemd puts it there when it starts the service; not looked at",
                    tls.cert.display()
                ));
            }
        }
        let Some(file) = &access.token_file else { return };
        let is_nowhere = file.parent().is_some_and(|place| !place.as_os_str().is_empty() && !place.exists());
        match Token::look(file, &settings.data) {
            Err(_) if is_nowhere => self.warnings.push(format!(
                "admin.token_file = {}: its directory is not there; systemd makes those of StateDirectory= when it \
                 starts the service, and nobody else does",
                file.display()
            )),
            looked => self.note(looked.map(drop)),
        }
    }
}

/// That the drive has no room for the files that the shards' logs begin with.
pub(crate) fn want_of_room(data: &Path, in_force: &InForce) -> Option<Failure> {
    let file_count = data::shards_without_log(data, in_force.shard_count);
    let need_bytes = (file_count as u64).saturating_mul(u64::from(in_force.segment_bytes));
    // The nearest that is there: the rest would be made in it.
    let places =
        data.ancestors().map(|place| if place.as_os_str().is_empty() { Path::new(".") } else { place });
    let is_there = |place: &&Path| place.try_exists().unwrap_or(true);
    // Some file systems do not know how large they are.
    let stat = statvfs(places.into_iter().find(is_there)?).ok().filter(|stat| stat.blocks() > 0)?;
    let free_bytes = stat.blocks_available().saturating_mul(stat.fragment_size());
    (free_bytes < need_bytes).then(|| {
        Failure::start_up(format!(
            "data directory {}: its drive has {} MiB free, and the logs of {file_count} shards begin with {} MiB: make \
             room, or take another drive, fewer shards, or a lower segment_bytes",
            data.display(),
            free_bytes >> 20,
            need_bytes >> 20
        ))
    })
}

fn comes_later(file: &Path) -> bool {
    file.starts_with(CREDENTIALS) && !file.exists()
}
