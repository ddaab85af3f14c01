//! Puts a recording together, tick by tick.

use std::time::Duration;

use super::{
    Ending, GilRun, GilTrack, Holder, NativeThread, RateChange, Recording, Runs, StackIndex, StackTable,
    Starvation, Target, Thread, ThreadIndex, ThreadRun, ThreadState, ThreadTrack, Throttling, Tick,
};
use crate::sample::{GilSample, ThreadSample};
use crate::units::Timestamp;

/// Shorter stays in the run queue are how scheduling is.
const LEAST_STARVATION: Duration = Duration::from_micros(100);

/// A recording in the making.
#[derive(Debug)]
pub struct Recorder {
    recording: Recording,
    /// The interpreter's own count of handovers at the first consistent tick, a GIL each.
    first_switch_numbers: Vec<Option<u64>>,
    /// How many ticks are beyond doubt.
    confirmed: u32,
    confirmed_at: Timestamp,
}

/// How a recording ended.
#[derive(Debug)]
pub struct Closing {
    /// Why.
    pub ending: Ending,
    /// How long it took.
    pub duration: Duration,
    /// Ticks that were left out because it was too late for them.
    pub missed_ticks: u64,
    /// gilspy's own CPU time.
    pub own_cpu: Duration,
    /// The process's threads that run no Python.
    pub native_threads: Vec<NativeThread>,
    /// What CPU quotas did to the process.
    pub throttling: Option<Throttling>,
    /// On how many CPUs the process may run.
    pub cpus: u32,
}

impl Recorder {
    /// An empty recording that starts now, of all threads or of those only that hold a GIL.
    pub fn new(target: Target, rate_hz: u32, sees_all_threads: bool) -> Self {
        let recording = Recording {
            target,
            start: jiff::Timestamp::now(),
            duration: Duration::ZERO,
            rate_hz,
            rate_changes: Vec::new(),
            ticks: Vec::new(),
            missed_ticks: 0,
            torn_ticks: 0,
            own_cpu: Duration::ZERO,
            ending: Ending::Interrupted,
            threads: Vec::new(),
            gils: Vec::new(),
            stacks: StackTable::default(),
            sees_all_threads,
            native_threads: Vec::new(),
            throttling: None,
            cpus: 1,
        };
        Recorder { recording, first_switch_numbers: Vec::new(), confirmed: 0, confirmed_at: Timestamp::START }
    }

    /// The recording so far.
    pub fn so_far(&self) -> &Recording {
        &self.recording
    }

    /// Takes over what is known now about the interpreters that share a GIL; GILs are numbered from 0.
    pub fn set_interpreters(&mut self, gil: usize, interpreters: impl Iterator<Item = i64>) {
        while self.recording.gils.len() <= gil {
            self.first_switch_numbers.push(None);
            self.recording.gils.push(GilTrack {
                interpreters: Vec::new(),
                enabled: true,
                switch_interval: Duration::ZERO,
                handovers: 0,
                runs: Runs::default(),
            });
        }
        let known = &mut self.recording.gils[gil].interpreters;
        for interpreter in interpreters {
            if !known.contains(&interpreter) {
                known.push(interpreter);
            }
        }
    }

    /// Takes over what is known now about a thread that is there; threads are numbered from 0 without gaps.
    /// What it did until now stays.
    pub fn set_thread(&mut self, index: ThreadIndex, thread: Thread) {
        let threads = &mut self.recording.threads;
        match threads.get_mut(index.0 as usize) {
            Some(known) => {
                let track = std::mem::take(&mut known.track);
                *known = Thread { first_seen: known.first_seen, track, ..thread };
            }
            None => threads.push(thread),
        }
    }

    /// Confirms all ticks so far, save for the stacks that are in doubt: those are not known any more.
    pub fn confirm(&mut self, at: Timestamp, doubtful: &[StackIndex]) {
        let since = self.confirmed;
        self.confirmed_at = at;
        self.confirmed = self.recording.ticks.len() as u32;
        if doubtful.is_empty() {
            return;
        }
        let known = |stack: StackIndex| match doubtful.binary_search(&stack) {
            Ok(_) => StackIndex::UNKNOWN,
            Err(_) => stack,
        };
        for gil in &mut self.recording.gils {
            gil.runs.change_since(since, |run| match run.holder {
                Holder::Thread { thread, stack } => {
                    GilRun { holder: Holder::Thread { thread, stack: known(stack) }, ..run }
                }
                _ => run,
            });
        }
        for thread in &mut self.recording.threads {
            thread.track.runs.change_since(since, |run| ThreadRun { stack: known(run.stack), ..run });
        }
    }

