//! `record -f json`: the figures for programs, see `docs/schema/report.json`. What is not measured is null.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use crate::analysis::{GilAnalysis, TopHolder, analyse, overhead_cpu, threads_of};
use crate::recording::{GilTrack, RateChange, Recording, Target, Thread, ThreadIndex};
use crate::units::Tid;

/// Lines of code listed at most.
const TOP_HOLDERS: usize = 50;

/// Writes the report as JSON.
///
/// # Errors
/// When the writer fails.
pub fn write(recording: &Recording, writer: &mut impl Write) -> Result<()> {
    serde_json::to_writer_pretty(&mut *writer, &Report::of(recording))?;
    writer.write_all(b"\n")?;
    Ok(())
}

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    target: &'a Target,
    recording: Figures<'a>,
    interpreters: Vec<Interpreter<'a>>,
    verdict: Option<()>,
}

#[derive(Serialize)]
struct Figures<'a> {
    start: String,
    duration_s: f64,
    rate_hz: u32,
    rate_changes: &'a [RateChange],
    ticks: u64,
    missed_ticks: u64,
    torn_ticks: u64,
    overhead_cpu: f64,
}

#[derive(Serialize)]
struct Interpreter<'a> {
    id: i64,
    gil: Gil,
    threads: Vec<ThreadFigures<'a>>,
    long_holds: Option<()>,
    top_holders: Vec<Holder>,
}

#[derive(Serialize)]
struct Gil {
    enabled: bool,
    held: f64,
    held_ci95: Option<f64>,
    handovers: u64,
    handovers_per_s: Option<f64>,
    waiters_mean: Option<f64>,
    switch_interval_us: u64,
}

#[derive(Serialize)]
struct ThreadFigures<'a> {
    tid: Option<Tid>,
    name: Option<&'a str>,
    cpu_s: Option<f64>,
    runqueue_s: Option<f64>,
    states: States,
}

#[derive(Serialize)]
struct States {
    hold: f64,
    stall: Option<f64>,
    wait: Option<f64>,
    native: Option<f64>,
    blocked: Option<f64>,
    parallel: Option<f64>,
    unknown: Option<f64>,
}

#[derive(Serialize)]
struct Holder {
    function: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    held: f64,
    wait_inflicted_s: Option<f64>,
}

impl<'a> Report<'a> {
    fn of(recording: &'a Recording) -> Self {
        let mut interpreters: Vec<Interpreter<'a>> =
            recording.gils.iter().flat_map(|gil| Interpreter::of(recording, gil)).collect();
        interpreters.sort_by_key(|interpreter| interpreter.id);
        Report {
            schema: 1,
            target: &recording.target,
            recording: Figures {
                start: recording.start.to_string(),
                duration_s: recording.duration.as_secs_f64(),
                rate_hz: recording.rate_hz,
                rate_changes: &recording.rate_changes,
                ticks: recording.ticks,
                missed_ticks: recording.missed_ticks,
                torn_ticks: recording.torn_ticks,
                overhead_cpu: overhead_cpu(recording),
            },
            interpreters,
            verdict: None,
        }
    }
}

impl<'a> Interpreter<'a> {
    /// The interpreters that share a GIL: its figures stand in each of them.
    fn of(recording: &'a Recording, gil: &'a GilTrack) -> impl Iterator<Item = Self> {
        let analysis = analyse(recording, gil);
        let threads = threads_of(recording, gil, &analysis);
        gil.interpreters.iter().map(move |&id| Interpreter {
            id,
            gil: Gil::of(gil, &analysis),
            threads: (threads.iter())
                .map(|&index| (index, &recording.threads[index.0 as usize]))
                .filter(|(_, thread)| thread.interpreter == id)
                .map(|(index, thread)| ThreadFigures::of(index, thread, &analysis))
                .collect(),
            long_holds: None,
            top_holders: analysis.top_holders.iter().take(TOP_HOLDERS).map(Holder::of).collect(),
        })
    }
}

impl Gil {
    fn of(gil: &GilTrack, analysis: &GilAnalysis) -> Self {
        Gil {
            enabled: gil.enabled,
            held: analysis.held,
            held_ci95: None,
            handovers: gil.handovers,
            handovers_per_s: analysis.handovers_per_s,
            waiters_mean: None,
            switch_interval_us: gil.switch_interval.as_micros() as u64,
        }
    }
}

impl<'a> ThreadFigures<'a> {
    fn of(index: ThreadIndex, thread: &'a Thread, analysis: &GilAnalysis) -> Self {
        ThreadFigures {
            tid: thread.tid,
            name: thread.name.as_deref(),
            cpu_s: None,
            runqueue_s: None,
            states: States {
                hold: analysis.hold.get(&index).copied().unwrap_or(0.0),
                stall: None,
                wait: None,
                native: None,
                blocked: None,
                parallel: None,
                unknown: None,
            },
        }
    }
}

impl Holder {
    fn of(top: &TopHolder) -> Self {
        let frame = top.frame.as_ref();
        Holder {
            function: frame.map(|frame| frame.function.to_string()),
            file: frame.map(|frame| frame.file.to_string()),
            line: frame.and_then(|frame| frame.line),
            held: top.held,
            wait_inflicted_s: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;
    use serde_json::Value;

    fn report(ticks: &str) -> Value {
        let mut json = Vec::new();
        write(&fake::recording(ticks), &mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn every_report_keeps_to_its_schema() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schema/report.json");
        let schema = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for ticks in ["AAB.?_A", "", "....", "--"] {
            jsonschema::validate(&schema, &report(ticks)).unwrap();
        }
    }

    #[test]
    fn what_was_measured_is_there_and_what_was_not_is_null() {
        let report = report("AAAB..?A");
        let interpreter = &report["interpreters"][0];
        assert_eq!(interpreter["gil"]["held"], 0.625);
        assert_eq!(interpreter["threads"][0]["states"]["hold"], 0.5);
        assert_eq!(interpreter["threads"][0]["states"]["wait"], Value::Null);
        assert_eq!(interpreter["top_holders"][0]["function"], "spin_one");
        assert_eq!(report["verdict"], Value::Null);
    }
}
