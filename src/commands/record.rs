//! `gilspy record`: looks at a process until there is a reason to stop, then writes what it saw.

use std::time::Duration;

use anstyle::Style;
use anyhow::{Context, Result};

use super::attach::{Attached, attach, pauser};
use super::launch::{Launched, Start, exit_code};
use super::output::{Outputs, RecordingFile};
use super::print_error;
use super::progress::Progress;
use super::snapshots::Snapshots;
use super::stop::{OnSignal, Stop, watch};
use crate::analysis::Analysed;
use crate::cli::{Format, RecordArgs};
use crate::recording::{
    Counted, Ending, Recorder, Recording, Session, Stream, Target, TaskTimes, Thread, ThreadIndex,
    Throttling, read,
};
use crate::render::summary;
use crate::sampler::{Clock, Exceeded, KnownThread, NativeThreads, Overhead, Sampler, Wakeup, own_cpu};
use crate::target::cgroup::CpuGroups;
use crate::target::memory::live::LiveMemory;
use crate::target::memory::{ReadError, ReadMemory};
use crate::target::pause::Pauser;
use crate::target::process::Process;
use crate::units::{Pid, Timestamp};

/// How often to look for new threads and names, and whether code objects are still what they were.
const REFRESH: Duration = Duration::from_millis(100);

/// How often what was seen is handed over to be written.
const WRITE: Duration = Duration::from_secs(1);

/// Records and writes the pictures. Answers the exit status, a started program's own.
pub(super) fn run(args: RecordArgs) -> Result<u8> {
    let outputs = Outputs::open(args.output.as_deref(), args.format, &args.stacks)?;
    match args.pid {
        Some(pid) => record_running(pid, &args, outputs),
        None => record_started(&args, outputs),
    }
}

fn record_running(pid: Pid, args: &RecordArgs, mut outputs: Outputs) -> Result<u8> {
    let attached = attach(pid)?;
    let pidfd = attached.process.pidfd().try_clone_to_owned().context("cannot watch the process")?;
    let stop = watch(pidfd, OnSignal::Stop)?;
    record(attached, args, &stop, &mut outputs)?.report(outputs)?;
    Ok(0)
}

fn record_started(args: &RecordArgs, mut outputs: Outputs) -> Result<u8> {
    let mut launched = Launched::start(&args.command)?;
    let process = launched.process()?;
    let pidfd = process.pidfd().try_clone_to_owned().context("cannot watch the process")?;
    let stop = watch(pidfd, OnSignal::PassOn)?;
    let attached = match launched.attach(process)? {
        Start::Attached(attached) => *attached,
        Start::Ended(status) => return Err(launched.never_python(status)),
    };
    let pid = attached.process.pid();
    let recorded = record(attached, args, &stop, &mut outputs)?;
    if recorded.failure.is_some() || matches!(recorded.ending, Ending::TargetExecuted | Ending::Finished) {
        eprintln!("gilspy: the recording is over; waiting for pid {pid} to end");
    }
    let status = launched.wait()?;
    recorded.report(outputs)?;
    Ok(exit_code(status))
}

/// A process that is being recorded.
struct Recordings {
    recorder: Recorder,
    stream: Stream,
    others: NativeThreads,
    groups: Option<CpuGroups>,
    /// What was counted when a part was last handed over.
    missed: u64,
    own_cpu: Duration,
    throttling: Option<Throttling>,
    next_write: Timestamp,
}

/// What was recorded, as far as it could be written.
struct Recorded {
    ending: Ending,
    recordings: Vec<Recording>,
    /// The file that is kept.
    path: Option<std::path::PathBuf>,
    /// Why not all of it was.
    failure: Option<anyhow::Error>,
}

