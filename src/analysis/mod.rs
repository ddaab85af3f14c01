//! Numbers out of a recording: shares, rates, who waits for whom, and what that comes to.
//!
//! A share is of time: each tick stands for the time around it, up to half-way to its neighbours. Ticks whose state
//! could not be read stay in the denominator, as `unknown`; time that no tick is near to does not.

mod by;
mod holds;
mod looks;
mod slots;
mod statistics;
mod thresholds;
mod verdict;
mod waiting;

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::ops::Range;
use std::sync::Arc;

pub use by::{By, StackTime, StackTimes, stack_times};
pub use holds::{HoldLength, HoldLengths, LongHold};
pub use looks::{Looks, Usual};
pub use slots::{GilSlots, LaneSlots, Mix, STATES, Slots, place_of};
pub use statistics::Estimate;
pub use verdict::{Figure, Kind, Verdict};
pub use waiting::{Blame, Causes, Pair};

use crate::recording::{
    Frame, GilTrack, Holder, Recording, StackIndex, ThreadIndex, ThreadState, ThreadTrack, TickTimes,
    Unreadable,
};
use statistics::BatchMeans;
use thresholds::{CARRIES, TAKES_PART};
use waiting::GilTicks;

/// What a recording adds up to.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// Each GIL, as in the recording.
    pub gils: Vec<GilAnalysis>,
    /// Each thread, as in the recording.
    pub threads: Vec<ThreadAnalysis>,
    /// How many times as fast the process could be without its GIL, at most; `None` where only holders were looked
    /// at, or there were no ticks.
    pub headroom: Option<f64>,
    /// What limits the process; `None` where only holders were looked at, or there were no ticks.
    pub verdict: Option<Verdict>,
}

/// What was recorded of one process, with what that adds up to: what pictures are made from.
#[derive(Debug)]
pub struct Analysed<'a> {
    /// The recording.
    pub recording: &'a Recording,
    /// What it adds up to.
    pub analysis: Analysis,
}

impl<'a> Analysed<'a> {
    /// Adds a recording up.
    ///
    /// # Errors
    /// When the recording can no longer be read.
    pub fn of(recording: &'a Recording) -> Result<Self, Unreadable> {
        Ok(Analysed { recording, analysis: Analysis::of(recording)? })
    }
}

/// What the ticks of one GIL add up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GilAnalysis {
    /// Share of ticks at which a thread held it, from 0 to 1.
    pub held: Estimate,
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
    /// The function that held it most, if it did for most of the time that it was held.
    pub carrier: Option<Carrier>,
    /// How long it was kept at a time.
    pub hold_lengths: HoldLengths,
    /// What needs every thread to be looked at; `None` where only holders were.
    pub waiting: Option<Waiting>,
}

/// A function that held a GIL most of the time that it was held.
#[derive(Debug, Clone, PartialEq)]
pub struct Carrier {
    /// The innermost function.
    pub function: Arc<str>,
    /// Its file.
    pub file: Arc<str>,
    /// Its share of the time that the GIL was held, from 0 to 1.
    pub share: f64,
    /// How many threads held the GIL in it, save for those that hardly did.
    pub threads: usize,
}

/// Who waited for a GIL, and why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Waiting {
    /// How many threads waited at a time, on the average.
    pub waiters: Estimate,
    /// How much they waited, by cause.
    pub causes: Causes,
    /// Who waited for whom, most first.
    pub pairs: Vec<Pair>,
    /// Each stack that held the GIL, and what it inflicted on others.
    pub blame: HashMap<StackIndex, Blame>,
    /// Holds that were too long, in order of time.
    pub long_holds: Vec<LongHold>,
    /// Share of time at which the holder was blocked, from 0 to 1.
    pub stalled: f64,
    /// For how long a holder had no CPU, in seconds.
    pub starved_s: f64,
}

/// A line of code that held a GIL.
#[derive(Debug, Clone, PartialEq)]
pub struct TopHolder {
    /// The innermost frame; `None` where the stack could not be read.
    pub frame: Option<Frame>,
    /// Share of ticks at which it held the GIL, from 0 to 1.
    pub held: f64,
    /// What others waited for it meanwhile; `None` where only holders were looked at.
    pub blame: Option<Blame>,
}

/// What one thread did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ThreadAnalysis {
    /// Shares of the ticks that saw it; `None` where only holders were looked at.
    pub states: Option<States>,
    /// For how long it waited for a GIL, in seconds.
    pub waited_s: f64,
    /// For how long others waited while it held a GIL, in thread-seconds.
    pub inflicted_s: f64,
}

/// Shares of a thread's life, from 0 to 1, which add up to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[allow(missing_docs)]
pub struct States {
    pub hold: f64,
    pub stall: f64,
    pub wait: f64,
    pub native: f64,
    pub blocked: f64,
    pub parallel: f64,
    pub unknown: f64,
}

