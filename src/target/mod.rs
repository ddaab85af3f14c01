//! The operating system's side of one process: its memory, its binaries, its threads. Knows no Python.

pub mod binaries;
pub mod cgroup;
pub mod children;
pub mod descriptors;
pub mod entry;
pub mod memory;
pub mod pause;
pub mod permission;
pub mod process;
pub mod tasks;
