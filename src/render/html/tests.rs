#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use html5gum::{Token, Tokenizer};

use super::*;
use crate::recording::{Recording, Throttling, fake};

fn report(recordings: &[&Recording]) -> String {
    let processes: Vec<_> = recordings.iter().map(|recording| Analysed::of(recording).unwrap()).collect();
    let mut html = Vec::new();
    write(&processes, StackOptions::default(), &mut html).unwrap();
    String::from_utf8(html).unwrap()
}

/// The tags of a page, what its attributes say, and its text.
#[derive(Default)]
struct Parsed {
    tags: Vec<String>,
    attributes: Vec<(String, String)>,
    text: String,
}

fn parse(html: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for token in Tokenizer::new(html) {
        match token.unwrap() {
            Token::StartTag(tag) => {
                parsed.tags.push(String::from_utf8(tag.name.0.clone()).unwrap());
                for (name, value) in &tag.attributes {
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    parsed.attributes.push((text(name), text(value)));
                }
            }
            Token::String(text) => parsed.text.push_str(&String::from_utf8_lossy(&text)),
            Token::Error(error) => panic!("{error:?}"),
            _ => {}
        }
    }
    parsed
}

#[test]
fn it_has_the_verdict_every_picture_and_how_it_was_recorded() {
    let (holds, waits) = ("H".repeat(500), "W".repeat(500));
    let mut recording = fake::of_threads(&[&holds, &waits]);
    recording.throttling = Some(Throttling {
        periods: 10,
        throttled_periods: 3,
        throttled: std::time::Duration::from_millis(250),
        quota_cpus: Some(0.5),
    });
    let parsed = parse(&report(&[&recording]));
    for words in [
        "Gil-hogged: ",
        "Try",
        "spin_one",
        "thread-1",
        "behind calls that do not release the GIL",
        "pid 4242 on web-7 · CPython 3.12.7",
        "2026-11-20 14:02:11 UTC",
        "0.5 CPUs, held back for 250 ms in 3 of 10 periods",
        "500 ticks, 0 missed, 0 torn",
        "used 1.0 % of one CPU",
    ] {
        assert!(parsed.text.contains(words), "{words}: {}", parsed.text);
    }
    assert_eq!(parsed.tags.iter().filter(|tag| *tag == "iframe").count(), 6);
    assert_eq!(parsed.tags.iter().filter(|tag| *tag == "h1").count(), 1);
}

#[test]
fn its_policy_lets_nothing_in_and_knows_every_script() {
    let html = report(&[&fake::recording("AAB.")]);
    let parsed = parse(&html);
    let value = |name: &'static str| {
        parsed.attributes.iter().filter(move |(key, _)| key == name).map(|(_, value)| value)
    };
    let policy = value("content").find(|content| content.contains("default-src")).unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("http"), "{policy}");
    let hashes: BTreeSet<&str> = policy.split('\'').filter(|word| word.starts_with("sha256-")).collect();
    assert_eq!(hashes.len(), 3, "ours, the timeline's and that of all flame graphs: {policy}");
    for name in ["src", "href", "action", "data", "style"] {
        assert!(value(name).all(|value| !value.contains("//") && !value.contains("url(")), "{name}");
    }
    assert!(parsed.attributes.iter().all(|(name, _)| !name.starts_with("on")));
}

#[test]
fn nothing_to_see_is_a_report_too() {
    for (ticks, words) in
        [("....", "None."), ("", "None."), ("--", "there is none: free-threaded"), ("??", "GIL held")]
    {
        let parsed = parse(&report(&[&fake::recording(ticks)]));
        assert!(parsed.text.contains(words), "{ticks}: {}", parsed.text);
    }
}

#[test]
fn where_only_holders_were_looked_at_it_says_so_instead_of_nobody() {
    let mut recording = fake::recording("AAB.");
    recording.sees_all_threads = false;
    let text = parse(&report(&[&recording])).text;
    for words in
        ["who waits, and for whom, is not known", "Not known: only holders", "by the time they held the GIL"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("threads waiting"), "{text}");
}

#[test]
fn several_processes_have_a_part_each() {
    let (first, mut second) = (fake::recording("AAB."), fake::recording("B"));
    second.target.pid = crate::units::Pid::new(4300);
    let text = parse(&report(&[&first, &second])).text;
    assert!(text.contains("2 processes") && text.contains("pid 4300: python3 app.py"), "{text}");
}

#[test]
fn hostile_names_stay_text() {
    let names =
        ["</script><script>alert(1)</script>", "\"><img src=x onerror=alert(1)>'&amp;\x1b[31m", "\u{202e}\n"];
    let plain = parse(&report(&[&fake::with_names("AAB.C", ["a", "b", "c"])]));
    let mut recording = fake::with_names("AAB.C", names);
    recording.target.command = vec![names[1].to_owned(), "{{7*7}}".to_owned(), "x".repeat(10_000)];
    recording.target.host = names[0].to_owned();
    let html = report(&[&recording]);
    let hostile = parse(&html);
    assert_eq!(hostile.tags, plain.tags);
    assert!(hostile.attributes.iter().all(|(name, _)| !name.starts_with("on")));
    for name in [names[0], "\"><img src=x onerror=alert(1)>'&amp;␛[31m", "⟨U+202E⟩␊", "{{7*7}}"] {
        assert!(hostile.text.contains(name), "{name}: {}", hostile.text);
    }
    let steers = |character: char| character == '\u{202e}' || (character.is_control() && character != '\n');
    assert!(!html.contains(steers));
}
