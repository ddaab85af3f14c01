//! `gilspy record`: looks at a process until there is a reason to stop, then writes what it saw.

use std::time::Duration;

use anstyle::Style;
use anyhow::{Context, Result};

use super::attach::{Attached, attach, pauser};
use super::launch::{Launched, Start, exit_code};
use super::output::Outputs;
use super::progress::Progress;
use super::stop::{OnSignal, Stop, watch};
use crate::analysis::Analysed;
use crate::cli::RecordArgs;
use crate::recording::{Closing, Ending, Recorder, Recording, Thread, ThreadIndex, ThreadTrack};
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

/// Records and writes the pictures. Answers the exit status, a started program's own.
pub(super) fn run(args: RecordArgs) -> Result<u8> {
    let outputs = Outputs::open(args.output.as_deref(), args.format)?;
    match args.pid {
        Some(pid) => record_running(pid, &args, outputs),
        None => record_started(&args, outputs),
    }
}

fn record_running(pid: Pid, args: &RecordArgs, outputs: Outputs) -> Result<u8> {
    let attached = attach(pid)?;
    let pidfd = attached.process.pidfd().try_clone_to_owned().context("cannot watch the process")?;
    let stop = watch(pidfd, OnSignal::Stop)?;
    let recording = record(attached, args, &stop)?;
    report(&recording, outputs)?;
    Ok(0)
}

fn record_started(args: &RecordArgs, outputs: Outputs) -> Result<u8> {
    let mut launched = Launched::start(&args.command)?;
    let process = launched.process()?;
    let pidfd = process.pidfd().try_clone_to_owned().context("cannot watch the process")?;
    let stop = watch(pidfd, OnSignal::PassOn)?;
    let attached = match launched.attach(process)? {
        Start::Attached(attached) => *attached,
        Start::Ended(status) => return Err(launched.never_python(status)),
    };
    let recording = record(attached, args, &stop)?;
    if matches!(recording.ending, Ending::TargetExecuted | Ending::Finished) {
        eprintln!("gilspy: the recording is over; waiting for pid {} to end", recording.target.pid);
    }
    let status = launched.wait()?;
    report(&recording, outputs)?;
    Ok(exit_code(status))
}

/// Looks until the duration is over, `stop` says so, or the target is no longer there.
fn record(attached: Attached, args: &RecordArgs, stop: &Stop) -> Result<Recording> {
    let Attached { process, mut sampler, target } = attached;
    let progress = Progress::start(&target, args, sampler.threads().all().len());
    let mut recorder = Recorder::new(target, args.rate, !args.gil);
    let mut others = NativeThreads::new(process.pid());
    let groups = CpuGroups::of(process.pid());
    let cpu_before = own_cpu();
    let pauser = pauser(&args.pausing, process.pid())?;
    let mut overhead = Overhead::new(args.max_overhead / 100.0);
    let mut clock = clock(args);
    let end = args.duration.map(Timestamp::from_duration_since_start);
    let is_over = |now: Timestamp| end.is_some_and(|end| now >= end);
    take_over(&mut recorder, &sampler, Timestamp::START);

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
        let seen = tick(&mut recorder, &mut sampler, pauser.as_ref(), at, clock.stride(), args.gil)
            .and_then(|()| if is_time { refresh(&mut recorder, &mut sampler, at) } else { Ok(()) });
        if let Some(ending) = seen.err().and_then(|error| ending_after(error, &process)) {
            break ending;
        }
        if is_time {
            next_refresh = at.after(REFRESH);
            take_over(&mut recorder, &sampler, at);
            others.update(at, sampler.threads());
            progress.show(recorder.so_far(), at);
            if let Some(exceeded) = overhead.check(Duration::from_nanos(at.as_nanos())) {
                clock.slow_down(exceeded.divisor);
                recorder.change_rate(clock.now(), clock.stride());
                progress.say(&slower(&exceeded, args, clock.stride()));
            }
        }
    };
    progress.finish();
    let end = match ending {
        Ending::TargetExecuted => recorder.discard_unconfirmed(),
        _ => {
            // What is gone by now cannot be looked at again: its last ticks keep what they saw.
            recorder.confirm(clock.now(), &sampler.confirm().unwrap_or_default());
            take_over(&mut recorder, &sampler, clock.now());
            clock.now()
        }
    };
    let duration = Duration::from_nanos(end.as_nanos());
    let closing = Closing {
        ending,
        duration: args.duration.map_or(duration, |wanted| duration.min(wanted)),
        missed_ticks: clock.missed(),
        own_cpu: own_cpu().saturating_sub(cpu_before),
        native_threads: others.into_list(sampler.threads()),
        throttling: groups.and_then(|groups| groups.throttling()),
        cpus: process.cpus(),
    };
    Ok(recorder.finish(sampler.into_stacks(), closing))
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
    pauser: Option<&Pauser>,
    at: Timestamp,
    weight: u32,
    gil_only: bool,
) -> Result<(), ReadError> {
    let _paused = pauser.and_then(Pauser::pause);
    let (gils, threads) =
        if gil_only { (sampler.tick_gils()?, [].as_slice()) } else { sampler.tick_all()? };
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
    let met_before = recorder.so_far().threads.len();
    for (index, known) in sampler.threads().all().iter().enumerate() {
        if known.is_alive || index >= met_before {
            recorder.set_thread(ThreadIndex(index as u32), thread(known, at));
        }
    }
}

/// Takes over the threads that turned up during a tick.
pub(super) fn take_over_new(recorder: &mut Recorder, sampler: &Sampler<impl ReadMemory>, at: Timestamp) {
    let met_before = recorder.so_far().threads.len();
    for (index, known) in sampler.threads().all().iter().enumerate().skip(met_before) {
        recorder.set_thread(ThreadIndex(index as u32), thread(known, at));
    }
}

fn thread(known: &KnownThread, at: Timestamp) -> Thread {
    Thread {
        interpreter: known.interpreter,
        tid: known.tid,
        namespace_tid: known.namespace_tid,
        name: known.name.clone(),
        first_seen: at,
        last_seen: at,
        track: ThreadTrack::default(),
    }
}

/// Writes the pictures and says what is in them.
fn report(recording: &Recording, outputs: Outputs) -> Result<()> {
    let process = Analysed::of(recording)?;
    anstream::eprint!("{}", summary::text(recording, &process.analysis, Style::new().bold()));
    for (format, path) in outputs.write(&[process])? {
        eprintln!("{:<12} {}", format.title(), path.display());
    }
    Ok(())
}