    /// Notes that from now on a tick stands for so many periods of the rate asked for.
    pub fn change_rate(&mut self, at: Timestamp, weight: u32) {
        let rate_hz = f64::from(self.recording.rate_hz) / f64::from(weight.max(1));
        self.recording.rate_changes.push(RateChange { at_s: at.as_secs_f64(), rate_hz });
    }

    /// Drops all ticks that have not been confirmed: they may have seen another program. Answers when the last
    /// confirmation was.
    pub fn discard_unconfirmed(&mut self) -> Timestamp {
        let end = self.confirmed;
        self.recording.ticks.truncate(end as usize);
        for gil in &mut self.recording.gils {
            gil.runs.truncate(end);
        }
        for Thread { track, .. } in &mut self.recording.threads {
            track.runs.truncate(end);
            track.starvations.retain(|starvation| starvation.tick < end);
        }
        self.confirmed_at
    }

    /// Takes over what a tick saw; it stands for `weight` periods. GILs come in the order of their numbers; every
    /// thread has been made known before.
    pub fn add(&mut self, at: Timestamp, weight: u32, gils: &[GilSample], threads: &[ThreadSample]) {
        let Ok(tick) = u32::try_from(self.recording.ticks.len()) else { return };
        self.recording.ticks.push(Tick { at, weight });
        for (gil, sample) in gils.iter().enumerate() {
            self.add_gil(tick, gil, sample);
        }
        for sample in threads {
            if let Some(thread) = self.recording.threads.get_mut(sample.thread.0 as usize) {
                thread.track.add(tick, sample);
            }
        }
    }

    fn add_gil(&mut self, tick: u32, gil: usize, sample: &GilSample) {
        let holder = sample.holder;
        if holder == Holder::Unknown {
            self.recording.torn_ticks += 1;
        }
        let Some(track) = self.recording.gils.get_mut(gil) else { return };
        track.enabled =
            track.enabled && holder != Holder::Disabled || matches!(holder, Holder::Thread { .. });
        if let Some(switch_interval) = sample.switch_interval {
            track.switch_interval = switch_interval;
        }
        if let Some(now) = sample.switch_number {
            let first = *self.first_switch_numbers[gil].get_or_insert(now);
            track.handovers = now.saturating_sub(first);
        }
        let handovers = u32::try_from(track.handovers).unwrap_or(u32::MAX);
        let gap = GilRun { holder: Holder::Unknown, handovers };
        track.runs.push(tick, GilRun { holder, handovers }, gap);
    }

    /// The whole recording.
    pub fn finish(mut self, stacks: StackTable, closing: Closing) -> Recording {
        let recording = &mut self.recording;
        (recording.stacks, recording.ending, recording.duration) = (stacks, closing.ending, closing.duration);
        (recording.missed_ticks, recording.own_cpu) = (closing.missed_ticks, closing.own_cpu);
        (recording.native_threads, recording.throttling) = (closing.native_threads, closing.throttling);
        recording.cpus = closing.cpus;
        self.recording
    }
}

impl ThreadTrack {
    fn add(&mut self, tick: u32, sample: &ThreadSample) {
        // Who waits for a CPU keeps what it had: the GIL, if it had that at the tick before.
        let had_gil = self
            .runs
            .last()
            .is_some_and(|run| matches!(run.state, ThreadState::Hold | ThreadState::Stall(_)));
        if had_gil && sample.times.run_queue >= LEAST_STARVATION {
            self.starvations.push(Starvation { tick, duration: sample.times.run_queue });
        }
        let gap = ThreadRun { state: ThreadState::Unknown, stack: StackIndex::UNKNOWN };
        self.runs.push(tick, ThreadRun { state: sample.state, stack: sample.stack }, gap);
        self.times = self.times.plus(sample.times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Frame;
    use crate::units::Pid;

    fn recorder() -> Recorder {
        let target = Target {
            pid: Pid::new(1),
            python: "3.12.1".into(),
            free_threaded: false,
            command: vec!["python3".into()],
            host: "here".into(),
        };
        let mut recorder = Recorder::new(target, 1000, true);
        recorder.set_interpreters(0, [0].into_iter());
        recorder
    }

    fn sample(holder: Holder, switch_number: Option<u64>) -> GilSample {
        GilSample { holder, switch_number, switch_interval: Some(Duration::from_millis(5)) }
    }

    fn holders(recorder: &Recorder) -> Vec<Holder> {
        recorder.so_far().gils[0].runs.iter().map(|(_, run)| run.holder).collect()
    }

    #[test]
    fn handovers_are_those_between_the_first_tick_and_the_last() {
        let mut recorder = recorder();
        for number in [Some(1000), None, Some(1010), Some(1017)] {
            recorder.add(Timestamp::START, 1, &[sample(Holder::Nobody, number)], &[]);
        }
        assert_eq!(recorder.so_far().gils[0].handovers, 17);
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
        assert_eq!(recorder.so_far().torn_ticks, 1);
    }
}