/// Looks until the duration is over, `stop` says so, or the target is no longer there.
fn record(attached: Attached, args: &RecordArgs, stop: &Stop, outputs: &mut Outputs) -> Result<Recorded> {
    let Attached { process, mut sampler, target } = attached;
    let start = jiff::Timestamp::now();
    let mut snapshots = Snapshots::new(outputs.snapshots(target.pid, start));
    let RecordingFile { file, path } = outputs.start(target.pid, start)?;
    let mut recording = Recordings::start(file, path.is_some(), start, &target, &process, args)
        .with_context(|| cannot_write(path.as_deref()))?;
    let progress = Progress::start(&target, args, sampler.threads().all().len());
    let pauser = pauser(&args.pausing, &process)?;
    let mut overhead = Overhead::new(args.max_overhead / 100.0);
    let mut clock = clock(args);
    let end = args.duration.map(Timestamp::from_duration_since_start);
    let is_over = |now: Timestamp| end.is_some_and(|end| now >= end);
    take_over(&mut recording.recorder, &sampler, Timestamp::START);

    let mut next_refresh = Timestamp::START.after(REFRESH);
    let ending = loop {
        let Wakeup::Tick(at) = clock.wait(|now| stop.reason().is_some() || is_over(now)) else {
            break stop.reason().unwrap_or(Ending::Finished);
        };
        if is_over(at) {
            break Ending::Finished;
        }
        let is_time = at >= next_refresh;
        if is_time && process.has_executed() {
            break Ending::TargetExecuted;
        }
        let recorder = &mut recording.recorder;
        let seen = tick(recorder, &mut sampler, &process, pauser.as_ref(), at, clock.stride(), args.gil)
            .and_then(|()| if is_time { refresh(recorder, &mut sampler, at) } else { Ok(()) });
        if let Some(ending) = seen.err().and_then(|error| ending_after(error, &process)) {
            break ending;
        }
        if is_time {
            next_refresh = at.after(REFRESH);
            take_over(recorder, &sampler, at);
            progress.show(recorder, at);
            recording.others.update(at, sampler.threads());
            let were_drawing = snapshots.were_drawing();
            // While one is drawn, the next has to wait.
            let wants_snapshot = !were_drawing && stop.wants_snapshot();
            if wants_snapshot || at >= recording.next_write {
                recording.hand_over(&sampler, clock.missed(), at);
            }
            if wants_snapshot {
                match recording.stream.so_far() {
                    Ok(written) => snapshots.draw(written),
                    Err(error) => progress.say(&format!("gilspy: cannot write a snapshot: {error}")),
                }
            }
            if recording.stream.has_failed() {
                break Ending::Lost;
            }
            let now = Duration::from_nanos(at.as_nanos());
            if were_drawing || wants_snapshot {
                // That is not what looking costs.
                overhead.restart(now);
            } else if let Some(exceeded) = overhead.check(now) {
                clock.slow_down(exceeded.divisor);
                recording.recorder.change_rate(clock.now(), clock.stride());
                progress.say(&slower(&exceeded, args, clock.stride()));
            }
        }
    };
    progress.finish();
    let recorder = &mut recording.recorder;
    let end = match ending {
        Ending::TargetExecuted => recorder.discard_unconfirmed(),
        _ => {
            // What is gone by now cannot be looked at again: its last ticks keep what they saw.
            recorder.confirm(clock.now(), &sampler.confirm().unwrap_or_default());
            take_over(recorder, &sampler, clock.now());
            clock.now()
        }
    };
    let duration = Duration::from_nanos(end.as_nanos());
    let duration = args.duration.map_or(duration, |wanted| duration.min(wanted));
    snapshots.wait();
    recording.finish(ending, duration, &sampler, clock.missed(), path)
}

fn cannot_write(path: Option<&std::path::Path>) -> String {
    match path {
        Some(path) => format!("cannot write {}", path.display()),
        None => "cannot write the recording to a temporary file (TMPDIR says where)".to_owned(),
    }
}

impl Recordings {
    fn start(
        file: std::fs::File,
        is_kept: bool,
        start: jiff::Timestamp,
        target: &Target,
        process: &Process,
        args: &RecordArgs,
    ) -> std::io::Result<Self> {
        let session =
            Session { host: target.host.clone(), start, rate_hz: args.rate, sees_all_threads: !args.gil };
        Ok(Recordings {
            recorder: Recorder::new(args.rate),
            stream: Stream::start(file, is_kept, &session, &[(target, process.cpus())])?,
            others: NativeThreads::new(process.entry().clone()),
            groups: CpuGroups::of(process.entry()),
            missed: 0,
            own_cpu: own_cpu(),
            throttling: None,
            next_write: Timestamp::START.after(WRITE),
        })
    }

    /// Hands over what was seen until now, all of which is confirmed; later, if the disk does not keep up.
    fn hand_over(&mut self, sampler: &Sampler<LiveMemory>, missed: u64, at: Timestamp) {
        if self.stream.is_ready() && self.recorder.is_confirmed() {
            self.next_write = at.after(WRITE);
            self.append(sampler, missed, at);
        }
    }

    fn append(&mut self, sampler: &Sampler<LiveMemory>, missed: u64, at: Timestamp) {
        let own_cpu = own_cpu();
        let throttling = self.groups.as_ref().and_then(CpuGroups::throttling);
        let counted = Counted {
            missed_ticks: missed.saturating_sub(std::mem::replace(&mut self.missed, missed)),
            own_cpu: own_cpu.saturating_sub(std::mem::replace(&mut self.own_cpu, own_cpu)),
            throttling: match (throttling, std::mem::replace(&mut self.throttling, throttling)) {
                (Some(now), Some(before)) => Some(now.since(before)),
                (now, _) => now,
            },
            native_threads: self.others.since_last_told(),
        };
        self.stream.append(0, self.recorder.take(sampler.stacks(), at, counted));
    }

