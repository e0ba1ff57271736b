//! One shard's table of direct descriptors, as the kernel keeps it: the lowest free slot is used again at once.

use crate::network::LinkId;
use tern_core::io::ConnId;

/// Which receive is armed on a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receive {
    /// None.
    None,
    /// One that ends with its first bytes.
    Once,
    /// One that goes on.
    Always,
}

/// A socket in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Socket {
    /// Its stream.
    pub link: LinkId,
    /// What the shard calls it, once it has said so.
    pub conn: Option<ConnId>,
    /// Its armed receive.
    pub receive: Receive,
    /// Nothing is read, and its end is told.
    pub watched: bool,
    /// A receive without end was armed: it may not move any more.
    pub adopted: bool,
    /// A send is under way.
    pub sending: bool,
    /// The shard asked to close it.
    pub closing: bool,
    /// The shard asked to move it.
    pub moving: bool,
}

/// The table.
#[derive(Debug)]
pub struct Slots {
    table: Vec<Option<Socket>>,
    /// The last name of each slot, for completions that come late.
    last: Vec<Option<ConnId>>,
}

impl Slots {
    /// A table of `count` slots.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { table: vec![None; count], last: vec![None; count] }
    }

    /// Puts a socket into the lowest free slot; `None` when the table is full.
    pub fn insert(&mut self, link: LinkId) -> Option<u32> {
        let slot = self.table.iter().position(Option::is_none)?;
        self.table[slot] = Some(Socket {
            link,
            conn: None,
            receive: Receive::None,
            watched: false,
            adopted: false,
            sending: false,
            closing: false,
            moving: false,
        });
        Some(slot as u32)
    }

    /// The socket in `slot`.
    pub fn at(&mut self, slot: u32) -> Option<&mut Socket> {
        self.table.get_mut(slot as usize)?.as_mut()
    }

    /// The socket that the shard calls `conn`, if it is still that one. The first use of a new socket names it.
    ///
    /// # Errors
    /// When the slot is empty, or its socket has another name: the shard spoke of a socket that is gone.
    pub fn named(&mut self, conn: ConnId) -> Result<&mut Socket, String> {
        let last = self.last.get(conn.slot as usize).copied().flatten();
        let Some(socket) = self.table.get_mut(conn.slot as usize).and_then(Option::as_mut) else {
            return Err(format!("an output for {conn:?}, whose slot is empty"));
        };
        match socket.conn {
            None if last.is_some_and(|last| last.generation >= conn.generation) => {
                Err(format!("{conn:?} was used before ({last:?})"))
            }
            None => {
                socket.conn = Some(conn);
                Ok(socket)
            }
            Some(name) if name == conn => Ok(socket),
            Some(name) => Err(format!("an output for {conn:?}, but the slot holds {name:?}")),
        }
    }

    /// The socket that is called `conn`, or `None` when it is gone.
    pub fn find(&mut self, conn: ConnId) -> Option<&mut Socket> {
        self.at(conn.slot).filter(|socket| socket.conn == Some(conn))
    }

    /// Frees a slot.
    pub fn free(&mut self, slot: u32) -> Option<Socket> {
        let socket = self.table.get_mut(slot as usize)?.take()?;
        if socket.conn.is_some() {
            self.last[slot as usize] = socket.conn;
        }
        Some(socket)
    }

    /// What the socket before the present one was called in `slot`.
    #[must_use]
    pub fn last(&self, slot: u32) -> Option<ConnId> {
        self.last[slot as usize]
    }

    /// Slots in use.
    #[must_use]
    pub fn used_count(&self) -> usize {
        self.table.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_slot_is_reused_and_old_names_are_refused() {
        let mut slots = Slots::new(2);
        assert_eq!(
            (slots.insert(LinkId(1)), slots.insert(LinkId(2)), slots.insert(LinkId(3))),
            (Some(0), Some(1), None)
        );
        let old = ConnId { slot: 0, generation: 4 };
        slots.named(old).unwrap();
        assert!(slots.named(ConnId { slot: 0, generation: 5 }).is_err());
        slots.free(0);
        assert!(slots.named(old).is_err());
        assert_eq!(slots.insert(LinkId(4)), Some(0));
        assert!(slots.named(old).is_err(), "a generation comes once");
        assert_eq!(slots.last(0), Some(old));
        assert!(slots.named(ConnId { slot: 0, generation: 5 }).is_ok());
        assert_eq!(slots.find(old), None);
    }
}
