//! How much time ticks stand for.

use std::ops::Range;

use crate::recording::Recording;

/// Time that is further from every tick than so many periods was not seen, and counts for nothing.
const FARTHEST: u64 = 10;

/// The time that a recording's ticks stand for: each from half-way to the tick before to half-way to the next one.
///
/// Ticks are missed when gilspy gets no CPU, which is not at random: a thread that is woken to take the GIL takes
/// the CPU too. If every tick counted the same, the time after each handover would count too little.
#[derive(Debug)]
pub(super) struct TickTimes {
    /// The time that all ticks before each place stand for, in nanoseconds.
    before: Vec<u64>,
}

impl TickTimes {
    pub(super) fn of(recording: &Recording) -> Self {
        let period = 1_000_000_000 / u64::from(recording.rate_hz.max(1));
        let (mut total, mut last) = (0, 0);
        let mut before = Vec::with_capacity(recording.ticks.len() + 1);
        before.push(0);
        let end = u64::try_from(recording.duration.as_nanos()).unwrap_or(u64::MAX);
        let next = recording.ticks.iter().skip(1).map(|tick| tick.at.as_nanos()).map(Some).chain([None]);
        for (tick, next) in recording.ticks.iter().zip(next) {
            let (at, farthest) = (tick.at.as_nanos(), period * u64::from(tick.weight) * FARTHEST);
            let middle = |next: u64| at + next.saturating_sub(at) / 2;
            let until = next.map_or(end.max(at), middle).min(at + farthest);
            total += until - last.max(at.saturating_sub(farthest)).min(until);
            last = next.map_or(until, middle);
            before.push(total);
        }
        TickTimes { before }
    }

    /// For how long these ticks stand, in nanoseconds.
    pub(super) fn nanos(&self, ticks: &Range<usize>) -> u64 {
        let at = |place: usize| self.before.get(place).or(self.before.last()).copied().unwrap_or(0);
        at(ticks.end).saturating_sub(at(ticks.start))
    }

    /// The same in seconds.
    pub(super) fn seconds(&self, ticks: &Range<usize>) -> f64 {
        self.nanos(ticks) as f64 / 1e9
    }

    /// For how long one tick stands, in seconds.
    pub(super) fn of_tick(&self, tick: usize) -> f64 {
        self.seconds(&(tick..tick + 1))
    }

    /// For how long all ticks stand, in seconds.
    pub(super) fn total_s(&self) -> f64 {
        self.before.last().copied().unwrap_or(0) as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Tick, fake};
    use crate::units::Timestamp;

    #[test]
    fn a_missed_tick_is_shared_by_its_neighbours() {
        let times = TickTimes::of(&fake::recording("AA_AA"));
        let of_ticks: Vec<u64> = (0..4).map(|tick| times.nanos(&(tick..tick + 1))).collect();
        assert_eq!(of_ticks, [1_000_000, 1_500_000, 1_500_000, 1_000_000]);
        assert_eq!(times.total_s(), 0.005);
    }

    #[test]
    fn what_is_far_from_every_tick_counts_for_nothing() {
        let mut recording = fake::recording("AA");
        recording.ticks[1] = Tick { at: Timestamp::from_nanos_since_start(500_500_000), weight: 1 };
        recording.duration = std::time::Duration::from_millis(501);
        let times = TickTimes::of(&recording);
        let of_ticks: Vec<u64> = (0..2).map(|tick| times.nanos(&(tick..tick + 1))).collect();
        assert_eq!(of_ticks, [10_500_000, 10_500_000]);
    }

    #[test]
    fn a_lower_rate_counts_as_much_time() {
        let mut recording = fake::recording("AAAA");
        for (tick, at) in recording.ticks.iter_mut().zip([500_000, 1_500_000, 4_000_000, 8_000_000]) {
            *tick = Tick { at: Timestamp::from_nanos_since_start(at), weight: 4 };
        }
        recording.duration = std::time::Duration::from_millis(10);
        assert_eq!(TickTimes::of(&recording).total_s(), 0.01);
    }
}
