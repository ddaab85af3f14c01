#![allow(clippy::unwrap_used)]

use super::*;
use crate::recording::fake;
use crate::units::Tid;

fn svg(recording: &Recording) -> String {
    let mut svg = Vec::new();
    write(&[Analysed::of(recording).unwrap()], &mut svg).unwrap();
    let svg = String::from_utf8(svg).unwrap();
    roxmltree::Document::parse(&svg).unwrap();
    svg
}

/// The words of a picture, without their elements.
fn words(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    texts.filter_map(|text| text.text().map(str::to_owned)).collect()
}

#[test]
fn every_thread_has_a_lane_with_its_share() {
    let words = words(&svg(&fake::recording("AAAB..?A")));
    let place = |wanted: &str| words.iter().position(|word| word.starts_with(wanted)).unwrap();
    for (name, share) in
        [("spinner-1", "50.0 %"), ("spinner-2", "12.5 %"), ("MainThread", "–"), ("GIL holder", "62.5 %")]
    {
        assert_eq!(words[place(name) + 1], share, "{name}: {words:?}");
    }
    assert!(place("spinner-1") < place("spinner-2"), "who held it most comes first");
}

#[test]
fn a_lane_and_a_state_are_one_path() {
    let recording = fake::recording(&"AB.".repeat(2000));
    let svg = svg(&recording);
    let document = roxmltree::Document::parse(&svg).unwrap();
    let paths = document.descendants().filter(|node| node.has_tag_name("path")).count();
    assert_eq!(paths, 4, "two threads, each in the strip and in its lane");
}

#[test]
fn nothing_to_see_is_a_picture_too() {
    for (ticks, expected) in [
        ("....", "Nobody held the GIL during this recording."),
        ("", "The recording ended before the first look."),
        ("--", "There was no GIL to hold"),
        ("??", "Nobody was seen to hold the GIL, but"),
        ("A", "The GIL was held 100.0 % of the time"),
    ] {
        let words = words(&svg(&fake::recording(ticks)));
        assert!(words.iter().any(|word| word.starts_with(expected)), "{ticks}: {words:?}");
    }
}

#[test]
fn what_was_not_seen_is_not_shown_as_free() {
    let gap = format!("{}{}{}", "A".repeat(50), "_".repeat(100), "A".repeat(50));
    let gap = svg(&fake::recording(&gap));
    assert!(gap.contains("not seen: no tick fell here"));
    let whole = svg(&fake::recording(&"A".repeat(200)));
    assert!(!whole.contains("not seen: no tick fell here"));
}

#[test]
fn hostile_names_stay_text_and_keep_to_their_column() {
    let long = "x".repeat(10_000);
    let recording = fake::with_names("AB.", ["<script>alert(1)</script>", "\"'&\x1b[31m\u{202e}\n", &long]);
    let svg = svg(&recording);
    let document = roxmltree::Document::parse(&svg).unwrap();
    assert!(!document.descendants().any(|node| node.has_tag_name("script")));
    assert!(words(&svg).iter().all(|word| word.chars().count() < 250));
}

#[test]
fn many_threads_share_the_last_lane() {
    let mut recording = fake::recording("AB.");
    for number in 0..197 {
        let mut thread = recording.threads[2].clone();
        thread.tid = Some(Tid::new(5000 + number));
        recording.threads.push(thread);
    }
    let words = words(&svg(&recording));
    assert!(words.iter().any(|word| word == "161 more threads"), "{words:?}");
}

#[test]
fn each_gil_has_a_section() {
    let mut recording = fake::recording("AB.");
    let mut second = recording.gils[0].clone();
    second.interpreters = vec![1, 2];
    recording.gils.push(second);
    let words = words(&svg(&recording));
    assert!(words.iter().any(|word| word == "GIL of interpreter 1, 2"), "{words:?}");
}
