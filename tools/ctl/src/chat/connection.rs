//! The threads that wait: one reads standard input, and one for each connection connects and reads it.

use std::io::{BufRead, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A server that takes nothing for so long is gone.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// What the threads tell. The number is that of the connection: a new one may have begun meanwhile.
#[derive(Debug)]
pub(super) enum Input {
    /// The person typed a line.
    Line(String),
    /// There will be no more lines.
    End,
    /// The server took the connection.
    Connected(u32, TcpStream),
    /// Bytes came.
    Bytes(u32, Vec<u8>),
    /// The connection is gone, or never was.
    Lost(u32, String),
}

/// Reads lines until the end of standard input. The thread ends with the process.
pub(super) fn read_lines(inputs: Sender<Input>) {
    thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut line = Vec::new();
        while stdin.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            if inputs.send(Input::Line(text)).is_err() {
                return;
            }
        }
        let _ = inputs.send(Input::End);
    });
}

/// Connects and reads until the connection ends. The host is looked up anew each time: it may have moved.
pub(super) fn connect(door: String, number: u32, inputs: Sender<Input>) {
    thread::spawn(move || {
        let why = match run(&door, number, &inputs) {
            Ok(()) => String::from("the server closed the connection"),
            Err(error) => error.to_string(),
        };
        let _ = inputs.send(Input::Lost(number, why));
    });
}

/// To the first address of the host that takes it.
fn open(door: &str) -> std::io::Result<TcpStream> {
    let mut failed = std::io::Error::other("the host has no address");
    for address in door.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn run(door: &str, number: u32, inputs: &Sender<Input>) -> std::io::Result<()> {
    let mut socket = open(door)?;
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(WRITE_LIMIT))?;
    if inputs.send(Input::Connected(number, socket.try_clone()?)).is_err() {
        return Ok(());
    }
    let mut buffer = [0; 16 << 10];
    loop {
        let count = match socket.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if inputs.send(Input::Bytes(number, buffer[..count].to_vec())).is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_host_is_found_by_its_name() {
        // Where `localhost` is `::1` first, nobody listens there.
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (sender, inputs) = std::sync::mpsc::channel();
        connect(format!("localhost:{}", server.local_addr().unwrap().port()), 7, sender);
        let input = inputs.recv().unwrap();
        assert!(matches!(input, Input::Connected(7, _)), "{input:?}");
    }
}
