//! Version 1 of the format, as in `docs/recording-format.md`: what the blocks of a file hold. These types are not to be
//! changed, save that a field may be added at the end of one: recordings are kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::part::{Counted, GilPart, Part};
use super::{
    Ending, Frame, GilRun, Holder, NativeThread, Runs, StackIndex, StackTable, Starvation, Syscall,
    TaskTimes, Thread, ThreadIndex, ThreadRun, ThreadState, ThreadTrack, Throttling, Tick,
};
use crate::sample::NewStacks;
use crate::units::{NamespaceTid, Tid, Timestamp};

/// Longer recordings are not believed: a year.
const LATEST_NS: u64 = 366 * 86_400 * 1_000_000_000;

/// A tick stands for no more periods: `Clock` slows down no further.
const MOST_WEIGHT: u32 = 1_000_000;

/// What holds for the whole file: a block of kind [`HEADER`], the first one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    /// The version of gilspy that wrote it.
    pub gilspy: String,
    pub host: String,
    /// Seconds since 1970 and nanoseconds besides.
    pub start_s: i64,
    pub start_ns: i32,
    pub rate_hz: u32,
    pub sees_all_threads: bool,
    /// Ticks are at multiples of that.
    pub tick_unit_ns: u32,
}

/// A process: [`PROCESS`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Process {
    /// How other blocks call it.
    pub number: u32,
    /// The number of the process that started it, if that is recorded too.
    pub parent: Option<u32>,
    /// When it was first looked at, since the start of the recording.
    pub since_ns: u64,
    pub pid: i32,
    /// The same in its own namespace.
    pub namespace_pid: Option<i32>,
    pub python: String,
    pub free_threaded: bool,
    pub command: Vec<String>,
    /// On how many CPUs it may run.
    pub cpus: u32,
}

/// What was recorded of a process since its last block of this kind: [`STRETCH`]. Lists of the same length are the
/// columns of a table: like stands beside like, which compresses well.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Stretch {
    pub process: u32,
    pub until_ns: u64,
    pub counted: CountedColumns,

    /// New names of functions and files; they are referred to by their places among all of the process's.
    pub texts: Vec<String>,
    /// New frames. A line is 0 where there is none, else one more than its number.
    pub frame_function: Vec<u32>,
    pub frame_file: Vec<u32>,
    pub frame_line: Vec<u64>,
    /// New stacks: how many outermost frames each has in common with the one before, how many others, and these, from
    /// the outermost inward.
    pub stack_shared: Vec<u32>,
    pub stack_others: Vec<u32>,
    pub stack_frames: Vec<u32>,

    pub threads: Vec<ThreadRecord>,
    /// Threads that were there again.
    pub seen_thread: Vec<u32>,
    pub seen_ns: Vec<u64>,

    /// The first tick since the start of the recording, each other one since the one before, in the header's unit.
    pub tick: Vec<u64>,
    /// From which tick on a tick stands for how many periods.
    pub weight_from: Vec<u32>,
    pub weight: Vec<u32>,
    pub rate_change_ns: Vec<u64>,
    pub rate_change_weight: Vec<u32>,

    /// Each GIL: its interpreters, its switch interval, how many runs of ticks that saw the same, and the tick after
    /// the last.
    pub gil_interpreters: Vec<Vec<i64>>,
    pub gil_switch_interval_ns: Vec<u64>,
    pub gil_runs: Vec<u32>,
    pub gil_end: Vec<u32>,
    /// Each run of each GIL: its first tick (of the first run from 0 on, then since the run before), who held it (0
    /// nobody, 1 there is none, 2 unknown, 3 there is none and one thread had stopped others, else 4 more than the
    /// thread), the count of handovers since the run before.
    pub gil_run_from: Vec<u32>,
    pub gil_run_holder: Vec<u64>,
    pub gil_run_handovers: Vec<i64>,
    /// The stack of each run that a thread held it: 0 unknown, else 1 more than its place.
    pub gil_run_stack: Vec<u64>,

    /// Each thread that ticks saw: its number, how many runs, the tick after the last.
    pub track_thread: Vec<u32>,
    pub track_runs: Vec<u32>,
    pub track_end: Vec<u32>,
    pub track_cpu_ns: Vec<u64>,
    pub track_run_queue_ns: Vec<u64>,
    pub track_starvations: Vec<u32>,
    /// Each run of each thread, as above. A state is its kind (see `state`) and 8 times what goes with it: a GIL, or 1
    /// more than a system call.
    pub run_from: Vec<u32>,
    pub run_state: Vec<u64>,
    pub run_stack: Vec<u64>,
    /// Each starvation of each thread.
    pub starvation_tick: Vec<u32>,
    pub starvation_ns: Vec<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct CountedColumns {
    pub missed_ticks: u64,
    pub own_cpu_ns: u64,
    pub throttling: Option<ThrottlingRecord>,
    pub native_tid: Vec<i32>,
    pub native_name: Vec<Option<String>>,
    pub native_cpu_ns: Vec<u64>,
    pub native_run_queue_ns: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ThrottlingRecord {
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
    pub quota_cpus: Option<f64>,
}

/// A thread that is new or has another name or id now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ThreadRecord {
    pub number: u32,
    /// The interpreter that it was in most so far, and all.
    pub interpreter: i64,
    pub interpreters: Vec<i64>,
    pub tid: Option<i32>,
    pub namespace_tid: Option<i32>,
    pub name: Option<String>,
    pub first_seen_ns: u64,
    pub last_seen_ns: u64,
}

