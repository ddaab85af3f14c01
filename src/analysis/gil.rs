//! What the ticks of one GIL add up to, stretch by stretch.

use std::collections::HashMap;
use std::sync::Arc;

use super::holds::LongHolds;
use super::thresholds::{CARRIES, TAKES_PART};
use super::waiting::{self, CauseNanos, GilTicks, Pairs, Sharer};
use super::{BatchMeans, Blame, Carrier, Estimate, GilAnalysis, HoldLengths, TopHolder, Waiting};
use crate::recording::{Frame, Holder, Recording, StackIndex, Stretch, Syscall, ThreadIndex};

/// The sums of one GIL.
pub(super) struct GilSums {
    gil: usize,
    /// The threads that share it.
    pub(super) sharing: Vec<Sharer>,
    /// What the first pass finds out.
    pub(super) hold_lengths: HoldLengths,
    pub(super) long: LongHolds,
    /// For each stretch, time without a CPU that was over in a later one, in nanoseconds.
    pub(super) starved_later: Vec<u64>,
    total: u64,
    free: u64,
    unknown: u64,
    stopped: u64,
    starved_nanos: u64,
    /// For how long each thread held it with each stack.
    held: HashMap<(ThreadIndex, StackIndex), u64>,
    /// What each stack that held it inflicted on others; where nobody held it, under `None`.
    inflicted: HashMap<Option<StackIndex>, Inflicted>,
    pairs: Pairs,
    means: Means,
}

#[derive(Default)]
struct Inflicted {
    causes: CauseNanos,
    syscall: Option<Syscall>,
}

/// Means over the ticks.
struct Means {
    held: BatchMeans,
    waiters: BatchMeans,
    stalled: BatchMeans,
    starved: BatchMeans,
    shared: BatchMeans,
    hogged: BatchMeans,
    stalling: BatchMeans,
    starving: BatchMeans,
}

/// How many threads waited for each cause at a time, and how much of the time the holder had no CPU: what a verdict's
/// uncertainty comes from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Uncertain {
    /// `shared` and `between`.
    pub(super) shared: Estimate,
    pub(super) hogged: Estimate,
    pub(super) stalled: Estimate,
    pub(super) starved: Estimate,
    /// For how much of the time the holder had no CPU, whether somebody waited or not.
    pub(super) without_cpu: Estimate,
}

impl GilSums {
    pub(super) fn new(recording: &Recording, gil: usize) -> Self {
        let means = || BatchMeans::new(recording.gils[gil].ticks);
        GilSums {
            gil,
            sharing: waiting::sharing(recording, gil),
            hold_lengths: HoldLengths::default(),
            long: LongHolds::default(),
            starved_later: Vec::new(),
            total: 0,
            free: 0,
            unknown: 0,
            stopped: 0,
            starved_nanos: 0,
            held: HashMap::new(),
            inflicted: HashMap::new(),
            pairs: Pairs::default(),
            means: Means {
                held: means(),
                waiters: means(),
                stalled: means(),
                starved: means(),
                shared: means(),
                hogged: means(),
                stalling: means(),
                starving: means(),
            },
        }
    }

    /// Adds the next stretch, and answers what each of its ticks saw.
    pub(super) fn add(&mut self, stretch: &Stretch, place: usize) -> GilTicks {
        let mut ticks = GilTicks::of(stretch, self.gil, &self.sharing);
        ticks.mark_long(&self.long.ticks, stretch.first);
        let later = self.starved_later.get(place).copied().unwrap_or(0);
        ticks.starve(stretch, self.gil, &self.sharing, later);
        for (span, run) in stretch.gils[self.gil].iter() {
            let nanos = stretch.times.nanos(&span);
            self.total += nanos;
            let stack = match run.holder {
                Holder::Thread { thread, stack } => {
                    *self.held.entry((thread, stack)).or_default() += nanos;
                    Some(stack)
                }
                Holder::Nobody => {
                    self.free += nanos;
                    None
                }
                Holder::Unknown => {
                    self.unknown += nanos;
                    None
                }
                Holder::Stopped => {
                    self.stopped += nanos;
                    None
                }
                Holder::Disabled => None,
            };
            let inflicted = self.inflicted.entry(stack).or_default();
            for tick in span {
                let nanos = stretch.times.nanos(&(tick..tick + 1));
                let causes = ticks.causes(tick, stack.is_some(), nanos);
                inflicted.causes.add(causes);
                inflicted.syscall = inflicted.syscall.or(ticks.syscall(tick));
                self.means.add(&ticks, tick, stack.is_some(), nanos, causes);
            }
        }
        self.starved_nanos += (0..stretch.ticks.len()).map(|tick| ticks.starved(tick)).sum::<u64>();
        self.pairs.add(stretch, self.gil);
        ticks
    }

