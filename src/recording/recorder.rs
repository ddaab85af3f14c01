//! Puts a recording together, tick by tick, and hands it over part by part.

use std::collections::BTreeMap;
use std::time::Duration;

use super::part::{Counted, GilPart, MOST_GILS, MOST_THREADS, Part};
use super::{
    GilRun, Holder, StackIndex, StackTable, Starvation, Stretch, Thread, ThreadIndex, ThreadRun, ThreadState,
    ThreadTrack, Tick, stretch,
};
use crate::sample::{GilSample, ThreadSample};
use crate::units::Timestamp;

/// Shorter stays in the run queue are how scheduling is.
const LEAST_STARVATION: Duration = Duration::from_micros(100);

/// A recording in the making: what is known of threads and GILs, and what ticks saw since the last part was taken.
#[derive(Debug)]
pub struct Recorder {
    rate_hz: u32,
    gils: Vec<KnownGil>,
    /// Those that may be seen again, or have been since the last part was taken.
    threads: BTreeMap<ThreadIndex, KnownThread>,
    /// How many have been made known.
    met: usize,
    ticks: Vec<Tick>,
    rate_changes: Vec<(Timestamp, u32)>,
    /// How many of the ticks are beyond doubt.
    confirmed: u32,
    confirmed_at: Timestamp,
    /// How many frames and stacks have been handed over.
    stacks: (usize, usize),
}

#[derive(Debug, Default)]
struct KnownGil {
    part: GilPart,
    /// The interpreter's own count of handovers at the first consistent tick.
    first_switch_number: Option<u64>,
    handovers: u32,
    /// Of the part that was taken last: periods at which it was held, and all.
    taken: (u64, u64),
}

#[derive(Debug)]
struct KnownThread {
    thread: Thread,
    track: ThreadTrack,
    /// Whether it had a GIL at the last tick that saw it.
    had_gil: bool,
    /// Whether it is new, or has another name or id than when it was handed over.
    is_changed: bool,
    /// When it was last there, as far as was handed over.
    taken_last_seen: Timestamp,
}

impl Recorder {
    /// An empty recording that starts now.
    pub fn new(rate_hz: u32) -> Self {
        Recorder {
            rate_hz,
            gils: Vec::new(),
            threads: BTreeMap::new(),
            met: 0,
            ticks: Vec::new(),
            rate_changes: Vec::new(),
            confirmed: 0,
            confirmed_at: Timestamp::START,
            stacks: (0, 0),
        }
    }

    /// How many threads have been made known.
    pub fn threads(&self) -> usize {
        self.met
    }

    /// Takes over what is known now about the interpreters that share a GIL; GILs are numbered from 0.
    pub fn set_interpreters(&mut self, gil: usize, interpreters: impl Iterator<Item = i64>) {
        while self.gils.len() <= gil.min(MOST_GILS - 1) {
            self.gils.push(KnownGil::default());
        }
        let Some(known) = self.gils.get_mut(gil) else { return };
        for interpreter in interpreters {
            if !known.part.interpreters.contains(&interpreter) {
                known.part.interpreters.push(interpreter);
            }
        }
    }

    /// Takes over what is known now about a thread that is there; threads are numbered from 0 without gaps.
    /// What it did until now stays.
    pub fn set_thread(&mut self, index: ThreadIndex, thread: Thread) {
        if let Some(known) = self.threads.get_mut(&index) {
            let thread = Thread { first_seen: known.thread.first_seen, ..thread };
            let same = |a: &Thread, b: &Thread| {
                (a.interpreter, &a.interpreters, a.tid, a.namespace_tid, &a.name)
                    == (b.interpreter, &b.interpreters, b.tid, b.namespace_tid, &b.name)
            };
            known.is_changed |= !same(&known.thread, &thread);
            known.thread = thread;
        } else if index.0 as usize == self.met && self.met < MOST_THREADS {
            self.met += 1;
            let known = KnownThread {
                taken_last_seen: thread.last_seen,
                thread,
                track: ThreadTrack::default(),
                had_gil: false,
                is_changed: true,
            };
            self.threads.insert(index, known);
        }
    }

    /// Forgets threads that will not be seen again: to be called where a part has just been taken.
    pub fn forget_threads(&mut self, will_not_be_seen: impl Fn(ThreadIndex) -> bool) {
        self.threads.retain(|index, _| !will_not_be_seen(*index));
    }

