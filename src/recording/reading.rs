//! Reads a recording: once from end to end when it is opened, which finds whatever is wrong with it and puts its
//! tables together, then part by part as often as needed.

use std::collections::{HashMap, HashSet};
use std::io::{Error, ErrorKind};
use std::ops::Range;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::file::{CLOSING, Found, HEADER, MAGIC, MUST_BE_KNOWN, PROCESS, STRETCH, Session, Source, VERSION};
use super::part::{Counted, MOST_THREADS, Part};
use super::v1::{self, Wrong};
use super::{
    Ending, GilSwitch, GilTrack, Holder, RateChange, Recording, StackTable, Target, Thread, Unreadable,
};
use crate::units::{NamespacePid, Pid, Tid, Timestamp};

/// Processes of one recording at most.
const MOST_PROCESSES: usize = 1 << 16;

/// Threads without Python at most, as many as are recorded.
const MOST_NATIVE_THREADS: usize = 1 << 16;

/// Bytes of the names of a process's threads and of the lists of their interpreters at most.
const MOST_NAMES: usize = 1 << 28;

/// Switches of a GIL that are told.
const MOST_SWITCHES: usize = 1000;

/// Why a file cannot be read as a recording.
#[derive(Debug, thiserror::Error)]
pub enum NotARecording {
    /// It is something else.
    #[error("it is not a recording of gilspy")]
    Foreign,
    /// It is of a later version.
    #[error("a newer gilspy has written it (format {0}; gilspy {version} reads {VERSION})\nread it with that one", version = env!("CARGO_PKG_VERSION"))]
    Newer(u8),
    /// It has a block that has to be understood and is not.
    #[error("a newer gilspy has written it, with something (kind {0}) that gilspy {version} does not know\nread it with that one", version = env!("CARGO_PKG_VERSION"))]
    Unknown(u8),
    /// It was cut off before the process was named.
    #[error("it ends before anything was recorded")]
    Empty,
    /// It is not what was written.
    #[error("it is damaged at byte {at}: {wrong}")]
    Damaged {
        /// Where the block begins that is.
        at: u64,
        /// What is wrong.
        wrong: &'static str,
    },
    /// It cannot be read at all.
    #[error(transparent)]
    Io(#[from] Error),
}

/// Where the parts of a recording are.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    source: Source,
    /// Where the blocks that have ticks begin.
    pub(super) blocks: Vec<u64>,
    /// Until when the block before each goes.
    pub(super) since: Vec<Timestamp>,
    tick_unit_ns: u32,
    /// The part of the file's time that this is.
    pub(super) span: Option<Range<Timestamp>>,
    /// Threads that are not shown, by their places.
    pub(super) hidden: Vec<bool>,
}

/// The recordings in a file, a process each, in the order in which they were begun.
///
/// # Errors
/// When it is no recording, or a damaged one. One that was cut off is read as far as it goes, and says so
/// ([`Ending::Lost`]).
pub fn read(source: &Source) -> Result<Vec<Recording>, NotARecording> {
    let magic = source.bytes(0, MAGIC.len() + 1)?;
    match magic.strip_prefix(MAGIC) {
        Some([VERSION]) => {}
        Some([version]) => return Err(NotARecording::Newer(*version)),
        Some(_) => return Err(NotARecording::Empty),
        None if !magic.is_empty() && MAGIC.starts_with(&magic) => return Err(NotARecording::Empty),
        None => return Err(NotARecording::Foreign),
    }
    let mut at = MAGIC.len() as u64 + 1;
    let mut file = Opening { source, session: None, processes: Vec::new() };
    loop {
        let damaged = |wrong| NotARecording::Damaged { at, wrong };
        match source.block(at)? {
            Found::Block { kind, content, next } => {
                match kind {
                    HEADER => file.header(&content).map_err(damaged)?,
                    PROCESS => file.process(&content).map_err(damaged)?,
                    STRETCH => file.stretch(&content, at).map_err(damaged)?,
                    CLOSING => file.closing(&content).map_err(damaged)?,
                    MUST_BE_KNOWN.. => return Err(NotARecording::Unknown(kind)),
                    _ => {}
                }
                at = next;
            }
            Found::End | Found::CutOff => break,
            Found::Damaged(wrong) => return Err(damaged(wrong)),
        }
    }
    if file.processes.is_empty() {
        return Err(NotARecording::Empty);
    }
    Ok(file.processes.into_iter().map(Building::finish).collect())
}

