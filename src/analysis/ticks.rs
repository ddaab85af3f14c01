//! How much time ticks stand for.

use std::ops::Range;

use crate::recording::Recording;

/// The time that a recording's ticks stand for.
#[derive(Debug)]
pub(super) struct TickTimes {
    /// The periods that all ticks before each place stand for.
    before: Vec<u64>,
    period_s: f64,
}

impl TickTimes {
    pub(super) fn of(recording: &Recording) -> Self {
        let mut total = 0;
        let mut before = Vec::with_capacity(recording.ticks.len() + 1);
        before.push(0);
        for tick in &recording.ticks {
            total += u64::from(tick.weight);
            before.push(total);
        }
        // Ticks that were missed are shared out among those that were not.
        let period_s = if total > 0 { recording.duration.as_secs_f64() / total as f64 } else { 0.0 };
        TickTimes { before, period_s }
    }

    /// How many periods these ticks stand for.
    pub(super) fn periods(&self, ticks: &Range<usize>) -> u64 {
        let at = |place: usize| self.before.get(place).or(self.before.last()).copied().unwrap_or(0);
        at(ticks.end).saturating_sub(at(ticks.start))
    }

    /// For how many seconds they stand.
    pub(super) fn seconds(&self, ticks: &Range<usize>) -> f64 {
        self.periods(ticks) as f64 * self.period_s
    }

    /// For how many seconds one period stands.
    pub(super) fn period_s(&self) -> f64 {
        self.period_s
    }

    /// For how many seconds all ticks stand.
    pub(super) fn total_s(&self) -> f64 {
        self.before.last().copied().unwrap_or(0) as f64 * self.period_s
    }
}
