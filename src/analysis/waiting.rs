//! Who waits for a GIL, behind whom, and why that takes so long.

use std::collections::HashMap;
use std::ops::Range;

use crate::recording::{
    GilRun, Holder, Recording, Runs, Stretch, Syscall, ThreadIndex, ThreadState, ThreadTrack,
};

/// What each tick of a stretch saw of one GIL.
#[derive(Debug)]
pub(super) struct GilTicks {
    /// How many threads waited for it.
    waiters: Vec<u32>,
    /// In which system call its holder was blocked, if it was.
    stalls: Vec<Option<Option<Syscall>>>,
    /// Whether it was part of a long hold.
    long: Vec<bool>,
    /// For how much of the tick's time the holder had no CPU, in nanoseconds.
    starved: Vec<u64>,
}

/// A thread that shares a GIL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharer {
    /// Its place in the recording.
    thread: usize,
    /// Whether it has been in several interpreters: it may hold another GIL meanwhile.
    is_in_several: bool,
}

/// Time without a CPU that goes from a stretch into the ticks before it: `max(least, time from later stretches + net)`,
/// in nanoseconds. So it takes one pass over all stretches and one over these to know it for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overflow {
    least: u64,
    net: i64,
}

/// Why threads wait: the time that they wait together, in thread-seconds, by what the holder did meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Causes {
    /// It ran, and gave the GIL up when asked to.
    pub shared_s: f64,
    /// It ran C code that does not release the GIL.
    pub hogged_s: f64,
    /// It was blocked in a system call, or by a page of memory.
    pub stalled_s: f64,
    /// It was ready to run but had no CPU.
    pub starved_s: f64,
    /// Nobody held it, or it is not known who did: it was just changing hands.
    pub between_s: f64,
}

/// One thread that waits for another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Who held the GIL; `None` where nobody did, or it is not known.
    pub holder: Option<ThreadIndex>,
    /// Who waited for it.
    pub waiter: ThreadIndex,
    /// For how long, in seconds.
    pub seconds: f64,
}

/// What one stack of a holder inflicted on others.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Blame {
    /// For how long it held the GIL, in seconds.
    pub held_s: f64,
    /// What others waited meanwhile.
    pub inflicted: Causes,
    /// In which system call it was blocked, where it was.
    pub syscall: Option<Syscall>,
}

/// [`Causes`] in nanoseconds, which add up to the same in whatever order.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CauseNanos {
    pub(super) shared: u64,
    pub(super) hogged: u64,
    pub(super) stalled: u64,
    pub(super) starved: u64,
    pub(super) between: u64,
}

impl CauseNanos {
    pub(super) fn add(&mut self, more: CauseNanos) {
        for (sum, more) in [
            (&mut self.shared, more.shared),
            (&mut self.hogged, more.hogged),
            (&mut self.stalled, more.stalled),
            (&mut self.starved, more.starved),
            (&mut self.between, more.between),
        ] {
            *sum = sum.saturating_add(more);
        }
    }

    pub(super) fn in_seconds(self) -> Causes {
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        Causes {
            shared_s: seconds(self.shared),
            hogged_s: seconds(self.hogged),
            stalled_s: seconds(self.stalled),
            starved_s: seconds(self.starved),
            between_s: seconds(self.between),
        }
    }
}

impl Causes {
    /// All of it.
    pub fn total_s(&self) -> f64 {
        self.shared_s + self.hogged_s + self.stalled_s + self.starved_s + self.between_s
    }

    /// Both together.
    pub(super) fn plus(self, more: Causes) -> Causes {
        Causes {
            shared_s: self.shared_s + more.shared_s,
            hogged_s: self.hogged_s + more.hogged_s,
            stalled_s: self.stalled_s + more.stalled_s,
            starved_s: self.starved_s + more.starved_s,
            between_s: self.between_s + more.between_s,
        }
    }
}

impl GilTicks {
    /// What ticks saw of a GIL (its place in the recording) that these threads share. Long holds have to be marked,
    /// and the holder to be starved.
    pub(super) fn of(stretch: &Stretch, gil: usize, sharing: &[Sharer]) -> Self {
        let length = stretch.ticks.len();
        let mut ticks = GilTicks {
            waiters: waiters(length, stretch.threads.iter(), gil),
            stalls: vec![None; length],
            long: vec![false; length],
            starved: vec![0; length],
        };
        let holders = holders(&stretch.gils[gil]);
        for sharer in sharing {
            for (span, run) in stretch.threads[sharer.thread].runs.iter() {
                if let ThreadState::Stall(syscall) = run.state {
                    for tick in span.filter(|tick| sharer.may_hold(&holders, *tick)) {
                        ticks.stalls[tick] = Some(syscall);
                    }
                }
            }
        }
        ticks
    }

