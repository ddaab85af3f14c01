//! Puts a recording together, tick by tick.

use std::time::Duration;

use super::{
    Ending, GilTick, GilTrack, Holder, Recording, StackIndex, StackTable, Target, Thread, ThreadIndex,
};
use crate::sample::{GilSample, SampledHolder};
use crate::units::Timestamp;

/// A recording in the making.
#[derive(Debug)]
pub struct Recorder {
    recording: Recording,
    /// The interpreter's own count of handovers at the first consistent tick and at the last, a GIL each.
    switch_numbers: Vec<Option<(u64, u64)>>,
}

impl Recorder {
    /// An empty recording that starts now.
    pub fn new(target: Target, rate_hz: u32) -> Self {
        let recording = Recording {
            target,
            start: jiff::Timestamp::now(),
            duration: Duration::ZERO,
            rate_hz,
            ticks: 0,
            missed_ticks: 0,
            torn_ticks: 0,
            own_cpu: Duration::ZERO,
            ending: Ending::Interrupted,
            threads: Vec::new(),
            gils: Vec::new(),
            stacks: StackTable::default(),
        };
        Recorder { recording, switch_numbers: Vec::new() }
    }

    /// The recording so far.
    pub fn so_far(&self) -> &Recording {
        &self.recording
    }

    /// Takes over what is known now about the interpreters that share a GIL; GILs are numbered from 0.
    pub fn set_interpreters(&mut self, gil: usize, interpreters: impl Iterator<Item = i64>) {
        while self.recording.gils.len() <= gil {
            self.switch_numbers.push(None);
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

    /// Takes over what a tick saw of one GIL.
    pub fn add(&mut self, gil: usize, at: Timestamp, sample: &GilSample<'_>) {
        let holder = match &sample.holder {
            SampledHolder::Thread { thread, stack } => Holder::Thread {
                thread: *thread,
                stack: stack.map_or(StackIndex::UNKNOWN, |stack| self.recording.stacks.intern(stack)),
            },
            SampledHolder::Nobody => Holder::Nobody,
            SampledHolder::Disabled => Holder::Disabled,
            SampledHolder::Unknown => Holder::Unknown,
        };
        if holder == Holder::Unknown {
            self.recording.torn_ticks += 1;
        }
        let track = &mut self.recording.gils[gil];
        track.ticks.push(GilTick { at, holder });
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
        ending: Ending,
        duration: Duration,
        missed_ticks: u64,
        own_cpu: Duration,
    ) -> Recording {
        let recording = &mut self.recording;
        (recording.ending, recording.duration) = (ending, duration);
        (recording.missed_ticks, recording.own_cpu) = (missed_ticks, own_cpu);
        self.recording
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn sample(holder: SampledHolder<'_>, switch_number: Option<u64>) -> GilSample<'_> {
        GilSample { holder, switch_number, switch_interval: Some(Duration::from_millis(5)) }
    }

    #[test]
    fn handovers_are_those_between_the_first_tick_and_the_last() {
        let mut recorder = recorder();
        for number in [Some(1000), None, Some(1010), Some(1017)] {
            recorder.add(0, Timestamp::START, &sample(SampledHolder::Nobody, number));
        }
        assert_eq!(recorder.so_far().gils[0].handovers, 17);
    }

    #[test]
    fn nobody_and_unknown_stay_apart() {
        let mut recorder = recorder();
        recorder.add(0, Timestamp::START, &sample(SampledHolder::Nobody, Some(1)));
        recorder.add(0, Timestamp::START, &sample(SampledHolder::Unknown, None));
        let holders: Vec<Holder> = recorder.so_far().gils[0].ticks.iter().map(|tick| tick.holder).collect();
        assert_eq!(holders, [Holder::Nobody, Holder::Unknown]);
        assert_eq!(recorder.so_far().torn_ticks, 1);
    }
}