impl Analysis {
    /// Adds a recording up.
    ///
    /// # Errors
    /// When the recording can no longer be read.
    pub fn of(recording: &Recording) -> Result<Self, Unreadable> {
        let times = times(recording);
        let mut all_ticks = Vec::new();
        let mut gils = Vec::new();
        for (place, gil) in recording.gils.iter().enumerate() {
            let mut ticks = GilTicks::of(recording, place, &times);
            gils.push(analyse(recording, place, gil, &times, &mut ticks));
            all_ticks.push(ticks);
        }
        let threads = threads(recording, &gils, &times);
        let is_known = recording.sees_all_threads && !recording.ticks.is_empty();
        let headroom = is_known.then(|| waiting::headroom(recording, &all_ticks, &times)).flatten();
        let verdict = is_known.then(|| verdict::of(recording, &gils, &all_ticks, &times));
        Ok(Analysis { gils, threads, headroom, verdict })
    }
}

fn times(recording: &Recording) -> TickTimes {
    TickTimes::of(&recording.ticks, recording.rate_hz, None, None, recording.duration)
}

fn analyse(
    recording: &Recording,
    place: usize,
    gil: &GilTrack,
    times: &TickTimes,
    ticks: &mut GilTicks,
) -> GilAnalysis {
    let life = gil.runs.ticks();
    let total = times.nanos(&life).max(1) as f64;
    let mut threads = HashMap::<ThreadIndex, u64>::new();
    let (mut free, mut unknown) = (0_u64, 0_u64);
    let mut held = BatchMeans::new(life.len());
    for (span, run) in gil.runs.iter() {
        let nanos = times.nanos(&span);
        match run.holder {
            Holder::Thread { thread, .. } => *threads.entry(thread).or_default() += nanos,
            Holder::Nobody => free += nanos,
            Holder::Unknown => unknown += nanos,
            Holder::Disabled => {}
        }
        let is_held = if matches!(run.holder, Holder::Thread { .. }) { 1.0 } else { 0.0 };
        for tick in span {
            held.add(is_held, times.of_tick(tick));
        }
    }
    let (hold_lengths, long_holds) = holds::holds(recording, gil, times, ticks);
    ticks.mark_long(&long_holds);
    let mut blame = waiting::blame(gil, times, ticks);
    let between = blame.remove(&None).unwrap_or_default();
    let blame: HashMap<StackIndex, Blame> =
        blame.into_iter().filter_map(|(stack, blame)| Some((stack?, blame))).collect();
    let seconds = recording.duration.as_secs_f64();
    GilAnalysis {
        held: held.estimate(),
        free: free as f64 / total,
        unknown: unknown as f64 / total,
        handovers_per_s: (seconds > 0.0).then(|| gil.handovers as f64 / seconds),
        hold: threads.into_iter().map(|(thread, nanos)| (thread, nanos as f64 / total)).collect(),
        carrier: carrier(recording, gil, times),
        top_holders: top_holders(recording, &blame, total / 1e9),
        hold_lengths,
        waiting: recording.sees_all_threads.then(|| Waiting {
            waiters: mean(times, life.clone(), |tick| f64::from(ticks.waiters(tick))),
            causes: blame.values().fold(between.inflicted, |sum, blame| sum.plus(blame.inflicted)),
            pairs: waiting::pairs(recording, place, times),
            long_holds,
            stalled: mean(times, life, |tick| if ticks.is_stalled(tick) { 1.0 } else { 0.0 }).mean,
            starved_s: ticks.starved_s(),
            blame,
        }),
    }
}

fn carrier(recording: &Recording, gil: &GilTrack, times: &TickTimes) -> Option<Carrier> {
    let mut functions = HashMap::<(&Arc<str>, &Arc<str>), HashMap<ThreadIndex, u64>>::new();
    let mut held = 0;
    for (span, run) in gil.runs.iter() {
        let Holder::Thread { thread, stack } = run.holder else { continue };
        let nanos = times.nanos(&span);
        held += nanos;
        if let Some(frame) = recording.stacks.frames(stack).and_then(|mut frames| frames.next()) {
            *functions.entry((&frame.function, &frame.file)).or_default().entry(thread).or_default() += nanos;
        }
    }
    let all = |threads: &HashMap<ThreadIndex, u64>| threads.values().sum::<u64>();
    let ((function, file), threads) =
        functions.into_iter().max_by_key(|(name, threads)| (all(threads), *name))?;
    let nanos = all(&threads);
    let takes_part = |of_thread: &&u64| **of_thread as f64 >= nanos as f64 * TAKES_PART;
    let share = nanos as f64 / held as f64;
    (share >= CARRIES).then(|| Carrier {
        function: Arc::clone(function),
        file: Arc::clone(file),
        share,
        threads: threads.values().filter(takes_part).count(),
    })
}