    /// Puts time without a CPU, which was over at some tick, into the ticks before, where `later` comes from the
    /// stretches after this one. Answers what goes into those before it.
    pub(super) fn starve(
        &mut self,
        stretch: &Stretch,
        gil: usize,
        sharing: &[Sharer],
        later: u64,
    ) -> Overflow {
        let mut over = vec![0_u64; stretch.ticks.len()];
        let holders = holders(&stretch.gils[gil]);
        for sharer in sharing {
            for starvation in &stretch.threads[sharer.thread].starvations {
                let tick = starvation.tick as usize;
                // It is about the time before the tick that found it over.
                if sharer.may_hold(&holders, tick.saturating_sub(1)) {
                    let nanos = u64::try_from(starvation.duration.as_nanos()).unwrap_or(u64::MAX);
                    over[tick] = over[tick].saturating_add(nanos);
                }
            }
        }
        let (mut left, mut net) = (later, 0_i64);
        for tick in (0..over.len()).rev() {
            let room = stretch.times.nanos(&(tick..tick + 1));
            self.starved[tick] = left.min(room);
            left = (left - self.starved[tick]).saturating_add(over[tick]);
            net = net.saturating_sub_unsigned(room).saturating_add_unsigned(over[tick]);
        }
        Overflow { least: left, net }
    }

    /// Marks long holds, by the places of their ticks in the whole recording, in order.
    pub(super) fn mark_long(&mut self, holds: &[Range<usize>], first: usize) {
        let end = first + self.long.len();
        let from = holds.partition_point(|hold| hold.end <= first);
        for hold in holds[from..].iter().take_while(|hold| hold.start < end) {
            self.long[hold.start.max(first) - first..hold.end.min(end) - first].fill(true);
        }
    }

    pub(super) fn waiters(&self, tick: usize) -> u32 {
        self.waiters.get(tick).copied().unwrap_or(0)
    }

    pub(super) fn is_stalled(&self, tick: usize) -> bool {
        self.stalls.get(tick).is_some_and(Option::is_some)
    }

    /// For how much of a tick's time the holder had no CPU, in nanoseconds.
    pub(super) fn starved(&self, tick: usize) -> u64 {
        self.starved[tick]
    }

    /// What the threads that wait at a tick, which stands for some nanoseconds, wait together, by cause.
    pub(super) fn causes(&self, tick: usize, is_held: bool, nanos: u64) -> CauseNanos {
        let waiters = u64::from(self.waiters(tick));
        let all = nanos.saturating_mul(waiters);
        let starved = self.starved[tick].saturating_mul(waiters).min(all);
        let rest = all - starved;
        let causes = CauseNanos { starved, ..CauseNanos::default() };
        match () {
            () if !is_held => CauseNanos { between: all, ..CauseNanos::default() },
            () if self.is_stalled(tick) => CauseNanos { stalled: rest, ..causes },
            () if self.long[tick] => CauseNanos { hogged: rest, ..causes },
            () => CauseNanos { shared: rest, ..causes },
        }
    }

    pub(super) fn syscall(&self, tick: usize) -> Option<Syscall> {
        self.stalls.get(tick).copied().flatten().flatten()
    }
}

impl Overflow {
    /// What goes from later stretches into each, by what goes from each into those before it.
    pub(super) fn resolve(stretches: &[Overflow]) -> Vec<u64> {
        let mut later = 0_u64;
        let mut all: Vec<u64> = (stretches.iter().rev())
            .map(|overflow| {
                let into = later;
                later = overflow.least.max(later.saturating_add_signed(overflow.net));
                into
            })
            .collect();
        all.reverse();
        all
    }
}

impl Sharer {
    /// Whether a holder's state that it was in at a tick may be about this GIL.
    fn may_hold(&self, holders: &[(Range<usize>, Option<ThreadIndex>)], tick: usize) -> bool {
        !self.is_in_several || holder_at(holders, tick) == Some(ThreadIndex(self.thread as u32))
    }
}

/// The threads that have been in an interpreter that has this GIL.
pub(super) fn sharing(recording: &Recording, gil: usize) -> Vec<Sharer> {
    let own = &recording.gils[gil].interpreters;
    (recording.threads.iter().enumerate())
        .filter(|(_, thread)| thread.interpreters.iter().any(|id| own.contains(id)))
        .map(|(place, thread)| Sharer { thread: place, is_in_several: thread.interpreters.len() > 1 })
        .collect()
}

/// How many threads waited for a GIL, given by its place, at each of so many ticks.
pub fn waiters<'a>(ticks: usize, tracks: impl Iterator<Item = &'a ThreadTrack>, gil: usize) -> Vec<u32> {
    how_many(ticks, tracks, |state| waits_for(state, gil))
}

/// How many threads did something at each of so many ticks.
pub(super) fn how_many<'a>(
    ticks: usize,
    tracks: impl Iterator<Item = &'a ThreadTrack>,
    does_so: impl Fn(ThreadState) -> bool,
) -> Vec<u32> {
    let mut changes = vec![0_i32; ticks + 1];
    for track in tracks {
        for (ticks, _) in track.runs.iter().filter(|(_, run)| does_so(run.state)) {
            changes[ticks.start] += 1;
            changes[ticks.end] -= 1;
        }
    }
    changes.pop();
    let mut threads = 0;
    let count = |change: i32| {
        threads += change;
        u32::try_from(threads).unwrap_or(0)
    };
    changes.into_iter().map(count).collect()
}

