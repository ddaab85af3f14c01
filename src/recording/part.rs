//! A part of a recording: what has come since the part before. A recording is written and read part by part, each of
//! about a second.

use std::ops::Range;
use std::time::Duration;

use super::{GilRun, Holder, Runs, Thread, ThreadIndex, ThreadState, ThreadTrack, Throttling, Tick};
use crate::sample::{NativeThread, NewStacks, StackIndex, part};
use crate::units::Timestamp;

/// Threads of one process at most.
pub(super) const MOST_THREADS: usize = 1 << 20;

/// GILs of one process at most; CPython makes no process that has as many interpreters.
pub(super) const MOST_GILS: usize = 4096;

/// Ticks of a part times its GILs at most, and threads of a process times its GILs: what is computed of a part takes some
/// 20 bytes of memory for each.
const MOST_TICKS_OF_GILS: usize = 1 << 25;
const MOST_THREADS_OF_GILS: usize = 1 << 26;

/// What has come since the part before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// The moment until which this goes.
    pub until: Timestamp,
    /// Stacks that were not seen before.
    pub stacks: NewStacks,
    /// Threads that are new, in the order of their numbers, and those that have another name or id now.
    pub threads: Vec<(ThreadIndex, Thread)>,
    /// When threads were last there.
    pub last_seen: Vec<(ThreadIndex, Timestamp)>,
    /// Each GIL.
    pub gils: Vec<GilPart>,
    /// The moments at which the sampler looked.
    pub ticks: Vec<Tick>,
    /// What they saw of each thread, in the order of their numbers.
    pub tracks: Vec<(ThreadIndex, ThreadTrack)>,
    /// From when on a tick stood for how many periods of the rate asked for.
    pub rate_changes: Vec<(Timestamp, u32)>,
    /// What is not counted tick by tick.
    pub counted: Counted,
}

/// What is known of a GIL, and what the ticks of a part saw of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GilPart {
    /// The interpreters that have shared it so far.
    pub interpreters: Vec<i64>,
    /// The switch interval.
    pub switch_interval: Duration,
    /// What the ticks saw.
    pub runs: Runs<GilRun>,
}

/// What is counted, but not tick by tick.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    /// Moments at which the sampler should have looked and was too late.
    pub missed_ticks: u64,
    /// CPU time that gilspy used.
    pub own_cpu: Duration,
    /// What CPU quotas did to the process; `None` where there are none, or they cannot be read.
    pub throttling: Option<Throttling>,
    /// The process's threads that ran and run no Python.
    pub native_threads: Vec<NativeThread>,
}

impl Part {
    /// What a span of time has of it, with moments since that span's start. `since` is until when the part before
    /// went. What is not counted tick by tick is divided in proportion to time.
    pub(super) fn within(self, span: &Range<Timestamp>, since: Timestamp) -> Part {
        let place = |at: Timestamp| self.ticks.partition_point(|tick| tick.at < at);
        let ticks = place(span.start)..place(span.end).max(place(span.start));
        let nanos = |from: Timestamp, to: Timestamp| to.as_nanos().saturating_sub(from.as_nanos());
        let all = nanos(since, self.until);
        let covered = nanos(since.max(span.start), self.until.min(span.end));
        let share = if all > 0 { covered as f64 / all as f64 } else { 0.0 };
        let shift = |at: Timestamp| at.within(span);
        Part {
            until: shift(self.until),
            stacks: self.stacks,
            threads: self.threads,
            last_seen: self.last_seen,
            gils: (self.gils.into_iter())
                .map(|gil| GilPart { runs: gil.runs.within(&ticks), ..gil })
                .collect(),
            tracks: (self.tracks.into_iter())
                .map(|(thread, track)| (thread, track.within(&ticks, share)))
                .collect(),
            ticks: self.ticks[ticks.clone()]
                .iter()
                .map(|tick| Tick { at: shift(tick.at), ..*tick })
                .collect(),
            rate_changes: (self.rate_changes.into_iter())
                .filter(|(at, _)| *at < span.end)
                .map(|(at, weight)| (shift(at), weight))
                .collect(),
            counted: self.counted.part(share),
        }
    }

    /// Whether everything that it refers to is there: so many threads, so many stacks; or what is wrong.
    pub(super) fn check(&self, threads: usize, stacks: usize) -> Result<(), &'static str> {
        let ticks = self.ticks.len();
        let is_stack = |stack: StackIndex| stack.place().is_none_or(|place| (place as usize) < stacks);
        let is_thread = |thread: ThreadIndex| (thread.0 as usize) < threads;
        let all = |holds: bool, wrong: &'static str| if holds { Ok(()) } else { Err(wrong) };
        let gils = self.gils.len();
        all(gils <= MOST_GILS && threads * gils <= MOST_THREADS_OF_GILS, "too many GILs")?;
        all(ticks.saturating_mul(gils.max(1)) <= MOST_TICKS_OF_GILS, "too many ticks at once")?;
        for gil in &self.gils {
            all(gil.runs.ticks().end <= ticks, "a GIL was seen at a tick that there is none")?;
            for (_, run) in gil.runs.iter() {
                if let Holder::Thread { thread, stack } = run.holder {
                    all(is_thread(thread), "a GIL is held by a thread that there is none")?;
                    all(is_stack(stack), "a stack is missing")?;
                }
            }
        }
        all(self.tracks.windows(2).all(|pair| pair[0].0 < pair[1].0), "threads are out of order")?;
        for (thread, track) in &self.tracks {
            all(is_thread(*thread), "a thread is missing")?;
            all(track.runs.ticks().end <= ticks, "a thread was seen at a tick that there is none")?;
            let is_tick = |tick: u32| (tick as usize) < ticks;
            all(track.starvations.iter().all(|it| is_tick(it.tick)), "a thread starved at no tick")?;
            for (_, run) in track.runs.iter() {
                all(is_stack(run.stack), "a stack is missing")?;
                if let ThreadState::Wait { gil } = run.state {
                    all(usize::from(gil) < self.gils.len(), "a thread waits for a GIL that there is none")?;
                }
            }
        }
        Ok(())
    }
}

impl ThreadTrack {
    /// What some ticks saw, and a share of what is not known tick by tick.
    fn within(self, ticks: &Range<usize>, share: f64) -> ThreadTrack {
        ThreadTrack {
            runs: self.runs.within(ticks),
            times: self.times.part(share),
            starvations: (self.starvations.into_iter())
                .filter(|starvation| ticks.contains(&(starvation.tick as usize)))
                .map(|it| super::Starvation { tick: it.tick - ticks.start as u32, ..it })
                .collect(),
        }
    }
}

impl Counted {
    fn part(self, share: f64) -> Counted {
        let part_of = |thread: NativeThread| NativeThread { times: thread.times.part(share), ..thread };
        Counted {
            missed_ticks: self.missed_ticks,
            own_cpu: part(self.own_cpu, share),
            throttling: self.throttling.map(|throttling| throttling.part(share)),
            native_threads: match share > 0.0 {
                true => self.native_threads.into_iter().map(part_of).collect(),
                false => Vec::new(),
            },
        }
    }
}
