//! The part of the picture that belongs to one GIL: who held it, how many waited for it, and a lane for each thread.

use std::time::Duration;

use anyhow::Result;

use super::super::heading::seconds as in_words;
use super::super::svg::{Anchor, Svg, TextStyle, fit};
use super::page::Page;
use super::{COLUMNS, MARGIN, WIDTH, head, palette};
use crate::analysis::{Analysed, GilAnalysis, GilSlots, LaneSlots, LongHold, STATES, Slots, threads_of};
use crate::recording::{GilTrack, Recording, ThreadIndex};
use crate::text::name;

/// Height of the strip of holders, of the waiters' area, of the marks of long holds, and of a lane.
pub(super) const STRIP: f64 = 22.0;
pub(super) const WAITERS: f64 = 34.0;
pub(super) const LANE: f64 = 18.0;

/// Lanes at most, over all GILs; the others share one for each GIL.
const MOST_LANES: usize = 40;

/// Lanes of a GIL at least.
const FEWEST_LANES: usize = 3;

/// Threads that do nothing but block fold into one lane where there are more than so many.
const FEW: usize = 12;

/// A thread is quiet if it does anything else for less than such a share of its time.
const QUIET: f64 = 0.005;

/// Slots of all lanes together, at most: they are the data that the picture zooms into.
const MOST_SLOTS: usize = 150_000;

/// Slots to a column at most.
const FINEST: usize = 32;

/// What is said where no tick is near.
pub(super) const UNSEEN: &str = "not seen: no tick is near";

/// Names of folded threads that a lane's title lists.
const MOST_NAMES: usize = 30;

/// One GIL's part of the picture.
pub(super) struct Section<'a> {
    pub(super) process: &'a Analysed<'a>,
    /// Its place among the process's GILs.
    gil: usize,
    pub(super) length: Duration,
    /// Its process's heading is drawn with it: the first of several processes' sections.
    has_heading: bool,
    pub(super) lanes: Vec<Lane>,
    pub(super) slots: GilSlots,
    pub(super) seen: Vec<f32>,
}

/// One lane: a thread, or all those that have no lane of their own.
pub(super) struct Lane {
    pub(super) threads: Vec<ThreadIndex>,
    /// Its place among all lanes of the picture.
    pub(super) number: usize,
    pub(super) class: String,
    pub(super) slots: LaneSlots,
}

