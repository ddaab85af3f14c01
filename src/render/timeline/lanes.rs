//! The strip and the lanes of one GIL.

use std::fmt::Write as _;
use std::io::Write;

use anyhow::Result;

use super::{LANES_LEFT, LANES_RIGHT, MARGIN, WIDTH, palette};
use crate::analysis::{Analysis, Column, GilAnalysis, threads_of};
use crate::recording::{GilTrack, Recording, ThreadIndex};
use crate::render::svg::{Anchor, Svg, TextStyle, fit, number};

/// Height of the strip of all holders.
const STRIP: f64 = 28.0;
/// Height of a lane, and from one lane to the next.
const LANE: f64 = 18.0;
const LANE_STEP: f64 = 26.0;
/// From the section's top to its strip.
const STRIP_TOP: f64 = 20.0;
/// From the section's top to its first lane.
const LANES_TOP: f64 = STRIP_TOP + STRIP + 16.0;
/// Below the last lane.
const BELOW: f64 = 10.0;
/// Lanes at most; the quietest threads share the last.
const MOST_LANES: usize = 40;

/// One GIL's part of the picture.
pub(super) struct Section<'a> {
    recording: &'a Recording,
    gil: &'a GilTrack,
    analysis: &'a GilAnalysis,
    columns: Vec<Column>,
    lanes: Vec<Lane>,
}

