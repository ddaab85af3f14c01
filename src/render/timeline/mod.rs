//! The timeline: who held the GIL when, a lane a thread, as one SVG that needs neither scripts nor fonts.
//!
//! From the top: what was recorded, the facts in one sentence, then for each GIL a strip of all holders and
//! a lane for each thread. Time is cut into columns; a column shows the mix of its ticks, so a lane's
//! height there is the thread's share of that moment. A lane's shares are one path, crisp at every zoom.

mod axis;
mod lanes;
mod palette;

use std::io::Write;

use anyhow::Result;

use super::heading;
use super::svg::{Anchor, Svg, TextStyle, fit, number};
use crate::analysis::{Analysed, Analysis, GilAnalysis, columns};
use crate::recording::{Ending, GilTrack, Recording};
use crate::text::shorten;
use lanes::Section;

/// Width of the picture.
const WIDTH: f64 = 1200.0;
/// Space around everything.
const MARGIN: f64 = 24.0;
/// Where the lanes start, right of the threads' names.
const LANES_LEFT: f64 = 220.0;
/// Where the lanes end, left of the shares.
const LANES_RIGHT: f64 = 1090.0;
/// Columns of time; more would be thinner than a pixel.
const COLUMNS: usize = 870;
/// Height of what stands above the first GIL.
const HEAD: f64 = 124.0;
/// Height of what stands below the last.
const FOOT: f64 = 64.0;

const STYLE: &str = "text{font-family:Inter,Helvetica,Arial,'DejaVu Sans',sans-serif;fill:#1F2933}\
.quiet{fill:#52606D}.strong{font-weight:600}.number{font-variant-numeric:tabular-nums}";

/// Draws it as SVG.
///
/// # Errors
/// When the writer fails.
pub fn write(processes: &[Analysed<'_>], writer: &mut impl Write) -> Result<()> {
    let [Analysed { recording, analysis }, ..] = processes else { return Ok(()) };
    let sections: Vec<Section<'_>> = (recording.gils.iter().enumerate())
        .map(|(place, gil)| Section::new(recording, analysis, place, columns(recording, gil, COLUMNS)))
        .collect();
    let body: f64 = sections.iter().map(Section::height).sum();
    let height = HEAD + body + FOOT;

    let mut svg = Svg::new(writer);
    open(&mut svg, recording, height)?;
    head(&mut svg, recording, analysis)?;
    let mut top = HEAD;
    for section in &sections {
        section.draw(&mut svg, top)?;
        top += section.height();
    }
    axis::draw(&mut svg, recording.duration, HEAD, top)?;
    legend(&mut svg, recording, top + 44.0)?;
    svg.close("svg")
}

fn open<W: Write>(svg: &mut Svg<W>, recording: &Recording, height: f64) -> Result<()> {
    let (width, height_text) = (number(WIDTH), number(height));
    let label = format!("Timeline of who held the GIL. {}", heading::line(recording));
    svg.open(
        "svg",
        &[
            ("xmlns", "http://www.w3.org/2000/svg"),
            ("viewBox", &format!("0 0 {width} {height_text}")),
            ("width", &width),
            ("height", &height_text),
            ("role", "img"),
            ("aria-label", &label),
        ],
    )?;
    svg.holding("title", &[], "Who held the GIL")?;
    svg.holding("style", &[], STYLE)?;
    palette::define_patterns(svg)?;
    svg.rect([0.0, 0.0, WIDTH, height], &[("fill", "#FFFFFF")])
}

fn head<W: Write>(svg: &mut Svg<W>, recording: &Recording, analysis: &Analysis) -> Result<()> {
    let at = |y, size, class| TextStyle { x: MARGIN, y, size, class, anchor: Anchor::Start };
    svg.text(at(36.0, 20.0, "strong"), "Who held the GIL")?;
    let room = WIDTH - 2.0 * MARGIN;
    svg.text(at(56.0, 11.5, "quiet"), &fit(&heading::line(recording), room, 10.5))?;
    svg.rect([MARGIN, 70.0, room, 36.0], &[("rx", "4"), ("fill", "#F5F7FA"), ("stroke", "#CBD2D9")])?;
    let facts = facts(recording, analysis);
    svg.text(TextStyle { x: MARGIN + 14.0, ..at(93.0, 13.5, "") }, &fit(&facts, room - 28.0, 13.0))
}

/// What the picture shows, in one or two sentences.
fn facts(recording: &Recording, analysis: &Analysis) -> String {
    let [gil] = recording.gils.as_slice() else {
        return format!("{} GILs, each with its own section.", recording.gils.len()) + ending(recording);
    };
    let analysis = &analysis.gils[0];
    let fact = if recording.ticks.is_empty() {
        "The recording ended before the first look.".to_owned()
    } else if !gil.enabled {
        "There was no GIL to hold: this is a free-threaded build and its GIL is off.".to_owned()
    } else {
        held(recording, gil, analysis)
    };
    fact + ending(recording)
}

fn held(recording: &Recording, gil: &GilTrack, analysis: &GilAnalysis) -> String {
    let most = analysis.hold.iter().max_by(|a, b| a.1.total_cmp(b.1).then_with(|| b.0.cmp(a.0)));
    let Some((thread, share)) = most else {
        return match analysis.unknown {
            0.0 => "Nobody held the GIL during this recording.".to_owned(),
            _ => "Nobody was seen to hold the GIL, but not every look could be read.".to_owned(),
        };
    };
    let name = shorten(&recording.threads[thread.0 as usize].label(), 40);
    let handovers = analysis.handovers_per_s.map_or_else(String::new, |rate| {
        format!(" It changed hands {} times, {rate:.0} times a second.", gil.handovers)
    });
    format!(
        "The GIL was held {:.1} % of the time, most by {name}: {:.1} %.{handovers}",
        analysis.held.mean * 100.0,
        share * 100.0
    )
}

fn ending(recording: &Recording) -> &'static str {
    match recording.ending {
        Ending::Finished | Ending::Interrupted => "",
        Ending::TargetExited => " Then the process ended.",
        Ending::TargetExecuted => " Then the process started another program.",
        Ending::TargetUnreadable => " Then the process could no longer be read.",
    }
}

fn legend<W: Write>(svg: &mut Svg<W>, recording: &Recording, y: f64) -> Result<()> {
    let mut entries = vec![("#4477AA", "held the GIL (height: share of the moment)")];
    if recording.torn_ticks > 0 {
        entries.push((palette::UNKNOWN, "unknown (could not be read consistently)"));
    }
    entries.push((palette::NOT_SEEN, "not seen (no tick fell here)"));
    let mut x = LANES_LEFT;
    for (fill, words) in entries {
        svg.rect([x, y - 9.0, 12.0, 10.0], &[("fill", fill)])?;
        let style = TextStyle { x: x + 18.0, y, size: 11.0, class: "quiet", anchor: Anchor::Start };
        svg.text(style, words)?;
        x += 18.0 + words.len() as f64 * 6.2 + 24.0;
    }
    let made = TextStyle { x: WIDTH - MARGIN, y, size: 11.0, class: "quiet", anchor: Anchor::End };
    svg.text(made, concat!("gilspy ", env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests;
