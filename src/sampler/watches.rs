//! Every thread at every tick: what the kernel says of it, what it was doing, and its stack, which is read
//! again only when the thread has run.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use syscalls::Sysno;

use super::{Gil, Threads};
use crate::sample::{GilSample, Holder, StackIndex, Syscall, TaskTimes, ThreadIndex, ThreadState};
use crate::target::entry::ProcEntry;
use crate::target::tasks::{RunState, Watch};
use crate::units::Address;

/// A holder that has just given way is told from one that calls C code without the GIL by having kept it for such a
/// part of the switch interval, if ticks are no further apart than such a part of it.
const KEPT: f64 = 0.8;
const APART: f64 = 0.5;

/// The threads that are watched.
#[derive(Debug, Default)]
pub(super) struct Watches {
    threads: Vec<WatchedThread>,
    /// [`Threads::changes`] at the last update.
    changes: Option<u64>,
}

/// A thread that is watched.
#[derive(Debug)]
pub(super) struct WatchedThread {
    pub(super) thread: ThreadIndex,
    watch: Option<Watch>,
    /// What was read of it since it last ran; `None` where it has to be read.
    pub(super) stack: Option<StackIndex>,
    /// Its times at the tick before.
    times: Option<TaskTimes>,
    /// The GIL that it was last seen to wait for, and the GIL's count of handovers then.
    waited: Option<(u16, u64)>,
    /// Since when it has been seen to hold a GIL, and the GIL's count of handovers since.
    held: Option<(Instant, u64)>,
}

/// The GILs of a process, as one tick saw them.
#[derive(Clone, Copy)]
pub(super) struct Gils<'a> {
    pub(super) known: &'a [Gil],
    pub(super) by_interpreter: &'a HashMap<i64, u16>,
    pub(super) samples: &'a [GilSample],
    /// Length of a GIL in memory.
    pub(super) size: u64,
    /// Where threads sleep that wait for a GIL, where that is not inside of it.
    pub(super) musl_waiters: &'a [(u16, Address)],
    /// When the tick was, and how long after the one before.
    pub(super) now: Instant,
    pub(super) gap: Duration,
}

impl Watches {
    /// Takes over which threads there are now.
    pub(super) fn update(&mut self, process: &ProcEntry, threads: &Threads) {
        if self.changes.replace(threads.changes()) == Some(threads.changes()) {
            return;
        }
        self.threads.retain(|watched| threads.get(watched.thread).is_some_and(|known| known.is_alive));
        for (thread, known) in threads.all().filter(|(_, known)| known.is_alive) {
            if let Err(gap) = self.threads.binary_search_by_key(&thread, |watched| watched.thread) {
                let watch = known.tid.map(|tid| Watch::new(process, tid));
                let new = WatchedThread { thread, watch, stack: None, times: None, waited: None, held: None };
                self.threads.insert(gap, new);
            }
        }
    }

    /// Asks the kernel about each.
    pub(super) fn look(&mut self) {
        for watched in &mut self.threads {
            let has_run = watched.watch.as_mut().is_none_or(Watch::look);
            if has_run {
                watched.stack = None;
            }
        }
    }

    /// All, in order, beginning with that thread and going round.
    pub(super) fn iter_mut_from(&mut self, first: ThreadIndex) -> impl Iterator<Item = &mut WatchedThread> {
        let place = self.threads.partition_point(|watched| watched.thread < first);
        let (before, after) = self.threads.split_at_mut(place);
        after.iter_mut().chain(before)
    }
}

