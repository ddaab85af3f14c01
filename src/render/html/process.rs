//! What the report says of one process.

use super::rows::{CodeRow, HoldRow, ThreadTable};
use super::words::{Unit, is_alarming, of_figure};
use crate::analysis::{Analysed, Causes, Estimate, GilAnalysis, HoldLength, Verdict, overhead_cpu};
use crate::recording::{Ending, GilTrack, Recording};
use crate::render::heading::{self, seconds};
use crate::text::{name, shorten, visible};

/// The longest sentence or command line, in characters: names in them are the target's.
const LONGEST_SENTENCE: usize = 1000;

/// One process's part of the report.
pub(super) struct Process {
    pub(super) pid: String,
    pub(super) command: String,
    pub(super) line: String,
    pub(super) when: String,
    pub(super) verdicts: Vec<Judgement>,
    /// What is said where there is no verdict, or besides.
    pub(super) remarks: Vec<String>,
    pub(super) gils: Vec<Gil>,
    pub(super) holds: Option<Vec<HoldRow>>,
    /// How many long holds there were besides.
    pub(super) holds_left_out: usize,
    pub(super) code: Vec<CodeRow>,
    /// How many lines of code there were besides.
    pub(super) code_left_out: usize,
    pub(super) sees_all_threads: bool,
    /// Whether it is known who waits.
    pub(super) has_waiting: bool,
    pub(super) threads: ThreadTable,
    pub(super) how: Vec<(&'static str, String)>,
}

/// A verdict in words.
pub(super) struct Judgement {
    pub(super) kind: String,
    pub(super) is_alarming: bool,
    pub(super) summary: String,
    pub(super) advice: Vec<String>,
    pub(super) figures: String,
}

/// The key figures of one GIL.
pub(super) struct Gil {
    /// Where there are several.
    pub(super) name: Option<String>,
    pub(super) figures: Vec<Figure>,
    /// Why threads waited; empty where none did.
    pub(super) causes: Vec<Cause>,
}

/// A key figure.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) note: String,
}

/// A cause of waiting.
pub(super) struct Cause {
    pub(super) class: &'static str,
    pub(super) words: &'static str,
    pub(super) time: String,
    pub(super) percent: String,
}

impl Process {
    pub(super) fn of(process: &Analysed<'_>) -> Self {
        let Analysed { recording, analysis } = process;
        let mut verdicts = Vec::new();
        if let Some(verdict) = &analysis.verdict {
            verdicts.push(Judgement::of(verdict, ""));
            verdicts.extend(verdict.second.iter().map(|second| Judgement::of(second, "Also ")));
        }
        let (holds, holds_left_out) = HoldRow::all(process);
        let (code, code_left_out) = CodeRow::all(process);
        Process {
            pid: recording.target.pid.to_string(),
            command: heading::command(recording),
            line: heading::place(recording),
            when: heading::when(recording),
            verdicts,
            remarks: remarks(process),
            gils: (recording.gils.iter().zip(&analysis.gils))
                .map(|(gil, of_gil)| Gil::of(recording, gil, of_gil, analysis.headroom))
                .collect(),
            holds,
            holds_left_out,
            code,
            code_left_out,
            sees_all_threads: recording.sees_all_threads,
            has_waiting: process.knows_waiting(),
            threads: ThreadTable::of(process),
            how: how(recording),
        }
    }
}

impl Judgement {
    fn of(verdict: &Verdict, before: &str) -> Self {
        let name = verdict.kind.name();
        let kind = match before {
            "" => name[..1].to_uppercase() + &name[1..],
            _ => format!("{before}{name}"),
        };
        let figures = verdict.figures.iter().map(|figure| {
            let (words, unit) = of_figure(figure.name);
            match words.strip_prefix("of ") {
                Some(_) => format!("{} {words}", estimate(figure.estimate, unit)),
                None => format!("{words} {}", estimate(figure.estimate, unit)),
            }
        });
        Judgement {
            kind,
            is_alarming: is_alarming(verdict.kind),
            summary: shorten(&visible(&verdict.summary), LONGEST_SENTENCE),
            advice: (verdict.advice.iter())
                .map(|advice| shorten(&visible(advice), LONGEST_SENTENCE))
                .collect(),
            figures: figures.collect::<Vec<_>>().join(" · "),
        }
    }
}

