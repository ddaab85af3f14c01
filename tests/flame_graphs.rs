//! Flame graphs and folded stacks of real processes: what each kind of time is charged to, and what they do in a browser.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::Value;
use support::browser::look;
use support::*;
use tempfile::TempDir;

/// The share of ticks whose stack is such.
fn share(stacks: &[(Vec<String>, u64)], is_meant: impl Fn(&[String]) -> bool) -> f64 {
    let total: u64 = stacks.iter().map(|(_, ticks)| ticks).sum();
    let meant = stacks.iter().filter(|(stack, _)| is_meant(stack)).map(|(_, ticks)| ticks);
    meant.sum::<u64>() as f64 / total.max(1) as f64
}

fn runs_in(stack: &[String], wanted: &str) -> bool {
    stack.iter().any(|frame| function(frame) == wanted)
}

#[test]
fn waiting_is_charged_to_who_waits_and_blame_to_who_makes_him() {
    for interpreter in [interpreters().next().unwrap(), newest()] {
        let fixture = Fixture::start(interpreter, "c_holds_gil.py", &[]);
        let stacks = |by| folded(&["-d", "1", "--by", by, "-p", &fixture.pid()]);
        let (waited, blamed) = (stacks("wait"), stacks("blame"));
        // The main thread may still wait for its turn to rest.
        let of = |thread: &str| share(&waited, |stack| stack[0].starts_with(thread));
        assert!(of("victim (") > 0.4 && of("hogger (") < 0.2, "{}: {waited:?}", interpreter.version);
        assert!(share(&blamed, |stack| runs_in(stack, "hog")) > 0.8, "{}: {blamed:?}", interpreter.version);
    }
}

#[test]
fn wall_time_has_who_sleeps_and_cpu_time_has_not() {
    let fixture = Fixture::start(newest(), "sleepers.py", &[]);
    let ticks = |by| -> u64 {
        folded(&["-d", "0.5", "--by", by, "-p", &fixture.pid()]).iter().map(|(_, ticks)| ticks).sum()
    };
    let (wall, cpu) = (ticks("wall"), ticks("cpu"));
    assert!(wall > 0 && cpu * 10 < wall, "{wall} {cpu}");
}

#[test]
fn reversed_and_merged_stacks_start_with_the_innermost_call_of_all_threads() {
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let stacks = folded(&[
        "-d",
        "0.5",
        "--reverse",
        "--merge-threads",
        "-F",
        "--full-filenames",
        "-p",
        &fixture.pid(),
    ]);
    let innermost = |name: &str| {
        let frame = format!("{name} ({})", program("two_spinners.py").display());
        share(&stacks, |stack| stack.contains(&frame))
    };
    assert!(innermost("spin_one") > 0.2 && innermost("spin_two") > 0.2, "{stacks:?}");
    assert!(
        stacks.iter().flat_map(|(stack, _)| stack).all(|part| !part.starts_with("spinner-")),
        "{stacks:?}"
    );
}

#[test]
fn holders_alone_tell_nothing_of_who_waits() {
    let message = failure(2, ["record", "--gil", "--by", "wait", "-p", "1"]);
    assert!(
        message.contains("--gil looks only at who holds the GIL") && message.contains("--by wait"),
        "{message}"
    );
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn a_flame_graph_zooms_walks_searches_and_fits_its_window() {
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("flames.svg");
    run(["record", "-d", "1", "-f", "flamegraph", "-o", path.to_str().unwrap(), "-p", &fixture.pid()]);
    let Some(seen) = look("flamegraph.mjs", &path) else { return };

    for line in seen["head"].as_array().unwrap() {
        assert!(line[1].as_f64() < Some(1200.0), "{line}");
    }
    for view in [&seen["wide"], &seen["narrow"]] {
        let [width, window] = ["width", "window"].map(|name| view[name].as_f64().unwrap());
        assert!((window - 20.0 - width).abs() < 1.0, "{view}");
        let labels = view["labels"].as_array().unwrap();
        assert!(labels.iter().any(|label| text(label).trim() == "all"), "{labels:?}");
    }
    assert_ne!(seen["wide"]["labels"], seen["narrow"]["labels"], "names are cut to their boxes");

    assert!(text(&seen["hover"]["details"]).contains("spin_"), "{}", seen["hover"]);
    assert!(seen["zoomed"]["hidden"].as_u64() > Some(0), "{}", seen["zoomed"]);
    assert!(text(&seen["zoomed"]["address"]).starts_with("?x="), "{}", seen["zoomed"]);
    assert_eq!((&seen["back"]["hidden"], text(&seen["back"]["address"])), (&0.into(), ""));

    let walked: Vec<&str> = seen["walked"].as_array().unwrap().iter().map(text).collect();
    assert!(walked[0].starts_with("spinner-") && walked[3] == walked[1], "{walked:?}");
    assert!(seen["entered"]["hidden"].as_u64() > Some(0), "{}", seen["entered"]);
    assert_eq!(seen["left"]["hidden"], 0);

    assert!(text(&seen["found"]["matched"]).starts_with("Matched: "), "{}", seen["found"]);
    assert!(seen["found"]["marked"].as_u64() > Some(0), "{}", seen["found"]);
    assert_ne!(seen["light"], seen["dark"]);
}