fn waits_for(state: ThreadState, wanted: usize) -> bool {
    matches!(state, ThreadState::Wait { gil } if usize::from(gil) == wanted)
}

/// Who waited for whom, and for how long: holder, waiter, nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Pairs(HashMap<(Option<ThreadIndex>, ThreadIndex), u64>);

impl Pairs {
    /// Adds what a stretch saw of a GIL.
    pub(super) fn add(&mut self, stretch: &Stretch, gil: usize) {
        let holders = holders(&stretch.gils[gil]);
        for (place, track) in stretch.threads.iter().enumerate() {
            let waiter = ThreadIndex(place as u32);
            for (ticks, _) in track.runs.iter().filter(|(_, run)| waits_for(run.state, gil)) {
                let first = holders.partition_point(|(held, _)| held.end <= ticks.start);
                for (held, holder) in holders[first..].iter().take_while(|(held, _)| held.start < ticks.end) {
                    let both = held.start.max(ticks.start)..held.end.min(ticks.end);
                    let nanos = self.0.entry((*holder, waiter)).or_default();
                    *nanos = nanos.saturating_add(stretch.times.nanos(&both));
                }
            }
        }
    }

    /// Those who waited longest first.
    pub(super) fn finish(self) -> Vec<Pair> {
        let pair = |((holder, waiter), nanos): (_, u64)| Pair { holder, waiter, seconds: nanos as f64 / 1e9 };
        let mut pairs: Vec<Pair> = self.0.into_iter().map(pair).collect();
        pairs.sort_by(|a, b| {
            b.seconds.total_cmp(&a.seconds).then_with(|| (a.holder, a.waiter).cmp(&(b.holder, b.waiter)))
        });
        pairs
    }
}

/// Which thread held a GIL, whatever its stack.
fn holders(runs: &Runs<GilRun>) -> Vec<(Range<usize>, Option<ThreadIndex>)> {
    let mut holders: Vec<(Range<usize>, Option<ThreadIndex>)> = Vec::new();
    for (ticks, run) in runs.iter() {
        let holder = match run.holder {
            Holder::Thread { thread, .. } => Some(thread),
            _ => None,
        };
        match holders.last_mut() {
            Some((last, same)) if *same == holder => last.end = ticks.end,
            _ => holders.push((ticks, holder)),
        }
    }
    holders
}

fn holder_at(holders: &[(Range<usize>, Option<ThreadIndex>)], tick: usize) -> Option<ThreadIndex> {
    let place = holders.partition_point(|(held, _)| held.end <= tick);
    holders.get(place).filter(|(held, _)| held.contains(&tick))?.1
}

/// How many times as fast a process could be at most if all threads that hold a GIL or wait for it ran at once, on
/// so many CPUs, for as long as they do now together; the rest of the time stays as it is.
#[derive(Debug, Default)]
pub(super) struct Headroom {
    total_s: f64,
    needed_s: f64,
}

impl Headroom {
    /// Adds what a stretch saw of all GILs.
    pub(super) fn add(&mut self, stretch: &Stretch, gils: &[GilTicks], cpus: u32) {
        let mut cursors: Vec<_> = stretch.gils.iter().map(|runs| runs.iter().peekable()).collect();
        for tick in 0..stretch.ticks.len() {
            // The GIL with the longest queue: the others run beside it already.
            let mut most = 1;
            for (cursor, ticks) in cursors.iter_mut().zip(gils) {
                while cursor.next_if(|(span, _)| span.end <= tick).is_some() {}
                let is_held = cursor.peek().is_some_and(|(span, run)| {
                    span.contains(&tick) && matches!(run.holder, Holder::Thread { .. })
                });
                most = most.max(ticks.waiters(tick).saturating_add(u32::from(is_held)));
            }
            let seconds = stretch.times.of_tick(tick);
            self.total_s += seconds;
            self.needed_s += seconds / f64::from(most.min(cpus.max(1)));
        }
    }

    pub(super) fn finish(self) -> Option<f64> {
        (self.needed_s > 0.0).then(|| self.total_s / self.needed_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Time without a CPU that does not fit into a stretch is that of the ticks before, as if there were no
        /// stretches.
        #[test]
        fn overflow_is_what_would_go_on_to_the_ticks_before(
            stretches in prop::collection::vec(prop::collection::vec((0_u64..9, 0_u64..9), 0..5), 1..6),
        ) {
            // Of each tick: its time, and the time without a CPU that was over at it.
            let go = |ticks: &[(u64, u64)], later: u64| {
                let back = |left: u64, (room, over): &(u64, u64)| left.saturating_sub(*room) + over;
                ticks.iter().rev().fold(later, back)
            };
            let overflows: Vec<Overflow> = (stretches.iter())
                .map(|ticks| Overflow {
                    least: go(ticks, 0),
                    net: ticks.iter().map(|(room, over)| *over as i64 - *room as i64).sum(),
                })
                .collect();
            for (place, into) in Overflow::resolve(&overflows).into_iter().enumerate() {
                prop_assert_eq!(into, go(&stretches[place + 1..].concat(), 0));
            }
        }
    }
}
