//! `record -f json`: the figures for programs, see `docs/schema/report.json`. What is not measured is null.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use super::json;
use crate::analysis::{
    Analysed, Analysis, GilAnalysis, HoldLength, LongHold, States, TopHolder, Totals, Verdict, overhead_cpu,
    threads_of,
};
use crate::recording::{Frame, GilSwitch, GilTrack, RateChange, Recording, Target, Thread, ThreadIndex};
use crate::units::{NamespaceTid, Pid, Tid};

/// Lines of code listed at most.
const TOP_HOLDERS: usize = 50;

/// Long holds listed at most, the longest.
const LONG_HOLDS: usize = 1000;

/// Pairs of holder and waiter listed at most.
const PAIRS: usize = 1000;

/// Writes the report as JSON: of one process, or, where there are several, of all of them.
///
/// # Errors
/// When the writer fails.
pub fn write(processes: &[Analysed<'_>], writer: &mut impl Write) -> Result<()> {
    let mut reports: Vec<Report<'_>> =
        processes.iter().map(|process| Report::of(process, processes)).collect();
    match reports.pop() {
        Some(report) if reports.is_empty() => json::write(&report, writer)?,
        last => {
            reports.extend(last);
            let several = Reports { schema: 1, totals: Totals::of(processes), processes: reports };
            json::write(&several, writer)?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Reports<'a> {
    schema: u32,
    totals: Totals,
    processes: Vec<Report<'a>>,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    parent_pid: Option<Pid>,
    target: &'a Target,
    recording: Figures<'a>,
    interpreters: Vec<Interpreter<'a>>,
    native_threads: Vec<NativeThread<'a>>,
    cpu_quota: Option<CpuQuota>,
    cpus: u32,
    parallel_mean: Option<f64>,
    parallel_ci95: Option<f64>,
    headroom: Option<f64>,
    verdict: Option<&'a Verdict>,
}

#[derive(Serialize)]
struct Figures<'a> {
    start: String,
    since_s: f64,
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
    gil: Gil<'a>,
    threads: Vec<ThreadFigures<'a>>,
    long_holds: Option<Vec<LongHoldFigures<'a>>>,
    top_holders: Vec<Holder<'a>>,
    waits: Option<Vec<Wait>>,
}

#[derive(Serialize)]
struct Gil<'a> {
    enabled: bool,
    switches: &'a [GilSwitch],
    stopped: f64,
    held: f64,
    held_ci95: Option<f64>,
    handovers: u64,
    handovers_per_s: Option<f64>,
    holds: Holds,
    carrier: Option<Carrier<'a>>,
    waiters_mean: Option<f64>,
    waiters_ci95: Option<f64>,
    waiting_s: Option<WaitingBy>,
    stalled: Option<f64>,
    starved_s: Option<f64>,
    switch_interval_us: u64,
}

/// The function that held the GIL most of the time that it was held.
#[derive(Serialize)]
struct Carrier<'a> {
    function: &'a str,
    file: &'a str,
    share: f64,
    threads: usize,
}

/// Lengths of holds; one that is too short for the rate is only known to be below something.
#[derive(Serialize)]
struct Holds {
    count: u64,
    p50_s: Option<f64>,
    p90_s: Option<f64>,
    p99_s: Option<f64>,
    max_s: Option<f64>,
    below_s: f64,
}

/// What threads waited together, in thread-seconds, by cause.
#[derive(Serialize)]
struct WaitingBy {
    shared: f64,
    hogged: f64,
    stalled: f64,
    starved: f64,
    between: f64,
}

#[derive(Serialize)]
struct ThreadFigures<'a> {
    tid: Option<Tid>,
    namespace_tid: Option<NamespaceTid>,
    name: Option<&'a str>,
    interpreters: &'a [i64],
    cpu_s: Option<f64>,
    runqueue_s: Option<f64>,
    waited_s: Option<f64>,
    inflicted_s: Option<f64>,
    states: StateShares,
}

