//! Who may ask: a bearer token, compared in constant time; wrong ones are counted, and slowed down.

use super::listen::Peer;
use super::plane::Plane;
use super::reply::Refusal;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::data::Token;

/// The one path that tells nothing worth guarding: load balancers ask it.
const OPEN_PATH: &str = "/healthz";
/// Wrong tokens in a row that are answered as such; after them one a second is.
const WRONG_COUNT_MAX: u32 = 10;
/// What each further one waits for.
const WRONG_EACH: Duration = Duration::from_secs(1);
/// Longest time of one request, its body included.
const REQUEST_TIME: Duration = Duration::from_secs(120);

/// The guard of the endpoint, with what it counts.
#[derive(Debug)]
pub(crate) struct Gate {
    token: Option<RwLock<Token>>,
    wrong: Mutex<Wrong>,
    token_refusals: AtomicU64,
    rate_refusals: AtomicU64,
    connection_refusals: AtomicU64,
    host_refusals: AtomicU64,
}

/// A bucket that wrong tokens empty.
#[derive(Debug)]
struct Wrong {
    left_count: u32,
    filled_at: Instant,
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Passes,
    Unauthorised,
    TooOften,
    Misdirected,
}

impl Gate {
    /// Without a token all may pass.
    pub(crate) fn new(token: Option<Token>) -> Self {
        Self {
            token: token.map(RwLock::new),
            wrong: Mutex::new(Wrong { left_count: WRONG_COUNT_MAX, filled_at: Instant::now() }),
            token_refusals: AtomicU64::new(0),
            rate_refusals: AtomicU64::new(0),
            connection_refusals: AtomicU64::new(0),
            host_refusals: AtomicU64::new(0),
        }
    }

    /// From now on this token holds, and no other. Whether it is another one than before.
    pub(crate) fn set_token(&self, token: Token) -> bool {
        let Some(held) = &self.token else { return false };
        let mut held = held.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *held, token) != *held
    }

    /// Reasons and counts of what was refused.
    pub(super) fn refusals(&self) -> [(&'static str, u64); 4] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("token", count(&self.token_refusals)),
            ("rate", count(&self.rate_refusals)),
            ("connections", count(&self.connection_refusals)),
            ("host", count(&self.host_refusals)),
        ]
    }

    /// A connection was one too many: it was refused, or another was given up for it.
    pub(super) fn connection_refused(&self) {
        self.connection_refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks at whom the request says that it is for. Without a token whoever reaches the endpoint may ask; a page in a
    /// browser on this machine must not, and could by a name of its own that it lets point here. No page has an address or
    /// `localhost` for such a name, and what is no browser may also name nobody.
    fn believes<'a>(&self, mut hosts: impl Iterator<Item = &'a [u8]>) -> bool {
        let believes = self.token.is_some() || hosts.all(is_address_or_localhost);
        if !believes {
            self.host_refusals.fetch_add(1, Ordering::Relaxed);
        }
        believes
    }

    /// Looks at what the `Authorization` header says. The right token always passes, however many wrong ones came:
    /// nobody can lock the operator out.
    fn judge(&self, authorisation: Option<&[u8]>, now: Instant) -> Verdict {
        let Some(token) = &self.token else { return Verdict::Passes };
        let given = authorisation.and_then(bearer).unwrap_or_default();
        if token.read().unwrap_or_else(PoisonError::into_inner).is(given) {
            return Verdict::Passes;
        }
        let (verdict, counter) = if self.wrong.lock().unwrap_or_else(PoisonError::into_inner).take(now) {
            (Verdict::Unauthorised, &self.token_refusals)
        } else {
            (Verdict::TooOften, &self.rate_refusals)
        };
        counter.fetch_add(1, Ordering::Relaxed);
        verdict
    }
}

impl Wrong {
    fn take(&mut self, now: Instant) -> bool {
        while self.left_count < WRONG_COUNT_MAX && self.filled_at + WRONG_EACH <= now {
            self.left_count += 1;
            self.filled_at += WRONG_EACH;
        }
        if self.left_count == WRONG_COUNT_MAX {
            self.filled_at = now;
        }
        let may = self.left_count > 0;
        self.left_count = self.left_count.saturating_sub(1);
        may
    }
}

/// The token in a header of the form `Bearer TOKEN`.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

