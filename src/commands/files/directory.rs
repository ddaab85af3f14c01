//! A directory that is held open: whatever becomes of its path, files are put into the one that was found at first.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use anyhow::{Result, anyhow};
use rustix::fs::{CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fstat, fstatfs, openat, readlinkat};
use rustix::io::Errno;

use super::{IS_A_DIRECTORY, Owner, Rules, reason};
use crate::target::permission::user_name;
use crate::text::shown;

/// Symbolic links on the way to one directory at most: `MAXSYMLINKS` of Linux `include/linux/namei.h`.
const MOST_LINKS: u32 = 40;

/// A directory that files are put into.
#[derive(Debug)]
pub(in crate::commands) struct Directory {
    pub(super) fd: OwnedFd,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What may be done with a name in a directory.
pub(super) enum Way {
    /// Nothing is there.
    Free,
    /// What is there may be replaced.
    Replace,
    /// What is there is no file, and is written to as it is.
    Stream(File),
}

/// What has some name in a directory.
struct Entry {
    /// Opened so that it can be looked at only.
    fd: OwnedFd,
    stat: Stat,
}

impl Entry {
    fn open(directory: &OwnedFd, name: &OsStr) -> Result<Option<Self>, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(directory, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Entry { stat: fstat(&fd)?, fd })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Where a symbolic link leads.
    fn link(&self) -> Result<OsString, Errno> {
        Ok(OsString::from_vec(readlinkat(&self.fd, "", Vec::new())?.into_bytes()))
    }

    /// Whether it is one of proc(5)'s links, which lead to where no path may lead.
    fn is_of_proc(&self) -> Result<bool, Errno> {
        Ok(fstatfs(&self.fd)?.f_type == PROC_SUPER_MAGIC)
    }
}

impl Directory {
    /// Finds a directory. Symbolic links on the way are followed if they are one's own or the administrator's; behind
    /// a link of proc(5), where another's root directory may be, none is.
    ///
    /// # Errors
    /// When there is none, or the way to it is somebody else's link.
    pub(super) fn open(path: &Path, owner: &Owner) -> Result<Self> {
        let failed = |error: Errno| reason(&error.into());
        let mut held = start(Path::new(".")).map_err(failed)?;
        let mut left = parts(path);
        let (mut links, mut is_behind_proc) = (0, false);
        while let Some(part) = left.pop() {
            if part == "/" {
                held = start(Path::new("/")).map_err(failed)?;
                continue;
            }
            let entry = Entry::open(&held, &part).map_err(failed)?.ok_or_else(|| failed(Errno::NOENT))?;
            if entry.kind() != FileType::Symlink {
                held = entry.fd;
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(failed(Errno::LOOP));
            }
            if !is_behind_proc && entry.is_of_proc().map_err(failed)? {
                held = openat(&held, &part, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
                is_behind_proc = true;
                continue;
            }
            let target = entry.link().map_err(failed)?;
            if is_behind_proc || !owner.trusts(entry.stat.st_uid) {
                return Err(anyhow!(
                    "on the way to it, {} is a symbolic link of user {} to {}, which is not followed\n\
                     give the path of the directory without it",
                    shown(&part),
                    user_name(entry.stat.st_uid),
                    shown(&target)
                ));
            }
            left.extend(parts(Path::new(&target)));
        }
        let is_directory = FileType::from_raw_mode(fstat(&held).map_err(failed)?.st_mode).is_dir();
        if is_directory { Ok(Directory { fd: held }) } else { Err(failed(Errno::NOTDIR)) }
    }

    /// What may be done with a name in it.
    ///
    /// # Errors
    /// When something is there that is not to be overwritten.
    pub(super) fn way(&self, name: &OsStr, rules: &Rules) -> Result<Way> {
        let entry = Entry::open(&self.fd, name).map_err(|error| reason(&error.into()))?;
        let Some(entry) = entry else { return Ok(Way::Free) };
        let kind = entry.kind();
        let is_own = entry.stat.st_uid == rules.owner.uid();
        match kind {
            FileType::Directory => return Err(anyhow!(IS_A_DIRECTORY)),
            FileType::BlockDevice => return Err(anyhow!("it is a disk")),
            FileType::CharacterDevice => return stream(&entry),
            FileType::Fifo if is_own => return stream(&entry),
            FileType::RegularFile if is_own && entry.stat.st_nlink == 1 => return Ok(Way::Replace),
            _ if rules.force => return Ok(Way::Replace),
            _ => {}
        }
        let what = match kind {
            FileType::RegularFile if is_own => "a file that has other names, too (hard links),".to_owned(),
            FileType::RegularFile => "a file".to_owned(),
            FileType::Fifo => "a FIFO".to_owned(),
            FileType::Socket => "a socket".to_owned(),
            FileType::Symlink => {
                let target = entry.link().unwrap_or_default();
                format!("a symbolic link to {}", shown(&target))
            }
            _ => "something else".to_owned(),
        };
        Err(anyhow!(
            "{what} of user {} is there already\nname another file, or let --force put a new one in its place",
            user_name(entry.stat.st_uid)
        ))
    }
}

/// Opens the very thing that was looked at, though its name may have come to mean another.
fn stream(entry: &Entry) -> Result<Way> {
    let file = File::options().write(true).open(format!("/proc/self/fd/{}", entry.fd.as_raw_fd()));
    Ok(Way::Stream(file.map_err(|error| anyhow!("{}", error.kind()))?))
}

fn start(path: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    let mut parts: Vec<OsString> = parts.map(|part| part.as_os_str().to_owned()).collect();
    parts.reverse();
    debug_assert!(parts.iter().all(|part| part == "/" || !part.as_bytes().contains(&b'/')));
    parts
}