/// What follows the fields that are known is of a later gilspy.
fn decode<T: DeserializeOwned>(content: &[u8]) -> Result<T, Wrong> {
    postcard::take_from_bytes(content)
        .map(|(block, _)| block)
        .map_err(|_| "a block does not say what it should")
}

/// A file that is being opened.
struct Opening<'a> {
    source: &'a Source,
    session: Option<(Session, u32)>,
    processes: Vec<Building>,
}

impl Opening<'_> {
    fn header(&mut self, content: &[u8]) -> Result<(), Wrong> {
        let header: v1::Header = decode(content)?;
        let start =
            jiff::Timestamp::new(header.start_s, header.start_ns).map_err(|_| "its start is no time")?;
        if self.session.is_some() {
            return Err("there are two headers");
        }
        if !(1..=1_000_000).contains(&header.rate_hz) || !(1..=1_000_000).contains(&header.tick_unit_ns) {
            return Err("its rate is none");
        }
        let session = Session {
            host: header.host,
            start,
            rate_hz: header.rate_hz,
            sees_all_threads: header.sees_all_threads,
        };
        self.session = Some((session, header.tick_unit_ns));
        Ok(())
    }

    fn process(&mut self, content: &[u8]) -> Result<(), Wrong> {
        let process: v1::Process = decode(content)?;
        let (session, tick_unit_ns) = self.session.as_ref().ok_or("there is no header")?;
        if process.number as usize != self.processes.len() || self.processes.len() == MOST_PROCESSES {
            return Err("processes are out of order");
        }
        if process.parent.is_some_and(|parent| parent >= process.number) {
            return Err("a process was started by one that there is none");
        }
        let since = v1::time(process.since_ns)?;
        let target = Target {
            pid: Pid::new(process.pid),
            namespace_pid: process.namespace_pid.map(NamespacePid::new),
            python: process.python,
            free_threaded: process.free_threaded,
            command: process.command,
            host: session.host.clone(),
        };
        let parts = Parts {
            source: self.source.clone(),
            blocks: Vec::new(),
            tick_unit_ns: *tick_unit_ns,
            span: None,
            since: Vec::new(),
            hidden: Vec::new(),
        };
        let recording = Recording {
            target,
            start: session.start,
            duration: Duration::ZERO,
            since,
            number: process.number,
            parent: process.parent,
            rate_hz: session.rate_hz,
            rate_changes: Vec::new(),
            ticks: 0,
            weight: 0,
            missed_ticks: 0,
            torn_ticks: 0,
            own_cpu: Duration::ZERO,
            ending: Ending::Lost,
            threads: Vec::new(),
            gils: Vec::new(),
            stacks: StackTable::default(),
            sees_all_threads: session.sees_all_threads,
            native_threads: Vec::new(),
            throttling: None,
            cpus: process.cpus.max(1),
            parts,
        };
        self.processes.push(Building::new(recording));
        Ok(())
    }

    fn stretch(&mut self, content: &[u8], at: u64) -> Result<(), Wrong> {
        let stretch: v1::Stretch = decode(content)?;
        let building = self.processes.get_mut(stretch.process as usize).ok_or("a process is missing")?;
        let unit = building.recording.parts.tick_unit_ns;
        let part = stretch.decode(Some(&mut building.texts), unit)?;
        building.add(part, at)
    }

    fn closing(&mut self, content: &[u8]) -> Result<(), Wrong> {
        let closing: v1::Closing = decode(content)?;
        let building = self.processes.get_mut(closing.process as usize).ok_or("a process is missing")?;
        let (ending, end) = closing.ending()?;
        if Timestamp::from_duration_since_start(end) < building.last_tick {
            return Err("it ends before its last tick");
        }
        (building.recording.ending, building.recording.duration) = (ending, end);
        Ok(())
    }
}

