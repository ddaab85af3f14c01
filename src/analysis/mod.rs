//! Numbers out of a recording: shares, rates, who waits for whom, and what that comes to.
//!
//! A share is of time: each tick stands for the time around it, up to half-way to its neighbours. Ticks whose state
//! could not be read stay in the denominator, as `unknown`; time that no tick is near to does not.

mod by;
mod changes;
mod gil;
mod holds;
mod looks;
mod slots;
mod statistics;
mod thresholds;
mod totals;
mod verdict;
mod waiting;

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

pub use by::{By, StackTime, StackTimes, all_stack_times, stack_times};
pub use changes::{Change, Changes, Function, FunctionChange, GilChange, Worth};
pub use holds::{HoldLength, HoldLengths, LongHold};
pub use looks::{Looks, Usual};
pub use slots::{GilSlots, LaneSlots, Mix, STATES, Slots, place_of};
pub use statistics::Estimate;
pub use totals::{Totals, waited_s};
pub use verdict::{Figure, Kind, Verdict};
pub use waiting::{Blame, Causes, Pair, waiters};

use crate::recording::{Frame, Recording, StackIndex, Stretch, ThreadIndex, ThreadState, Unreadable};
use gil::GilSums;
use holds::Holds;
use statistics::BatchMeans;
use thresholds::MOSTLY_UNKNOWN;
use verdict::Doing;
use waiting::{GilTicks, Headroom, Overflow};

/// What a recording adds up to.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// Each GIL, as in the recording.
    pub gils: Vec<GilAnalysis>,
    /// Each thread, as in the recording.
    pub threads: Vec<ThreadAnalysis>,
    /// For how much of the threads' time it is not known what they did, from 0 to 1. From a quarter on nothing is said of
    /// waiting, and the following are `None`, as they are where only holders were looked at, or there were no ticks.
    pub unknown: f64,
    /// How many threads ran Python without a GIL at a time, on the average.
    pub parallel: Option<Estimate>,
    /// How many times as fast the process could be without its GIL, at most.
    pub headroom: Option<f64>,
    /// What limits the process.
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

    /// Whether it is known who waits: not where only holders were looked at, or what others did is mostly unknown.
    pub fn knows_waiting(&self) -> bool {
        self.recording.sees_all_threads && self.analysis.unknown < MOSTLY_UNKNOWN
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
    /// The time that ticks saw it, in seconds.
    pub seen_s: f64,
    /// Share of ticks at which there was no GIL and one thread had stopped others, as far as that can be seen.
    pub stopped: f64,
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
    /// What needs every thread to be known; `None` where only holders were looked at, or what others did is unknown.
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
    /// How many holds were too long.
    pub long_hold_count: usize,
    /// The longest thousand of them, in order of time.
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
    /// Adds a recording up, in two passes: what a tick counts as depends on how long the hold was that it is part of,
    /// and on how long somebody had no CPU until a later tick.
    ///
    /// # Errors
    /// When the recording can no longer be read.
    pub fn of(recording: &Recording) -> Result<Self, Unreadable> {
        let mut gils: Vec<GilSums> =
            (0..recording.gils.len()).map(|gil| GilSums::new(recording, gil)).collect();
        find_long_holds(recording, &mut gils)?;
        let mut threads = vec![StateNanos::default(); recording.threads.len()];
        let mut doing = Doing::new(recording);
        let mut headroom = Headroom::default();
        for (place, stretch) in recording.stretches().enumerate() {
            let stretch = stretch?;
            let ticks: Vec<GilTicks> = gils.iter_mut().map(|gil| gil.add(&stretch, place)).collect();
            if recording.sees_all_threads {
                headroom.add(&stretch, &ticks, recording.cpus);
                doing.add(&stretch);
                add_states(&mut threads, &stretch);
            }
        }
        let (mut gils, uncertain): (Vec<GilAnalysis>, Vec<_>) =
            gils.into_iter().map(|sums| sums.finish(recording)).unzip();
        let unknown = unknown_share(&threads);
        let is_known = recording.sees_all_threads && unknown < MOSTLY_UNKNOWN;
        if !is_known {
            gils.iter_mut().for_each(|gil| gil.waiting = None);
        }
        let is_known = is_known && recording.ticks > 0;
        Ok(Analysis {
            unknown,
            threads: of_threads(recording, &gils, &threads),
            parallel: is_known.then(|| doing.parallel()),
            headroom: is_known.then(|| headroom.finish()).flatten(),
            verdict: is_known.then(|| verdict::of(recording, &gils, &uncertain, doing)),
            gils,
        })
    }
}

/// The first pass: lengths of holds, and which ticks lie in long ones; and where the time without a CPU belongs.
fn find_long_holds(recording: &Recording, gils: &mut [GilSums]) -> Result<(), Unreadable> {
    let mut holds: Vec<Holds> = recording.gils.iter().map(|gil| Holds::new(recording, gil)).collect();
    let mut overflows = vec![Vec::new(); gils.len()];
    for stretch in recording.stretches() {
        let stretch = stretch?;
        for (gil, sums) in gils.iter().enumerate() {
            let mut ticks = GilTicks::of(&stretch, gil, &sums.sharing);
            holds[gil].add(&stretch, gil, &ticks);
            overflows[gil].push(ticks.starve(&stretch, gil, &sums.sharing, 0));
        }
    }
    for (((sums, holds), overflows), gil) in gils.iter_mut().zip(holds).zip(overflows).zip(&recording.gils) {
        (sums.hold_lengths, sums.long) = holds.finish(gil.handovers);
        sums.starved_later = Overflow::resolve(&overflows);
    }
    Ok(())
}

/// How long a thread was in each state.
type StateNanos = HashMap<Discriminant<ThreadState>, u64>;

fn add_states(threads: &mut [StateNanos], stretch: &Stretch) {
    for (states, track) in threads.iter_mut().zip(&stretch.threads) {
        for (span, run) in track.runs.iter() {
            *states.entry(discriminant(&run.state)).or_default() += stretch.times.nanos(&span);
        }
    }
}

/// For how much of the threads' time it is not known what they did.
fn unknown_share(threads: &[StateNanos]) -> f64 {
    let unknown = discriminant(&ThreadState::Unknown);
    let unknown: u64 = threads.iter().filter_map(|states| states.get(&unknown)).sum();
    unknown as f64 / threads.iter().flat_map(HashMap::values).sum::<u64>().max(1) as f64
}

fn of_threads(recording: &Recording, gils: &[GilAnalysis], states: &[StateNanos]) -> Vec<ThreadAnalysis> {
    let mut threads: Vec<ThreadAnalysis> = (states.iter())
        .map(|states| ThreadAnalysis {
            states: recording.sees_all_threads.then(|| shares(states)),
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

fn shares(nanos: &StateNanos) -> States {
    let total = nanos.values().sum::<u64>().max(1) as f64;
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
    let seconds = recording.length().as_secs_f64();
    if seconds > 0.0 { recording.own_cpu.as_secs_f64() / seconds } else { 0.0 }
}

/// The threads that share a GIL and are shown: those first that made others wait most, then that held it most, then the oldest.
pub fn threads_of(recording: &Recording, gil: usize, analysis: &Analysis) -> Vec<ThreadIndex> {
    let interpreters = &recording.gils[gil].interpreters;
    let mut threads: Vec<ThreadIndex> = (recording.threads.iter().enumerate())
        .filter(|(_, thread)| interpreters.contains(&thread.interpreter))
        .map(|(index, _)| ThreadIndex(index as u32))
        .filter(|index| recording.shows(*index))
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
