//! `gilspy record` of real processes, on every interpreter of this machine.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::*;
use tempfile::TempDir;

fn hold(report: &Value, name: &str) -> f64 {
    thread(report, name)["states"]["hold"].as_f64().unwrap()
}

#[test]
fn two_spinners_hold_the_gil_in_turn() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "two_spinners.py", &[]);
        let report = report(&["-d", "1.5", "-p", &fixture.pid()]);
        let context = format!("{}: {report:#}", interpreter.version);
        let gil = &report["interpreters"][0]["gil"];
        assert!(gil["held"].as_f64() > Some(0.9), "{context}");
        assert!(gil["handovers"].as_u64() > Some(10), "{context}");
        assert!(hold(&report, "spinner-1") > 0.2 && hold(&report, "spinner-2") > 0.2, "{context}");
        assert!(hold(&report, "MainThread") < 0.1, "{context}");
        let recording = &report["recording"];
        let (ticks, missed) =
            (recording["ticks"].as_u64().unwrap(), recording["missed_ticks"].as_u64().unwrap());
        assert!(ticks > 0 && (1400..=1501).contains(&(ticks + missed)), "{context}");
        assert!(recording["overhead_cpu"].as_f64() > Some(0.0), "{context}");
    }
}

/// For how long each of the two threads of `unequal_share.py` has had the turn, in seconds.
fn turns(path: &Path) -> [f64; 2] {
    let told = std::fs::read(path).unwrap();
    [0, 8].map(|place| f64::from_ne_bytes(told[place..place + 8].try_into().unwrap()))
}

#[test]
fn a_known_unequal_share_is_measured_within_two_points() {
    for interpreter in [interpreters().next().unwrap(), newest()] {
        let directory = TempDir::new().unwrap();
        let told = directory.path().join("told");
        let fixture = Fixture::start(interpreter, "unequal_share.py", &["--tell", told.to_str().unwrap()]);
        let before = turns(&told);
        let report = report(&["-d", "6", "--max-overhead", "50", "-p", &fixture.pid()]);
        let after = turns(&told);
        let [large, small] = [0, 1].map(|thread| after[thread] - before[thread]);
        let held = [hold(&report, "three-quarters"), hold(&report, "one-quarter")];
        let context = format!("{}: {large} s, {small} s, {held:?}", interpreter.version);
        assert!((0.6..0.9).contains(&(large / (large + small))), "{context}");
        assert!((held[0] / (held[0] + held[1]) - large / (large + small)).abs() < 0.02, "{context}");
    }
}

#[test]
fn folded_stacks_name_who_held_the_gil_in_which_function() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "c_holds_gil.py", &[]);
        let stacks = folded(&["-d", "1", "-p", &fixture.pid()]);
        let total: u64 = stacks.iter().map(|(_, ticks)| ticks).sum();
        let hogged: u64 = (stacks.iter())
            .filter(|(stack, _)| {
                stack[0].starts_with("hogger (") && stack.iter().any(|frame| function(frame) == "hog")
            })
            .map(|(_, ticks)| ticks)
            .sum();
        assert!(hogged * 10 > total * 7, "{}: {hogged} of {total}", interpreter.version);
    }
}

#[test]
fn without_options_there_is_a_flame_graph_a_timeline_with_every_thread_and_the_recording() {
    for interpreter in all_interpreters() {
        let fixture = Fixture::start(interpreter, "two_spinners.py", &[]);
        let directory = TempDir::new().unwrap();
        let output = gilspy(["record", "-d", "0.5", "-p", &fixture.pid()])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(output.status.success() && output.stdout.is_empty(), "{}", stderr(&output));
        let mut names: Vec<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let [recording, flame_graph, timeline] = names.as_slice() else { panic!("{names:?}") };
        let base = flame_graph.strip_suffix(".svg").unwrap();
        assert!(base.starts_with(&format!("gilspy-{}-2", fixture.pid())) && base.ends_with('Z'), "{names:?}");
        assert_eq!(timeline, &format!("{base}.timeline.svg"));
        assert_eq!(recording, &format!("{base}.gilspy"));
        assert!(names.iter().all(|name| stderr(&output).contains(name.as_str())), "{}", stderr(&output));
        for name in [flame_graph, timeline] {
            let svg = std::fs::read_to_string(directory.path().join(name)).unwrap();
            parse_svg(&svg);
            assert!(svg.contains(&interpreter.version) && svg.contains(&fixture.pid()), "{name}");
            for thread in ["spinner-1", "spinner-2"] {
                let must_have = !interpreter.free_threaded || name == timeline;
                assert!(!must_have || svg.contains(thread), "{} {name}: {thread}", interpreter.version);
            }
        }
        assert!(stderr(&output).contains("missed"), "{}", stderr(&output));
    }
}

