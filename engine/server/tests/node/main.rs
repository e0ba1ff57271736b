//! Whole nodes: the real binary, real sockets, a real disk.

mod admin_page;
mod chat;
mod descriptors;
mod disk;
mod doors;
mod endings;
mod hostile;
mod kills;
mod log;
mod phone;
mod process;
mod resume;
mod sessions;
mod slow_readers;
mod storm;
mod stuck;
mod top;
