//! What stands above a GIL's lanes: who held it, how many threads waited for it or ran without it, and the long holds.

use anyhow::Result;

use super::super::heading::seconds as in_words;
use super::super::svg::{Anchor, Svg, TextStyle, number};
use super::boxes::Stacked;
use super::page::Page;
use super::section::{STRIP, Section, UNSEEN, WAITERS, area, at, columns, describe, is_stall, percent};
use super::{COLUMNS, LEFT, MARGIN, RIGHT, WIDTH, x_of};
use crate::analysis::LongHold;

impl Section<'_> {
    fn attributes(&self) -> [(&'static str, String); 1] {
        [("data-gil", self.lanes.first().map_or(0, |lane| lane.number).to_string())]
    }

    /// Who held the GIL, each in the colour of its lane.
    pub(super) fn draw_strip(&self, page: &mut Page) -> Result<()> {
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
    pub(super) fn draw_parallel(&self, page: &mut Page) -> Result<()> {
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

    pub(super) fn draw_waiters(&self, page: &mut Page) -> Result<()> {
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
    pub(super) fn draw_marks(&self, page: &mut Page) -> Result<()> {
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
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn borrowed<'a>(attributes: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    attributes.iter().map(|(name, value)| (*name, value.as_str())).collect()
}
