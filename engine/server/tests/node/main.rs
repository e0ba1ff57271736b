//! Whole nodes: the real binary, real sockets, a real disk.

mod chat;
mod disk;
mod doors;
mod hostile;
mod kills;
mod phone;
mod process;
mod resume;
mod sessions;
