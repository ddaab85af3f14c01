//! The time axis: seconds since the start, at steps that a person would choose.

use std::time::Duration;

use anyhow::Result;

use super::super::svg::{Anchor, TextStyle, number};
use super::page::Page;
use super::{seconds, x_of};

/// Steps at most, so that their numbers never touch.
const MOST_STEPS: f64 = 12.0;

/// Draws the numbers, and grid lines from there up to `top`.
pub(super) fn draw(page: &mut Page, top: f64, length: Duration) -> Result<()> {
    let up = number(top - page.top());
    page.block("axis", &[("data-up", &up)], 34.0, |svg| {
        svg.open("g", &[("class", "draw")])?;
        let step = step(seconds(length));
        let count = if length.is_zero() { 0 } else { (seconds(length) / step + 1e-9).floor() as u32 };
        for place in 0..=count {
            let at = f64::from(place) * step;
            let x = x_of(at, length);
            let x_text = number(x);
            let line =
                [("x1", x_text.as_str()), ("x2", &x_text), ("y1", &up), ("y2", "4"), ("class", "grid")];
            svg.empty("line", &line)?;
            let style = TextStyle { x, y: 18.0, size: 11.0, class: "quiet number", anchor: Anchor::Middle };
            svg.text(style, &label(at, step))?;
        }
        svg.close("g")
    })
}

/// The smallest of 1, 2, 5 times a power of ten, or of the clock's own steps above a minute, that gives no
/// more than [`MOST_STEPS`].
fn step(seconds: f64) -> f64 {
    let least = seconds / MOST_STEPS;
    let clock = [60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 43_200.0, 86_400.0];
    if least > 30.0 {
        return clock.into_iter().find(|step| *step >= least).unwrap_or(86_400.0 * (least / 86_400.0).ceil());
    }
    let power = 10_f64.powf(least.log10().floor());
    let steps = [power, 2.0 * power, 5.0 * power, 10.0 * power];
    let decimal = steps.into_iter().find(|step| *step >= least * (1.0 - 1e-9)).unwrap_or(10.0 * power);
    // After 20 seconds comes 30, then the minute.
    if decimal > 20.0 { if least <= 30.0 { 30.0 } else { 60.0 } } else { decimal }
}

fn label(seconds: f64, step: f64) -> String {
    if step >= 30.0 {
        let whole = seconds.round() as u64;
        return match whole {
            0 => "0".to_owned(),
            3600.. => format!("{}:{:02} h", whole / 3600, whole % 3600 / 60),
            _ => format!("{}:{:02} min", whole / 60, whole % 60),
        };
    }
    if step < 0.001 {
        return format!("{} µs", number(seconds * 1e6));
    }
    if step < 0.1 {
        return format!("{} ms", number(seconds * 1000.0));
    }
    format!("{} s", number(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_ones_a_person_would_choose() {
        assert_eq!([0.01, 1.0, 10.0, 55.0, 300.0, 3600.0].map(step), [0.001, 0.1, 1.0, 5.0, 30.0, 300.0]);
        for seconds in [0.0003, 0.7, 13.0, 61.0, 400.0, 1000.0, 9999.0, 1e6] {
            assert!(seconds / step(seconds) <= MOST_STEPS + 1e-6, "{seconds}");
        }
    }

    #[test]
    fn labels_have_a_unit_that_fits() {
        assert_eq!(label(0.002, 0.001), "2 ms");
        assert_eq!(label(1.5, 0.5), "1.5 s");
        assert_eq!(label(90.0, 30.0), "1:30 min");
        assert_eq!(label(5400.0, 1800.0), "1:30 h");
    }
}
