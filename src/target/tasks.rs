//! The operating system's threads of a process.

use std::collections::HashMap;

use crate::units::{NamespaceTid, Pid, Tid};

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
    pub fn of(pid: Pid) -> procfs::ProcResult<Self> {
        let process = procfs::process::Process::new(pid.raw())?;
        let is_same_namespace = process.status()?.nspid.is_none_or(|ids| ids.len() <= 1);
        let mut by_namespace_tid = HashMap::new();
        for task in process.tasks()?.flatten() {
            let namespace_tid = if is_same_namespace {
                Some(task.tid)
            } else {
                task.status().ok().and_then(|status| status.nspid?.last().copied())
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
pub fn comm(pid: Pid, tid: Tid) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/task/{tid}/comm")).ok()?;
    let name = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Some(String::from_utf8_lossy(name).into_owned())
}