    /// What it adds up to.
    pub(super) fn finish(self, recording: &Recording) -> (GilAnalysis, Uncertain) {
        let total = self.total.max(1) as f64;
        let mut hold = HashMap::<ThreadIndex, u64>::new();
        let mut held = HashMap::<StackIndex, u64>::new();
        for (&(thread, stack), &nanos) in &self.held {
            *hold.entry(thread).or_default() += nanos;
            *held.entry(stack).or_default() += nanos;
        }
        let mut blame: HashMap<StackIndex, Blame> = (held.into_iter())
            .map(|(stack, nanos)| (stack, Blame { held_s: nanos as f64 / 1e9, ..Blame::default() }))
            .collect();
        let mut causes = CauseNanos::default();
        for (stack, inflicted) in self.inflicted {
            causes.add(inflicted.causes);
            if let Some(blame) = stack.and_then(|stack| blame.get_mut(&stack)) {
                (blame.inflicted, blame.syscall) = (inflicted.causes.in_seconds(), inflicted.syscall);
            }
        }
        let seconds = recording.length().as_secs_f64();
        let (waiters, stalled, uncertain) = self.means.uncertain();
        let analysis = GilAnalysis {
            held: self.means.held.estimate(),
            free: self.free as f64 / total,
            unknown: self.unknown as f64 / total,
            seen_s: self.total as f64 / 1e9,
            stopped: self.stopped as f64 / total,
            handovers_per_s: (seconds > 0.0).then(|| recording.gils[self.gil].handovers as f64 / seconds),
            hold: hold.into_iter().map(|(thread, nanos)| (thread, nanos as f64 / total)).collect(),
            carrier: carrier(recording, &self.held),
            top_holders: top_holders(recording, &blame, total / 1e9),
            hold_lengths: self.hold_lengths,
            waiting: recording.sees_all_threads.then(|| Waiting {
                waiters,
                causes: causes.in_seconds(),
                pairs: self.pairs.finish(),
                blame,
                long_hold_count: self.long.ticks.len(),
                long_holds: self.long.listed,
                stalled: stalled.mean,
                starved_s: self.starved_nanos as f64 / 1e9,
            }),
        };
        (analysis, uncertain)
    }
}

impl Means {
    /// Adds what a tick saw that stands for some nanoseconds.
    fn add(&mut self, ticks: &GilTicks, tick: usize, is_held: bool, nanos: u64, causes: CauseNanos) {
        let seconds = nanos as f64 / 1e9;
        let share = |of: u64| if nanos > 0 { of as f64 / nanos as f64 } else { 0.0 };
        let one_if = |is: bool| if is { 1.0 } else { 0.0 };
        self.held.add(one_if(is_held), seconds);
        self.waiters.add(f64::from(ticks.waiters(tick)), seconds);
        self.stalled.add(one_if(ticks.is_stalled(tick)), seconds);
        self.starved.add(share(ticks.starved(tick)), seconds);
        self.shared.add(share(causes.shared.saturating_add(causes.between)), seconds);
        self.hogged.add(share(causes.hogged), seconds);
        self.stalling.add(share(causes.stalled), seconds);
        self.starving.add(share(causes.starved), seconds);
    }

    /// How many threads waited, for how much of the time the holder was blocked, and the rest.
    fn uncertain(&self) -> (Estimate, Estimate, Uncertain) {
        let uncertain = Uncertain {
            shared: self.shared.estimate(),
            hogged: self.hogged.estimate(),
            stalled: self.stalling.estimate(),
            starved: self.starving.estimate(),
            without_cpu: self.starved.estimate(),
        };
        (self.waiters.estimate(), self.stalled.estimate(), uncertain)
    }
}

fn carrier(recording: &Recording, held: &HashMap<(ThreadIndex, StackIndex), u64>) -> Option<Carrier> {
    let mut functions = HashMap::<(&Arc<str>, &Arc<str>), HashMap<ThreadIndex, u64>>::new();
    for (&(thread, stack), &nanos) in held {
        if let Some(frame) = recording.stacks.frames(stack).and_then(|mut frames| frames.next()) {
            *functions.entry((&frame.function, &frame.file)).or_default().entry(thread).or_default() += nanos;
        }
    }
    let all = |threads: &HashMap<ThreadIndex, u64>| threads.values().sum::<u64>();
    let ((function, file), threads) =
        functions.into_iter().max_by_key(|(name, threads)| (all(threads), *name))?;
    let nanos = all(&threads);
    let takes_part = |of_thread: &&u64| **of_thread as f64 >= nanos as f64 * TAKES_PART;
    let share = nanos as f64 / held.values().sum::<u64>() as f64;
    (share >= CARRIES).then(|| Carrier {
        function: Arc::clone(function),
        file: Arc::clone(file),
        share,
        threads: threads.values().filter(takes_part).count(),
    })
}

fn top_holders(recording: &Recording, blame: &HashMap<StackIndex, Blame>, total_s: f64) -> Vec<TopHolder> {
    // In order, so that sums of fractions are the same each time.
    let mut stacks: Vec<(&StackIndex, &Blame)> = blame.iter().collect();
    stacks.sort_by_key(|(stack, _)| **stack);
    let mut lines = HashMap::<Option<&Frame>, Blame>::new();
    for (stack, more) in stacks {
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
