//! The secrets of a data directory: the server's key, the one before it, and the secret behind tickets.

use super::atomic;
use super::secret::random;
use crate::exit::Failure;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tern_protocol::hex::{from_hex, to_hex};
use tern_protocol::phone::noise::KeyPair;

pub(super) const SERVER_KEY: &str = "server.key";
const PREVIOUS_KEY: &str = "server.key.previous";
const TICKET_KEY: &str = "ticket.key";

/// What the directory keeps secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    /// The server's key pair.
    pub(crate) server: KeyPair,
    /// The one before it, while phones may still use it.
    pub(crate) previous: Option<KeyPair>,
    /// What resume tickets are made from.
    pub(crate) ticket_secret: [u8; 32],
}

impl Keys {
    /// Makes the server's key. One that is already there stays: phones may know it, and an operator may have put it
    /// there.
    pub(super) fn make(directory: &Path) -> Result<(), Failure> {
        if directory.join(SERVER_KEY).exists() {
            return Ok(());
        }
        write(directory, SERVER_KEY, &format!("{}\n", to_hex(&random::<32>()?)))
    }

    /// Reads the keys. `now_s` is Unix time: it decides whether the previous key still holds.
    pub(super) fn read(directory: &Path, now_s: u64) -> Result<Self, Failure> {
        let missing = || Failure::damaged(format!("{} is missing", directory.join(SERVER_KEY).display()));
        let server = seed(directory, SERVER_KEY)?.ok_or_else(missing)?;
        // Directories made before there were tickets have none; without it, phones log in with their keys.
        let ticket_secret = match seed(directory, TICKET_KEY)? {
            Some(secret) => secret,
            None => {
                let secret = random()?;
                write(directory, TICKET_KEY, &format!("{}\n", to_hex(&secret)))?;
                secret
            }
        };
        let previous = previous(directory)?.filter(|previous| previous.works_at(now_s));
        Ok(Self {
            server: KeyPair::from_seed(server),
            previous: previous.map(|previous| KeyPair::from_seed(previous.seed)),
            ticket_secret,
        })
    }

    /// Whether the keys that are there can be read; makes none.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub(super) fn look(directory: &Path) -> Result<(), Failure> {
        let missing = || Failure::damaged(format!("{} is missing", directory.join(SERVER_KEY).display()));
        seed(directory, SERVER_KEY)?.ok_or_else(missing)?;
        seed(directory, TICKET_KEY)?;
        previous(directory).map(drop)
    }

    /// Gives the server a new key. The present one works until `until_s` beside it, and the one before that no longer.
    /// `now_s` and `until_s` are Unix time.
    ///
    /// # Errors
    /// The directory is not one, or cannot be written; the key before the present one still works, and nobody said that it
    /// shall end: phones that know no later one would be locked out.
    pub(super) fn rotate(
        directory: &Path,
        now_s: u64,
        until_s: u64,
        end_previous: bool,
    ) -> Result<KeyPair, Failure> {
        let missing = || Failure::damaged(format!("{} is missing", directory.join(SERVER_KEY).display()));
        let present = seed(directory, SERVER_KEY)?.ok_or_else(missing)?;
        if !end_previous
            && let Some(previous) = previous(directory)?.filter(|previous| previous.works_at(now_s))
            // A change that a crash cut off left the present key in both places.
            && previous.seed != present
        {
            let (until_s, days) = (previous.until_s, (previous.until_s - now_s).div_ceil(24 * 3600));
            return Err(Failure::start_up(format!(
                "the key before the present one works for {days} more days (until {until_s}, Unix time), and there is \
                 room for one: phones that know no later key could not log in any more. Wait, or end it now with \
                 --end-previous"
            )));
        }
        let fresh = random()?;
        // In this order a crash in between leaves the present key twice, and nothing lost but the one before it.
        write(directory, PREVIOUS_KEY, &format!("{}\n{until_s}\n", to_hex(&present)))?;
        write(directory, SERVER_KEY, &format!("{}\n", to_hex(&fresh)))?;
        Ok(KeyPair::from_seed(fresh))
    }
}

/// The key before the present one.
struct Previous {
    seed: [u8; 32],
    /// Unix time.
    until_s: u64,
}

impl Previous {
    fn works_at(&self, now_s: u64) -> bool {
        now_s < self.until_s
    }
}

fn write(directory: &Path, name: &str, text: &str) -> Result<(), Failure> {
    atomic::replace(directory, name, text.as_bytes())
        .map_err(|error| Failure::start_up(format!("{}: {error}", directory.join(name).display())))
}

