//! What stands above the lanes: what was recorded, and the verdict in words.

use std::time::Duration;

use anyhow::Result;

use super::super::heading;
use super::super::svg::{Anchor, Svg, TextStyle, fit, wrap};
use super::page::Page;
use super::{MARGIN, WIDTH};
use crate::analysis::{Analysed, Kind, Verdict, overhead_cpu};
use crate::recording::{Ending, Recording};

/// The picture's title.
pub(super) fn title(processes: &[Analysed<'_>]) -> &'static str {
    let mut gils = processes.iter().flat_map(|process| &process.recording.gils).peekable();
    let has_none = gils.peek().is_some() && gils.all(|gil| !gil.enabled);
    if has_none { "Which threads ran Python" } else { "Who held the GIL" }
}

/// Room of the text.
const ROOM: f64 = WIDTH - 2.0 * MARGIN;

/// Lines of a verdict's sentence, and of its advice, at most.
const MOST_LINES: usize = 3;

/// Draws title, what was recorded, and, where there is one process, its verdict.
pub(super) fn draw(page: &mut Page, processes: &[Analysed<'_>], length: Duration) -> Result<()> {
    let [first, others @ ..] = processes else { return Ok(()) };
    let recording = first.recording;
    let (what, how) = match others.len() {
        0 => (heading::process(recording), how(recording)),
        more => (
            format!("{} processes on {}", more + 1, recording.target.host),
            format!(
                "{}, {} at {} Hz",
                heading::start(recording),
                heading::duration(length),
                recording.rate_hz
            ),
        ),
    };
    page.block("head", &[], 84.0, |svg| {
        let at = |y, size, class| TextStyle { x: MARGIN, y, size, class, anchor: Anchor::Start };
        svg.text(at(38.0, 20.0, "strong"), title(processes))?;
        svg.text(at(59.0, 11.5, "quiet"), &fit(&what, ROOM, 10.5))?;
        svg.text(at(75.0, 11.5, "quiet"), &fit(&how, ROOM, 10.5))
    })?;
    if others.is_empty() { verdict(page, first) } else { Ok(()) }
}

/// When and how, with what went wrong.
fn how(recording: &Recording) -> String {
    format!(
        "{}, {} at {} Hz · {} · gilspy {} used {:.1} % of one CPU",
        heading::start(recording),
        heading::duration(recording.length()),
        recording.rate_hz,
        heading::ticks(recording),
        env!("CARGO_PKG_VERSION"),
        overhead_cpu(recording) * 100.0,
    )
}

/// A process's verdict in a box.
pub(super) fn verdict(page: &mut Page, process: &Analysed<'_>) -> Result<()> {
    let lines = lines(process);
    let class = match process.analysis.verdict.as_ref().map(|verdict| verdict.kind) {
        Some(Kind::GilBound | Kind::GilHogged | Kind::GilStalled | Kind::CpuStarved) => "alarm",
        _ => "panel",
    };
    let height = 17.0 + lines.len() as f64 * 18.0;
    page.block("verdict", &[], height + 12.0, |svg| {
        svg.rect([MARGIN, 0.5, ROOM, height], &[("rx", "4"), ("class", class)])?;
        for (place, (kind, words)) in lines.iter().enumerate() {
            line(svg, 22.0 + place as f64 * 18.0, kind, words)?;
        }
        Ok(())
    })
}

fn line(svg: &mut Svg<Vec<u8>>, y: f64, kind: &str, words: &str) -> Result<()> {
    let x = MARGIN + 14.0;
    let at = |x, class| TextStyle { x, y, size: 13.0, class, anchor: Anchor::Start };
    if kind.is_empty() {
        return svg.text(at(x, "quiet"), words);
    }
    svg.spans(at(x, ""), &[("strong", kind), ("", words)])
}

/// Lines, each with what it starts with in bold.
fn lines(process: &Analysed<'_>) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let Some(verdict) = &process.analysis.verdict else {
        return vec![(String::new(), facts(process) + ending(process.recording))];
    };
    sentence(&mut lines, verdict, "");
    if let Some(second) = &verdict.second {
        sentence(&mut lines, second, "Also ");
    }
    let advice = verdict.advice.iter().map(|advice| format!("Try: {advice}"));
    let ending = Some(ending(process.recording).trim().to_owned()).filter(|ending| !ending.is_empty());
    for words in advice.chain(ending) {
        lines.extend(
            wrap(&words, ROOM - 28.0, 12.5, MOST_LINES).into_iter().map(|line| (String::new(), line)),
        );
    }
    lines
}

fn sentence(lines: &mut Vec<(String, String)>, verdict: &Verdict, before: &str) {
    let kind = match before {
        "" => capitalised(verdict.kind.name()),
        _ => format!("{before}{}", verdict.kind.name()),
    };
    let all = wrap(&format!("{kind}: {}", verdict.summary), ROOM - 28.0, 12.5, MOST_LINES);
    for (place, line) in all.into_iter().enumerate() {
        lines.push(match line.strip_prefix(&kind).filter(|_| place == 0) {
            Some(rest) => (kind.clone(), rest.to_owned()),
            None => (" ".to_owned(), line),
        });
    }
}

/// With a capital letter: `Gil-hogged`.
fn capitalised(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..]
}

/// What is known without a verdict.
fn facts(process: &Analysed<'_>) -> String {
    let Analysed { recording, analysis } = process;
    let [gil] = recording.gils.as_slice() else {
        return format!("{} GILs, each with its own section.", recording.gils.len());
    };
    let of_gil = &analysis.gils[0];
    if recording.ticks == 0 {
        return "The recording ended before the first look.".to_owned();
    }
    if !gil.enabled {
        return "There was no GIL to hold: this is a free-threaded build and its GIL is off.".to_owned();
    }
    let most = of_gil.hold.iter().max_by(|a, b| a.1.total_cmp(b.1).then_with(|| b.0.cmp(a.0)));
    let Some((thread, share)) = most else {
        return match of_gil.unknown {
            0.0 => "Nobody held the GIL during this recording.".to_owned(),
            _ => "Nobody was seen to hold the GIL, but not every look could be read.".to_owned(),
        };
    };
    let why = if recording.sees_all_threads {
        "What others did is mostly unknown"
    } else {
        "Only holders were looked at"
    };
    format!(
        "The GIL was held {:.1} % of the time, most by {}: {:.1} %. {why}: who waits is not known.",
        of_gil.held.mean * 100.0,
        fit(&recording.threads[thread.0 as usize].label(), 300.0, 12.5),
        share * 100.0
    )
}

fn ending(recording: &Recording) -> &'static str {
    match recording.ending {
        Ending::Finished | Ending::Interrupted | Ending::StillRecording => "",
        Ending::TargetExited => " Then the process ended.",
        Ending::TargetExecuted => " Then the process started another program.",
        Ending::TargetUnreadable => " Then the process could no longer be read.",
        Ending::Lost => " Then gilspy ended, and not properly.",
    }
}
