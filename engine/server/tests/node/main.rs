//! Whole nodes: the real binary, real sockets, a real disk.

mod disk;
mod doors;
mod hostile;
mod kills;
mod phone;
mod process;
mod sessions;
