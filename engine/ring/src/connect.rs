//! Making outgoing connections, straight into a slot.

use crate::operation::{Operation, RawAddress};
use crate::ring::Ring;
use io_uring::{opcode, types};
use std::io;
use std::mem::{offset_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
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
        self.start_to_listen(backlog_count)?;
        Ok(TcpListener::from(self.0))
    }

    pub(crate) fn start_to_listen(&self, backlog_count: u32) -> io::Result<()> {
        let backlog = i32::try_from(backlog_count).unwrap_or(i32::MAX);
        // SAFETY: no memory is passed.
        let result = unsafe { libc::listen(self.0.as_raw_fd(), backlog) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// An address that was bound by name stays bound.
    pub(crate) fn stop_to_listen(&self) -> io::Result<()> {
        // SAFETY: no memory is passed.
        let result = unsafe { libc::shutdown(self.0.as_raw_fd(), libc::SHUT_RD) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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

/// The address that the kernel wrote; none for another family than IPv4 and IPv6.
pub(crate) fn socket_address(raw: &RawAddress) -> Option<SocketAddr> {
    let storage = &raw const raw.storage;
    match i32::from(raw.storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: sockaddr_storage is as large and as aligned as any socket address, and all bytes are valid.
            let v4 = unsafe { storage.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { storage.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(match ip.to_ipv4_mapped() {
                Some(v4) => SocketAddr::new(v4.into(), port),
                None => SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into(),
            })
        }
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_back() {
        for text in ["127.0.0.1:80", "203.0.113.7:65535", "[::1]:1", "[2001:db8::7]:443"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(socket_address(&raw_address(&address)), Some(address));
        }
        let mapped = raw_address(&"[::ffff:192.0.2.1]:5".parse().unwrap());
        assert_eq!(socket_address(&mapped), Some("192.0.2.1:5".parse().unwrap()));
        // SAFETY: all zeros is a valid sockaddr_storage.
        let nothing = RawAddress { storage: unsafe { zeroed() }, length: 0 };
        assert_eq!(socket_address(&nothing), None);
    }
}
