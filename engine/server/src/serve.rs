//! `tern serve`: from settings to what a node is made of. `control` starts it, and stays until its end.

use crate::admin::{About, Gate, Identity, Plane};
use crate::config::Settings;
use crate::control::{self, AdminDoor};
use crate::cores::{self, CoreMap};
use crate::data::{DataDirectory, Token, is_made};
use crate::exit::{Ending, Failure};
use crate::log;
use crate::resolve::{Host, InForce, failure_of_start};
use nix::unistd::gettid;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};
use tern_driver::{NodeConfig, StartError, check_machine};
use tracing::{info, warn};

/// Longest time that the kernel is given to close the sockets of a node that was killed: some ten thousand a shard.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked at.
const TRY_EVERY: Duration = Duration::from_millis(5);

/// Runs the node until it ends.
///
/// # Errors
/// Whatever keeps it from starting.
pub(crate) fn serve(settings: &Settings, huge_pages: io::Result<()>) -> Result<Ending, Failure> {
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
    let access = &settings.admin_access;
    let tls = access.tls.as_ref().map(Identity::read).transpose()?;
    let admin = bind_admin(settings.admin);
    // What is there already is opened first: that another node has it says more than that its ports are taken.
    let admin = if is_made(&settings.data) {
        admin
    } else {
        phone_is_free(settings.phone)?;
        Ok(admin?)
    };
    let data = DataDirectory::open(&settings.data, in_force.wanted(settings))?;
    if data.shard_count != in_force.shard_count {
        return Err(Failure::start_up(format!(
            "{} was made a moment ago: start again",
            settings.data.display()
        )));
    }
    // Before the node, so that a taken port costs no recovery.
    let admin = admin?;
    wait_for_phone(settings.phone)?;
    let map = in_force.map;
    let token = access.token_file.as_deref().map(Token::from_file).transpose()?;
    let keys = data.keys;
    let steer = cores::steers(settings.cores.steer, &map, &host.machine, settings.phone);
    let cpus = map.places(&host.machine, steer);
    info!(shards = data.shard_count, on = ?map.shards, control = ?map.control, steer, data = %settings.data.display(), "starting");
    // Shards that are pinned go to their own places, so that the main thread may go to its own first, where the node's
    // helper threads stay with it. Others would stay with it too.
    if !map.shards.is_empty() {
        pin_main(&map);
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

/// Whether the phone door's address can be taken; tried and given back.
///
/// # Errors
/// It cannot: the text names key, address and why.
pub(crate) fn phone_is_free(phone: SocketAddr) -> Result<(), Failure> {
    TcpListener::bind(phone).map(drop).map_err(|error| phone_is_taken(phone, error))
}

/// Likewise, but waits a little for a node that was killed: the kernel may still be closing its sockets.
fn wait_for_phone(phone: SocketAddr) -> Result<(), Failure> {
    let deadline = Instant::now() + CLOSE_WAIT;
    loop {
        match TcpListener::bind(phone) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(TRY_EVERY);
            }
            Err(error) => return Err(phone_is_taken(phone, error)),
        }
    }
}

fn phone_is_taken(phone: SocketAddr, error: io::Error) -> Failure {
    Failure::start_up(StartError::Bind(phone, error).to_string())
}

/// Binds the admin endpoint's address.
///
/// # Errors
/// It cannot be bound: the text names key, address and why.
pub(crate) fn bind_admin(admin: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(admin).map_err(|error| Failure::start_up(format!("admin = {admin}: {error}")))
}

/// Pins this thread, and with it the one that writes the log. A refusal is no reason not to serve.
fn pin_main(map: &CoreMap) {
    for thread in [Some(gettid()), log::writer()].into_iter().flatten() {
        if let Err(error) = cores::pin_control(thread, &map.control) {
            warn!(control = ?map.control, %error, "the control thread could not be pinned");
        }
    }
}
