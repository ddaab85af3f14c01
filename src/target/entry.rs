//! A process's directory in /proc, held open. A path with a pid in it may come to mean another process; what is read
//! through an open directory is of the process that it was opened for, or fails (Linux `fs/proc/base.c`).

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, Error, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use procfs::process::{MMapPath, MemoryMaps, Stat, Status};
use procfs::{FromRead, ProcError, ProcResult};
use rustix::fs::{Mode, OFlags, openat};

use crate::text::from_bytes;
use crate::units::{Pid, Tid};

/// Bytes of `maps` at most: some 100 for each of the 65,530 mappings that a process may have (`vm.max_map_count`),
/// and more for long paths.
const MOST_MAPS: usize = 64 << 20;

/// Bytes of `status` at most.
const MOST_STATUS: usize = 1 << 16;

/// What stands in for the byte 0, in texts that are none.
const STAND_IN: u32 = 0x0010_ff00;

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

    /// The beginning of a file in it, at most so many bytes.
    ///
    /// # Errors
    /// As [`ProcEntry::file`].
    pub fn bytes(&self, path: impl AsRef<Path>, most: usize) -> ProcResult<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.file(path)?.take(most as u64);
        BufReader::new(file).read_to_end(&mut bytes).map_err(|error| ProcError::Io(error, None))?;
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
        let bytes = self.bytes(self.directory() + "maps", MOST_MAPS)?;
        let mut maps = MemoryMaps::from_read(to_text(&bytes).as_bytes())?;
        for map in &mut maps.0 {
            if let MMapPath::Path(path) = &mut map.pathname {
                *path = to_path(path);
            }
        }
        Ok(maps)
    }

    /// `status` of it, or of one of its threads.
    ///
    /// # Errors
    /// When it is gone.
    pub fn status(&self, thread: Option<Tid>) -> ProcResult<Status> {
        let directory = thread.map_or_else(String::new, |tid| format!("task/{tid}/"));
        // The name in it is whatever bytes the process has made it.
        let bytes = self.bytes(directory + "status", MOST_STATUS)?;
        Status::from_read(from_bytes(&bytes).as_bytes())
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

/// What procfs takes only as text: bytes that are none become characters that mean nothing, from U+10FF80 on.
fn to_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let stand_in = |byte: &u8| char::from_u32(STAND_IN + u32::from(*byte));
        text.extend(chunk.invalid().iter().filter_map(stand_in));
    }
    text
}

/// The path in such a text.
fn to_path(text: &Path) -> PathBuf {
    let Some(text) = text.to_str() else { return text.to_owned() };
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match u32::from(character).checked_sub(STAND_IN) {
            Some(byte @ 0x80..=0xff) => bytes.push(byte as u8),
            _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn has_ended(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X')
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_are_opened_in_a_root_directory_and_not_through_links() {
        let directory = tempfile::tempdir().unwrap();
        let there = directory.path().canonicalize().unwrap();
        std::fs::create_dir(there.join("inner")).unwrap();
        std::fs::write(there.join("inner/file"), "text").unwrap();
        std::fs::write(there.join("long"), "longer text").unwrap();
        symlink(there.join("inner/file"), there.join("link")).unwrap();
        symlink(there.join("inner"), there.join("linked")).unwrap();
        nix::unistd::mkfifo(&there.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let own = ProcEntry::open(Pid::new(std::process::id() as i32)).unwrap();
        let open = |path: &str| own.regular_file_in_root(&there.join(path), 10);
        assert_eq!(std::fs::read_to_string(path_of(&open("inner/file").unwrap())).unwrap(), "text");
        for path in ["link", "linked/file", "fifo", "inner", "inner/../inner/file", "long", "missing"] {
            assert!(open(path).is_err(), "{path}");
        }
    }
}
