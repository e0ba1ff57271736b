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
/// Longest wait until systemd takes a word that is said once; the endpoint and its watchdog wait, too.
const WAIT: Duration = Duration::from_secs(1);

/// Who started this process, if it wants to know how it is.
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    ping_every: Option<Duration>,
    /// Longest wait for room for what is told once.
    wait: Duration,
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
        Self { socket, ping_every: time.map(|us| ping_every(Duration::from_micros(us))), wait: WAIT }
    }

    /// How often the watchdog wants to hear, if there is one.
    pub(crate) fn ping_every(&self) -> Option<Duration> {
        self.ping_every
    }

    /// Tells these lines, each `NAME=VALUE`. Never waits: what is told again and again may be left out once.
    pub(crate) fn tell(&self, lines: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(lines.as_bytes())
        {
            tracing::debug!(%error, lines, "systemd was not told");
        }
    }

    /// Tells what is told once, and waits a little where it does not listen, as at the boot of a busy machine: systemd
    /// would end a node that serves and did not get to say so.
    pub(crate) fn tell_once(&self, lines: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = send_within(socket, lines, self.wait)
        {
            tracing::warn!(%error, lines, "systemd was not told");
        }
    }
}

/// Sends a datagram; waits so long at most until there is room for it.
fn send_within(socket: &UnixDatagram, lines: &str, wait: Duration) -> io::Result<()> {
    socket.set_write_timeout(Some(wait))?;
    socket.set_nonblocking(false)?;
    let sent = socket.send(lines.as_bytes());
    socket.set_nonblocking(true)?;
    sent.map(drop)
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
    use nix::unistd::{Pid, gettid};

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
            let notifier = Notifier { socket: Some(connect(name).unwrap()), ping_every: None, wait: WAIT };
            notifier.tell("READY=1");
            let mut said = [0; 64];
            let count = socket.recv(&mut said).unwrap();
            assert_eq!(&said[..count], b"READY=1");
        }
        assert!(connect(OsStr::new("/no/such/socket")).is_err());
    }

    /// Whether a thread of this process waits, as for room in a socket.
    fn waits(thread: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('S'))
    }

    #[test]
    fn what_is_told_once_waits_for_room_and_not_for_ever() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let hears = UnixDatagram::bind(&path).unwrap();
        let notifier =
            |wait| Notifier { socket: Some(connect(path.as_os_str()).unwrap()), ping_every: None, wait };
        let patient = notifier(Duration::from_secs(600));
        while patient.socket.as_ref().unwrap().send(b"WATCHDOG=1").is_ok() {}
        // Neither waits for somebody who never listens.
        patient.tell("WATCHDOG=1");
        notifier(Duration::from_millis(1)).tell_once("STOPPING=1");
        let (tell, told) = std::sync::mpsc::channel();
        let teller = std::thread::spawn(move || {
            tell.send(gettid()).unwrap();
            patient.tell_once("READY=1");
        });
        let thread = told.recv().unwrap();
        while !waits(thread) && !teller.is_finished() {
            std::thread::yield_now();
        }
        hears.set_nonblocking(true).unwrap();
        let mut said = Vec::new();
        loop {
            // In this order: what was said before its end is there.
            let is_over = teller.is_finished();
            let mut bytes = [0; 64];
            match hears.recv(&mut bytes) {
                Ok(count) => said.push(String::from_utf8_lossy(&bytes[..count]).into_owned()),
                Err(_) if is_over => break,
                Err(_) => std::thread::yield_now(),
            }
        }
        assert_eq!(said.iter().filter(|lines| *lines == "READY=1").count(), 1, "{said:?}");
        assert!(!said.iter().any(|lines| lines == "STOPPING=1"), "nobody took it in time: {said:?}");
    }
}
