//! Pictures and files, made from a recording alone: nothing here reads a process.

mod chart;
pub mod chrometrace;
pub mod diff;
pub mod differential;
pub mod dump;
pub mod flamegraph;
pub mod folded;
pub mod gecko;
mod heading;
#[cfg(test)]
mod hostile;
pub mod html;
mod json;
mod lanes;
pub mod pprof;
pub mod report;
pub mod speedscope;
mod stacks;
pub mod summary;
pub mod summary_of_several;
mod svg;
pub mod timeline;

pub use crate::text;
pub use stacks::StackOptions;
