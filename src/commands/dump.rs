//! `gilspy dump`: what every thread does, its stack, and who held the GIL in many looks.

use std::io::{BufWriter, Write};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::attach::{Attached, attach, pauser, warn_of_hidden_threads};
use super::followed::{take_over, take_over_new};
use super::privileges::Privileges;
use crate::analysis::Looks;
use crate::cli::DumpArgs;
use crate::recording::snapshot::{
    GilSnapshot, HolderSnapshot, InterpreterSnapshot, Snapshot, ThreadSnapshot,
};
use crate::recording::{Recorder, ThreadIndex, ThreadState};
use crate::render::dump;
use crate::sample::{GilSample, Holder, StackIndex, StackTable};
use crate::sampler::{Clock, KnownThread, Sampler, Wakeup};
use crate::target::memory::{ReadError, ReadMemory};
use crate::target::pause::Pauser;
use crate::units::Timestamp;

/// For how long the GIL is looked at, so that the answer does not hang on one lucky moment.
const SPAN: Duration = Duration::from_millis(50);

/// How many times a second it is looked at meanwhile.
const LOOKS_HZ: u32 = 1000;

/// Looks at a process and prints what it saw.
pub(super) fn run(args: &DumpArgs) -> Result<u8> {
    let Attached { process, mut sampler, target, .. } = attach(args.pid)?;
    if !args.gil {
        warn_of_hidden_threads(&process);
    }
    Privileges::to_look().reduce()?;
    let time = jiff::Timestamp::now();
    let pauser = pauser(&args.pausing, &process)?;
    let interpreters = look(&mut sampler, pauser.as_ref()).map_err(|error| match error {
        ReadError::Gone => anyhow!("pid {} ended while gilspy was looking at it", args.pid),
        ReadError::Denied => process.denied().into(),
        other => anyhow!("pid {} cannot be read any more: {other}", args.pid),
    })?;
    if !process.is_alive() {
        return Err(anyhow!("pid {} ended while gilspy was looking at it", args.pid));
    }
    if process.has_executed() {
        return Err(anyhow!("pid {} started another program while gilspy was looking at it", args.pid));
    }
    let snapshot = Snapshot { target, time, interpreters };
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    match args.json {
        true => dump::json(&snapshot, &mut stdout).map_err(std::io::Error::from),
        false => stdout.write_all(dump::text(&snapshot, args.gil).as_bytes()),
    }
    .and_then(|()| stdout.flush())
    .context("cannot write to standard output")?;
    Ok(0)
}

fn look<M: ReadMemory>(
    sampler: &mut Sampler<M>,
    pauser: Option<&Pauser>,
) -> Result<Vec<InterpreterSnapshot>, ReadError> {
    let mut gils = vec![GilSnapshot::default(); sampler.gils().len()];
    let mut recorder = Recorder::new(LOOKS_HZ);
    let mut clock = Clock::start(LOOKS_HZ);
    take_over(&mut recorder, sampler, Timestamp::START);
    while clock.now() < Timestamp::from_duration_since_start(SPAN) {
        let Wakeup::Tick(at) = clock.wait(|_| false) else {
            break;
        };
        let _paused = pauser.and_then(Pauser::pause);
        let (samples, threads) = sampler.tick_all()?;
        recorder.add(at, 1, samples, threads);
        let samples = samples.to_vec();
        take_over_new(&mut recorder, sampler, at);
        for (gil, sample) in gils.iter_mut().zip(&samples) {
            gil.span = Duration::from_nanos(at.as_nanos());
            count(gil, sample, sampler.stacks());
        }
    }
    let _paused = pauser.and_then(Pauser::pause);
    sampler.refresh()?;
    let stretch = recorder.stretch();
    let looks = Looks::of(&stretch);
    for (place, gil) in gils.iter_mut().enumerate() {
        gil.held_by.sort_by_key(|(_, looks)| std::cmp::Reverse(*looks));
        gil.waiting = looks.waiting(place);
        for (holder, _) in &mut gil.held_by {
            if let Some(known) = sampler.threads().get(holder.index) {
                (holder.tid, holder.name) = (known.tid, known.name.clone());
            }
            holder.since = looks.in_same_call(holder.index);
        }
    }
    interpreters(sampler, &gils, &looks)
}

