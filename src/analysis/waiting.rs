//! Who waits for a GIL, behind whom, and why that takes so long.

use std::collections::HashMap;
use std::ops::Range;

use super::holds::LongHold;
use crate::recording::{
    GilTrack, Holder, Recording, StackIndex, Syscall, ThreadIndex, ThreadState, ThreadTrack, TickTimes,
};

/// What each tick saw of one GIL.
#[derive(Debug)]
pub(super) struct GilTicks {
    /// How many threads waited for it.
    waiters: Vec<u32>,
    /// In which system call its holder was blocked, if it was.
    stalls: Vec<Option<Option<Syscall>>>,
    /// Whether it was part of a long hold.
    long: Vec<bool>,
    /// For how much of the tick's time the holder had no CPU, in seconds.
    starved_s: Vec<f32>,
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

impl Causes {
    /// All of it.
    pub fn total_s(&self) -> f64 {
        self.shared_s + self.hogged_s + self.stalled_s + self.starved_s + self.between_s
    }

    /// Both together.
    pub fn plus(self, more: Causes) -> Causes {
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
    /// What ticks saw of a GIL (its place in the recording); long holds have to be marked.
    pub(super) fn of(recording: &Recording, gil: usize, times: &TickTimes) -> Self {
        let length = recording.ticks.len();
        let mut ticks = GilTicks {
            waiters: waiters(length, tracks(recording), gil),
            stalls: vec![None; length],
            long: vec![false; length],
            starved_s: vec![0.0; length],
        };
        for thread in threads_of(recording, gil) {
            let track = &recording.threads[thread].track;
            for (span, run) in track.runs.iter() {
                if let ThreadState::Stall(syscall) = run.state {
                    ticks.stalls[span].fill(Some(syscall));
                }
            }
            for starvation in &track.starvations {
                ticks.starve(recording, times, starvation.tick as usize, starvation.duration.as_secs_f64());
            }
        }
        ticks
    }

    /// Puts time without a CPU, which was over at some tick, into the ticks before.
    fn starve(&mut self, recording: &Recording, times: &TickTimes, over: usize, mut seconds: f64) {
        for tick in (0..over.min(recording.ticks.len())).rev() {
            let room = times.of_tick(tick) - f64::from(self.starved_s[tick]);
            let part = seconds.min(room.max(0.0));
            self.starved_s[tick] += part as f32;
            seconds -= part;
            if seconds <= 0.0 {
                break;
            }
        }
    }

    pub(super) fn mark_long(&mut self, holds: &[LongHold]) {
        for hold in holds {
            self.long[hold.ticks.clone()].fill(true);
        }
    }

    pub(super) fn waiters(&self, tick: usize) -> u32 {
        self.waiters.get(tick).copied().unwrap_or(0)
    }

    pub(super) fn is_stalled(&self, tick: usize) -> bool {
        self.stalls.get(tick).is_some_and(Option::is_some)
    }

    /// For how much of a tick's time the holder had no CPU, in seconds.
    pub(super) fn starved_at(&self, tick: usize) -> f64 {
        f64::from(self.starved_s[tick])
    }

    /// For how long the holder had no CPU, in seconds.
    pub(super) fn starved_s(&self) -> f64 {
        self.starved_s.iter().map(|seconds| f64::from(*seconds)).sum()
    }

    /// What the threads that wait at a tick wait together, by cause.
    pub(super) fn causes(&self, tick: usize, is_held: bool, seconds: f64) -> Causes {
        let waiters = f64::from(self.waiters(tick));
        let starved_s = (f64::from(self.starved_s[tick]) * waiters).min(seconds * waiters);
        let rest = seconds * waiters - starved_s;
        let mut causes = Causes { starved_s, ..Causes::default() };
        match () {
            () if !is_held => causes = Causes { between_s: seconds * waiters, ..Causes::default() },
            () if self.is_stalled(tick) => causes.stalled_s = rest,
            () if self.long[tick] => causes.hogged_s = rest,
            () => causes.shared_s = rest,
        }
        causes
    }

    fn syscall(&self, tick: usize) -> Option<Syscall> {
        self.stalls.get(tick).copied().flatten().flatten()
    }
}

/// The threads that share a GIL, by their places.
fn threads_of(recording: &Recording, gil: usize) -> impl Iterator<Item = usize> {
    let interpreters = &recording.gils[gil].interpreters;
    let shares = move |thread: &usize| interpreters.contains(&recording.threads[*thread].interpreter);
    (0..recording.threads.len()).filter(shares)
}

/// What the threads of a recording did.
pub(super) fn tracks(recording: &Recording) -> impl Iterator<Item = &ThreadTrack> {
    recording.threads.iter().map(|thread| &thread.track)
}

/// How many threads waited for a GIL at each of so many ticks.
pub(super) fn waiters<'a>(
    ticks: usize,
    tracks: impl Iterator<Item = &'a ThreadTrack>,
    gil: usize,
) -> Vec<u32> {
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

/// What each stack that held a GIL inflicted on others; where nobody held it, under `None`.
pub(super) fn blame(
    gil: &GilTrack,
    times: &TickTimes,
    ticks: &GilTicks,
) -> HashMap<Option<StackIndex>, Blame> {
    let mut blames = HashMap::<Option<StackIndex>, Blame>::new();
    for (span, run) in gil.runs.iter() {
        let stack = match run.holder {
            Holder::Thread { stack, .. } => Some(stack),
            _ => None,
        };
        let blame = blames.entry(stack).or_default();
        if stack.is_some() {
            blame.held_s += times.seconds(&span);
        }
        for tick in span {
            let seconds = times.of_tick(tick);
            blame.inflicted = blame.inflicted.plus(ticks.causes(tick, stack.is_some(), seconds));
            blame.syscall = blame.syscall.or(ticks.syscall(tick));
        }
    }
    blames
}

/// Who waited for whom, most first.
pub(super) fn pairs(recording: &Recording, gil: usize, times: &TickTimes) -> Vec<Pair> {
    let holders = holders(&recording.gils[gil]);
    let mut seconds = HashMap::<(Option<ThreadIndex>, ThreadIndex), f64>::new();
    for (place, thread) in recording.threads.iter().enumerate() {
        let waiter = ThreadIndex(place as u32);
        for (ticks, _) in thread.track.runs.iter().filter(|(_, run)| waits_for(run.state, gil)) {
            let first = holders.partition_point(|(held, _)| held.end <= ticks.start);
            for (held, holder) in holders[first..].iter().take_while(|(held, _)| held.start < ticks.end) {
                let both = held.start.max(ticks.start)..held.end.min(ticks.end);
                *seconds.entry((*holder, waiter)).or_default() += times.seconds(&both);
            }
        }
    }
    let mut pairs: Vec<Pair> =
        (seconds.into_iter()).map(|((holder, waiter), seconds)| Pair { holder, waiter, seconds }).collect();
    pairs.sort_by(|a, b| {
        b.seconds.total_cmp(&a.seconds).then_with(|| (a.holder, a.waiter).cmp(&(b.holder, b.waiter)))
    });
    pairs
}

/// Which thread held a GIL, whatever its stack.
fn holders(gil: &GilTrack) -> Vec<(Range<usize>, Option<ThreadIndex>)> {
    let mut holders: Vec<(Range<usize>, Option<ThreadIndex>)> = Vec::new();
    for (ticks, run) in gil.runs.iter() {
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

/// How many times as fast a process could be at most if all threads that hold a GIL or wait for it ran at once, on
/// so many CPUs, for as long as they do now together; the rest of the time stays as it is.
pub(super) fn headroom(recording: &Recording, gils: &[GilTicks], times: &TickTimes) -> Option<f64> {
    let total = times.total_s();
    let mut needed = 0.0;
    let mut cursors: Vec<_> = recording.gils.iter().map(|gil| gil.runs.iter().peekable()).collect();
    for tick in 0..recording.ticks.len() {
        // The GIL with the longest queue: the others run beside it already.
        let mut most = 1;
        for (cursor, ticks) in cursors.iter_mut().zip(gils) {
            while cursor.next_if(|(span, _)| span.end <= tick).is_some() {}
            let is_held = cursor.peek().is_some_and(|(span, run)| {
                span.contains(&tick) && matches!(run.holder, Holder::Thread { .. })
            });
            most = most.max(ticks.waiters(tick) + u32::from(is_held));
        }
        needed += times.of_tick(tick) / f64::from(most.min(recording.cpus.max(1)));
    }
    (needed > 0.0).then(|| total / needed)
}
