//! Several interpreters in one process, and builds without a GIL.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::*;
use tempfile::TempDir;

/// The one interpreter in which a document lists a thread.
fn home<'a>(document: &'a Value, name: &str) -> &'a Value {
    let lists = |interpreter: &&Value| {
        let threads = interpreter["threads"].as_array().unwrap();
        threads.iter().filter(|thread| thread["name"] == name).count() == 1
    };
    let homes: Vec<&Value> = document["interpreters"].as_array().unwrap().iter().filter(lists).collect();
    assert_eq!(homes.len(), 1, "{name} is listed in {} interpreters: {document:#}", homes.len());
    assert_eq!(threads(document).iter().filter(|thread| thread["name"] == name).count(), 1, "{document:#}");
    homes[0]
}

/// That no thread of the process is listed twice.
fn assert_each_thread_once(document: &Value) {
    let mut tids: Vec<i64> = threads(document).iter().map(|thread| thread["tid"].as_i64().unwrap()).collect();
    let all = tids.len();
    tids.sort_unstable();
    tids.dedup();
    assert_eq!(tids.len(), all, "{document:#}");
}

/// A text with its lines joined: where it is cut depends on figures.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Checks what a busy machine may make untrue for a moment: a thread that waits for a GIL, but is being woken to ask
/// for it and has no CPU.
fn in_one_of_five_looks(check: impl Fn()) {
    let look = || catch_unwind(AssertUnwindSafe(&check)).is_ok();
    if !(0..4).any(|_| look()) {
        check();
    }
}

fn state<'a>(document: &'a Value, name: &str) -> &'a str {
    thread(document, name)["state"].as_str().unwrap()
}

#[test]
fn a_thread_in_a_subinterpreter_is_one_thread_with_what_it_runs_there() {
    let _alone = alone();
    for interpreter in interpreters().filter(|interpreter| interpreter.minor >= 8) {
        let fixture = Fixture::start(interpreter, "subinterpreters.py", &["--shared"]);
        let dump = dump_json(&fixture.pid());
        let context = format!("{}: {dump:#}", interpreter.version);
        assert_each_thread_once(&dump);
        assert_eq!(threads(&dump).len(), 4, "{context}");
        for (name, function, id) in
            [("spinner-1", "spin", 1), ("spinner-2", "spin", 2), ("sleeper", "nap", 3)]
        {
            let home = home(&dump, name);
            assert_eq!(home["id"], id, "{context}");
            // One that waits for its turn may be met anywhere in its loop.
            assert_eq!(functions(thread(&dump, name))[0], function, "{context}");
            let interpreters = thread(&dump, name)["interpreters"].as_array().unwrap();
            assert!(interpreters.contains(&id.into()) && interpreters.contains(&0.into()), "{context}");
        }
        assert_eq!(state(&dump, "sleeper"), "blocked", "{context}");
        assert_eq!(home(&dump, "MainThread")["id"], 0, "{context}");
        // There is one GIL, and one of the two has it.
        let holders = dump["interpreters"].as_array().unwrap().iter().map(|it| &it["gil"]["holder_tid"]);
        let spinners = ["spinner-1", "spinner-2"].map(|name| &thread(&dump, name)["tid"]);
        assert!(holders.into_iter().all(|holder| spinners.contains(&holder)), "{context}");
    }
}

#[test]
fn interpreters_with_a_gil_of_their_own_have_a_holder_each() {
    let _alone = alone();
    for interpreter in interpreters().filter(|interpreter| interpreter.minor >= 12) {
        let fixture = Fixture::start(interpreter, "subinterpreters.py", &[]);
        let dump = dump_json(&fixture.pid());
        let report = report(&["-d", "0.5", "-p", &fixture.pid()]);
        for document in [&dump, &report] {
            let context = format!("{}: {document:#}", interpreter.version);
            assert_each_thread_once(document);
            for (name, id) in [("spinner-1", 1), ("spinner-2", 2), ("sleeper", 3), ("MainThread", 0)] {
                assert_eq!(home(document, name)["id"], id, "{context}");
            }
        }
        let context = format!("{}: {dump:#}\n{report:#}", interpreter.version);
        for name in ["spinner-1", "spinner-2"] {
            let gil = &home(&dump, name)["gil"];
            assert_eq!(gil["holder_tid"], thread(&dump, name)["tid"], "{context}");
            assert_eq!(functions(thread(&dump, name))[0], "spin", "{context}");
            let interpreter = home(&report, name);
            assert!(interpreter["gil"]["held"].as_f64() > Some(0.9), "{context}");
            assert_eq!(interpreter["gil"]["waiters_mean"], 0.0, "{context}");
            assert_eq!(interpreter["top_holders"][0]["function"], "spin", "{context}");
        }
        for name in ["sleeper", "MainThread"] {
            assert_eq!(state(&dump, name), "blocked", "{context}");
            assert_eq!(home(&dump, name)["gil"]["locked"], false, "{context}");
        }
    }
}

