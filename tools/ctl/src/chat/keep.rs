//! What a chat keeps: the device's key, and beside it the servers that it knows, with a ticket for each.

use crate::keys::{self, refuse_if_open};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tern_protocol::hex::{from_hex, to_hex};
use tern_protocol::ids::PartitionId;
use tern_protocol::phone::noise::KeyPair;
use tern_protocol::phone::ticket::{TICKET_BYTES, Ticket};

/// Reads the device's key. With `make` a missing one is made.
///
/// # Errors
/// The file is missing, open to others, or not a key.
pub(super) fn key(file: &Path, make: bool) -> Result<KeyPair> {
    if file.exists() {
        return keys::load(file);
    }
    if !make {
        let shown = file.display();
        bail!(
            "key file {shown} is not there: `account add` makes it, or --register, or name another with --key"
        );
    }
    keys::make(file)
}

/// What is known of a server.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Server {
    /// Its key.
    pub(super) key: Option<[u8; 32]>,
    /// The account's partition there.
    pub(super) partition: Option<PartitionId>,
    /// The ticket for the next connection, and the Unix time until which it is good.
    pub(super) ticket: Option<(Ticket, u64)>,
}

/// Host and port, written in one way: a server is known by them.
///
/// # Errors
/// What is allowed.
pub(super) fn door_of(text: &str) -> Result<String, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => tern_admin::parse_address(text).map(|door| door.to_ascii_lowercase()),
    }
}

/// The state file of a key: `KEYFILE` with the extension `state`.
#[derive(Debug)]
pub(super) struct Keep {
    file: PathBuf,
    /// By host and port, as they are named.
    servers: BTreeMap<String, Server>,
}

impl Keep {
    /// Reads the state beside a key file; nothing is known yet if there is none.
    ///
    /// # Errors
    /// The file is open to others, or a line of it is not understood.
    pub(super) fn beside(key_file: &Path) -> Result<Self> {
        let file = key_file.with_extension("state");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("state file {}", file.display())),
        };
        if !text.is_empty() {
            refuse_if_open(&file)?;
        }
        let mut servers = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let (door, server) = parse(line).with_context(|| {
                format!("{} line {}: not HOST:PORT KEY PARTITION TICKET", file.display(), index + 1)
            })?;
            servers.insert(door, server);
        }
        Ok(Self { file, servers })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn of(&self, door: &str) -> Server {
        self.servers.get(door).copied().unwrap_or_default()
    }

    /// Remembers, on stable storage.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn put(&mut self, door: &str, server: Server) -> Result<()> {
        if self.servers.insert(door.into(), server) == Some(server) {
            return Ok(());
        }
        let text: String = self.servers.iter().map(|(door, server)| line(door, server)).collect();
        self.replace(&text).with_context(|| format!("state file {}", self.file.display()))
    }

    fn replace(&self, text: &str) -> std::io::Result<()> {
        let mut fresh = self.file.clone().into_os_string();
        fresh.push(format!(".{}", std::process::id()));
        let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&fresh, &self.file)
    }
}

/// One server: host and port, key, partition, ticket's id, psk and end; `-` for what is not known.
fn line(door: &str, server: &Server) -> String {
    let unknown = || String::from("-");
    let key = server.key.map_or_else(unknown, |key| to_hex(&key));
    let partition = server.partition.map_or_else(unknown, |partition| partition.0.to_string());
    let ticket = server.ticket.map_or_else(unknown, |(ticket, until_s)| {
        format!("{} {} {until_s}", to_hex(&ticket.id), to_hex(&ticket.psk))
    });
    format!("{door} {key} {partition} {ticket}\n")
}

