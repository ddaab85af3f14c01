//! What `record` says while it records: to standard error, and moving only on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use super::attach::Attached;
use super::followed::Followed;
use crate::cli::RecordArgs;
use crate::target::process::Process;
use crate::text::{pad, visible, visible_lines};
use crate::units::Timestamp;

/// Columns of a terminal.
const WIDTH: usize = 80;

/// The line that moves.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Says what is going to be recorded.
    pub(super) fn start(python: &[Attached], others: &[Process], args: &RecordArgs) -> Self {
        python.iter().for_each(say_what);
        for process in others {
            let name = process.name();
            let name = visible(&name);
            eprintln!("pid {} ({name}) has no Python; the processes that it starts may", process.pid());
        }
        let until = match args.duration.is_none() && !args.pids.is_empty() {
            true => "; Ctrl-C ends it",
            false => "",
        };
        let with = if args.subprocesses { ", with all processes that are started" } else { "" };
        eprintln!("at {} Hz{with}{until}", args.rate);
        let bar = match args.duration {
            Some(duration) => ProgressBar::new(duration.as_millis() as u64).with_style(style("{bar:30} ")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} ")),
        };
        Progress(bar)
    }

    /// Shows how far it is.
    pub(super) fn show(&self, processes: &[Followed], now: Timestamp) {
        self.0.set_position(now.as_nanos() / 1_000_000);
        let elapsed = now.as_secs_f64();
        let most = processes.iter().map(Followed::held_lately).fold(0.0, f64::max) * 100.0;
        self.0.set_message(match processes.len() {
            1 => format!("{elapsed:.1} s   GIL {most:.0} %"),
            count => format!("{elapsed:.1} s   {count} processes, GIL at most {most:.0} %"),
        });
    }

    /// Says something that stays.
    pub(super) fn say(&self, line: &str) {
        self.0.suspend(|| eprintln!("{}", visible_lines(line)));
    }

    /// Takes the line away.
    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn say_what(attached: &Attached) {
    let (target, threads) = (&attached.target, attached.sampler.threads().met());
    let command = target.command_title();
    let plural = if threads == 1 { "" } else { "s" };
    let python = visible(&target.python);
    let before = format!("Recording pid {}{} (", target.pid, target.own_pid());
    let after = format!(", CPython {python}, {threads} thread{plural})");
    let room = WIDTH.saturating_sub(before.len() + after.len());
    eprintln!("{before}{}{after}", pad(&visible(&command), room).trim_end());
}

fn style(bar: &str) -> ProgressStyle {
    ProgressStyle::with_template(&format!("{bar}{{msg}}"))
        .map(|style| style.progress_chars("━╸ "))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
