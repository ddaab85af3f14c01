//! Several processes in one recording: children as they come, by whatever way, and several that are named.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::process::Command;

use serde_json::Value;
use support::*;
use tempfile::TempDir;

/// The reports of all processes of a recording with these further arguments.
fn processes(arguments: &[&str]) -> Vec<Value> {
    let document = report(&[&["--max-overhead", "99"], arguments].concat());
    match document.get("processes") {
        Some(processes) => processes.as_array().unwrap().clone(),
        None => vec![document],
    }
}

fn pid(report: &Value) -> i64 {
    report["target"]["pid"].as_i64().unwrap()
}

/// How much of the time a process's only GIL was held.
fn held(report: &Value) -> f64 {
    report["interpreters"][0]["gil"]["held"].as_f64().unwrap()
}

fn top_functions(report: &Value) -> Vec<&str> {
    let top = report["interpreters"][0]["top_holders"].as_array().unwrap();
    top.iter().filter_map(|top| top["function"].as_str()).collect()
}

fn find(reports: &[Value], wanted: i64) -> &Value {
    reports.iter().find(|report| pid(report) == wanted).unwrap_or_else(|| panic!("no {wanted}: {reports:#?}"))
}

#[test]
fn the_workers_of_a_pool_have_a_gil_each_however_they_are_started() {
    let _alone = alone();
    for method in ["fork", "spawn", "forkserver"] {
        let fixture = Fixture::start(newest(), "process_pool.py", &["--method", method, "--seconds", "20"]);
        let reports = processes(&["-s", "-d", "2", "-p", &fixture.pid()]);
        let parent: i64 = fixture.pid().parse().unwrap();
        let workers: Vec<i64> = fixture.ready["children"]
            .as_array()
            .unwrap()
            .iter()
            .map(|child| child.as_i64().unwrap())
            .collect();
        assert!(held(find(&reports, parent)) < 0.05, "{method}");
        for worker in &workers {
            let report = find(&reports, *worker);
            assert!(held(report) > 0.95, "{method}: {report:#}");
            assert_eq!(top_functions(report)[0], "crunch", "{method}");
            assert!(report["parent_pid"].is_i64(), "{method}");
            assert_eq!(report["interpreters"][0]["gil"]["waiters_mean"], 0.0, "{method}");
        }
        for worker in workers {
            Command::new("kill").arg(worker.to_string()).status().unwrap();
        }
    }
}

#[test]
fn children_that_execute_python_are_found_even_below_a_shell() {
    let _alone = alone();
    for kind in ["exec", "shell"] {
        let fixture = Fixture::start(newest(), "family.py", &["--kind", kind]);
        let reports = processes(&["-s", "-d", "2", "-p", &fixture.pid()]);
        assert_eq!(reports.len(), 2, "{kind}: {reports:#?}");
        let parent: i64 = fixture.pid().parse().unwrap();
        let child = reports.iter().find(|report| pid(report) != parent).unwrap();
        assert_eq!((top_functions(child)[0], &child["parent_pid"]), ("spin", &parent.into()), "{kind}");
        assert!(held(child) > 0.95, "{kind}: {child:#}");
    }
}

#[test]
fn what_is_not_python_is_passed_over_silently() {
    let _alone = alone();
    let fixture = Fixture::start(newest(), "family.py", &["--kind", "other"]);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("report.json");
    let output =
        run(["record", "-s", "-d", "1", "-f", "json", "-o", path.to_str().unwrap(), "-p", &fixture.pid()]);
    let text = stderr(&output);
    assert!(!text.contains("more are") && !text.contains("gilspy:"), "{text}");
    let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(report["target"]["pid"], fixture.pid().parse::<i64>().unwrap());
}

#[test]
fn children_that_live_for_ten_milliseconds_do_not_disturb_the_rest() {
    let _alone = alone();
    let fixture = Fixture::start(newest(), "family.py", &["--kind", "short"]);
    let reports = processes(&["-s", "-d", "2", "-p", &fixture.pid()]);
    let child = find(&reports, fixture.ready["children"][0].as_i64().unwrap());
    assert_eq!(top_functions(child)[0], "spin");
    assert!(held(child) > 0.95, "{child:#}");
    // On a busy machine some live for longer.
    assert!(reports.len() < 12, "{} of about 50 were followed", reports.len());
}

