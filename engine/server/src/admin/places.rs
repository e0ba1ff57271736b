//! Who is connected to the endpoint: places are few, and whoever has shown that it may ask keeps its own. When there is
//! none left, a connection goes that has not shown it, of those that have most.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Connections at a time.
const COUNT_MAX: usize = 256;
/// Of these, places that only this machine's own have.
const LOOPBACK_COUNT: usize = 32;
/// Connections of one address at a time.
const COUNT_OF_ONE_MAX: usize = 32;

/// The open connections, oldest first.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Vec<Arc<Connection>>>);

/// One open connection.
#[derive(Debug)]
pub(super) struct Connection {
    whose: IpAddr,
    may_ask: AtomicBool,
    given_up: Notify,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    connection: Arc<Connection>,
}

/// A connection that had to go, and whose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GivenUp(pub(super) IpAddr);

impl Places {
    /// A place for a connection, and whom it cost theirs. None: all have shown that they may ask.
    pub(super) fn take(places: &Arc<Self>, address: IpAddr) -> Option<(Place, Option<GivenUp>)> {
        let whose = whose(address);
        let mut open = places.lock();
        let of_one = open.iter().filter(|connection| connection.whose == whose).count();
        let from_afar = open.iter().filter(|connection| !connection.whose.is_loopback()).count();
        let given_up = if of_one >= COUNT_OF_ONE_MAX {
            Some(give_up(&mut open, |other| other == whose)?)
        } else if !whose.is_loopback() && from_afar >= COUNT_MAX - LOOPBACK_COUNT {
            Some(give_up(&mut open, |other| !other.is_loopback())?)
        } else if open.len() >= COUNT_MAX {
            Some(give_up(&mut open, |_| true)?)
        } else {
            None
        };
        let connection =
            Arc::new(Connection { whose, may_ask: AtomicBool::new(false), given_up: Notify::new() });
        open.push(Arc::clone(&connection));
        drop(open);
        Some((Place { places: Arc::clone(places), connection }, given_up))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends, of these, the oldest of whoever has most that have not shown that they may ask.
fn give_up(open: &mut Vec<Arc<Connection>>, of: impl Fn(IpAddr) -> bool) -> Option<GivenUp> {
    let may_go =
        |connection: &Connection| of(connection.whose) && !connection.may_ask.load(Ordering::Relaxed);
    let mut counts = HashMap::new();
    for connection in open.iter().filter(|connection| may_go(connection)) {
        *counts.entry(connection.whose).or_insert(0_usize) += 1;
    }
    let most = counts.values().max()?;
    let index = open.iter().position(|it| may_go(it) && counts.get(&it.whose) == Some(most))?;
    let connection = open.remove(index);
    connection.given_up.notify_one();
    Some(GivenUp(connection.whose))
}

/// Who has an address: one party has all of an IPv6 /64.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
        other => other,
    }
}

impl Connection {
    /// It has shown that it may ask: from now on it is not given up for others.
    pub(super) fn may_ask(&self) {
        self.may_ask.store(true, Ordering::Relaxed);
    }
}

impl Place {
    /// Whose it is.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Waits until the connection has to go.
    pub(super) async fn given_up(&self) {
        self.connection.given_up.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().retain(|other| !Arc::ptr_eq(other, &self.connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>, address: &str) -> (Place, Option<GivenUp>) {
        Places::take(places, address.parse().unwrap()).unwrap()
    }

    /// Takes a place and shows that it may ask.
    fn take_for_good(places: &Arc<Places>, address: &str) -> Place {
        let (place, _) = take(places, address);
        place.connection.may_ask();
        place
    }

    fn count(places: &Places) -> usize {
        places.lock().len()
    }

    #[test]
    fn one_address_has_few_and_gives_up_its_own() {
        let places = Arc::new(Places::default());
        let mut first: Vec<Place> = (0..COUNT_OF_ONE_MAX).map(|_| take(&places, "10.0.0.1").0).collect();
        first[0].connection.may_ask();
        assert_eq!(take(&places, "10.0.0.2").1, None);
        let (last, given_up) = take(&places, "10.0.0.1");
        assert_eq!(given_up, Some(GivenUp("10.0.0.1".parse().unwrap())));
        let is_open = |place: &Place| places.lock().iter().any(|other| Arc::ptr_eq(other, &place.connection));
        assert!(is_open(&first[0]) && !is_open(&first[1]) && is_open(&first[2]), "the oldest that may go");
        drop(first.remove(1));
        first.push(last);
        assert_eq!(count(&places), COUNT_OF_ONE_MAX, "it had gone already");
        first.iter().for_each(|place| place.connection.may_ask());
        assert!(Places::take(&places, "10.0.0.1".parse().unwrap()).is_none(), "all of them may ask");
        first.clear();
        assert_eq!(count(&places), 0, "nothing is kept of who has gone");
    }

    #[test]
    fn strangers_keep_nobody_out_however_many_they_are() {
        let places = Arc::new(Places::default());
        let asks = take_for_good(&places, "192.0.2.1");
        let mut strangers = Vec::new();
        let mut flood = || {
            for n in 0..3000_u32 {
                let address = format!("10.0.{}.1", n % 50);
                strangers.push(take(&places, &address).0);
            }
        };
        flood();
        assert_eq!(count(&places), COUNT_MAX - LOOPBACK_COUNT);
        // Somebody who is still shaking hands stays while each of the strangers has several.
        let (new, given_up) = take(&places, "192.0.2.2");
        assert!(given_up.is_some_and(|it| it.0.to_string().starts_with("10.0.")), "{given_up:?}");
        flood();
        let local: Vec<Place> = (0..LOOPBACK_COUNT).map(|_| take(&places, "127.0.0.1").0).collect();
        assert_eq!(count(&places), COUNT_MAX);
        flood();
        let open = places.lock();
        for place in [&asks, &new].into_iter().chain(&local) {
            assert!(open.iter().any(|other| Arc::ptr_eq(other, &place.connection)), "{place:?}");
        }
    }

    #[test]
    fn one_party_has_all_of_a_prefix() {
        let places = Arc::new(Places::default());
        let _places: Vec<Place> =
            (0..COUNT_OF_ONE_MAX).map(|n| take_for_good(&places, &format!("2001:db8::{n:x}:1"))).collect();
        assert!(Places::take(&places, "2001:db8::ffff:0:0:1".parse().unwrap()).is_none());
        assert!(Places::take(&places, "2001:db8:0:1::1".parse().unwrap()).is_some());
        assert_eq!(whose("::1".parse().unwrap()), "::1".parse::<IpAddr>().unwrap());
        assert_eq!(whose("::ffff:127.0.0.1".parse().unwrap()), "127.0.0.1".parse::<IpAddr>().unwrap());
    }

    #[tokio::test]
    async fn who_is_given_up_is_told() {
        let places = Arc::new(Places::default());
        let all: Vec<Place> = (0..=COUNT_OF_ONE_MAX).map(|_| take(&places, "::1").0).collect();
        all[0].given_up().await;
    }
}
