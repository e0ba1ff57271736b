//! The endpoint's sockets: accepted one by one, wrapped in TLS where that is set, each with limits, so that a client
//! that is slow, silent or one of many costs a socket for a while and nothing else.

use super::places::{Connection, GivenUp, Places};
use super::plane::Plane;
use super::tls::Identity;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

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
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 93\r\n\
    connection: close\r\n\r\n{\"error\": \"this endpoint speaks TLS: ask it by https:// (tern-ctl and tern-load: --ca FILE)\"}";

/// Where a request came from.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) connection: Arc<Connection>,
}

/// Accepts and serves until the task is dropped. A connection has the identity that was in force when it began.
pub(crate) async fn serve(listener: TcpListener, tls: Option<Arc<RwLock<Identity>>>, plane: Arc<Plane>) {
    let routes = super::routes(Arc::clone(&plane));
    let places = Arc::new(Places::default());
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "the admin endpoint cannot accept");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Some((place, given_up)) = Places::take(&places, peer.ip()) else {
            plane.gate().connection_refused();
            warn!(%peer, "an admin connection refused: too many are open");
            continue;
        };
        if let Some(GivenUp(whose)) = given_up {
            plane.gate().connection_refused();
            warn!(%whose, "an admin connection that showed no right to ask is given up: too many are open");
        }
        let tls = tls.as_ref().map(|tls| tls.read().unwrap_or_else(PoisonError::into_inner).clone());
        let routes = routes.clone();
        tokio::spawn(async move {
            let peer = Peer { address: peer, connection: Arc::clone(place.connection()) };
            let address = peer.address;
            let talk = async {
                match tls {
                    None => talk(socket, peer, routes).await,
                    Some(identity) => talk_tls(socket, peer, identity, routes).await,
                }
            };
            tokio::select! {
                ended = talk => if let Err(error) = ended {
                    debug!(peer = %address, %error, "an admin connection ended");
                },
                () = place.given_up() => {}
            }
        });
    }
}

async fn talk_tls(socket: TcpStream, peer: Peer, identity: Identity, routes: Router) -> io::Result<()> {
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
        identity.acceptor().accept(socket).await
    });
    talk(wrapped.await??, peer, routes).await
}

async fn talk<S>(stream: S, peer: Peer, routes: Router) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = TowerToHyperService::new(routes.layer(axum::Extension(peer)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_answer_is_whole() {
        let text = std::str::from_utf8(NOT_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
