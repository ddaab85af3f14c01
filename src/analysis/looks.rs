//! What a few looks at a process tell of each thread: what it does, for how long already, and for whom it waits.

use std::collections::HashMap;
use std::time::Duration;

use super::waiting::{Pair, Pairs};
use crate::recording::{StackIndex, Stretch, ThreadIndex, ThreadState, Tick};
use crate::units::Timestamp;

/// A short recording, looked at thread by thread.
#[derive(Debug)]
pub struct Looks<'a> {
    stretch: &'a Stretch,
    /// Who waited for whom, most first.
    pairs: Vec<Pair>,
}

/// What a thread did in most looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usual {
    /// What it did.
    pub state: ThreadState,
    /// For how long it has been doing that at least; `None` where it did something else in the last look.
    pub since: Option<Duration>,
    /// The stack with which it did so last.
    pub stack: StackIndex,
}

impl<'a> Looks<'a> {
    /// Of the only stretch of a recording of all threads.
    pub fn of(stretch: &'a Stretch) -> Self {
        let of_gil = |gil| {
            let mut pairs = Pairs::default();
            pairs.add(stretch, gil);
            pairs.finish()
        };
        let mut pairs: Vec<Pair> = (0..stretch.gils.len()).flat_map(of_gil).collect();
        pairs.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Looks { stretch, pairs }
    }

    /// What a thread did in most looks; one that is not the GIL's usual holder is not said to hold it, unless it did
    /// nothing else.
    pub fn usual(&self, thread: ThreadIndex, is_holder: bool) -> Usual {
        let runs =
            || self.stretch.threads.get(thread.0 as usize).into_iter().flat_map(|track| track.runs.iter());
        let mut looks = HashMap::<ThreadState, usize>::new();
        runs().for_each(|(ticks, run)| *looks.entry(run.state).or_default() += ticks.len());
        // Of two as usual, what it does now.
        let last = runs().last().map(|(_, run)| run.state);
        let most = looks.into_iter().max_by_key(|&(state, looks)| {
            (is_holder || !has_gil(state), looks, Some(state) == last, rank(state))
        });
        let Some((state, _)) = most else {
            return Usual { state: ThreadState::Unknown, since: None, stack: StackIndex::UNKNOWN };
        };
        let mut stack = StackIndex::UNKNOWN;
        let mut begin = None;
        for (ticks, run) in runs() {
            if run.state == state {
                stack = run.stack;
                begin = begin.or(Some(ticks.start));
            } else {
                begin = None;
            }
        }
        Usual { state, since: begin.map(|begin| self.until_the_end(begin)), stack }
    }

    /// For how long a thread has been in the same call at least; `None` where its stack was another in the last look,
    /// or is not known.
    pub fn in_same_call(&self, thread: ThreadIndex) -> Option<Duration> {
        let track = self.stretch.threads.get(thread.0 as usize)?;
        let last = track.runs.last().filter(|last| last.stack != StackIndex::UNKNOWN)?;
        let mut begin = None;
        for (ticks, run) in track.runs.iter() {
            begin = (run.stack == last.stack).then(|| begin.unwrap_or(ticks.start));
        }
        begin.map(|begin| self.until_the_end(begin))
    }

    /// Who held the GIL most while a thread waited for it.
    pub fn waits_for(&self, thread: ThreadIndex) -> Option<ThreadIndex> {
        self.pairs.iter().find(|pair| pair.waiter == thread && pair.holder.is_some())?.holder
    }

    /// How many threads usually wait for a GIL.
    pub fn waiting(&self, wanted: usize) -> u32 {
        let waits = |thread: &ThreadIndex| match self.usual(*thread, true).state {
            ThreadState::Wait { gil } => usize::from(gil) == wanted,
            _ => false,
        };
        (0..self.stretch.threads.len() as u32).map(ThreadIndex).filter(waits).count() as u32
    }

    fn until_the_end(&self, tick: usize) -> Duration {
        let at = |tick: Option<&Tick>| tick.map_or(Timestamp::START, |tick| tick.at).as_nanos();
        let ticks = &self.stretch.ticks;
        Duration::from_nanos(at(ticks.last()).saturating_sub(at(ticks.get(tick))))
    }
}

fn has_gil(state: ThreadState) -> bool {
    matches!(state, ThreadState::Hold | ThreadState::Stall(_))
}

/// What says more comes first.
fn rank(state: ThreadState) -> u8 {
    match state {
        ThreadState::Hold | ThreadState::Stall(_) => 3,
        ThreadState::Wait { .. } => 2,
        ThreadState::Native | ThreadState::Blocked(_) | ThreadState::Parallel => 1,
        ThreadState::Unknown => 0,
    }
}