#[test]
fn a_thread_that_waits_for_another_interpreters_gil_is_shown_so() {
    let _alone = alone();
    for interpreter in interpreters().filter(|interpreter| interpreter.minor >= 13) {
        let fixture = Fixture::start(interpreter, "foreign_gil.py", &[]);
        let (hogger, visitor) = (fixture.tid("hogger").unwrap(), fixture.tid("visitor").unwrap());
        in_one_of_five_looks(|| {
            let dump = dump_json(&fixture.pid());
            let context = format!("{}: {dump:#}", interpreter.version);
            assert_each_thread_once(&dump);
            assert_eq!(
                (&home(&dump, "hogger")["id"], state(&dump, "hogger")),
                (&1.into(), "hold"),
                "{context}"
            );
            assert_eq!(
                (&home(&dump, "visitor")["id"], state(&dump, "visitor")),
                (&0.into(), "wait"),
                "{context}"
            );
            assert_eq!(thread(&dump, "visitor")["waits_for_interpreter"], 1, "{context}");
            assert_eq!(thread(&dump, "visitor")["waits_for_tid"], hogger, "{context}");
            assert!(functions(thread(&dump, "visitor")).contains(&"visit"), "{context}");

            let text = stdout(&run(["dump", "-p", &fixture.pid()]));
            let line = text.lines().find(|line| line.starts_with("visitor (")).unwrap();
            let words = format!("for the GIL of interpreter 1, held by hogger ({hogger})");
            assert!(line.contains("wait") && line.contains(&words), "{text}");

            let directory = TempDir::new().unwrap();
            let path = directory.path().join("report.json");
            let path = path.to_str().unwrap();
            let output = run(["record", "-d", "0.6", "-f", "json", "-o", path, "-p", &fixture.pid()]);
            let summary = stderr(&output);
            let row = summary.lines().find(|line| line.starts_with("visitor ")).unwrap();
            assert!(row.ends_with("1: hogger"), "{summary}");
            assert!(summary.lines().count() <= 25, "{summary}");
            let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            validate("report", &report);
            assert!(thread(&report, "visitor")["states"]["wait"].as_f64() > Some(0.8), "{report:#}");
            let waits = home(&report, "hogger")["waits"].as_array().unwrap();
            let waits_for_it = |wait: &Value| wait["holder_tid"] == hogger && wait["waiter_tid"] == visitor;
            assert!(waits.iter().any(waits_for_it), "{report:#}");
            assert_eq!(home(&report, "visitor")["waits"].as_array().unwrap().len(), 0, "{report:#}");
        });
    }
}

#[test]
fn every_worker_of_an_interpreter_pool_is_found_with_its_own_gil() {
    let _alone = alone();
    for interpreter in interpreters().filter(|interpreter| interpreter.minor >= 14) {
        let fixture = Fixture::start(interpreter, "interpreter_pool.py", &[]);
        let dump = dump_json(&fixture.pid());
        let report = report(&["-d", "0.5", "-p", &fixture.pid()]);
        let context = format!("{}: {dump:#}\n{report:#}", interpreter.version);
        assert_each_thread_once(&dump);
        assert_each_thread_once(&report);
        let workers = ["InterpreterPoolExecutor-0_0", "InterpreterPoolExecutor-0_1"];
        assert_ne!(home(&dump, workers[0])["id"], home(&dump, workers[1])["id"], "{context}");
        for worker in workers {
            assert_eq!(home(&dump, worker)["gil"]["holder_tid"], thread(&dump, worker)["tid"], "{context}");
            assert_eq!(functions(thread(&dump, worker))[..2], ["spin", "do_call"], "{context}");
            assert!(home(&report, worker)["gil"]["held"].as_f64() > Some(0.9), "{context}");
            assert_eq!(home(&report, worker)["top_holders"][0]["function"], "spin", "{context}");
            assert!(thread(&report, worker)["states"]["hold"].as_f64() > Some(0.9), "{context}");
        }
        let stacks = folded(&["-d", "0.3", "-p", &fixture.pid()]);
        let spins = |(stack, _): &(Vec<String>, u64)| function(stack.last().unwrap()) == "spin";
        assert!(stacks.iter().any(spins), "{stacks:?}");
    }
}