/// A figure with how sure it is, as far as that is worth its digits.
fn estimate(estimate: Estimate, unit: Unit) -> String {
    let Estimate { mean, ci95 } = estimate;
    match (unit, ci95) {
        (Unit::Share, Some(ci95)) => format!("{:.1} ± {:.1} %", mean * 100.0, ci95 * 100.0),
        (Unit::Share, None) => format!("{:.1} %", mean * 100.0),
        (Unit::Number, Some(ci95)) => format!("{mean:.1} ± {ci95:.1}"),
        (Unit::Number, None) => format!("{mean:.1}"),
        (Unit::Count, _) => format!("{mean:.0}"),
        (Unit::Time, _) => seconds(mean),
    }
}

/// What has to be said before anything else.
fn remarks(process: &Analysed<'_>) -> Vec<String> {
    let recording = process.recording;
    let pid = recording.target.pid;
    let ending = match recording.ending {
        Ending::Finished | Ending::Interrupted => None,
        Ending::StillRecording => {
            Some("The recording goes on: this is what was recorded until now.".to_owned())
        }
        Ending::Lost => {
            Some("gilspy ended before the recording did: this is what it had written by then.".to_owned())
        }
        Ending::TargetExited => Some(format!("The recording ended when pid {pid} did.")),
        Ending::TargetExecuted => {
            Some(format!("The recording ended when pid {pid} started another program."))
        }
        Ending::TargetUnreadable => {
            Some(format!("The recording ended when pid {pid} could no longer be read."))
        }
    };
    let unknown = match recording.sees_all_threads {
        true => {
            "It is mostly unknown what threads did that did not hold the GIL: who waits, and for whom, is not known."
        }
        false => "Only holders of the GIL were looked at (--gil): who waits, and for whom, is not known.",
    };
    let unknown = (!process.knows_waiting()).then(|| unknown.to_owned());
    let quota =
        recording.throttling.filter(|throttling| throttling.throttled_periods > 0).map(|throttling| {
            let quota = throttling.quota_cpus.map_or_else(String::new, |cpus| format!(" of {cpus} CPUs"));
            format!(
                "The cgroup's CPU quota{quota} held the process back for {} in {} of {} periods.",
                heading::duration(throttling.throttled),
                throttling.throttled_periods,
                throttling.periods
            )
        });
    [unknown, quota, ending].into_iter().flatten().collect()
}

impl Gil {
    fn of(recording: &Recording, gil: &GilTrack, analysis: &GilAnalysis, headroom: Option<f64>) -> Self {
        let ids: Vec<String> = gil.interpreters.iter().map(i64::to_string).collect();
        Gil {
            name: (recording.gils.len() > 1).then(|| format!("GIL of interpreter {}", ids.join(", "))),
            figures: figures(gil, analysis, headroom.filter(|_| recording.gils.len() == 1)),
            causes: analysis.waiting.as_ref().map(|waiting| causes(waiting.causes)).unwrap_or_default(),
        }
    }
}

