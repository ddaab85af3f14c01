//! The interpreter's side of the target: its GILs, thread states, stacks and names, read through
//! [`ReadMemory`](crate::target::memory::ReadMemory). Opens no file, asks the kernel nothing.
//!
//! All it reads is untrusted: every walk is bounded and every length checked.

mod batch;
pub mod code;
mod decode;
mod dict;
pub mod frames;
pub mod gil;
mod instance;
pub mod layout;
pub mod locate;
pub mod names;
mod objects;
pub mod threads;
pub mod version;
