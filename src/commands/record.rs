//! `gilspy record`: looks at processes until there is a reason to stop, then writes what it saw.

use std::time::Duration;

use anstyle::Style;
use anyhow::{Context, Result, anyhow};

use super::attach::{Attached, Running, attach, host_name, look, warn_of_hidden_threads};
use super::finder::{Finder, MOST_FOLLOWED};
use super::followed::{Followed, Moment, OwnCpu};
use super::launch::{Launched, Start, exit_code};
use super::output::{Outputs, RecordingFile};
use super::print_error;
use super::privileges::Privileges;
use super::progress::Progress;
use super::snapshots::Snapshots;
use super::stop::{OnSignal, Stop, watch};
use crate::analysis::Analysed;
use crate::cli::{Format, RecordArgs};
use crate::recording::{Ending, NotARecording, Recording, Session, Stream, read};
use crate::render::summary_of_several;
use crate::sampler::{Clock, Exceeded, Overhead, Wakeup};
use crate::target::descriptors;
use crate::target::process::Process;
use crate::text::shown;
use crate::units::{Pid, Timestamp};

/// How often to look at what is not looked at at each tick.
const REFRESH: Duration = Duration::from_millis(100);

/// Records and writes the pictures. Answers the exit status, a started program's own.
pub(super) fn run(args: RecordArgs) -> Result<u8> {
    let outputs = Outputs::open(args.output.as_deref(), args.format, &args.stacks, &args.files)?;
    match args.pids.is_empty() {
        false => record_running(&args, outputs),
        true => record_started(&args, outputs),
    }
}

/// The processes that are asked for.
struct Roots {
    /// Those that have an interpreter.
    python: Vec<Attached>,
    /// Others, whose children may.
    others: Vec<Process>,
    /// After which one files are named.
    pid: Pid,
}

fn record_running(args: &RecordArgs, mut outputs: Outputs) -> Result<u8> {
    let mut pids = args.pids.clone();
    pids.sort();
    pids.dedup();
    let mut roots = Roots { python: Vec::new(), others: Vec::new(), pid: args.pids[0] };
    for pid in pids {
        match args.subprocesses {
            false => roots.python.push(attach(pid)?),
            true => match look(pid)? {
                Running::Python(attached) => roots.python.push(*attached),
                Running::Other(process, _) => roots.others.push(process),
            },
        }
    }
    if !args.gil {
        roots.python.iter().for_each(|attached| warn_of_hidden_threads(&attached.process));
    }
    let processes = roots.python.iter().map(|attached| &attached.process).chain(&roots.others);
    let pidfds = processes.map(|process| process.pidfd().try_clone_to_owned());
    let pidfds = pidfds.collect::<std::io::Result<_>>().context("cannot watch the processes")?;
    let privileges = outputs.privileges(args.subprocesses, false);
    let stop = watch(pidfds, OnSignal::Stop, privileges)?;
    record(roots, args, &stop, &mut outputs, privileges)?.report(outputs)?;
    Ok(0)
}