/// The end of what was recorded of a process: [`CLOSING`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Closing {
    pub process: u32,
    pub end_ns: u64,
    /// See `ending`.
    pub ending: u8,
}

/// The names that a process's stretches have brought so far.
#[derive(Debug, Default)]
pub(super) struct Texts {
    places: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

/// What is wrong with a block.
pub(super) type Wrong = &'static str;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn moment(nanos: u64) -> Result<Timestamp, Wrong> {
    match nanos {
        0..=LATEST_NS => Ok(Timestamp::from_nanos_since_start(nanos)),
        _ => Err("a moment is too late"),
    }
}

pub(super) fn time(nanos: u64) -> Result<Duration, Wrong> {
    match nanos {
        0..=LATEST_NS => Ok(Duration::from_nanos(nanos)),
        _ => Err("a time is too long"),
    }
}

impl Closing {
    pub(super) fn new(process: u32, ending: Ending, end: Duration) -> Self {
        let ending = match ending {
            Ending::Finished => 0,
            Ending::Interrupted => 1,
            Ending::TargetExited => 2,
            Ending::TargetExecuted => 3,
            Ending::TargetUnreadable => 4,
            Ending::StillRecording | Ending::Lost => u8::MAX,
        };
        Closing { process, end_ns: nanos(end), ending }
    }

    pub(super) fn ending(&self) -> Result<(Ending, Duration), Wrong> {
        let ending = match self.ending {
            0 => Ending::Finished,
            1 => Ending::Interrupted,
            2 => Ending::TargetExited,
            3 => Ending::TargetExecuted,
            4 => Ending::TargetUnreadable,
            _ => Ending::Lost,
        };
        Ok((ending, time(self.end_ns)?))
    }
}

impl Texts {
    fn place(&mut self, text: &Arc<str>, new: &mut Vec<String>) -> u32 {
        let next = self.places.len() as u32;
        *self.places.entry(Arc::clone(text)).or_insert_with(|| {
            new.push(text.as_ref().to_owned());
            next
        })
    }

    fn get(&self, place: u32) -> Result<Arc<str>, Wrong> {
        self.texts.get(place as usize).cloned().ok_or("a name is missing")
    }
}

impl Stretch {
    /// The columns of a part; ticks are rounded down to multiples of the unit.
    pub(super) fn encode(process: u32, part: &Part, texts: &mut Texts, unit_ns: u32) -> Self {
        let mut columns = Stretch { process, until_ns: part.until.as_nanos(), ..Stretch::default() };
        columns.counted = CountedColumns::encode(&part.counted);
        columns.encode_stacks(&part.stacks, texts);
        columns.encode_threads(part);
        columns.encode_ticks(part, unit_ns);
        part.gils.iter().for_each(|gil| columns.encode_gil(gil));
        part.tracks.iter().for_each(|(thread, track)| columns.encode_track(*thread, track));
        columns
    }

