//! How right the figures are: hold, wait and handovers beside an exact trace of every `take_gil` and `drop_gil`
//! of the same process in the same seconds.
//!
//!     cargo bench --bench accuracy
//!     cargo bench --bench accuracy -- 3.12     # one version only
//!
//! Needs perf(1), root, a kernel with uprobes, and a libpython with symbols; what is missing is said. Ends with
//! status 1 where a share is more than 2 points off, or the handovers are by more than 1 %.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use support::{Fixture, Interpreter, interpreters};
use tempfile::TempDir;

const SECONDS: u64 = 10;
const PROGRAMS: [&str; 5] =
    ["two_spinners.py", "unequal_share.py", "c_holds_gil.py", "echo_clients.py", "demo.py"];
/// Threads shown of each program: those that hold or wait most.
const SHOWN: usize = 3;
/// In percentage points.
const SHARE_TOLERANCE: f64 = 2.0;
/// In percent.
const HANDOVER_TOLERANCE: f64 = 1.0;

fn main() -> ExitCode {
    println!("| CPython | program | thread | hold: trace | gilspy | off | wait: trace | gilspy | off |");
    println!("|---|---|---|---:|---:|---:|---:|---:|---:|");
    let mut is_accurate = true;
    let wanted: Option<String> = std::env::args().skip(1).find(|argument| argument.starts_with("3."));
    let is_wanted = |interpreter: &&Interpreter| {
        wanted.as_ref().is_none_or(|wanted| interpreter.version.starts_with(wanted.as_str()))
    };
    for interpreter in interpreters().filter(is_wanted) {
        for program in PROGRAMS {
            match compare(interpreter, program) {
                Ok(within) => is_accurate &= within,
                Err(reason) => {
                    println!("| {} | skipped: {reason} | | | | | | | |", interpreter.version);
                    break;
                }
            }
        }
    }
    if is_accurate { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn compare(interpreter: &Interpreter, program: &str) -> Result<bool, String> {
    let fixture = Fixture::start(interpreter, program, &[]);
    let probes = Probes::add(&binary(&fixture.pid())?)?;
    let directory = TempDir::new().unwrap();
    let data = directory.path().join("perf.data");
    let mut perf = probes.record(&fixture.pid(), &data)?;
    std::thread::sleep(Duration::from_millis(500));
    let wall_to_monotonic = now(ClockId::CLOCK_MONOTONIC) - now(ClockId::CLOCK_REALTIME);
    let seconds = SECONDS.to_string();
    let report = support::report(&["-d", &seconds, "--max-overhead", "99", "-p", &fixture.pid()]);
    std::thread::sleep(Duration::from_millis(200));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(perf.id() as i32), nix::sys::signal::Signal::SIGINT)
        .unwrap();
    perf.wait().unwrap();

    let start: jiff::Timestamp = report["recording"]["start"].as_str().unwrap().parse().unwrap();
    let start = start.as_nanosecond() as f64 / 1e9 + wall_to_monotonic;
    let end = start + report["recording"]["duration_s"].as_f64().unwrap();
    let trace = Trace::read(&data, start, end)?;
    let mut threads: Vec<(&i64, &Times)> = trace.threads.iter().collect();
    threads.sort_by(|(_, a), (_, b)| (b.hold + b.wait).total_cmp(&(a.hold + a.wait)));
    let mut within = true;
    for (tid, times) in threads.into_iter().take(SHOWN) {
        let Some(thread) = support::threads(&report).into_iter().find(|thread| thread["tid"] == *tid) else {
            continue;
        };
        let share = |state: &str| thread["states"][state].as_f64().unwrap() * 100.0;
        let traced = [times.hold, times.wait].map(|seconds| seconds / (end - start) * 100.0);
        let ours = [share("hold") + share("stall"), share("wait")];
        let off = [0, 1].map(|place| ours[place] - traced[place]);
        within &= off.iter().all(|off| off.abs() <= SHARE_TOLERANCE);
        println!(
            "| {} | {program} | {} | {:.1} % | {:.1} % | {:+.1} | {:.1} % | {:.1} % | {:+.1} |",
            interpreter.version,
            thread["name"].as_str().unwrap(),
            traced[0],
            ours[0],
            off[0],
            traced[1],
            ours[1],
            off[1]
        );
    }
    let handovers = report["interpreters"][0]["gil"]["handovers"].as_f64().unwrap();
    let off = (handovers - trace.handovers) / trace.handovers.max(1.0) * 100.0;
    // The first and the last tick are up to two periods inside of the recording.
    within &= off.abs() <= HANDOVER_TOLERANCE || (handovers - trace.handovers).abs() <= 2.0;
    let version = &interpreter.version;
    println!("| {version} | {program} | handovers | {} | {handovers} | {off:+.2} % | | | |", trace.handovers);
    Ok(within)
}

fn now(clock: ClockId) -> f64 {
    Duration::from(clock_gettime(clock).unwrap()).as_secs_f64()
}

/// The binary that has the interpreter's code.
fn binary(pid: &str) -> Result<PathBuf, String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).map_err(|error| error.to_string())?;
    let libpython = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let libpython = libpython.into_iter().find(|path| path.contains("/libpython3")).map(PathBuf::from);
    Ok(libpython
        .unwrap_or(std::fs::read_link(format!("/proc/{pid}/exe")).map_err(|error| error.to_string())?))
}

