//! The HTML report of real processes, read as a person would: in a browser, by keyboard.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::PathBuf;

use serde_json::Value;
use support::browser::look;
use support::{Fixture, newest, run};
use tempfile::TempDir;

const KINDS: [&str; 5] = ["hold", "wait", "blame", "cpu", "wall"];

/// The report of a fixture program.
fn report(program: &str, directory: &TempDir) -> PathBuf {
    let fixture = Fixture::start(newest(), program, &[]);
    let path = directory.path().join("report.html");
    let arguments = ["record", "-d", "2", "--max-overhead", "50", "-f", "html", "-o"];
    run(arguments.into_iter().chain([path.to_str().unwrap(), "-p", &fixture.pid()]));
    path
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(text).collect()
}

/// Two threads compute; where others have the CPUs, that is what is said first.
fn has_verdict(words: &str) -> bool {
    words.contains("Gil-bound: ") || words.contains("Cpu-starved: ")
}

/// A switch from each flame graph to the next by arrow key, and back to the first.
fn every_flame_graph_is_shown_when_chosen(seen: &Value) {
    let flames = seen["flames"].as_array().unwrap();
    for (kind, flame) in KINDS.iter().zip(flames) {
        assert_eq!(list(&flame["shown"]), [format!("flame-{kind}")]);
        assert!(
            flame["frames"].as_u64() > Some(2) && flame["labelled"].as_u64() > Some(2),
            "{kind}: {flame}"
        );
    }
    let titles: Vec<&str> = flames.iter().map(|flame| text(&flame["title"])).collect();
    for (title, words) in
        titles.iter().zip(["held the GIL", "waited for", "made others wait", "ran", "threads were"])
    {
        assert!(title.contains(words), "{titles:?}");
    }
}

#[test]
fn a_report_can_be_read_searched_sorted_and_printed_by_keyboard_alone() {
    let directory = TempDir::new().unwrap();
    let Some(seen) = look("report.mjs", &report("two_spinners.py", &directory)) else { return };
    every_flame_graph_is_shown_when_chosen(&seen);

    let words = text(&seen["text"]);
    for expected in ["Try ", "spin_one", "threads waiting", "of one CPU", "What the words mean"] {
        assert!(words.contains(expected), "{expected}: {words}");
    }

    assert!(has_verdict(words), "{words}");

    let tabs = list(&seen["tabs"]);
    let place = |wanted: &str| tabs.iter().position(|tab| tab.starts_with(wanted));
    let order =
        ["a Skip", "a Verdict", "iframe Timeline", "input by-hold", "input term", "iframe Flame graph"]
            .map(place);
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{tabs:?}");

    let searches = &seen["searches"];
    assert!(searches["spin"]["marked"].as_u64() > Some(0), "{searches}");
    assert!(
        text(&searches["spin"]["answer"]).starts_with("Matched: 9")
            || text(&searches["spin"]["answer"]) == "Matched: 100%",
        "{searches}"
    );
    assert_eq!(text(&searches["no such name"]["answer"]), "Matched: nothing");
    assert_eq!((&searches["no such name"]["marked"], &searches[""]["marked"]), (&0.into(), &0.into()));

    let keys = &seen["keys"];
    let details = list(&keys["details"]);
    assert!(details[0].starts_with("all (") && details[1].starts_with("spinner-"), "{details:?}");
    assert!(keys["zoomed"].as_u64() > Some(0) && keys["clicked"].as_u64() > Some(0), "{keys}");
    assert_eq!((&keys["unzoomed"], &keys["back"]), (&0.into(), &0.into()));

    let (descending, ascending) = (list(&seen["sorted"]["descending"]), list(&seen["sorted"]["ascending"]));
    assert!(
        descending.len() == 3 && descending.iter().eq(ascending.iter().rev()),
        "{descending:?} {ascending:?}"
    );
    assert_eq!(seen["sorted"]["says"], "ascending");

    assert_eq!(seen["timeline"]["lanes"], 3);
    assert!(text(&seen["timeline"]["pinned"]).contains("UTC"), "{}", seen["timeline"]);
    assert!(seen["timeline"]["cut"].as_f64() < Some(1.0), "{}", seen["timeline"]);

    let heads: Vec<i64> =
        seen["heads"].as_array().unwrap().iter().map(|level| level.as_i64().unwrap()).collect();
    assert!(heads[0] == 1 && heads.windows(2).all(|pair| pair[1] > 1 && pair[1] <= pair[0] + 1), "{heads:?}");
    assert_eq!((&seen["unlabelled"], &seen["narrow"]), (&0.into(), &true.into()));
    assert!(
        seen["dark"]["page"] != seen["light"] && seen["dark"]["page"] == seen["dark"]["picture"],
        "{}",
        seen["dark"]
    );

    let print = &seen["print"];
    assert_eq!(list(&print["flames"]), KINDS.map(|kind| format!("flame-{kind}")));
    assert_eq!((&print["nav"], &print["search"]), (&false.into(), &false.into()));

    let still = &seen["still"];
    assert!(has_verdict(text(&still["text"])) && still["frames"].as_u64() > Some(2), "{still}");
    assert_eq!((&still["search"], text(&still["shown"])), (&false.into(), "flame-wait"));
}

#[test]
fn names_that_are_markup_or_steer_terminals_are_text_in_a_report() {
    let directory = TempDir::new().unwrap();
    let Some(seen) = look("report.mjs", &report("hostile_names.py", &directory)) else { return };
    every_flame_graph_is_shown_when_chosen(&seen);
    assert_eq!(seen["foreign"], 0);
    let (words, names) = (text(&seen["text"]), list(&seen["names"]).join("\n"));
    for name in [
        "<script>alert('a')</script>",
        "</script></title></style><script>alert('b')</script>",
        "<img src=x onerror=alert('c')>",
        "\"'&<>]]>--> \" onload=\"alert('d')",
        "␛[31mred␛[0m␇",
        "emoji 🐍🧵👩\u{200d}💻",
        "right ⟨U+202E⟩to left⟨U+202C⟩ שלום مرحبا",
        "{{7*7}} ${alert('e')} %s %n",
    ] {
        assert!(words.contains(name), "{name} in the page: {words}");
        assert!(names.contains(name), "{name} in the flame graph: {names}");
    }
    assert!(words.lines().all(|line| line.chars().count() < 3000));
}