impl WatchedThread {
    /// Whether it has ended since the threads were looked for.
    pub(super) fn has_ended(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::has_ended)
    }

    /// The time it spent on a CPU and in the run queue since the tick before.
    pub(super) fn times(&mut self) -> TaskTimes {
        let Some(now) = self.watch.as_ref().and_then(Watch::times) else { return TaskTimes::default() };
        now.since(self.times.replace(now).unwrap_or(now))
    }

    /// What it is doing. The kernel was asked before the GIL was read, so where the two disagree the GIL is
    /// right: a holder that was asleep a moment ago has just been woken, unless it sleeps still.
    ///
    /// `interpreter` is the one it is in, `is_attached` tells whether it may run Python, where that
    /// is known.
    pub(super) fn state(
        &mut self,
        interpreter: i64,
        is_attached: impl Fn() -> Option<bool>,
        gils: Gils<'_>,
    ) -> ThreadState {
        let run_state = self.watch.as_ref().map_or(RunState::Unknown, Watch::state);
        let waits_for = gils.slept_on(run_state);
        if let Some(number) = gils.held_by(self.thread) {
            self.waited = None;
            if self.held.is_none_or(|(_, before)| before != number) {
                self.held = Some((gils.now, number));
            }
            let is_blocked = waits_for.is_none() && self.watch.as_ref().is_some_and(Watch::is_still_blocked);
            return if is_blocked { ThreadState::Stall(syscall(run_state)) } else { ThreadState::Hold };
        }
        let held = self.held.take();
        if let Some(gil) = waits_for {
            self.waited = gils.samples[usize::from(gil)].switch_number.map(|number| (gil, number));
            return ThreadState::Wait { gil };
        }
        let own = gils.of(interpreter);
        let holder = own.map_or(Holder::Unknown, |gil| gils.samples[usize::from(gil)].holder);
        if let (RunState::Running, Some(gil), Some((since, _))) = (run_state, own, held)
            && gils.gave_way(gil, since)
        {
            self.waited = gils.samples[usize::from(gil)].switch_number.map(|number| (gil, number));
        }
        match run_state {
            RunState::Unknown => ThreadState::Unknown,
            RunState::Running => match (self.still_waits(gils), holder) {
                (Some(gil), _) => ThreadState::Wait { gil },
                (None, Holder::Disabled | Holder::Stopped) if is_attached() == Some(true) => {
                    ThreadState::Parallel
                }
                // Nobody is known not to be this thread.
                (None, Holder::Unknown) => ThreadState::Unknown,
                (None, _) => ThreadState::Native,
            },
            RunState::InSyscall { .. } | RunState::OutsideSyscall => {
                self.waited = None;
                match holder {
                    Holder::Unknown => ThreadState::Unknown,
                    _ => ThreadState::Blocked(syscall(run_state)),
                }
            }
        }
    }

    /// The GIL that a running thread waits for nevertheless: it is woken every switch interval to ask the
    /// holder to give way (`take_gil` in CPython `Python/ceval_gil.c`), and may have to wait for a CPU then. It
    /// cannot have had the GIL meanwhile if that has been handed over no more than once, to somebody else.
    fn still_waits(&self, gils: Gils<'_>) -> Option<u16> {
        let (gil, before) = self.waited?;
        let sample = gils.samples.get(usize::from(gil))?;
        match sample.switch_number?.checked_sub(before)? {
            0 => Some(gil),
            1 if matches!(sample.holder, Holder::Thread { .. }) => Some(gil),
            _ => None,
        }
    }
}

impl Gils<'_> {
    /// The count of handovers of the GIL that a thread holds.
    fn held_by(&self, wanted: ThreadIndex) -> Option<u64> {
        let is_holder =
            |sample: &&GilSample| matches!(sample.holder, Holder::Thread { thread, .. } if thread == wanted);
        self.samples.iter().find(is_holder).map(|sample| sample.switch_number.unwrap_or(0))
    }

    /// The GIL of an interpreter.
    pub(super) fn of(&self, interpreter: i64) -> Option<u16> {
        self.by_interpreter.get(&interpreter).copied().filter(|gil| usize::from(*gil) < self.samples.len())
    }

    /// Whether a thread that held a GIL since some moment and still runs has only just given way to another: then it
    /// wants the GIL back, but may have to wait for a CPU before it can ask for it. One that has kept the GIL for a
    /// switch interval has been asked to give way; one that calls C code without the GIL hardly ever keeps it so
    /// long.
    fn gave_way(&self, gil: u16, since: Instant) -> bool {
        let Some(sample) = self.samples.get(usize::from(gil)) else { return false };
        let Some(interval) = sample.switch_interval else { return false };
        matches!(sample.holder, Holder::Thread { .. })
            && self.gap <= interval.mul_f64(APART)
            && self.now.saturating_duration_since(since) >= interval.mul_f64(KEPT)
    }

    /// The GIL on whose memory a thread sleeps in futex(2), as one does that waits for it.
    fn slept_on(&self, run_state: RunState) -> Option<u16> {
        let RunState::InSyscall { number, argument } = run_state else { return None };
        if number != Sysno::futex as u32 {
            return None;
        }
        let contains = |gil: &Gil| {
            let offset = Address::new(argument).offset_from(gil.address());
            gil.is_alive() && offset.is_some_and(|offset| offset < self.size)
        };
        let place = self.known[..self.samples.len()].iter().position(contains);
        let elsewhere = self.musl_waiters.iter().find(|(_, waiter)| waiter.raw() == argument);
        place.map(|place| place as u16).or(elsewhere.map(|(gil, _)| *gil))
    }
}

fn syscall(run_state: RunState) -> Option<Syscall> {
    match run_state {
        RunState::InSyscall { number, .. } => Syscall::from_number(number),
        _ => None,
    }
}