/// One lane: a thread, or all those that have no lane of their own.
struct Lane {
    threads: Vec<ThreadIndex>,
    color: &'static str,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        recording: &'a Recording,
        analysis: &'a Analysis,
        gil: usize,
        columns: Vec<Column>,
    ) -> Self {
        let threads = threads_of(recording, gil, analysis);
        let (gil, analysis) = (&recording.gils[gil], &analysis.gils[gil]);
        let own = if threads.len() > MOST_LANES { MOST_LANES - 1 } else { threads.len() };
        let mut lanes: Vec<Lane> = (threads[..own].iter().enumerate())
            .map(|(rank, thread)| Lane { threads: vec![*thread], color: palette::thread(rank) })
            .collect();
        if own < threads.len() {
            lanes.push(Lane { threads: threads[own..].to_vec(), color: palette::thread(usize::MAX) });
        }
        Section { recording, gil, analysis, columns, lanes }
    }

    pub(super) fn height(&self) -> f64 {
        LANES_TOP + self.lanes.len() as f64 * LANE_STEP + BELOW
    }

    pub(super) fn draw<W: Write>(&self, svg: &mut Svg<W>, top: f64) -> Result<()> {
        self.draw_headings(svg, top + STRIP_TOP - 6.0)?;
        self.draw_strip(svg, top + STRIP_TOP)?;
        for (place, lane) in self.lanes.iter().enumerate() {
            self.draw_lane(svg, lane, top + LANES_TOP + place as f64 * LANE_STEP)?;
        }
        Ok(())
    }

    fn draw_headings<W: Write>(&self, svg: &mut Svg<W>, y: f64) -> Result<()> {
        let style = TextStyle { x: WIDTH - MARGIN, y, size: 11.0, class: "quiet", anchor: Anchor::End };
        svg.text(style, "held the GIL")?;
        if self.recording.gils.len() > 1 {
            let ids: Vec<String> = self.gil.interpreters.iter().map(i64::to_string).collect();
            let style = TextStyle { x: LANES_LEFT, anchor: Anchor::Start, ..style };
            svg.text(style, &format!("GIL of interpreter {}", ids.join(", ")))?;
        }
        Ok(())
    }

    fn draw_strip<W: Write>(&self, svg: &mut Svg<W>, top: f64) -> Result<()> {
        self.label(svg, top + STRIP / 2.0, "GIL holder", "strong", share(self.analysis.held.mean))?;
        svg.rect([LANES_LEFT, top, LANES_RIGHT - LANES_LEFT, STRIP], &[("fill", "#F5F7FA")])?;
        let mut below = vec![0.0; self.columns.len()];
        for lane in &self.lanes {
            let heights = self.shares(lane);
            let path = self.band(top, STRIP, &below, &heights);
            for (base, height) in below.iter_mut().zip(&heights) {
                *base += height;
            }
            self.area(svg, &path, lane.color, &self.title(lane))?;
        }
        let unknown: Vec<f64> = self.columns.iter().map(Column::unknown_share).collect();
        let path = self.band(top, STRIP, &below, &unknown);
        self.area(svg, &path, palette::UNKNOWN, "unknown: could not be read consistently")?;
        self.not_seen(svg, top, STRIP)
    }

    fn draw_lane<W: Write>(&self, svg: &mut Svg<W>, lane: &Lane, top: f64) -> Result<()> {
        let held = self.held(lane);
        self.label(svg, top + LANE / 2.0, &self.name(lane), "", share(held))?;
        self.life(svg, lane, top + LANE)?;
        let path = self.band(top, LANE, &vec![0.0; self.columns.len()], &self.shares(lane));
        self.area(svg, &path, lane.color, &self.title(lane))
    }

    fn label<W: Write>(
        &self,
        svg: &mut Svg<W>,
        middle: f64,
        name: &str,
        class: &'static str,
        share: String,
    ) -> Result<()> {
        let y = middle + 4.0;
        let name = fit(name, LANES_LEFT - MARGIN - 12.0, 12.0);
        svg.text(TextStyle { x: MARGIN, y, size: 12.0, class, anchor: Anchor::Start }, &name)?;
        let style = TextStyle { x: WIDTH - MARGIN, y, size: 12.0, class: "number", anchor: Anchor::End };
        svg.text(style, &share)
    }

    /// The line a lane stands on, as long as its threads were there.
    fn life<W: Write>(&self, svg: &mut Svg<W>, lane: &Lane, y: f64) -> Result<()> {
        let threads = || lane.threads.iter().map(|thread| &self.recording.threads[thread.0 as usize]);
        let first = threads().map(|thread| thread.first_seen).min().unwrap_or_default();
        let last = threads().map(|thread| thread.last_seen).max().unwrap_or_default();
        let duration = self.recording.duration.as_secs_f64().max(1e-9);
        let x = |seconds: f64| LANES_LEFT + (LANES_RIGHT - LANES_LEFT) * (seconds / duration).min(1.0);
        let (from, to) = (x(first.as_secs_f64()), x(last.as_secs_f64()));
        svg.rect([from, y, (to - from).max(1.0), 1.0], &[("fill", "#9AA5B1")])
    }

    fn area<W: Write>(&self, svg: &mut Svg<W>, path: &str, fill: &str, title: &str) -> Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        svg.open("path", &[("d", path), ("fill", fill), ("shape-rendering", "crispEdges")])?;
        svg.holding("title", &[], title)?;
        svg.close("path")
    }

    /// Moments without a tick, over the whole height. Where the rate is so low that most columns have
    /// none, a gap is what is longer than two periods.
    fn not_seen<W: Write>(&self, svg: &mut Svg<W>, top: f64, height: f64) -> Result<()> {
        let period = 1.0 / f64::from(self.recording.rate_hz.max(1));
        let column = self.recording.duration.as_secs_f64() / self.columns.len().max(1) as f64;
        let shortest =
            if column > 0.0 { (2.0 * period / column).ceil().max(1.0) as usize } else { usize::MAX };
        let mut path = String::new();
        for run in self.runs(|column| column.ticks == 0).filter(|(start, end)| end - start >= shortest) {
            self.push_box(&mut path, run, top, top + height);
        }
        self.area(svg, &path, palette::NOT_SEEN, "not seen: no tick fell here")
    }

    /// Runs of columns for which something holds.
    fn runs(&self, holds: impl Fn(&Column) -> bool) -> impl Iterator<Item = (usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (place, _) in self.columns.iter().enumerate().filter(|(_, column)| holds(column)) {
            match runs.last_mut() {
                Some((_, end)) if *end == place => *end += 1,
                _ => runs.push((place, place + 1)),
            }
        }
        runs.into_iter()
    }

    /// A path of boxes, one for each run of columns of the same height, from `below` upward; heights are
    /// shares of `height`.
    fn band(&self, top: f64, height: f64, below: &[f64], heights: &[f64]) -> String {
        let mut path = String::new();
        let mut start = 0;
        while start < heights.len() {
            let same = |place: usize| (heights[place], below[place]) == (heights[start], below[start]);
            let end = (start..heights.len()).find(|&place| !same(place)).unwrap_or(heights.len());
            if heights[start] > 0.0 {
                let bottom = top + height * (1.0 - below[start]);
                self.push_box(&mut path, (start, end), bottom - height * heights[start], bottom);
            }
            start = end;
        }
        path
    }

    fn push_box(&self, path: &mut String, (start, end): (usize, usize), top: f64, bottom: f64) {
        let width = (LANES_RIGHT - LANES_LEFT) / self.columns.len().max(1) as f64;
        let x = number(LANES_LEFT + start as f64 * width);
        let length = number((end - start) as f64 * width);
        let (top, height) = (number(top), number(bottom - top));
        // Writing to a string cannot fail.
        let _ = write!(path, "M{x} {top}h{length}v{height}h-{length}z");
    }

    /// The lane's share of each column. A column without a tick takes the one before it where the rate is
    /// lower than one tick a column.
    fn shares(&self, lane: &Lane) -> Vec<f64> {
        let share = |column: &Column| lane.threads.iter().map(|&thread| column.share(thread)).sum();
        let period = 1.0 / f64::from(self.recording.rate_hz.max(1));
        let column = self.recording.duration.as_secs_f64() / self.columns.len().max(1) as f64;
        let stretch = if column > 0.0 { (2.0 * period / column).ceil() as usize } else { 0 };
        let mut shares: Vec<f64> = Vec::with_capacity(self.columns.len());
        let mut since_tick = usize::MAX;
        for column in &self.columns {
            since_tick = if column.ticks > 0 { 0 } else { since_tick.saturating_add(1) };
            shares.push(match column.ticks {
                0 if since_tick < stretch => shares.last().copied().unwrap_or(0.0),
                0 => 0.0,
                _ => share(column),
            });
        }
        shares
    }

    fn held(&self, lane: &Lane) -> f64 {
        lane.threads.iter().filter_map(|thread| self.analysis.hold.get(thread)).sum()
    }

    fn name(&self, lane: &Lane) -> String {
        match lane.threads.as_slice() {
            [thread] => {
                let thread = &self.recording.threads[thread.0 as usize];
                match (&thread.name, thread.tid) {
                    (Some(name), Some(tid)) => {
                        let tid = format!("  {tid}");
                        let room = LANES_LEFT - MARGIN - 12.0 - tid.len() as f64 * 7.0;
                        fit(name, room, 12.0) + &tid
                    }
                    _ => thread.label(),
                }
            }
            threads => format!("{} more threads", threads.len()),
        }
    }

    fn title(&self, lane: &Lane) -> String {
        let name = match lane.threads.as_slice() {
            [thread] => self.recording.threads[thread.0 as usize].title(),
            threads => format!("{} more threads", threads.len()),
        };
        format!("{name}: held the GIL {} of the time", share(self.held(lane)))
    }
}

fn share(share: f64) -> String {
    if share == 0.0 { "–".to_owned() } else { format!("{:.1} %", share * 100.0) }
}
