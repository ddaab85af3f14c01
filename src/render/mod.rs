//! Pictures and files, made from a recording alone: nothing here reads a process.

pub mod dump;
pub mod flamegraph;
pub mod folded;
mod heading;
pub mod html;
pub mod report;
mod stacks;
pub mod summary;
mod svg;
pub mod timeline;

pub use crate::text;
pub use stacks::StackOptions;