fn record_started(args: &RecordArgs, mut outputs: Outputs) -> Result<u8> {
    // Before the program starts: from then on each millisecond counts.
    let privileges = outputs.privileges(args.subprocesses, true);
    let mut launched = Launched::start(&args.command)?;
    let process = launched.process()?;
    let pid = process.pid();
    let pidfd = process.pidfd().try_clone_to_owned().context("cannot watch the process")?;
    let stop = watch(vec![pidfd], OnSignal::PassOn, privileges)?;
    let roots = match launched.attach(process, args.subprocesses)? {
        Start::Attached(attached) => Roots { python: vec![*attached], others: Vec::new(), pid },
        Start::Other(process) => Roots { python: Vec::new(), others: vec![process], pid },
        Start::Ended(status) => return Err(launched.never_python(status)),
    };
    let recorded = record(roots, args, &stop, &mut outputs, privileges)?;
    if recorded.failure.is_some() || matches!(recorded.ending, Ending::TargetExecuted | Ending::Finished) {
        eprintln!("gilspy: the recording is over; waiting for pid {pid} to end");
    }
    let status = launched.wait()?;
    recorded.report(outputs)?;
    Ok(exit_code(status))
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

/// Looks until the duration is over, `stop` says so, or there is no process any more.
fn record(
    roots: Roots,
    args: &RecordArgs,
    stop: &Stop,
    outputs: &mut Outputs,
    privileges: Privileges,
) -> Result<Recorded> {
    let start = jiff::Timestamp::now();
    let mut snapshots = Snapshots::new(outputs.snapshots(roots.pid, start));
    let RecordingFile { file, path } = outputs.start(roots.pid, start)?;
    privileges.reduce()?;
    let session = Session { host: host_name(), start, rate_hz: args.rate, sees_all_threads: !args.gil };
    let mut stream =
        Stream::start(file, path.is_some(), &session).with_context(|| cannot_write(path.as_deref()))?;
    let progress = Progress::start(&roots.python, &roots.others, args);
    let finder = args.subprocesses.then(|| find(&roots)).transpose()?;
    let mut own_cpu = OwnCpu::new();
    let first = Moment { at: Timestamp::START, weight: 1, missed: 0 };
    let mut followed = Vec::new();
    for attached in roots.python {
        followed.push(Followed::start(attached, None, first, args, &mut stream)?);
    }
    let mut overhead = Overhead::new(args.max_overhead / 100.0);
    let mut clock = clock(args);
    let end = args.duration.map(Timestamp::from_duration_since_start);
    let is_over = |now: Timestamp| end.is_some_and(|end| now >= end);

    let mut next_refresh = Timestamp::START.after(REFRESH);
    let mut has_said_few = false;
    let ending = loop {
        let Wakeup::Tick(at) = clock.wait(|now| stop.reason().is_some() || is_over(now)) else {
            break stop.reason().unwrap_or(Ending::Finished);
        };
        if is_over(at) {
            break Ending::Finished;
        }
        let now = Moment { at, weight: clock.stride(), missed: clock.missed() };
        let is_time = at >= next_refresh;
        let were_drawing = is_time && snapshots.were_drawing();
        // While one is drawn, the next has to wait.
        let wants_snapshot = is_time && !were_drawing && stop.wants_snapshot();
        let mut last = None;
        followed = (followed.into_iter())
            .filter_map(|mut process: Followed| match process.look(now, args.gil, wants_snapshot) {
                None => {
                    process.hand_over(now, wants_snapshot, &stream, &mut own_cpu);
                    Some(process)
                }
                Some(ending) => {
                    last = Some(ending);
                    process.end(ending, now, end, &stream, &mut own_cpu);
                    None
                }
            })
            .collect();
        if let (Some(ending), None, true) = (last, &finder, followed.is_empty()) {
            break ending;
        }
        if !is_time {
            continue;
        }
        next_refresh = at.after(REFRESH);
        progress.show(&followed, at);
        if wants_snapshot {
            match stream.so_far() {
                Ok(written) => snapshots.draw(written),
                Err(error) => progress.say(&format!("gilspy: cannot write a snapshot: {error}")),
            }
        }
        if stream.has_failed() {
            break Ending::Lost;
        }
        let mut has_attached = false;
        if let Some(finder) = &finder {
            for found in finder.found() {
                let now = Moment { at: clock.now(), ..now };
                match Followed::start(found.attached, found.parent, now, args, &mut stream) {
                    Ok(process) => followed.push(process),
                    Err(error) => progress.say(&format!("gilspy: {error:#}")),
                }
            }
            has_attached = finder.has_attached();
            if finder.is_full() {
                progress.say(&format!(
                    "gilspy: {MOST_FOLLOWED} processes are followed already; no more are until some of them end"
                ));
            }
            if finder.lacks_descriptors() && !std::mem::replace(&mut has_said_few, true) {
                progress.say(&format!(
                    "gilspy: some processes are not followed: gilspy may have only {} files open\n  \
                     Raise that limit: ulimit -n, LimitNOFILE= of a systemd unit, --ulimit nofile=… of docker run",
                    descriptors::limit()
                ));
            }
        }
        let since_start = Duration::from_nanos(at.as_nanos());
        if were_drawing || wants_snapshot || has_attached {
            // That is not what looking costs.
            overhead.restart(since_start);
        } else if let Some(exceeded) = overhead.check(since_start) {
            clock.slow_down(exceeded.divisor);
            for process in &mut followed {
                process.change_rate(clock.now(), clock.stride());
            }
            progress.say(&slower(&exceeded, args, clock.stride()));
        }
    };
    progress.finish();
    drop(finder);
    let at = clock.now();
    let missed = clock.missed_until(end.map_or(at, |end| end.min(at)));
    let now = Moment { at, weight: clock.stride(), missed };
    for process in followed {
        let ending = match ending {
            // The others it is about have ended; this one is their child.
            Ending::TargetExited if process.is_alive() => Ending::Finished,
            _ => ending,
        };
        process.end(ending, now, end, &stream, &mut own_cpu);
    }
    snapshots.wait();
    finish(stream, ending, now.at, path)
}

/// Begins to look for what the processes start.
fn find(roots: &Roots) -> Result<Finder> {
    let python = roots.python.iter().map(|root| (root.process.pid(), root.located.clone()));
    let others = roots.others.iter().map(Process::pid);
    Finder::start(python.collect(), others.collect())
}

/// Waits until all is written, and reads it.
fn finish(
    stream: Stream,
    ending: Ending,
    now: Timestamp,
    path: Option<std::path::PathBuf>,
) -> Result<Recorded> {
    let what = || cannot_write(path.as_deref());
    let (source, error) = stream.finish().with_context(what)?;
    let failure = error.map(|error| {
        anyhow::Error::from(error)
            .context(what())
            .context(format!("the recording ended after {:.1} s", now.as_secs_f64()))
    });
    let recordings = match read(&source) {
        Err(NotARecording::Empty) => {
            return Err(anyhow!(
                "no CPython interpreter was seen in what was to be recorded, or in its children"
            ));
        }
        recordings => recordings.with_context(what)?,
    };
    Ok(Recorded { ending, recordings, path, failure })
}

fn cannot_write(path: Option<&std::path::Path>) -> String {
    match path {
        Some(path) => format!("cannot write {}", shown(path)),
        None => "cannot write the recording to a temporary file (TMPDIR says where)".to_owned(),
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

impl Recorded {
    /// Writes the pictures and says what is in them.
    fn report(self, outputs: Outputs) -> Result<()> {
        let processes = self.recordings.iter().map(Analysed::of).collect::<Result<Vec<_>, _>>()?;
        anstream::eprint!("{}", summary_of_several::text(&processes, Style::new().bold()));
        let written = outputs.write_or_keep(&processes, self.path.as_deref());
        if let Some(path) = &self.path {
            eprintln!("{:<12} {}", Format::Recording.title(), shown(path));
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
