//! The differential flame graph of two recordings: as wide as in the second one, red where there is more than in the
//! first, blue where there is less. Each counts by the second, so that they need not be of the same length.
//!
//! Threads are shown together and functions whatever line they were at: their ids and lines differ from one run to the
//! next.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};

use super::heading;
use super::stacks::{foldable, short_file};
use crate::analysis::{Analysed, By, stack_times};
use crate::recording::{Frame, Recording, StackIndex};

/// Draws it as SVG.
///
/// # Errors
/// When a recording can no longer be read, or the writer fails.
pub fn write(before: &Analysed<'_>, after: &Analysed<'_>, by: By, writer: &mut impl Write) -> Result<()> {
    let mut stacks = BTreeMap::<String, [u64; 2]>::new();
    for (place, process) in [before, after].into_iter().enumerate() {
        for (stack, micros) in per_second(process.recording, by)? {
            stacks.entry(stack).or_default()[place] += micros;
        }
    }
    if stacks.values().all(|[_, after]| *after == 0) {
        stacks.insert("Nothing of the kind in the second recording".to_owned(), [0, 1]);
    }
    let lines: Vec<String> =
        stacks.iter().map(|(stack, [before, after])| format!("{stack} {before} {after}")).collect();
    let mut options = Options::default();
    options.title = format!("What changed: {}", what(by));
    options.subtitle = Some(subtitle(before.recording, after.recording));
    options.count_name = "µs a second".to_owned();
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.deterministic = true;
    from_lines(&mut options, lines.iter().map(String::as_str), writer).context("cannot draw the flame graph")
}

/// What a kind of time is, in words.
pub(super) fn what(by: By) -> &'static str {
    match by {
        By::Hold => "time under the GIL",
        By::Wait => "time waiting for it",
        By::Blame => "waiting inflicted",
        By::Cpu => "time running",
        By::Wall => "all time",
    }
}

/// One line of the picture's width.
fn subtitle(before: &Recording, after: &Recording) -> String {
    let of = |recording: &Recording| {
        let (pid, start) = (recording.target.pid, heading::start(recording));
        format!("pid {pid}, {start}, {}", heading::duration(recording.length()))
    };
    format!("{} → {} · width: after · red: more, blue: less", of(before), of(after))
}

/// Microseconds a second of each folded stack.
fn per_second(recording: &Recording, by: By) -> Result<BTreeMap<String, u64>> {
    let mut nanos = BTreeMap::<String, u64>::new();
    for ((_, stack), time) in stack_times(recording, by)? {
        *nanos.entry(fold(recording, stack)).or_default() += time.nanos;
    }
    let seconds = recording.length().as_secs_f64().max(f64::MIN_POSITIVE);
    let micros = |nanos: u64| (nanos as f64 / 1000.0 / seconds).round() as u64;
    Ok(nanos.into_iter().map(|(stack, of_stack)| (stack, micros(of_stack))).collect())
}

fn fold(recording: &Recording, stack: StackIndex) -> String {
    match recording.stacks.frames(stack) {
        Some(frames) => frames.rev().map(label).collect::<Vec<_>>().join(";"),
        None => "<stack unknown>".to_owned(),
    }
}

/// `function (package/module.py)`.
fn label(frame: &Frame) -> String {
    foldable(&format!("{} ({})", frame.function, short_file(&frame.file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;

    fn svg(before: &Recording, after: &Recording, by: By) -> String {
        let mut svg = Vec::new();
        write(&Analysed::of(before).unwrap(), &Analysed::of(after).unwrap(), by, &mut svg).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        roxmltree::Document::parse_with_options(&svg, options).unwrap();
        svg
    }

    #[test]
    fn recordings_of_different_lengths_are_compared_by_the_second() {
        let svg = svg(&fake::recording(&"AB".repeat(20)), &fake::recording(&"AAAB".repeat(50)), By::Hold);
        for words in
            ["spin_one (app/main.py) (750,000 µs a second, 75.00%; +25.00%)", "-25.00%", "time under the GIL"]
        {
            assert!(svg.contains(words), "{words}: {svg}");
        }
    }

    #[test]
    fn nothing_to_see_is_a_picture_too() {
        for (before, after) in [("", ""), ("AAA", "..."), ("...", "AAA")] {
            svg(&fake::recording(before), &fake::recording(after), By::Hold);
        }
        assert!(svg(&fake::recording("A"), &fake::recording("."), By::Hold).contains("Nothing of the kind"));
    }
}
