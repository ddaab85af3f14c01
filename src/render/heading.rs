//! What every picture says about the recording it was made from.

use std::time::Duration;

use crate::recording::Recording;
pub(super) use crate::text::seconds;
use crate::text::{name, shorten, visible};

/// The longest command line shown, in characters.
const LONGEST_COMMAND: usize = 60;

/// Command, process, interpreter, time, rate and ticks in one line.
pub(super) fn line(recording: &Recording) -> String {
    format!("{} · {} · {}", process(recording), when(recording), ticks(recording))
}

/// Command, process and interpreter.
pub(super) fn process(recording: &Recording) -> String {
    format!("{} · {}", command(recording), place(recording))
}

/// Process, host and interpreter.
pub(super) fn place(recording: &Recording) -> String {
    let target = &recording.target;
    let build = if target.free_threaded { " free-threaded" } else { "" };
    format!("pid {} on {} · CPython {}{build}", target.pid, name(&target.host), name(&target.python))
}

/// When, for how long and how closely.
pub(super) fn when(recording: &Recording) -> String {
    format!("{}, {} at {} Hz", start(recording), duration(recording.length()), recording.rate_hz)
}

/// The command line without the program's directory, cut where it is long.
pub(super) fn command(recording: &Recording) -> String {
    let command = recording.target.command_title();
    shorten(&visible(&command), LONGEST_COMMAND)
}

/// `2026-11-20 14:02:11 UTC`.
pub(super) fn start(recording: &Recording) -> String {
    recording.start.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `9998 ticks, 2 missed, 1 torn`.
pub(super) fn ticks(recording: &Recording) -> String {
    let (ticks, Recording { missed_ticks, torn_ticks, .. }) = (recording.ticks, recording);
    let plural = if ticks == 1 { "" } else { "s" };
    let lowered = recording.rate_changes.last();
    let lowered = lowered.map_or_else(String::new, |change| format!(", lowered to {:.0} Hz", change.rate_hz));
    format!("{ticks} tick{plural}, {missed_ticks} missed, {torn_ticks} torn{lowered}")
}

/// `10.0 s`, `250 ms`.
pub(super) fn duration(duration: Duration) -> String {
    seconds(duration.as_secs_f64())
}
