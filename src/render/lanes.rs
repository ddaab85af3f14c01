//! What a recording saw, as slices of time in lanes: who held each GIL, how many threads waited for it, and what each
//! thread did. What the exports that show moments are made from.
//!
//! Stretches of the recording are gone through once, and a slice is handed on when it is over, so that memory does not
//! grow with the recording's length.

use std::ops::Range;

use anyhow::Result;

use crate::analysis::{Analysed, waiters};
use crate::recording::{Holder, Recording, Stretch, ThreadIndex, ThreadRun, ThreadState};

/// Time in which ticks saw the same: nanoseconds since the start of the earliest recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice<T> {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) value: T,
}

impl<T> Slice<T> {
    pub(super) fn time(&self) -> Range<u64> {
        self.start..self.end
    }
}

/// Takes the slices, those of one lane in order of time and without overlap. Between them is time in which nobody
/// looked, or in which there was no such GIL or thread.
pub(super) trait Lanes {
    /// Who held a GIL, given by its place.
    fn gil(&mut self, gil: usize, slice: Slice<Holder>) -> Result<()>;

    /// How many threads waited for a GIL; never where only holders were looked at.
    fn waiters(&mut self, gil: usize, slice: Slice<u32>) -> Result<()>;

    /// What a thread did. Where only holders were looked at, that they held a GIL is all that is known.
    fn thread(&mut self, thread: ThreadIndex, slice: Slice<ThreadRun>) -> Result<()>;
}

/// Hands all slices of a recording on. It started `offset` nanoseconds after the earliest one.
pub(super) fn walk(recording: &Recording, offset: u64, lanes: &mut impl Lanes) -> Result<()> {
    let mut open = Open {
        recording,
        offset,
        gils: vec![None; recording.gils.len()],
        waiters: vec![None; recording.gils.len()],
        threads: vec![None; recording.threads.len()],
    };
    for stretch in recording.stretches() {
        open.add(&stretch?, lanes)?;
    }
    open.finish(lanes)
}

/// How long after the earliest of several recordings one of them started, in nanoseconds.
pub(super) fn offset(processes: &[Analysed<'_>], recording: &Recording) -> u64 {
    let earliest = processes.iter().map(|process| process.recording.start).min().unwrap_or(recording.start);
    u64::try_from(recording.start.duration_since(earliest).as_nanos()).unwrap_or(0)
}

/// The slices that may go on.
struct Open<'a> {
    recording: &'a Recording,
    offset: u64,
    gils: Vec<Option<Slice<Holder>>>,
    waiters: Vec<Option<Slice<u32>>>,
    threads: Vec<Option<Slice<ThreadRun>>>,
}

impl Open<'_> {
    fn add(&mut self, stretch: &Stretch, lanes: &mut impl Lanes) -> Result<()> {
        let sees_all_threads = self.recording.sees_all_threads;
        for (gil, runs) in stretch.gils.iter().enumerate() {
            for (ticks, run) in runs.iter() {
                for span in self.spans(stretch, ticks) {
                    if let Some(slice) = join(&mut self.gils[gil], span.clone(), run.holder) {
                        lanes.gil(gil, slice)?;
                    }
                    if let (false, Holder::Thread { thread, stack }) = (sees_all_threads, run.holder) {
                        self.add_thread(thread, span, ThreadRun { state: ThreadState::Hold, stack }, lanes)?;
                    }
                }
            }
            if sees_all_threads {
                self.add_waiters(stretch, gil, lanes)?;
            }
        }
        for (place, track) in stretch.threads.iter().enumerate().filter(|_| sees_all_threads) {
            for (ticks, run) in track.runs.iter() {
                for span in self.spans(stretch, ticks) {
                    self.add_thread(ThreadIndex(place as u32), span, run, lanes)?;
                }
            }
        }
        Ok(())
    }

    fn add_thread(
        &mut self,
        thread: ThreadIndex,
        span: Range<u64>,
        run: ThreadRun,
        lanes: &mut impl Lanes,
    ) -> Result<()> {
        let open = self.threads.get_mut(thread.0 as usize).filter(|_| self.recording.shows(thread));
        let Some(open) = open else { return Ok(()) };
        join(open, span, run).map_or(Ok(()), |slice| lanes.thread(thread, slice))
    }

    fn add_waiters(&mut self, stretch: &Stretch, gil: usize, lanes: &mut impl Lanes) -> Result<()> {
        let waiters = waiters(stretch.ticks.len(), stretch.threads.iter(), gil);
        for tick in stretch.gils[gil].ticks() {
            for span in self.spans(stretch, tick..tick + 1) {
                if let Some(slice) = join(&mut self.waiters[gil], span, waiters[tick]) {
                    lanes.waiters(gil, slice)?;
                }
            }
        }
        Ok(())
    }

    fn spans(&self, stretch: &Stretch, ticks: Range<usize>) -> Vec<Range<u64>> {
        let spans = stretch.times.spans(ticks);
        let moved = |at: u64| at.saturating_add(self.offset);
        spans.map(|span| moved(span.start)..moved(span.end)).collect()
    }

    fn finish(self, lanes: &mut impl Lanes) -> Result<()> {
        for (gil, slice) in self.gils.into_iter().enumerate() {
            slice.map_or(Ok(()), |slice| lanes.gil(gil, slice))?;
        }
        for (gil, slice) in self.waiters.into_iter().enumerate() {
            slice.map_or(Ok(()), |slice| lanes.waiters(gil, slice))?;
        }
        for (thread, slice) in self.threads.into_iter().enumerate() {
            slice.map_or(Ok(()), |slice| lanes.thread(ThreadIndex(thread as u32), slice))?;
        }
        Ok(())
    }
}