fn figures(gil: &GilTrack, analysis: &GilAnalysis, headroom: Option<f64>) -> Vec<Figure> {
    let figure = |name, value, note| Figure { name, value, note };
    if !gil.enabled {
        return vec![figure("GIL held", "–".to_owned(), "there is none: free-threaded".to_owned())];
    }
    let sure = |estimate: Estimate, scale: f64, unit: &str| {
        estimate.ci95.map_or_else(String::new, |ci95| format!("± {:.1}{unit}", ci95 * scale))
    };
    let held = analysis.held;
    let mut figures =
        vec![figure("GIL held", format!("{:.1} %", held.mean * 100.0), sure(held, 100.0, " % of the time"))];
    if let Some(waiting) = &analysis.waiting {
        let waiters = waiting.waiters;
        figures.push(figure(
            "threads waiting",
            format!("{:.1}", waiters.mean),
            sure(waiters, 1.0, " at a time"),
        ));
        let total = waiting.causes.total_s();
        figures.push(figure("waited in all", seconds(total), "thread-seconds lost".to_owned()));
    }
    let lengths = &analysis.hold_lengths;
    let in_words = |length: HoldLength| match length {
        HoldLength::About(length) => seconds(length),
        HoldLength::Below(length) => format!("< {}", seconds(length)),
    };
    if let (Some(p50), Some(p99), Some(max)) = (lengths.p50, lengths.p99, lengths.max) {
        let note = format!("median {}, 99 % within {}", in_words(p50), in_words(p99));
        figures.push(figure("longest hold", in_words(max), note));
    }
    if let Some(rate) = analysis.handovers_per_s {
        figures.push(figure("handovers", format!("{rate:.0} /s"), format!("{} in all", gil.handovers)));
    }
    if let Some(times) = headroom {
        let note = "times as fast without the GIL, at most".to_owned();
        figures.push(figure("headroom", format!("{times:.1} ×"), note));
    }
    figures
}

fn causes(causes: Causes) -> Vec<Cause> {
    let total = causes.total_s();
    let cause = |class, words, time: f64| {
        let percent = format!("{:.1}", time * 100.0 / total);
        (time > 0.0 && total > 0.0).then(|| Cause { class, words, time: seconds(time), percent })
    };
    [
        cause("hogged", "behind calls that do not release the GIL (long holds)", causes.hogged_s),
        cause("stalled", "behind a holder that was blocked", causes.stalled_s),
        cause("starved", "behind a holder that had no CPU", causes.starved_s),
        cause("shared", "behind code that gave way when asked", causes.shared_s),
        cause("between", "while the GIL changed hands", causes.between_s),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How it was recorded.
fn how(recording: &Recording) -> Vec<(&'static str, String)> {
    let target = &recording.target;
    let build = if target.free_threaded { " (free-threaded build)" } else { "" };
    let mut how = vec![
        ("command", shorten(&visible(&target.command.join(" ")), LONGEST_SENTENCE)),
        ("pid", target.pid.to_string()),
        ("host", name(&target.host).into_owned()),
        ("Python", format!("CPython {}{build}", name(&target.python))),
        ("started", heading::start(recording)),
        ("duration", heading::duration(recording.length())),
        ("rate", format!("{} Hz", recording.rate_hz)),
        ("ticks", heading::ticks(recording)),
    ];
    let changes = recording.rate_changes.iter();
    let changes: Vec<String> =
        changes.map(|change| format!("{:.0} Hz from {:.1} s on", change.rate_hz, change.at_s)).collect();
    if !changes.is_empty() {
        how.push(("rate lowered to", changes.join(", ")));
    }
    let looked = if recording.sees_all_threads { "every thread" } else { "holders of the GIL (--gil)" };
    how.push(("looked at", looked.to_owned()));
    how.push(("CPUs", recording.cpus.to_string()));
    if let Some(throttling) = recording.throttling {
        let quota =
            throttling.quota_cpus.map_or_else(|| "not known".to_owned(), |cpus| format!("{cpus} CPUs"));
        let periods = format!("{} of {} periods", throttling.throttled_periods, throttling.periods);
        how.push((
            "CPU quota",
            format!("{quota}, held back for {} in {periods}", heading::duration(throttling.throttled)),
        ));
    }
    if !recording.native_threads.is_empty() {
        how.push(("threads that run no Python", recording.native_threads.len().to_string()));
    }
    let used = overhead_cpu(recording) * 100.0;
    how.push(("gilspy", format!("version {}, used {used:.1} % of one CPU", env!("CARGO_PKG_VERSION"))));
    how
}
