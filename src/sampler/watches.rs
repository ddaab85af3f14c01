//! Every thread at every tick: what the kernel says of it, and its stack, which is read again only when the
//! thread has run.

use super::Threads;
use crate::sample::{RunState, StackIndex, ThreadIndex};
use crate::target::tasks::Watch;
use crate::units::Pid;

/// The threads that are watched.
#[derive(Debug, Default)]
pub(super) struct Watches {
    threads: Vec<WatchedThread>,
    /// [`Threads::changes`] at the last update.
    changes: Option<u64>,
}

/// A thread that is watched.
#[derive(Debug)]
pub(super) struct WatchedThread {
    pub(super) thread: ThreadIndex,
    watch: Option<Watch>,
    /// What was read of it since it last ran; `None` where it has to be read.
    pub(super) stack: Option<StackIndex>,
}

impl Watches {
    /// Takes over which threads there are now.
    pub(super) fn update(&mut self, pid: Pid, threads: &Threads) {
        if self.changes.replace(threads.changes()) == Some(threads.changes()) {
            return;
        }
        let all = threads.all();
        self.threads.retain(|watched| all[watched.thread.0 as usize].is_alive);
        for (place, known) in all.iter().enumerate().filter(|(_, known)| known.is_alive) {
            let thread = ThreadIndex(place as u32);
            if let Err(gap) = self.threads.binary_search_by_key(&thread, |watched| watched.thread) {
                let watch = known.tid.map(|tid| Watch::new(pid, tid));
                self.threads.insert(gap, WatchedThread { thread, watch, stack: None });
            }
        }
    }

    /// Asks the kernel about each.
    pub(super) fn look(&mut self) {
        for watched in &mut self.threads {
            let has_run = watched.watch.as_mut().is_none_or(Watch::look);
            if has_run {
                watched.stack = None;
            }
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut WatchedThread> {
        self.threads.iter_mut()
    }
}

impl WatchedThread {
    pub(super) fn run_state(&self) -> RunState {
        self.watch.as_ref().map_or(RunState::Unknown, Watch::state)
    }
}