    /// Writes the rest.
    fn finish(
        mut self,
        ending: Ending,
        duration: Duration,
        sampler: &Sampler<LiveMemory>,
        missed: u64,
        path: Option<std::path::PathBuf>,
    ) -> Result<Recorded> {
        self.others.look(sampler.threads());
        self.append(sampler, missed, Timestamp::from_duration_since_start(duration));
        if ending != Ending::Lost {
            self.stream.close(0, ending, duration);
        }
        let what = || cannot_write(path.as_deref());
        let (source, error) = self.stream.finish().with_context(what)?;
        let failure = error.map(|error| {
            let seconds = duration.as_secs_f64();
            anyhow::Error::from(error)
                .context(what())
                .context(format!("the recording ended after {seconds:.1} s"))
        });
        let recordings = read(&source).with_context(what)?;
        Ok(Recorded { ending, recordings, path, failure })
    }
}

/// Being woken takes longer than the periods of such rates.
const BUSY_FROM_HZ: u32 = 5000;

/// A clock that waits busily where that is needed and allowed.
fn clock(args: &RecordArgs) -> Clock {
    let clock = Clock::start(args.rate);
    match args.rate >= BUSY_FROM_HZ && args.max_overhead >= 100.0 {
        true => clock.busy(),
        false => clock,
    }
}

fn slower(exceeded: &Exceeded, args: &RecordArgs, stride: u32) -> String {
    format!(
        "gilspy: used {:.1} % of one CPU, more than --max-overhead {}: now {:.0} Hz",
        exceeded.used * 100.0,
        args.max_overhead,
        f64::from(args.rate) / f64::from(stride)
    )
}

/// Looks at what changes rarely.
fn refresh(
    recorder: &mut Recorder,
    sampler: &mut Sampler<LiveMemory>,
    at: Timestamp,
) -> Result<(), ReadError> {
    recorder.confirm(at, &sampler.confirm()?);
    sampler.refresh()
}

/// What a failed read says about the target; `None` where the next tick may well succeed.
fn ending_after(error: ReadError, process: &Process) -> Option<Ending> {
    match error {
        ReadError::Gone => Some(Ending::TargetExited),
        ReadError::Denied | ReadError::Kernel(_) => Some(Ending::TargetUnreadable),
        ReadError::Unmapped(_) if process.has_no_memory() => Some(Ending::TargetExited),
        ReadError::Unmapped(_) if process.has_executed() => Some(Ending::TargetExecuted),
        ReadError::Unmapped(_) => None,
    }
}

/// One tick: every GIL, and every thread unless only holders are asked for.
fn tick(
    recorder: &mut Recorder,
    sampler: &mut Sampler<LiveMemory>,
    process: &Process,
    pauser: Option<&Pauser>,
    at: Timestamp,
    weight: u32,
    gil_only: bool,
) -> Result<(), ReadError> {
    let _paused = pauser.and_then(Pauser::pause);
    let (gils, threads) =
        if gil_only { (sampler.tick_gils()?, [].as_slice()) } else { sampler.tick_all()? };
    // Memory is read by pid, which may be another process's once this one has ended.
    if !process.is_alive() {
        return Err(ReadError::Gone);
    }
    recorder.add(at, weight, gils, threads);
    take_over_new(recorder, sampler, at);
    Ok(())
}

/// Takes over what the sampler knows about interpreters and threads; threads that have ended stay as they
/// were.
pub(super) fn take_over(recorder: &mut Recorder, sampler: &Sampler<impl ReadMemory>, at: Timestamp) {
    for (gil, known) in sampler.gils().iter().enumerate() {
        recorder.set_interpreters(gil, known.interpreters.iter().map(|interpreter| interpreter.id));
    }
    let met_before = recorder.threads();
    for (index, known) in sampler.threads().all().iter().enumerate() {
        if known.is_alive || index >= met_before {
            recorder.set_thread(ThreadIndex(index as u32), thread(known, at));
        }
    }
}

/// Takes over the threads that turned up during a tick.
pub(super) fn take_over_new(recorder: &mut Recorder, sampler: &Sampler<impl ReadMemory>, at: Timestamp) {
    let met_before = recorder.threads();
    for (index, known) in sampler.threads().all().iter().enumerate().skip(met_before) {
        recorder.set_thread(ThreadIndex(index as u32), thread(known, at));
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

impl Recorded {
    /// Writes the pictures and says what is in them.
    fn report(self, outputs: Outputs) -> Result<()> {
        let processes = self.recordings.iter().map(Analysed::of).collect::<Result<Vec<_>, _>>()?;
        for process in &processes {
            anstream::eprint!("{}", summary::text(process.recording, &process.analysis, Style::new().bold()));
        }
        let written = outputs.write(&processes);
        if let Some(path) = &self.path {
            eprintln!("{:<12} {}", Format::Recording.title(), path.display());
        }
        match self.failure {
            Some(failure) => {
                written.unwrap_or_else(|error| print_error(&error));
                Err(failure)
            }
            None => written,
        }
    }
}
