//! The endpoint's sockets: accepted one by one, wrapped in TLS where that is set, each with limits, so that a client
//! that is slow, silent or one of many costs a socket for a while and nothing else.

use super::plane::Plane;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

/// Connections at a time.
const CONNECTION_COUNT_MAX: usize = 256;
/// Connections of one address at a time.
const CONNECTIONS_OF_ONE_MAX: usize = 32;
/// Longest time for a TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Longest wait for a whole head of a request, the pause between two requests included.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// A connection that is so old is closed after the answer that is under way,
const LIFE: Duration = Duration::from_secs(600);
/// or a while later without it.
const LIFE_GRACE: Duration = Duration::from_secs(60);
/// How long the door stays shut after the system refused to accept.
const PAUSE: Duration = Duration::from_millis(100);
/// The first byte of every TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 22;
/// What somebody is told who speaks plain HTTP where TLS is due.
const NOT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 57\r\n\
    connection: close\r\n\r\n{\"error\": \"this endpoint speaks TLS: ask it by https://\"}";

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerAddress(pub(super) SocketAddr);

/// Accepts and serves until the task is dropped. A connection has the identity that was in force when it began.
pub(crate) async fn serve(listener: TcpListener, tls: Option<Arc<RwLock<TlsAcceptor>>>, plane: Arc<Plane>) {
    let routes = super::routes(Arc::clone(&plane));
    let open = Arc::new(Open::default());
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "the admin endpoint cannot accept");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = Open::take(&open, peer.ip()) else {
            plane.gate().connection_refused();
            warn!(%peer, "an admin connection refused: too many are open");
            continue;
        };
        let tls = tls.as_ref().map(|tls| tls.read().unwrap_or_else(PoisonError::into_inner).clone());
        let routes = routes.clone();
        tokio::spawn(async move {
            let ended = match tls {
                None => talk(socket, peer, routes).await,
                Some(tls) => talk_tls(socket, peer, tls, routes).await,
            };
            if let Err(error) = ended {
                debug!(%peer, %error, "an admin connection ended");
            }
            drop(place);
        });
    }
}

async fn talk_tls(socket: TcpStream, peer: SocketAddr, tls: TlsAcceptor, routes: Router) -> io::Result<()> {
    let wrapped = timeout(HANDSHAKE_TIME, async {
        let mut first = [0];
        if socket.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
            // What is left unread would make the close a reset, and take the answer away again.
            let mut request = [0; 4096];
            let _ = socket.try_read(&mut request);
            socket.writable().await?;
            socket.try_write(NOT_TLS)?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "plain HTTP where TLS is due"));
        }
        tls.accept(socket).await
    });
    talk(wrapped.await??, peer, routes).await
}

async fn talk<S>(stream: S, peer: SocketAddr, routes: Router) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = TowerToHyperService::new(routes.layer(axum::Extension(PeerAddress(peer))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if let Ok(ended) = timeout(LIFE, connection.as_mut()).await {
        return ended.map_err(io::Error::other);
    }
    connection.as_mut().graceful_shutdown();
    timeout(LIFE_GRACE, connection).await?.map_err(io::Error::other)
}

/// The open connections, by address.
#[derive(Debug, Default)]
struct Open(Mutex<HashMap<IpAddr, usize>>);

/// One open connection.
#[derive(Debug)]
struct Place {
    open: Arc<Open>,
    address: IpAddr,
}

impl Open {
    /// A place for a connection, if there is one.
    fn take(open: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut counts = open.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let of_one = counts.entry(address).or_insert(0);
        if all >= CONNECTION_COUNT_MAX || *of_one >= CONNECTIONS_OF_ONE_MAX {
            // The entry was there before: a new one is below its own limit, and the sum is not small.
            if *of_one == 0 {
                counts.remove(&address);
            }
            return None;
        }
        *of_one += 1;
        drop(counts);
        Some(Place { open: Arc::clone(open), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_few_for_one_address_and_given_back() {
        let open = Arc::new(Open::default());
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut places: Vec<Place> =
            (0..CONNECTIONS_OF_ONE_MAX).map(|_| Open::take(&open, address(1)).unwrap()).collect();
        assert!(Open::take(&open, address(1)).is_none());
        assert!(Open::take(&open, address(2)).is_some());
        places.pop();
        places.push(Open::take(&open, address(1)).unwrap());
        for n in 2.. {
            let Some(place) = Open::take(&open, address(n)) else { break };
            places.push(place);
        }
        assert_eq!(places.len(), CONNECTION_COUNT_MAX);
        places.clear();
        assert!(open.0.lock().unwrap().is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn the_plain_answer_is_whole() {
        let text = std::str::from_utf8(NOT_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