#[test]
fn when_all_sleep_the_pictures_are_valid_and_say_so() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "sleepers.py", &[]);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("idle.svg");
        run(["record", "-d", "0.3", "-o", path.to_str().unwrap(), "-p", &fixture.pid()]);
        for (name, words) in
            [("idle.svg", "obody held the GIL"), ("idle.timeline.svg", "hardly anything runs")]
        {
            let svg = std::fs::read_to_string(directory.path().join(name)).unwrap();
            parse_svg(&svg);
            assert!(svg.contains(words), "{} {name}", interpreter.version);
        }
        let report = report(&["-d", "0.3", "-p", &fixture.pid()]);
        assert_eq!(report["interpreters"][0]["gil"]["held"], 0.0, "{report:#}");
    }
}

#[test]
fn a_stack_that_never_was_is_never_shown() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "call_pairs.py", &[]);
        let callers = fixture.ready["callers"].as_object().unwrap();
        let deepest = fixture.ready["deepest"].as_u64().unwrap() as usize;
        let stacks = folded(&["-d", "2", "-r", "5000", "-p", &fixture.pid()]);
        for (stack, _) in &stacks {
            let functions: Vec<&str> = stack.iter().map(|frame| function(frame)).collect();
            for pair in functions.windows(2) {
                if let Some(allowed) = callers.get(pair[1]) {
                    let is_allowed = allowed.as_array().unwrap().iter().any(|caller| caller == pair[0]);
                    assert!(is_allowed, "{}: {functions:?}", interpreter.version);
                }
            }
            let deep = functions.iter().filter(|function| **function == "deep").count();
            assert!(deep <= deepest, "{}: {deep} times deep", interpreter.version);
        }
        let read = |(stack, ticks): &(Vec<String>, u64)| if stack.len() > 1 { *ticks } else { 0 };
        let total: u64 = stacks.iter().map(|(_, ticks)| ticks).sum();
        assert!(stacks.iter().map(read).sum::<u64>() * 2 > total, "{}: {stacks:?}", interpreter.version);
    }
}

#[test]
fn threads_that_come_and_go_are_told_apart() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "thread_churn.py", &[]);
        let report = report(&["-d", "1.5", "-p", &fixture.pid()]);
        let names: Vec<&str> = threads(&report).iter().filter_map(|thread| thread["name"].as_str()).collect();
        let churned: HashSet<&&str> = names.iter().filter(|name| name.starts_with("churn-")).collect();
        assert!(churned.len() >= 5, "{}: {names:?}", interpreter.version);
        let same = names.iter().filter(|name| name.starts_with("churn-")).count();
        assert_eq!(same, churned.len(), "one thread is listed twice: {names:?}");
    }
}

#[test]
fn a_thread_has_the_name_it_was_given_last() {
    let script = "import threading, time\n\
                  def spin():\n    \
                      end = time.monotonic() + 0.5\n    \
                      while time.monotonic() < end: pass\n    \
                      threading.current_thread().name = 'late-name'\n    \
                      while True: pass\n\
                  threading.Thread(target=spin, name='early-name', daemon=True).start()\n\
                  time.sleep(3)";
    for interpreter in interpreters() {
        let python = interpreter.path.to_str().unwrap();
        let report = report(&["-d", "2.2", "--", python, "-c", script]);
        assert!(hold(&report, "late-name") > 0.5, "{}: {report:#}", interpreter.version);
    }
}

