//! The recording's time in slots of the same length, and the mix of what each of them saw: what a timeline shows.

use std::time::Duration;

use crate::recording::{Holder, Recording, Runs, StackIndex, Stretch, ThreadIndex, ThreadState, Unreadable};

/// States, in the order in which a timeline stacks them.
pub const STATES: usize = 7;

/// For what share of a slot's time something did what, a share for each state.
pub type Mix = [f32; STATES];

/// A process's time in slots.
#[derive(Debug, Clone)]
pub struct Slots {
    /// For what share of each slot there are ticks.
    pub seen: Vec<f32>,
    /// Each GIL, as in the recording.
    pub gils: Vec<GilSlots>,
    /// The lanes that were asked for.
    pub lanes: Vec<LaneSlots>,
}

/// One GIL, slot by slot.
#[derive(Debug, Clone)]
pub struct GilSlots {
    /// How many threads waited for it, on the average.
    pub waiters: Vec<f32>,
    /// For what share of the slot somebody held it.
    pub held: Vec<f32>,
    /// For what share of the slot its state could not be read.
    pub unknown: Vec<f32>,
    /// For what share of the slot there was none to hold.
    pub disabled: Vec<f32>,
}

/// What the threads of a lane did, slot by slot.
#[derive(Debug, Clone)]
pub struct LaneSlots {
    /// Shares of the states; of the mean of its threads, where there are several.
    pub mixes: Vec<Mix>,
    /// A stack that was seen in most of the slot's time, if there is such a one; else one that was seen.
    pub stacks: Vec<StackIndex>,
}

/// The place of a state in a [`Mix`].
pub fn place_of(state: ThreadState) -> usize {
    match state {
        ThreadState::Hold => 0,
        ThreadState::Stall(_) => 1,
        ThreadState::Native => 2,
        ThreadState::Parallel => 3,
        ThreadState::Wait { .. } => 4,
        ThreadState::Blocked(_) => 5,
        ThreadState::Unknown => 6,
    }
}

impl Slots {
    /// Cuts the time from a recording's start, so long, into `count` slots. Each lane is of some threads, and no
    /// thread is in two.
    ///
    /// # Errors
    /// When the recording can no longer be read.
    pub fn of(
        recording: &Recording,
        lanes: &[Vec<ThreadIndex>],
        length: Duration,
        count: usize,
    ) -> Result<Slots, Unreadable> {
        let zeros = || vec![0.0; count];
        let mut slots = Slots {
            seen: zeros(),
            gils: (recording.gils.iter())
                .map(|_| GilSlots { waiters: zeros(), held: zeros(), unknown: zeros(), disabled: zeros() })
                .collect(),
            lanes: (lanes.iter())
                .map(|_| LaneSlots {
                    mixes: vec![Mix::default(); count],
                    stacks: vec![StackIndex::UNKNOWN; count],
                })
                .collect(),
        };
        let mut most = vec![vec![0.0; count]; lanes.len()];
        let lane_of = |thread: ThreadIndex| lanes.iter().position(|threads| threads.contains(&thread));
        let lane_of: Vec<Option<usize>> =
            (0..recording.threads.len() as u32).map(|thread| lane_of(ThreadIndex(thread))).collect();
        for stretch in recording.stretches() {
            let stretch = stretch?;
            let cuts = Cuts::of(&stretch, length, count);
            cuts.each(0..stretch.ticks.len(), |slot, share| slots.seen[slot] += share);
            for (gil, runs) in stretch.gils.iter().enumerate() {
                slots.add_gil(gil, runs, &cuts);
            }
            let mut add = |thread: ThreadIndex, ticks, state, stack| {
                if let Some(lane) = lane_of.get(thread.0 as usize).copied().flatten() {
                    let part = 1.0 / lanes[lane].len() as f32;
                    slots.lanes[lane].add(&mut most[lane], &cuts, ticks, (state, stack), part);
                }
            };
            if !recording.sees_all_threads {
                for (ticks, run) in stretch.gils.iter().flat_map(Runs::iter) {
                    if let Holder::Thread { thread, stack } = run.holder {
                        add(thread, ticks, ThreadState::Hold, stack);
                    }
                }
                continue;
            }
            for (thread, track) in stretch.threads.iter().enumerate() {
                for (ticks, run) in track.runs.iter() {
                    add(ThreadIndex(thread as u32), ticks.clone(), run.state, run.stack);
                    if let ThreadState::Wait { gil } = run.state
                        && let Some(gil) = slots.gils.get_mut(usize::from(gil))
                    {
                        cuts.each(ticks, |slot, share| gil.waiters[slot] += share);
                    }
                }
            }
        }
        Ok(slots)
    }

    fn add_gil(&mut self, gil: usize, runs: &Runs<crate::recording::GilRun>, cuts: &Cuts) {
        let Some(gil) = self.gils.get_mut(gil) else { return };
        for (ticks, run) in runs.iter() {
            match run.holder {
                Holder::Unknown => cuts.each(ticks, |slot, share| gil.unknown[slot] += share),
                Holder::Disabled | Holder::Stopped => {
                    cuts.each(ticks, |slot, share| gil.disabled[slot] += share)
                }
                Holder::Thread { .. } => cuts.each(ticks, |slot, share| gil.held[slot] += share),
                Holder::Nobody => {}
            }
        }
    }
}

