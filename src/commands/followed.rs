//! One process that is being recorded: it is looked at tick by tick, and what was seen is handed over to be written.

use std::time::Duration;

use anyhow::Result;

use super::attach::{Attached, pauser};
use crate::cli::RecordArgs;
use crate::recording::{Counted, Ending, NewProcess, Recorder, Stream, TaskTimes, Thread, Throttling};
use crate::sampler::{KnownThread, NativeThreads, Sampler, own_cpu};
use crate::target::cgroup::CpuGroups;
use crate::target::memory::live::LiveMemory;
use crate::target::memory::{ReadError, ReadMemory};
use crate::target::pause::Pauser;
use crate::target::process::Process;
use crate::units::Timestamp;

/// How often to look for new threads and names, and whether code objects are still what they were.
const REFRESH: Duration = Duration::from_millis(100);

/// How often what was seen is handed over to be written.
const WRITE: Duration = Duration::from_secs(1);

/// Processes are refreshed at different ticks, as far as there are no more than that.
const TURNS: u32 = 10;

/// A process that is being recorded.
pub(super) struct Followed {
    /// Its number in the recording.
    number: u32,
    process: Process,
    sampler: Sampler<LiveMemory>,
    recorder: Recorder,
    others: NativeThreads,
    groups: Option<CpuGroups>,
    pauser: Option<Pauser>,
    next_refresh: Timestamp,
    next_write: Timestamp,
    /// What was counted when a part was last handed over.
    missed: u64,
    throttling: Option<Throttling>,
}

/// A tick, as far as it is the same for all processes.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) at: Timestamp,
    /// For how many periods it stands.
    pub(super) weight: u32,
    /// How many were missed so far.
    pub(super) missed: u64,
}

/// CPU time that gilspy used and that is not told yet. It is told with one of the processes.
pub(super) struct OwnCpu(Duration);

impl OwnCpu {
    pub(super) fn new() -> Self {
        OwnCpu(own_cpu())
    }

    fn since_last_told(&mut self) -> Duration {
        let now = own_cpu();
        now.saturating_sub(std::mem::replace(&mut self.0, now))
    }
}

impl Followed {
    /// Begins to record a process; `missed` ticks were missed before.
    pub(super) fn start(
        attached: Attached,
        parent: Option<u32>,
        now: Moment,
        args: &RecordArgs,
        stream: &mut Stream,
    ) -> Result<Self> {
        let Attached { process, sampler, target, .. } = attached;
        let cpus = process.cpus();
        let number = stream.add_process(NewProcess { target, cpus, parent, since: now.at });
        let mut recorder = Recorder::new(args.rate);
        if now.weight > 1 {
            recorder.change_rate(now.at, now.weight);
        }
        take_over(&mut recorder, &sampler, now.at);
        // Nothing is in doubt yet: if it executes another program next, it was recorded until now.
        recorder.confirm(now.at, &[]);
        Ok(Followed {
            number,
            others: NativeThreads::new(process.entry().clone()),
            groups: CpuGroups::of(process.entry()),
            pauser: pauser(&args.pausing, &process)?,
            process,
            sampler,
            recorder,
            next_refresh: now.at.after(REFRESH / TURNS * (TURNS - number % TURNS)),
            next_write: now.at.after(WRITE),
            missed: now.missed,
            throttling: None,
        })
    }

    /// One tick, and now and then what changes rarely, or if it is `due`. Answers why it was the last one, if it was.
    pub(super) fn look(&mut self, now: Moment, gil_only: bool, due: bool) -> Option<Ending> {
        let is_time = due || now.at >= self.next_refresh;
        if is_time && self.process.has_executed() {
            return Some(Ending::TargetExecuted);
        }
        let seen =
            self.tick(now, gil_only).and_then(|()| if is_time { self.refresh(now.at) } else { Ok(()) });
        if let Some(ending) = seen.err().and_then(|error| self.ending_after(error)) {
            return Some(ending);
        }
        if is_time {
            self.next_refresh = now.at.after(REFRESH);
            take_over(&mut self.recorder, &self.sampler, now.at);
            self.others.update(now.at, self.sampler.threads());
        }
        None
    }

    /// Every GIL, and every thread unless only holders are asked for.
    fn tick(&mut self, now: Moment, gil_only: bool) -> Result<(), ReadError> {
        let _paused = self.pauser.as_ref().and_then(Pauser::pause);
        let (gils, threads) =
            if gil_only { (self.sampler.tick_gils()?, [].as_slice()) } else { self.sampler.tick_all()? };
        // Memory is read by pid, which may be another process's once this one has ended.
        if !self.process.is_alive() {
            return Err(ReadError::Gone);
        }
        self.recorder.add(now.at, now.weight, gils, threads);
        take_over_new(&mut self.recorder, &self.sampler, now.at);
        Ok(())
    }