#[test]
fn gilspy_looks_less_often_rather_than_use_more_than_it_may() {
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let report = report(&["-d", "3.5", "-r", "2000", "--max-overhead", "0.5", "-p", &fixture.pid()]);
    let changes = report["recording"]["rate_changes"].as_array().unwrap();
    assert!(!changes.is_empty(), "{report:#}");
    assert!(changes[0]["rate_hz"].as_f64() < Some(1000.0), "{report:#}");
    // Few ticks then count for as much time as the many before.
    let shares = hold(&report, "spinner-1") + hold(&report, "spinner-2");
    assert!((0.8..1.1).contains(&shares), "{report:#}");
}

#[test]
fn hostile_names_do_no_harm_in_any_format() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "non_ascii_names.py", &[]);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("x.svg");
        run(["record", "-d", "0.5", "-o", path.to_str().unwrap(), "-p", &fixture.pid()]);
        for name in ["x.svg", "x.timeline.svg"] {
            let svg = std::fs::read_to_string(directory.path().join(name)).unwrap();
            let document = parse_svg(&svg);
            // Data are no script, even in such an element.
            let is_run = |node: &roxmltree::Node<'_, '_>| {
                node.has_tag_name("script") && node.attribute("type") != Some("application/json")
            };
            let mut scripts = document.descendants().filter(is_run);
            assert!(scripts.all(|script| !script.text().unwrap_or_default().contains("alert(1)")));
            assert!(svg.contains("потік-α"), "{}", interpreter.version);
        }
        for (stack, _) in folded(&["-d", "0.5", "-p", &fixture.pid()]) {
            assert!(stack.iter().all(|frame| !frame.contains(char::is_control)), "{stack:?}");
        }
        let output = run(["record", "-d", "0.3", "-o", path.to_str().unwrap(), "-p", &fixture.pid()]);
        let text = stderr(&output);
        assert!(!text.contains(|character: char| character.is_control() && character != '\n'), "{text:?}");
    }
}

#[test]
fn stacks_of_the_other_fixtures_name_their_functions() {
    let expected = [
        ("regex_backtrack.py", "match_badly"),
        ("asyncio_tasks.py", "crunch"),
        ("deep_recursion.py", "bottom"),
        ("demo.py", "blur"),
    ];
    for (name, wanted) in expected {
        let fixture = Fixture::start(newest(), name, &[]);
        let stacks = folded(&["-d", "2", "-p", &fixture.pid()]);
        let found =
            stacks.iter().any(|(stack, _)| stack.iter().any(|frame| function(frame).ends_with(wanted)));
        assert!(found, "{name}: {stacks:?}");
    }
    for name in ["hash_pool.py", "process_pool.py", "c_stalls_gil.py", "echo_clients.py"] {
        let fixture = Fixture::start(newest(), name, &[]);
        report(&["-d", "0.5", "-p", &fixture.pid()]);
    }
}

#[test]
fn ctrl_c_and_sigterm_end_a_recording_that_is_then_written() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("x.svg");
        let mut recording = gilspy(["record", "-o", path.to_str().unwrap(), "-p", &fixture.pid()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until_recording(&mut recording);
        std::thread::sleep(Duration::from_millis(300));
        kill(Pid::from_raw(recording.id() as i32), signal).unwrap();
        assert!(recording.wait().unwrap().success());
        assert!(path.exists() && directory.path().join("x.timeline.svg").exists());
    }
}