    fn encode_stacks(&mut self, new: &NewStacks, texts: &mut Texts) {
        for frame in &new.frames {
            let function = texts.place(&frame.function, &mut self.texts);
            let file = texts.place(&frame.file, &mut self.texts);
            self.frame_function.push(function);
            self.frame_file.push(file);
            self.frame_line.push(frame.line.map_or(0, |line| u64::from(line) + 1));
        }
        let mut before: &[u32] = &[];
        for stack in &new.stacks {
            let shared = stack.iter().rev().zip(before.iter().rev()).take_while(|(a, b)| a == b).count();
            let others = &stack[..stack.len() - shared];
            self.stack_shared.push(shared as u32);
            self.stack_others.push(others.len() as u32);
            self.stack_frames.extend(others.iter().rev());
            before = stack;
        }
    }

    fn encode_threads(&mut self, part: &Part) {
        for (number, thread) in &part.threads {
            self.threads.push(ThreadRecord {
                number: number.0,
                interpreter: thread.interpreter,
                interpreters: thread.interpreters.clone(),
                tid: thread.tid.map(Tid::raw),
                namespace_tid: thread.namespace_tid.map(NamespaceTid::raw),
                name: thread.name.clone(),
                first_seen_ns: thread.first_seen.as_nanos(),
                last_seen_ns: thread.last_seen.as_nanos(),
            });
        }
        for (thread, at) in &part.last_seen {
            self.seen_thread.push(thread.0);
            self.seen_ns.push(at.as_nanos());
        }
    }

    fn encode_ticks(&mut self, part: &Part, unit_ns: u32) {
        let mut before = 0;
        for (place, tick) in part.ticks.iter().enumerate() {
            let at = tick.at.as_nanos() / u64::from(unit_ns);
            self.tick.push(at.saturating_sub(before));
            before = at;
            if self.weight.last() != Some(&tick.weight) {
                self.weight_from.push(place as u32);
                self.weight.push(tick.weight);
            }
        }
        for (at, weight) in &part.rate_changes {
            self.rate_change_ns.push(at.as_nanos());
            self.rate_change_weight.push(*weight);
        }
    }

    fn encode_gil(&mut self, gil: &GilPart) {
        self.gil_interpreters.push(gil.interpreters.clone());
        self.gil_switch_interval_ns.push(nanos(gil.switch_interval));
        let mut runs = Column::default();
        let mut handovers = 0;
        for (ticks, run) in gil.runs.iter() {
            self.gil_run_from.push(runs.delta(ticks.start));
            self.gil_run_handovers.push(i64::from(run.handovers) - handovers);
            handovers = i64::from(run.handovers);
            self.gil_run_holder.push(match run.holder {
                Holder::Nobody => 0,
                Holder::Disabled => 1,
                Holder::Unknown => 2,
                Holder::Stopped => 3,
                Holder::Thread { thread, .. } => u64::from(thread.0) + 4,
            });
            if let Holder::Thread { stack, .. } = run.holder {
                self.gil_run_stack.push(stack_number(stack));
            }
        }
        self.gil_runs.push(runs.count);
        self.gil_end.push(gil.runs.ticks().end as u32);
    }

    fn encode_track(&mut self, thread: ThreadIndex, track: &ThreadTrack) {
        self.track_thread.push(thread.0);
        self.track_cpu_ns.push(nanos(track.times.cpu));
        self.track_run_queue_ns.push(nanos(track.times.run_queue));
        let mut runs = Column::default();
        for (ticks, run) in track.runs.iter() {
            self.run_from.push(runs.delta(ticks.start));
            self.run_state.push(state_number(run.state));
            self.run_stack.push(stack_number(run.stack));
        }
        self.track_runs.push(runs.count);
        self.track_end.push(track.runs.ticks().end as u32);
        self.track_starvations.push(track.starvations.len() as u32);
        for starvation in &track.starvations {
            self.starvation_tick.push(starvation.tick);
            self.starvation_ns.push(nanos(starvation.duration));
        }
    }