/// Adds time to a slice if it goes on; else the slice is over, and a new one begins.
fn join<T: Copy + PartialEq>(open: &mut Option<Slice<T>>, time: Range<u64>, value: T) -> Option<Slice<T>> {
    if time.is_empty() {
        return None;
    }
    match open {
        Some(slice) if slice.end == time.start && slice.value == value => {
            slice.end = time.end;
            None
        }
        _ => open.replace(Slice { start: time.start, end: time.end, value }),
    }
}

/// All slices of a recording: 32 bytes for each time that a lane changes.
#[derive(Debug)]
pub(super) struct Kept {
    /// Who held each GIL.
    pub(super) gils: Vec<Vec<Slice<Holder>>>,
    /// What each thread did.
    pub(super) threads: Vec<Vec<Slice<ThreadRun>>>,
}

impl Kept {
    /// Of a recording that started so many nanoseconds after the earliest one.
    pub(super) fn of(recording: &Recording, offset: u64) -> Result<Self> {
        let mut kept = Kept {
            gils: vec![Vec::new(); recording.gils.len()],
            threads: vec![Vec::new(); recording.threads.len()],
        };
        walk(recording, offset, &mut kept)?;
        Ok(kept)
    }
}

impl Lanes for Kept {
    fn gil(&mut self, gil: usize, slice: Slice<Holder>) -> Result<()> {
        self.gils[gil].push(slice);
        Ok(())
    }

    fn waiters(&mut self, _gil: usize, _slice: Slice<u32>) -> Result<()> {
        Ok(())
    }

    fn thread(&mut self, thread: ThreadIndex, slice: Slice<ThreadRun>) -> Result<()> {
        self.threads[thread.0 as usize].push(slice);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::recording::fake;
    use proptest::prelude::*;

    /// Made-up recordings of threads of which one at most holds the GIL at a time: for each tick who holds it (none of
    /// them from 3 on), and what the others do; in stretches.
    pub(crate) fn recordings() -> impl Strategy<Value = Recording> {
        let tick =
            (0_usize..6, prop::array::uniform3(prop::sample::select(b"WNB? ".as_slice())), prop::bool::ANY);
        let ends = prop::collection::vec(0_usize..60, 0..4);
        (prop::collection::vec(tick, 0..60), ends).prop_map(|(ticks, ends)| {
            let row = |thread: usize| -> String {
                let letter = |(holder, others, stalls): &(usize, [u8; 3], bool)| match (holder, stalls) {
                    (5, _) => '_',
                    (holder, true) if *holder == thread => 'S',
                    (holder, false) if *holder == thread => 'H',
                    _ => others[thread] as char,
                };
                ticks.iter().map(letter).collect()
            };
            fake::in_stretches(&[&row(0), &row(1), &row(2)], &ends)
        })
    }

    pub(crate) fn nanos<T>(slice: &Slice<T>) -> u64 {
        slice.end - slice.start
    }

    fn kept(recording: &Recording) -> Kept {
        Kept::of(recording, 0).unwrap()
    }

    #[test]
    fn slices_end_where_something_changes_or_nobody_looked() {
        let gap = "_".repeat(50);
        let kept = kept(&fake::of_threads(&[&format!("HHWW{gap}W"), &format!("WWHH{gap}H")]));
        let spans = |slices: &[Slice<Holder>]| -> Vec<(u64, u64)> {
            slices.iter().map(|slice| (slice.start / 1_000_000, slice.end / 1_000_000)).collect()
        };
        assert_eq!(spans(&kept.gils[0]), [(0, 2), (2, 13), (44, 55)]);
        assert_eq!(kept.threads.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    }

    #[test]
    fn where_only_holders_were_looked_at_threads_do_nothing_else() {
        let mut recording = fake::of_threads(&["HHWW", "WWHH"]);
        recording.sees_all_threads = false;
        let kept = kept(&recording);
        assert_eq!(kept.threads.iter().flatten().map(nanos).collect::<Vec<_>>(), [2_000_000; 2]);
    }

    proptest! {
        #[test]
        fn slices_of_a_lane_follow_each_other_and_one_thread_at_most_holds_the_gil(recording in recordings()) {
            let kept = kept(&recording);
            prop_assert!(kept.gils[0].windows(2).all(|pair| pair[0].end <= pair[1].start));
            let holds = |slice: &&Slice<ThreadRun>| {
                matches!(slice.value.state, ThreadState::Hold | ThreadState::Stall(_))
            };
            let mut holds: Vec<_> = kept.threads.iter().flatten().filter(holds).collect();
            holds.sort_by_key(|slice| slice.start);
            prop_assert!(holds.windows(2).all(|pair| pair[0].end <= pair[1].start));
            let held: u64 = holds.iter().map(|slice| nanos(slice)).sum();
            let of_gil = kept.gils[0].iter().filter(|slice| matches!(slice.value, Holder::Thread { .. }));
            prop_assert_eq!(held, of_gil.map(nanos).sum::<u64>());
        }
    }
}
