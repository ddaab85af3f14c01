//! Finds the processes that the recorded ones start, in a thread of its own: no tick waits for a program to be parsed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryIter, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::attach::Attached;
use super::launch::Search;
use crate::cpython::locate::Located;
use crate::target::children::{Family, parent_of};
use crate::target::descriptors;
use crate::target::process::{Process, ProcessError};
use crate::units::Pid;

/// How often to look for new processes. A look costs a microsecond for each process of the machine; it takes no more than
/// a twentieth of one CPU.
const LOOK: Duration = Duration::from_millis(20);
const MOST_OF_CPU: u32 = 20;
const SELDOM: Duration = Duration::from_secs(1);

/// For how long a process has to run the same program to be followed. What lives no longer is not worth a place in the
/// pictures; and a child that is about to start another program looks like its parent until then.
const SETTLED: Duration = Duration::from_millis(40);

/// How often a process is looked at again that has had no interpreter for so long.
const PATIENT: Duration = Duration::from_millis(500);
const STARTING: Duration = Duration::from_secs(3);

/// Python processes that are followed at once at most, and processes in all.
pub(super) const MOST_FOLLOWED: usize = 128;
const MOST_WATCHED: usize = 4096;

/// A process that turned up.
pub(super) struct Found {
    /// It, attached to.
    pub attached: Attached,
    /// The number of the nearest recorded process above it. Found processes are numbered in the order in which they are
    /// handed over, after those that were there from the start.
    pub parent: Option<u32>,
}

/// Looks for new processes until it is dropped.
pub(super) struct Finder {
    found: Receiver<Found>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_over: AtomicBool,
    /// Whether something was attached to since this was looked at.
    has_attached: AtomicBool,
    is_full: AtomicBool,
    /// Whether a process could not be followed for want of file descriptors.
    lacks_descriptors: AtomicBool,
}

impl Finder {
    /// Looks for what these processes start. Those that are attached to already come first, with what was found in them,
    /// and are numbered so.
    pub(super) fn start(attached: Vec<(Pid, Located)>, others: Vec<Pid>) -> Result<Self> {
        let (sender, found) = channel();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let run = move || {
            let mut searcher = Searcher {
                family: Family::of(attached.iter().map(|(pid, _)| *pid).chain(others.iter().copied())),
                watched: HashMap::new(),
                next_number: attached.len() as u32,
                sender,
                state: shared,
            };
            for (number, (pid, located)) in attached.into_iter().enumerate() {
                searcher.watch(
                    pid,
                    None,
                    Stage::Followed { number: number as u32, located: Box::new(located) },
                );
            }
            others.into_iter().for_each(|pid| searcher.watch(pid, None, Stage::new()));
            searcher.run();
        };
        std::thread::Builder::new().name("finder".into()).spawn(run).context("cannot start a thread")?;
        Ok(Finder { found, state })
    }

    /// The processes that have turned up.
    pub(super) fn found(&self) -> TryIter<'_, Found> {
        self.found.try_iter()
    }

    /// Whether it has parsed programs since this was called last.
    pub(super) fn has_attached(&self) -> bool {
        self.state.has_attached.swap(false, Ordering::Relaxed)
    }

    /// Whether there are more processes than can be followed; answered once.
    pub(super) fn is_full(&self) -> bool {
        self.state.is_full.swap(false, Ordering::Relaxed)
    }

    /// Whether there are processes that are not followed for want of file descriptors.
    pub(super) fn lacks_descriptors(&self) -> bool {
        self.state.lacks_descriptors.load(Ordering::Relaxed)
    }
}

impl Drop for Finder {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
    }
}

/// What the thread knows.
struct Searcher {
    family: Family,
    watched: HashMap<Pid, Watched>,
    next_number: u32,
    sender: Sender<Found>,
    state: Arc<State>,
}

struct Watched {
    process: Process,
    parent: Option<Pid>,
    /// The number under which it was last recorded.
    number: Option<u32>,
    stage: Stage,
}

enum Stage {
    /// It is recorded.
    Followed { number: u32, located: Box<Located> },
    /// It has no interpreter yet; most have none ever.
    Looking { search: Box<Search>, since: Instant, next: Instant },
}

impl Stage {
    fn new() -> Self {
        let now = Instant::now();
        Stage::Looking { search: Box::default(), since: now, next: now + SETTLED }
    }
}