/// Takes one look into account.
fn count(gil: &mut GilSnapshot, sample: &GilSample, stacks: &StackTable) {
    gil.looks += 1;
    gil.handovers = sample.switch_number.or(gil.handovers);
    gil.switch_interval = sample.switch_interval.or(gil.switch_interval);
    match sample.holder {
        Holder::Thread { thread, stack } => {
            gil.enabled = Some(true);
            let holder = holder(gil, thread);
            holder.1 += 1;
            if let Some(frames) = stacks.frames(stack) {
                holder.0.frames = frames.cloned().collect();
            }
        }
        Holder::Nobody => {
            gil.enabled = Some(true);
            gil.free += 1;
        }
        Holder::Disabled => gil.enabled = Some(false),
        Holder::Stopped => {
            gil.enabled = Some(false);
            gil.stopped += 1;
        }
        Holder::Unknown => gil.unknown += 1,
    }
}

fn holder(gil: &mut GilSnapshot, index: ThreadIndex) -> &mut (HolderSnapshot, u32) {
    let place = gil.held_by.iter().position(|(holder, _)| holder.index == index).unwrap_or_else(|| {
        let holder = HolderSnapshot { index, tid: None, name: None, frames: Vec::new(), since: None };
        gil.held_by.push((holder, 0));
        gil.held_by.len() - 1
    });
    &mut gil.held_by[place]
}

fn interpreters<M: ReadMemory>(
    sampler: &mut Sampler<M>,
    gils: &[GilSnapshot],
    looks: &Looks<'_>,
) -> Result<Vec<InterpreterSnapshot>, ReadError> {
    let mut found = Vec::new();
    for (place, gil) in gils.iter().enumerate() {
        for interpreter in sampler.gils()[place].interpreters.clone() {
            let threads = threads(sampler, interpreter.id, gils, looks)?;
            found.push(InterpreterSnapshot { id: interpreter.id, gil: gil.clone(), threads });
        }
    }
    found.sort_by_key(|interpreter| interpreter.id);
    Ok(found)
}

/// The threads that are mostly in an interpreter, each with the stack that it had in most looks' state. A holder's is
/// the one it had while it held its GIL.
fn threads<M: ReadMemory>(
    sampler: &mut Sampler<M>,
    interpreter: i64,
    gils: &[GilSnapshot],
    looks: &Looks<'_>,
) -> Result<Vec<ThreadSnapshot>, ReadError> {
    let interpreter_ids: Vec<Vec<i64>> =
        (sampler.gils().iter()).map(|gil| gil.interpreters.iter().map(|known| known.id).collect()).collect();
    let is_there = |id: i64| interpreter_ids.iter().flatten().any(|known| *known == id);
    // Where it was most, or is now if that has ended.
    let home = |known: &KnownThread| match known.interpreter() {
        most if is_there(most) => most,
        _ => known.current_interpreter(),
    };
    let known: Vec<(ThreadIndex, KnownThread)> = (sampler.threads().all())
        .filter(|(_, known)| known.is_alive && home(known) == interpreter)
        .map(|(index, known)| (index, known.clone()))
        .collect();
    let mut threads = Vec::new();
    for (index, known) in known {
        let holder = gils.iter().find_map(|gil| gil.holder().filter(|(holder, _)| holder.index == index));
        let is_holder = holder.is_some();
        let usual = looks.usual(index, is_holder);
        let has_gil = matches!(usual.state, ThreadState::Hold | ThreadState::Stall(_));
        let held = holder.filter(|(holder, _)| has_gil && !holder.frames.is_empty());
        let frames = match held {
            Some((holder, _)) => Some(holder.frames.clone()),
            None => {
                let stack = match usual.stack {
                    StackIndex::UNKNOWN => sampler.stack(index)?,
                    stack => stack,
                };
                sampler.stacks().frames(stack).map(|frames| frames.cloned().collect())
            }
        };
        threads.push(ThreadSnapshot {
            index,
            tid: known.tid,
            namespace_tid: known.namespace_tid,
            interpreters: known.interpreters().collect(),
            name: known.name,
            state: usual.state,
            waits_elsewhere: match usual.state {
                ThreadState::Wait { gil } => (interpreter_ids.get(usize::from(gil)))
                    .filter(|ids| !ids.contains(&interpreter))
                    .and_then(|ids| ids.first().copied()),
                _ => None,
            },
            since: usual.since,
            waits_for: (looks.waits_for(index))
                .and_then(|holder| sampler.threads().get(holder))
                .map(|holder| (holder.name.clone(), holder.tid)),
            frames,
        });
    }
    threads.sort_by_key(|thread| thread.namespace_tid);
    Ok(threads)
}
