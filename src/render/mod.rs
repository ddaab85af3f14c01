//! Pictures and files, made from a recording alone: nothing here reads a process.

pub mod dump;

pub use crate::text;
