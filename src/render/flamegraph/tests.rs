#![allow(clippy::unwrap_used)]

use roxmltree::{Document, Node};

use super::*;
use crate::analysis::By;
use crate::recording::{RateChange, Recording, fake};

fn svg_of(recordings: &[&Recording], stacks: StackOptions) -> String {
    let processes: Vec<_> = recordings.iter().map(|recording| Analysed::of(recording).unwrap()).collect();
    let mut svg = Vec::new();
    write(&processes, stacks, Place::Window, &mut svg).unwrap();
    String::from_utf8(svg).unwrap()
}

fn svg(recording: &Recording, by: By) -> String {
    svg_of(&[recording], StackOptions { by, ..StackOptions::default() })
}

fn texts<'a>(document: &'a Document<'_>, tag: &str) -> Vec<&'a str> {
    document
        .descendants()
        .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", tag)))
        .filter_map(|node| node.text())
        .collect()
}

/// What each frame says of itself, and its colour.
fn frames(svg: &str) -> Vec<(String, String)> {
    let document = Document::parse(svg).unwrap();
    let part = |frame: &Node<'_, '_>, place: usize| {
        frame.children().filter(Node::is_element).nth(place).map(|node| node.id())
    };
    let frames = document.descendants().find(|node| node.attribute("id") == Some("frames")).unwrap();
    let node = |id| document.get_node(id).unwrap();
    (frames.children().filter(Node::is_element))
        .map(|frame| {
            let title = node(part(&frame, 0).unwrap()).text().unwrap().to_owned();
            (title, node(part(&frame, 1).unwrap()).attribute("fill").unwrap().to_owned())
        })
        .collect()
}

fn titles(svg: &str) -> Vec<String> {
    let mut titles: Vec<String> = frames(svg).into_iter().map(|(title, _)| title).collect();
    titles.sort();
    titles
}

#[test]
fn it_says_what_was_recorded_and_what_width_means() {
    let svg = svg(&fake::recording("AAAB."), By::Hold);
    let document = Document::parse(&svg).unwrap();
    let words = texts(&document, "text").join("\n");
    for expected in [
        "Code that held the GIL: 4.0 ms, 80.0 % of the time",
        "Width: for how long a call held the GIL",
        "python3 app.py · pid 4242 on web-7 · CPython 3.12.7",
        "2026-11-20 14:02:11 UTC, 5.0 ms at 1000 Hz · 5 ticks",
        "own code",
        "site-packages",
        "standard library",
    ] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
}

#[test]
fn frames_have_time_and_share_instead_of_a_count() {
    let recording = fake::of_threads(&["HHH.", "WWH.", "WBBB"]);
    assert_eq!(
        titles(&svg(&recording, By::Hold)),
        [
            "all (3.0 ms, 100.0 %)",
            "run (app/main.py:3) (3.0 ms, 100.0 %)",
            "spin_one (app/main.py:16) (3.0 ms, 100.0 %)",
            "thread-1 (4243) (3.0 ms, 100.0 %)",
        ]
    );
    let blamed = titles(&svg(&recording, By::Blame));
    assert!(blamed.contains(&"spin_one (app/main.py:16) (3.0 ms, 100.0 %)".to_owned()), "{blamed:?}");
    let waited = titles(&svg(&recording, By::Wait));
    assert!(waited.contains(&"thread-2 (4244) (2.0 ms, 66.7 %)".to_owned()), "{waited:?}");
}

#[test]
fn reversed_and_merged_it_stands_on_the_innermost_calls() {
    let recording = fake::of_threads(&["HH", "WW"]);
    let options =
        StackOptions { by: By::Wall, reversed: true, merge_threads: true, ..StackOptions::default() };
    let svg = svg_of(&[&recording], options);
    assert_eq!(
        titles(&svg),
        [
            "all (4.0 ms, 100.0 %)",
            "run (app/main.py:3) (2.0 ms, 50.0 %)",
            "run (app/main.py:3) (2.0 ms, 50.0 %)",
            "spin_one (app/main.py:16) (2.0 ms, 50.0 %)",
            "spin_two (app/main.py:22) (2.0 ms, 50.0 %)",
        ]
    );
    assert!(svg.contains("Downward: from the innermost call to its callers, all threads together."));
}

