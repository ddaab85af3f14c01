//! What successive ticks saw, each run of the same kept once.

use std::ops::Range;

/// Values of successive ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs<T> {
    /// The place of the tick that each run begins with, and its value.
    runs: Vec<(u32, T)>,
    /// The place after the last tick.
    end: u32,
}

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Runs { runs: Vec::new(), end: 0 }
    }
}

impl<T: Copy + PartialEq> Runs<T> {
    /// The runs in order of time, each with the places of its ticks.
    pub fn iter(&self) -> impl Iterator<Item = (Range<usize>, T)> {
        self.from(0)
    }

    /// The same, from the run on that has the tick at this place.
    pub fn from(&self, tick: usize) -> impl Iterator<Item = (Range<usize>, T)> {
        let place = self.runs.partition_point(|(begin, _)| *begin as usize <= tick).saturating_sub(1);
        let runs = &self.runs[place..];
        let ends = runs.iter().skip(1).map(|(begin, _)| *begin).chain([self.end]);
        runs.iter().zip(ends).map(|(&(begin, value), end)| (begin as usize..end as usize, value))
    }

    /// The places of all its ticks.
    pub fn ticks(&self) -> Range<usize> {
        self.runs.first().map_or(0..0, |(begin, _)| *begin as usize..self.end as usize)
    }

    /// The last value.
    pub fn last(&self) -> Option<T> {
        self.runs.last().map(|(_, value)| *value)
    }

    /// Adds what a tick saw. Ticks between it and the last one saw `gap`.
    pub(super) fn push(&mut self, tick: u32, value: T, gap: T) {
        if !self.runs.is_empty() && self.end < tick {
            self.push_run(self.end, gap);
        }
        self.push_run(tick, value);
        self.end = tick + 1;
    }

    fn push_run(&mut self, begin: u32, value: T) {
        if self.last() != Some(value) {
            self.runs.push((begin, value));
        }
    }

    /// Runs that begin at these places, in order, the last of which ends before `end`; `None` if they cannot.
    pub(super) fn new(runs: Vec<(u32, T)>, end: u32) -> Option<Self> {
        let is_ordered = runs.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let ends_after = runs.last().map_or(end == 0, |(begin, _)| *begin < end);
        (is_ordered && ends_after).then_some(Runs { runs, end })
    }

    /// Whether no tick saw anything.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// What some ticks saw, the first of which is at place 0 then.
    pub(super) fn within(&self, ticks: &Range<usize>) -> Self {
        let mut within = Runs::default();
        for (run, value) in self.from(ticks.start).take_while(|(run, _)| run.start < ticks.end) {
            let (begin, end) = (run.start.max(ticks.start), run.end.min(ticks.end));
            if begin < end {
                within.runs.push(((begin - ticks.start) as u32, value));
                within.end = (end - ticks.start) as u32;
            }
        }
        within
    }

    /// Drops what ticks saw from this place on.
    pub(super) fn truncate(&mut self, end: u32) {
        self.runs.retain(|(begin, _)| *begin < end);
        self.end = if self.runs.is_empty() { 0 } else { self.end.min(end) };
    }

    /// Changes what ticks saw from this place on.
    pub(super) fn change_since(&mut self, since: u32, change: impl Fn(T) -> T) {
        let mut place = self.runs.partition_point(|(begin, _)| *begin < since);
        if let Some(&(_, value)) = self.runs.get(place.wrapping_sub(1))
            && since < self.runs.get(place).map_or(self.end, |(begin, _)| *begin)
            && change(value) != value
        {
            self.runs.insert(place, (since, change(value)));
            place += 1;
        }
        for (_, value) in &mut self.runs[place..] {
            *value = change(*value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[(u32, u8)]) -> Runs<u8> {
        let mut runs = Runs::default();
        values.iter().for_each(|&(tick, value)| runs.push(tick, value, 0));
        runs
    }

    fn spelled(runs: &Runs<u8>) -> Vec<(usize, u8)> {
        runs.iter().flat_map(|(ticks, value)| ticks.map(move |tick| (tick, value))).collect()
    }

    #[test]
    fn ticks_that_saw_nothing_are_a_gap() {
        let runs = of(&[(3, 1), (4, 1), (7, 1)]);
        assert_eq!(runs.iter().collect::<Vec<_>>(), [(3..5, 1), (5..7, 0), (7..8, 1)]);
        assert_eq!(runs.ticks(), 3..8);
    }

    proptest! {
        #[test]
        fn runs_are_the_ticks_they_were_made_of(
            values in prop::collection::vec(0_u8..3, 0..40), since in 0_u32..45, end in 0_u32..45,
        ) {
            let ticks: Vec<(u32, u8)> = (5..).zip(values).collect();
            let mut runs = of(&ticks);
            runs.change_since(since, |value| if value == 1 { 9 } else { value });
            runs.truncate(end);
            let expected: Vec<(usize, u8)> = (ticks.iter())
                .filter(|(tick, _)| *tick < end)
                .map(|&(tick, value)| (tick as usize, if tick >= since && value == 1 { 9 } else { value }))
                .collect();
            prop_assert_eq!(spelled(&runs), expected);
        }
    }
}
