//! gilspy answers three questions about a live CPython process, from outside and without pausing it:
//! who holds the GIL, who waits for it, and which code makes them wait.
//!
//! ```text
//! pid ─► target ─► cpython ─► sampler ─► recording ─► analysis ─► render
//!        (OS side)  (interpreter) (one tick)  (file)     (numbers)   (pictures, files)
//! ```
//!
//! Dependencies point only to the left: [`render`] never reads a process, `cpython` opens no file,
//! `target` knows no Python. Each arrow is a plain data type. Only `commands` joins both halves.
//!
//! The crate is a program; the library exists for its tests and benches and promises no stable API.

pub mod analysis;
pub mod cli;
pub mod commands;
pub mod cpython;
pub mod recording;
pub mod render;
pub mod sample;
pub mod sampler;
pub mod target;
pub mod text;
pub mod units;
