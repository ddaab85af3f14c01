//! A process's directory in /proc, held open. A path with a pid in it may come to mean another process; what is read
//! through an open directory is of the process that it was opened for, or fails (Linux `fs/proc/base.c`).

use std::fs::File;
use std::io::{Error, Read};
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use procfs::process::{MemoryMaps, Stat};
use procfs::{ProcError, ProcResult};
use rustix::fs::{Mode, OFlags, openat};

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

    /// A file that one of its links leads to, if it is a regular one of no more than so many bytes: the process could have
    /// put anything there. It is not open for reading, so that nothing happens to what is no file; [`path_of`] can be.
    ///
    /// # Errors
    /// As [`ProcEntry::file`].
    pub fn regular_file(&self, path: impl AsRef<Path>, most_bytes: u64) -> ProcResult<File> {
        let file = self.0.open_relative_flags(path, OFlags::PATH | OFlags::CLOEXEC)?;
        regular(file, most_bytes)
    }

    /// The same by its path in the process's root directory, as its maps say it. Such a path has no symbolic links in it
    /// (`d_path` of Linux `fs/d_path.c`); one that has come there since could lead to any file of the host.
    ///
    /// # Errors
    /// As [`ProcEntry::file`], and when there is a link on the way.
    pub fn regular_file_in_root(&self, path: &Path, most_bytes: u64) -> ProcResult<File> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = self.0.open_relative_flags(self.directory() + "root", OFlags::PATH | OFlags::CLOEXEC)?;
        let open = |inside: ProcResult<File>, part: Component<'_>| match part {
            Component::RootDir => inside,
            Component::Normal(name) => {
                Ok(openat(&inside?, name, flags, Mode::empty()).map_err(Error::from)?.into())
            }
            _ => Err(ProcError::NotFound(None)),
        };
        regular(path.components().fold(Ok(root), open)?, most_bytes)
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

fn regular(file: File, most_bytes: u64) -> ProcResult<File> {
    match file.metadata() {
        Ok(metadata) if metadata.is_file() && metadata.len() <= most_bytes => Ok(file),
        _ => Err(ProcError::NotFound(None)),
    }
}

/// A path that leads to an open file, for what can only open paths.
pub fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn has_ended(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X')
}