    /// Confirms all ticks so far, save for the stacks that are in doubt: those are not known any more.
    pub fn confirm(&mut self, at: Timestamp, doubtful: &[StackIndex]) {
        let since = self.confirmed;
        self.confirmed_at = at;
        self.confirmed = self.ticks.len() as u32;
        if doubtful.is_empty() {
            return;
        }
        let known = |stack: StackIndex| match doubtful.binary_search(&stack) {
            Ok(_) => StackIndex::UNKNOWN,
            Err(_) => stack,
        };
        for gil in &mut self.gils {
            gil.part.runs.change_since(since, |run| match run.holder {
                Holder::Thread { thread, stack } => {
                    GilRun { holder: Holder::Thread { thread, stack: known(stack) }, ..run }
                }
                _ => run,
            });
        }
        for known_thread in self.threads.values_mut() {
            let runs = &mut known_thread.track.runs;
            runs.change_since(since, |run| ThreadRun { stack: known(run.stack), ..run });
        }
    }

    /// Notes that from now on a tick stands for so many periods of the rate asked for.
    pub fn change_rate(&mut self, at: Timestamp, weight: u32) {
        self.rate_changes.push((at, weight));
    }

    /// Drops all ticks that have not been confirmed: they may have seen another program. Answers when the last
    /// confirmation was.
    pub fn discard_unconfirmed(&mut self) -> Timestamp {
        let end = self.confirmed;
        self.ticks.truncate(end as usize);
        for gil in &mut self.gils {
            gil.part.runs.truncate(end);
        }
        for KnownThread { track, .. } in self.threads.values_mut() {
            track.runs.truncate(end);
            track.starvations.retain(|starvation| starvation.tick < end);
        }
        self.confirmed_at
    }

    /// Takes over what a tick saw; it stands for `weight` periods. GILs come in the order of their numbers; every
    /// thread has been made known before, or is before the part with this tick is taken.
    pub fn add(&mut self, at: Timestamp, weight: u32, gils: &[GilSample], threads: &[ThreadSample]) {
        let Ok(tick) = u32::try_from(self.ticks.len()) else { return };
        self.ticks.push(Tick { at, weight });
        for (known, sample) in self.gils.iter_mut().zip(gils) {
            known.add(tick, sample);
        }
        for sample in threads {
            if let Some(known) = self.threads.get_mut(&sample.thread) {
                known.add(tick, sample);
            }
        }
    }

    /// Whether every tick is beyond doubt.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed as usize == self.ticks.len()
    }

    /// What has come since this was called last: to be called where all ticks are confirmed.
    pub fn take(&mut self, stacks: &StackTable, until: Timestamp, counted: Counted) -> Part {
        let size = stacks.size();
        let ticks = std::mem::take(&mut self.ticks);
        let mut part = Part {
            until,
            stacks: stacks.since(std::mem::replace(&mut self.stacks, size)),
            gils: self.gils.iter_mut().map(|gil| gil.take(&ticks, self.met)).collect(),
            ticks,
            rate_changes: std::mem::take(&mut self.rate_changes),
            counted,
            ..Part::default()
        };
        self.confirmed = 0;
        for (&index, known) in &mut self.threads {
            let last_seen = known.thread.last_seen;
            if std::mem::take(&mut known.is_changed) {
                part.threads.push((index, known.thread.clone()));
            } else if last_seen != known.taken_last_seen {
                part.last_seen.push((index, last_seen));
            }
            known.taken_last_seen = last_seen;
            let track = std::mem::take(&mut known.track);
            if !track.runs.is_empty() {
                part.tracks.push((index, track));
            }
        }
        part
    }

    /// What ticks saw since a part was last taken, as the only stretch of a recording that has just ended.
    pub fn stretch(&self) -> Stretch {
        let tracks = self.threads.iter();
        let part = Part {
            gils: self.gils.iter().map(|gil| gil.part.clone()).collect(),
            ticks: self.ticks.clone(),
            tracks: tracks.map(|(index, known)| (*index, known.track.clone())).collect(),
            ..Part::default()
        };
        stretch::only(part, self.rate_hz, Duration::ZERO, self.gils.len(), self.met)
    }

    /// For how much of the last second or two the first GIL was held, from 0 to 1.
    pub fn held_lately(&self) -> f64 {
        let Some(gil) = self.gils.first() else { return 0.0 };
        let (held, all) = gil.held(&self.ticks);
        (held + gil.taken.0) as f64 / (all + gil.taken.1).max(1) as f64
    }
}