    /// The part that it is; its stacks only where the names so far are given.
    pub(super) fn decode(self, texts: Option<&mut Texts>, unit_ns: u32) -> Result<Part, Wrong> {
        let stacks = match texts {
            Some(texts) => self.stacks(texts)?,
            None => NewStacks::default(),
        };
        Ok(Part {
            until: moment(self.until_ns)?,
            stacks,
            threads: self.threads()?,
            last_seen: pairs(&self.seen_thread, &self.seen_ns)?
                .map(|(thread, at)| Ok((ThreadIndex(thread), moment(at)?)))
                .collect::<Result<_, Wrong>>()?,
            gils: self.gils()?,
            ticks: self.ticks(unit_ns)?,
            tracks: self.tracks()?,
            rate_changes: pairs(&self.rate_change_ns, &self.rate_change_weight)?
                .map(|(at, weight)| Ok((moment(at)?, weight)))
                .collect::<Result<_, Wrong>>()?,
            counted: self.counted.decode()?,
        })
    }

    fn stacks(&self, texts: &mut Texts) -> Result<NewStacks, Wrong> {
        texts.texts.extend(self.texts.iter().map(|text| Arc::from(text.as_str())));
        let mut frames = Vec::new();
        for ((function, file), line) in pairs(&self.frame_function, &self.frame_file)?
            .zip(same_length(&self.frame_line, &self.frame_file)?)
        {
            let line = match line.checked_sub(1) {
                Some(line) => Some(u32::try_from(line).map_err(|_| "a line is too large")?),
                None => None,
            };
            frames.push(Frame { function: texts.get(function)?, file: texts.get(file)?, line });
        }
        let mut stacks: Vec<Arc<[u32]>> = Vec::new();
        let mut rest = self.stack_frames.iter();
        let mut total = 0;
        for (shared, others) in pairs(&self.stack_shared, &self.stack_others)? {
            let before = stacks.last().map_or(&[][..], |before| before);
            let shared = before.len().checked_sub(shared as usize).map(|place| &before[place..]);
            let shared = shared.ok_or("a stack has nothing in common with the one before")?;
            total += shared.len() + others as usize;
            if total > StackTable::MOST_FRAMES {
                return Err("its stacks are too deep");
            }
            let others = Vec::from_iter(rest.by_ref().take(others as usize).copied());
            stacks.push(others.into_iter().rev().chain(shared.iter().copied()).collect());
        }
        Ok(NewStacks { frames, stacks })
    }

    fn threads(&self) -> Result<Vec<(ThreadIndex, Thread)>, Wrong> {
        let thread = |record: &ThreadRecord| {
            let thread = Thread {
                interpreter: record.interpreter,
                interpreters: record.interpreters.clone(),
                tid: record.tid.map(Tid::new),
                namespace_tid: record.namespace_tid.map(NamespaceTid::new),
                name: record.name.clone(),
                first_seen: moment(record.first_seen_ns)?,
                last_seen: moment(record.last_seen_ns)?,
                times: TaskTimes::default(),
            };
            Ok((ThreadIndex(record.number), thread))
        };
        self.threads.iter().map(thread).collect()
    }

    fn ticks(&self, unit_ns: u32) -> Result<Vec<Tick>, Wrong> {
        let mut ticks = Vec::with_capacity(self.tick.len());
        let mut at = 0_u64;
        for &delta in &self.tick {
            at = at.saturating_add(delta);
            ticks.push(Tick { at: moment(at.saturating_mul(u64::from(unit_ns)))?, weight: 1 });
        }
        let weights: Vec<(u32, u32)> = pairs(&self.weight_from, &self.weight)?.collect();
        let weights =
            Runs::new(weights, ticks.len() as u32).ok_or("the weights of ticks are out of order")?;
        for (span, weight) in weights.iter() {
            if weight > MOST_WEIGHT {
                return Err("a tick stands for too many");
            }
            ticks[span].iter_mut().for_each(|tick| tick.weight = weight);
        }
        Ok(ticks)
    }

