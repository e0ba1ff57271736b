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

/// The next command that is still wanted. Who has asked a shard that was stuck may have given up and said so: what it asked
/// for is not done afterwards.
pub(crate) fn next_wanted(commands: &flume::Receiver<Command>) -> Option<Command> {
    let is_given_up =
        |command: &Command| matches!(command, Command::Request(_, answer) if answer.is_disconnected());
    commands.try_iter().find(|command| !is_given_up(command))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_any_more_is_not_done() {
        let (commands, taken) = flume::unbounded();
        let ask = |name: &str| {
            let (answer, answered) = flume::bounded(1);
            commands
                .send(Command::Request(ControlRequest::RemoveAccount { name: name.into() }, answer))
                .unwrap();
            answered
        };
        // The shard is stuck, and the first two give up.
        drop(ask("ann"));
        drop(ask("bob"));
        let _carol = ask("carol");
        commands.send(Command::Drain).unwrap();
        drop(ask("dora"));
        let Some(Command::Request(ControlRequest::RemoveAccount { name }, _)) = next_wanted(&taken) else {
            panic!("carol waits")
        };
        assert_eq!(name, "carol");
        assert!(matches!(next_wanted(&taken), Some(Command::Drain)));
        assert!(next_wanted(&taken).is_none() && taken.is_empty());
    }
}
