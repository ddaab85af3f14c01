//! What one `dump` saw: every thread once, and the GIL in many looks.

use std::time::Duration;

use super::{Frame, Target, ThreadIndex, ThreadState};
use crate::units::{NamespaceTid, Tid};

/// One process, looked at for a moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The process.
    pub target: Target,
    /// When, by the wall clock.
    pub time: jiff::Timestamp,
    /// Its interpreters, the main one first.
    pub interpreters: Vec<InterpreterSnapshot>,
}

/// One interpreter.
#[derive(Debug, Clone)]
pub struct InterpreterSnapshot {
    /// CPython's own number for it; 0 is the main interpreter.
    pub id: i64,
    /// Its GIL, perhaps shared with other interpreters.
    pub gil: GilSnapshot,
    /// The threads that were in it in most looks, oldest first.
    pub threads: Vec<ThreadSnapshot>,
}

/// One GIL in many looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GilSnapshot {
    /// Whether there is one to hold; `None` where no look was consistent.
    pub enabled: Option<bool>,
    /// Handovers since the interpreter started, as of the last look.
    pub handovers: Option<u64>,
    /// The switch interval.
    pub switch_interval: Option<Duration>,
    /// How many looks there were.
    pub looks: u32,
    /// From the first look to the last.
    pub span: Duration,
    /// In how many looks which thread held it, most often first.
    pub held_by: Vec<(HolderSnapshot, u32)>,
    /// In how many looks nobody held it.
    pub free: u32,
    /// How many threads waited for it in most looks.
    pub waiting: u32,
    /// In how many looks it could not be read consistently.
    pub unknown: u32,
    /// In how many looks there was no GIL, and one thread had stopped others.
    pub stopped: u32,
}

/// A thread that held the GIL; it may belong to another interpreter that shares it, or have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderSnapshot {
    /// Its number.
    pub index: ThreadIndex,
    /// Its id as gilspy's namespace counts.
    pub tid: Option<Tid>,
    /// Its name.
    pub name: Option<String>,
    /// What it executed in the last look that saw it hold the GIL; empty where that could not be read.
    pub frames: Vec<Frame>,
    /// For how long it has been executing that at least, as far as the looks tell; `None` where it was seen to do
    /// something else since.
    pub since: Option<Duration>,
}

/// One thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadSnapshot {
    /// Its number.
    pub index: ThreadIndex,
    /// Its id as gilspy's namespace counts.
    pub tid: Option<Tid>,
    /// Its id as the target's namespace counts.
    pub namespace_tid: Option<NamespaceTid>,
    /// Its name.
    pub name: Option<String>,
    /// All interpreters that it was in, by CPython's own numbering.
    pub interpreters: Vec<i64>,
    /// What it did in most looks.
    pub state: ThreadState,
    /// For how long it has been doing that at least, as far as the looks tell; `None` where it did something else in
    /// the last one.
    pub since: Option<Duration>,
    /// The interpreter whose GIL it waits for, where that is not one that its own interpreter has.
    pub waits_elsewhere: Option<i64>,
    /// Who held the GIL most while it waited for that.
    pub waits_for: Option<(Option<String>, Option<Tid>)>,
    /// Its stack, innermost call first; `None` where it could not be read consistently.
    pub frames: Option<Vec<Frame>>,
}

impl GilSnapshot {
    /// The thread that held it most often, and in how many looks.
    pub fn holder(&self) -> Option<(&HolderSnapshot, u32)> {
        self.held_by.first().map(|(holder, looks)| (holder, *looks))
    }
}

/// What to call a thread where there is room for one name only.
pub fn label(name: Option<&str>, tid: Option<Tid>) -> String {
    match (name, tid) {
        (Some(name), _) => name.to_owned(),
        (None, Some(tid)) => format!("thread {tid}"),
        (None, None) => "unknown thread".to_owned(),
    }
}
