//! The operating system's threads of a process.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::descriptors;
use super::entry::ProcEntry;
use crate::sample::TaskTimes;
use crate::text::from_bytes;
use crate::units::{NamespaceTid, Tid};

/// The threads of a process, by the ids that the process itself sees.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    is_same_namespace: bool,
    by_namespace_tid: HashMap<NamespaceTid, Tid>,
}

impl Tasks {
    /// The threads that a process has now. In the same PID namespace both ids are the same number, and
    /// the threads' `status` files (3.6 µs each) are not read.
    ///
    /// # Errors
    /// When the process is gone, or its /proc directory cannot be read.
    pub fn of(process: &ProcEntry) -> procfs::ProcResult<Self> {
        let is_same_namespace = process.status(None)?.nspid.is_none_or(|ids| ids.len() <= 1);
        let mut by_namespace_tid = HashMap::new();
        for task in process.procfs().tasks()?.flatten() {
            let namespace_tid = if is_same_namespace {
                Some(task.tid)
            } else {
                process.status(Some(Tid::new(task.tid))).ok().and_then(|status| status.nspid?.last().copied())
            };
            if let Some(namespace_tid) = namespace_tid {
                by_namespace_tid.insert(NamespaceTid::new(namespace_tid), Tid::new(task.tid));
            }
        }
        Ok(Tasks { is_same_namespace, by_namespace_tid })
    }

    /// Whether the process counts its threads as gilspy does: then the two ids are the same, also of threads
    /// that have come since.
    pub fn is_same_namespace(&self) -> bool {
        self.is_same_namespace
    }

    /// The host's id of the thread that the target knows by `namespace_tid`.
    pub fn tid(&self, namespace_tid: NamespaceTid) -> Option<Tid> {
        if self.is_same_namespace {
            return Some(Tid::new(namespace_tid.raw()));
        }
        self.by_namespace_tid.get(&namespace_tid).copied()
    }

    /// Whether the process has a thread of this id.
    pub fn contains(&self, namespace_tid: NamespaceTid) -> bool {
        self.by_namespace_tid.contains_key(&namespace_tid)
    }
}

/// The kernel's name of a thread: at most 15 bytes, `comm` of proc_pid_comm(5).
pub fn comm(process: &ProcEntry, tid: Tid) -> Option<String> {
    let bytes = process.bytes(format!("task/{tid}/comm"), LINE).ok()?;
    let name = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Some(from_bytes(name))
}

/// One thread, looked at again and again: two files are kept open for it.
#[derive(Debug)]
pub struct Watch {
    process: ProcEntry,
    tid: Tid,
    schedstat: Option<File>,
    syscall: Option<File>,
    scheduled: Option<Scheduled>,
    state: RunState,
    has_ended: bool,
}

/// What a thread is doing, as the kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// On a CPU, or ready to be.
    Running,
    /// Blocked in a system call.
    InSyscall {
        /// The call's number, by the target's architecture.
        number: u32,
        /// Its first argument: for futex(2) the address slept on.
        argument: u64,
    },
    /// Blocked, but not in a system call: waiting for a page of memory, or stopped.
    OutsideSyscall,
    /// The kernel does not say.
    Unknown,
}

/// What `schedstat` says of a thread (Linux `Documentation/scheduler/sched-stats.rst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scheduled {
    times: TaskTimes,
    /// How often it was put on a CPU.
    count: u64,
}

/// The longest line of `schedstat` or `syscall`: nine numbers of up to 18 digits and prefixes.
const LINE: usize = 256;

impl Watch {
    /// Of a thread of a process. Nothing is read yet.
    pub fn new(process: &ProcEntry, tid: Tid) -> Self {
        let mut watch = Watch {
            process: process.clone(),
            tid,
            schedstat: None,
            syscall: None,
            scheduled: None,
            state: RunState::Unknown,
            has_ended: false,
        };
        watch.schedstat = watch.keep("schedstat");
        watch.syscall = watch.keep("syscall");
        watch
    }

    /// `None` without permission.
    fn open(&self, name: &str) -> Option<File> {
        self.process.file(format!("task/{}/{name}", self.tid)).ok()
    }

    /// A file that is kept open; `None` where descriptors become few: then it is opened at each look.
    fn keep(&self, name: &str) -> Option<File> {
        self.open(name).filter(|file| descriptors::are_plenty(file))
    }

    /// Whether the thread may have run since the last look. One that was blocked and has not been scheduled
    /// since has not.
    pub fn look(&mut self) -> bool {
        let scheduled = self.scheduled();
        if self.is_blocked() && scheduled.is_some() && scheduled == self.scheduled {
            return false;
        }
        // Before the state: a thread that runs in between counts as having run at the next look.
        self.scheduled = scheduled;
        self.state = self.syscall().unwrap_or(RunState::Unknown);
        if self.state == RunState::Unknown {
            self.has_ended = self.open("comm").is_none();
        }
        true
    }

    /// Whether the thread was found to have ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether the thread is still blocked as it was at the last look, and has been ever since.
    pub fn is_still_blocked(&self) -> bool {
        self.is_blocked()
            && match self.scheduled {
                Some(_) => self.scheduled() == self.scheduled,
                None => self.syscall() == Some(self.state),
            }
    }

