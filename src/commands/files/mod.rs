//! Files written with more rights than whoever else can write to their directory: nothing is followed that another could
//! have put there, and nothing overwritten that is not one's own. See `docs/usage.md`, "Files".

mod directory;
mod draft;
mod owner;

use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

pub(super) use self::directory::Directory;
use self::directory::Way;
pub(super) use self::draft::Draft;
pub(super) use self::owner::Owner;
use crate::cli::FileArgs;

/// How files are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Whose they are.
    pub(super) owner: Owner,
    /// Who may read and write them, as chmod(2) has it.
    pub(super) mode: u32,
    /// Whether what is somebody else's is overwritten.
    pub(super) force: bool,
}

/// Where the bytes of a file go.
pub(super) enum Sink {
    /// A file beside its later place.
    Beside(Arc<Directory>, Draft),
    /// Something that is there already and is no file: a pipe, a terminal, /dev/null.
    Direct(File),
}

impl Rules {
    /// The mode of a file that only its owner reads and writes.
    pub(super) const OWN: u32 = 0o600;

    /// What the command line asks for.
    pub(super) fn new(args: &FileArgs) -> Self {
        Rules { owner: Owner::of_this_run(), mode: args.mode, force: args.force }
    }
}

impl Sink {
    /// Standard output.
    pub(super) fn standard_output() -> Result<Self> {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned();
        Ok(Sink::Direct(stdout.context("cannot write to standard output")?.into()))
    }

    /// What is to have this path in the end.
    pub(super) fn open(path: &Path, rules: &Rules) -> Result<Self> {
        if let Some(number) = own_descriptor(path) {
            return Ok(Sink::Direct(open_descriptor(number)?));
        }
        let name = path.file_name().context(IS_A_DIRECTORY)?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Sink::in_directory(&Arc::new(Directory::open(directory, &rules.owner)?), name, rules)
    }

    /// What is to have this name in a directory in the end.
    pub(super) fn in_directory(directory: &Arc<Directory>, name: &OsStr, rules: &Rules) -> Result<Self> {
        match directory.way(name, rules)? {
            Way::Stream(file) => Ok(Sink::Direct(file)),
            Way::Free | Way::Replace => Sink::beside(directory, rules),
        }
    }

    /// What is to have a new name in the working directory.
    pub(super) fn in_working_directory(rules: &Rules) -> Result<Self> {
        Sink::beside(&Arc::new(Directory::open(Path::new("."), &rules.owner)?), rules)
    }

    fn beside(directory: &Arc<Directory>, rules: &Rules) -> Result<Self> {
        let draft = Draft::new(directory, rules).map_err(|error| reason(&error))?;
        Ok(Sink::Beside(Arc::clone(directory), draft))
    }

    /// What to write to.
    pub(super) fn file(&mut self) -> &mut File {
        match self {
            Sink::Beside(_, draft) => draft.file(),
            Sink::Direct(file) => file,
        }
    }
}

const IS_A_DIRECTORY: &str = "it is a directory; name a file in it";

/// The number of gilspy's own descriptor that a path stands for. Who started gilspy has chosen what that is, and it is
/// not opened anew.
fn own_descriptor(path: &Path) -> Option<u32> {
    match path.to_str()? {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => path.strip_prefix("/dev/fd/").or(path.strip_prefix("/proc/self/fd/"))?.parse().ok(),
    }
}

fn open_descriptor(number: u32) -> Result<File> {
    let file = match number {
        1 => std::io::stdout().as_fd().try_clone_to_owned().map(File::from),
        2 => std::io::stderr().as_fd().try_clone_to_owned().map(File::from),
        _ => File::options().write(true).open(format!("/proc/self/fd/{number}")),
    };
    file.map_err(|error| reason(&error))
}

/// What the kernel answered, without the path of the temporary file, which means nothing to a user.
fn reason(error: &std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => anyhow!("there is no such directory"),
        kind => anyhow!("{kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_descriptors_are_known_by_their_paths() {
        let number = |path: &str| own_descriptor(Path::new(path));
        assert_eq!(number("/dev/stdout"), Some(1));
        assert_eq!(number("/dev/fd/63"), Some(63));
        assert_eq!(number("/proc/self/fd/4"), Some(4));
        assert_eq!(number("/dev/fd/../null"), None);
        assert_eq!(number("/proc/1/fd/4"), None);
    }
}
