//! The process's threads that run no Python: counted, with their CPU time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Threads;
use crate::sample::{NativeThread, TaskTimes};
use crate::target::entry::ProcEntry;
use crate::target::tasks;
use crate::units::{Tid, Timestamp};

/// How often to look for them.
const INTERVAL: Duration = Duration::from_secs(1);

/// Threads that are counted, over the whole recording: those of a process that makes ever new ones are not all kept.
const MOST_THREADS: usize = 65_536;

/// The threads of a process, as far as the kernel knows them.
#[derive(Debug)]
pub struct NativeThreads {
    process: ProcEntry,
    next: Timestamp,
    seen: HashMap<Tid, Seen>,
}

#[derive(Debug)]
struct Seen {
    name: Option<String>,
    /// What was counted until it was last told of.
    told: TaskTimes,
    last: TaskTimes,
    is_told: bool,
}

impl NativeThreads {
    /// Those of a process; nothing is read yet.
    pub fn new(process: ProcEntry) -> Self {
        NativeThreads { process, next: Timestamp::START, seen: HashMap::new() }
    }

    /// Looks at them, if it is time for that.
    pub fn update(&mut self, now: Timestamp, python: &Threads) {
        if now >= self.next {
            self.next = now.after(INTERVAL);
            self.look(python);
        }
    }

    /// Looks at them.
    pub fn look(&mut self, python: &Threads) {
        let alive = python.all().filter(|(_, known)| known.is_alive);
        let python: HashSet<Tid> = alive.filter_map(|(_, known)| known.tid).collect();
        // A thread may have been seen before it ran Python.
        self.seen.retain(|tid, _| !python.contains(tid));
        for tid in tasks::tids(&self.process).into_iter().filter(|tid| !python.contains(tid)) {
            let Some(now) = tasks::times(&self.process, tid) else { continue };
            if let Some(seen) = self.seen.get_mut(&tid) {
                seen.last = now;
            } else if self.seen.len() < MOST_THREADS {
                self.seen.insert(
                    tid,
                    Seen { name: tasks::comm(&self.process, tid), told: now, last: now, is_told: false },
                );
            }
        }
    }

    /// What was counted of them since this was called last; of a new one nothing, but it is named.
    pub fn since_last_told(&mut self) -> Vec<NativeThread> {
        let mut threads = Vec::new();
        for (tid, seen) in &mut self.seen {
            let times = seen.last.since(std::mem::replace(&mut seen.told, seen.last));
            let is_new = !std::mem::replace(&mut seen.is_told, true);
            if is_new || times != TaskTimes::default() {
                threads.push(NativeThread { tid: *tid, name: seen.name.clone(), times });
            }
        }
        threads.sort_by_key(|thread| thread.tid);
        threads
    }
}
