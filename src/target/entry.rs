//! A process's directory in /proc, held open. A path with a pid in it may come to mean another process; what is read
//! through an open directory is of the process that it was opened for, or fails (Linux `fs/proc/base.c`).

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use procfs::process::{MemoryMaps, Stat};
use procfs::{ProcError, ProcResult};
use rustix::fs::OFlags;

use crate::units::{Pid, Tid};

/// The directory of one process.
#[derive(Debug, Clone)]
pub struct ProcEntry(Arc<procfs::process::Process>);

impl ProcEntry {
    /// That of the process that has this pid now.
    ///
    /// # Errors
    /// When there is none, or /proc does not show it.
    pub fn open(pid: Pid) -> ProcResult<Self> {
        procfs::process::Process::new(pid.raw()).map(|process| ProcEntry(Arc::new(process)))
    }

    /// The pid by which it was opened.
    pub fn pid(&self) -> Pid {
        Pid::new(self.0.pid())
    }

    /// For what procfs has a name.
    pub fn procfs(&self) -> &procfs::process::Process {
        &self.0
    }

    /// A file in it.
    ///
    /// # Errors
    /// When the process is gone, or may not be looked at.
    pub fn file(&self, path: impl AsRef<Path>) -> ProcResult<File> {
        self.0.open_relative(path)
    }

    /// A file of its file system, if it is a regular one: the process could have put anything there.
    ///
    /// # Errors
    /// As [`ProcEntry::file`].
    pub fn regular_file(&self, path: impl AsRef<Path>) -> ProcResult<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = self.0.open_relative_flags(path, flags)?;
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(file),
            _ => Err(ProcError::NotFound(None)),
        }
    }

    /// Path of its program, as it is seen from here.
    ///
    /// # Errors
    /// When the process is gone, or may not be looked at.
    pub fn program(&self) -> ProcResult<PathBuf> {
        self.0.exe().or_else(|error| {
            let open = self.file(self.directory() + "exe").map_err(|_| error)?;
            std::fs::read_link(path_of(&open)).map_err(|error| ProcError::Io(error, None))
        })
    }

    /// All of a small file in it.
    ///
    /// # Errors
    /// As [`ProcEntry::file`].
    pub fn bytes(&self, path: impl AsRef<Path>) -> ProcResult<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file(path)?.read_to_end(&mut bytes).map_err(|error| ProcError::Io(error, None))?;
        Ok(bytes)
    }

    /// What the kernel says of it, or of a thread that still runs where its first one has ended.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn stat(&self) -> ProcResult<Stat> {
        let stat = self.0.stat()?;
        match self.another_task(&stat) {
            Some(task) => self.0.read(format!("task/{task}/stat")),
            None => Ok(stat),
        }
    }

    /// What it has mapped.
    ///
    /// # Errors
    /// When the process is gone, or may not be looked at.
    pub fn maps(&self) -> ProcResult<MemoryMaps> {
        self.0.read(self.directory() + "maps")
    }

    /// The directory, relative to this one, with what all threads have in common: empty, or that of a thread that still
    /// runs. A process whose first thread has ended shows neither memory nor program in its own.
    pub fn directory(&self) -> String {
        let task = self.0.stat().ok().and_then(|stat| self.another_task(&stat));
        task.map_or_else(String::new, |task| format!("task/{task}/"))
    }

    /// A thread through which its memory can be read, which is its first one as long as that runs.
    pub fn running_task(&self) -> Option<Tid> {
        let stat = self.0.stat().ok()?;
        Some(self.another_task(&stat).unwrap_or(Tid::new(self.0.pid())))
    }

    /// Whether its first thread has ended; others may go on.
    pub fn first_has_ended(&self) -> bool {
        self.0.stat().is_ok_and(|stat| has_ended(&stat))
    }

    /// A thread that still runs, if the first one does not.
    fn another_task(&self, first: &Stat) -> Option<Tid> {
        if !has_ended(first) || first.num_threads < 2 {
            return None;
        }
        let mut tasks = self.0.tasks().ok()?.flatten();
        let task = tasks.find(|task| task.stat().is_ok_and(|stat| !has_ended(&stat)))?;
        Some(Tid::new(task.tid))
    }
}

/// A path that leads to an open file, for what can only open paths.
pub fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn has_ended(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X')
}
