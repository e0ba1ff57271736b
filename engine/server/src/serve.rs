//! `tern serve`: from settings to a running node, and to its end.

use crate::admin::{self, Gate, Plane};
use crate::config::Settings;
use crate::cores::{self, CoreMap};
use crate::data::{DataDirectory, Token, is_made};
use crate::exit::{Ending, Failure};
use crate::log;
use crate::resolve::{Host, InForce, failure_of_start};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use tern_driver::{Exit, FatalError, Node, NodeConfig, StartError, check_machine};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info, warn};

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
    check_machine(&in_force.limits).map_err(|error| failure_of_start(&error))?;
    let access = &settings.admin_access;
    let tls = access.tls.as_ref().map(admin::acceptor).transpose()?;
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
    let node = Node::start(NodeConfig {
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
    })
    .map_err(|error| failure_of_start(&error))?;
    if map.shards.is_empty() {
        pin_main(&map);
    }
    tell_recovery(&node);
    let address = admin.local_addr().unwrap_or(settings.admin);
    let plane = Plane::new(node, address, keys.server.public, Gate::new(token))?;
    control_loop(Arc::new(plane), admin, tls)
}

/// Whether the phone door's address can be bound; tried and given back.
///
/// # Errors
/// It cannot: the text names key, address and why.
pub(crate) fn phone_is_free(phone: SocketAddr) -> Result<(), Failure> {
    let bound = TcpListener::bind(phone).map(drop);
    bound.map_err(|error| Failure::start_up(StartError::Bind(phone, error).to_string()))
}

/// Binds the admin endpoint's address.
///
/// # Errors
/// It cannot be bound: the text names key, address and why.
pub(crate) fn bind_admin(admin: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(admin).map_err(|error| Failure::start_up(format!("admin = {admin}: {error}")))
}

/// A refusal is no reason not to serve.
fn pin_main(map: &CoreMap) {
    if let Err(error) = cores::pin_control(&map.control) {
        warn!(control = ?map.control, %error, "the control thread could not be pinned");
    }
}

/// The main thread's life: admin requests and signals, until the node ends.
#[tokio::main(flavor = "current_thread")]
async fn control_loop(
    plane: Arc<Plane>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
) -> Result<Ending, Failure> {
    let start_up = |error: std::io::Error| Failure::start_up(format!("admin endpoint: {error}"));
    listener.set_nonblocking(true).map_err(start_up)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(start_up)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(start_up)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(start_up)?;
    let service = tokio::spawn(admin::serve(listener, tls, Arc::clone(&plane)));
    say_ready(&plane);

    let exited = plane.exited();
    let mut tells = tokio::time::interval(log::TELL_EVERY);
    let exit = loop {
        tokio::select! {
            exit = exited.recv_async() => break exit,
            _ = terminate.recv() => plane.drain(),
            _ = interrupt.recv() => plane.drain(),
            _ = tells.tick() => log::tell_suppressed(),
        }
    };
    log::tell_last_suppressed();
    service.abort();
    Ok(match exit {
        Ok(exit) => ending(&exit),
        // Every shard dropped its end without a word: none is left to keep the promise.
        Err(flume::RecvError::Disconnected) => ending(&Exit::Panicked("the shards are gone".into())),
    })
}

/// The contract's one line on standard output. Whoever started the process may have closed the pipe; that is no
/// reason to stop.
fn say_ready(plane: &Plane) {
    let line = format!("ready phone={} admin={} pid={}\n", plane.phone(), plane.admin(), std::process::id());
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    info!(phone = %plane.phone(), admin = %plane.admin(), "serving");
}

/// Rot is an operator's matter at once; a torn tail is what a kill leaves.
fn tell_recovery(node: &Node) {
    for (shard, report) in node.recovery().iter().enumerate() {
        if !report.rot.is_empty() || report.unknown_count > 0 {
            warn!(shard, rot = ?report.rot, unknown = report.unknown_count, "the log is damaged in places: the rest is served");
        }
        let torn = report.torn.len();
        info!(shard, records = report.record_count, commits = report.commit_count, torn, "recovered");
    }
}

fn ending(exit: &Exit) -> Ending {
    match exit {
        Exit::Drained => {
            info!("drained");
            Ending::Drained
        }
        Exit::Fatal(fatal @ FatalError::LogFullAtBoot) => {
            error!(?fatal, "the drive is full: not even the boot epoch could be written");
            Ending::StartUp
        }
        Exit::Fatal(fatal) => {
            error!(?fatal, "a write to the log failed: nothing after it was acknowledged");
            Ending::LogWrite
        }
        Exit::Panicked(text) => {
            error!(text, "a shard panicked");
            Ending::ShardPanic
        }
    }
}
