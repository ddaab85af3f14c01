//! The process's threads that run no Python: counted, with their CPU time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Threads;
use crate::sample::{NativeThread, TaskTimes};
use crate::target::tasks;
use crate::units::{Pid, Tid, Timestamp};

/// How often to look for them.
const INTERVAL: Duration = Duration::from_secs(1);

/// Threads that are counted, over the whole recording: those of a process that makes ever new ones are not all kept.
const MOST_THREADS: usize = 65_536;

/// The threads of a process, as far as the kernel knows them.
#[derive(Debug)]
pub struct NativeThreads {
    pid: Pid,
    next: Timestamp,
    seen: HashMap<Tid, Seen>,
}

#[derive(Debug)]
struct Seen {
    name: Option<String>,
    first: TaskTimes,
    last: TaskTimes,
}

impl NativeThreads {
    /// Those of a process; nothing is read yet.
    pub fn new(pid: Pid) -> Self {
        NativeThreads { pid, next: Timestamp::START, seen: HashMap::new() }
    }

    /// Looks at them, if it is time for that.
    pub fn update(&mut self, now: Timestamp, python: &Threads) {
        if now >= self.next {
            self.next = now.after(INTERVAL);
            self.look(python);
        }
    }

    fn look(&mut self, python: &Threads) {
        let alive = python.all().iter().filter(|known| known.is_alive);
        let python: HashSet<Tid> = alive.filter_map(|known| known.tid).collect();
        // A thread may have been seen before it ran Python.
        self.seen.retain(|tid, _| !python.contains(tid));
        for tid in tasks::tids(self.pid).into_iter().filter(|tid| !python.contains(tid)) {
            let Some(now) = tasks::times(self.pid, tid) else { continue };
            if let Some(seen) = self.seen.get_mut(&tid) {
                seen.last = now;
            } else if self.seen.len() < MOST_THREADS {
                self.seen.insert(tid, Seen { name: tasks::comm(self.pid, tid), first: now, last: now });
            }
        }
    }

    /// What was seen of them, the busiest first.
    pub fn into_list(mut self, python: &Threads) -> Vec<NativeThread> {
        self.look(python);
        let mut threads: Vec<NativeThread> = (self.seen.into_iter())
            .map(|(tid, seen)| NativeThread { tid, name: seen.name, times: seen.last.since(seen.first) })
            .collect();
        threads.sort_by_key(|thread| (std::cmp::Reverse(thread.times.cpu), thread.tid));
        threads
    }
}
