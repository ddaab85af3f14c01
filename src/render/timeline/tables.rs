//! What stands below the lanes: the code that made others wait, and the holds that were too long.

use anyhow::Result;

use super::super::heading::seconds as in_words;
use super::super::svg::{Anchor, Svg, TextStyle, fit};
use super::page::Page;
use super::section::{describe, is_stall};
use super::{MARGIN, WIDTH};
use crate::analysis::{Analysed, LongHold, TopHolder};
use crate::recording::{Frame, Recording};
use crate::text::visible;

/// Rows of a table at most, and the height of one.
const ROWS: usize = 8;
const ROW: f64 = 20.0;

/// Where the right table starts, and how wide the left one's bars get.
const RIGHT_TABLE: f64 = 640.0;
const BAR: f64 = 430.0;

/// Lines of code that others waited less for are not worth a row, in thread-seconds.
const LEAST: f64 = 0.001;

/// Draws both; where only holders were looked at, the code that held the GIL.
pub(super) fn draw(page: &mut Page, processes: &[Analysed<'_>]) -> Result<()> {
    let sees_all = processes.iter().any(|process| process.recording.sees_all_threads);
    let (title, code) = if sees_all {
        ("Waiting inflicted, by the code that held the GIL", code(processes, inflicted))
    } else {
        ("Code that held the GIL", code(processes, |process, top| top.held * seen_s(process)))
    };
    let holds = if sees_all { holds(processes) } else { Vec::new() };
    if code.is_empty() && holds.is_empty() {
        return page.block("tables", &[], 8.0, |_| Ok(()));
    }
    let rows = code.len().max(holds.len());
    page.block("tables", &[], 34.0 + rows as f64 * ROW + 16.0, |svg| {
        if !code.is_empty() {
            svg.text(at(MARGIN, 16.0, 13.0, "strong"), title)?;
        }
        let most = code.first().map_or(1.0, |(seconds, _)| *seconds);
        for (row, (seconds, top)) in code.iter().enumerate() {
            draw_code(svg, 34.0 + row as f64 * ROW, seconds / most, *seconds, top)?;
        }
        if !holds.is_empty() {
            svg.text(at(RIGHT_TABLE, 16.0, 13.0, "strong"), "Longest holds while others waited")?;
        }
        for (row, (recording, hold)) in holds.iter().enumerate() {
            draw_hold(svg, 34.0 + row as f64 * ROW, recording, hold)?;
        }
        Ok(())
    })
}

fn inflicted(_: &Analysed<'_>, top: &TopHolder) -> f64 {
    top.blame.map_or(0.0, |blame| blame.inflicted.total_s())
}

fn seen_s(process: &Analysed<'_>) -> f64 {
    process.recording.length().as_secs_f64()
}

/// Lines of code, those first that come to most.
fn code<'a>(
    processes: &'a [Analysed<'a>],
    seconds: impl Fn(&Analysed<'_>, &TopHolder) -> f64,
) -> Vec<(f64, &'a TopHolder)> {
    let of_process = |process: &'a Analysed<'a>| {
        let tops = process.analysis.gils.iter().flat_map(|gil| &gil.top_holders);
        tops.map(|top| (seconds(process, top), top)).collect::<Vec<_>>()
    };
    let mut code: Vec<(f64, &TopHolder)> = processes.iter().flat_map(of_process).collect();
    code.retain(|(seconds, _)| *seconds >= LEAST);
    code.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    code.truncate(ROWS);
    code
}

fn holds<'a>(processes: &'a [Analysed<'a>]) -> Vec<(&'a Recording, &'a LongHold)> {
    let of_process = |process: &'a Analysed<'a>| {
        let waiting = process.analysis.gils.iter().filter_map(|gil| gil.waiting.as_ref());
        waiting.flat_map(|waiting| &waiting.long_holds).map(|hold| (process.recording, hold))
    };
    let mut holds: Vec<(&Recording, &LongHold)> = processes.iter().flat_map(of_process).collect();
    holds.sort_by(|(_, a), (_, b)| b.duration_s.total_cmp(&a.duration_s).then(a.start.cmp(&b.start)));
    holds.truncate(ROWS);
    holds
}

fn draw_code(svg: &mut Svg<Vec<u8>>, y: f64, share: f64, seconds: f64, top: &TopHolder) -> Result<()> {
    svg.rect([MARGIN, y - 1.0, (BAR * share).max(1.0), ROW - 4.0], &[("class", "bar")])?;
    let stalled = top.blame.and_then(|blame| blame.syscall);
    let stalled = stalled.map_or_else(String::new, |call| format!(" (blocked in {})", call.name()));
    let words = top.frame.as_ref().map_or_else(|| "<stack unknown>".to_owned(), place) + &stalled;
    svg.open("g", &[])?;
    svg.holding("title", &[], &top.frame.as_ref().map_or_else(String::new, whole_place))?;
    svg.text(at(MARGIN + 6.0, y + 11.5, 12.0, "mono"), &fit(&words, BAR + 60.0, 12.5))?;
    svg.close("g")?;
    let style = TextStyle { anchor: Anchor::End, ..at(MARGIN + BAR + 130.0, y + 11.5, 12.0, "number") };
    svg.text(style, &in_words(seconds))
}

fn draw_hold(svg: &mut Svg<Vec<u8>>, y: f64, recording: &Recording, hold: &LongHold) -> Result<()> {
    svg.open("g", &[])?;
    svg.holding("title", &[], &describe(recording, hold))?;
    let y = y + 11.5;
    let end = |x, class| TextStyle { anchor: Anchor::End, ..at(x, y, 12.0, class) };
    svg.text(end(RIGHT_TABLE + 56.0, "quiet number"), &format!("{:.2} s", hold.start.as_secs_f64()))?;
    svg.text(end(RIGHT_TABLE + 122.0, "number"), &in_words(hold.duration_s))?;
    let frame = recording.stacks.frames(hold.stack).and_then(|mut frames| frames.next());
    let code = frame.map_or_else(|| "<stack unknown>".to_owned(), place);
    let thread = recording.threads[hold.thread.0 as usize].label();
    let how = if is_stall(hold) { ", blocked" } else { "" };
    let waited = format!("{how}, {} waited", hold.waiters_max);
    let room = WIDTH - MARGIN - RIGHT_TABLE - 136.0 - waited.len() as f64 * 6.5;
    let words =
        format!("{} in {}{waited}", fit(&thread, room / 3.0, 11.0), fit(&code, room * 2.0 / 3.0, 11.0));
    svg.text(at(RIGHT_TABLE + 136.0, y, 12.0, ""), &words)?;
    svg.close("g")
}

/// `blur  thumbs.py:88`.
fn place(frame: &Frame) -> String {
    let file = frame.file.rsplit('/').next().unwrap_or(&frame.file);
    match frame.line {
        Some(line) => format!("{}  {file}:{line}", frame.function),
        None if file == &*frame.function => frame.function.to_string(),
        None => format!("{}  {file}", frame.function),
    }
}

/// The same with the whole path.
fn whole_place(frame: &Frame) -> String {
    let line = frame.line.map_or_else(String::new, |line| format!(":{line}"));
    format!("{} {}{line}", visible(&frame.function), visible(&frame.file))
}

fn at(x: f64, y: f64, size: f64, class: &'static str) -> TextStyle {
    TextStyle { x, y, size, class, anchor: Anchor::Start }
}
