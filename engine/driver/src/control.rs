//! The control plane's way to the shards: rare, so `flume` and an eventfd.

use std::sync::Arc;
use tern_core::control::{ControlReply, ControlRequest};
use tern_core::partitions::PartitionMap;
use tern_protocol::ids::ShardId;
use tern_ring::{Listener, Waker};

/// What a shard's thread is told from outside.
#[derive(Debug)]
pub(crate) enum Command {
    /// Ask the shard; the answer goes to the sender.
    Request(ControlRequest, flume::Sender<ControlReply>),
    /// Accept phones.
    Open(Listener),
    /// Drain.
    Drain,
}

/// How a shard's thread is reached.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) commands: flume::Sender<Command>,
    pub(crate) waker: Waker,
}

impl Port {
    pub(crate) fn tell(&self, command: Command) {
        // A shard that is gone takes no commands: the answer's sender is dropped, which its receiver sees.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

/// Asks shards. Cheap to clone; works from any thread.
#[derive(Clone, Debug)]
pub struct Control {
    pub(crate) partitions: Arc<PartitionMap>,
    pub(crate) ports: Arc<[Port]>,
}

impl Control {
    /// The shard that the name's account belongs to.
    #[must_use]
    pub fn shard_of_name(&self, name: &str) -> ShardId {
        self.partitions.home_of_name(name)
    }

    /// Asks a shard. The receiver yields the one answer, or is disconnected if the shard ends before.
    ///
    /// # Panics
    /// If there is no such shard.
    #[must_use]
    pub fn request(&self, shard: ShardId, request: ControlRequest) -> flume::Receiver<ControlReply> {
        let (answer, answered) = flume::bounded(1);
        self.ports[usize::from(shard.0)].tell(Command::Request(request, answer));
        answered
    }
}