/// Free-threaded builds, those of them that can do something.
fn free_threaded() -> impl Iterator<Item = &'static Interpreter> {
    all_interpreters().iter().filter(|interpreter| interpreter.free_threaded)
}

#[test]
fn a_free_threaded_build_is_dumped_and_recorded() {
    let _alone = alone();
    for interpreter in free_threaded() {
        let fixture = Fixture::start(interpreter, "two_spinners.py", &[]);
        let dump = dump_json(&fixture.pid());
        let report = report(&["-d", "0.6", "-p", &fixture.pid()]);
        let context = format!("{}: {dump:#}\n{report:#}", interpreter.version);
        for (name, function) in [("spinner-1", "spin_one"), ("spinner-2", "spin_two")] {
            assert_eq!(
                (state(&dump, name), functions(thread(&dump, name))[0]),
                ("parallel", function),
                "{context}"
            );
            assert!(thread(&report, name)["states"]["parallel"].as_f64() > Some(0.9), "{context}");
        }
        assert_eq!(state(&dump, "MainThread"), "blocked", "{context}");
        assert_eq!(report["verdict"]["kind"], "free-threaded", "{context}");
        assert!(report["parallel_mean"].as_f64() > Some(1.8), "{context}");
        let gil = &report["interpreters"][0]["gil"];
        assert_eq!((&gil["enabled"], &gil["switches"]), (&false.into(), &serde_json::json!([])), "{context}");
    }
}

#[test]
fn a_gil_that_is_on_from_the_start_is_a_gil() {
    let _alone = alone();
    for interpreter in free_threaded() {
        let fixture = Fixture::start_with(interpreter, "two_spinners.py", &[], &[("PYTHON_GIL", "1")]);
        let (report, summary) = report_and_summary(&["-d", "0.6", "-p", &fixture.pid()]);
        let gil = &report["interpreters"][0]["gil"];
        assert_eq!((&gil["enabled"], &gil["switches"]), (&true.into(), &serde_json::json!([])), "{report:#}");
        assert!(gil["held"].as_f64() > Some(0.9), "{report:#}");
        assert!(gil["waiters_mean"].as_f64() > Some(0.5), "{report:#}");
        assert_eq!(
            (&report["parallel_mean"], &report["target"]["free_threaded"]),
            (&0.0.into(), &true.into())
        );
        assert!(summary.contains("The GIL of this free-threaded build was on all the time."), "{summary}");
    }
}

/// Builds an extension module with an interpreter's own headers, if it has them.
fn extension(interpreter: &Interpreter, directory: &Path, flags: &[&str]) -> Option<PathBuf> {
    let script = "import sysconfig; print(sysconfig.get_paths()['include'])";
    let include = stdout(&Command::new(&interpreter.path).args(["-c", script]).output().unwrap());
    let include = Path::new(include.trim());
    if !include.join("Python.h").exists() || !is_there("cc") {
        eprintln!("SKIPPED {}: no headers", interpreter.path.display());
        return None;
    }
    let path = directory.join("slow_extension.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/slow_extension.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-I"]).arg(include).args(flags).arg(source).arg("-o").arg(&path);
    assert!(cc.status().unwrap().success(), "{cc:?}");
    Some(path)
}