    fn gils(&self) -> Result<Vec<GilPart>, Wrong> {
        let count = self.gil_interpreters.len();
        let lengths = [self.gil_switch_interval_ns.len(), self.gil_runs.len(), self.gil_end.len()];
        let runs = [self.gil_run_holder.len(), self.gil_run_handovers.len()];
        if lengths.iter().any(|length| *length != count) || runs != [self.gil_run_from.len(); 2] {
            return Err(UNEQUAL);
        }
        let mut stacks = self.gil_run_stack.iter();
        let mut all = (self.gil_run_from.iter()).zip(&self.gil_run_holder).zip(&self.gil_run_handovers);
        let mut gils = Vec::with_capacity(count);
        for gil in 0..count {
            let mut runs = Vec::new();
            let (mut place, mut handovers) = (0_u32, 0_i64);
            for ((from, holder), more) in all.by_ref().take(self.gil_runs[gil] as usize) {
                place = place.saturating_add(*from);
                handovers = handovers.saturating_add(*more);
                let holder = match *holder {
                    0 => Holder::Nobody,
                    1 => Holder::Disabled,
                    2 => Holder::Unknown,
                    3 => Holder::Stopped,
                    thread => Holder::Thread {
                        thread: ThreadIndex(u32::try_from(thread - 4).map_err(|_| "a thread is missing")?),
                        stack: stack(*stacks.next().ok_or("a holder has no stack")?)?,
                    },
                };
                let handovers = u32::try_from(handovers).map_err(|_| "a number of handovers is none")?;
                runs.push((place, GilRun { holder, handovers }));
            }
            gils.push(GilPart {
                interpreters: self.gil_interpreters[gil].clone(),
                switch_interval: time(self.gil_switch_interval_ns[gil])?,
                runs: Runs::new(runs, self.gil_end[gil]).ok_or(OUT_OF_ORDER)?,
            });
        }
        Ok(gils)
    }

    fn tracks(&self) -> Result<Vec<(ThreadIndex, ThreadTrack)>, Wrong> {
        let count = self.track_thread.len();
        let lengths = [self.track_runs.len(), self.track_end.len(), self.track_starvations.len()];
        let times = [self.track_cpu_ns.len(), self.track_run_queue_ns.len()];
        if lengths != [count; 3] || times != [count; 2] {
            return Err(UNEQUAL);
        }
        let mut all =
            pairs(&self.run_state, &self.run_stack)?.zip(same_length(&self.run_from, &self.run_state)?);
        let mut starvations = pairs(&self.starvation_tick, &self.starvation_ns)?;
        let mut tracks = Vec::with_capacity(count);
        for track in 0..count {
            let mut runs = Vec::new();
            let mut place = 0_u32;
            for ((state_number, stack_number), from) in all.by_ref().take(self.track_runs[track] as usize) {
                place = place.saturating_add(*from);
                runs.push((place, ThreadRun { state: state(state_number)?, stack: stack(stack_number)? }));
            }
            let starvations = (starvations.by_ref().take(self.track_starvations[track] as usize))
                .map(|(tick, nanos)| Ok(Starvation { tick, duration: time(nanos)? }))
                .collect::<Result<_, Wrong>>()?;
            let times = TaskTimes {
                cpu: time(self.track_cpu_ns[track])?,
                run_queue: time(self.track_run_queue_ns[track])?,
            };
            let runs = Runs::new(runs, self.track_end[track]).ok_or(OUT_OF_ORDER)?;
            tracks.push((ThreadIndex(self.track_thread[track]), ThreadTrack { runs, times, starvations }));
        }
        Ok(tracks)
    }
}

impl CountedColumns {
    fn encode(counted: &Counted) -> Self {
        let native = || counted.native_threads.iter();
        CountedColumns {
            missed_ticks: counted.missed_ticks,
            own_cpu_ns: nanos(counted.own_cpu),
            throttling: counted.throttling.map(|throttling| ThrottlingRecord {
                periods: throttling.periods,
                throttled_periods: throttling.throttled_periods,
                throttled_ns: nanos(throttling.throttled),
                quota_cpus: throttling.quota_cpus,
            }),
            native_tid: native().map(|thread| thread.tid.raw()).collect(),
            native_name: native().map(|thread| thread.name.clone()).collect(),
            native_cpu_ns: native().map(|thread| nanos(thread.times.cpu)).collect(),
            native_run_queue_ns: native().map(|thread| nanos(thread.times.run_queue)).collect(),
        }
    }

