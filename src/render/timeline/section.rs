//! The part of the picture that belongs to one GIL: who held it, how many waited for it, and a lane for each thread.

use std::time::Duration;

use anyhow::Result;

use super::super::heading::seconds as in_words;
use super::super::svg::{Anchor, Svg, TextStyle, fit, number};
use super::boxes::Stacked;
use super::page::Page;
use super::{COLUMNS, LEFT, MARGIN, RIGHT, WIDTH, head, palette, seconds, x_of};
use crate::analysis::{
    Analysed, GilAnalysis, GilSlots, LaneSlots, LongHold, STATES, Slots, States, threads_of,
};
use crate::recording::{GilTrack, Recording, ThreadIndex};

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
const UNSEEN: &str = "not seen: no tick is near";

/// Names of folded threads that a lane's title lists.
const MOST_NAMES: usize = 30;

/// One GIL's part of the picture.
pub(super) struct Section<'a> {
    pub(super) process: &'a Analysed<'a>,
    /// Its place among the process's GILs.
    gil: usize,
    length: Duration,
    /// Its process's heading is drawn with it: the first of several processes' sections.
    has_heading: bool,
    pub(super) lanes: Vec<Lane>,
    pub(super) slots: GilSlots,
    seen: Vec<f32>,
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

    fn attributes(&self) -> [(&'static str, String); 1] {
        [("data-gil", self.lanes.first().map_or(0, |lane| lane.number).to_string())]
    }

    /// Who held the GIL, each in the colour of its lane.
    fn draw_strip(&self, page: &mut Page) -> Result<()> {
        let attributes = self.attributes();
        page.block("strip", &borrowed(&attributes), STRIP + 8.0, |svg| {
            svg.text(at(MARGIN, 15.0, 12.0, "strong"), "GIL holder")?;
            svg.rect([LEFT, 0.0, COLUMNS as f64, STRIP], &[("class", "ground")])?;
            svg.open("g", &[("class", "draw")])?;
            let mut stacked = Stacked::new(0.0, STRIP, COLUMNS);
            for lane in &self.lanes {
                let path = stacked.add(&lane.columns(|mix| mix[0] + mix[1]));
                let held = self.held(lane);
                area(svg, &path, &lane.class, &format!("{}: held it {}", self.title(lane), percent(held)))?;
            }
            area(svg, &stacked.add(&columns(&self.others())), "t9", "held by threads that are not shown")?;
            let unknown = stacked.add(&columns(&self.slots.unknown));
            area(svg, &unknown, "s6", "unknown: could not be read consistently")?;
            let off = stacked.add(&columns(&self.slots.disabled));
            area(svg, &off, "off", "the GIL was off")?;
            let unseen = stacked.add(&columns(&self.unseen()));
            area(svg, &unseen, "unseen", UNSEEN)?;
            self.draw_switches(svg, STRIP)?;
            svg.close("g")?;
            self.draw_held(svg)
        })
    }

    /// A line where the GIL was switched on or off.
    fn draw_switches<W: std::io::Write>(&self, svg: &mut Svg<W>, height: f64) -> Result<()> {
        let mut last = f64::NEG_INFINITY;
        for switch in &self.track().switches {
            let x = x_of(switch.at_s, self.length);
            // Lines that would cover each other are one.
            if x - last >= 3.0 {
                last = x;
                let path = format!("M{} 0h2v{}h-2z", number(x - 1.0), number(height));
                let what = if switch.enabled { "on" } else { "off" };
                let words = format!("the GIL was switched {what} after {}", in_words(switch.at_s));
                area(svg, &path, "long", &words)?;
            }
        }
        Ok(())
    }

    fn draw_held<W: std::io::Write>(&self, svg: &mut Svg<W>) -> Result<()> {
        let analysis = self.analysis();
        let held = match analysis.held.ci95 {
            Some(ci95) => format!("held {:.1} ± {:.1} %", analysis.held.mean * 100.0, ci95 * 100.0),
            None => format!("held {}", percent(analysis.held.mean)),
        };
        svg.text(at(RIGHT + 14.0, 15.0, 12.0, "number"), &held)?;
        let rate = analysis.handovers_per_s.filter(|_| self.track().enabled);
        let style = TextStyle { anchor: Anchor::End, ..at(WIDTH - MARGIN, 15.0, 12.0, "quiet number") };
        rate.map_or(Ok(()), |rate| svg.text(style, &format!("{rate:.0} handovers/s")))
    }

    /// How many threads ran Python at once, where there is no GIL.
    fn draw_parallel(&self, page: &mut Page) -> Result<()> {
        let at_once = self.at_once(3);
        let seen = mean(&columns(&self.seen)).max(f64::MIN_POSITIVE);
        let mean = mean(&at_once) / seen;
        self.draw_area(
            page,
            "parallel",
            "Running Python",
            "s3",
            &at_once,
            &format!("{mean:.1} threads at once"),
        )
    }

    fn draw_waiters(&self, page: &mut Page) -> Result<()> {
        let waiters = columns(&self.slots.waiters);
        let mean = self.analysis().waiting.as_ref().map_or(0.0, |waiting| waiting.waiters.mean);
        let words = format!("{mean:.1} on average");
        self.draw_area(page, "waiters", "Threads waiting", "s4", &waiters, &words)
    }

    fn draw_area(
        &self,
        page: &mut Page,
        class: &str,
        name: &str,
        fill: &str,
        values: &[f64],
        words: &str,
    ) -> Result<()> {
        let most = values.iter().copied().fold(0.0, f64::max).ceil().max(1.0);
        let most_text = number(most);
        let attributes = [&self.attributes()[..], &[("data-most", most_text.clone())]].concat();
        page.block(class, &borrowed(&attributes), WAITERS + 8.0, |svg| {
            svg.text(at(MARGIN, WAITERS - 3.0, 12.0, "strong"), name)?;
            let scale = |y, value: &str, svg: &mut Svg<Vec<u8>>| {
                let style = TextStyle { anchor: Anchor::End, ..at(LEFT - 8.0, y, 10.0, "faint number") };
                svg.text(style, value)
            };
            scale(9.0, &most_text, svg)?;
            scale(WAITERS, "0", svg)?;
            svg.open("g", &[("class", "draw")])?;
            let shares: Vec<f64> = values.iter().map(|value| value / most).collect();
            let mut stacked = Stacked::new(0.0, WAITERS, COLUMNS);
            area(svg, &stacked.add(&shares), fill, name)?;
            area(svg, &stacked.add(&columns(&self.unseen())), "unseen", UNSEEN)?;
            if class == "parallel" {
                self.draw_switches(svg, WAITERS)?;
            }
            svg.close("g")?;
            svg.rect([LEFT, WAITERS, COLUMNS as f64, 1.0], &[("class", "line")])?;
            svg.text(at(RIGHT + 14.0, WAITERS - 3.0, 12.0, "number"), words)
        })
    }

    /// A mark for each hold that was too long, in the colour of a stall where the holder was blocked.
    fn draw_marks(&self, page: &mut Page) -> Result<()> {
        let Some(waiting) = &self.analysis().waiting else { return Ok(()) };
        let holds = &waiting.long_holds;
        let longest = holds.iter().map(|hold| hold.duration_s).fold(0.0, f64::max);
        let words = match holds.len() {
            0 => "none".to_owned(),
            1 => format!("1, {}", in_words(longest)),
            count => format!("{count}, longest {}", in_words(longest)),
        };
        let attributes = self.attributes();
        page.block("marks", &borrowed(&attributes), 18.0, |svg| {
            svg.text(at(MARGIN, 10.0, 12.0, "strong"), "Long holds")?;
            svg.open("g", &[("class", "draw")])?;
            let mut last = [f64::NEG_INFINITY; 2];
            for hold in holds {
                let is_stall = is_stall(hold);
                let x = x_of(hold.start.as_secs_f64(), self.length);
                // Marks that would cover each other are one.
                if x - last[usize::from(is_stall)] >= 3.0 {
                    last[usize::from(is_stall)] = x;
                    self.draw_mark(svg, hold, x)?;
                }
            }
            svg.close("g")?;
            svg.text(at(RIGHT + 14.0, 10.0, 12.0, "number"), &words)
        })
    }

    fn draw_mark(&self, svg: &mut Svg<Vec<u8>>, hold: &LongHold, x: f64) -> Result<()> {
        let class = if is_stall(hold) { "stalled" } else { "long" };
        let end = x_of(hold.start.as_secs_f64() + hold.duration_s, self.length);
        let (left, width) = (number(x), number((end - x).max(1.0)));
        let path = format!("M{} 1h7l-3.5 7zM{left} 10h{width}v2h-{width}z", number(x - 3.5));
        svg.open("path", &[("d", &path), ("class", class)])?;
        svg.holding("title", &[], &describe(self.recording(), hold))?;
        svg.close("path")
    }

    fn draw_lanes(&self, page: &mut Page) -> Result<()> {
        let shares = self.shares();
        page.block("columns", &[], 22.0, |svg| {
            svg.text(at(MARGIN, 16.0, 11.0, "quiet"), "thread")?;
            let style = TextStyle { anchor: Anchor::End, ..at(LEFT - 12.0, 16.0, 11.0, "quiet") };
            svg.text(style, "tid")?;
            for (column, place) in shares.iter().enumerate() {
                let x = share_x(column, shares.len());
                let style = TextStyle { anchor: Anchor::End, ..at(x, 16.0, 11.0, "quiet") };
                svg.text(style, palette::state_name(*place))?;
            }
            Ok(())
        })?;
        for lane in &self.lanes {
            let number = lane.number.to_string();
            page.block("lane", &[("data-lane", &number)], LANE + 8.0, |svg| {
                self.draw_lane(svg, lane, &shares)
            })?;
        }
        Ok(())
    }

    fn draw_lane(&self, svg: &mut Svg<Vec<u8>>, lane: &Lane, shares: &[usize]) -> Result<()> {
        let states = self.states(lane);
        svg.open("g", &[])?;
        svg.holding("title", &[], &format!("{}: {}", self.title(lane), all_states(&states)))?;
        svg.rect([MARGIN, 4.0, 10.0, 10.0], &[("rx", "2"), ("class", &lane.class)])?;
        let (name, tid) = self.name(lane);
        let room = LEFT - 12.0 - tid.chars().count() as f64 * 6.4 - 8.0 - (MARGIN + 16.0);
        svg.text(at(MARGIN + 16.0, 13.0, 12.0, ""), &fit(&name, room, 10.6))?;
        let style = TextStyle { anchor: Anchor::End, ..at(LEFT - 12.0, 13.0, 11.0, "faint number") };
        svg.text(style, &tid)?;
        for (column, place) in shares.iter().enumerate() {
            let (share, x) = (states[*place], share_x(column, shares.len()));
            let class = if share >= 0.05 && *place != 5 { "number strong" } else { "number quiet" };
            let size = if shares.len() > 4 { 11.0 } else { 12.0 };
            let style = TextStyle { anchor: Anchor::End, ..at(x, 13.0, size, class) };
            svg.text(style, &short_percent(share))?;
        }
        svg.close("g")?;
        self.draw_life(svg, lane)?;
        svg.open("g", &[("class", "draw")])?;
        let mut stacked = Stacked::new(0.0, LANE, COLUMNS);
        for place in (0..STATES).filter(|place| *place != 5) {
            let path = stacked.add(&lane.columns(|mix| mix[place]));
            let state = palette::state_name(place);
            area(svg, &path, &palette::state_class(place), &format!("{}: {state}", self.title(lane)))?;
        }
        let (from, to) = self.life(lane);
        let lives = |column: usize| (from..=to).contains(&(LEFT + column as f64 + 0.5));
        let unseen = columns(&self.unseen()).into_iter().enumerate();
        let unseen = unseen.map(|(column, share)| if lives(column) { share } else { 0.0 });
        area(svg, &stacked.add(&unseen.collect::<Vec<f64>>()), "unseen", UNSEEN)?;
        svg.close("g")
    }

    /// The line that a lane stands on, as long as its threads were there.
    fn draw_life(&self, svg: &mut Svg<Vec<u8>>, lane: &Lane) -> Result<()> {
        let (from, to) = self.life(lane);
        let [first, last] = [from, to].map(|x| number((x - LEFT) / COLUMNS as f64 * seconds(self.length)));
        let life = [("class", "line life"), ("data-from", first.as_str()), ("data-to", &last)];
        svg.rect([from, LANE, (to - from).max(1.0), 1.0], &life)
    }

    /// From where to where its threads were there.
    fn life(&self, lane: &Lane) -> (f64, f64) {
        let threads = || lane.threads.iter().map(|thread| &self.recording().threads[thread.0 as usize]);
        let first = threads().map(|thread| thread.first_seen).min().unwrap_or_default();
        let last = threads().map(|thread| thread.last_seen).max().unwrap_or_default();
        (x_of(first.as_secs_f64(), self.length), x_of(last.as_secs_f64(), self.length))
    }

    /// The states whose shares the lanes show, by their places: those that count, and what else there is.
    fn shares(&self) -> Vec<usize> {
        if !self.recording().sees_all_threads {
            return vec![0];
        }
        let has_gil = self.track().enabled;
        let all: Vec<[f64; STATES]> = self.lanes.iter().map(|lane| self.states(lane)).collect();
        let is_there = |place: usize| all.iter().any(|states| states[place] >= 0.0005);
        let always =
            |place: usize| if has_gil { matches!(place, 0 | 2 | 4 | 5) } else { matches!(place, 2 | 3 | 5) };
        // Stall stands beside hold, wait before what does not need the GIL.
        [0, 1, 4, 3, 2, 5].into_iter().filter(|place| always(*place) || is_there(*place)).collect()
    }

    fn states(&self, lane: &Lane) -> [f64; STATES] {
        let mut sum = [0.0; STATES];
        for thread in &lane.threads {
            let of_thread = match self.process.analysis.threads[thread.0 as usize].states {
                Some(states) => by_place(&states),
                None => {
                    let held = self.analysis().hold.get(thread).copied().unwrap_or(0.0);
                    [held, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
                }
            };
            sum.iter_mut().zip(of_thread).for_each(|(sum, share)| *sum += share);
        }
        sum.map(|share| share / lane.threads.len().max(1) as f64)
    }

    fn held(&self, lane: &Lane) -> f64 {
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

    fn title(&self, lane: &Lane) -> String {
        let title = |thread: &ThreadIndex| self.recording().threads[thread.0 as usize].title();
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
    fn at_once(&self, place: usize) -> Vec<f64> {
        let mut sum = vec![0.0; COLUMNS];
        for lane in &self.lanes {
            let of_lane = lane.columns(|mix| mix[place]);
            sum.iter_mut().zip(of_lane).for_each(|(sum, share)| *sum += share * lane.threads.len() as f64);
        }
        sum
    }

    fn unseen(&self) -> Vec<f32> {
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

    fn others(&self) -> Vec<f32> {
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
    fn columns(&self, of: impl Fn(&[f32; STATES]) -> f32) -> Vec<f64> {
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
fn columns(slots: &[f32]) -> Vec<f64> {
    let of_column = (slots.len() / COLUMNS).max(1);
    let mean = |slots: &[f32]| f64::from(slots.iter().sum::<f32>()) / of_column as f64;
    slots.chunks(of_column).map(mean).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn by_place(states: &States) -> [f64; STATES] {
    let States { hold, stall, wait, native, blocked, parallel, unknown } = *states;
    [hold, stall, native, parallel, wait, blocked, unknown]
}

fn all_states(states: &[f64; STATES]) -> String {
    let shares = states.iter().enumerate().filter(|(_, share)| **share > 0.0);
    let words = shares.map(|(place, share)| format!("{} {}", palette::state_name(place), percent(*share)));
    words.collect::<Vec<_>>().join(", ")
}

pub(super) fn is_stall(hold: &LongHold) -> bool {
    hold.stalled >= 0.5
}

/// A long hold in words.
pub(super) fn describe(recording: &Recording, hold: &LongHold) -> String {
    let thread = recording.threads[hold.thread.0 as usize].title();
    let frame = recording.stacks.frames(hold.stack).and_then(|mut frames| frames.next());
    let place = frame.map_or_else(|| "an unknown stack".to_owned(), |frame| frame.place());
    let how = if is_stall(hold) { "was blocked while it held the GIL" } else { "held the GIL" };
    format!(
        "{:.3} s: {thread} {how} for {} in {place}; {} waited",
        hold.start.as_secs_f64(),
        in_words(hold.duration_s),
        hold.waiters_max
    )
}

fn area<W: std::io::Write>(svg: &mut Svg<W>, path: &str, class: &str, title: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    svg.open("path", &[("d", path), ("class", class)])?;
    svg.holding("title", &[], title)?;
    svg.close("path")
}

/// Where the shares of a column end, of so many.
fn share_x(column: usize, columns: usize) -> f64 {
    let step = (WIDTH - MARGIN - RIGHT) / columns.max(4) as f64;
    RIGHT + (column + 1) as f64 * step
}

fn at(x: f64, y: f64, size: f64, class: &'static str) -> TextStyle {
    TextStyle { x, y, size, class, anchor: Anchor::Start }
}

fn borrowed<'a>(attributes: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    attributes.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// For a column of shares.
fn short_percent(share: f64) -> String {
    match share {
        few if few < 0.0005 => "·".to_owned(),
        nearly_all if nearly_all >= 0.9995 => "100 %".to_owned(),
        share => percent(share),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
