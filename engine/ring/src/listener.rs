//! Sockets that listen, and their accepts.

use crate::connect::{RawSocket, raw_address, socket_address};
use crate::event::{Event, ListenerId, Slot};
use crate::operation::RawAddress;
use crate::ring::Ring;
use crate::slots::Phase;
use crate::userdata::{Kind, listener_and_place, of_accept, plain};
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
    /// Takes `address`, with TCP_NODELAY, which accepted sockets inherit. Until this socket and those beside it are closed,
    /// nobody else can take it this way, whether they listen yet or not. What is left of a former listener's connections
    /// is no hindrance.
    ///
    /// # Errors
    /// The operating system's.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = RawSocket::tcp(&address)?;
        socket.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        socket.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        socket.bind(&raw_address(&address))?;
        // With SO_REUSEADDR, which leftovers need, several may bind, but only one may listen. It must go on to refuse the
        // others when it does not listen any more, so that it gives the option up meanwhile. A port of the kernel's choice
        // is nobody else's anyway, and would be given up with the listening.
        if address.port() == 0 {
            socket.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 0)?;
        } else {
            socket.start_to_listen(0)?;
            socket.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 0)?;
            socket.stop_to_listen()?;
        }
        // From here on for the sockets beside it.
        socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// Another socket on the same address: each shard has its own listener, and the kernel spreads connections over them
    /// (SO_REUSEPORT).
    ///
    /// # Errors
    /// The operating system's.
    pub fn beside(&self) -> io::Result<Self> {
        let socket = RawSocket::tcp(&self.address)?;
        socket.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        socket.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        socket.bind(&raw_address(&self.address))?;
        Ok(Self { socket, address: self.address })
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
        // Before, because accepted sockets inherit it, and what is left of them must not be in the way of a next start.
        self.socket.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
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

/// One accept: it has the kernel's or nobody's attention, and a place for the address of who connects.
pub(crate) struct Accept {
    address: RawAddress,
    armed: bool,
    /// The listener's number of resumptions when it was armed.
    armed_at: u32,
}

/// A listener of a ring.
pub(crate) struct ListenerState {
    /// None: stopped, and no accept is under way any more.
    socket: Option<TcpListener>,
    stopping: bool,
    /// After an error, until a slot is freed or the caller resumes.
    paused: bool,
    /// How often it went on after a pause.
    resume_count: u32,
    /// The kernel writes into these, so that they never move.
    accepts: Box<[Accept]>,
    armed_count: u16,
}

impl ListenerState {
    fn resume(&mut self) {
        if std::mem::replace(&mut self.paused, false) {
            self.resume_count = self.resume_count.wrapping_add(1);
        }
    }
}

/// Bytes for an address of any family.
const ADDRESS_BYTES: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;

impl Ring {
    /// Accepts from `listener` until it is stopped: `Accepted` for each socket, which is already in a slot.
    ///
    /// A multishot accept would not tell addresses, so that there are `Config::accept_count` single ones, each with
    /// storage of its own.
    pub fn accept(&mut self, listener: Listener) -> ListenerId {
        let id = u32::try_from(self.memory.listeners.len()).expect("few listeners");
        // The kernel writes the address over it.
        let nothing = || raw_address(&SocketAddr::from(([0; 4], 0)));
        let accepts =
            (0..self.accept_count).map(|_| Accept { address: nothing(), armed: false, armed_at: 0 });
        self.memory.listeners.push(ListenerState {
            socket: Some(listener.socket),
            stopping: false,
            paused: false,
            resume_count: 0,
            accepts: accepts.collect(),
            armed_count: 0,
        });
        ListenerId(id)
    }

    /// Tries again after `AcceptPaused`.
    pub fn resume_accept(&mut self, listener: ListenerId) {
        if let Some(state) = self.memory.listeners.get_mut(listener.0 as usize) {
            state.resume();
        }
    }

    /// Closes a listener. Sockets that were accepted before may still be reported.
    pub fn stop_accept(&mut self, listener: ListenerId) {
        let Some(state) = self.memory.listeners.get_mut(listener.0 as usize) else { return };
        state.stopping = true;
        if state.armed_count == 0 {
            state.socket = None;
        } else {
            // The socket is closed when its last accept has ended.
            self.cancel_accepts(listener.0);
        }
    }

    /// A slot is free: listeners that were paused for lack of one go on.
    pub(crate) fn unpause_accepts(&mut self) {
        self.memory.listeners.iter_mut().for_each(ListenerState::resume);
    }

    pub(crate) fn rearm_accepts(&mut self) {
        // An accept that finds no free slot throws its connection away: no more of them than there are slots, but one,
        // which tells that the table is full.
        let free_count = self.slots.len().saturating_sub(self.stats.slots_used_now as usize).max(1);
        for index in 0..self.memory.listeners.len() {
            let state = &self.memory.listeners[index];
            if !state.paused && !state.stopping {
                let wanted_count = free_count.min(state.accepts.len());
                self.arm_accepts(index, wanted_count.saturating_sub(usize::from(state.armed_count)));
            }
        }
    }

    fn arm_accepts(&mut self, index: usize, mut more_count: usize) {
        for place in 0..self.accept_count {
            if more_count == 0 {
                return;
            }
            let state = &mut self.memory.listeners[index];
            let Some(socket) = &state.socket else { return };
            let accept = &mut state.accepts[usize::from(place)];
            if accept.armed {
                continue;
            }
            accept.armed = true;
            accept.armed_at = state.resume_count;
            accept.address.length = ADDRESS_BYTES;
            let storage = (&raw mut accept.address.storage).cast();
            let length = &raw mut accept.address.length;
            let entry = opcode::Accept::new(types::Fd(socket.as_raw_fd()), storage, length)
                .file_index(Some(types::DestinationSlot::auto_target()))
                .build();
            state.armed_count += 1;
            more_count -= 1;
            self.push(entry.user_data(of_accept(index as u32, place)));
        }
    }

    fn cancel_accepts(&mut self, index: u32) {
        let state = &self.memory.listeners[index as usize];
        let armed = (0..self.accept_count).filter(|&place| state.accepts[usize::from(place)].armed);
        for place in armed.collect::<Vec<_>>() {
            let target = of_accept(index, place);
            self.push(opcode::AsyncCancel::new(target).build().user_data(plain(Kind::Cancel, 0)));
        }
    }

    pub(crate) fn accept_completed(&mut self, payload: u64, result: i32) -> Option<Event<'static>> {
        let (index, place) = listener_and_place(payload);
        let listener = ListenerId(index);
        let state = &mut self.memory.listeners[index as usize];
        let accept = &mut state.accepts[usize::from(place)];
        accept.armed = false;
        let accept_armed_at = accept.armed_at;
        let peer = socket_address(&accept.address);
        state.armed_count -= 1;
        if state.stopping && state.armed_count == 0 {
            state.socket = None;
        }
        if result >= 0 {
            let slot = result as u32;
            let peer = peer.expect("listeners are of IPv4 or IPv6, and the kernel wrote the address");
            self.slot_filled(slot, Phase::Open, 0);
            // Through `ready`: a `Closed` of the slot's former socket may have just been put there.
            self.ready.push_back(Event::Accepted { slot: Slot(slot), listener, peer });
            return None;
        }
        // Errors of a single connection do not stop the listener; it is armed again at the next turn. Cancelled are
        // those of a listener that stops or is paused.
        let passing = [libc::ECONNABORTED, libc::EINTR, libc::EAGAIN, libc::EPROTO, libc::ECANCELED];
        // What was armed before the last resumption may speak of what was the matter before it.
        let is_stale = accept_armed_at != state.resume_count;
        if state.stopping || state.paused || is_stale || passing.contains(&-result) {
            return None;
        }
        state.paused = true;
        self.stats.accept_pause_count += 1;
        // The others would take connections out of the backlog only to lose them.
        self.cancel_accepts(index);
        Some(Event::AcceptPaused { listener, error: -result, table_is_full: self.is_full(-result) })
    }

    /// Whether an accept failed for want of a slot. The kernel has the same error for the whole system's open files.
    fn is_full(&self, error: i32) -> bool {
        error == libc::ENFILE && self.stats.slots_used_now as usize >= self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    #[test]
    fn an_address_is_taken_once_and_leftovers_are_no_hindrance() {
        let first = BoundAddress::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr();
        let is_taken = || {
            // Also for who only tries whether it is free.
            let tries = [BoundAddress::bind(address).map(drop), TcpListener::bind(address).map(drop)];
            tries.map(|tried| tried.map_err(|error| error.kind())) == [Err(io::ErrorKind::AddrInUse); 2]
        };
        assert!(is_taken(), "by the kernel's choice");
        drop(first);
        let first = BoundAddress::bind(address).unwrap();
        assert!(is_taken(), "by name");
        let second = first.beside().unwrap();
        assert!(is_taken() && TcpStream::connect(address).is_err(), "nobody listens yet");
        let second = second.listen(16).unwrap();
        assert!(is_taken(), "one of them listens");
        let first = first.listen(16).unwrap();
        assert!(is_taken(), "both of them listen");
        first.socket.set_nonblocking(true).unwrap();
        second.socket.set_nonblocking(true).unwrap();
        // By chance alone all of them would be at one of the two once in half a million runs.
        let phones: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut accepted = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        while accepted.len() < phones.len() {
            assert!(Instant::now() < deadline, "only {} were accepted", accepted.len());
            for (place, listener) in [&first.socket, &second.socket].into_iter().enumerate() {
                accepted.extend(listener.accept().ok().map(|(socket, _)| (place, socket)));
            }
        }
        assert!(
            accepted.iter().any(|(place, _)| *place == 0) && accepted.iter().any(|(place, _)| *place == 1)
        );
        // Half of them are closed by this side, whose half they keep for a while, and half stay open.
        accepted.truncate(10);
        drop(first);
        assert!(is_taken(), "one of them is left");
        drop(second);
        BoundAddress::bind(address).unwrap().beside().unwrap().listen(16).unwrap();
    }

    /// What the listener says next: the error of a pause, or a peer.
    fn next(ring: &mut Ring) -> Result<SocketAddr, i32> {
        for _ in 0..100 {
            match ring.next_event() {
                Some(Event::AcceptPaused { error, .. }) => return Err(error),
                Some(Event::Accepted { peer, .. }) => return Ok(peer),
                Some(other) => panic!("{other:?}"),
                None => ring.enter(Some(Duration::from_millis(20))).unwrap(),
            }
        }
        panic!("the listener says nothing")
    }

    #[test]
    fn an_error_of_the_kernel_pauses_until_the_caller_resumes() {
        let mut ring = Ring::new(&Config { descriptor_count: 8, ..Config::default() }).unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let fd = listener.socket.as_raw_fd();
        let id = ring.accept(listener);
        ring.enter(None).unwrap();
        // It does not listen any more, which ends the accepts.
        // SAFETY: no memory is passed; the ring holds the descriptor open.
        assert_eq!(unsafe { libc::shutdown(fd, libc::SHUT_RD) }, 0);
        assert_eq!(next(&mut ring), Err(libc::EINVAL));
        for _ in 0..5 {
            ring.enter(Some(Duration::from_millis(2))).unwrap();
            assert_eq!(ring.next_event(), None, "said once for all its accepts, and not tried again");
        }
        ring.resume_accept(id);
        assert_eq!(next(&mut ring), Err(libc::EINVAL), "it was tried again");
        // SAFETY: as above.
        assert_eq!(unsafe { libc::listen(fd, 16) }, 0);
        // The port that the system had picked was given up with the end.
        let address = ring.memory.listeners[0].socket.as_ref().unwrap().local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        ring.resume_accept(id);
        assert_eq!(next(&mut ring), Ok(client.local_addr().unwrap()));
        assert_eq!(ring.stats().accept_pause_count, 2);
    }

    #[test]
    fn the_systems_full_table_is_told_apart_from_the_rings() {
        let mut ring = Ring::new(&Config { descriptor_count: 2, ..Config::default() }).unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let address = listener.local_addr().unwrap();
        ring.accept(listener);
        // With room in the ring's table it is the system's that is meant.
        assert!(!ring.is_full(libc::ENFILE));
        let _clients = [0; 3].map(|_| TcpStream::connect(address).unwrap());
        for _ in 0..200 {
            match ring.next_event() {
                Some(Event::AcceptPaused { error, table_is_full, .. }) => {
                    assert_eq!((error, table_is_full), (libc::ENFILE, true));
                    assert!(!ring.is_full(libc::ENOMEM));
                    return;
                }
                Some(_) => {}
                None => ring.enter(Some(Duration::from_millis(20))).unwrap(),
            }
        }
        panic!("the table is full and nobody says so");
    }
}