#[test]
fn a_target_that_is_killed_leaves_its_recording() {
    let mut fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.svg");
    let mut recording = gilspy(["record", "-o", path.to_str().unwrap(), "-p", &fixture.pid()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until_recording(&mut recording);
    std::thread::sleep(Duration::from_millis(300));
    fixture.child.kill().unwrap();
    assert!(recording.wait().unwrap().success());
    assert!(path.exists());
}

#[test]
fn a_target_that_starts_another_program_leaves_its_recording() {
    let script = "import os, sys, time\n\
                  print('ready', flush=True)\n\
                  end = time.monotonic() + 1.5\n\
                  while time.monotonic() < end: pass\n\
                  os.execv('/bin/sleep', ['sleep', '30'])";
    let mut target = std::process::Command::new(&newest().path)
        .args(["-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(target.stdout.take().unwrap()), &mut line)
        .unwrap();
    let stacks = folded(&["-d", "20", "-p", &target.id().to_string()]);
    target.kill().unwrap();
    target.wait().unwrap();
    assert!(!stacks.is_empty());
}

#[test]
fn a_started_program_keeps_its_input_output_and_exit_status() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.svg");
    let python = newest().path.to_str().unwrap();
    let fixture = program("short_lived.py");
    let fixture = fixture.to_str().unwrap();
    let arguments = ["record", "-o", path.to_str().unwrap(), "--", python, fixture];
    let mut recording = gilspy(arguments)
        .args(["--seconds", "0.5", "--echo", "--exit-code", "7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut recording.stdin.take().unwrap(), b"a line\n").unwrap();
    let output = recording.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert_eq!(stdout(&output), "a line\n");
    assert!(path.exists());
}

#[test]
fn a_started_program_is_recorded_from_its_first_bytecode() {
    for interpreter in interpreters() {
        let python = interpreter.path.to_str().unwrap();
        // `site` and the import system run before the first line of any program. They take some 20 ms, and gilspy may
        // not get a CPU in those where others use the machine.
        let early = ["<frozen importlib._bootstrap", "site.py", "<frozen site>"];
        let has_early = || {
            let stacks = folded(&["-r", "10000", "--", python, "-c", "import json, decimal, asyncio"]);
            let mut frames = stacks.iter().flat_map(|(stack, _)| stack);
            frames.any(|frame| early.iter().any(|early| frame.contains(early)))
        };
        assert!((0..5).any(|_| has_early()), "{}", interpreter.version);
    }
}

#[test]
fn a_signal_to_gilspy_reaches_the_started_program_once() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.raw");
    let script = "import signal, time\n\
                  seen = []\n\
                  signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n\
                  print('ready', flush=True)\n\
                  end = time.monotonic() + 1.5\n\
                  while time.monotonic() < end: pass\n\
                  print(len(seen), flush=True)";
    let python = newest().path.to_str().unwrap();
    let mut recording =
        gilspy(["record", "-f", "raw", "-o", path.to_str().unwrap(), "--", python, "-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(recording.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    kill(Pid::from_raw(recording.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "1");
    assert_eq!(recording.wait().unwrap().code(), Some(0));
    assert!(path.exists());
}

#[test]
fn a_started_program_that_is_killed_gives_the_status_a_shell_would() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.raw");
    let script = "import os, time; time.sleep(0.3); os.kill(os.getpid(), 9)";
    let python = newest().path.to_str().unwrap();
    let output = gilspy(["record", "-f", "raw", "-o", path.to_str().unwrap(), "--", python, "-c", script])
        .output()
        .unwrap();
    assert_eq!((output.status.code(), output.status.signal()), (Some(137), None), "{}", stderr(&output));
}

/// Returns once gilspy has said that it records.
fn wait_until_recording(recording: &mut std::process::Child) {
    let stderr = std::io::BufReader::new(recording.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(stderr);
    assert!(lines.next().unwrap().unwrap().starts_with("Recording pid "));
    // The rest is read too, so that gilspy never writes into a closed pipe.
    std::thread::spawn(move || lines.for_each(drop));
}

#[test]
fn output_goes_to_a_pipe_that_is_there_already() {
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let output = run(["record", "-d", "0.3", "-f", "raw", "-o", "/dev/stdout", "-p", &fixture.pid()]);
    assert!(stdout(&output).contains("spin_one"), "{}", stdout(&output));
    assert!(Path::new("/dev/stdout").exists());
}
