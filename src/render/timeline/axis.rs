//! The time axis: seconds since the start, at steps that a person would choose.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;

use super::{LANES_LEFT, LANES_RIGHT};
use crate::render::svg::{Anchor, Svg, TextStyle, number};

/// Steps at most, so that their numbers never touch.
const MOST_STEPS: f64 = 12.0;

/// Draws grid lines from `top` to `bottom`, and the numbers below.
pub(super) fn draw<W: Write>(svg: &mut Svg<W>, duration: Duration, top: f64, bottom: f64) -> Result<()> {
    let seconds = duration.as_secs_f64();
    if seconds <= 0.0 {
        return Ok(());
    }
    let step = step(seconds);
    let count = (seconds / step + 1e-9).floor() as u32;
    for place in 0..=count {
        let at = f64::from(place) * step;
        let x = LANES_LEFT + (LANES_RIGHT - LANES_LEFT) * at / seconds;
        let (x_text, top, bottom_text) = (number(x), number(top), number(bottom + 4.0));
        svg.empty(
            "line",
            &[
                ("x1", x_text.as_str()),
                ("x2", &x_text),
                ("y1", &top),
                ("y2", &bottom_text),
                ("stroke", "#1F2933"),
                ("stroke-opacity", "0.08"),
            ],
        )?;
        let style =
            TextStyle { x, y: bottom + 18.0, size: 11.0, class: "quiet number", anchor: Anchor::Middle };
        svg.text(style, &label(at, step))?;
    }
    Ok(())
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