impl<'a> Section<'a> {
    /// One for each GIL of each process.
    pub(super) fn all(processes: &'a [Analysed<'a>], length: Duration) -> Result<Vec<Section<'a>>> {
        let gils: usize = processes.iter().map(|process| process.recording.gils.len()).sum();
        let most = (MOST_LANES / gils.max(1)).max(FEWEST_LANES);
        let lanes: Vec<Vec<Vec<Vec<ThreadIndex>>>> = (processes.iter())
            .map(|process| {
                (0..process.recording.gils.len()).map(|gil| lanes_of(process, gil, most)).collect()
            })
            .collect();
        let count = lanes.iter().flatten().map(|lanes| lanes.len() + 1).sum();
        let rate = processes.first().map_or(1, |process| process.recording.rate_hz);
        let slots = slots_for(count, length, rate);
        let mut sections = Vec::new();
        let mut number = 0;
        for (process, of_gils) in processes.iter().zip(lanes) {
            let flat: Vec<Vec<ThreadIndex>> = of_gils.iter().flatten().cloned().collect();
            let Slots { seen, gils, lanes } = Slots::of(process.recording, &flat, length, slots)?;
            let mut lanes = lanes.into_iter();
            for (gil, (slots, threads)) in gils.into_iter().zip(of_gils).enumerate() {
                let lanes =
                    threads.into_iter().zip(&mut lanes).enumerate().map(|(rank, (threads, slots))| {
                        let rank = if threads.len() > 1 { usize::MAX } else { rank };
                        number += 1;
                        Lane { threads, number: number - 1, class: palette::thread_class(rank), slots }
                    });
                let lanes = lanes.collect();
                let has_heading = processes.len() > 1 && gil == 0;
                sections.push(Section {
                    process,
                    gil,
                    length,
                    has_heading,
                    lanes,
                    slots,
                    seen: seen.clone(),
                });
            }
        }
        Ok(sections)
    }

    pub(super) fn recording(&self) -> &'a Recording {
        self.process.recording
    }

    pub(super) fn track(&self) -> &'a GilTrack {
        &self.process.recording.gils[self.gil]
    }

    pub(super) fn analysis(&self) -> &'a GilAnalysis {
        &self.process.analysis.gils[self.gil]
    }

    /// Draws its blocks.
    pub(super) fn draw(&self, page: &mut Page) -> Result<()> {
        if self.has_heading {
            self.draw_heading(page)?;
            head::verdict(page, self.process)?;
        }
        if self.recording().gils.len() > 1 {
            let ids: Vec<String> = self.track().interpreters.iter().map(i64::to_string).collect();
            let words = format!("GIL of interpreter {}", ids.join(", "));
            page.block("heading", &[], 26.0, |svg| svg.text(at(MARGIN, 18.0, 12.5, "strong"), &words))?;
        }
        if self.track().enabled || !self.track().switches.is_empty() || !self.has_off() {
            self.draw_strip(page)?;
        }
        if self.has_off() {
            self.draw_parallel(page)?;
        }
        if self.analysis().waiting.is_some() && self.track().enabled {
            self.draw_waiters(page)?;
            self.draw_marks(page)?;
        }
        self.draw_lanes(page)
    }

    fn draw_heading(&self, page: &mut Page) -> Result<()> {
        let words = super::heading::process(self.recording());
        page.block("heading", &[], 32.0, |svg| {
            svg.text(at(MARGIN, 22.0, 14.0, "strong"), &fit(&words, WIDTH - 2.0 * MARGIN, 14.0))
        })
    }

    pub(super) fn held(&self, lane: &Lane) -> f64 {
        lane.threads.iter().filter_map(|thread| self.analysis().hold.get(thread)).sum()
    }

    /// Name and id.
    pub(super) fn name(&self, lane: &Lane) -> (String, String) {
        match lane.threads.as_slice() {
            [thread] => {
                let thread = &self.recording().threads[thread.0 as usize];
                let name = thread.name.clone().unwrap_or_else(|| "(no name)".to_owned());
                (name, thread.tid.map_or_else(|| "?".to_owned(), |tid| tid.to_string()))
            }
            threads if self.is_quiet(lane) => {
                (format!("{} quiet threads", threads.len()), "folded".to_owned())
            }
            threads => (format!("{} more threads", threads.len()), "folded".to_owned()),
        }
    }

    fn is_quiet(&self, lane: &Lane) -> bool {
        lane.threads.iter().all(|thread| is_quiet(self.process, *thread))
    }

    pub(super) fn title(&self, lane: &Lane) -> String {
        let title =
            |thread: &ThreadIndex| name(&self.recording().threads[thread.0 as usize].title()).into_owned();
        match lane.threads.as_slice() {
            [thread] => title(thread),
            threads => {
                let names: Vec<String> = threads.iter().take(MOST_NAMES).map(title).collect();
                let more = if threads.len() > MOST_NAMES { ", …" } else { "" };
                format!("{} threads in one lane, their mean ({}{more})", threads.len(), names.join(", "))
            }
        }
    }

    /// How many threads were in a state at once, column by column.
    pub(super) fn at_once(&self, place: usize) -> Vec<f64> {
        let mut sum = vec![0.0; COLUMNS];
        for lane in &self.lanes {
            let of_lane = lane.columns(|mix| mix[place]);
            sum.iter_mut().zip(of_lane).for_each(|(sum, share)| *sum += share * lane.threads.len() as f64);
        }
        sum
    }

    pub(super) fn unseen(&self) -> Vec<f32> {
        (0..self.seen.len()).map(|slot| self.unseen_at(slot)).collect()
    }

    /// For what share of a slot no tick is near.
    pub(super) fn unseen_at(&self, slot: usize) -> f32 {
        let unseen = 1.0 - self.seen[slot];
        if unseen > 0.001 { unseen } else { 0.0 }
    }

    /// For what share of a slot a thread held the GIL that has no part in any lane.
    pub(super) fn others_at(&self, slot: usize) -> f32 {
        let shown = self.lanes.iter().map(|lane| {
            let mix = &lane.slots.mixes[slot];
            (mix[0] + mix[1]) * lane.threads.len() as f32
        });
        let others = self.slots.held[slot] - shown.sum::<f32>();
        if others > 0.001 { others } else { 0.0 }
    }

    pub(super) fn others(&self) -> Vec<f32> {
        (0..self.seen.len()).map(|slot| self.others_at(slot)).collect()
    }

    /// Whether the legend has to name a state.
    pub(super) fn shows(&self, place: usize) -> bool {
        self.shares().contains(&place)
            || self.lanes.iter().any(|lane| lane.slots.mixes.iter().any(|mix| mix[place] > 0.0))
            || (place == 6 && self.slots.unknown.iter().any(|share| *share > 0.0))
    }

    pub(super) fn has_unseen(&self) -> bool {
        self.unseen().iter().any(|share| *share > 0.0)
    }

    /// Whether the GIL was off, at least at times.
    pub(super) fn has_off(&self) -> bool {
        self.slots.disabled.iter().any(|share| *share > 0.0)
    }
}

