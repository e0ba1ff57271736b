//! `tern serve`: from settings to what a node is made of. `control` starts it, and stays until its end.

use crate::admin::{self, About, Gate, Plane};
use crate::config::{SHARDS_MAX, Settings};
use crate::control::{self, AdminDoor};
use crate::cores::{self, CoreMap, Machine};
use crate::data::{DataDirectory, Token, Wanted, is_made, shard_count_of};
use crate::exit::{Ending, Failure};
use crate::log;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, RwLock};
use std::thread::available_parallelism;
use tern_driver::{FatalError, NodeConfig, StartError};
use tracing::{info, warn};

/// Runs the node until it ends.
///
/// # Errors
/// Whatever keeps it from starting.
pub(crate) fn serve(settings: &Settings, huge_pages: io::Result<()>) -> Result<Ending, Failure> {
    log::start(settings.log)?;
    if let Err(error) = huge_pages {
        warn!(%error, "huge pages could not be kept to large tables: phones may take two to three times the memory");
    }
    let machine = cores::here();
    // Before anything is made on disk for a map that this machine cannot have.
    cores::check(settings)?;
    // What the process may use, counted before any of its threads is pinned: a pinned one counts only its own.
    let thread_count = available_parallelism().map_or(1, std::num::NonZero::get);
    let access = &settings.admin_access;
    let tls = access.tls.as_ref().map(admin::acceptor).transpose()?;
    let admin = TcpListener::bind(settings.admin)
        .map_err(|error| Failure::start_up(format!("admin = {}: {error}", settings.admin)));
    // Nothing is made on disk for a node that could not serve. What is there already is opened first: that another node
    // has it says more than that its ports are taken.
    let admin = if is_made(&settings.data) {
        admin
    } else {
        phone_is_free(settings.phone)?;
        Ok(admin?)
    };
    let data = open_data(settings, &machine, thread_count)?;
    // Before the node, so that a taken port costs no recovery.
    let admin = admin?;
    let map = CoreMap::resolve(&settings.cores, &machine, data.shard_count)?;
    let token = access.token_file.as_deref().map(Token::from_file).transpose()?;
    let keys = data.keys;
    let steer = cores::steers(settings.cores.steer, &map, &machine, settings.phone);
    let cpus = map.places(&machine, steer);
    info!(shards = data.shard_count, on = ?map.shards, control = ?map.control, steer, data = %settings.data.display(), "starting");
    // Shards that are pinned go to their own places, so that the main thread may go to its own first, where the node's
    // helper threads stay with it. Others would stay with it too.
    if !map.shards.is_empty() {
        pin_main(&map);
    }
    let config = NodeConfig {
        shard_count: data.shard_count,
        thread_count,
        partition_count: data.partition_count,
        data: settings.data.clone(),
        phone: settings.phone,
        cpus,
        limits: settings.limits,
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
    };
    let plane = Arc::new(Plane::new(about, Gate::new(token))?);
    let door =
        AdminDoor { listener: admin, tls: tls.map(|tls| Arc::new(RwLock::new(tls))), access: access.clone() };
    control::run(plane, config, door, || {
        if map.shards.is_empty() {
            pin_main(&map);
        }
    })
}

/// Whether the phone door's address can be bound; tried and given back.
fn phone_is_free(phone: SocketAddr) -> Result<(), Failure> {
    let bound = TcpListener::bind(phone).map(drop);
    bound.map_err(|error| Failure::start_up(StartError::Bind(phone, error).to_string()))
}

/// A refusal is no reason not to serve.
fn pin_main(map: &CoreMap) {
    if let Err(error) = cores::pin_control(&map.control) {
        warn!(control = ?map.control, %error, "the control thread could not be pinned");
    }
}

fn open_data(settings: &Settings, machine: &Machine, thread_count: usize) -> Result<DataDirectory, Failure> {
    if let (Some(shards), Some(made)) = (settings.shard_count(), shard_count_of(&settings.data))
        && shards != made
        && !settings.cores.shards.named().is_empty()
    {
        return Err(Failure::start_up(format!(
            "cores.shards makes {shards} shards, but data directory {} was made with {made}; changing it is not available \
             yet, allowed: {made} hardware threads, or more of them together with shards = {made}",
            settings.data.display()
        )));
    }
    let wanted = Wanted {
        shard_count: settings.shard_count(),
        shard_count_default: cores::default_shard_count(machine, thread_count, SHARDS_MAX),
        segment_bytes: settings.segment_bytes_given(),
        segment_bytes_default: settings.segment_bytes(),
    };
    DataDirectory::open(&settings.data, wanted)
}

/// Damage and its like have their own codes also when they are found at the start.
pub(crate) fn ending_of_start(error: &StartError) -> Ending {
    match error {
        StartError::Recovery(..) | StartError::MoreShards(_) => Ending::Damaged,
        StartError::Fatal(FatalError::LogWrite(_)) => Ending::LogWrite,
        StartError::Panicked(_) => Ending::ShardPanic,
        StartError::Config(_) | StartError::Limits(_) => Ending::Usage,
        StartError::Fatal(FatalError::LogFullAtBoot)
        | StartError::Missing(_)
        | StartError::Bind(..)
        | StartError::Data(..)
        | StartError::System(_) => Ending::StartUp,
    }
}
