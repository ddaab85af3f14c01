//! Numbers out of a recording: shares, rates, and the mix in each column of a timeline.
//!
//! A share is of ticks. Ticks fall at random moments, one a period, so the share of ticks that saw
//! something estimates the share of time it took, where each tick stands for its part of the time
//! ([`GilTick::weight`](crate::recording::GilTick)); ticks whose state could not be read stay in the
//! denominator, as `unknown`.

mod columns;

use std::collections::HashMap;

pub use columns::{Column, columns};

use crate::recording::{Frame, GilTrack, Holder, Recording, StackIndex, ThreadIndex};

/// What the ticks of one GIL add up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GilAnalysis {
    /// Share of ticks at which a thread held it, from 0 to 1.
    pub held: f64,
    /// Share of ticks at which nobody held it.
    pub free: f64,
    /// Share of ticks at which its state could not be read consistently.
    pub unknown: f64,
    /// Handovers a second; `None` where the recording took no time.
    pub handovers_per_s: Option<f64>,
    /// Share of ticks at which each thread held it; threads that never did are absent.
    pub hold: HashMap<ThreadIndex, f64>,
    /// Whom and what it was held for, most first.
    pub top_holders: Vec<TopHolder>,
}

/// A line of code that held a GIL.
#[derive(Debug, Clone, PartialEq)]
pub struct TopHolder {
    /// The innermost frame; `None` where the stack could not be read.
    pub frame: Option<Frame>,
    /// Share of ticks at which it held the GIL, from 0 to 1.
    pub held: f64,
}

/// What the ticks of one GIL add up to.
pub fn analyse(recording: &Recording, gil: &GilTrack) -> GilAnalysis {
    let total = gil.ticks.iter().map(|tick| u64::from(tick.weight)).sum::<u64>().max(1) as f64;
    let mut analysis = GilAnalysis::default();
    let mut threads = HashMap::<ThreadIndex, u64>::new();
    let mut lines = HashMap::<StackIndex, u64>::new();
    let (mut free, mut unknown) = (0_u64, 0_u64);
    for tick in &gil.ticks {
        let weight = u64::from(tick.weight);
        match tick.holder {
            Holder::Thread { thread, stack } => {
                *threads.entry(thread).or_default() += weight;
                *lines.entry(stack).or_default() += weight;
            }
            Holder::Nobody => free += weight,
            Holder::Unknown => unknown += weight,
            Holder::Disabled => {}
        }
    }
    analysis.held = threads.values().sum::<u64>() as f64 / total;
    analysis.free = free as f64 / total;
    analysis.unknown = unknown as f64 / total;
    analysis.hold = threads.into_iter().map(|(thread, ticks)| (thread, ticks as f64 / total)).collect();
    analysis.top_holders = top_holders(recording, lines, total);
    let seconds = recording.duration.as_secs_f64();
    analysis.handovers_per_s = (seconds > 0.0).then(|| gil.handovers as f64 / seconds);
    analysis
}

fn top_holders(recording: &Recording, stacks: HashMap<StackIndex, u64>, total: f64) -> Vec<TopHolder> {
    let mut lines = HashMap::<Option<&Frame>, u64>::new();
    for (stack, ticks) in stacks {
        let innermost = recording.stacks.frames(stack).and_then(|mut frames| frames.next());
        *lines.entry(innermost).or_default() += ticks;
    }
    let mut lines: Vec<(Option<&Frame>, u64)> = lines.into_iter().collect();
    let place =
        |frame: Option<&Frame>| frame.map(|frame| (frame.file.clone(), frame.line, frame.function.clone()));
    lines.sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| place(*a).cmp(&place(*b))));
    lines
        .into_iter()
        .map(|(frame, ticks)| TopHolder { frame: frame.cloned(), held: ticks as f64 / total })
        .collect()
}

/// gilspy's own CPU time as a share of one CPU.
pub fn overhead_cpu(recording: &Recording) -> f64 {
    let seconds = recording.duration.as_secs_f64();
    if seconds > 0.0 { recording.own_cpu.as_secs_f64() / seconds } else { 0.0 }
}

/// The threads that share a GIL, those that held it most first, then in the order of first sight.
pub fn threads_of(recording: &Recording, gil: &GilTrack, analysis: &GilAnalysis) -> Vec<ThreadIndex> {
    let mut threads: Vec<ThreadIndex> = (recording.threads.iter().enumerate())
        .filter(|(_, thread)| gil.interpreters.contains(&thread.interpreter))
        .map(|(index, _)| ThreadIndex(index as u32))
        .collect();
    let held = |thread: &ThreadIndex| analysis.hold.get(thread).copied().unwrap_or(0.0);
    let tid = |thread: &ThreadIndex| recording.threads[thread.0 as usize].namespace_tid;
    threads.sort_by(|a, b| held(b).total_cmp(&held(a)).then_with(|| tid(a).cmp(&tid(b))));
    threads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;

    #[test]
    fn shares_are_of_all_ticks_and_unknown_is_one_of_them() {
        let recording = fake::recording("AAAB..?A");
        let analysis = analyse(&recording, &recording.gils[0]);
        assert_eq!((analysis.held, analysis.free, analysis.unknown), (0.625, 0.25, 0.125));
        assert_eq!(analysis.hold[&ThreadIndex(0)], 0.5);
        assert_eq!(analysis.hold[&ThreadIndex(1)], 0.125);
        assert_eq!(analysis.top_holders[0].held, 0.5);
    }

    #[test]
    fn a_recording_without_ticks_has_shares_of_zero_and_no_rate() {
        let recording = fake::recording("");
        let analysis = analyse(&recording, &recording.gils[0]);
        assert_eq!((analysis.held, analysis.handovers_per_s), (0.0, None));
        assert_eq!(overhead_cpu(&recording), 0.0);
    }

    #[test]
    fn who_held_most_comes_first() {
        let recording = fake::recording("BBBA");
        let analysis = analyse(&recording, &recording.gils[0]);
        let threads = threads_of(&recording, &recording.gils[0], &analysis);
        assert_eq!(threads, [ThreadIndex(1), ThreadIndex(0), ThreadIndex(2)]);
    }
}
