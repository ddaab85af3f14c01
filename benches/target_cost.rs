//! What being profiled costs the target: its throughput alone and under gilspy, beside py-spy.
//!
//!     cargo bench --bench target_cost             # 100 pairs of windows of each profiler and program
//!     cargo bench --bench target_cost -- 20       # so many pairs
//!     cargo bench --bench target_cost -- 20 cpu   # of one program
//!
//! A pair is a window in which the target is left alone and one in which it is profiled, one after the other and in
//! turns first, so that what else the machine does weighs on both alike. Every profiler gets a pair before any gets its
//! next. A profiler stays attached, and is stopped (SIGSTOP) while it has no window. The program counts what it has done.
//!
//! The program has one CPU and the profilers have another, so that what is measured is what looking at a process does to
//! it, and not how the scheduler divides a CPU among the two; the profiler's own CPU time is told beside it. Programs that
//! are called shared may use all CPUs, as the profilers then may, too. `nothing` is no profiler at all: what it loses is
//! what the bench cannot tell.
//!
//! py-spy is the command on PATH (or $PY_SPY), once as it comes, pausing the target at each sample, and once
//! --nonblocking. One that pauses cannot be stopped: it might leave the target paused. It is attached for each of its
//! windows anew, and gets an eighth of the pairs.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use support::{Fixture, newest};
use tempfile::TempDir;

const ATTACH: Duration = Duration::from_millis(1500);
/// For a profiler that has been stopped to be at its ordinary work again.
const RESUME: Duration = Duration::from_millis(20);
const WINDOW: Duration = Duration::from_millis(150);
const PAIRS: usize = 100;
/// Of so many pairs, a profiler that pauses the target gets one.
const PAUSING: usize = 8;
const PROGRAMS: [Program; 6] = [
    Program { name: "web, 16 threads", kind: "web", threads: "16", shared: false },
    Program { name: "web, 160 threads", kind: "web", threads: "160", shared: false },
    Program { name: "web, 16 threads, shared", kind: "web", threads: "16", shared: true },
    Program { name: "chat, 16 threads", kind: "chat", threads: "16", shared: false },
    Program { name: "cpu, 1 thread", kind: "cpu", threads: "1", shared: false },
    Program { name: "alloc, 2 threads", kind: "alloc", threads: "2", shared: false },
];

/// A way of running `throughput.py`.
struct Program {
    name: &'static str,
    kind: &'static str,
    threads: &'static str,
    /// Whether it may use the profilers' CPU.
    shared: bool,
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let pairs = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(PAIRS);
    let kinds: Vec<&String> =
        arguments.iter().filter(|argument| argument.parse::<usize>().is_err()).collect();
    let profilers = profilers();
    println!("CPython {}, {pairs} pairs of windows of {WINDOW:?}\n", newest().version);
    println!(
        "| program | profiler | throughput | interval (95 %) | work per CPU second | interval (95 %) | profiler's CPU |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|");
    for program in PROGRAMS {
        if kinds.is_empty() || kinds.iter().any(|wanted| *wanted == program.kind) {
            compare(&program, &profilers, pairs);
        }
    }
}

/// One way of profiling.
struct Profiler {
    name: String,
    /// Program and arguments.
    command: Vec<String>,
    pauses: bool,
}

fn profilers() -> Vec<Profiler> {
    let gilspy = |rate: &str| {
        let command = [env!("CARGO_BIN_EXE_gilspy"), "record", "--max-overhead", "100", "-r", rate];
        Profiler {
            name: format!("gilspy -r {rate}"),
            command: command.map(str::to_owned).into(),
            pauses: false,
        }
    };
    let py_spy = std::env::var("PY_SPY").unwrap_or("py-spy".into());
    let py_spy_at = |rate: &str, more: &[&str]| {
        let command = [&[py_spy.as_str(), "record", "-f", "raw", "-r", rate], more].concat();
        Profiler {
            name: [&["py-spy -r", rate], more].concat().join(" "),
            command: command.iter().map(ToString::to_string).collect(),
            pauses: more.is_empty(),
        }
    };
    let nothing = Profiler { name: "nothing".into(), command: Vec::new(), pauses: false };
    let mut profilers = vec![nothing, gilspy("100"), gilspy("1000"), gilspy("10000")];
    if Command::new(&py_spy).arg("--version").output().is_ok_and(|output| output.status.success()) {
        profilers.extend([
            py_spy_at("100", &[]),
            py_spy_at("1000", &[]),
            py_spy_at("1000", &["--nonblocking"]),
        ]);
    } else {
        println!("SKIPPED: no py-spy: pip install py-spy, or set PY_SPY\n");
    }
    profilers
}

fn compare(program: &Program, profilers: &[Profiler], pairs: usize) {
    let all = sched_getaffinity(Pid::this()).unwrap();
    let mut cpus = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap());
    let (Some(own), Some(other), false) = (cpus.next(), cpus.next(), program.shared) else {
        return compare_here(program, profilers, pairs, || ());
    };
    be_on(own);
    compare_here(program, profilers, pairs, || be_on(other));
    sched_setaffinity(Pid::this(), &all).unwrap();
}

/// This program, and what it starts from now on.
fn be_on(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu).unwrap();
    sched_setaffinity(Pid::this(), &only).unwrap();
}

