//! A GIL's lanes: a thread each, with its name, what it did, and its shares.

use anyhow::Result;

use super::super::svg::{Anchor, Svg, TextStyle, fit, number};
use super::boxes::Stacked;
use super::page::Page;
use super::section::{LANE, Lane, Section, UNSEEN, area, at, columns, percent};
use super::{COLUMNS, LEFT, MARGIN, RIGHT, WIDTH, palette, seconds, x_of};
use crate::analysis::{STATES, States};

impl Section<'_> {
    pub(super) fn draw_lanes(&self, page: &mut Page) -> Result<()> {
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
    pub(super) fn shares(&self) -> Vec<usize> {
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

/// Where the shares of a column end, of so many.
fn share_x(column: usize, columns: usize) -> f64 {
    let step = (WIDTH - MARGIN - RIGHT) / columns.max(4) as f64;
    RIGHT + (column + 1) as f64 * step
}

/// For a column of shares.
fn short_percent(share: f64) -> String {
    match share {
        few if few < 0.0005 => "·".to_owned(),
        nearly_all if nearly_all >= 0.9995 => "100 %".to_owned(),
        share => percent(share),
    }
}
