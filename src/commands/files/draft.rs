//! A file that is being written beside its later place.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Error, ErrorKind};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, fchmod, fchown, fstat, openat, renameat, renameat_with, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::directory::Way;
use super::{Directory, Rules};

/// Random names that are tried at most.
const ATTEMPTS: usize = 100;

/// A file that does not have its name yet.
pub(in crate::commands) struct Draft {
    file: File,
    temporary: Temporary,
}

/// The name that it has until then; whatever has it is removed if that does not come.
struct Temporary {
    directory: Arc<Directory>,
    name: OsString,
    is_there: bool,
}

impl Draft {
    /// A new file in a directory, the owner's and no one else's to read unless the rules say so.
    ///
    /// # Errors
    /// When the directory does not take it.
    pub(super) fn new(directory: &Arc<Directory>, rules: &Rules) -> std::io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..ATTEMPTS {
            let random: String = (0..8).map(|_| fastrand::alphanumeric()).collect();
            let name = OsString::from(format!(".gilspy-{random}.part"));
            let file = match openat(&directory.fd, &name, flags, Mode::from_raw_mode(Rules::OWN)) {
                Err(Errno::EXIST) => continue,
                file => File::from(file?),
            };
            let temporary = Temporary { directory: Arc::clone(directory), name, is_there: true };
            hand_over(&file, rules)?;
            return Ok(Draft { file, temporary });
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// What to write to.
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts it in its place, and answers it.
    ///
    /// # Errors
    /// When something has come there meanwhile that is not to be overwritten.
    pub(in crate::commands) fn put(self, name: &OsStr, rules: &Rules) -> Result<File> {
        let Draft { file, mut temporary } = self;
        let directory = Arc::clone(&temporary.directory);
        match renameat_with(&directory.fd, &temporary.name, &directory.fd, name, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            // Some file systems cannot; for them there is a moment between looking and renaming.
            Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => {
                match directory.way(name, rules)? {
                    Way::Free | Way::Replace => {}
                    Way::Stream(_) => return Err(anyhow!("what is there now is no file")),
                }
                renameat(&directory.fd, &temporary.name, &directory.fd, name).map_err(Error::from)?;
            }
            Err(error) => return Err(Error::from(error).into()),
        }
        temporary.is_there = false;
        match is_at(&directory, name, &file) {
            true => Ok(file),
            false => Err(anyhow!("somebody else who can write to that directory has put another file there")),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_there {
            let _ = unlinkat(&self.directory.fd, &self.name, AtFlags::empty());
        }
    }
}

/// Gives a file to whom the rules say. Some file systems know no owners: then it stays what it is.
fn hand_over(file: &File, rules: &Rules) -> std::io::Result<()> {
    if let Some((uid, gid)) = rules.owner.caller()
        && fstat(file)?.st_uid != uid.as_raw()
    {
        match fchown(file, Some(uid), Some(gid)) {
            Ok(()) => {}
            Err(Errno::PERM) => eprintln!("gilspy: files here cannot be given to user {}", uid.as_raw()),
            Err(error) => return Err(error.into()),
        }
    }
    match rules.mode {
        Rules::OWN => Ok(()),
        mode => Ok(fchmod(file, Mode::from_raw_mode(mode))?),
    }
}

/// Whether a file has this name.
fn is_at(directory: &Directory, name: &OsStr, file: &File) -> bool {
    let there = statat(&directory.fd, name, AtFlags::SYMLINK_NOFOLLOW);
    let it = fstat(file);
    matches!((there, it), (Ok(there), Ok(it)) if (there.st_dev, there.st_ino) == (it.st_dev, it.st_ino))
}
