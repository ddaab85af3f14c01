//! Gives inferno's picture its head, its colours, and times for counts, as it goes by event by event.

use std::borrow::Cow;
use std::io::Write;

use anyhow::{Context, Result, anyhow};
use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::{BytesCData, BytesStart, BytesText, Event};

use super::head::{ASIDE, Head, LINE_SIZE, MARGIN, TITLE_SIZE, WIDTH};
use super::{Place, kind_of_mark, palette};
use crate::render::stacks::Kind;
use crate::render::svg::{Anchor, Svg, TextStyle, number};
use crate::text::seconds;

/// How far inferno's own room at the top is too small for the head.
const LOWER: f64 = 78.0;
/// Baselines of the title and of the lines below it.
const TITLE_Y: f64 = 28.0;
const FIRST_LINE_Y: f64 = 48.0;
const LINE_STEP: f64 = 16.0;
/// Where the legend starts, in the width.
const LEGEND_Y: f64 = 102.0;

const STYLE: &str = include_str!("flamegraph.css");
const SCRIPT: &str = include_str!("flamegraph.js");

/// What inferno's picture is dressed with.
pub(super) struct Dress<'a> {
    pub(super) head: &'a Head,
    pub(super) place: Place,
    /// The width of the whole, in microseconds; `None` where there is nothing to see.
    pub(super) total_us: Option<u64>,
}

impl Dress<'_> {
    /// Writes inferno's picture anew.
    pub(super) fn put_on(&self, picture: &str, writer: impl Write) -> Result<()> {
        let mut reader = Reader::from_str(picture);
        let mut svg = Svg::new(writer);
        let mut is_in_frames = false;
        loop {
            let event = reader.read_event().context("cannot read the flame graph")?;
            match event {
                Event::Eof => return Ok(()),
                Event::Comment(_) | Event::Decl(_) | Event::DocType(_) => {}
                Event::Start(start) => match start.name().as_ref() {
                    "svg" if attribute(&start, "id")? == "frames" => {
                        self.draw_head(&mut svg)?;
                        is_in_frames = true;
                        let y = number(LOWER);
                        svg.event(Event::Start(with(start, &[("y", &y)])?))?;
                    }
                    "svg" => self.open(&mut svg, &start)?,
                    "g" if is_in_frames => self.draw_frame(&mut svg, &mut reader)?,
                    "text" if attribute(&start, "id")? == "title" => {
                        reader.read_text(start.name())?;
                    }
                    "text" => svg.event(Event::Start(self.lowered(start)?))?,
                    _ => svg.event(Event::Start(start))?,
                },
                Event::Empty(start) if start.name().as_ref() == "rect" => {
                    let height = number(attribute(&start, "height")?.parse::<f64>()? + LOWER);
                    let page = [("height", height.as_str()), ("class", "page"), ("fill", "#FFFFFF")];
                    svg.event(Event::Empty(with(start, &page)?))?;
                }
                Event::End(end) => {
                    match end.name().as_ref() {
                        "defs" => palette::define_hatching(&mut svg)?,
                        "style" => svg.event(Event::Text(BytesText::from_escaped(STYLE)))?,
                        "script" => svg.event(Event::CData(BytesCData::new(SCRIPT)))?,
                        _ => {}
                    }
                    svg.event(Event::End(end))?;
                }
                other => svg.event(other)?,
            }
        }
    }

    fn open<W: Write>(&self, svg: &mut Svg<W>, start: &BytesStart<'_>) -> Result<()> {
        let [width, height] = ["width", "height"].map(|name| attribute(start, name));
        let (width, height) = (width?, number(height?.parse::<f64>()? + LOWER));
        svg.open(
            "svg",
            &[
                ("xmlns", "http://www.w3.org/2000/svg"),
                ("xmlns:fg", "http://github.com/jonhoo/inferno"),
                ("width", &width),
                ("height", &height),
                ("viewBox", &format!("0 0 {width} {height}")),
                ("font-size", &number(LINE_SIZE)),
                ("aria-label", &self.head.title),
            ],
        )
    }

    /// inferno's own words: where the head leaves room for them, and, where they can be clicked, for keys too.
    fn lowered<'a>(&self, start: BytesStart<'a>) -> Result<BytesStart<'a>> {
        let id = attribute(&start, "id")?.into_owned();
        let y = number(attribute(&start, "y")?.parse::<f64>()? + LOWER);
        let button = [("role", "button"), ("tabindex", "0")];
        match (id.as_str(), self.place) {
            ("details", _) => with(start, &[("y", &y), ("class", "ink"), ("fill", "#1F2933")]),
            ("matched", _) => with(start, &[("y", &y), ("class", "ink"), ("fill", "#1F2933")]),
            ("search", Place::Page) => with(start, &[("display", "none")]),
            ("search", Place::Window) => with(start, &[("y", &number(TITLE_Y)), button[0], button[1]]),
            ("unzoom", _) => {
                let (y, dx) = (number(FIRST_LINE_Y), number(-MARGIN));
                with(start, &[("x", "100%"), ("dx", &dx), ("y", &y), button[0], button[1]])
            }
            _ => Ok(start),
        }
    }

    fn draw_head<W: Write>(&self, svg: &mut Svg<W>) -> Result<()> {
        svg.open("g", &[("class", "head")])?;
        let at = |y, size, class| TextStyle { x: MARGIN, y, size, class, anchor: Anchor::Start };
        svg.text(at(TITLE_Y, TITLE_SIZE, "title ink"), &self.head.title)?;
        for (place, line) in self.head.lines.iter().enumerate() {
            let class = if place == 0 { "ink" } else { "quiet" };
            svg.text(at(FIRST_LINE_Y + LINE_STEP * place as f64, LINE_SIZE, class), line)?;
        }
        let mut x = MARGIN;
        for kind in Kind::ALL {
            let Some(words) = palette::words(kind) else { continue };
            svg.rect([x, LEGEND_Y - 10.0, 14.0, 12.0], &[("fill", palette::swatch(kind))])?;
            svg.text(TextStyle { x: x + 20.0, ..at(LEGEND_Y, LINE_SIZE, "quiet") }, words)?;
            x += 20.0 + words.len() as f64 * 5.9 + 24.0;
        }
        debug_assert!(x < WIDTH - ASIDE);
        svg.close("g")
    }

    /// A frame: its name without the mark of its kind, its time for its count, its kind's colour.
    fn draw_frame<W: Write>(&self, svg: &mut Svg<W>, reader: &mut Reader<&[u8]>) -> Result<()> {
        let (mut title, mut rect, mut text) = (String::new(), None, None);
        loop {
            match reader.read_event().context("cannot read the flame graph")? {
                Event::Start(start) if start.name().as_ref() == "title" => title = words(reader, &start)?,
                Event::Start(start) => text = Some((words(reader, &start)?, start)),
                Event::Empty(start) => rect = Some(start),
                Event::End(_) => break,
                Event::Eof => return Err(anyhow!("a frame of the flame graph has no end")),
                _ => {}
            }
        }
        let (Some(rect), Some((text, start))) = (rect, text) else { return Ok(()) };
        let (name, kind) = match title.char_indices().find_map(|(at, mark)| Some((at, kind_of_mark(mark)?))) {
            Some((end, kind)) => (&title[..end], kind),
            None => ("all", Kind::Root),
        };
        let us = attribute(&rect, "fg:w")?.parse::<u64>()?;
        let title = self.total_us.map_or_else(|| name.to_owned(), |total| timed(name, us, total));
        svg.open("g", &[])?;
        svg.holding("title", &[], &title)?;
        svg.event(Event::Empty(with(rect, &[("fill", palette::fill(kind, name))])?))?;
        svg.event(Event::Start(start))?;
        // inferno leaves the name of the whole to its script.
        let text = if kind == Kind::Root && text.is_empty() && us == self.total_us.unwrap_or(1) {
            name
        } else {
            &text
        };
        let text = text.replace(|character| kind_of_mark(character).is_some(), "");
        svg.event(Event::Text(BytesText::new(&text)))?;
        svg.close("text")?;
        svg.close("g")
    }
}

