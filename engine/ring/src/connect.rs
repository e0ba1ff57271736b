//! Making outgoing connections, straight into a slot.

use crate::operation::{Operation, RawAddress};
use crate::ring::Ring;
use io_uring::{opcode, types};
use std::io;
use std::mem::{offset_of, zeroed};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// FILES_UPDATE's offset that says: pick a slot, and tell me (IORING_FILE_INDEX_ALLOC).
const PICK_SLOT: i32 = -1;

/// A TCP socket on its way to be something.
#[derive(Debug)]
pub(crate) struct RawSocket(OwnedFd);

impl RawSocket {
    pub(crate) fn tcp(address: &SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the pointer and length describe `value`, which outlives the call.
        let result =
            unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, (&raw const value).cast(), length) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(crate) fn bind(&self, address: &RawAddress) -> io::Result<()> {
        let pointer = (&raw const address.storage).cast();
        // SAFETY: the pointer and length describe `address`, which outlives the call.
        let result = unsafe { libc::bind(self.0.as_raw_fd(), pointer, address.length) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::from(self.0.try_clone()?).local_addr()
    }

    pub(crate) fn listen(self, backlog_count: u32) -> io::Result<TcpListener> {
        let backlog = i32::try_from(backlog_count).unwrap_or(i32::MAX);
        // SAFETY: no memory is passed.
        let result = unsafe { libc::listen(self.0.as_raw_fd(), backlog) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(TcpListener::from(self.0)) }
    }
}

pub(crate) fn raw_address(address: &SocketAddr) -> RawAddress {
    // SAFETY: all zeros is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is as large and as aligned as any socket address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    debug_assert_eq!(offset_of!(libc::sockaddr_storage, ss_family), 0);
    RawAddress { storage, length: length as libc::socklen_t }
}

impl Ring {
    /// Connects to `address` with TCP_NODELAY, from `source` if given (a load generator spreads its connections over
    /// 127.0.0.0/8, as one pair of addresses has only some 28,000 ports). `Connected` or `ConnectFailed` follows.
    ///
    /// # Errors
    /// The operating system's, when not even a socket could be made or bound.
    pub fn connect(&mut self, address: SocketAddr, source: Option<IpAddr>, key: u64) -> io::Result<()> {
        let socket = RawSocket::tcp(&address)?;
        socket.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        if let Some(source) = source {
            // The port is picked at connect, when the other end is known: ports are then unique per pair only.
            socket.set(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
            socket.bind(&raw_address(&SocketAddr::new(source, 0)))?;
        }
        let number = Box::new(socket.0.as_raw_fd());
        let operation =
            Operation::Install { _socket: socket.0, number, address: Box::new(raw_address(&address)), key };
        self.push_operation(operation, |operation| {
            let Operation::Install { number, .. } = operation else {
                unreachable!("an install was inserted")
            };
            opcode::FilesUpdate::new(&raw mut **number, 1).offset(PICK_SLOT).build()
        });
        Ok(())
    }

    /// Goes on when the socket is in `slot`.
    pub(crate) fn push_connect(&mut self, slot: u32, address: Box<RawAddress>) {
        self.push_operation(Operation::Connect { slot, _address: address }, |operation| {
            let Operation::Connect { slot, _address } = operation else {
                unreachable!("a connect was inserted")
            };
            let pointer = (&raw const _address.storage).cast();
            opcode::Connect::new(types::Fixed(*slot), pointer, _address.length).build()
        });
    }
}
