//! Recordings that say anything: whatever their texts are, what is made from them is well-formed, harmless and bounded.

#![allow(clippy::unwrap_used)]

use anstyle::Style;
use html5gum::{Token, Tokenizer};
use proptest::prelude::*;
use serde_json::Value;

use super::flamegraph::Place;
use super::*;
use crate::analysis::{Analysed, By, Changes};
use crate::recording::{Frame, Recording, StackTable, fake};
use crate::text::{columns, needs_showing};

/// Texts that something has been known to trip over.
const KNOWN: [&str; 22] = [
    "",
    " ",
    "-",
    "5",
    "a 5",
    "# a",
    " # a",
    "a;b;c 7\n# d\r\n",
    "</script><script>alert(1)</script>",
    "</title></style></textarea>--><![CDATA[ ]]> <!--",
    "\" onload='alert(1)' x=\"",
    "&amp;&#x1b;&quot;",
    "\0\x07\x1b[31m\x1b]0;title\x07\x7f\u{9b}31m\u{9d}",
    "\u{202e}\u{2066}\u{200b}\u{200d}\u{ad}\u{2028}\u{2029}\u{feff}",
    "\u{fffe}\u{ffff}\u{1fffe}\u{fdd0}\u{e000}\u{e001}\u{10ffff}",
    "\u{301}\u{301}",
    "👩\u{200d}👩\u{200d}👧\u{200d}👦❤\u{fe0f}",
    "%s%n{{7*7}}${x}$(touch x)`touch x`\\",
    "<unknown>",
    "/",
    "a/b/../../c:12",
    "計算（ｗｉｄｅ）",
];

fn text() -> impl Strategy<Value = String> {
    let known = prop::sample::select(KNOWN.as_slice());
    prop_oneof![
        3 => any::<String>(),
        3 => prop::collection::vec(known.clone(), 1..4).prop_map(|parts| parts.concat()),
        1 => (known, any::<char>()).prop_map(|(start, much)| start.to_owned() + &much.to_string().repeat(20_000)),
    ]
}

/// A recording of two threads, each text of which is another's choice.
fn recording(texts: &[String; 8], has_tid: bool) -> Recording {
    let mut recording = fake::of_threads(&["HHHHWWWWNS", "WWWWHHHHBW"]);
    let [first, second, outer, inner, file, host, python, command] = texts;
    (recording.threads[0].name, recording.threads[1].name) = (Some(first.clone()), Some(second.clone()));
    if !has_tid {
        recording.threads[0].tid = None;
    }
    let frame = |function: &str, line| Frame { function: function.into(), file: file.as_str().into(), line };
    recording.stacks = StackTable::default();
    for line in [Some(16), Some(22)] {
        recording.stacks.intern([frame(inner, line), frame(outer, None)]);
    }
    (recording.target.host, recording.target.python) = (host.clone(), python.clone());
    recording.target.command = vec![command.clone(), first.clone()];
    recording
}

fn is_harmless(text: &str) -> bool {
    text.chars().all(|character| matches!(character, '\n' | '\u{200d}') || !needs_showing(character))
}

/// What a writer writes, which is harmless text of no more than so many bytes.
fn written(most: usize, write: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<()>) -> String {
    let mut bytes = Vec::new();
    write(&mut bytes).unwrap();
    assert!(bytes.len() <= most, "{} bytes", bytes.len());
    let text = String::from_utf8(bytes).unwrap();
    assert!(is_harmless(&text), "{:?}", text.chars().filter(|it| needs_showing(*it)).collect::<Vec<_>>());
    text
}

fn elements(svg: &str) -> usize {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(svg, options).unwrap();
    document.descendants().filter(roxmltree::Node::is_element).count()
}

/// The longest that something is whose names are all as long as they get.
const MOST: usize = 1_000_000;