#[derive(Serialize)]
struct StateShares {
    hold: f64,
    stall: Option<f64>,
    wait: Option<f64>,
    native: Option<f64>,
    blocked: Option<f64>,
    parallel: Option<f64>,
    unknown: Option<f64>,
}

#[derive(Serialize)]
struct LongHoldFigures<'a> {
    start_s: f64,
    duration_s: f64,
    tid: Option<Tid>,
    state: &'static str,
    waiters_max: u32,
    wait_inflicted_s: f64,
    frames: Vec<&'a Frame>,
}

#[derive(Serialize)]
struct Holder<'a> {
    function: Option<&'a str>,
    file: Option<&'a str>,
    line: Option<u32>,
    held: f64,
    wait_inflicted_s: Option<f64>,
    syscall: Option<String>,
}

/// Who waited for whom; nobody held the GIL where there is no holder.
#[derive(Serialize)]
struct Wait {
    holder_tid: Option<Tid>,
    waiter_tid: Option<Tid>,
    wait_s: f64,
}

#[derive(Serialize)]
struct NativeThread<'a> {
    tid: Tid,
    name: Option<&'a str>,
    cpu_s: f64,
    runqueue_s: f64,
}

#[derive(Serialize)]
struct CpuQuota {
    cpus: Option<f64>,
    periods: u64,
    throttled_periods: u64,
    throttled_s: f64,
}

impl<'a> Report<'a> {
    /// One of those that were recorded.
    fn of(process: &'a Analysed<'a>, all: &[Analysed<'_>]) -> Self {
        let (recording, analysis) = (process.recording, &process.analysis);
        let mut interpreters: Vec<Interpreter<'a>> = (0..recording.gils.len())
            .flat_map(|gil| Interpreter::sharing(recording, analysis, gil))
            .collect();
        interpreters.sort_by_key(|interpreter| interpreter.id);
        Report {
            schema: 1,
            parent_pid: recording.parent.and_then(|parent| {
                let parent = all.iter().find(|process| process.recording.number == parent)?;
                Some(parent.recording.target.pid)
            }),
            target: &recording.target,
            recording: Figures {
                start: recording.start.to_string(),
                since_s: recording.since.as_secs_f64(),
                duration_s: recording.length().as_secs_f64(),
                rate_hz: recording.rate_hz,
                rate_changes: &recording.rate_changes,
                ticks: recording.ticks as u64,
                missed_ticks: recording.missed_ticks,
                torn_ticks: recording.torn_ticks,
                overhead_cpu: overhead_cpu(recording),
            },
            interpreters,
            native_threads: (recording.native_threads.iter())
                .map(|thread| NativeThread {
                    tid: thread.tid,
                    name: thread.name.as_deref(),
                    cpu_s: thread.times.cpu.as_secs_f64(),
                    runqueue_s: thread.times.run_queue.as_secs_f64(),
                })
                .collect(),
            cpu_quota: recording.throttling.map(|throttling| CpuQuota {
                cpus: throttling.quota_cpus,
                periods: throttling.periods,
                throttled_periods: throttling.throttled_periods,
                throttled_s: throttling.throttled.as_secs_f64(),
            }),
            cpus: recording.cpus,
            parallel_mean: analysis.parallel.map(|parallel| parallel.mean),
            parallel_ci95: analysis.parallel.and_then(|parallel| parallel.ci95),
            headroom: analysis.headroom,
            verdict: analysis.verdict.as_ref(),
        }
    }
}

impl<'a> Interpreter<'a> {
    /// The interpreters that share a GIL: its figures stand in each of them.
    fn sharing(recording: &'a Recording, analysis: &'a Analysis, place: usize) -> impl Iterator<Item = Self> {
        let (gil, of_gil) = (&recording.gils[place], &analysis.gils[place]);
        let threads = threads_of(recording, place, analysis);
        gil.interpreters.iter().map(move |&id| Interpreter {
            id,
            gil: Gil::of(gil, of_gil),
            threads: (threads.iter())
                .filter(|index| recording.threads[index.0 as usize].interpreter == id)
                .map(|&index| ThreadFigures::of(recording, analysis, of_gil, index))
                .collect(),
            long_holds: of_gil.waiting.as_ref().map(|waiting| long_holds(recording, &waiting.long_holds)),
            top_holders: of_gil.top_holders.iter().take(TOP_HOLDERS).map(Holder::of).collect(),
            waits: of_gil.waiting.as_ref().map(|waiting| {
                let tid = |thread: ThreadIndex| recording.threads[thread.0 as usize].tid;
                let wait = |pair: &crate::analysis::Pair| Wait {
                    holder_tid: pair.holder.and_then(tid),
                    waiter_tid: tid(pair.waiter),
                    wait_s: pair.seconds,
                };
                waiting.pairs.iter().take(PAIRS).map(wait).collect()
            }),
        })
    }
}

/// The longest ones, in order of time.
fn long_holds<'a>(recording: &'a Recording, holds: &[LongHold]) -> Vec<LongHoldFigures<'a>> {
    let mut holds: Vec<&LongHold> = holds.iter().collect();
    holds.sort_by(|a, b| b.duration_s.total_cmp(&a.duration_s));
    holds.truncate(LONG_HOLDS);
    holds.sort_by_key(|hold| hold.start);
    let figures = |hold: &LongHold| LongHoldFigures {
        start_s: hold.start.as_secs_f64(),
        duration_s: hold.duration_s,
        tid: recording.threads[hold.thread.0 as usize].tid,
        state: if hold.stalled >= 0.5 { "stall" } else { "hold" },
        waiters_max: hold.waiters_max,
        wait_inflicted_s: hold.inflicted_s,
        frames: recording.stacks.frames(hold.stack).into_iter().flatten().collect(),
    };
    holds.into_iter().map(figures).collect()
}