fn compare_here(program: &Program, profilers: &[Profiler], pairs: usize, leave: impl Fn()) {
    let directory = TempDir::new().unwrap();
    let counts = directory.path().join("counts");
    let Program { kind, threads, .. } = program;
    let arguments =
        ["--kind", kind, "--threads", threads, "--seconds", "100000", "--counts", counts.to_str().unwrap()];
    let fixture = Fixture::start(newest(), "throughput.py", &arguments);
    leave();
    let target = Target { pid: fixture.pid(), counts };
    let attached: Vec<Attached> =
        profilers.iter().map(|profiler| Attached::new(profiler, &target.pid)).collect();
    let mut pairs_of: Vec<Vec<[Rates; 2]>> = vec![Vec::new(); profilers.len()];
    for pair in 0..pairs {
        for (attached, pairs) in attached.iter().zip(&mut pairs_of) {
            if attached.profiler.pauses && pair % PAUSING != 0 {
                continue;
            }
            pairs.push(if pairs.len() % 2 == 0 {
                let alone = target.measure(None);
                [alone, attached.measure(&target)]
            } else {
                let under = attached.measure(&target);
                [target.measure(None), under]
            });
        }
    }
    for (profiler, pairs) in profilers.iter().zip(&pairs_of) {
        let loss = |rate: fn(&Rates) -> f64| {
            let losses = pairs.iter().map(|[alone, under]| (rate(under) / rate(alone) - 1.0) * 100.0);
            let [median, low, high] = median_and_interval(losses);
            format!("{median:+.2} % | {low:+.2} to {high:+.2} %")
        };
        let [throughput, work] = [loss(|rates| rates.throughput), loss(|rates| rates.work)];
        let cpu = pairs.iter().map(|[_, under]| under.profiler * 100.0).sum::<f64>() / pairs.len() as f64;
        println!("| {} | {} | {throughput} | {work} | {cpu:.1} % |", program.name, profiler.name);
    }
}

/// The program that is profiled.
struct Target {
    pid: String,
    counts: PathBuf,
}

/// What was measured in one window.
#[derive(Clone)]
struct Rates {
    /// Units of work a second.
    throughput: f64,
    /// Units of work a second of the program's CPU time.
    work: f64,
    /// CPU seconds of the profiler a second.
    profiler: f64,
}

impl Target {
    fn measure(&self, profiler: Option<&Child>) -> Rates {
        let target = Pid::from_raw(self.pid.parse().unwrap());
        let profiler_cpu = || profiler.map_or(0.0, |child| cpu_seconds(Pid::from_raw(child.id() as i32)));
        let (began, before) = (Instant::now(), [self.units(), cpu_seconds(target), profiler_cpu()]);
        std::thread::sleep(WINDOW);
        let (took, after) = (began.elapsed(), [self.units(), cpu_seconds(target), profiler_cpu()]);
        let [units, cpu, profiler] = std::array::from_fn(|place| after[place] - before[place]);
        let second = took.as_secs_f64();
        Rates { throughput: units / second, work: units / cpu, profiler: profiler / second }
    }

    fn units(&self) -> f64 {
        let counts = std::fs::read(&self.counts).unwrap();
        counts.as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes) as f64).sum()
    }
}

/// A process's CPU time so far.
fn cpu_seconds(pid: Pid) -> f64 {
    Duration::from(clock_gettime(clock_getcpuclockid(pid).unwrap()).unwrap()).as_secs_f64()
}

/// A profiler and its target.
struct Attached<'a> {
    profiler: &'a Profiler,
    pid: &'a str,
    /// Stopped; none where it is attached for each window.
    running: Option<Running>,
}

impl<'a> Attached<'a> {
    fn new(profiler: &'a Profiler, pid: &'a str) -> Self {
        let stays = !profiler.command.is_empty() && !profiler.pauses;
        let running = stays.then(|| Running::start(profiler, pid));
        running.iter().for_each(|running| running.tell(Signal::SIGSTOP));
        Attached { profiler, pid, running }
    }

    /// The target's rates while it is profiled.
    fn measure(&self, target: &Target) -> Rates {
        if let Some(running) = &self.running {
            running.tell(Signal::SIGCONT);
            std::thread::sleep(RESUME);
            let rates = target.measure(Some(&running.child));
            running.tell(Signal::SIGSTOP);
            rates
        } else if self.profiler.pauses {
            let running = Running::start(self.profiler, self.pid);
            target.measure(Some(&running.child))
        } else {
            target.measure(None)
        }
    }
}

/// A profiler that is attached, until it is dropped.
struct Running {
    child: Child,
    _directory: TempDir,
}

impl Running {
    fn start(profiler: &Profiler, pid: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let mut command = Command::new(&profiler.command[0]);
        command.args(&profiler.command[1..]).args(["-d", "36000", "-p", pid, "-o"]);
        command.arg(directory.path().join("profile"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(ATTACH);
        let mut running = Running { child, _directory: directory };
        assert!(running.child.try_wait().unwrap().is_none(), "{} ended by itself", profiler.name);
        running
    }

    fn tell(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tell(Signal::SIGINT);
        self.tell(Signal::SIGCONT);
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
