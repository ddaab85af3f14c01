//! The columns of a timeline: what the ticks of each slice of time saw, as a mix.

use std::collections::BTreeMap;

use crate::recording::{GilTrack, Holder, Recording, ThreadIndex};

/// One slice of the recording's time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    /// Ticks that fell into it, each as often as it counts; none where the sampler was late for all of them.
    pub ticks: u32,
    /// Ticks at which each thread held the GIL.
    pub held: BTreeMap<ThreadIndex, u32>,
    /// Ticks at which its state could not be read consistently.
    pub unknown: u32,
}

impl Column {
    /// Share of the column's ticks at which a thread held the GIL, from 0 to 1.
    pub fn share(&self, thread: ThreadIndex) -> f64 {
        self.part(self.held.get(&thread).copied().unwrap_or(0))
    }

    /// Share of the column's ticks whose state could not be read, from 0 to 1.
    pub fn unknown_share(&self) -> f64 {
        self.part(self.unknown)
    }

    fn part(&self, ticks: u32) -> f64 {
        f64::from(ticks) / f64::from(self.ticks.max(1))
    }
}

/// Cuts the recording's time into `count` slices of the same length, and puts every tick into its own.
pub fn columns(recording: &Recording, gil: &GilTrack, count: usize) -> Vec<Column> {
    let mut columns = vec![Column::default(); count];
    let length = recording.duration.as_nanos().max(1);
    let ticks = gil.runs.iter().flat_map(|(ticks, run)| ticks.map(move |tick| (tick, run.holder)));
    for (tick, holder) in ticks {
        let tick = recording.ticks[tick];
        let place = u128::from(tick.at.as_nanos()) * count as u128 / length;
        let Some(column) = columns.get_mut((place as usize).min(count.saturating_sub(1))) else { break };
        column.ticks += tick.weight;
        match holder {
            Holder::Thread { thread, .. } => *column.held.entry(thread).or_default() += tick.weight,
            Holder::Unknown => column.unknown += tick.weight,
            Holder::Nobody | Holder::Disabled => {}
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;
    use proptest::prelude::*;

    #[test]
    fn a_column_is_the_mix_of_its_ticks_not_the_last_one() {
        let recording = fake::recording("AB.?BB__");
        let columns = columns(&recording, &recording.gils[0], 2);
        assert_eq!(columns[0].ticks, 4);
        assert_eq!(columns[0].share(ThreadIndex(0)), 0.25);
        assert_eq!(columns[0].unknown_share(), 0.25);
        assert_eq!((columns[1].ticks, columns[1].share(ThreadIndex(1))), (2, 1.0));
    }

    proptest! {
        #[test]
        fn no_column_holds_more_than_all_and_no_tick_is_lost(ticks in "[AB.?_-]{0,200}", count in 1_usize..50) {
            let recording = fake::recording(&ticks);
            let columns = columns(&recording, &recording.gils[0], count);
            let total: u32 = columns.iter().map(|column| column.ticks).sum();
            prop_assert_eq!(total as usize, recording.ticks.len());
            for column in columns {
                let held: f64 = column.held.keys().map(|thread| column.share(*thread)).sum();
                prop_assert!(held + column.unknown_share() <= 1.0 + 1e-9);
            }
        }
    }
}
