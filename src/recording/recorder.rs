//! Puts a recording together, tick by tick.

use std::time::Duration;

use super::{
    Ending, GilTick, GilTrack, Holder, RateChange, Recording, StackIndex, StackTable, Target, Thread,
    ThreadIndex,
};
use crate::sample::GilSample;
use crate::units::Timestamp;

/// A recording in the making.
#[derive(Debug)]
pub struct Recorder {
    recording: Recording,
    /// The interpreter's own count of handovers at the first consistent tick and at the last, a GIL each.
    switch_numbers: Vec<Option<(u64, u64)>>,
    /// How many ticks of each GIL are beyond doubt.
    confirmed: Vec<usize>,
    confirmed_at: Timestamp,
}

impl Recorder {
    /// An empty recording that starts now.
    pub fn new(target: Target, rate_hz: u32) -> Self {
        let recording = Recording {
            target,
            start: jiff::Timestamp::now(),
            duration: Duration::ZERO,
            rate_hz,
            rate_changes: Vec::new(),
            ticks: 0,
            missed_ticks: 0,
            torn_ticks: 0,
            own_cpu: Duration::ZERO,
            ending: Ending::Interrupted,
            threads: Vec::new(),
            gils: Vec::new(),
            stacks: StackTable::default(),
        };
        Recorder {
            recording,
            switch_numbers: Vec::new(),
            confirmed: Vec::new(),
            confirmed_at: Timestamp::START,
        }
    }

    /// The recording so far.
    pub fn so_far(&self) -> &Recording {
        &self.recording
    }

    /// Takes over what is known now about the interpreters that share a GIL; GILs are numbered from 0.
    pub fn set_interpreters(&mut self, gil: usize, interpreters: impl Iterator<Item = i64>) {
        while self.recording.gils.len() <= gil {
            self.switch_numbers.push(None);
            self.confirmed.push(0);
            self.recording.gils.push(GilTrack {
                interpreters: Vec::new(),
                enabled: true,
                switch_interval: Duration::ZERO,
                handovers: 0,
                ticks: Vec::new(),
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
    pub fn set_thread(&mut self, index: ThreadIndex, thread: Thread) {
        let threads = &mut self.recording.threads;
        match threads.get_mut(index.0 as usize) {
            Some(known) => *known = Thread { first_seen: known.first_seen, ..thread },
            None => threads.push(thread),
        }
    }

    /// Counts a moment at which the sampler looked; what it saw follows, a GIL at a time.
    pub fn count_tick(&mut self) {
        self.recording.ticks += 1;
    }

    /// Confirms all ticks so far, save for the stacks that are in doubt: those are not known any more.
    pub fn confirm(&mut self, at: Timestamp, doubtful: &[StackIndex]) {
        self.confirmed_at = at;
        for (track, confirmed) in self.recording.gils.iter_mut().zip(&mut self.confirmed) {
            for tick in track.ticks[*confirmed..].iter_mut().filter(|_| !doubtful.is_empty()) {
                if let Holder::Thread { stack, .. } = &mut tick.holder
                    && doubtful.binary_search(stack).is_ok()
                {
                    *stack = StackIndex::UNKNOWN;
                }
            }
            *confirmed = track.ticks.len();
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
        let mut dropped = 0;
        for (track, confirmed) in self.recording.gils.iter_mut().zip(&self.confirmed) {
            dropped = dropped.max(track.ticks.len() - confirmed);
            track.ticks.truncate(*confirmed);
        }
        self.recording.ticks = self.recording.ticks.saturating_sub(dropped as u64);
        self.confirmed_at
    }

    /// Takes over what a tick saw of one GIL; the tick stands for `weight` periods.
    pub fn add(&mut self, gil: usize, at: Timestamp, weight: u32, sample: &GilSample) {
        let holder = sample.holder;
        if holder == Holder::Unknown {
            self.recording.torn_ticks += 1;
        }
        let track = &mut self.recording.gils[gil];
        track.ticks.push(GilTick { at, weight, holder });
        track.enabled =
            track.enabled && holder != Holder::Disabled || matches!(holder, Holder::Thread { .. });
        if let Some(switch_interval) = sample.switch_interval {
            track.switch_interval = switch_interval;
        }
        if let Some(now) = sample.switch_number {
            let (first, _) = self.switch_numbers[gil].unwrap_or((now, now));
            self.switch_numbers[gil] = Some((first, now));
            track.handovers = now.saturating_sub(first);
        }
    }

    /// The whole recording.
    pub fn finish(
        mut self,
        stacks: StackTable,
        ending: Ending,
        duration: Duration,
        missed_ticks: u64,
        own_cpu: Duration,
    ) -> Recording {
        let recording = &mut self.recording;
        (recording.stacks, recording.ending, recording.duration) = (stacks, ending, duration);
        (recording.missed_ticks, recording.own_cpu) = (missed_ticks, own_cpu);
        self.recording
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
        let mut recorder = Recorder::new(target, 1000);
        recorder.set_interpreters(0, [0].into_iter());
        recorder
    }

    fn sample(holder: Holder, switch_number: Option<u64>) -> GilSample {
        GilSample { holder, switch_number, switch_interval: Some(Duration::from_millis(5)) }
    }

    #[test]
    fn handovers_are_those_between_the_first_tick_and_the_last() {
        let mut recorder = recorder();
        for number in [Some(1000), None, Some(1010), Some(1017)] {
            recorder.add(0, Timestamp::START, 1, &sample(Holder::Nobody, number));
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
        recorder.add(0, Timestamp::START, 1, &sample(held(doubtful), Some(1)));
        recorder.confirm(Timestamp::START, &[]);
        for stack in [sure, doubtful] {
            recorder.add(0, Timestamp::START, 1, &sample(held(stack), Some(1)));
        }
        recorder.confirm(Timestamp::START, &[doubtful]);
        let holders: Vec<Holder> = recorder.so_far().gils[0].ticks.iter().map(|tick| tick.holder).collect();
        assert_eq!(holders, [held(doubtful), held(sure), held(StackIndex::UNKNOWN)]);
    }

    #[test]
    fn nobody_and_unknown_stay_apart() {
        let mut recorder = recorder();
        recorder.add(0, Timestamp::START, 1, &sample(Holder::Nobody, Some(1)));
        recorder.add(0, Timestamp::START, 1, &sample(Holder::Unknown, None));
        let holders: Vec<Holder> = recorder.so_far().gils[0].ticks.iter().map(|tick| tick.holder).collect();
        assert_eq!(holders, [Holder::Nobody, Holder::Unknown]);
        assert_eq!(recorder.so_far().torn_ticks, 1);
    }
}