impl Searcher {
    fn run(mut self) {
        let mut has_said_full = false;
        while !self.state.is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            for child in self.family.look() {
                self.watch(child.pid, Some(child.parent), Stage::new());
            }
            self.watched.retain(|_, watched| watched.process.is_alive());
            if self.look() && !has_said_full {
                has_said_full = true;
                self.state.is_full.store(true, Ordering::Relaxed);
            }
            std::thread::sleep((began.elapsed() * MOST_OF_CPU).clamp(LOOK, SELDOM));
        }
    }

    /// Takes hold of a process, if it is the one that is meant.
    fn watch(&mut self, pid: Pid, parent: Option<Pid>, stage: Stage) {
        if self.watched.len() >= MOST_WATCHED {
            self.state.is_full.store(true, Ordering::Relaxed);
            return;
        }
        let Some(process) = self.open(pid) else { return };
        if parent.is_some_and(|parent| parent_of(process.entry()) != Some(parent)) {
            return;
        }
        let number = match stage {
            Stage::Followed { number, .. } => Some(number),
            Stage::Looking { .. } => None,
        };
        self.watched.insert(pid, Watched { process, parent, number, stage });
    }

    /// Opens a process; `None` where it is gone, or a descriptor would be one of the last ones.
    fn open(&self, pid: Pid) -> Option<Process> {
        match Process::open(pid) {
            Ok(process) if !descriptors::are_few(process.pidfd()) => Some(process),
            Ok(_) | Err(ProcessError::TooManyFiles { .. }) => {
                self.state.lacks_descriptors.store(true, Ordering::Relaxed);
                None
            }
            Err(_) => None,
        }
    }

    /// Looks at all that are watched; answers whether there are more than can be followed.
    fn look(&mut self) -> bool {
        let mut pids: Vec<Pid> = self.watched.keys().copied().collect();
        // Parents mostly have lower pids than their children.
        pids.sort();
        let mut is_full = false;
        for pid in pids {
            let Some(located) = self.look_at(pid) else { continue };
            let is_followed = |watched: &&Watched| matches!(watched.stage, Stage::Followed { .. });
            if self.watched.values().filter(is_followed).count() >= MOST_FOLLOWED {
                is_full = true;
                continue;
            }
            self.follow(pid, located);
        }
        is_full
    }

    /// What was found in a process that is to be followed from now on.
    fn look_at(&mut self, pid: Pid) -> Option<Located> {
        let forked = self.forked_from(pid);
        let watched = self.watched.get_mut(&pid)?;
        if watched.process.has_executed() {
            watched.process.accept_program();
            watched.stage = Stage::new();
        }
        let Stage::Looking { search, since, next } = &mut watched.stage else { return None };
        if Instant::now() < *next {
            return None;
        }
        let located = forked.or_else(|| search.look(&watched.process));
        if since.elapsed() > STARTING || located.is_some() {
            *next = Instant::now() + PATIENT;
        }
        let located = located?;
        // It could have executed another program meanwhile.
        (watched.process.is_alive() && !watched.process.has_executed()).then_some(located)
    }

    /// What was found in a process's parent, if it is a copy of that.
    fn forked_from(&self, pid: Pid) -> Option<Located> {
        let watched = self.watched.get(&pid)?;
        let parent = self.watched.get(&watched.parent?)?;
        match &parent.stage {
            Stage::Followed { located, .. } if watched.process.is_fork_of(&parent.process) => {
                Some(located.as_ref().clone())
            }
            _ => None,
        }
    }

    fn follow(&mut self, pid: Pid, located: Located) {
        let parent = self.recorded_above(pid);
        // The recording has a hold of its own. While the first has not ended, both are of the same process.
        let Some(process) = self.open(pid) else {
            if self.state.lacks_descriptors.load(Ordering::Relaxed) {
                // It will be so again.
                self.watched.remove(&pid);
            }
            return;
        };
        let Some(watched) = self.watched.get_mut(&pid) else { return };
        if !watched.process.is_alive() {
            return;
        }
        self.state.has_attached.store(true, Ordering::Relaxed);
        let Ok(attached) = Attached::new(process, located.clone()) else { return };
        let number = self.next_number;
        self.next_number += 1;
        watched.number = Some(number);
        watched.stage = Stage::Followed { number, located: Box::new(located) };
        // Nobody takes it any more when the recording is over.
        let _ = self.sender.send(Found { attached, parent });
    }

    /// The nearest process above that is or was recorded.
    fn recorded_above(&self, pid: Pid) -> Option<u32> {
        let mut watched = self.watched.get(&pid)?;
        for _ in 0..MOST_WATCHED {
            watched = self.watched.get(&watched.parent?)?;
            if watched.number.is_some() {
                return watched.number;
            }
        }
        None
    }
}