/// Whom a request is for: its `Host`, and the address in its first line where it is one for a proxy.
fn hosts(request: &Request) -> impl Iterator<Item = &[u8]> {
    let named = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
    named.chain(request.uri().authority().map(|authority| authority.as_str().as_bytes()))
}

/// Whether a host, with or without a port, is no name that somebody could have given to this machine.
fn is_address_or_localhost(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let host = authority.host();
    let ip = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || ip.parse::<IpAddr>().is_ok()
}

/// Stands before every route.
pub(super) async fn guard(State(plane): State<Arc<Plane>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    let header = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    let is_given = header.is_some();
    let is_open = request.uri().path() == OPEN_PATH;
    let verdict = if is_open {
        Verdict::Passes
    } else if plane.gate().believes(hosts(&request)) {
        plane.gate().judge(header, Instant::now())
    } else {
        Verdict::Misdirected
    };
    match verdict {
        Verdict::Passes => {
            if let Some(peer) = peer.filter(|_| !is_open) {
                peer.connection.may_ask();
            }
            match tokio::time::timeout(REQUEST_TIME, next.run(request)).await {
                Ok(response) => response,
                Err(_) => Refusal::too_slow().into_response(),
            }
        }
        Verdict::Unauthorised => {
            let peer = peer.map_or_else(|| "unknown".to_string(), |peer| peer.address.to_string());
            tracing::warn!(peer, "an admin request with a wrong token, or without one");
            Refusal::unauthorised(is_given).into_response()
        }
        Verdict::TooOften => Refusal::too_often().into_response(),
        Verdict::Misdirected => {
            tracing::warn!("an admin request by a host name, where there is no token: refused");
            Refusal::misdirected().into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(Some(Token::new("0123456789abcdef")))
    }

    #[test]
    fn only_the_whole_token_passes() {
        let now = Instant::now();
        for right in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", "BEARER  0123456789abcdef "] {
            assert_eq!(gate().judge(Some(right.as_bytes()), now), Verdict::Passes, "{right:?}");
        }
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
        ] {
            assert_eq!(gate().judge(Some(wrong.as_bytes()), now), Verdict::Unauthorised, "{wrong:?}");
        }
        assert_eq!(gate().judge(None, now), Verdict::Unauthorised);
        assert_eq!(Gate::new(None).judge(None, now), Verdict::Passes);
    }

    #[test]
    fn a_name_is_believed_only_where_there_is_a_token() {
        let believes = |gate: &Gate, hosts: &[&str]| gate.believes(hosts.iter().map(|host| host.as_bytes()));
        let open = Gate::new(None);
        let here = [
            "127.0.0.1",
            "127.0.0.1:7323",
            "[::1]:7323",
            "[::1]",
            "192.0.2.1:1",
            "localhost",
            "LocalHost:7323",
        ];
        for host in here {
            assert!(believes(&open, &[host]), "{host}");
        }
        assert!(believes(&open, &[]), "HTTP/1.0");
        let names = [
            "tern.example",
            "tern.example:7323",
            "localhost.tern.example",
            "127.0.0.1.tern.example:7323",
            "127.0.0.1@tern.example",
            "tern",
            "2130706433",
            "",
            "a b",
        ];
        for name in names {
            assert!(!believes(&open, &[name]) && !believes(&open, &["localhost", name]), "{name}");
            assert!(believes(&gate(), &[name]), "{name}");
        }
        assert_eq!(open.refusals()[3], ("host", 2 * names.len() as u64));
    }

    #[test]
    fn wrong_ones_are_slowed_down_and_the_right_one_never() {
        let (gate, start) = (gate(), Instant::now());
        for _ in 0..WRONG_COUNT_MAX {
            assert_eq!(gate.judge(None, start), Verdict::Unauthorised);
        }
        assert_eq!(gate.judge(None, start), Verdict::TooOften);
        assert_eq!(gate.judge(Some(b"Bearer 0123456789abcdef"), start), Verdict::Passes);
        assert_eq!(gate.judge(None, start + WRONG_EACH), Verdict::Unauthorised);
        assert_eq!(gate.judge(None, start + WRONG_EACH), Verdict::TooOften);
        assert_eq!(gate.refusals()[..2], [("token", 11), ("rate", 2)]);
        let much_later = start + 100 * WRONG_EACH;
        let answers: Vec<Verdict> = (0..12).map(|_| gate.judge(None, much_later)).collect();
        assert_eq!(answers.iter().filter(|v| **v == Verdict::Unauthorised).count(), WRONG_COUNT_MAX as usize);
    }
}
