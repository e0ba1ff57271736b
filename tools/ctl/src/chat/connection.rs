//! The threads that wait: one reads standard input, and one for each connection connects and reads it.

use std::io::{BufRead, Read};
use std::net::{SocketAddr, TcpStream};
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

/// Connects and reads until the connection ends.
pub(super) fn connect(door: SocketAddr, number: u32, inputs: Sender<Input>) {
    thread::spawn(move || {
        let why = match run(door, number, &inputs) {
            Ok(()) => String::from("the server closed the connection"),
            Err(error) => error.to_string(),
        };
        let _ = inputs.send(Input::Lost(number, why));
    });
}

fn run(door: SocketAddr, number: u32, inputs: &Sender<Input>) -> std::io::Result<()> {
    let mut socket = TcpStream::connect_timeout(&door, CONNECT_LIMIT)?;
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
