//! `tern serve`: from settings to what a node is made of. `control` starts it, and stays until its end.

use crate::admin::{About, Gate, Identity, Plane};
use crate::check::want_of_room;
use crate::config::Settings;
use crate::control::{self, AdminDoor};
use crate::cores::{self, CoreMap};
use crate::data::{DataDirectory, Token, is_made};
use crate::exit::{Ending, Failure};
use crate::log;
use crate::ports;
use crate::resolve::{Host, InForce, failure_of_start};
use crate::signals::Signals;
use nix::unistd::{Pid, gettid};
use std::io;
use std::sync::{Arc, RwLock};
use tern_driver::{NodeConfig, check_machine};
use tracing::{info, warn};

/// Runs the node until it ends.
///
/// # Errors
/// Whatever keeps it from starting.
pub(crate) fn serve(settings: &Settings, huge_pages: io::Result<()>) -> Result<Ending, Failure> {
    let signals = Signals::new().map_err(|error| Failure::start_up(format!("signals: {error}")))?;
    log::start(settings.log)?;
    if let Err(error) = huge_pages {
        warn!(%error, "huge pages could not be kept to large tables: phones may take two to three times the memory");
    }
    let host = Host::here();
    // Nothing is made on disk for a node that could not serve: a directory keeps what it was made with.
    let in_force = InForce::of(settings, &host)?;
    in_force.warnings.iter().for_each(|text| warn!("{text}"));
    let few = check_machine(in_force.shard_count, &in_force.limits);
    if let Some(few) = few.map_err(|error| failure_of_start(&error))? {
        warn!("{few}");
    }
    if !is_made(&settings.data)
        && let Some(failure) = want_of_room(&settings.data, &in_force)
    {
        return Err(failure);
    }
    let access = &settings.admin_access;
    let tls = access.tls.as_ref().map(Identity::read).transpose()?;
    access.token_file.as_deref().map(|file| Token::look(file, &settings.data)).transpose()?;
    let admin = ports::bind_admin(settings.admin);
    // What is there already is opened first: that another node has it says more than that its ports are taken.
    let admin = if is_made(&settings.data) {
        admin
    } else {
        ports::phone_is_free(settings.phone)?;
        Ok(admin?)
    };
    let data = DataDirectory::open(&settings.data, in_force.wanted(settings))?;
    if data.shard_count != in_force.shard_count {
        return Err(Failure::start_up(format!(
            "{} was made a moment ago: start again",
            settings.data.display()
        )));
    }
    let admin = admin?;
    let map = in_force.map;
    // Made under the directory's lock: of two nodes that start at once one makes it.
    let token = access.token_file.as_deref().map(Token::from_file).transpose()?;
    let keys = data.keys;
    let steer = cores::steers(settings.cores.steer, &map, &host.machine, settings.phone);
    let cpus = map.places(&host.machine, steer);
    info!(shards = data.shard_count, on = ?map.shards, control = ?map.control, steer, data = %settings.data.display(), "starting");
    // Shards that are pinned go to their own places, so that the main thread may go to its own first, where the node's
    // helper threads stay with it. Others would stay with it too.
    let helpers = [log::writer(), Some(signals.thread)];
    if !map.shards.is_empty() {
        pin_main(&map, helpers);
    }
    let config = NodeConfig {
        shard_count: data.shard_count,
        thread_count: host.parallelism,
        partition_count: data.partition_count,
        data: settings.data.clone(),
        phone: settings.phone,
        cpus,
        limits: in_force.limits,
        proxies: settings.phone_proxy.iter().copied().collect(),
        server_keys: keys.server,
        previous_server_keys: keys.previous,
        ticket_secret: keys.ticket_secret,
        dedup_key: data.dedup_key,
        open_registration: settings.open_registration,
        segment_bytes: data.segment_bytes,
    };
    let address = admin.local_addr().unwrap_or(settings.admin);
    let about = About {
        shard_count: data.shard_count,
        phone: settings.phone,
        admin: address,
        server_key: keys.server.public,
        data: settings.data.clone(),
        limits: in_force.limits,
    };
    let plane = Arc::new(Plane::new(about, Gate::new(token))?);
    let door =
        AdminDoor { listener: admin, tls: tls.map(|tls| Arc::new(RwLock::new(tls))), access: access.clone() };
    control::run(plane, config, door, signals, || {
        if map.shards.is_empty() {
            pin_main(&map, helpers);
        }
        if let Err(error) = DataDirectory::has_served(&settings.data) {
            warn!(%error, "the data directory does not know that it was served from: a log that is lost is not missed");
        }
    })
}

/// Pins this thread, and with it those that were started before. A refusal is no reason not to serve.
fn pin_main(map: &CoreMap, helpers: [Option<Pid>; 2]) {
    for thread in [Some(gettid())].into_iter().chain(helpers).flatten() {
        if let Err(error) = cores::pin_control(thread, &map.control) {
            warn!(control = ?map.control, %error, "the control thread could not be pinned");
        }
    }
}