/// Probes on the two functions of one binary; removed when dropped.
struct Probes {
    group: String,
}

impl Probes {
    fn add(binary: &Path) -> Result<Self, String> {
        let probes = Probes { group: format!("gilspy{}", std::process::id()) };
        for function in ["take_gil", "drop_gil"] {
            for place in [format!("{function}={function}"), format!("{function}_ret={function}%return")] {
                let output = Command::new("perf")
                    .args(["probe", "-q", "-x"])
                    .arg(binary)
                    .arg(format!("{}:{place}", probes.group))
                    .output()
                    .map_err(|error| format!("perf cannot be run: {error}"))?;
                if !output.status.success() {
                    return Err(format!("no probe on {function} of {}", binary.display()));
                }
            }
        }
        Ok(probes)
    }

    fn record(&self, pid: &str, data: &Path) -> Result<Child, String> {
        Command::new("perf")
            .args(["record", "-q", "-k", "CLOCK_MONOTONIC", "-m", "4M", "-e", &format!("{}:*", self.group)])
            .arg("-o")
            .arg(data)
            .args(["-p", pid])
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("perf cannot be run: {error}"))
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        let _ = Command::new("perf").args(["probe", "-q", "-d", &format!("{}:*", self.group)]).status();
    }
}

/// For how long a thread held the GIL and waited for it, in seconds.
#[derive(Default)]
struct Times {
    hold: f64,
    wait: f64,
    since: f64,
    state: Option<State>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Holds,
    Waits,
    Neither,
}

/// What happened between two moments.
struct Trace {
    threads: BTreeMap<i64, Times>,
    handovers: f64,
}

impl Trace {
    fn read(data: &Path, start: f64, end: f64) -> Result<Self, String> {
        let script = |arguments: &[&str]| {
            let output = Command::new("perf").arg("script").arg("-i").arg(data).args(arguments).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        if script(&["--show-lost-events"]).contains("LOST") {
            return Err("events were lost".to_owned());
        }
        let mut trace = Trace { threads: BTreeMap::new(), handovers: 0.0 };
        let mut holder = None;
        for line in script(&["--ns", "-F", "tid,time,event"]).lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [tid, time, event] = words.as_slice() else { continue };
            let tid: i64 = tid.parse().unwrap();
            let time: f64 = time.trim_end_matches(':').parse().unwrap();
            let event = event.trim_end_matches(':').rsplit(':').next().unwrap();
            // What a thread did before is what this ends, and what it does from now on.
            let (before, after) = match event {
                "take_gil" => (State::Neither, State::Waits),
                "take_gil_ret__return" => (State::Waits, State::Holds),
                "drop_gil" => (State::Holds, State::Waits),
                "drop_gil_ret__return" => (State::Waits, State::Neither),
                other => return Err(format!("unexpected event {other}")),
            };
            let times =
                trace.threads.entry(tid).or_insert_with(|| Times { since: start, ..Times::default() });
            times.end(before, time, start, end);
            times.state = Some(after);
            if after == State::Holds {
                // Who held it until now has let it go, even if that was not traced.
                let others = trace.threads.iter_mut().filter(|(other, _)| **other != tid);
                others.for_each(|(_, times)| times.lose(time, start, end));
                let is_handover = holder.replace(tid).is_some_and(|last| last != tid);
                trace.handovers += f64::from(is_handover && (start..end).contains(&time));
            }
        }
        let has_released = trace.threads.values().any(|times| times.hold > 0.0);
        if !has_released {
            return Err("take_gil or drop_gil is inlined".to_owned());
        }
        trace.threads.values_mut().for_each(|times| times.end(State::Neither, end, start, end));
        Ok(trace)
    }
}

impl Times {
    fn lose(&mut self, now: f64, start: f64, end: f64) {
        if self.state == Some(State::Holds) {
            self.end(State::Holds, now, start, end);
            self.state = Some(State::Neither);
        }
    }

    /// Adds what lies between the two moments of the stretch that ends now.
    fn end(&mut self, state: State, now: f64, start: f64, end: f64) {
        let (from, to) = (self.since.max(start), now.min(end));
        let seconds = (to - from).max(0.0);
        match self.state.unwrap_or(state) {
            State::Holds => self.hold += seconds,
            State::Waits => self.wait += seconds,
            State::Neither => {}
        }
        self.since = now;
    }
}
