//! The flame graph of the code that held the GIL: one root a thread, width is time under the GIL.

use std::io::Write;

use anyhow::{Context, Result};
use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};

use super::{folded, heading};
use crate::analysis::{Analysed, Analysis, By};
use crate::recording::Recording;
use crate::text::visible;

/// Draws it as SVG.
///
/// # Errors
/// When the writer fails.
pub fn write(processes: &[Analysed<'_>], by: By, writer: &mut impl Write) -> Result<()> {
    let [Analysed { recording, analysis }, ..] = processes else { return Ok(()) };
    let mut lines = folded::lines(processes, by)?;
    if lines.is_empty() {
        lines.push(nobody(recording));
    }
    let mut options = Options::default();
    options.title = title(analysis);
    options.subtitle = Some(subtitle(recording));
    options.count_name = "ticks".to_owned();
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.deterministic = true;
    from_lines(&mut options, lines.iter().map(String::as_str), writer).context("cannot draw the flame graph")
}

/// The one frame of a picture in which there is nothing to see: inferno draws no empty ones.
fn nobody(recording: &Recording) -> String {
    let ticks = recording.weight.max(1);
    match recording.gils.iter().any(|gil| gil.enabled) {
        true => format!("Nobody held the GIL during this recording {ticks}"),
        false => format!("There was no GIL to hold (free-threaded build) {ticks}"),
    }
}

fn title(analysis: &Analysis) -> String {
    let held = analysis.gils.iter().map(|gil| format!("{:.1} %", gil.held.mean * 100.0));
    format!("Code that held the GIL: {} of the time", held.collect::<Vec<_>>().join(", "))
}

/// One line of the picture's width, which has room for some 160 characters.
fn subtitle(recording: &Recording) -> String {
    let target = &recording.target;
    format!(
        "{} · pid {} · CPython {} · {} at {} Hz · {} · width: time under the GIL",
        heading::command(recording),
        target.pid,
        visible(&target.python),
        heading::duration(recording.duration),
        recording.rate_hz,
        heading::ticks(recording),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;

    fn svg(recording: &Recording) -> String {
        let mut svg = Vec::new();
        write(&[Analysed::of(recording).unwrap()], By::Hold, &mut svg).unwrap();
        String::from_utf8(svg).unwrap()
    }

    /// inferno declares SVG's document type.
    fn parse(svg: &str) -> roxmltree::Document<'_> {
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
        roxmltree::Document::parse_with_options(svg, options).unwrap()
    }

    #[test]
    fn it_says_what_was_recorded_and_what_width_means() {
        let svg = svg(&fake::recording("AAAB."));
        parse(&svg);
        for words in [
            "pid 4242",
            "3.12.7",
            "python3 app.py",
            "1000 Hz",
            "5 ticks",
            "held the GIL: 80.0 % of the time",
            "time under the GIL",
        ] {
            assert!(svg.contains(words), "{words}");
        }
    }

    #[test]
    fn nothing_to_see_is_a_picture_too() {
        for (ticks, words) in
            [("....", "Nobody held the GIL"), ("", "Nobody held the GIL"), ("--", "no GIL to hold")]
        {
            let svg = svg(&fake::recording(ticks));
            parse(&svg);
            assert!(svg.contains(words), "{ticks}");
        }
    }

    #[test]
    fn hostile_names_stay_text() {
        let svg = svg(&fake::with_names("AB", ["<script>alert(1)</script>", "\"'&\x1b[31m;\n", "x"]));
        let document = parse(&svg);
        let scripts: Vec<_> = document.descendants().filter(|node| node.has_tag_name("script")).collect();
        assert!(scripts.iter().all(|script| !script.text().unwrap_or_default().contains("alert(1)")));
        assert!(
            document
                .descendants()
                .any(|node| node.text().is_some_and(|text| text.contains("<script>alert(1)")))
        );
    }
}