impl LaneSlots {
    /// Adds what a thread did during a run of ticks; it is such a part of the lane. `most` is how far ahead of all
    /// others the stack of each slot is (Boyer and Moore's majority vote).
    fn add(
        &mut self,
        most: &mut [f32],
        cuts: &Cuts,
        ticks: std::ops::Range<usize>,
        (state, stack): (ThreadState, StackIndex),
        part: f32,
    ) {
        let place = place_of(state);
        cuts.each(ticks, |slot, share| {
            self.mixes[slot][place] += share * part;
            if self.stacks[slot] == stack {
                most[slot] += share;
            } else if share > most[slot] {
                (self.stacks[slot], most[slot]) = (stack, share - most[slot]);
            } else {
                most[slot] -= share;
            }
        });
    }
}

/// Where the borders of slots cut the ticks of a stretch.
struct Cuts<'a> {
    stretch: &'a Stretch,
    /// The slot of the first tick's beginning.
    first: usize,
    /// The time that ticks before the end of this and each following slot stand for, in nanoseconds.
    ends: Vec<u64>,
    /// Length of a slot in nanoseconds.
    slot: f32,
    count: usize,
}

impl<'a> Cuts<'a> {
    fn of(stretch: &'a Stretch, length: Duration, count: usize) -> Self {
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX).max(1);
        let border = |slot: usize| (u128::from(length) * slot as u128 / count.max(1) as u128) as u64;
        let begin = stretch.times.begin(0);
        let first = (u128::from(begin) * count as u128 / u128::from(length)) as usize;
        let first = first.min(count.saturating_sub(1));
        let mut ends = Vec::new();
        let (mut slot, mut before) = (first, 0);
        for tick in 0..stretch.ticks.len() {
            let (begin, nanos) = (stretch.times.begin(tick), stretch.times.nanos(&(tick..tick + 1)));
            while slot + 1 < count && border(slot + 1) < begin + nanos {
                ends.push(before + border(slot + 1).saturating_sub(begin));
                slot += 1;
            }
            before += nanos;
        }
        ends.push(u64::MAX);
        Cuts { stretch, first, ends, slot: length as f32 / count.max(1) as f32, count }
    }

    /// Each slot that some ticks reach into, and the share of it that they stand for.
    fn each(&self, ticks: std::ops::Range<usize>, mut add: impl FnMut(usize, f32)) {
        let mut from = self.stretch.times.nanos(&(0..ticks.start));
        let until = self.stretch.times.nanos(&(0..ticks.end));
        let skipped = self.ends.partition_point(|end| *end <= from);
        for (place, end) in self.ends.iter().enumerate().skip(skipped) {
            let slot = self.first + place;
            if from >= until || slot >= self.count {
                break;
            }
            let to = until.min(*end);
            add(slot, (to - from) as f32 / self.slot);
            from = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;
    use proptest::prelude::*;

    fn slots(recording: &Recording, count: usize) -> Slots {
        let lanes: Vec<Vec<ThreadIndex>> =
            (0..recording.threads.len() as u32).map(|thread| vec![ThreadIndex(thread)]).collect();
        Slots::of(recording, &lanes, recording.duration, count).unwrap()
    }

    #[test]
    fn a_slot_is_the_mix_of_its_ticks_not_the_last_one() {
        let slots = slots(&fake::of_threads(&["HHBB", "WWHS"]), 2);
        assert_eq!(
            slots.lanes[0].mixes,
            [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]]
        );
        assert_eq!(slots.lanes[1].mixes[1][..2], [0.5, 0.5]);
        assert_eq!(slots.gils[0].waiters, [1.0, 0.0]);
    }

    #[test]
    fn a_slot_shorter_than_a_tick_sees_what_that_saw() {
        let slots = slots(&fake::recording("A.?"), 12);
        let hold: Vec<f32> = slots.lanes[0].mixes.iter().map(|mix| mix[0]).collect();
        assert_eq!(hold, [[1.0; 4], [0.0; 4], [0.0; 4]].concat());
        assert_eq!(slots.gils[0].unknown, [[0.0; 8].as_slice(), &[1.0; 4]].concat());
    }

    #[test]
    fn what_no_tick_is_near_to_is_not_seen() {
        let slots = slots(&fake::recording(&format!("A{}A", "_".repeat(98))), 100);
        assert_eq!((slots.seen[5], slots.seen[50], slots.seen[95]), (1.0, 0.0, 1.0));
    }

    proptest! {
        #[test]
        fn no_slot_holds_more_than_all_and_no_time_is_lost(ticks in "[AB.?_]{1,200}", count in 1_usize..50) {
            let recording = fake::recording(&ticks);
            let slots = slots(&recording, count);
            let seen_s: f32 = slots.seen.iter().sum::<f32>() * recording.duration.as_secs_f32() / count as f32;
            let expected: f64 = recording.stretches().map(|stretch| stretch.unwrap().times.total_s()).sum();
            prop_assert!((f64::from(seen_s) - expected).abs() < 1e-5, "{seen_s} {expected}");
            for slot in 0..count {
                prop_assert!(slots.seen[slot] <= 1.0 + 1e-4);
                for lane in &slots.lanes {
                    let all: f32 = lane.mixes[slot].iter().sum();
                    prop_assert!((all - slots.seen[slot]).abs() < 1e-3, "{all} {}", slots.seen[slot]);
                }
            }
        }
    }
}