fn parse(line: &str) -> Option<(String, Server)> {
    let words: Vec<&str> = line.split(' ').collect();
    let (&[door, key, partition], ticket) = words.split_first_chunk()?;
    let key = if key == "-" { None } else { Some(from_hex(key)?) };
    let partition = if partition == "-" { None } else { Some(PartitionId(partition.parse().ok()?)) };
    let ticket = match *ticket {
        ["-"] => None,
        [id, psk, until_s] => {
            Some((Ticket { id: ticket_id(id)?, psk: from_hex(psk)? }, until_s.parse().ok()?))
        }
        _ => return None,
    };
    Some((door_of(door).ok()?, Server { key, partition, ticket }))
}

fn ticket_id(text: &str) -> Option<[u8; TICKET_BYTES]> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    if rest.is_empty() { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const BY_ADDRESS: &str = "127.0.0.1:1";
    const BY_NAME: &str = "chat.example.org:7322";

    #[test]
    fn what_was_put_is_there_again_and_private() {
        let place = tempfile::tempdir().unwrap();
        let key_file = place.path().join("ann.key");
        let mut keep = Keep::beside(&key_file).unwrap();
        assert_eq!(keep.of(BY_ADDRESS), Server::default());
        let full = Server {
            key: Some([0xab; 32]),
            partition: Some(PartitionId(4095)),
            ticket: Some((Ticket { id: [0x1f; TICKET_BYTES], psk: [0xe2; 32] }, 1_700_000_000)),
        };
        keep.put(BY_ADDRESS, full).unwrap();
        keep.put(BY_NAME, Server { key: Some([1; 32]), ..Server::default() }).unwrap();
        let mode = fs::metadata(keep.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut again = Keep::beside(&key_file).unwrap();
        assert_eq!(again.of(BY_ADDRESS), full);
        again.put(BY_ADDRESS, Server { ticket: None, ..full }).unwrap();
        assert_eq!(Keep::beside(&key_file).unwrap().of(BY_ADDRESS).ticket, None);
        assert_eq!(Keep::beside(&key_file).unwrap().of(BY_NAME).key, Some([1; 32]));
    }

    #[test]
    fn a_server_is_known_by_its_name_however_it_is_written_or_by_its_address() {
        let place = tempfile::tempdir().unwrap();
        let (key_file, state) = (place.path().join("ann.key"), place.path().join("ann.state"));
        let key = "ab".repeat(32);
        // As earlier versions wrote it.
        fs::write(&state, format!("127.0.0.1:7322 {key} 5 -\n[::1]:7322 {key} - -\n")).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o600)).unwrap();
        let mut keep = Keep::beside(&key_file).unwrap();
        keep.put(&door_of("Chat.Example.org:7322").unwrap(), Server::default()).unwrap();
        let keep = Keep::beside(&key_file).unwrap();
        for address in ["127.0.0.1:7322", "[::1]:7322", "[0:0::1]:7322"] {
            assert_eq!(keep.of(&door_of(address).unwrap()).key, Some([0xab; 32]), "{address}");
        }
        assert!(keep.servers.contains_key(BY_NAME));
        for wrong in ["chat.example.org", "7322", "a b:1"] {
            assert!(door_of(wrong).is_err_and(|allowed| allowed.contains("HOST:PORT")), "{wrong}");
        }
    }

    #[test]
    fn open_and_damaged_files_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let key_file = place.path().join("ann.key");
        assert!(key(&key_file, false).is_err());
        let made = key(&key_file, true).unwrap();
        assert_eq!(key(&key_file, true).unwrap(), made);
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(key(&key_file, false).unwrap_err().to_string().contains("chmod 600"));
        let state = place.path().join("ann.state");
        for text in ["127.0.0.1:1 - -", "nowhere - - -", "127.0.0.1:1 ab - -", "127.0.0.1:1 - - 00 11 5"] {
            fs::write(&state, text).unwrap();
            fs::set_permissions(&state, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(format!("{:#}", Keep::beside(&key_file).unwrap_err()).contains("line 1"), "{text}");
        }
        fs::set_permissions(&state, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Keep::beside(&key_file).is_err());
    }
}