    fn is_blocked(&self) -> bool {
        matches!(self.state, RunState::InSyscall { .. } | RunState::OutsideSyscall)
    }

    /// What the thread was doing at the last look.
    pub fn state(&self) -> RunState {
        self.state
    }

    /// Its times as of the last look; `None` where the kernel does not count them. Those of a thread that is on
    /// a CPU are up to a scheduler's tick old.
    pub fn times(&self) -> Option<TaskTimes> {
        self.scheduled.map(|scheduled| scheduled.times)
    }

    /// `None` also where the kernel gives zeros, as one without `CONFIG_SCHED_INFO` does.
    fn scheduled(&self) -> Option<Scheduled> {
        let mut line = [0; LINE];
        parse_schedstat(self.line(&self.schedstat, "schedstat", &mut line)?)
    }

    fn syscall(&self) -> Option<RunState> {
        let mut line = [0; LINE];
        parse_syscall(self.line(&self.syscall, "syscall", &mut line)?)
    }

    fn line<'a>(&self, file: &Option<File>, name: &str, line: &'a mut [u8; LINE]) -> Option<&'a str> {
        let length = match file {
            Some(file) => file.read_at(line, 0),
            None => self.open(name)?.read_at(line, 0),
        };
        std::str::from_utf8(&line[..length.ok()?]).ok()
    }
}

/// The ids of the threads that a process has now; none if it is gone.
pub fn tids(process: &ProcEntry) -> Vec<Tid> {
    process.procfs().tasks().into_iter().flatten().flatten().map(|task| Tid::new(task.tid)).collect()
}

/// Whether a thread of a process has ended, is ending, or is none of it.
pub fn is_ending(process: &ProcEntry, tid: Tid) -> bool {
    let task = process.procfs().task_from_tid(tid.raw());
    !task.and_then(|task| task.stat()).is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// What the scheduler has counted of a thread so far; `None` where it is gone, or the kernel does not count.
pub fn times(process: &ProcEntry, tid: Tid) -> Option<TaskTimes> {
    let line = process.bytes(format!("task/{tid}/schedstat"), LINE).ok()?;
    parse_schedstat(std::str::from_utf8(&line).ok()?).map(|scheduled| scheduled.times)
}

/// Time on a CPU and in the run queue in nanoseconds, and how often it was scheduled.
fn parse_schedstat(line: &str) -> Option<Scheduled> {
    let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u64>().ok());
    let times = TaskTimes {
        cpu: Duration::from_nanos(numbers.next()??),
        run_queue: Duration::from_nanos(numbers.next()??),
    };
    let count = numbers.next()??;
    (count > 0).then_some(Scheduled { times, count })
}

/// A line of `/proc/PID/task/TID/syscall` (Linux `fs/proc/base.c`, `proc_pid_syscall`): `running`, or
/// `NUMBER ARGUMENT…` with six arguments, stack and program pointer, or `-1` with the pointers only.
fn parse_syscall(line: &str) -> Option<RunState> {
    let mut words = line.split_ascii_whitespace();
    let first = words.next()?;
    if first == "running" {
        return Some(RunState::Running);
    }
    let number = first.parse::<i32>().ok()?;
    let Ok(number) = u32::try_from(number) else { return Some(RunState::OutsideSyscall) };
    let argument = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    Some(RunState::InSyscall { number, argument })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Pid;

    #[test]
    fn a_line_of_syscall_says_what_a_thread_is_doing() {
        let futex = "202 0x7f01 0x189 0x0 0x7ffe 0x0 0xffffffff 0x7ffd 0x7f7d\n";
        let cases = [
            ("running\n", Some(RunState::Running)),
            (futex, Some(RunState::InSyscall { number: 202, argument: 0x7f01 })),
            ("-1 0x7ffd 0x7f7d\n", Some(RunState::OutsideSyscall)),
            ("", None),
            ("202 nonsense", None),
        ];
        for (line, state) in cases {
            assert_eq!(parse_syscall(line), state, "{line}");
        }
    }

    #[test]
    fn a_line_of_schedstat_says_how_long_a_thread_ran_and_waited_to() {
        let times = TaskTimes { cpu: Duration::from_nanos(5), run_queue: Duration::from_nanos(7) };
        assert_eq!(parse_schedstat("5 7 2\n"), Some(Scheduled { times, count: 2 }));
        for line in ["0 0 0\n", "", "5 7", "x y z"] {
            assert_eq!(parse_schedstat(line), None, "{line}");
        }
    }

    #[test]
    fn a_thread_that_sleeps_has_not_run_and_one_that_woke_has() {
        let (wake, sleep) = std::sync::mpsc::channel::<()>();
        let (tell, tid) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            while sleep.recv().is_ok() {}
        });
        let own = ProcEntry::open(Pid::new(std::process::id() as i32)).unwrap();
        let mut watch = Watch::new(&own, Tid::new(tid.recv().unwrap()));
        let asleep = |watch: &mut Watch| while watch.look() {};
        asleep(&mut watch);
        assert!(matches!(watch.state(), RunState::InSyscall { .. }), "{:?}", watch.state());
        wake.send(()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(watch.look());
        drop(wake);
        thread.join().unwrap();
    }
}
