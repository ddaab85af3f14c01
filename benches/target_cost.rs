//! What being profiled costs the target: its throughput alone and under gilspy, beside py-spy.
//!
//!     cargo bench --bench target_cost             # eight pairs of each
//!     cargo bench --bench target_cost -- 20       # so many pairs
//!     cargo bench --bench target_cost -- 20 cpu   # of one program
//!
//! A pair is a window in which the target is left alone and one in which it is profiled, one after the other and in
//! turns first, so that what else the machine does weighs on both alike. Every profiler gets a pair before any gets its
//! next. The program counts what it has done; windows begin when the profiler has been attached for a second. py-spy
//! is the command on PATH (or $PY_SPY), once as it comes, pausing the target at each sample, and once --nonblocking.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use support::{Fixture, newest};
use tempfile::TempDir;

const ATTACH: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_millis(1500);
const PAIRS: usize = 8;
/// Name, kind and threads (0: as many as the kind has by itself).
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("web, 16 threads", "web", "0"),
    ("web, 160 threads", "web", "160"),
    ("cpu, 1 thread", "cpu", "0"),
    ("alloc, 2 threads", "alloc", "0"),
];

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let pairs = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(PAIRS);
    let kinds: Vec<&String> =
        arguments.iter().filter(|argument| argument.parse::<usize>().is_err()).collect();
    let profilers = profilers();
    println!("CPython {}, {pairs} pairs of windows of {WINDOW:?}\n", newest().version);
    println!("| program | profiler | throughput | interval (95 %) | work per CPU second | interval (95 %) |");
    println!("|---|---|---:|---:|---:|---:|");
    for (name, kind, threads) in PROGRAMS {
        if kinds.is_empty() || kinds.iter().any(|wanted| *wanted == kind) {
            compare(name, kind, threads, &profilers, pairs);
        }
    }
}

/// One way of profiling.
struct Profiler {
    name: String,
    program: OsString,
    arguments: Vec<String>,
}

fn profilers() -> Vec<Profiler> {
    let gilspy = |rate: &str| Profiler {
        name: format!("gilspy -r {rate}"),
        program: env!("CARGO_BIN_EXE_gilspy").into(),
        arguments: ["record", "--max-overhead", "100", "-r", rate].map(str::to_owned).into(),
    };
    let program = std::env::var_os("PY_SPY").unwrap_or("py-spy".into());
    let py_spy = |rate: &str, more: &[&str]| Profiler {
        name: [&["py-spy -r", rate], more].concat().join(" "),
        program: program.clone(),
        arguments: [&["record", "-r", rate, "-f", "raw"], more]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect(),
    };
    let mut profilers: Vec<Profiler> = ["100", "1000", "10000"].map(gilspy).into();
    if Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        profilers.extend([py_spy("100", &[]), py_spy("1000", &[]), py_spy("1000", &["--nonblocking"])]);
    } else {
        println!("SKIPPED: no py-spy: pip install py-spy, or set PY_SPY\n");
    }
    profilers
}

fn compare(name: &str, kind: &str, threads: &str, profilers: &[Profiler], pairs: usize) {
    let directory = TempDir::new().unwrap();
    let counts = directory.path().join("counts");
    let arguments =
        ["--kind", kind, "--threads", threads, "--seconds", "100000", "--counts", counts.to_str().unwrap()];
    let fixture = Fixture::start(newest(), "throughput.py", &arguments);
    let target = Target { pid: fixture.pid(), counts };
    let mut losses = vec![Vec::new(); profilers.len()];
    for pair in 0..pairs {
        for (profiler, losses) in profilers.iter().zip(&mut losses) {
            let profiled = || {
                let running = Running::start(profiler, &target.pid);
                let rates = target.measure();
                running.stop();
                rates
            };
            let (alone, under) = if pair % 2 == 0 {
                let alone = target.measure();
                (alone, profiled())
            } else {
                let under = profiled();
                (target.measure(), under)
            };
            losses.push([0, 1].map(|place| (under[place] / alone[place] - 1.0) * 100.0));
        }
    }
    for (profiler, losses) in profilers.iter().zip(&losses) {
        let [throughput, work] = [0, 1].map(|place| {
            let [median, low, high] = median_and_interval(losses.iter().map(|loss| loss[place]));
            format!("{median:+.2} % | {low:+.2} to {high:+.2} %")
        });
        println!("| {name} | {} | {throughput} | {work} |", profiler.name);
    }
}

/// The program that is profiled.
struct Target {
    pid: String,
    counts: PathBuf,
}

impl Target {
    /// Units a second of wall time, and of its CPU time.
    fn measure(&self) -> [f64; 2] {
        let clock = clock_getcpuclockid(Pid::from_raw(self.pid.parse().unwrap())).unwrap();
        let cpu = || Duration::from(clock_gettime(clock).unwrap()).as_secs_f64();
        let (began, before, cpu_before) = (Instant::now(), self.units(), cpu());
        std::thread::sleep(WINDOW);
        let done = self.units() - before;
        [done / began.elapsed().as_secs_f64(), done / (cpu() - cpu_before)]
    }

    fn units(&self) -> f64 {
        let counts = std::fs::read(&self.counts).unwrap();
        counts.as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes) as f64).sum()
    }
}

/// A profiler that is attached.
struct Running {
    name: String,
    child: Child,
    _directory: TempDir,
}

impl Running {
    fn start(profiler: &Profiler, pid: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let output = directory.path().join("profile");
        let mut command = Command::new(&profiler.program);
        command.args(&profiler.arguments).args(["-d", "600", "-p", pid, "-o"]).arg(output);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(ATTACH);
        Running { name: profiler.name.clone(), child, _directory: directory }
    }

    fn stop(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "{} ended while it was measured", self.name);
        nix::sys::signal::kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        self.child.wait().unwrap();
    }
}

/// The median, and the values between which it is with 95 % of certainty, whatever the values' distribution: their ranks
/// are those of a fair coin's heads (normal approximation).
fn median_and_interval(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (count, half) = (values.len() as f64, 0.98 * (values.len() as f64).sqrt());
    let rank = |rank: f64| values[(rank.max(0.0) as usize).min(values.len() - 1)];
    let median = (rank((count - 1.0) / 2.0) + rank(count / 2.0)) / 2.0;
    [median, rank((count / 2.0 - half).floor()), rank((count / 2.0 + half).ceil())]
}