/// How many names the report may have, and how many bytes one of them takes for one of the text's at most.
const NAMES_IN_REPORT: usize = 60;
const BYTES_ESCAPED: usize = 6;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn pictures_are_well_formed_and_have_no_element_of_a_name(
        texts in prop::array::uniform8(text()), reversed: bool, merge_threads: bool, has_tid: bool,
    ) {
        let (hostile, plain) = (recording(&texts, has_tid), recording(&texts.each_ref().map(|_| "x".into()), true));
        let options = StackOptions { by: By::Wall, reversed, merge_threads, ..StackOptions::default() };
        let [hostile, plain] = [&hostile, &plain].map(|it| [Analysed::of(it).unwrap()]);
        let flame = |of: &[Analysed<'_>]| written(MOST, |to| flamegraph::write(of, options, Place::Window, to));
        // Names that are the same are one frame.
        prop_assert!(elements(&flame(&hostile)) >= elements(&flame(&plain)) / 2);
        let timeline = |of: &[Analysed<'_>]| elements(&written(MOST, |to| timeline::write(of, to)));
        prop_assert!(timeline(&hostile).abs_diff(timeline(&plain)) < 40, "lines of words differ, nothing else");
        elements(&written(MOST, |to| differential::write(&plain[0], &hostile[0], By::Wall, to)));
        elements(&written(MOST, |to| differential::write(&hostile[0], &plain[0], By::Hold, to)));
    }

    #[test]
    fn folded_stacks_keep_their_frames_and_counts(texts in prop::array::uniform8(text()), has_tid: bool) {
        let recording = recording(&texts, has_tid);
        for reversed in [false, true] {
            let options = StackOptions { by: By::Wall, reversed, ..StackOptions::default() };
            let processes = [(); 2].map(|()| Analysed::of(&recording).unwrap());
            let folded = written(MOST, |to| folded::write(&processes, options, to));
            let mut ticks = 0;
            for line in folded.lines() {
                let (stack, count) = line.rsplit_once(' ').unwrap();
                ticks += count.parse::<u64>().unwrap();
                prop_assert_eq!(stack.split(';').count(), 4, "process, thread and two calls: {}", line);
                prop_assert!(!line.trim_start().starts_with("# "));
            }
            prop_assert_eq!(ticks, 40);
        }
    }

    #[test]
    fn what_other_programs_open_is_json_and_bounded(texts in prop::array::uniform8(text()), has_tid: bool) {
        let recording = recording(&texts, has_tid);
        let processes = [Analysed::of(&recording).unwrap()];
        for json in [
            written(MOST, |to| chrometrace::write(&processes, to)),
            written(MOST, |to| speedscope::write(&processes, to)),
            written(MOST, |to| gecko::write(&processes, to)),
        ] {
            serde_json::from_str::<Value>(&json).unwrap();
        }
        let longest = texts.iter().map(String::len).max().unwrap_or_default();
        let most = MOST + NAMES_IN_REPORT * BYTES_ESCAPED * longest;
        let report = written(most, |to| report::write(&processes, to));
        let report: Value = serde_json::from_str(&report).unwrap();
        prop_assert_eq!(&report["target"]["host"], &texts[5], "names in the report are what they are");
        let mut pprof = Vec::new();
        pprof::write(&processes, &mut pprof).unwrap();
        prop_assert!(pprof.len() < MOST);
    }

    #[test]
    fn the_report_is_harmless_and_bounded(texts in prop::array::uniform8(text()), has_tid: bool) {
        let recording = recording(&texts, has_tid);
        let processes = [Analysed::of(&recording).unwrap()];
        let html = written(10 * MOST, |to| html::write(&processes, StackOptions::default(), to));
        for token in Tokenizer::new(&html) {
            if let Token::StartTag(tag) = token.unwrap() {
                prop_assert!(**tag.name != b"img"[..]);
                prop_assert!(tag.attributes.keys().all(|name| !name.starts_with(b"on")));
            }
        }
        prop_assert!(!html.contains("<script>alert"));
    }

    #[test]
    fn what_goes_to_a_terminal_keeps_to_its_columns(texts in prop::array::uniform8(text()), has_tid: bool) {
        let recording = recording(&texts, has_tid);
        let process = || Analysed::of(&recording).unwrap();
        let changes = Changes::between(&process(), &process(), By::Wall).unwrap();
        for text in [
            summary_of_several::text(&[process()], Style::new()),
            summary_of_several::text(&[process(), process()], Style::new()),
            diff::text(&process(), &process(), &changes, By::Wall, Style::new()),
        ] {
            prop_assert!(is_harmless(&text), "{:?}", text);
            prop_assert!(text.lines().all(|line| columns(line) <= 80), "{}", text);
            prop_assert!(text.lines().count() < 40, "{}", text);
        }
    }
}