impl<'a> Gil<'a> {
    fn of(gil: &'a GilTrack, analysis: &'a GilAnalysis) -> Self {
        let waiting = analysis.waiting.as_ref();
        let lengths = &analysis.hold_lengths;
        // What is too short for the rate is null.
        let seconds = |length: Option<HoldLength>| match length {
            Some(HoldLength::About(seconds)) => Some(seconds),
            Some(HoldLength::Below(_)) | None => None,
        };
        Gil {
            enabled: gil.enabled,
            switches: &gil.switches,
            stopped: analysis.stopped,
            held: analysis.held.mean,
            held_ci95: analysis.held.ci95,
            handovers: gil.handovers,
            handovers_per_s: analysis.handovers_per_s,
            holds: Holds {
                count: lengths.count,
                p50_s: seconds(lengths.p50),
                p90_s: seconds(lengths.p90),
                p99_s: seconds(lengths.p99),
                max_s: seconds(lengths.max),
                below_s: lengths.resolution_s,
            },
            carrier: analysis.carrier.as_ref().map(|carrier| Carrier {
                function: &carrier.function,
                file: &carrier.file,
                share: carrier.share,
                threads: carrier.threads,
            }),
            waiters_mean: waiting.map(|waiting| waiting.waiters.mean),
            waiters_ci95: waiting.and_then(|waiting| waiting.waiters.ci95),
            waiting_s: waiting.map(|waiting| WaitingBy {
                shared: waiting.causes.shared_s,
                hogged: waiting.causes.hogged_s,
                stalled: waiting.causes.stalled_s,
                starved: waiting.causes.starved_s,
                between: waiting.causes.between_s,
            }),
            stalled: waiting.map(|waiting| waiting.stalled),
            starved_s: waiting.map(|waiting| waiting.starved_s),
            switch_interval_us: gil.switch_interval.as_micros() as u64,
        }
    }
}

