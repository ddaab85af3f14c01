//! SVG elements. Every text passes through [`visible`] and quick-xml's escaping here, and nowhere else.

use std::io::Write;

use anyhow::Result;
use quick_xml::Writer;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};

use crate::text::{shorten, visible};

/// Room a character takes in the sans-serif fonts of the pictures, as a share of the font's size: an
/// estimate on the wide side, since no font is at hand to measure with.
const CHARACTER_WIDTH: f64 = 0.58;

/// Writes SVG elements one after the other.
pub(super) struct Svg<W: Write> {
    writer: Writer<W>,
}

/// How a text stands at its point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A text's place and look.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextStyle {
    pub x: f64,
    pub y: f64,
    pub size: f64,
    pub class: &'static str,
    pub anchor: Anchor,
}

impl<W: Write> Svg<W> {
    /// Nothing written yet.
    pub(super) fn new(writer: W) -> Self {
        Svg { writer: Writer::new(writer) }
    }

    /// Opens an element; [`Svg::close`] closes it.
    pub(super) fn open(&mut self, name: &str, attributes: &[(&str, &str)]) -> Result<()> {
        Ok(self.writer.write_event(Event::Start(start(name, attributes)))?)
    }

    /// Closes an element and ends the line.
    pub(super) fn close(&mut self, name: &str) -> Result<()> {
        self.writer.write_event(Event::End(BytesEnd::new(name)))?;
        self.end_line()
    }

    /// An element without content, on a line of its own.
    pub(super) fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) -> Result<()> {
        self.writer.write_event(Event::Empty(start(name, attributes)))?;
        self.end_line()
    }

    /// An element that holds text alone: `title`, `style`, `desc`.
    pub(super) fn holding(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) -> Result<()> {
        self.open(name, attributes)?;
        self.writer.write_event(Event::Text(BytesText::new(&visible(text))))?;
        self.close(name)
    }

    /// A script or style sheet of ours, lines and all.
    pub(super) fn code(&mut self, name: &str, code: &str) -> Result<()> {
        self.open(name, &[])?;
        self.writer.write_event(Event::Text(BytesText::new(code)))?;
        self.close(name)
    }

    /// A text for people.
    pub(super) fn text(&mut self, style: TextStyle, text: &str) -> Result<()> {
        let anchor = match style.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y, size) = (number(style.x), number(style.y), number(style.size));
        let attributes = [
            ("x", x.as_str()),
            ("y", &y),
            ("font-size", &size),
            ("class", style.class),
            ("text-anchor", anchor),
        ];
        self.holding("text", &attributes, text)
    }

    /// A text of parts that differ in their looks.
    pub(super) fn spans(&mut self, style: TextStyle, parts: &[(&str, &str)]) -> Result<()> {
        let (x, y, size) = (number(style.x), number(style.y), number(style.size));
        let attributes = [("x", x.as_str()), ("y", &y), ("font-size", &size), ("class", style.class)];
        self.open("text", &attributes)?;
        for (class, part) in parts {
            self.open("tspan", &[("class", class)])?;
            self.writer.write_event(Event::Text(BytesText::new(&visible(part))))?;
            self.writer.write_event(Event::End(BytesEnd::new("tspan")))?;
        }
        self.close("text")
    }

    /// What an [`Svg`] of its own has written already.
    pub(super) fn raw(&mut self, written: &[u8]) -> Result<()> {
        Ok(self.writer.get_mut().write_all(written)?)
    }

    /// What it was written to.
    pub(super) fn into_inner(self) -> W {
        self.writer.into_inner()
    }

    /// A rectangle.
    pub(super) fn rect(&mut self, place: [f64; 4], attributes: &[(&str, &str)]) -> Result<()> {
        let [x, y, width, height] = place.map(number);
        let mut all = vec![("x", x.as_str()), ("y", &y), ("width", &width), ("height", &height)];
        all.extend_from_slice(attributes);
        self.empty("rect", &all)
    }

    /// Passes on what was written as XML before.
    pub(super) fn event(&mut self, event: Event<'_>) -> Result<()> {
        Ok(self.writer.write_event(event)?)
    }

    fn end_line(&mut self) -> Result<()> {
        Ok(self.writer.write_event(Event::Text(BytesText::new("\n")))?)
    }
}

fn start<'a>(name: &'a str, attributes: &[(&str, &str)]) -> BytesStart<'a> {
    let mut start = BytesStart::new(name);
    for (key, value) in attributes {
        start.push_attribute((*key, &*visible(value)));
    }
    start
}

/// A coordinate with as many digits as a pixel needs.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "-0" => "0".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

/// The text, cut with an ellipsis to what fits into that many units at that font size.
pub(super) fn fit(text: &str, width: f64, size: f64) -> String {
    use unicode_width::UnicodeWidthChar;

    let text = visible(text);
    let room = (width / (size * CHARACTER_WIDTH)).floor().max(1.0) as usize;
    // Characters of double width in a terminal are about that wide in a picture too.
    let mut used = 0;
    let fitting = text.chars().take_while(|character| {
        used += character.width().unwrap_or(1).max(1);
        used <= room
    });
    match fitting.count() {
        count if count == text.chars().count() => text.into_owned(),
        count => shorten(&text, count),
    }
}

/// The text in lines that fit into that many units at that font size; what does not fit into `most` of them is cut.
pub(super) fn wrap(text: &str, width: f64, size: f64, most: usize) -> Vec<String> {
    let columns = (width / (size * CHARACTER_WIDTH)).floor().max(1.0) as usize;
    let text = visible(text);
    let mut lines = textwrap::wrap(&text, textwrap::Options::new(columns).break_words(true));
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            *last = format!("{}…", shorten(last, columns.saturating_sub(1)).trim_end_matches('…')).into();
        }
    }
    lines.into_iter().map(|line| line.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_are_escaped_and_control_characters_are_shown() {
        let mut bytes = Vec::new();
        let mut svg = Svg::new(&mut bytes);
        svg.open("svg", &[("aria-label", "a\"<b>&\x1b")]).unwrap();
        svg.holding("title", &[], "<script>\u{0}").unwrap();
        svg.close("svg").unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        assert_eq!(document.root_element().attribute("aria-label"), Some("a\"<b>&␛"));
        assert_eq!(document.root_element().first_element_child().unwrap().text(), Some("<script>␀"));
    }

    #[test]
    fn long_text_is_cut_to_its_room() {
        assert_eq!(fit("short", 100.0, 10.0), "short");
        let cut = fit(&"x".repeat(10_000), 100.0, 10.0);
        assert!(cut.chars().count() <= 17 && cut.ends_with('…'), "{cut}");
        assert!(fit(&"計".repeat(50), 100.0, 10.0).chars().count() <= 9);
    }

    #[test]
    fn text_that_is_too_long_for_its_lines_is_cut() {
        assert_eq!(wrap("one two three", 60.0, 10.0, 3), ["one two", "three"]);
        let cut = wrap(&"x".repeat(10_000), 100.0, 10.0, 2);
        assert!(cut.len() == 2 && cut[1].ends_with('…') && cut[1].chars().count() <= 18, "{cut:?}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([number(1.0), number(0.333), number(-0.001), number(120.0)], ["1", "0.33", "0", "120"]);
    }
}
