//! What the time of a flame graph is of, and how much of it each stack took.

use std::collections::BTreeMap;
use std::ops::{Add, Mul, Range};

use super::waiting::waiters;
use crate::recording::{Holder, Recording, StackIndex, Stretch, ThreadIndex, ThreadState, Unreadable};

/// What counts as a stack's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum By {
    /// It held a GIL.
    #[default]
    Hold,
    /// It waited for one.
    Wait,
    /// It held one while others waited for it: the time that they waited together.
    Blame,
    /// It ran, or was ready to: under a GIL, without one, or where there is none.
    Cpu,
    /// Whatever it did.
    Wall,
}

impl By {
    /// All kinds.
    pub const ALL: [By; 5] = [By::Hold, By::Wait, By::Blame, By::Cpu, By::Wall];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            By::Hold => "hold",
            By::Wait => "wait",
            By::Blame => "blame",
            By::Cpu => "cpu",
            By::Wall => "wall",
        }
    }
}

/// What was seen of one stack of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StackTime {
    /// The time that its ticks stand for.
    pub nanos: u64,
    /// How many ticks saw it, each as often as it counts where the rate was lowered.
    pub ticks: u64,
}

/// Each stack of each thread.
pub type StackTimes = BTreeMap<(ThreadIndex, StackIndex), StackTime>;

/// For how long each stack of each thread that is shown did something; stacks that never did are absent. Where only holders were
/// looked at, [`By::Hold`] is all that is known.
///
/// # Errors
/// When the recording can no longer be read.
pub fn stack_times(recording: &Recording, by: By) -> Result<StackTimes, Unreadable> {
    let [times] = all_stack_times(recording, [by])?;
    Ok(times)
}

/// The same of several kinds of time, in one pass.
///
/// # Errors
/// When the recording can no longer be read.
pub fn all_stack_times<const N: usize>(
    recording: &Recording,
    kinds: [By; N],
) -> Result<[StackTimes; N], Unreadable> {
    let mut all = kinds.map(|_| StackTimes::new());
    for stretch in recording.stretches() {
        let stretch = stretch?;
        all.iter_mut().zip(kinds).for_each(|(times, by)| add(times, &stretch, by));
    }
    all.iter_mut()
        .for_each(|times| times.retain(|(thread, _), time| time.ticks > 0 && recording.shows(*thread)));
    Ok(all)
}

fn add(times: &mut StackTimes, stretch: &Stretch, by: By) {
    each(stretch, by, |thread, stack, ticks, threads| {
        let sum = times.entry((thread, stack)).or_default();
        *sum = *sum + of_ticks(stretch, ticks) * threads;
    });
}

/// Hands on what counts as whose time: a stack of a thread, ticks at which it does, and how often their time counts:
/// once, or for how many threads it made wait.
pub(super) fn each(
    stretch: &Stretch,
    by: By,
    mut visit: impl FnMut(ThreadIndex, StackIndex, Range<usize>, u32),
) {
    match by {
        By::Hold => each_held(stretch, |_, thread, stack, ticks| visit(thread, stack, ticks, 1)),
        By::Blame => {
            let of_gil = |gil| waiters(stretch.ticks.len(), stretch.threads.iter(), gil);
            let waiters: Vec<Vec<u32>> = (0..stretch.gils.len()).map(of_gil).collect();
            each_held(stretch, |gil, thread, stack, ticks| {
                for tick in ticks {
                    visit(thread, stack, tick..tick + 1, waiters[gil][tick]);
                }
            });
        }
        By::Wait => each_spent(stretch, |state| matches!(state, ThreadState::Wait { .. }), visit),
        By::Cpu => {
            let runs =
                |state| matches!(state, ThreadState::Hold | ThreadState::Native | ThreadState::Parallel);
            each_spent(stretch, runs, visit);
        }
        By::Wall => each_spent(stretch, |_| true, visit),
    }
}

/// Runs of ticks at which a GIL was held.
fn each_held(stretch: &Stretch, mut visit: impl FnMut(usize, ThreadIndex, StackIndex, Range<usize>)) {
    for (gil, runs) in stretch.gils.iter().enumerate() {
        for (ticks, run) in runs.iter() {
            if let Holder::Thread { thread, stack } = run.holder {
                visit(gil, thread, stack, ticks);
            }
        }
    }
}

/// Runs of ticks that threads spent in some states.
fn each_spent(
    stretch: &Stretch,
    is_meant: impl Fn(ThreadState) -> bool,
    mut visit: impl FnMut(ThreadIndex, StackIndex, Range<usize>, u32),
) {
    for (place, track) in stretch.threads.iter().enumerate() {
        for (ticks, run) in track.runs.iter().filter(|(_, run)| is_meant(run.state)) {
            visit(ThreadIndex(place as u32), run.stack, ticks, 1);
        }
    }
}

fn of_ticks(stretch: &Stretch, ticks: Range<usize>) -> StackTime {
    StackTime { nanos: stretch.times.nanos(&ticks), ticks: stretch.weight(ticks) }
}

impl Add for StackTime {
    type Output = StackTime;

    fn add(self, more: StackTime) -> StackTime {
        StackTime {
            nanos: self.nanos.saturating_add(more.nanos),
            ticks: self.ticks.saturating_add(more.ticks),
        }
    }
}

impl Mul<u32> for StackTime {
    type Output = StackTime;

    fn mul(self, threads: u32) -> StackTime {
        let times = |of_one: u64| of_one.saturating_mul(u64::from(threads));
        StackTime { nanos: times(self.nanos), ticks: times(self.ticks) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;

    /// Milliseconds of each thread.
    fn by_thread(by: By) -> Vec<(u32, u64)> {
        let recording = fake::of_threads(&["HHHHWWSS", "WWNBHHWW", "WBBBBBPW"]);
        let times = stack_times(&recording, by).unwrap();
        times.into_iter().map(|((thread, _), time)| (thread.0, time.nanos / 1_000_000)).collect()
    }

    #[test]
    fn each_kind_of_time_is_charged_to_whom_it_belongs() {
        assert_eq!(by_thread(By::Hold), [(0, 6), (1, 2)]);
        assert_eq!(by_thread(By::Wait), [(0, 2), (1, 4), (2, 2)]);
        // A thread-millisecond for each of three waits of the second thread and two of the third; two of the first.
        assert_eq!(by_thread(By::Blame), [(0, 6), (1, 2)]);
        assert_eq!(by_thread(By::Cpu), [(0, 4), (1, 3), (2, 1)]);
        assert_eq!(by_thread(By::Wall), [(0, 8), (1, 8), (2, 8)]);
    }
}