impl<'a> ThreadFigures<'a> {
    fn of(recording: &'a Recording, analysis: &Analysis, gil: &GilAnalysis, index: ThreadIndex) -> Self {
        let thread: &Thread = &recording.threads[index.0 as usize];
        let of_thread = &analysis.threads[index.0 as usize];
        let sees_all = recording.sees_all_threads;
        let states: Option<&States> = of_thread.states.as_ref();
        ThreadFigures {
            tid: thread.tid,
            namespace_tid: thread.namespace_tid,
            name: thread.name.as_deref(),
            interpreters: &thread.interpreters,
            cpu_s: sees_all.then_some(thread.times.cpu.as_secs_f64()),
            runqueue_s: sees_all.then_some(thread.times.run_queue.as_secs_f64()),
            waited_s: sees_all.then_some(of_thread.waited_s),
            inflicted_s: sees_all.then_some(of_thread.inflicted_s),
            states: StateShares {
                hold: states
                    .map_or_else(|| gil.hold.get(&index).copied().unwrap_or(0.0), |states| states.hold),
                stall: states.map(|states| states.stall),
                wait: states.map(|states| states.wait),
                native: states.map(|states| states.native),
                blocked: states.map(|states| states.blocked),
                parallel: states.map(|states| states.parallel),
                unknown: states.map(|states| states.unknown),
            },
        }
    }
}

impl<'a> Holder<'a> {
    fn of(top: &'a TopHolder) -> Self {
        let frame = top.frame.as_ref();
        Holder {
            function: frame.map(|frame| &*frame.function),
            file: frame.map(|frame| &*frame.file),
            line: frame.and_then(|frame| frame.line),
            held: top.held,
            wait_inflicted_s: top.blame.map(|blame| blame.inflicted.total_s()),
            syscall: top.blame.and_then(|blame| blame.syscall).map(|syscall| syscall.name().into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;
    use serde_json::Value;

    fn report(ticks: &str) -> Value {
        report_of(&fake::recording(ticks))
    }

    fn report_of(recording: &Recording) -> Value {
        let mut json = Vec::new();
        write(&[Analysed::of(recording).unwrap()], &mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn every_report_keeps_to_its_schema() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schema/report.json");
        let schema = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for ticks in ["AAB.?_A", "", "....", "--"] {
            jsonschema::validate(&schema, &report(ticks)).unwrap();
        }
        let long = "H".repeat(50);
        let waits = "W".repeat(50);
        let mut recording = fake::of_threads(&[&long, &waits]);
        jsonschema::validate(&schema, &report_of(&recording)).unwrap();
        recording.sees_all_threads = false;
        jsonschema::validate(&schema, &report_of(&recording)).unwrap();
        let mut json = Vec::new();
        let other = fake::recording("AAB");
        write(&[Analysed::of(&recording).unwrap(), Analysed::of(&other).unwrap()], &mut json).unwrap();
        let report: Value = serde_json::from_slice(&json).unwrap();
        jsonschema::validate(&schema, &report).unwrap();
        assert_eq!(
            (&report["totals"]["processes"], &report["totals"]["waited_s"]),
            (&2.into(), &Value::Null)
        );
    }

    #[test]
    fn where_only_holders_were_looked_at_nothing_is_said_of_the_rest() {
        let mut recording = fake::of_threads(&["HHHH", "WWWW"]);
        recording.sees_all_threads = false;
        let report = report_of(&recording);
        let thread = &report["interpreters"][0]["threads"][0];
        assert_eq!((&thread["states"]["hold"], &thread["states"]["wait"]), (&1.0.into(), &Value::Null));
        assert_eq!((&report["verdict"], &report["headroom"]), (&Value::Null, &Value::Null));
        assert_eq!(report["interpreters"][0]["long_holds"], Value::Null);
    }

    #[test]
    fn what_was_measured_is_there_and_what_was_not_is_null() {
        let report = report("AAAB..?A");
        let interpreter = &report["interpreters"][0];
        assert_eq!(interpreter["gil"]["held"], 0.625);
        assert_eq!(interpreter["threads"][0]["states"]["hold"], 0.5);
        assert_eq!(interpreter["threads"][0]["states"]["unknown"], 0.125);
        assert_eq!(interpreter["gil"]["waiters_mean"], 0.0);
        assert_eq!(interpreter["top_holders"][0]["function"], "spin_one");
        assert_eq!(report["verdict"]["kind"], "single-thread");
        assert_eq!(report["cpu_quota"], Value::Null);
    }
}
