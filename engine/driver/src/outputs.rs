//! How a shard's outputs become operations.

use crate::control::Port;
use crate::lifecycle::Exit;
use crate::shard_thread::{ShardThread, wake};
use crate::sockets::Sockets;
use tern_core::io::{ConnId, Input, Output};
use tern_protocol::ids::ShardId;

impl ShardThread {
    /// Does what the shard asked for in this turn, in order.
    ///
    /// # Errors
    /// Why the node must stop.
    pub(crate) fn perform(&mut self) -> Result<(), Exit> {
        let mut out = std::mem::take(&mut self.out);
        let arena = &out.arena;
        for output in out.list.drain(..) {
            match output {
                Output::ReceiveOnce(conn) => self.sockets.receive_once(&mut self.ring, conn),
                Output::WatchForEnd(conn) => self.sockets.watch(&mut self.ring, conn),
                Output::ReceiveAlways(conn) => self.sockets.adopt(&mut self.ring, conn),
                Output::Send { conn, data } => self.sockets.send(&mut self.ring, conn, &arena[data]),
                Output::Close(conn) => self.sockets.close(&mut self.ring, conn, self.clock.mono_ns()),
                Output::CloseSlot(slot) => Sockets::close_slot(&mut self.ring, slot),
                Output::MoveSocket { conn, to, token } => self.move_socket(conn, to, token.0),
                Output::MoveState { to, state } => self.mesh.send_state(to, state),
                Output::Mesh { to, lane, data } => self.mesh.send(to, lane, &arena[data]),
                Output::WantRoom { to, lane, bytes } => self.mesh.want_room(to, lane, bytes),
                Output::Disk(op) => self.disk.start(&mut self.ring, op, arena),
                Output::Reply { token, reply } => {
                    if let Some(answer) = self.replies.remove(&token) {
                        // Who asked may have gone away.
                        let _ = answer.send(reply);
                    }
                }
                Output::Serving => {
                    if let Some(tell) = self.serving.take() {
                        tell();
                    }
                }
                Output::Continue => self.go_on = true,
                Output::Drained => self.drained(),
                Output::Fatal(error) => return Err(Exit::Fatal(error)),
            }
        }
        // Keeps the memory; what refusals of a move put into the new list meanwhile waits for the next turn.
        out.clear();
        let late = std::mem::replace(&mut self.out, out);
        if !late.list.is_empty() {
            self.out = late;
            self.go_on = true;
        }
        let (ring, peers) = (&mut self.ring, &self.peers);
        self.mesh.publish(|to| wake(ring, peers, to));
        Ok(())
    }

    fn move_socket(&mut self, conn: ConnId, to: ShardId, token: u64) {
        let peer = self.peers[usize::from(to.0)].expect("no shard moves a socket to itself");
        if !self.sockets.move_to(&mut self.ring, conn, peer, self.own.0, token) {
            let now = self.clock.now();
            self.shard.step(now, Input::SocketMoved { conn, moved: false }, &mut self.out);
        }
    }

    fn drained(&self) {
        if self.lifecycle.one_drained() {
            self.lifecycle.stop(Exit::Drained);
            wake_all(&self.ports);
        }
    }
}

/// Ends every shard's sleep, so that it sees that the node stops.
pub(crate) fn wake_all(ports: &[Port]) {
    ports.iter().for_each(|port| port.waker.wake());
}
