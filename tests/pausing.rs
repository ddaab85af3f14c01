//! `--blocking`: the process is paused for each look, and goes on whatever happens to gilspy.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::*;

/// A recording that pauses its process thousands of times a second.
fn start(fixture: &Fixture) -> Child {
    let arguments = ["record", "--blocking", "-r", "5000", "--max-overhead", "99", "-f", "raw"];
    gilspy(arguments)
        .args(["-o", "/dev/null", "-p", &fixture.pid()])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn status(pid: &str, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

/// CPU time of a process, in clock ticks (fields 14 and 15 of proc_pid_stat(5)).
fn cpu(pid: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_micros(300));
    }
}

#[test]
fn the_process_goes_on_whatever_ends_gilspy() {
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let pid = fixture.pid();
    for round in 0..10 {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
            let mut recording = start(&fixture);
            let tracer = recording.id().to_string();
            wait_until("paused", || status(&pid, "TracerPid") == tracer);
            std::thread::sleep(Duration::from_micros(round * 700));
            kill(Pid::from_raw(recording.id() as i32), signal).unwrap();
            recording.wait().unwrap();
            let before = cpu(&pid);
            wait_until("running again", || cpu(&pid) > before + 2);
            assert_eq!(status(&pid, "TracerPid"), "0", "after {signal}");
        }
    }
}

#[test]
fn no_stack_moves_while_the_process_is_paused() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "call_pairs.py", &[]);
        let stacks = folded(&["-d", "2", "--blocking", "-p", &fixture.pid()]);
        let total: u64 = stacks.iter().map(|(_, ticks)| ticks).sum();
        let unknown: u64 = (stacks.iter())
            .filter(|(stack, _)| stack.iter().any(|frame| frame.contains("unknown")))
            .map(|(_, ticks)| ticks)
            .sum();
        // The first look at a stack may find that its outermost call has not been seen before.
        assert!(total >= 8 && unknown <= 3, "{}: {unknown} of {total}: {stacks:?}", interpreter.version);
    }
}

#[test]
fn dump_pauses_too() {
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let output = run(["dump", "--blocking", "-p", &fixture.pid()]);
    assert!(stdout(&output).contains("spin_one"), "{}", stdout(&output));
    assert_eq!(status(&fixture.pid(), "TracerPid"), "0");
}
