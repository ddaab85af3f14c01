//! Pictures of real processes, looked at as a person would: in a browser.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use serde_json::Value;
use support::browser::look;
use support::{Fixture, newest, run};
use tempfile::TempDir;

/// The timeline of a fixture program.
fn timeline(program: &str, directory: &TempDir) -> std::path::PathBuf {
    let fixture = Fixture::start(newest(), program, &[]);
    let path = directory.path().join("timeline.svg");
    let arguments = ["record", "-d", "2", "--max-overhead", "50", "-f", "timeline", "-o"];
    run(arguments.into_iter().chain([path.to_str().unwrap(), "-p", &fixture.pid()]));
    path
}

fn span(view: &Value) -> (f64, f64) {
    (view["view"][0].as_f64().unwrap(), view["view"][1].as_f64().unwrap())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn a_timeline_zooms_pans_filters_and_tells_what_is_under_the_cursor() {
    let directory = TempDir::new().unwrap();
    let Some(seen) = look("timeline.mjs", &timeline("two_spinners.py", &directory)) else { return };
    let whole = span(&seen["whole"]);
    let length = whole.1 - whole.0;
    assert!(whole.0 == 0.0 && length > 1.0, "{whole:?}");

    // The lanes were dragged over from a quarter to three quarters of their width, then moved back by a quarter of that.
    let (zoomed, panned) = (span(&seen["zoomed"]), span(&seen["panned"]));
    for (found, expected) in
        [(zoomed, (0.25, 0.75)), (panned, (0.125, 0.625)), (span(&seen["again"]), (0.125, 0.625))]
    {
        let close = |found: f64, expected: f64| (found / length - expected).abs() < 0.01;
        assert!(close(found.0, expected.0) && close(found.1, expected.1), "{found:?} {expected:?}");
    }
    assert_ne!(seen["zoomed"]["drawn"], seen["whole"]["drawn"]);
    assert_eq!(seen["back"]["drawn"], seen["whole"]["drawn"], "the whole is what it was");
    assert_eq!(span(&seen["back"]), whole);

    // Two threads take turns: whichever is looked at holds the GIL or waits for it, in its own function.
    let hover = text(&seen["hover"]);
    assert!(hover.contains("UTC") && (hover.contains("hold ") || hover.contains("wait ")), "{hover}");
    assert!(hover.contains("spin_") && hover.contains("programs/two_spinners.py:"), "{hover}");
    let strip = text(&seen["strip"]);
    assert!(strip.contains("GIL holder") && strip.contains("spinner-"), "{strip}");

    // A click keeps the moment with its stack, and the address leads back to both.
    let (pinned, hash) = (text(&seen["pinned"]), text(&seen["hash"]));
    assert!(
        pinned.contains("spin_") && hash.starts_with("#at=") && hash.contains("&thread="),
        "{pinned} {hash}"
    );
    assert_eq!(text(&seen["again"]["pinned"]), pinned);
    assert_eq!(seen["unpinned"], true);

    let names = list(&seen["whole"]["names"]);
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(list(&seen["filtered"]["names"]).len(), 1);
    assert_eq!(seen["filtered"]["shorter"], true);
    assert_eq!(list(&seen["unfiltered"]), names);
}

#[test]
fn names_that_are_markup_or_steer_terminals_are_text_in_a_timeline() {
    let directory = TempDir::new().unwrap();
    let path = timeline("hostile_names.py", &directory);
    is_harmless_xml(&path);
    let Some(seen) = look("timeline.mjs", &path) else { return };
    let names = list(&seen["whole"]["names"]);
    for name in ["<script>alert('a…", "␛[31mred␛[0m␇;␊␍␉", "<img src=x onerro…", "emoji 🐍🧵👩\u{200d}💻"]
    {
        let start = name.trim_end_matches('…');
        assert!(
            names.iter().any(|shown| shown.starts_with(start.get(..8).unwrap_or(start))),
            "{name}: {names:?}"
        );
    }
    assert!(names.iter().all(|name| name.chars().count() < 40), "{names:?}");
}

/// Only our own scripts, no event handlers, nothing from outside.
fn is_harmless_xml(path: &Path) {
    let svg = std::fs::read_to_string(path).unwrap();
    let document = roxmltree::Document::parse(&svg).unwrap();
    let scripts = document.descendants().filter(|node| node.has_tag_name("script"));
    assert_eq!(scripts.count(), 2, "the data and the script");
    for node in document.descendants() {
        for attribute in node.attributes() {
            assert!(!attribute.name().starts_with("on"), "{attribute:?}");
            assert!(!attribute.value().contains("://"), "{attribute:?}");
        }
    }
    let unseen = |character: char| character.is_control() && character != '\n';
    assert!(!svg.contains(unseen), "control characters");
}
