//! The addresses that a node listens at: whether they can be had, and by whom they are not.

use crate::exit::Failure;
use crate::signals::{Signals, Wish};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tern_driver::StartError;
use tokio::time::{Instant, interval};
use tracing::info;

/// Longest time that the kernel is given to close the sockets of a node that was killed: some ten thousand a shard.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked at.
const TRY_EVERY: Duration = Duration::from_millis(5);

/// Binds the admin endpoint's address.
///
/// # Errors
/// It cannot be bound: the text names key, address and why.
pub(crate) fn bind_admin(admin: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(admin).map_err(|error| Failure::start_up(format!("admin = {admin}: {error}")))
}

/// Whether the phone door's address can be taken; tried and given back.
///
/// # Errors
/// It cannot: the text names key, address and why.
pub(crate) fn phone_is_free(phone: SocketAddr) -> Result<(), Failure> {
    TcpListener::bind(phone).map(drop).map_err(|error| phone_is_taken(phone, error))
}

/// Likewise, but waits a little for a node that was killed: the kernel may still be closing its sockets. False: a signal
/// ended the wait.
///
/// # Errors
/// As for [`phone_is_free`].
pub(crate) async fn phone_comes_free(
    phone: SocketAddr,
    signals: &mut Signals,
    reload: impl Fn(),
) -> Result<bool, Failure> {
    let deadline = Instant::now() + CLOSE_WAIT;
    let (mut tries, mut is_told) = (interval(TRY_EVERY), false);
    loop {
        tokio::select! {
            biased;
            wish = signals.next() => match wish {
                Wish::End => return Ok(false),
                Wish::Reload => reload(),
            },
            _ = tries.tick() => match TcpListener::bind(phone) {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    if !std::mem::replace(&mut is_told, true) {
                        info!(%phone, "the address is in use: waiting {} s for it", CLOSE_WAIT.as_secs());
                    }
                }
                Err(error) => return Err(phone_is_taken(phone, error)),
            }
        }
    }
}

fn phone_is_taken(phone: SocketAddr, error: io::Error) -> Failure {
    Failure::start_up(StartError::Bind(phone, error).to_string())
}