impl KnownGil {
    fn add(&mut self, tick: u32, sample: &GilSample) {
        if let Some(switch_interval) = sample.switch_interval {
            self.part.switch_interval = switch_interval;
        }
        if let Some(now) = sample.switch_number {
            let first = *self.first_switch_number.get_or_insert(now);
            self.handovers = u32::try_from(now.saturating_sub(first)).unwrap_or(u32::MAX);
        }
        let gap = GilRun { holder: Holder::Unknown, handovers: self.handovers };
        self.part.runs.push(tick, GilRun { holder: sample.holder, ..gap }, gap);
    }

    /// Periods at which it was held, and all.
    fn held(&self, ticks: &[Tick]) -> (u64, u64) {
        let weight = |ticks: &[Tick]| ticks.iter().map(|tick| u64::from(tick.weight)).sum::<u64>();
        let held = self.part.runs.iter().filter(|(_, run)| matches!(run.holder, Holder::Thread { .. }));
        (held.map(|(span, _)| weight(&ticks[span])).sum(), weight(ticks))
    }

    /// What ticks saw of it; a holder that is none of so many threads is not known.
    fn take(&mut self, ticks: &[Tick], threads: usize) -> GilPart {
        self.taken = self.held(ticks);
        let mut runs = std::mem::take(&mut self.part.runs);
        runs.change_since(0, |run| match run.holder {
            Holder::Thread { thread, .. } if thread.0 as usize >= threads => {
                GilRun { holder: Holder::Unknown, ..run }
            }
            _ => run,
        });
        GilPart { runs, ..self.part.clone() }
    }
}

impl KnownThread {
    fn add(&mut self, tick: u32, sample: &ThreadSample) {
        // Who waits for a CPU keeps what it had: the GIL, if it had that at the tick before.
        if self.had_gil && sample.times.run_queue >= LEAST_STARVATION {
            self.track.starvations.push(Starvation { tick, duration: sample.times.run_queue });
        }
        self.had_gil = matches!(sample.state, ThreadState::Hold | ThreadState::Stall(_));
        let gap = ThreadRun { state: ThreadState::Unknown, stack: StackIndex::UNKNOWN };
        self.track.runs.push(tick, ThreadRun { state: sample.state, stack: sample.stack }, gap);
        self.track.times = self.track.times.plus(sample.times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Frame;

    fn recorder() -> Recorder {
        let mut recorder = Recorder::new(1000);
        recorder.set_interpreters(0, [0].into_iter());
        recorder
    }

    fn sample(holder: Holder, switch_number: Option<u64>) -> GilSample {
        GilSample { holder, switch_number, switch_interval: Some(Duration::from_millis(5)) }
    }

    fn holders(recorder: &Recorder) -> Vec<Holder> {
        recorder.stretch().gils[0].iter().map(|(_, run)| run.holder).collect()
    }

    #[test]
    fn handovers_are_those_between_the_first_tick_and_the_last() {
        let mut recorder = recorder();
        for number in [Some(1000), None, Some(1010), Some(1017)] {
            recorder.add(Timestamp::START, 1, &[sample(Holder::Nobody, number)], &[]);
        }
        let handovers = recorder.stretch().gils[0].last().unwrap().handovers;
        assert_eq!(handovers, 17);
    }

    #[test]
    fn ticks_in_doubt_lose_their_stack_but_only_since_the_last_confirmation() {
        let mut recorder = recorder();
        let mut stacks = StackTable::default();
        let frame = |function: &str| Frame { function: function.into(), file: "f".into(), line: None };
        let (sure, doubtful) = (stacks.intern([frame("sure")]), stacks.intern([frame("doubtful")]));
        let held = |stack| Holder::Thread { thread: ThreadIndex(0), stack };
        recorder.add(Timestamp::START, 1, &[sample(held(doubtful), Some(1))], &[]);
        recorder.confirm(Timestamp::START, &[]);
        for stack in [sure, doubtful] {
            recorder.add(Timestamp::START, 1, &[sample(held(stack), Some(1))], &[]);
        }
        recorder.confirm(Timestamp::START, &[doubtful]);
        assert_eq!(holders(&recorder), [held(doubtful), held(sure), held(StackIndex::UNKNOWN)]);
    }

    #[test]
    fn nobody_and_unknown_stay_apart() {
        let mut recorder = recorder();
        recorder.add(Timestamp::START, 1, &[sample(Holder::Nobody, Some(1))], &[]);
        recorder.add(Timestamp::START, 1, &[sample(Holder::Unknown, None)], &[]);
        assert_eq!(holders(&recorder), [Holder::Nobody, Holder::Unknown]);
    }
}