#[test]
fn several_processes_stand_beside_each_other() {
    let (first, mut second) = (fake::recording("AA"), fake::recording("B"));
    second.target.pid = crate::units::Pid::new(4300);
    let titles = titles(&svg_of(&[&first, &second], StackOptions::default()));
    for process in ["pid 4242 python3 app.py (2.0 ms, 66.7 %)", "pid 4300 python3 app.py (1.0 ms, 33.3 %)"] {
        assert!(titles.iter().any(|title| title == process), "{titles:?}");
    }
}

#[test]
fn kinds_of_code_have_colours_of_their_own() {
    let names = ["all", "thread", "own", "package", "library", "unknown"];
    let fills = Kind::ALL.map(|kind| names.map(|name| palette::fill(kind, name)));
    for (place, of_kind) in fills.iter().enumerate() {
        for other in &fills[place + 1..] {
            assert!(!of_kind.iter().any(|fill| other.contains(fill)));
        }
    }
    for (title, fill) in frames(&svg(&fake::recording("A"), By::Hold)) {
        let kind = if title.contains(".py") { Kind::Own } else { Kind::Root };
        let name = title.rsplit_once(" (").unwrap().0;
        assert_eq!(fill, palette::fill(kind, name), "{title}");
    }
}

#[test]
fn nothing_to_see_is_a_picture_too() {
    for (ticks, by, words) in [
        ("....", By::Hold, "Nobody held the GIL during this recording"),
        ("", By::Hold, "Nobody held the GIL"),
        ("--", By::Hold, "There was no GIL to hold (free-threaded build)"),
        ("AA", By::Wait, "Nobody waited for the GIL"),
        ("AA", By::Blame, "Nobody made others wait"),
        ("..", By::Cpu, "No thread was seen to run"),
        ("", By::Wall, "No thread was seen"),
    ] {
        let titles = titles(&svg(&fake::recording(ticks), by));
        assert!(
            titles.len() == 2 && titles.iter().any(|title| title.starts_with(words)),
            "{ticks}: {titles:?}"
        );
    }
    let holders = fake::of_holders(&["HH.", "..H"]);
    for by in [By::Wait, By::Blame, By::Cpu, By::Wall] {
        assert!(svg(&holders, by).contains("(--gil): nothing is known of this"), "{by:?}");
    }
}

#[test]
fn the_head_fits_its_picture_whatever_it_has_to_say() {
    let mut recording = fake::recording("AB");
    recording.target.host = "h".repeat(300);
    recording.target.command = vec!["計算".repeat(5000)];
    recording.rate_changes.push(RateChange { at_s: 1.0, rate_hz: 250.0 });
    (recording.missed_ticks, recording.torn_ticks) = (123_456_789, 123_456_789);
    let svg = svg(&recording, By::Hold);
    let document = Document::parse(&svg).unwrap();
    let head = document.descendants().find(|node| node.attribute("class") == Some("head")).unwrap();
    let words: Vec<_> = head.descendants().filter_map(|node| node.text()).collect();
    assert!(words.iter().all(|line| line.chars().count() < 200), "{words:?}");
    assert!(words.iter().any(|line| line.ends_with("lowered to 250 Hz")), "{words:?}");
}

#[test]
fn hostile_names_stay_text() {
    let long = "x".repeat(10_000);
    for name in [
        "<script>alert(1)</script>",
        "]]><b>",
        "\"'&\x1b[31m;\n",
        "# remark",
        "worker 5",
        "\u{e000}",
        "שלום 😀",
        "-",
        &long,
    ] {
        let options = [false, true].map(|reversed| StackOptions { reversed, ..StackOptions::default() });
        for options in options {
            let svg = svg_of(&[&fake::with_names("A", [name, "", ""])], options);
            let document = Document::parse(&svg).unwrap();
            let svg_name = |tag| ("http://www.w3.org/2000/svg", tag);
            assert_eq!(
                document.descendants().filter(|node| node.has_tag_name(svg_name("script"))).count(),
                1
            );
            let script = document.descendants().find(|node| node.has_tag_name(svg_name("script"))).unwrap();
            assert!(!script.text().unwrap().contains("alert(1)"));
            let titles = titles(&svg);
            assert!(
                titles.len() == 4 && titles.iter().all(|title| title.chars().count() < 300),
                "{titles:?}"
            );
            assert!(titles.iter().all(|title| title.ends_with(" (1.0 ms, 100.0 %)")), "{titles:?}");
        }
    }
}