/// The mean of what some ticks saw.
fn mean(times: &TickTimes, ticks: Range<usize>, value: impl Fn(usize) -> f64) -> Estimate {
    let mut means = BatchMeans::new(ticks.len());
    ticks.for_each(|tick| means.add(value(tick), times.of_tick(tick)));
    means.estimate()
}

fn top_holders(recording: &Recording, blame: &HashMap<StackIndex, Blame>, total_s: f64) -> Vec<TopHolder> {
    let mut lines = HashMap::<Option<&Frame>, Blame>::new();
    for (stack, more) in blame {
        let innermost = recording.stacks.frames(*stack).and_then(|mut frames| frames.next());
        let line = lines.entry(innermost).or_default();
        line.held_s += more.held_s;
        line.inflicted = line.inflicted.plus(more.inflicted);
        line.syscall = line.syscall.max(more.syscall);
    }
    let mut lines: Vec<(Option<&Frame>, Blame)> = lines.into_iter().collect();
    let place =
        |frame: Option<&Frame>| frame.map(|frame| (frame.file.clone(), frame.line, frame.function.clone()));
    lines.sort_by(|(a, more), (b, less)| {
        less.held_s.total_cmp(&more.held_s).then_with(|| place(*a).cmp(&place(*b)))
    });
    let top = |(frame, blame): (Option<&Frame>, Blame)| TopHolder {
        frame: frame.cloned(),
        held: if total_s > 0.0 { (blame.held_s / total_s).min(1.0) } else { 0.0 },
        blame: recording.sees_all_threads.then_some(blame),
    };
    lines.into_iter().map(top).collect()
}

fn threads(recording: &Recording, gils: &[GilAnalysis], times: &TickTimes) -> Vec<ThreadAnalysis> {
    let mut threads: Vec<ThreadAnalysis> = (recording.threads.iter())
        .map(|thread| ThreadAnalysis {
            states: recording.sees_all_threads.then(|| states(&thread.track, times)),
            ..ThreadAnalysis::default()
        })
        .collect();
    for pair in gils.iter().filter_map(|gil| gil.waiting.as_ref()).flat_map(|waiting| &waiting.pairs) {
        threads[pair.waiter.0 as usize].waited_s += pair.seconds;
        if let Some(holder) = pair.holder {
            threads[holder.0 as usize].inflicted_s += pair.seconds;
        }
    }
    threads
}

fn states(track: &ThreadTrack, times: &TickTimes) -> States {
    let mut nanos = HashMap::<Discriminant<ThreadState>, u64>::new();
    for (span, run) in track.runs.iter() {
        *nanos.entry(discriminant(&run.state)).or_default() += times.nanos(&span);
    }
    let total = times.nanos(&track.runs.ticks()).max(1) as f64;
    let share = |state: ThreadState| nanos.get(&discriminant(&state)).copied().unwrap_or(0) as f64 / total;
    States {
        hold: share(ThreadState::Hold),
        stall: share(ThreadState::Stall(None)),
        wait: share(ThreadState::Wait { gil: 0 }),
        native: share(ThreadState::Native),
        blocked: share(ThreadState::Blocked(None)),
        parallel: share(ThreadState::Parallel),
        unknown: share(ThreadState::Unknown),
    }
}

/// gilspy's own CPU time as a share of one CPU.
pub fn overhead_cpu(recording: &Recording) -> f64 {
    let seconds = recording.duration.as_secs_f64();
    if seconds > 0.0 { recording.own_cpu.as_secs_f64() / seconds } else { 0.0 }
}

/// The threads that share a GIL: those first that made others wait most, then that held it most, then the oldest.
pub fn threads_of(recording: &Recording, gil: usize, analysis: &Analysis) -> Vec<ThreadIndex> {
    let interpreters = &recording.gils[gil].interpreters;
    let mut threads: Vec<ThreadIndex> = (recording.threads.iter().enumerate())
        .filter(|(_, thread)| interpreters.contains(&thread.interpreter))
        .map(|(index, _)| ThreadIndex(index as u32))
        .collect();
    let rank = |thread: &ThreadIndex| {
        let of_thread = &analysis.threads[thread.0 as usize];
        let held = analysis.gils[gil].hold.get(thread).copied().unwrap_or(0.0);
        (of_thread.inflicted_s, held, of_thread.waited_s)
    };
    let tid = |thread: &ThreadIndex| recording.threads[thread.0 as usize].namespace_tid;
    threads.sort_by(|a, b| {
        let (x, y) = (rank(a), rank(b));
        let order = y.0.total_cmp(&x.0).then(y.1.total_cmp(&x.1)).then(y.2.total_cmp(&x.2));
        order.then_with(|| tid(a).cmp(&tid(b)))
    });
    threads
}

#[cfg(test)]
mod tests;
