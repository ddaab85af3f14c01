//! How much time ticks stand for.

use std::ops::Range;
use std::time::Duration;

use super::Tick;

/// Time that is further from every tick than so many periods was not seen, and counts for nothing.
const FARTHEST: u64 = 10;

/// The time that a recording's ticks stand for: each from half-way to the tick before to half-way to the next one.
///
/// Ticks are missed when gilspy gets no CPU, which is not at random: a thread that is woken to take the GIL takes
/// the CPU too. If every tick counted the same, the time after each handover would count too little.
#[derive(Debug, Clone, Default)]
pub struct TickTimes {
    /// The time that all ticks before each place stand for, in nanoseconds.
    before: Vec<u64>,
    /// Where the time begins that each tick stands for, in nanoseconds since the recording's start.
    begins: Vec<u64>,
}

impl TickTimes {
    /// Of successive ticks of a recording of that rate, with the tick before them and the one after them; where there
    /// is none after them, the recording ended at `end`.
    pub fn of(
        ticks: &[Tick],
        rate_hz: u32,
        previous: Option<Tick>,
        next: Option<Tick>,
        end: Duration,
    ) -> Self {
        let period = 1_000_000_000 / u64::from(rate_hz.max(1));
        let middle = |a: u64, b: u64| a + b.saturating_sub(a) / 2;
        let mut last = match (previous, ticks.first()) {
            (Some(previous), Some(first)) => middle(previous.at.as_nanos(), first.at.as_nanos()),
            _ => 0,
        };
        let mut total = 0;
        let mut before = Vec::with_capacity(ticks.len() + 1);
        before.push(0);
        let mut begins = Vec::with_capacity(ticks.len());
        let end = u64::try_from(end.as_nanos()).unwrap_or(u64::MAX);
        let following = ticks.iter().skip(1).copied().map(Some).chain([next]);
        for (tick, next) in ticks.iter().zip(following) {
            let (at, farthest) =
                (tick.at.as_nanos(), period.saturating_mul(u64::from(tick.weight)).saturating_mul(FARTHEST));
            let next = next.map(|next| middle(at, next.at.as_nanos()));
            let until = next.unwrap_or(end.max(at)).min(at.saturating_add(farthest));
            let begin = last.max(at.saturating_sub(farthest)).min(until);
            begins.push(begin);
            total += until - begin;
            last = next.unwrap_or(until);
            before.push(total);
        }
        TickTimes { before, begins }
    }

    /// For how long these ticks stand, in nanoseconds.
    pub fn nanos(&self, ticks: &Range<usize>) -> u64 {
        let at = |place: usize| self.before.get(place).or(self.before.last()).copied().unwrap_or(0);
        at(ticks.end).saturating_sub(at(ticks.start))
    }

    /// From when to when a tick stands for what it saw, in nanoseconds since the recording's start. Spans of
    /// successive ticks do not overlap; between them is time that was not seen.
    pub fn span(&self, tick: usize) -> Range<u64> {
        let begin = self.begin(tick);
        begin..begin + self.nanos(&(tick..tick + 1))
    }

    /// From when to when some ticks stand for what they saw: the whole, or each tick where time in between was not
    /// seen.
    pub fn spans(&self, ticks: Range<usize>) -> impl Iterator<Item = Range<u64>> {
        let whole = self.span(ticks.start).start..self.span(ticks.end.saturating_sub(1)).end;
        let is_whole = whole.end.saturating_sub(whole.start) == self.nanos(&ticks);
        let step = if is_whole { ticks.len().max(1) } else { 1 };
        ticks.step_by(step).map(move |tick| self.span(tick).start..self.span(tick + step - 1).end)
    }

    /// For how long these ticks stand, in seconds.
    pub fn seconds(&self, ticks: &Range<usize>) -> f64 {
        self.nanos(ticks) as f64 / 1e9
    }

    /// Where the time begins that a tick stands for, in nanoseconds since the recording's start.
    pub fn begin(&self, tick: usize) -> u64 {
        self.begins.get(tick).copied().unwrap_or(u64::MAX)
    }

    /// For how long one tick stands, in seconds.
    pub fn of_tick(&self, tick: usize) -> f64 {
        self.seconds(&(tick..tick + 1))
    }

    /// For how long all ticks stand, in seconds.
    pub fn total_s(&self) -> f64 {
        self.before.last().copied().unwrap_or(0) as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Timestamp;

    fn ticks(at: &[u64], weight: u32) -> Vec<Tick> {
        at.iter().map(|&at| Tick { at: Timestamp::from_nanos_since_start(at), weight }).collect()
    }

    fn whole(ticks: &[Tick], end: Duration) -> TickTimes {
        TickTimes::of(ticks, 1000, None, None, end)
    }

    fn of_ticks(times: &TickTimes, count: usize) -> Vec<u64> {
        (0..count).map(|tick| times.nanos(&(tick..tick + 1))).collect()
    }

    #[test]
    fn a_missed_tick_is_shared_by_its_neighbours() {
        let ticks = ticks(&[500_000, 1_500_000, 3_500_000, 4_500_000], 1);
        let times = whole(&ticks, Duration::from_millis(5));
        assert_eq!(of_ticks(&times, 4), [1_000_000, 1_500_000, 1_500_000, 1_000_000]);
        assert_eq!(times.total_s(), 0.005);
        assert!(times.spans(1..3).eq(std::iter::once(1_000_000..4_000_000)));
    }

    #[test]
    fn what_is_far_from_every_tick_counts_for_nothing() {
        let times = whole(&ticks(&[500_000, 500_500_000], 1), Duration::from_millis(501));
        assert_eq!(of_ticks(&times, 2), [10_500_000, 10_500_000]);
        assert_eq!([0, 1].map(|tick| times.span(tick)), [0..10_500_000, 490_500_000..501_000_000]);
        assert_eq!(times.spans(0..2).collect::<Vec<_>>(), [0..10_500_000, 490_500_000..501_000_000]);
    }

    #[test]
    fn a_lower_rate_counts_as_much_time() {
        let times = whole(&ticks(&[500_000, 1_500_000, 4_000_000, 8_000_000], 4), Duration::from_millis(10));
        assert_eq!(times.total_s(), 0.01);
    }

    #[test]
    fn parts_of_a_recording_stand_for_what_they_stand_for_in_the_whole() {
        let ticks = ticks(&[500_000, 1_500_000, 3_500_000, 4_500_000, 90_000_000], 1);
        let end = Duration::from_millis(95);
        let all = whole(&ticks, end);
        let expected = of_ticks(&all, 5);
        for cut in 1..4 {
            let (first, second) = ticks.split_at(cut);
            let first_times = TickTimes::of(first, 1000, None, second.first().copied(), end);
            let second_times = TickTimes::of(second, 1000, first.last().copied(), None, end);
            let both = [of_ticks(&first_times, cut), of_ticks(&second_times, 5 - cut)].concat();
            assert_eq!(both, expected, "{cut}");
            assert_eq!(second_times.span(0), all.span(cut), "{cut}");
        }
    }
}