    /// Looks at what changes rarely.
    fn refresh(&mut self, at: Timestamp) -> Result<(), ReadError> {
        self.recorder.confirm(at, &self.sampler.confirm()?);
        self.sampler.refresh()
    }

    /// What a failed read says about the process; `None` where the next tick may well succeed.
    fn ending_after(&self, error: ReadError) -> Option<Ending> {
        let process = &self.process;
        match error {
            ReadError::Gone => Some(Ending::TargetExited),
            ReadError::Denied | ReadError::Kernel(_) => Some(Ending::TargetUnreadable),
            ReadError::Unmapped(_) if process.has_no_memory() => Some(Ending::TargetExited),
            ReadError::Unmapped(_) if process.has_executed() => Some(Ending::TargetExecuted),
            ReadError::Unmapped(_) | ReadError::Exhausted => None,
        }
    }

    /// Hands over what was seen until now, if it is time for that, or `due`, and all of it is confirmed; later, if the
    /// disk does not keep up.
    pub(super) fn hand_over(&mut self, now: Moment, due: bool, stream: &Stream, own: &mut OwnCpu) {
        let is_time = due || now.at >= self.next_write;
        if is_time && self.recorder.is_confirmed() && stream.is_ready() {
            self.next_write = now.at.after(WRITE);
            self.append(now.at, now.missed, stream, own);
        }
    }

    fn append(&mut self, at: Timestamp, missed: u64, stream: &Stream, own: &mut OwnCpu) {
        let throttling = self.groups.as_ref().and_then(CpuGroups::throttling);
        let counted = Counted {
            missed_ticks: missed.saturating_sub(std::mem::replace(&mut self.missed, missed)),
            own_cpu: own.since_last_told(),
            throttling: match (throttling, std::mem::replace(&mut self.throttling, throttling)) {
                (Some(now), Some(before)) => Some(now.since(before)),
                (now, _) => now,
            },
            native_threads: self.others.since_last_told(),
        };
        stream.append(self.number, self.recorder.take(self.sampler.stacks(), at, counted));
        let threads = self.sampler.threads();
        self.recorder.forget_threads(|index| threads.get(index).is_none());
    }

    /// Writes the rest; nothing is recorded beyond `latest`.
    pub(super) fn end(
        mut self,
        ending: Ending,
        now: Moment,
        latest: Option<Timestamp>,
        stream: &Stream,
        own: &mut OwnCpu,
    ) {
        let end = match ending {
            Ending::TargetExecuted => self.recorder.discard_unconfirmed(),
            _ => {
                // What is gone by now cannot be looked at again: its last ticks keep what they saw.
                self.recorder.confirm(now.at, &self.sampler.confirm().unwrap_or_default());
                take_over(&mut self.recorder, &self.sampler, now.at);
                now.at
            }
        };
        let end = latest.map_or(end, |latest| end.min(latest));
        self.others.look(self.sampler.threads());
        self.append(end, now.missed, stream, own);
        if ending != Ending::Lost {
            stream.close(self.number, ending, Duration::from_nanos(end.as_nanos()));
        }
    }

    /// Whether it has not ended.
    pub(super) fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// Notes how often it is looked at from now on.
    pub(super) fn change_rate(&mut self, now: Timestamp, weight: u32) {
        self.recorder.change_rate(now, weight);
    }

    /// For how much of the last second or two its first GIL was held, from 0 to 1.
    pub(super) fn held_lately(&self) -> f64 {
        self.recorder.held_lately()
    }
}

/// Takes over what the sampler knows about interpreters and threads; threads that have ended stay as they
/// were.
pub(super) fn take_over(recorder: &mut Recorder, sampler: &Sampler<impl ReadMemory>, at: Timestamp) {
    for (gil, known) in sampler.gils().iter().enumerate() {
        recorder.set_interpreters(gil, known.interpreters.iter().map(|interpreter| interpreter.id));
    }
    let met_before = recorder.threads();
    for (index, known) in sampler.threads().all() {
        if known.is_alive || index.0 as usize >= met_before {
            recorder.set_thread(index, thread(known, at));
        }
    }
}

/// Takes over the threads that turned up during a tick.
pub(super) fn take_over_new(recorder: &mut Recorder, sampler: &Sampler<impl ReadMemory>, at: Timestamp) {
    let met_before = recorder.threads();
    for (index, known) in sampler.threads().since(met_before) {
        recorder.set_thread(index, thread(known, at));
    }
}

fn thread(known: &KnownThread, at: Timestamp) -> Thread {
    Thread {
        interpreter: known.interpreter(),
        interpreters: known.interpreters().collect(),
        tid: known.tid,
        namespace_tid: known.namespace_tid,
        name: known.name.clone(),
        first_seen: at,
        last_seen: at,
        times: TaskTimes::default(),
    }
}