/// Records `late_import.py` from before its import to after it. Answers the report and the summary.
fn record_an_import(interpreter: &Interpreter, flags: &[&str]) -> Option<(Value, String)> {
    let directory = TempDir::new().unwrap();
    let module = extension(interpreter, directory.path(), flags)?;
    let fixture = Fixture::start(interpreter, "late_import.py", &["--module", module.to_str().unwrap()]);
    let path = directory.path().join("report.json");
    let mut gilspy = gilspy(["record", "-f", "json", "-o", path.to_str().unwrap(), "-p", &fixture.pid()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(gilspy.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Hz") {
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "{line}");
    }
    std::thread::sleep(Duration::from_millis(400));
    kill(Pid::from_raw(fixture.child.id() as i32), Signal::SIGUSR1).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    kill(Pid::from_raw(gilspy.id() as i32), Signal::SIGINT).unwrap();
    let mut summary = String::new();
    said.read_to_string(&mut summary).unwrap();
    assert!(gilspy.wait().unwrap().success(), "{summary}");
    let report = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    validate("report", &report);
    Some((report, summary))
}

#[test]
fn an_import_that_switches_the_gil_on_is_told_with_when() {
    let _alone = alone();
    for interpreter in free_threaded() {
        let Some((report, summary)) = record_an_import(interpreter, &[]) else { continue };
        let gil = &report["interpreters"][0]["gil"];
        let context = format!("{report:#}\n{summary}");
        assert_eq!(gil["enabled"], true, "{context}");
        let switches = gil["switches"].as_array().unwrap();
        assert_eq!(switches.len(), 1, "{context}");
        assert_eq!(switches[0]["enabled"], true, "{context}");
        let (at, duration) = (switches[0]["at_s"].as_f64(), report["recording"]["duration_s"].as_f64());
        assert!(at > Some(0.3) && at < duration, "{context}");
        assert!(summary.contains("The GIL was switched on after "), "{context}");
        for spinner in ["spinner-1", "spinner-2"] {
            let states = &thread(&report, spinner)["states"];
            assert!(states["parallel"].as_f64() > Some(0.1), "{context}");
            assert!(
                states["hold"].as_f64() > Some(0.02) && states["wait"].as_f64() > Some(0.02),
                "{context}"
            );
        }
        assert!(report["parallel_mean"].as_f64() > Some(0.2), "{context}");
    }
}

#[test]
fn a_gil_that_is_on_for_the_time_of_an_import_only_is_off_again() {
    let _alone = alone();
    for interpreter in free_threaded() {
        let Some((report, summary)) = record_an_import(interpreter, &["-DWITHOUT_GIL"]) else { continue };
        let gil = &report["interpreters"][0]["gil"];
        let context = format!("{report:#}\n{summary}");
        assert_eq!(gil["enabled"], false, "{context}");
        let switches = gil["switches"].as_array().unwrap();
        let states: Vec<bool> = switches.iter().map(|switch| switch["enabled"].as_bool().unwrap()).collect();
        assert_eq!(states, [true, false], "{context}");
        assert!(gil["held"].as_f64() > Some(0.0) && gil["held"].as_f64() < Some(0.5), "{context}");
        assert!(in_one_line(&summary).contains("its GIL is off, and was held"), "{context}");
    }
}

#[test]
fn a_world_that_a_collector_stops_is_seen_to_be_stopped() {
    let _alone = alone();
    for interpreter in free_threaded() {
        let fixture = Fixture::start(interpreter, "stop_the_world.py", &[]);
        let (report, summary) = report_and_summary(&["-d", "1", "-p", &fixture.pid()]);
        let stopped = report["interpreters"][0]["gil"]["stopped"].as_f64().unwrap();
        assert!(stopped > 0.25 && stopped < 1.0, "{report:#}");
        assert!(in_one_line(&summary).contains("One thread had stopped all others"), "{summary}");
        let blocked = thread(&report, "spinner")["states"]["blocked"].as_f64().unwrap();
        assert!(blocked > 0.25, "{report:#}");

        // Nobody stops these.
        let fixture = Fixture::start(interpreter, "two_spinners.py", &[]);
        let report = report_and_summary(&["-d", "0.5", "-p", &fixture.pid()]).0;
        assert_eq!(report["interpreters"][0]["gil"]["stopped"], 0.0, "{report:#}");
    }
}