/// A recording that is being put together from its parts.
pub(super) struct Building {
    pub(super) recording: Recording,
    texts: v1::Texts,
    until: Timestamp,
    last_tick: Timestamp,
    native: HashMap<Tid, usize>,
    names: usize,
    /// The count of handovers that each GIL was first seen with.
    pub(super) first_handovers: Vec<Option<u32>>,
    /// Whether there was each GIL to hold when that was last known.
    pub(super) was_enabled: Vec<Option<bool>>,
}

impl Building {
    pub(super) fn new(recording: Recording) -> Self {
        Building {
            recording,
            texts: v1::Texts::default(),
            until: Timestamp::START,
            last_tick: Timestamp::START,
            native: HashMap::new(),
            names: 0,
            first_handovers: Vec::new(),
            was_enabled: Vec::new(),
        }
    }

    /// Adds a part, which begins at some place of the file.
    fn add(&mut self, mut part: Part, at: u64) -> Result<(), Wrong> {
        let ticks = [self.last_tick].into_iter().chain(part.ticks.iter().map(|tick| tick.at));
        let latest = part.ticks.last().map_or(self.until, |tick| self.until.max(tick.at));
        if !ticks.is_sorted() || part.until < latest {
            return Err("it goes back in time");
        }
        if !self.recording.stacks.extend(std::mem::take(&mut part.stacks)) {
            return Err("its stacks do not fit those before");
        }
        self.add_threads(&part)?;
        part.check(self.recording.threads.len(), self.recording.stacks.len())?;
        let since = std::mem::replace(&mut self.until, part.until);
        self.recording.duration = Duration::from_nanos(part.until.as_nanos());
        self.add_ticks(part, at, since);
        Ok(())
    }

    fn add_threads(&mut self, part: &Part) -> Result<(), Wrong> {
        let threads = &mut self.recording.threads;
        for (number, thread) in &part.threads {
            let bytes = |thread: &Thread| {
                let name = thread.name.as_ref().map_or(0, String::len);
                name + thread.interpreters.len() * size_of::<i64>()
            };
            // What is replaced is kept no longer.
            self.names -= threads.get(number.0 as usize).map_or(0, bytes);
            self.names += bytes(thread);
            if self.names > MOST_NAMES {
                return Err("the names of its threads are too long");
            }
            let place = number.0 as usize;
            if let Some(known) = threads.get_mut(place) {
                let (first_seen, times) = (known.first_seen, known.times);
                *known = Thread { first_seen, times, ..thread.clone() };
            } else if place == threads.len() && threads.len() < MOST_THREADS {
                threads.push(thread.clone());
            } else {
                return Err("its threads are out of order");
            }
        }
        for (number, at) in &part.last_seen {
            threads.get_mut(number.0 as usize).ok_or("a thread is missing")?.last_seen = *at;
        }
        Ok(())
    }

