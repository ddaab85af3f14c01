//! What `record` says while it records: to standard error, and moving only on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::RecordArgs;
use crate::recording::{Recorder, Target};
use crate::text::{shorten, visible};
use crate::units::Timestamp;

/// Columns of a terminal.
const WIDTH: usize = 80;

/// The line that moves.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Says what is going to be recorded.
    pub(super) fn start(target: &Target, args: &RecordArgs, threads: usize) -> Self {
        let command = target.command_title();
        let until = if args.duration.is_none() && args.pid.is_some() { "; Ctrl-C ends it" } else { "" };
        let plural = if threads == 1 { "" } else { "s" };
        let before = format!("Recording pid {}{} (", target.pid, target.own_pid());
        let after = format!(", CPython {}, {threads} thread{plural})", target.python);
        let room = WIDTH.saturating_sub(before.len() + after.len());
        eprintln!("{before}{}{after}\nat {} Hz{until}", shorten(&visible(&command), room), args.rate);
        let bar = match args.duration {
            Some(duration) => ProgressBar::new(duration.as_millis() as u64).with_style(style("{bar:30} ")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} ")),
        };
        Progress(bar)
    }

    /// Shows how far it is.
    pub(super) fn show(&self, recorder: &Recorder, now: Timestamp) {
        self.0.set_position(now.as_nanos() / 1_000_000);
        let held = recorder.held_lately();
        let elapsed = Duration::from_nanos(now.as_nanos()).as_secs_f64();
        self.0.set_message(format!("{elapsed:.1} s   GIL {:.0} %", held * 100.0));
    }

    /// Says something that stays.
    pub(super) fn say(&self, line: &str) {
        self.0.suspend(|| eprintln!("{line}"));
    }

    /// Takes the line away.
    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn style(bar: &str) -> ProgressStyle {
    ProgressStyle::with_template(&format!("{bar}{{msg}}"))
        .map(|style| style.progress_chars("━╸ "))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