impl Lane {
    /// Something of each column's mix.
    pub(super) fn columns(&self, of: impl Fn(&[f32; STATES]) -> f32) -> Vec<f64> {
        columns(&self.slots.mixes.iter().map(of).collect::<Vec<f32>>())
    }
}

/// The lanes of a GIL: threads in the order of what they did to the others, quiet ones and what is too many together.
fn lanes_of(process: &Analysed<'_>, gil: usize, most: usize) -> Vec<Vec<ThreadIndex>> {
    let threads = threads_of(process.recording, gil, &process.analysis);
    let (mut busy, mut quiet) = (threads, Vec::new());
    if busy.len() > FEW && process.recording.sees_all_threads {
        (quiet, busy) = busy.into_iter().partition(|thread| is_quiet(process, *thread));
    }
    let room = most.saturating_sub(usize::from(!quiet.is_empty()));
    let more = if busy.len() > room { busy.split_off(room.saturating_sub(1)) } else { Vec::new() };
    let lanes = busy.into_iter().map(|thread| vec![thread]);
    lanes.chain([more, quiet].into_iter().filter(|threads| !threads.is_empty())).collect()
}

fn is_quiet(process: &Analysed<'_>, thread: ThreadIndex) -> bool {
    let states = process.analysis.threads[thread.0 as usize].states;
    states.is_some_and(|states| 1.0 - states.blocked < QUIET)
}

/// How many slots are worth their room: as many as there are ticks, if the picture does not grow too large.
fn slots_for(lanes: usize, length: Duration, rate_hz: u32) -> usize {
    let ticks = length.as_secs_f64() * f64::from(rate_hz);
    let wanted = (2.0 * ticks / COLUMNS as f64).ceil() as usize;
    let room = MOST_SLOTS / (COLUMNS * lanes.max(1));
    COLUMNS * wanted.min(room).clamp(1, FINEST)
}

/// The means of the slots of each column.
pub(super) fn columns(slots: &[f32]) -> Vec<f64> {
    let of_column = (slots.len() / COLUMNS).max(1);
    let mean = |slots: &[f32]| f64::from(slots.iter().sum::<f32>()) / of_column as f64;
    slots.chunks(of_column).map(mean).collect()
}

pub(super) fn is_stall(hold: &LongHold) -> bool {
    hold.stalled >= 0.5
}

/// A long hold in words.
pub(super) fn describe(recording: &Recording, hold: &LongHold) -> String {
    let thread = recording.threads[hold.thread.0 as usize].title();
    let thread = name(&thread);
    let frame = recording.stacks.frames(hold.stack).and_then(|mut frames| frames.next());
    let place =
        frame.map_or_else(|| "an unknown stack".to_owned(), |frame| name(&frame.place()).into_owned());
    let how = if is_stall(hold) { "was blocked while it held the GIL" } else { "held the GIL" };
    format!(
        "{:.3} s: {thread} {how} for {} in {place}; {} waited",
        hold.start.as_secs_f64(),
        in_words(hold.duration_s),
        hold.waiters_max
    )
}

pub(super) fn area<W: std::io::Write>(svg: &mut Svg<W>, path: &str, class: &str, title: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    svg.open("path", &[("d", path), ("class", class)])?;
    svg.holding("title", &[], title)?;
    svg.close("path")
}

pub(super) fn at(x: f64, y: f64, size: f64, class: &'static str) -> TextStyle {
    TextStyle { x, y, size, class, anchor: Anchor::Start }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
