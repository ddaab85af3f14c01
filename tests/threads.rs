//! Threads: very many, short-lived, left over; and processes that come and go under one pid.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::{HashMap, HashSet};
use std::process::Command;

use serde_json::Value;
use support::*;
use tempfile::TempDir;

/// Interpreters of every way to keep threads: descriptor and thread state, frames on the heap and off it, no GIL.
fn chosen() -> Vec<&'static Interpreter> {
    let mut chosen: Vec<&Interpreter> = Vec::new();
    for interpreter in all_interpreters().iter().filter(|it| [9, 12, 13, 15].contains(&it.minor)) {
        if !chosen.iter().any(|it| it.series() == interpreter.series()) {
            chosen.push(interpreter);
        }
    }
    chosen
}

fn tids_of(pid: &str) -> HashSet<i64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks.map(|task| task.file_name().to_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_thousand_threads_are_all_there_even_with_few_file_descriptors() {
    let _alone = alone();
    for interpreter in chosen().into_iter().filter(|it| [9, 13].contains(&it.minor)) {
        let fixture = Fixture::start(interpreter, "many_threads.py", &[]);
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 256; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_gilspy")]);
        let output = command.args(["dump", "--json", "-p", &fixture.pid()]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let dump: Value = serde_json::from_slice(&output.stdout).unwrap();
        let threads = threads(&dump);
        assert_eq!(threads.len(), 1002, "{}", interpreter.version);
        let tids: HashSet<i64> = threads.iter().map(|thread| thread["tid"].as_i64().unwrap()).collect();
        assert_eq!(tids, tids_of(&fixture.pid()), "{}", interpreter.version);
        for number in 0..1000 {
            let sleeper = thread(&dump, &format!("sleeper-{number}"));
            assert_eq!((&sleeper["state"], functions(sleeper)[0]), (&"blocked".into(), "nap"), "{sleeper:#}");
        }
        assert_eq!(functions(thread(&dump, "spinner"))[0], "spin", "{}", interpreter.version);

        let report = report(&["-d", "0.5", "-p", &fixture.pid()]);
        let names: HashSet<&str> =
            support::threads(&report).iter().map(|thread| thread["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), 1002, "{}", interpreter.version);
    }
}

#[test]
fn threads_that_live_for_two_milliseconds_are_not_taken_for_each_other() {
    let _alone = alone();
    for interpreter in chosen() {
        let fixture = Fixture::start(interpreter, "thread_storm.py", &[]);
        let report = report(&["-d", "1", "-p", &fixture.pid()]);
        let context = &interpreter.version;
        let all = threads(&report);
        let mut names = HashMap::<&str, HashSet<i64>>::new();
        for thread in &all {
            // One that had ended when it was met has no name.
            let (name, tid) = (thread["name"].as_str().unwrap_or_default(), thread["tid"].as_i64());
            if name.starts_with("storm-") {
                names.entry(name).or_default().extend(tid);
            }
        }
        assert!(names.values().all(|tids| tids.len() <= 1), "{context}: one name, one thread: {names:?}");
        assert!(!names.is_empty(), "{context}: none of them was seen");
        let stays = |name: &str| thread(&report, name)["states"]["blocked"].as_f64().unwrap();
        assert!(stays("sleeper") > 0.95, "{context}: {report:#}");
        // One that has ended is not `unknown` until the next look for threads: most are known all their life.
        let is_unknown = |thread: &&&Value| thread["states"]["unknown"].as_f64() > Some(0.5);
        let unknown = all.iter().filter(is_unknown).count();
        assert!(unknown * 4 < all.len(), "{context}: {unknown} of {}: {report:#}", all.len());
        let stacks = folded(&["-d", "0.5", "-p", &fixture.pid()]);
        for (stack, _) in stacks {
            let names: Vec<&str> = stack.iter().map(|frame| function(frame)).collect();
            assert!(!(names.contains(&"live") && names.contains(&"breed")), "{context}: {names:?}");
        }
    }
}

#[test]
fn a_process_whose_first_thread_has_ended_is_still_read() {
    let _alone = alone();
    for interpreter in chosen() {
        for arguments in [&["--exit"] as &[&str], &[]] {
            let fixture = Fixture::start(interpreter, "main_thread_ends.py", arguments);
            let pid = fixture.pid();
            if !arguments.is_empty() {
                while !std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ") {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            }
            let dump = dump_json(&pid);
            let context = format!("{} {arguments:?}: {dump:#}", interpreter.version);
            let works = if interpreter.free_threaded { "parallel" } else { "hold" };
            let (worker, sleeper) = (thread(&dump, "worker"), thread(&dump, "sleeper"));
            assert_eq!((&worker["state"], functions(worker)[0]), (&works.into(), "work"), "{context}");
            assert_eq!((&sleeper["state"], functions(sleeper)[0]), (&"blocked".into(), "nap"), "{context}");
            assert_eq!(dump["target"]["command"].as_array().unwrap().len(), 2 + arguments.len(), "{context}");
            // What has ended does nothing; to 3.10 only its thread state is left, which does not say so.
            let main = threads(&dump).into_iter().find(|thread| thread["name"] == "MainThread");
            let is_over = main.is_none_or(|main| main["state"] == "unknown" && interpreter.minor < 11);
            assert_eq!(is_over, !arguments.is_empty(), "{context}");
            let report = report(&["-d", "0.3", "-p", &pid]);
            assert!(thread(&report, "worker")["states"][works].as_f64() > Some(0.8), "{report:#}");
        }
    }
}

#[test]
fn a_process_whose_first_thread_ends_while_it_is_recorded_is_recorded_on() {
    let _alone = alone();
    let interpreter = newest();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("report.json");
    // From its first bytecode on.
    let output = gilspy(["record", "-d", "1.5", "-f", "json", "-o", path.to_str().unwrap(), "--"])
        .arg(&interpreter.path)
        .arg(program("main_thread_ends.py"))
        .args(["--exit", "--seconds", "2"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(report["recording"]["duration_s"].as_f64() > Some(1.4), "{report:#}");
    assert!(thread(&report, "worker")["states"]["hold"].as_f64() > Some(0.5), "{report:#}");
}

#[test]
fn while_an_interpreter_is_shut_down_only_what_is_left_is_shown() {
    let _alone = alone();
    for interpreter in chosen() {
        let fixture = Fixture::start(interpreter, "daemon_at_exit.py", &[]);
        std::thread::sleep(std::time::Duration::from_millis(300));
        let dump = dump_json(&fixture.pid());
        let context = format!("{}: {dump:#}", interpreter.version);
        let pid = fixture.child.id();
        let main = threads(&dump).into_iter().find(|thread| thread["tid"] == pid).unwrap();
        assert_eq!(main["state"], "blocked", "{context}");
        assert!(functions(main)[0].ends_with("__del__"), "{context}");
        // To its very end.
        let (report, summary) = report_and_summary(&["-p", &fixture.pid()]);
        assert!(summary.contains(&format!("pid {pid} ended.")), "{summary}");
        assert!(report["recording"]["duration_s"].as_f64() > Some(0.5), "{report:#}");
    }
}

#[test]
fn a_forked_child_has_the_thread_that_forked_and_no_other() {
    let _alone = alone();
    for interpreter in chosen() {
        for arguments in [&[] as &[&str], &["--from-thread"]] {
            let fixture = Fixture::start(interpreter, "forked_child.py", arguments);
            let child = fixture.ready["child"].as_i64().unwrap();
            let dump = dump_json(&child.to_string());
            let context = format!("{} {arguments:?}: {dump:#}", interpreter.version);
            let [only] = threads(&dump).try_into().unwrap_or_else(|_| panic!("{context}"));
            let works = if interpreter.free_threaded { "parallel" } else { "hold" };
            assert_eq!((&only["tid"], &only["state"]), (&child.into(), &works.into()), "{context}");
            assert_eq!(functions(only)[..2], ["child", "fork"], "{context}");
            // The parent is as it was.
            let dump = dump_json(&fixture.pid());
            assert_eq!(thread(&dump, "MainThread")["tid"], fixture.child.id(), "{dump:#}");
            assert_eq!(functions(thread(&dump, "spinner"))[0], "spin", "{dump:#}");
        }
    }
}

#[test]
fn of_greenlets_the_one_that_runs_is_shown() {
    let _alone = alone();
    let mut tested = 0;
    for interpreter in interpreters().filter(|it| it.path.starts_with(fetched_interpreters())) {
        let packages = fetched_interpreters().join("packages").join(interpreter.series());
        if !packages.exists() {
            continue;
        }
        let packages = packages.to_str().unwrap();
        let fixture = Fixture::start_with(interpreter, "greenlets.py", &[], &[("PYTHONPATH", packages)]);
        let dump = dump_json(&fixture.pid());
        let context = format!("{}: {dump:#}", interpreter.version);
        let (hub, waiter) = (thread(&dump, "hub"), thread(&dump, "waiter"));
        assert_eq!((&hub["state"], functions(hub)), (&"hold".into(), vec!["spin", "run_spin"]), "{context}");
        let expected = (&"blocked".into(), vec!["rest_between", "run_waiting"]);
        assert_eq!((&waiter["state"], functions(waiter)), expected, "{context}");
        tested += 1;
    }
    if tested == 0 {
        assert!(std::env::var_os("CI").is_none(), "no greenlet: run fixtures/fetch-packages.sh");
        eprintln!("SKIPPED for want of greenlet: run fixtures/fetch-packages.sh");
    }
}

/// In a PID namespace of its own: records a process, stops gilspy, kills the process, and starts another one with
/// its pid and, as addresses are not random, the same addresses. Then gilspy goes on.
const REUSE: &str = r#"
set -e
"$PYTHON" "$FIRST" & first=$!
sleep 0.5
"$GILSPY" record --max-overhead 99 -d 20 -f raw -o "$OUT" -p $first & gilspy=$!
while ! grep -q Hz "$ERRORS"; do sleep 0.02; done
sleep 0.5
kill -STOP $gilspy
kill -KILL $first
wait $first || true
echo $((first - 1)) >/proc/sys/kernel/ns_last_pid
"$PYTHON" "$SECOND" & second=$!
sleep 0.5
kill -CONT $gilspy
wait $gilspy
kill -KILL $second
echo "$first $second"
"#;

#[test]
fn a_process_that_gets_the_pid_of_one_that_ended_is_never_taken_for_it() {
    let _alone = alone();
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "setarch", "-R"]);
        command
    };
    if !unshare().arg("true").output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "no PID namespace can be made");
        eprintln!("SKIPPED: no PID namespace can be made here (unshare and setarch, as root)");
        return;
    }
    let directory = TempDir::new().unwrap();
    let (out, errors) = (directory.path().join("folded"), directory.path().join("errors"));
    let output = unshare()
        .args(["sh", "-c", REUSE])
        .env("PYTHON", &newest().path)
        .env("FIRST", program("two_spinners.py"))
        .env("SECOND", program("short_lived.py"))
        .env("GILSPY", env!("CARGO_BIN_EXE_gilspy"))
        .env("OUT", &out)
        .env("ERRORS", &errors)
        .stderr(std::fs::File::create(&errors).unwrap())
        .output()
        .unwrap();
    let said = std::fs::read_to_string(&errors).unwrap();
    assert!(output.status.success(), "{said}");
    let pids = stdout(&output);
    let (first, second) = pids.trim().split_once(' ').unwrap();
    assert_eq!(first, second, "the pid was not used again");
    assert!(said.contains(&format!("pid {first} ended.")), "{said}");
    let stacks = unfold(&std::fs::read_to_string(out).unwrap());
    assert!(!stacks.is_empty(), "{said}");
    for (stack, _) in stacks {
        assert!(stack.iter().all(|frame| !frame.contains("short_lived")), "{stack:?}");
    }
}
