//! A part of a recording, and some of its threads.

use std::ops::Range;
use std::time::Duration;

use super::part::Part;
use super::reading::Building;
use super::{Ending, Holder, Recording, TaskTimes, Thread, ThreadIndex, Tick, Unreadable};
use crate::units::Timestamp;

impl Recording {
    /// The part of it between two moments since its start: a recording of its own.
    ///
    /// # Errors
    /// When it can no longer be read.
    pub fn cut(mut self, span: Range<Duration>) -> Result<Recording, Unreadable> {
        let end = span.end.min(self.duration);
        let start = span.start.min(end);
        let moments = Timestamp::from_duration_since_start(start)..Timestamp::from_duration_since_start(end);
        let (threads, stacks) = (self.threads.len(), self.stacks.len());
        let earlier = self
            .parts
            .span
            .as_ref()
            .map_or(Duration::ZERO, |span| Duration::from_nanos(span.start.as_nanos()));
        self.parts.span = Some(moments.start.after(earlier)..moments.end.after(earlier));
        let parts = self.parts.clone();
        self.empty();
        if end < self.duration {
            self.ending = Ending::Finished;
        }
        (self.start, self.duration) = (self.start.checked_add(start).unwrap_or(self.start), end - start);
        self.since = self.since.saturating_sub(start).min(self.duration);
        let mut was_there = vec![false; threads];
        let mut building = Building::new(self);
        building.first_handovers = vec![None; building.recording.gils.len()];
        building.was_enabled = vec![None; building.recording.gils.len()];
        let mut periods = Periods::since(building.recording.since);
        for (place, &at) in parts.blocks.iter().enumerate() {
            let part = parts.read(place, threads, stacks)?;
            mark_seen(&part, &mut was_there);
            part.ticks.iter().for_each(|tick| periods.add(*tick));
            building.add_ticks(part, at, parts.since[place]);
        }
        let mut cut = building.finish();
        cut.missed_ticks = periods.missed(cut.ticks, cut.duration, cut.rate_hz);
        let before = cut.rate_changes.iter().take_while(|change| change.at_s <= 0.0).count();
        cut.rate_changes.drain(..before.saturating_sub(1));
        for (thread, was_there) in cut.threads.iter_mut().zip(&mut was_there) {
            *was_there |= thread.first_seen < moments.end && thread.last_seen >= moments.start;
            thread.first_seen = thread.first_seen.within(&moments);
            thread.last_seen = thread.last_seen.within(&moments);
        }
        cut.show_only(|index, _| was_there[index.0 as usize]);
        Ok(cut)
    }

    /// Forgets what is added up from its parts.
    fn empty(&mut self) {
        (self.parts.blocks, self.parts.since) = (Vec::new(), Vec::new());
        (self.rate_changes, self.native_threads, self.throttling) = (Vec::new(), Vec::new(), None);
        (self.ticks, self.weight, self.missed_ticks, self.torn_ticks) = (0, 0, 0, 0);
        self.own_cpu = Duration::ZERO;
        for gil in &mut self.gils {
            (gil.handovers, gil.ticks, gil.enabled) = (0, 0, true);
            gil.switches.clear();
        }
        self.threads.iter_mut().for_each(|thread| thread.times = TaskTimes::default());
    }

    /// Shows these threads only, of those that are shown now. Figures of the process and of its GILs stay what they
    /// are.
    pub fn show_only(&mut self, is_meant: impl Fn(ThreadIndex, &Thread) -> bool) {
        let is_hidden = |(place, thread)| {
            let index = ThreadIndex(place as u32);
            !self.shows(index) || !is_meant(index, thread)
        };
        self.parts.hidden = self.threads.iter().enumerate().map(is_hidden).collect();
    }

    /// Whether a thread is to be shown.
    pub fn shows(&self, thread: ThreadIndex) -> bool {
        !self.parts.hidden.get(thread.0 as usize).copied().unwrap_or(false)
    }
}

/// How many ticks there should have been, from the times of those that there are.
#[derive(Default)]
struct Periods {
    /// Nanoseconds for each period that a tick stands for.
    nanos: f64,
    last: Option<Tick>,
}

impl Periods {
    fn since(since: Duration) -> Self {
        let at = Timestamp::from_duration_since_start(since);
        Periods { nanos: 0.0, last: Some(Tick { at, weight: 1 }) }
    }

    fn add(&mut self, tick: Tick) {
        let since = self.last.replace(tick).map_or(0, |last| last.at.as_nanos());
        self.add_time(since, tick.at.as_nanos(), tick.weight);
    }

    fn add_time(&mut self, from: u64, to: u64, weight: u32) {
        self.nanos += to.saturating_sub(from) as f64 / f64::from(weight.max(1));
    }

    /// How many there are not until the end.
    fn missed(mut self, ticks: usize, end: Duration, rate_hz: u32) -> u64 {
        let Tick { at, weight } = self.last.unwrap_or(Tick { at: Timestamp::START, weight: 1 });
        self.add_time(at.as_nanos(), Timestamp::from_duration_since_start(end).as_nanos(), weight);
        (self.nanos / 1e9 * f64::from(rate_hz) - ticks as f64).round().max(0.0) as u64
    }
}

/// Marks the threads that a tick saw.
fn mark_seen(part: &Part, was_there: &mut [bool]) {
    let tracks = part.tracks.iter().filter(|(_, track)| !track.runs.is_empty()).map(|(thread, _)| *thread);
    let holders = part.gils.iter().flat_map(|gil| gil.runs.iter()).filter_map(|(_, run)| match run.holder {
        Holder::Thread { thread, .. } => Some(thread),
        _ => None,
    });
    for thread in tracks.chain(holders) {
        was_there[thread.0 as usize] = true;
    }
}