    fn decode(self) -> Result<Counted, Wrong> {
        let times = pairs(&self.native_cpu_ns, &self.native_run_queue_ns)?;
        let tids = same_length(&self.native_tid, &self.native_cpu_ns)?;
        let names = same_length(&self.native_name, &self.native_cpu_ns)?;
        let native_threads = (names.zip(tids).zip(times))
            .map(|((name, tid), (cpu, run_queue))| {
                let times = TaskTimes { cpu: time(cpu)?, run_queue: time(run_queue)? };
                Ok(NativeThread { tid: Tid::new(*tid), name: name.clone(), times })
            })
            .collect::<Result<_, Wrong>>()?;
        let throttling = match self.throttling {
            Some(record) => Some(Throttling {
                periods: record.periods,
                throttled_periods: record.throttled_periods,
                throttled: time(record.throttled_ns)?,
                quota_cpus: record.quota_cpus,
            }),
            None => None,
        };
        Ok(Counted {
            missed_ticks: self.missed_ticks,
            own_cpu: time(self.own_cpu_ns)?,
            throttling,
            native_threads,
        })
    }
}

const UNEQUAL: Wrong = "its columns are not of the same length";
const OUT_OF_ORDER: Wrong = "its runs are out of order";

fn same_length<'a, A, B>(column: &'a [A], other: &[B]) -> Result<std::slice::Iter<'a, A>, Wrong> {
    if column.len() == other.len() { Ok(column.iter()) } else { Err(UNEQUAL) }
}

fn pairs<'a, A: Copy, B: Copy>(a: &'a [A], b: &'a [B]) -> Result<impl Iterator<Item = (A, B)> + 'a, Wrong> {
    Ok(same_length(a, b)?.copied().zip(b.iter().copied()))
}

/// A column of places that go up, each as its distance from the one before.
#[derive(Default)]
struct Column {
    count: u32,
    before: usize,
}

impl Column {
    fn delta(&mut self, place: usize) -> u32 {
        let delta = place.saturating_sub(self.before) as u32;
        (self.count, self.before) = (self.count + 1, place);
        delta
    }
}

fn stack_number(stack: StackIndex) -> u64 {
    stack.place().map_or(0, |place| u64::from(place) + 1)
}

fn stack(number: u64) -> Result<StackIndex, Wrong> {
    match number.checked_sub(1) {
        None => Ok(StackIndex::UNKNOWN),
        Some(place) => Ok(StackIndex::new(u32::try_from(place).map_err(|_| "a stack is missing")?)),
    }
}

fn state_number(state: ThreadState) -> u64 {
    let syscall = |syscall: Option<Syscall>| syscall.map_or(0, |it| u64::from(it.number()) + 1);
    match state {
        ThreadState::Hold => 0,
        ThreadState::Stall(call) => 1 + 8 * syscall(call),
        ThreadState::Wait { gil } => 2 + 8 * u64::from(gil),
        ThreadState::Native => 3,
        ThreadState::Blocked(call) => 4 + 8 * syscall(call),
        ThreadState::Parallel => 5,
        ThreadState::Unknown => 6,
    }
}

fn state(number: u64) -> Result<ThreadState, Wrong> {
    let more = u32::try_from(number / 8).map_err(|_| "a state is none")?;
    let syscall = || more.checked_sub(1).and_then(Syscall::from_number);
    Ok(match (number % 8, more) {
        (0, 0) => ThreadState::Hold,
        (1, _) => ThreadState::Stall(syscall()),
        (2, gil) => ThreadState::Wait { gil: u16::try_from(gil).map_err(|_| "a state is none")? },
        (3, 0) => ThreadState::Native,
        (4, _) => ThreadState::Blocked(syscall()),
        (5, 0) => ThreadState::Parallel,
        (6, 0) => ThreadState::Unknown,
        _ => return Err("a state is none"),
    })
}
