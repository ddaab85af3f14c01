//! A stretch of a recording: what successive ticks saw. Whatever is computed from a recording is a fold over its
//! stretches, so that a long recording need never be in memory as a whole.

use std::ops::Range;

use super::{GilRun, Recording, Runs, ThreadTrack, Tick, TickTimes};

/// What successive ticks saw. Places of ticks are places in `ticks`.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// The place of the first tick in the whole recording.
    pub first: usize,
    /// The moments.
    pub ticks: Vec<Tick>,
    /// For how long each of them stands.
    pub times: TickTimes,
    /// What they saw of each GIL, as in [`Recording::gils`].
    pub gils: Vec<Runs<GilRun>>,
    /// What they saw of each thread, as in [`Recording::threads`].
    pub threads: Vec<ThreadTrack>,
}

impl Stretch {
    /// The periods of the rate asked for that some ticks stand for.
    pub fn weight(&self, ticks: Range<usize>) -> u64 {
        self.ticks[ticks].iter().map(|tick| u64::from(tick.weight)).sum()
    }
}

/// A recording that can no longer be read.
#[derive(Debug, thiserror::Error)]
#[error("the recording can no longer be read: {0}")]
pub struct Unreadable(#[from] std::io::Error);

impl Recording {
    /// What its ticks saw, in order of time.
    pub fn stretches(&self) -> impl Iterator<Item = Result<Stretch, Unreadable>> {
        std::iter::once(Ok(Stretch {
            first: 0,
            ticks: self.ticks.clone(),
            times: TickTimes::of(&self.ticks, self.rate_hz, None, None, self.duration),
            gils: self.gils.iter().map(|gil| gil.runs.clone()).collect(),
            threads: self.threads.iter().map(|thread| thread.track.clone()).collect(),
        }))
    }
}
