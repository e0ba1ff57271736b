//! Word to systemd, for a unit with `Type=notify`: sd_notify(3) is a datagram of lines to the socket that it names.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Longest time between two words to a watchdog.
const PING_EVERY_MAX: Duration = Duration::from_secs(1);

/// Who started this process, if it wants to know how it is.
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    ping_every: Option<Duration>,
}

impl Notifier {
    /// From what systemd put into the environment; nobody is told where that is nothing.
    pub(crate) fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| match connect(&name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(socket = %name.display(), %error, "systemd cannot be told how the node is");
                None
            }
        });
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let time = number("WATCHDOG_USEC").filter(|&us| us > 0 && is_for_us && socket.is_some());
        Self { socket, ping_every: time.map(|us| ping_every(Duration::from_micros(us))) }
    }

    /// How often the watchdog wants to hear, if there is one.
    pub(crate) fn ping_every(&self) -> Option<Duration> {
        self.ping_every
    }

    /// Tells these lines, each `NAME=VALUE`. Never waits: nothing depends on it that is worth a wait.
    pub(crate) fn tell(&self, lines: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(lines.as_bytes())
        {
            tracing::debug!(%error, lines, "systemd was not told");
        }
    }
}

/// How often a watchdog is told that ends the process when it has heard nothing for so long: what keeps back one word or
/// two must not look like an end.
fn ping_every(time: Duration) -> Duration {
    (time / 4).clamp(Duration::from_micros(1), PING_EVERY_MAX)
}

/// A path, or with an `@` in front a name in the abstract name space.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(OsString::from(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_not_said_does_not_end_the_process() {
        for time in [1, 200_000, 2_000_000, 30_000_000, 3_600_000_000].map(Duration::from_micros) {
            let every = ping_every(time);
            assert!(every > Duration::ZERO && every <= PING_EVERY_MAX, "{every:?}");
            // Two words in a row may be left out, and the third be late.
            assert!(time < Duration::from_micros(4) || 3 * every < time, "{every:?} for {time:?}");
        }
        assert_eq!(ping_every(Duration::from_secs(30)), Duration::from_secs(1));
    }

    #[test]
    fn both_kinds_of_sockets_hear() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let abstract_name = format!("tern-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let at_path = UnixDatagram::bind(&path).unwrap();
        let at_name = UnixDatagram::bind_addr(&address).unwrap();
        let at = OsString::from(format!("@{abstract_name}"));
        for (name, socket) in [(path.as_os_str(), at_path), (&*at, at_name)] {
            let notifier = Notifier { socket: Some(connect(name).unwrap()), ping_every: None };
            notifier.tell("READY=1");
            let mut said = [0; 64];
            let count = socket.recv(&mut said).unwrap();
            assert_eq!(&said[..count], b"READY=1");
        }
        assert!(connect(OsStr::new("/no/such/socket")).is_err());
    }
}
