//! What one tick costs, beside py-spy's library looking at the same process in the same run.
//!
//!     cargo bench --bench tick
//!
//! CPU time, since the machine may be busy with other things; the median of several rounds in turn.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use gilspy::cpython::locate::Candidate;
use gilspy::sampler::Sampler;
use gilspy::target::binaries::Mappings;
use gilspy::target::memory::live::LiveMemory;
use gilspy::target::memory::{ReadMemory, Segment};
use gilspy::target::process::Process;
use gilspy::units::{Address, Pid};
use nix::time::{ClockId, clock_gettime};
use support::{Fixture, Interpreter, interpreters};

const ROUNDS: usize = 5;
/// How long one kind of tick is repeated in one round.
const ROUND: Duration = Duration::from_millis(300);
const VERSIONS: [u32; 3] = [11, 13, 15];
/// Threads of the process, two of which spin.
const THREADS: u32 = 9;
/// Sleeping threads added to find out what each costs.
const MORE: u32 = 100;

fn main() {
    println!("| CPython | what | gilspy, µs | py-spy, µs | times cheaper |");
    println!("|---|---|---:|---:|---:|");
    for minor in VERSIONS {
        let interpreter = interpreters().filter(|interpreter| interpreter.minor == minor).last();
        match interpreter {
            Some(interpreter) => compare(interpreter),
            None => println!("| 3.{minor} | not on this machine | | | |"),
        }
    }
}

fn compare(interpreter: &Interpreter) {
    let fixture = deep_threads(interpreter, THREADS);
    let pid = fixture.child.id() as i32;
    let mut sampler = sampler(pid);
    let memory = LiveMemory::new(Pid::new(pid));
    let address = sampler.gils()[0].address();
    settle(&mut sampler);
    let mut holder_only = py_spy(pid, true);
    let mut all_threads = py_spy(pid, false);

    let mut costs: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        costs[0].push(cost(|| {
            sampler.tick(0).unwrap();
        }));
        costs[1].push(cost(|| drop(holder_only.as_mut().map(|spy| spy.get_stack_traces()))));
        costs[2].push(cost(|| {
            sampler.tick_all().unwrap();
        }));
        costs[3].push(cost(|| drop(all_threads.as_mut().map(|spy| spy.get_stack_traces()))));
        costs[4].push(cost(|| read_one(&memory, address)));
        sampler.confirm().unwrap();
    }
    let [holder, their_holder, all, their_all, floor] = costs.map(median);
    row(interpreter, "GIL + holder's stack", holder, holder_only.map(|_| their_holder));
    row(interpreter, "all states and stacks", all, all_threads.map(|_| their_all));
    drop(fixture);
    let sleeper = (median_of_all(interpreter, THREADS + MORE) - all) / f64::from(MORE);
    println!("| {} | each further sleeping thread | {sleeper:.2} | | |", interpreter.version);
    println!("| {} | one read of 8 bytes, to compare machines | {floor:.1} | | |", interpreter.version);
}

fn deep_threads(interpreter: &Interpreter, threads: u32) -> Fixture {
    Fixture::start(interpreter, "deep_threads.py", &["--seconds", "600", "--threads", &threads.to_string()])
}

/// What a tick of all threads costs with so many of them.
fn median_of_all(interpreter: &Interpreter, threads: u32) -> f64 {
    let fixture = deep_threads(interpreter, threads);
    let mut sampler = sampler(fixture.child.id() as i32);
    settle(&mut sampler);
    let one = || {
        cost(|| {
            sampler.tick_all().unwrap();
        })
    };
    median(std::iter::repeat_with(one).take(ROUNDS).collect())
}

/// Until its code objects are trusted.
fn settle(sampler: &mut Sampler<LiveMemory>) {
    for _ in 0..20 {
        for _ in 0..100 {
            sampler.tick_all().unwrap();
            std::thread::sleep(Duration::from_micros(100));
        }
        sampler.confirm().unwrap();
    }
}

fn sampler(pid: i32) -> Sampler<LiveMemory> {
    let process = Process::open(Pid::new(pid)).unwrap();
    let binaries = Mappings::of(&process).unwrap().parse(&process);
    let located = Candidate::new(binaries).locate(&process.memory()).unwrap();
    Sampler::new(process.entry().clone(), process.memory(), located).unwrap()
}

fn py_spy(pid: i32, gil_only: bool) -> Option<py_spy::PythonSpy> {
    let config = py_spy::Config {
        blocking: py_spy::config::LockingStrategy::NonBlocking,
        gil_only,
        include_idle: true,
        ..py_spy::Config::default()
    };
    py_spy::PythonSpy::retry_new(pid, &config, 3).ok()
}

fn read_one(memory: &LiveMemory, address: Address) {
    let mut bytes = [0; 8];
    memory.read_batch(&mut [Segment::new(address, &mut bytes)]).unwrap();
}

/// CPU time of one call, in microseconds.
fn cost(mut call: impl FnMut()) -> f64 {
    let (began, before) = (Instant::now(), cpu());
    let mut calls = 0;
    while began.elapsed() < ROUND {
        for _ in 0..10 {
            call();
        }
        calls += 10;
    }
    (cpu() - before).as_secs_f64() * 1e6 / f64::from(calls)
}

fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn row(interpreter: &Interpreter, what: &str, ours: f64, theirs: Option<f64>) {
    let version = &interpreter.version;
    match theirs {
        Some(theirs) => println!("| {version} | {what} | {ours:.1} | {theirs:.0} | {:.0} |", theirs / ours),
        None => println!("| {version} | {what} | {ours:.1} | fails | |"),
    }
}
