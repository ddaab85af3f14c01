//! A stretch of a recording: what successive ticks saw. Whatever is computed from a recording is a fold over its
//! stretches, so that a long recording need never be in memory as a whole.

use std::ops::Range;
use std::time::Duration;

use super::part::Part;
use super::{GilRun, Recording, Runs, ThreadTrack, Tick, TickTimes};
use crate::units::Timestamp;

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

    /// A part of a recording of so many GILs and threads.
    pub(super) fn of(part: Part, first: usize, times: TickTimes, gils: usize, threads: usize) -> Self {
        let mut tracks = vec![ThreadTrack::default(); threads];
        for (thread, track) in part.tracks {
            if let Some(place) = tracks.get_mut(thread.0 as usize) {
                *place = track;
            }
        }
        let mut runs: Vec<Runs<GilRun>> = part.gils.into_iter().map(|gil| gil.runs).collect();
        runs.resize(gils, Runs::default());
        Stretch { first, ticks: part.ticks, times, gils: runs, threads: tracks }
    }
}

/// A recording that can no longer be read.
#[derive(Debug, thiserror::Error)]
#[error("the recording can no longer be read: {0}")]
pub struct Unreadable(#[from] std::io::Error);

impl Recording {
    /// What its ticks saw, in order of time. Each of them is read when it is asked for.
    pub fn stretches(&self) -> impl Iterator<Item = Result<Stretch, Unreadable>> {
        let mut parts = self.parts().peekable();
        // What came before it was recorded was not seen.
        let since = Timestamp::from_duration_since_start(self.since);
        let (mut first, mut previous) = (0, (!self.since.is_zero()).then_some(Tick { at: since, weight: 1 }));
        std::iter::from_fn(move || {
            let part = match parts.next()? {
                Ok(part) => part,
                Err(error) => return Some(Err(error)),
            };
            let next = match parts.peek() {
                Some(Ok(next)) => next.ticks.first().copied(),
                Some(Err(_)) | None => None,
            };
            let times = TickTimes::of(&part.ticks, self.rate_hz, previous, next, self.duration);
            let stretch = Stretch::of(part, first, times, self.gils.len(), self.threads.len());
            first += stretch.ticks.len();
            previous = stretch.ticks.last().copied();
            Some(Ok(stretch))
        })
    }
}

/// The only stretch of a recording that is not longer.
pub(super) fn only(part: Part, rate_hz: u32, duration: Duration, gils: usize, threads: usize) -> Stretch {
    let times = TickTimes::of(&part.ticks, rate_hz, None, None, duration);
    Stretch::of(part, 0, times, gils, threads)
}