/// `blur (app/demo.py:53) (3.1 s, 31.0 %)`. inferno's script takes what the last brackets hold off again.
fn timed(name: &str, us: u64, total_us: u64) -> String {
    let share = us as f64 * 100.0 / total_us.max(1) as f64;
    format!("{name} ({}, {share:.1} %)", seconds(us as f64 / 1e6))
}

/// The text of an element whose start was read.
fn words(reader: &mut Reader<&[u8]>, start: &BytesStart<'_>) -> Result<String> {
    let raw = reader.read_text(start.name())?;
    Ok(unescape(&raw)?.into_owned())
}

fn attribute<'a>(start: &'a BytesStart<'_>, name: &str) -> Result<Cow<'a, str>> {
    let found = start.try_get_attribute(name)?;
    found.map_or(Ok(Cow::Borrowed("")), |found| Ok(Cow::Owned(found.value.into_owned())))
}

/// The same with some attributes instead of its own.
fn with<'a>(start: BytesStart<'a>, attributes: &[(&str, &str)]) -> Result<BytesStart<'a>> {
    let mut changed = start.clone();
    changed.clear_attributes();
    for kept in start.attributes() {
        let kept = kept?;
        if !attributes.iter().any(|(name, _)| *name == kept.key.as_ref()) {
            changed.push_attribute(kept);
        }
    }
    attributes.iter().for_each(|attribute| changed.push_attribute(*attribute));
    Ok(changed)
}
