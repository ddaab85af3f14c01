//! What a recording holds: who held each GIL at each tick, with which stack, and how the recording
//! was made. Plain data; it knows neither processes nor pictures, so that every picture can be made
//! again from it.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod fake;
mod recorder;
pub mod snapshot;

use std::time::Duration;

use serde::Serialize;

pub use crate::sample::{Frame, Holder, StackIndex, StackTable, ThreadIndex};
use crate::units::{NamespaceTid, Pid, Tid, Timestamp};
pub use recorder::Recorder;

/// One recording of one process.
#[derive(Debug, Clone)]
pub struct Recording {
    /// The process that was recorded.
    pub target: Target,
    /// When the recording started, by the wall clock.
    pub start: jiff::Timestamp,
    /// From the first tick's period to the end.
    pub duration: Duration,
    /// The rate that was asked for, in ticks per second.
    pub rate_hz: u32,
    /// When the rate was lowered so that gilspy's own use of the CPU stays below its limit, and to what.
    pub rate_changes: Vec<RateChange>,
    /// Moments at which the sampler looked.
    pub ticks: u64,
    /// Moments at which it should have looked and was too late.
    pub missed_ticks: u64,
    /// Looks at which the GIL's state could not be read consistently; those ticks say [`Holder::Unknown`].
    pub torn_ticks: u64,
    /// CPU time gilspy itself used while recording.
    pub own_cpu: Duration,
    /// Why the recording ended.
    pub ending: Ending,
    /// Every thread seen; a [`ThreadIndex`] is a place in this list.
    pub threads: Vec<Thread>,
    /// One track for each GIL.
    pub gils: Vec<GilTrack>,
    /// The stacks that the ticks refer to.
    pub stacks: StackTable,
}

/// The rate from some moment on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RateChange {
    /// From when on, in seconds since the start.
    pub at_s: f64,
    /// Ticks per second.
    pub rate_hz: f64,
}

/// The process that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its process id, as gilspy's namespace counts.
    pub pid: Pid,
    /// The interpreter's version, such as `3.14.10` or `3.15.0rc1`.
    pub python: String,
    /// Whether it is a free-threaded build (its GIL may still be on).
    pub free_threaded: bool,
    /// Its command line.
    pub command: Vec<String>,
    /// The host's name.
    pub host: String,
}

impl Target {
    /// The command line without the directory of the program: `python3 app.py`.
    pub fn command_title(&self) -> String {
        let Some((program, arguments)) = self.command.split_first() else {
            return "unknown command".to_owned();
        };
        // A program that has renamed itself (setproctitle) is no path.
        let name = match program.contains(' ') {
            true => program.as_str(),
            false => program.rsplit('/').next().unwrap_or(program),
        };
        [name].into_iter().chain(arguments.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    }
}

/// Why a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The asked-for duration was over.
    Finished,
    /// gilspy was asked to stop: Ctrl-C or SIGTERM.
    Interrupted,
    /// The target ended.
    TargetExited,
    /// The target replaced itself by another program: exec(2).
    TargetExecuted,
    /// The kernel no longer shows the target's memory, for instance because it changed its user.
    TargetUnreadable,
}

/// A thread of the target that has a Python thread state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// The interpreter it belongs to, by CPython's own numbering (0 is the main interpreter).
    pub interpreter: i64,
    /// Its id as gilspy's namespace counts; `None` where it could not be found.
    pub tid: Option<Tid>,
    /// Its id as the target's own namespace counts.
    pub namespace_tid: Option<NamespaceTid>,
    /// Its name as Python's `threading` has it, else the kernel's `comm`; `None` where neither could be read.
    pub name: Option<String>,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
}

impl Thread {
    /// What to call it where there is room for one name only.
    pub fn label(&self) -> String {
        snapshot::label(self.name.as_deref(), self.tid)
    }

    /// Name and id: `worker-1 (4247)`.
    pub fn title(&self) -> String {
        match (&self.name, self.tid) {
            (Some(name), Some(tid)) => format!("{name} ({tid})"),
            _ => self.label(),
        }
    }
}

/// One GIL over the time of the recording.
#[derive(Debug, Clone)]
pub struct GilTrack {
    /// The interpreters that share this GIL, by CPython's own numbering.
    pub interpreters: Vec<i64>,
    /// Whether there is a GIL to hold: false in a free-threaded build that runs without.
    pub enabled: bool,
    /// After how long a holder is asked to give way (`sys.getswitchinterval()`).
    pub switch_interval: Duration,
    /// How often the GIL passed from one thread to another, counted by the interpreter itself.
    pub handovers: u64,
    /// What was seen, in order of time.
    pub ticks: Vec<GilTick>,
}

/// What one tick saw of one GIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GilTick {
    /// When.
    pub at: Timestamp,
    /// For how many periods of the rate asked for it stands: more than 1 once the rate was lowered.
    pub weight: u32,
    /// Who held it.
    pub holder: Holder,
}
