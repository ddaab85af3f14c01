//! Which processes a process starts, and those start, and so on.
//!
//! A look lists /proc and asks only those processes for their parents that were not there at the look before: so it costs
//! about a microsecond a process of the machine. `/proc/PID/task/*/children` would tell the same, but many kernels are
//! built without it (`CONFIG_PROC_CHILDREN`), and proc(5) has it that a process that ends meanwhile hides others there.
//!
//! What this misses: a process whose parent ends before the look that finds it, as daemons do on purpose: the kernel
//! gives it another parent.

use std::collections::HashSet;

use super::entry::ProcEntry;
use crate::units::Pid;

/// Processes of one machine at most: `PID_MAX_LIMIT` of Linux `include/linux/threads.h`.
const MOST_PROCESSES: usize = 1 << 22;

/// Some processes and all that descend from them, as far as looks found them.
#[derive(Debug)]
pub struct Family {
    members: HashSet<Pid>,
    others: HashSet<Pid>,
}

/// A process that was not there at the look before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// Its pid.
    pub pid: Pid,
    /// Which member of the family started it.
    pub parent: Pid,
}

impl Family {
    /// These processes, with nothing known of their children yet.
    pub fn of(roots: impl IntoIterator<Item = Pid>) -> Self {
        Family { members: roots.into_iter().collect(), others: HashSet::new() }
    }

    /// The members that have turned up since the last look, parents before their children.
    pub fn look(&mut self) -> Vec<Child> {
        let here = pids();
        self.members.retain(|pid| here.contains(pid));
        self.others.retain(|pid| here.contains(pid));
        let mut new: Vec<Child> = (here.into_iter())
            .filter(|pid| !self.members.contains(pid) && !self.others.contains(pid))
            .filter_map(|pid| Some(Child { pid, parent: parent(pid)? }))
            .collect();
        let mut born = Vec::new();
        loop {
            let (children, rest): (Vec<Child>, Vec<Child>) =
                new.into_iter().partition(|child| self.members.contains(&child.parent));
            new = rest;
            if children.is_empty() {
                break;
            }
            self.members.extend(children.iter().map(|child| child.pid));
            born.extend(children);
        }
        self.others.extend(new.into_iter().map(|child| child.pid));
        born
    }
}

/// Every process that /proc shows.
fn pids() -> HashSet<Pid> {
    let Ok(directory) = std::fs::read_dir("/proc") else { return HashSet::new() };
    let pid = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.ok()?.file_name().to_str()?.parse().ok().filter(|pid| *pid > 0).map(Pid::new)
    };
    directory.filter_map(pid).take(MOST_PROCESSES).collect()
}

/// Who started a process, as far as that is still there; `None` where the process is gone.
pub fn parent(pid: Pid) -> Option<Pid> {
    parent_of(&ProcEntry::open(pid).ok()?)
}

/// The same of an open one.
pub fn parent_of(process: &ProcEntry) -> Option<Pid> {
    Some(Pid::new(process.procfs().stat().ok()?.ppid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn pid(id: u32) -> Pid {
        Pid::new(id as i32)
    }

    #[test]
    fn children_and_theirs_turn_up_once() {
        let mut shell = Command::new("sh").args(["-c", "sleep 60 & sleep 61; :"]).spawn().unwrap();
        let mut family = Family::of([pid(shell.id())]);
        let mut found = Vec::new();
        while found.len() < 2 {
            found.extend(family.look());
        }
        assert!(found.iter().all(|child| child.parent == pid(shell.id())), "{found:?}");
        assert_eq!(family.look(), []);
        shell.kill().unwrap();
        shell.wait().unwrap();
        for child in found {
            Command::new("kill").arg(child.pid.to_string()).status().unwrap();
        }
    }

    #[test]
    fn a_family_may_begin_above_processes_that_are_there() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut family = Family::of([pid(std::process::id())]);
        assert!(family.look().iter().any(|born| born.pid == pid(child.id())));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