#[test]
fn several_processes_that_are_named_have_one_recording_until_the_last_has_ended() {
    let _alone = alone();
    let spinners = Fixture::start(newest(), "two_spinners.py", &["--seconds", "2"]);
    let sleepers = Fixture::start(newest(), "sleepers.py", &["--seconds", "4"]);
    let reports = processes(&["-p", &spinners.pid(), "-p", &sleepers.pid()]);
    let [spinning, sleeping] = [&spinners, &sleepers].map(|it| find(&reports, it.pid().parse().unwrap()));
    let held = spinning["interpreters"][0]["gil"]["held"].as_f64().unwrap();
    assert!(held > 0.95, "{spinning:#}");
    assert_eq!(sleeping["verdict"]["kind"], "idle");
    let duration = |report: &Value| report["recording"]["duration_s"].as_f64().unwrap();
    assert!(duration(spinning) < duration(sleeping), "{reports:#?}");
}

#[test]
fn a_process_that_replaces_itself_is_followed_into_what_it_becomes() {
    let _alone = alone();
    let fixture = Fixture::start(newest(), "family.py", &["--kind", "replace"]);
    let reports = processes(&["-s", "-d", "4", "-p", &fixture.pid()]);
    let [before, after] = reports.as_slice() else { panic!("{reports:#?}") };
    assert_eq!(pid(before), pid(after));
    assert_eq!(top_functions(after)[0], "spin");
    assert!(held(before) < 0.05 && held(after) > 0.95, "{reports:#?}");
    assert!(after["recording"]["since_s"].as_f64() >= before["recording"]["duration_s"].as_f64());
}

#[test]
fn a_started_command_that_is_not_python_may_have_children_that_are() {
    let _alone = alone();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("report.json");
    let python = newest().path.to_str().unwrap();
    let spinners = program("two_spinners.py");
    let command = format!("'{python}' '{}' --seconds 2; exit 3", spinners.display());
    let arguments = ["record", "-s", "-f", "json", "-o", path.to_str().unwrap(), "--", "sh", "-c", &command];
    let output = gilspy(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    validate("report", &report);
    assert!(report["interpreters"][0]["gil"]["held"].as_f64() > Some(0.9), "{report:#}");
}

#[test]
fn where_no_process_has_python_that_is_said() {
    let message = failure(1, ["record", "-s", "-f", "json", "-o", "-", "--", "sh", "-c", "sleep 0.3; :"]);
    assert!(message.contains("no CPython interpreter was seen"), "{message}");
}

#[test]
fn pictures_and_summary_of_several_processes_are_whole_and_a_part_may_be_drawn() {
    let _alone = alone();
    let fixture = Fixture::start(newest(), "process_pool.py", &["--method", "fork"]);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pool.svg");
    let output = run(["record", "-s", "-d", "1.5", "-o", path.to_str().unwrap(), "-p", &fixture.pid()]);
    let text = stderr(&output);
    let summary = text.split_once("\n\n").unwrap().1;
    assert!(summary.starts_with("3 processes, each with its GIL"), "{text}");
    assert!(summary.lines().count() <= 20 && summary.lines().all(|it| it.chars().count() <= 80), "{text}");
    for name in ["pool.svg", "pool.timeline.svg"] {
        let svg = std::fs::read_to_string(directory.path().join(name)).unwrap();
        roxmltree::Document::parse_with_options(
            &svg,
            roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() },
        )
        .unwrap();
        for child in fixture.ready["children"].as_array().unwrap() {
            assert!(svg.contains(&child.to_string()), "{name}");
        }
    }
    let recording = directory.path().join("pool.gilspy");
    let part =
        run(["render", recording.to_str().unwrap(), "-f", "json", "-o", "-", "--from", "0.5", "--to", "1"]);
    let part: Value = serde_json::from_slice(&part.stdout).unwrap();
    validate("report", &part);
    assert_eq!(part["processes"].as_array().unwrap().len(), 3);
}