    /// Adds up what a part has beside its tables.
    pub(super) fn add_ticks(&mut self, part: Part, at: u64, since: Timestamp) {
        let recording = &mut self.recording;
        for (place, gil) in part.gils.iter().enumerate() {
            if place == recording.gils.len() {
                recording.gils.push(GilTrack {
                    interpreters: Vec::new(),
                    enabled: true,
                    switches: Vec::new(),
                    switch_interval: Duration::ZERO,
                    handovers: 0,
                    ticks: 0,
                });
                self.first_handovers.push(None);
                self.was_enabled.push(None);
            }
            let track = &mut recording.gils[place];
            track.interpreters.clone_from(&gil.interpreters);
            track.switch_interval = gil.switch_interval;
            for (ticks, run) in gil.runs.iter() {
                track.ticks += ticks.len();
                let first = *self.first_handovers[place].get_or_insert(run.handovers);
                track.handovers = u64::from(run.handovers.saturating_sub(first));
                let enabled = match run.holder {
                    Holder::Thread { .. } | Holder::Nobody => true,
                    Holder::Disabled | Holder::Stopped => false,
                    Holder::Unknown => {
                        recording.torn_ticks += ticks.len() as u64;
                        continue;
                    }
                };
                let was_enabled = self.was_enabled[place].replace(enabled);
                track.enabled = enabled;
                if was_enabled.is_some_and(|was| was != enabled) && track.switches.len() < MOST_SWITCHES {
                    track
                        .switches
                        .push(GilSwitch { at_s: part.ticks[ticks.start].at.as_secs_f64(), enabled });
                }
            }
        }
        for (thread, track) in &part.tracks {
            let times = &mut recording.threads[thread.0 as usize].times;
            *times = times.plus(track.times);
        }
        for (at, weight) in &part.rate_changes {
            let rate_hz = f64::from(recording.rate_hz) / f64::from((*weight).max(1));
            recording.rate_changes.push(RateChange { at_s: at.as_secs_f64(), rate_hz });
        }
        self.count(part.counted);
        if let Some(last) = part.ticks.last() {
            let recording = &mut self.recording;
            self.last_tick = last.at;
            recording.ticks += part.ticks.len();
            recording.weight += part.ticks.iter().map(|tick| u64::from(tick.weight)).sum::<u64>();
            recording.parts.blocks.push(at);
            recording.parts.since.push(since);
        }
    }

    fn count(&mut self, counted: Counted) {
        let recording = &mut self.recording;
        recording.missed_ticks = recording.missed_ticks.saturating_add(counted.missed_ticks);
        recording.own_cpu = recording.own_cpu.saturating_add(counted.own_cpu);
        recording.throttling = match (recording.throttling, counted.throttling) {
            (Some(so_far), Some(more)) => Some(so_far.plus(more)),
            (so_far, more) => more.or(so_far),
        };
        for thread in counted.native_threads {
            let all = recording.native_threads.len();
            let place = *self.native.entry(thread.tid).or_insert(all);
            match recording.native_threads.get_mut(place) {
                Some(known) => known.times = known.times.plus(thread.times),
                None if all < MOST_NATIVE_THREADS => recording.native_threads.push(thread),
                None => {}
            }
        }
    }

    pub(super) fn finish(mut self) -> Recording {
        // A thread may have been seen before it ran Python.
        let python: HashSet<Tid> = self.recording.threads.iter().filter_map(|thread| thread.tid).collect();
        let mut native = std::mem::take(&mut self.recording.native_threads);
        native.retain(|thread| !python.contains(&thread.tid));
        native.sort_by_key(|thread| (std::cmp::Reverse(thread.times.cpu), thread.tid));
        self.recording.native_threads = native;
        self.recording
    }
}

impl Parts {
    /// One of them, of a process with so many threads and stacks; the stacks themselves are in the recording.
    pub(super) fn read(&self, place: usize, threads: usize, stacks: usize) -> Result<Part, Unreadable> {
        let changed = |wrong: &str| Unreadable::from(Error::new(ErrorKind::InvalidData, wrong));
        let content = match self.source.block(self.blocks[place])? {
            Found::Block { kind: STRETCH, content, .. } => content,
            _ => return Err(changed("it has been changed meanwhile")),
        };
        let part =
            decode::<v1::Stretch>(&content).and_then(|stretch| stretch.decode(None, self.tick_unit_ns));
        let part = part.map_err(changed)?;
        part.check(threads, stacks).map_err(changed)?;
        Ok(match &self.span {
            Some(span) => part.within(span, self.since[place]),
            None => part,
        })
    }
}

impl Recording {
    /// Its parts that have ticks, each of which is read when it is asked for.
    pub(super) fn parts(&self) -> impl Iterator<Item = Result<Part, Unreadable>> {
        let (threads, stacks) = (self.threads.len(), self.stacks.len());
        (0..self.parts.blocks.len()).map(move |place| self.parts.read(place, threads, stacks))
    }

    /// The file that it is in.
    pub fn source(&self) -> &Source {
        &self.parts.source
    }
}