/// The text of a secret file; `None` if there is none.
fn read_secret(directory: &Path, name: &str) -> Result<Option<String>, Failure> {
    let file = directory.join(name);
    let shown = file.display();
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::start_up(format!("{shown}: {error}"))),
    };
    let mode = std::fs::metadata(&file)
        .map_err(|error| Failure::start_up(format!("{shown}: {error}")))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(Failure::start_up(format!("{shown} can be read by others: chmod 600 it")));
    }
    Ok(Some(text))
}

fn seed(directory: &Path, name: &str) -> Result<Option<[u8; 32]>, Failure> {
    let Some(text) = read_secret(directory, name)? else { return Ok(None) };
    let wrong = || Failure::damaged(format!("{} is not 64 hex digits", directory.join(name).display()));
    from_hex(text.trim()).ok_or_else(wrong).map(Some)
}

fn previous(directory: &Path) -> Result<Option<Previous>, Failure> {
    let Some(text) = read_secret(directory, PREVIOUS_KEY)? else { return Ok(None) };
    let mut lines = text.lines();
    let seed = lines.next().and_then(from_hex::<32>);
    let until_s = lines.next().and_then(|line| line.parse::<u64>().ok());
    match (seed, until_s) {
        (Some(seed), Some(until_s)) => Ok(Some(Previous { seed, until_s })),
        _ => Err(Failure::damaged(format!(
            "{} is not a key of 64 hex digits and, on a line of its own, the Unix time until which it holds",
            directory.join(PREVIOUS_KEY).display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_previous_key_holds_for_its_time() {
        let place = tempfile::tempdir().unwrap();
        Keys::make(place.path()).unwrap();
        let first = Keys::read(place.path(), 100).unwrap();
        assert_eq!(first.previous, None);
        let fresh = Keys::rotate(place.path(), 100, 200, false).unwrap();
        let second = Keys::read(place.path(), 199).unwrap();
        assert_eq!((second.server, second.previous), (fresh, Some(first.server)));
        assert_ne!(fresh, first.server);
        assert_eq!(second.ticket_secret, first.ticket_secret, "tickets outlive a change of the key");
        assert_eq!(Keys::read(place.path(), 200).unwrap().previous, None);
    }

    #[test]
    fn a_key_that_works_is_not_ended_by_the_next_change() {
        let place = tempfile::tempdir().unwrap();
        let (path, day_s) = (place.path(), 24 * 3600);
        Keys::make(path).unwrap();
        let first = Keys::read(path, 0).unwrap().server;
        let second = Keys::rotate(path, 0, 30 * day_s, false).unwrap();
        let failure = Keys::rotate(path, day_s, 31 * day_s, false).unwrap_err();
        for part in ["29 more days", "until 2592000", "--end-previous"] {
            assert!(failure.text.contains(part), "{}", failure.text);
        }
        let kept = Keys::read(path, day_s).unwrap();
        assert_eq!((kept.server, kept.previous), (second, Some(first)), "nothing has changed");
        // Once it has ended, or when it shall end.
        let third = Keys::rotate(path, 30 * day_s, 60 * day_s, false).unwrap();
        let fourth = Keys::rotate(path, 31 * day_s, 61 * day_s, true).unwrap();
        let kept = Keys::read(path, 31 * day_s).unwrap();
        assert_eq!((kept.server, kept.previous), (fourth, Some(third)));
    }

    #[test]
    fn a_change_that_a_crash_cut_off_is_made_again() {
        let place = tempfile::tempdir().unwrap();
        Keys::make(place.path()).unwrap();
        let text = std::fs::read_to_string(place.path().join(SERVER_KEY)).unwrap();
        write(place.path(), PREVIOUS_KEY, &format!("{text}200\n")).unwrap();
        let first = Keys::read(place.path(), 100).unwrap().server;
        let second = Keys::rotate(place.path(), 100, 200, false).unwrap();
        let kept = Keys::read(place.path(), 100).unwrap();
        assert_eq!((kept.server, kept.previous), (second, Some(first)));
    }

    #[test]
    fn damaged_keys_are_named() {
        let place = tempfile::tempdir().unwrap();
        Keys::make(place.path()).unwrap();
        for (name, text) in [(PREVIOUS_KEY, "00\n1\n"), (TICKET_KEY, "zz"), (SERVER_KEY, "")] {
            write(place.path(), name, text).unwrap();
            let failure = Keys::read(place.path(), 0).unwrap_err();
            assert!(failure.text.contains(name), "{}", failure.text);
        }
    }
}
