//! The process's threads that run no Python: counted, with their CPU time.

use std::collections::HashMap;
use std::time::Duration;

use super::Threads;
use crate::sample::{NativeThread, TaskTimes};
use crate::target::tasks;
use crate::units::{Pid, Tid, Timestamp};

/// How often to look for them.
const INTERVAL: Duration = Duration::from_secs(1);

/// More than a process can usefully have.
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
        self.forget(python);
        for tid in tasks::tids(self.pid).into_iter().take(MOST_THREADS) {
            let is_python = python.all().iter().any(|known| known.tid == Some(tid) && known.is_alive);
            let Some(now) = tasks::times(self.pid, tid).filter(|_| !is_python) else { continue };
            let name = || tasks::comm(self.pid, tid);
            let seen = self.seen.entry(tid).or_insert_with(|| Seen { name: name(), first: now, last: now });
            seen.last = now;
        }
    }

    /// A thread may have been seen before it ran Python.
    fn forget(&mut self, python: &Threads) {
        for tid in python.all().iter().filter(|known| known.is_alive).filter_map(|known| known.tid) {
            self.seen.remove(&tid);
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
