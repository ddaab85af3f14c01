//! Flame graphs: which code held the GIL, waited for it, made others wait, ran, or was there at all. inferno lays
//! them out and brings the script that zooms and searches; [`dress`] gives them their head, colours and words.

mod dress;
mod head;
mod palette;

use std::io::Write;

use anyhow::{Context, Result};
use inferno::flamegraph::{Direction, Options, TextTruncateDirection, from_lines};

use super::stacks::{Kind, StackOptions, named_stacks};
use crate::analysis::Analysed;
use crate::text::shorten;
use dress::Dress;
use head::Head;

/// The longest name of a call, in characters: more fits no screen.
const LONGEST_NAME: usize = 250;

/// Marks what kind of code a part of a stack is, on its way through inferno: the first of as many characters for
/// private use. Names have none: [`crate::text::visible`] shows them.
const FIRST_MARK: u32 = 0xe000;

/// Where the picture will be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a window of its own, which it fills.
    Window,
    /// As part of a page, which scales it and has a field for searching.
    Page,
}

/// Draws it as SVG.
///
/// # Errors
/// When the recording can no longer be read, or the writer fails.
pub fn write(
    processes: &[Analysed<'_>],
    stacks: StackOptions,
    place: Place,
    writer: &mut impl Write,
) -> Result<()> {
    let mut total_us = 0;
    let mut lines = Vec::new();
    for (parts, time) in named_stacks(processes, stacks)? {
        let us = time.nanos / 1000;
        let names: Vec<String> = parts.iter().map(|part| marked(&part.name, part.kind)).collect();
        total_us += us;
        lines.push(format!("{} {us}", names.join(";")));
    }
    let head = Head::new(processes, stacks, total_us);
    let is_empty = total_us == 0;
    if is_empty {
        // inferno draws no empty pictures.
        lines = vec![format!("{} 1", marked(&head.nothing, Kind::Unknown))];
    }
    lines.sort_unstable();
    let mut svg = Vec::new();
    let lines = lines.iter().map(String::as_str);
    from_lines(&mut options(stacks, place), lines, &mut svg).context("cannot draw the flame graph")?;
    Dress { head: &head, place, total_us: (!is_empty).then_some(total_us) }
        .put_on(std::str::from_utf8(&svg)?, writer)
}

fn options(stacks: StackOptions, place: Place) -> Options<'static> {
    let mut options = Options::default();
    options.direction = if stacks.reversed { Direction::Inverted } else { Direction::Straight };
    options.image_width = (place == Place::Page).then_some(head::WIDTH as usize);
    options.name_type = String::new();
    options.font_type = "monospace".to_owned();
    options.frame_height = 17;
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.deterministic = true;
    options
}

/// The name with the mark of its kind behind it, which also keeps a number at its end from being taken for a count.
fn marked(name: &str, kind: Kind) -> String {
    let mark = char::from_u32(FIRST_MARK + kind as u32).unwrap_or_default();
    shorten(name, LONGEST_NAME) + mark.encode_utf8(&mut [0; 4])
}

fn kind_of_mark(character: char) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| FIRST_MARK + *kind as u32 == character as u32)
}

#[cfg(test)]
mod tests;
