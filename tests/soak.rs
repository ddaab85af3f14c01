//! gilspy over time: at 1000 Hz beside a process whose threads and functions come and go, its memory and its file
//! descriptors stay what they are, and its ticks keep to the clock.
//!
//!     cargo test --test soak                                               # half a minute
//!     GILSPY_SOAK_SECONDS=3600 cargo test --test soak -- --nocapture       # an hour
//!
//! `GILSPY_TEST_BINARY=target/release/gilspy` tries that one instead of the one that was built for the test.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gilspy::recording::{Ending, Recording, Source, read};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;
use tempfile::TempDir;

const RATE_HZ: u64 = 1000;

/// How much resident memory may grow from the second fifth of the time to the last.
const MOST_GROWTH_KB: u64 = 1024;

/// Threads that live at one moment, more or less, have two descriptors each.
const MOST_MORE_DESCRIPTORS: usize = 16;

/// gilspy at one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Duration,
    resident_kb: u64,
    descriptors: usize,
    mappings: usize,
}

impl Look {
    fn at(pid: u32, at: Duration) -> Self {
        let file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
        let status = file("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Look {
            at,
            resident_kb: resident.trim().trim_end_matches(" kB").parse().unwrap(),
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            mappings: file("maps").lines().count(),
        }
    }
}

fn seconds() -> u64 {
    std::env::var("GILSPY_SOAK_SECONDS").map_or(25, |seconds| seconds.parse().unwrap())
}

/// Starts to record, and waits until that has begun.
fn start(pid: &str, path: &std::path::Path) -> Child {
    let mut child = Command::new(binary())
        .args(["record", "--max-overhead", "100", "-r", &RATE_HZ.to_string(), "-f", "recording", "-o"])
        .arg(path)
        .args(["-p", pid])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("Recording pid "), "{line}");
    // The rest is read too, so that gilspy never writes into a closed pipe.
    std::thread::spawn(move || stderr.lines().for_each(drop));
    child
}

/// The largest of what the looks in a part of the time saw.
fn largest<T: Ord>(looks: &[Look], from: f64, to: f64, of: impl Fn(&Look) -> T) -> T {
    let place = |share: f64| (looks.len() as f64 * share) as usize;
    looks[place(from)..place(to)].iter().map(of).max().unwrap()
}

#[test]
fn memory_and_descriptors_stay_what_they_are_and_ticks_keep_to_the_clock() {
    let length = Duration::from_secs(seconds());
    let ends = (length.as_secs() + 600).to_string();
    let fixture = Fixture::start(newest(), "churn.py", &["--seconds", &ends]);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("soak.gilspy");
    let mut gilspy = start(&fixture.pid(), &path);
    let (began, mut looks) = (Instant::now(), Vec::new());
    let pause = (length / 1000).clamp(Duration::from_millis(100), Duration::from_secs(2));
    eprintln!("| s | resident, kB | descriptors | mappings |\n|---:|---:|---:|---:|");
    let mut next_line = Duration::ZERO;
    while began.elapsed() < length {
        let look = Look::at(gilspy.id(), began.elapsed());
        if look.at >= next_line {
            next_line = look.at + length / 60;
            let Look { at, resident_kb, descriptors, mappings } = look;
            eprintln!("| {} | {resident_kb} | {descriptors} | {mappings} |", at.as_secs());
        }
        looks.push(look);
        std::thread::sleep(pause);
    }
    kill(Pid::from_raw(gilspy.id() as i32), Signal::SIGINT).unwrap();
    let by_the_clock = began.elapsed();
    assert!(gilspy.wait().unwrap().success());

    let recordings = read(&Source::open(&path).unwrap()).unwrap();
    let [recording] = recordings.as_slice() else { panic!("{} recordings", recordings.len()) };
    let bytes = std::fs::metadata(&path).unwrap().len();
    judge_ticks(recording, by_the_clock, bytes);
    judge_looks(&looks);
}

fn judge_looks(looks: &[Look]) {
    let resident = |from, to| largest(looks, from, to, |look| look.resident_kb);
    let (early, late) = (resident(0.2, 0.4), resident(0.8, 1.0));
    let descriptors = |from, to| largest(looks, from, to, |look| look.descriptors);
    let (few, many) = (descriptors(0.2, 0.4), descriptors(0.8, 1.0));
    let mappings = |from, to| largest(looks, from, to, |look| look.mappings);
    let (narrow, wide) = (mappings(0.2, 0.4), mappings(0.8, 1.0));
    eprintln!(
        "resident {early} kB, later {late} kB; descriptors {few}, later {many}; mappings {narrow}, later {wide}"
    );
    assert!(late <= early + MOST_GROWTH_KB, "resident memory grows from {early} to {late} kB");
    assert!(many <= few + MOST_MORE_DESCRIPTORS, "descriptors leak: from {few} to {many}");
    assert!(wide <= narrow + MOST_MORE_DESCRIPTORS, "mappings leak: from {narrow} to {wide}");
}

/// Each period has its tick, or it is counted as missed; and the recording is as long as the clock says.
fn judge_ticks(recording: &Recording, by_the_clock: Duration, bytes: u64) {
    let periods = recording.ticks as u64 + recording.missed_ticks;
    let expected = recording.duration.as_secs_f64() * RATE_HZ as f64;
    let drift = recording.duration.as_secs_f64() - by_the_clock.as_secs_f64();
    let last = recording.stretches().map(|stretch| stretch.unwrap().ticks.last().unwrap().at).last().unwrap();
    eprintln!(
        "{} ticks, {} missed, {} torn of {expected:.1} periods; {} threads, {} stacks; {bytes} bytes; \
         gilspy used {:.2} % of one CPU; recorded {:.4} s, by the clock {:.4} s; last tick at {:.4} s",
        recording.ticks,
        recording.missed_ticks,
        recording.torn_ticks,
        recording.threads.len(),
        recording.stacks.len(),
        100.0 * recording.own_cpu.as_secs_f64() / recording.duration.as_secs_f64(),
        recording.duration.as_secs_f64(),
        by_the_clock.as_secs_f64(),
        last.as_secs_f64(),
    );
    assert_eq!(recording.ending, Ending::Interrupted);
    assert!(recording.rate_changes.is_empty(), "{:?}", recording.rate_changes);
    assert!((periods as f64 - expected).abs() <= 2.0, "{periods} ticks and missed ones of {expected}");
    // A busy machine may be late, a drift grows with time.
    assert!(drift.abs() < 1.0 + by_the_clock.as_secs_f64() * 1e-5, "{drift} s off");
    assert!(last.as_secs_f64() <= recording.duration.as_secs_f64());
}
