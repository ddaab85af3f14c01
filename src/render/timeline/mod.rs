//! The timeline: who held the GIL when, who waited for it, and what every thread did, as one SVG.
//!
//! From the top: what was recorded, the verdict in words, then for each GIL a strip of its holders, how many threads
//! waited, the long holds, and a lane for each thread; below them the code that made others wait and the worst holds.
//! The recording's time is cut into columns, each of which shows the mix of what was seen in it; what a lane did in one
//! state is one path. The picture is complete without scripts. With them it zooms and pans, says what is under the
//! cursor and hides threads: `timeline.js` draws the same columns from the data at the picture's end (`data`).

mod axis;
mod boxes;
mod data;
mod head;
mod lanes;
mod page;
mod palette;
mod section;
mod strips;
mod tables;

use std::io::Write;
use std::time::Duration;

use anyhow::Result;

use super::heading;
use super::svg::{Svg, number};
use crate::analysis::Analysed;
use page::Page;
use section::Section;

/// Width of the picture.
const WIDTH: f64 = 1200.0;
/// Space around everything.
const MARGIN: f64 = 24.0;
/// Where the lanes start, right of the threads' names.
const LEFT: f64 = 206.0;
/// How wide the lanes are: a column for each pixel.
const COLUMNS: usize = 720;
/// Where the lanes end, left of the shares.
const RIGHT: f64 = LEFT + COLUMNS as f64;

/// The script that makes the picture zoom.
const SCRIPT: &str = include_str!("timeline.js");

/// Draws it as SVG; all processes have one time axis.
///
/// # Errors
/// When a recording can no longer be read, or the writer fails.
pub fn write(processes: &[Analysed<'_>], writer: &mut impl Write) -> Result<()> {
    let length = processes.iter().map(|process| process.recording.duration).max().unwrap_or_default();
    let sections = Section::all(processes, length)?;

    let mut page = Page::new();
    head::draw(&mut page, processes, length)?;
    let top = page.top();
    for section in &sections {
        section.draw(&mut page)?;
    }
    axis::draw(&mut page, top, length)?;
    palette::legend(&mut page, &sections)?;
    tables::draw(&mut page, processes)?;
    let (body, height) = page.finish();

    let mut svg = Svg::new(writer);
    open(&mut svg, processes, height)?;
    svg.raw(&body)?;
    data::write(&mut svg, processes, &sections, length)?;
    svg.code("script", SCRIPT)?;
    svg.close("svg")
}

fn open<W: Write>(svg: &mut Svg<W>, processes: &[Analysed<'_>], height: f64) -> Result<()> {
    let (width, height_text) = (number(WIDTH), number(height));
    let label = processes.first().map_or_else(String::new, |first| heading::line(first.recording));
    svg.open(
        "svg",
        &[
            ("xmlns", "http://www.w3.org/2000/svg"),
            ("class", "gilspy"),
            ("viewBox", &format!("0 0 {width} {height_text}")),
            ("width", &width),
            ("height", &height_text),
            ("role", "img"),
            ("aria-label", &format!("Timeline of who held the GIL and who waited for it. {label}")),
        ],
    )?;
    svg.holding("title", &[], head::title(processes))?;
    svg.code("style", &palette::style())?;
    palette::define_patterns(svg)?;
    svg.rect([0.0, 0.0, WIDTH, height], &[("class", "page")])
}

/// Seconds of a length of time, never 0: it is divided by.
fn seconds(length: Duration) -> f64 {
    length.as_secs_f64().max(1e-9)
}

/// Where a moment is, given in seconds since the start.
fn x_of(at_s: f64, length: Duration) -> f64 {
    LEFT + COLUMNS as f64 * (at_s / seconds(length)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests;
