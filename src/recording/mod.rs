//! What a recording holds: who held each GIL at each tick, what every thread did, with which stack, and how
//! the recording was made. It knows neither processes nor pictures, so that every picture can be made again from it.
//!
//! A recording is a file (`docs/recording-format.md`) that is written part by part while it is made and read part by
//! part afterwards: of what grows with its length, only about a second is in memory.

mod cut;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod fake;
mod file;
mod part;
mod reading;
mod recorder;
mod runs;
pub mod snapshot;
mod stream;
mod stretch;
#[cfg(test)]
mod tests;
mod times;
mod v1;

use std::time::Duration;

use serde::Serialize;

pub use crate::sample::{
    Frame, Holder, NativeThread, StackIndex, StackTable, Syscall, TaskTimes, ThreadIndex, ThreadState,
    Throttling,
};
use crate::units::{NamespacePid, NamespaceTid, Pid, Tid, Timestamp};
pub use file::{Appender, NewProcess, Session, Source};
pub use part::{Counted, GilPart, Part};
pub use reading::{NotARecording, read};
pub use recorder::Recorder;
pub use runs::Runs;
pub use stream::{Stream, Written};
pub use stretch::{Stretch, Unreadable};
pub use times::TickTimes;

/// What was recorded of one process: how that was done, who took part, and where to read what the ticks saw
/// ([`Recording::stretches`]).
#[derive(Debug, Clone)]
pub struct Recording {
    /// The process that was recorded.
    pub target: Target,
    /// When the recording started, by the wall clock.
    pub start: jiff::Timestamp,
    /// Until when this process was recorded, since the start.
    pub duration: Duration,
    /// From when on it was, since the start: later than that where another one was recorded first.
    pub since: Duration,
    /// Its number in the file.
    pub number: u32,
    /// The number of the process that started it, if that is recorded too.
    pub parent: Option<u32>,
    /// The rate that was asked for, in ticks per second.
    pub rate_hz: u32,
    /// When the rate was lowered so that gilspy's own use of the CPU stays below its limit, and to what.
    pub rate_changes: Vec<RateChange>,
    /// How many moments there were at which the sampler looked.
    pub ticks: usize,
    /// The periods of the rate asked for that these ticks stand for.
    pub weight: u64,
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
    /// Every GIL.
    pub gils: Vec<GilTrack>,
    /// The stacks that the runs refer to.
    pub stacks: StackTable,
    /// Whether every thread was looked at, or only who holds a GIL.
    pub sees_all_threads: bool,
    /// The process's other threads, which run no Python, the busiest first.
    pub native_threads: Vec<NativeThread>,
    /// How the CPU quota of the process's cgroups held it back; `None` where there are none, or they cannot be
    /// read.
    pub throttling: Option<Throttling>,
    /// On how many CPUs the process may run.
    pub cpus: u32,
    /// Where to read the rest.
    parts: reading::Parts,
}

/// One moment at which the sampler looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// When.
    pub at: Timestamp,
    /// For how many periods of the rate asked for it stands: more than 1 once the rate was lowered.
    pub weight: u32,
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
    /// The same as its own namespace counts, such as a container's; `None` where that is not known.
    pub namespace_pid: Option<NamespacePid>,
    /// The interpreter's version, such as `3.14.10` or `3.15.0rc1`.
    pub python: String,
    /// Whether it is a free-threaded build (its GIL may still be on).
    pub free_threaded: bool,
    /// Its command line.
    pub command: Vec<String>,
    /// The host's name.
    pub host: String,
}

impl Recording {
    /// For how long the process was recorded.
    pub fn length(&self) -> Duration {
        self.duration.saturating_sub(self.since)
    }
}

impl Target {
    /// Its pid in its own namespace, where that is another: ` (1 in its namespace)`.
    pub fn own_pid(&self) -> String {
        let own = self.namespace_pid.filter(|own| own.raw() != self.pid.raw());
        own.map_or_else(String::new, |own| format!(" ({own} in its namespace)"))
    }

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
    /// It has not: this is what was recorded until now.
    StillRecording,
    /// gilspy ended before it could say why: it was killed, or its disk was full. This is what it had written.
    Lost,
}

/// A thread of the target that has a Python thread state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// The interpreter that it was in most, by CPython's own numbering (0 is the main interpreter).
    pub interpreter: i64,
    /// All interpreters that it was in, in the order of first sight.
    pub interpreters: Vec<i64>,
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
    /// What the scheduler counted of it; nothing where only holders were looked at.
    pub times: TaskTimes,
}

/// What a thread did over a stretch of time; nothing where only holders were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThreadTrack {
    /// What each tick saw, as long as it lived.
    pub runs: Runs<ThreadRun>,
    /// What the scheduler counted of it.
    pub times: TaskTimes,
    /// When it had a GIL and no CPU.
    pub starvations: Vec<Starvation>,
}

/// What a tick saw of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadRun {
    /// What it was doing.
    pub state: ThreadState,
    /// Its stack.
    pub stack: StackIndex,
}

/// A stretch that a thread spent in the run queue while it held a GIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starvation {
    /// The place of the tick that found it over.
    pub tick: u32,
    /// How long it was.
    pub duration: Duration,
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
#[derive(Debug, Clone, PartialEq)]
pub struct GilTrack {
    /// The interpreters that share this GIL, by CPython's own numbering.
    pub interpreters: Vec<i64>,
    /// Whether there was a GIL to hold, as of the last look: not in a free-threaded build that runs without.
    pub enabled: bool,
    /// When that changed, in order of time: a free-threaded build switches the GIL on for the time that it takes to
    /// import an extension module, and leaves it on if that needs it.
    pub switches: Vec<GilSwitch>,
    /// After how long a holder is asked to give way (`sys.getswitchinterval()`).
    pub switch_interval: Duration,
    /// How often the GIL passed from one thread to another, counted by the interpreter itself.
    pub handovers: u64,
    /// How many ticks saw it.
    pub ticks: usize,
}

/// A GIL that was switched on or off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GilSwitch {
    /// When that was first seen, in seconds since the start.
    pub at_s: f64,
    /// Whether there has been a GIL from then on.
    pub enabled: bool,
}

/// What a tick saw of a GIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GilRun {
    /// Who held it.
    pub holder: Holder,
    /// Handovers since the first tick that could read their number.
    pub handovers: u32,
}
