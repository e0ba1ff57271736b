//! Sockets that listen, and their multishot accepts.

use crate::connect::{RawSocket, raw_address};
use crate::event::ListenerId;
use crate::ring::Ring;
use crate::userdata::{Kind, plain};
use io_uring::{opcode, types};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

/// A bound, listening TCP socket, for [`Ring::accept`].
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
}

/// A bound TCP socket that does not listen yet: it holds the address, and connections to it are refused.
#[derive(Debug)]
pub struct BoundAddress {
    socket: RawSocket,
    address: SocketAddr,
}

impl BoundAddress {
    /// Binds `address` with SO_REUSEADDR and SO_REUSEPORT (each shard has its own listener on the same address, and
    /// the kernel spreads connections over them) and TCP_NODELAY, which accepted sockets inherit.
    ///
    /// # Errors
    /// The operating system's.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = RawSocket::tcp(&address)?;
        socket.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        socket.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        socket.bind(&raw_address(&address))?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// What was bound; tells the port when 0 was asked for.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Asks the kernel for the connections whose packets are worked on by hardware thread `cpu` (SO_INCOMING_CPU):
    /// among the sockets of one address it prefers this one for them. To be called before it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn prefer_cpu(&self, cpu: usize) -> io::Result<()> {
        let cpu = i32::try_from(cpu).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.socket.set(libc::SOL_SOCKET, libc::SO_INCOMING_CPU, cpu)
    }

    /// Starts to listen.
    ///
    /// # Errors
    /// The operating system's.
    pub fn listen(self, backlog_count: u32) -> io::Result<Listener> {
        Ok(Listener { socket: self.socket.listen(backlog_count)? })
    }
}

impl Listener {
    /// Binds and listens at once.
    ///
    /// # Errors
    /// The operating system's.
    pub fn bind(address: SocketAddr, backlog_count: u32) -> io::Result<Self> {
        BoundAddress::bind(address)?.listen(backlog_count)
    }

    /// Where it listens; tells the port when 0 was asked for.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A listener of a ring.
pub(crate) struct ListenerState {
    /// None: stopped, and no accept is under way any more.
    pub(crate) socket: Option<TcpListener>,
    pub(crate) stopping: bool,
    pub(crate) armed: bool,
    /// After an error, until a slot is freed or the caller resumes.
    pub(crate) paused: bool,
}

impl Ring {
    /// Accepts from `listener` until it is stopped: `Accepted` for each socket, which is already in a slot.
    pub fn accept(&mut self, listener: Listener) -> ListenerId {
        let id = u32::try_from(self.memory.listeners.len()).expect("few listeners");
        self.memory.listeners.push(ListenerState {
            socket: Some(listener.socket),
            stopping: false,
            armed: false,
            paused: false,
        });
        ListenerId(id)
    }

    /// Tries again after `AcceptPaused`.
    pub fn resume_accept(&mut self, listener: ListenerId) {
        if let Some(state) = self.memory.listeners.get_mut(listener.0 as usize) {
            state.paused = false;
        }
    }

    /// Closes a listener. Sockets that were accepted before may still be reported.
    pub fn stop_accept(&mut self, listener: ListenerId) {
        let Some(state) = self.memory.listeners.get_mut(listener.0 as usize) else { return };
        state.stopping = true;
        if state.armed {
            // The socket is closed when the accept has ended.
            let target = plain(Kind::Accept, u64::from(listener.0));
            self.push(opcode::AsyncCancel::new(target).build().user_data(plain(Kind::Cancel, 0)));
        } else {
            state.socket = None;
        }
    }

    pub(crate) fn rearm_accepts(&mut self) {
        for index in 0..self.memory.listeners.len() {
            let state = &mut self.memory.listeners[index];
            let Some(socket) =
                state.socket.as_ref().filter(|_| !state.armed && !state.paused && !state.stopping)
            else {
                continue;
            };
            let entry = opcode::AcceptMulti::new(types::Fd(socket.as_raw_fd())).allocate_file_index(true);
            state.armed = true;
            self.push(entry.build().user_data(plain(Kind::Accept, index as u64)));
        }
    }
}
