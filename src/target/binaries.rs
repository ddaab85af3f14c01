//! The programs and libraries that a process has mapped, and the symbols of those that can be an
//! interpreter. Files are opened through /proc, so a container's files and deleted ones are found.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use procfs::ProcResult;
use procfs::process::{MMPermissions, MMapPath, MemoryMap};
use py_spy::binary_parser::{BinaryInfo, parse_binary};

use super::entry::path_of;
use super::process::{Process, ProcessError};
use crate::units::Address;

/// Bytes of a program or library at most; what is larger is not looked at.
const MOST_BYTES: u64 = 4 << 30;

/// Bytes of a program's zeroed memory (.bss) at most that are searched for the version, where nothing else tells it.
const MOST_ZEROED: u64 = 64 << 20;

/// What a process has mapped that matters for finding an interpreter.
pub struct Binaries {
    /// Path of the program, as the process sees it.
    pub executable_path: PathBuf,
    /// The program's symbols; `None` where its file could not be parsed.
    pub executable: Option<BinaryInfo>,
    /// The symbols of libpython, where one is mapped and could be parsed.
    pub libpython: Option<BinaryInfo>,
    /// Path of a libpython that is mapped, but could not be opened and parsed.
    pub unread_libpython: Option<PathBuf>,
    /// Every mapped file.
    pub paths: Vec<PathBuf>,
    /// Where the program and libpython are mapped.
    pub places: Places,
}

/// Where the program and libpython are mapped; another answer than before means that it pays to look
/// for an interpreter again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    executable: Option<(PathBuf, u64)>,
    libpython: Option<(PathBuf, u64)>,
}

/// The mapped files of a process, not opened yet.
pub struct Mappings {
    maps: Vec<MemoryMap>,
    program: PathBuf,
    /// Where the program and libpython are mapped.
    pub places: Places,
}

impl Mappings {
    /// What is mapped now.
    ///
    /// # Errors
    /// When the process is gone or the kernel refuses.
    pub fn of(process: &Process) -> Result<Self, ProcessError> {
        let maps = process.entry().maps().map_err(|error| process.explain(error))?.0;
        let program = process.entry().program().map_err(|error| process.explain(error))?;
        let first = maps.first().ok_or(ProcessError::Ending(process.pid()))?;
        process.check_access(Address::new(first.address.0))?;
        let executable = first_code(&maps, |path| path == program).map(|start| (program.clone(), start));
        let libpython = (maps.iter().filter_map(mapped_file))
            .find(|path| is_libpython(path))
            .and_then(|path| Some((path.clone(), first_code(&maps, |mapped| mapped == path)?)));
        Ok(Mappings { maps, program, places: Places { executable, libpython } })
    }

    /// Opens and parses the program and libpython.
    pub fn parse(self, process: &Process) -> Binaries {
        let (entry, directory) = (process.entry(), process.entry().directory());
        let parse = |file: ProcResult<File>, start: u64| {
            let mut info = parse_binary(&path_of(&file.ok()?), start, self.length_at(start)).ok()?;
            info.bss_size = info.bss_size.min(MOST_ZEROED);
            Some(info)
        };
        let executable = (self.places.executable.as_ref())
            .and_then(|(_, start)| parse(entry.regular_file(directory + "exe", MOST_BYTES), *start));
        let libpython = self.places.libpython.as_ref().and_then(|(path, start)| {
            // What is mapped, whatever has become of the path since: deleted, or replaced by another version. That
            // takes CAP_CHECKPOINT_RESTORE (proc_pid_map_files(5)).
            let as_mapped = entry.regular_file(self.map_file_at(*start), MOST_BYTES);
            parse(as_mapped, *start).or_else(|| parse(entry.regular_file_in_root(path, MOST_BYTES), *start))
        });
        let unread_libpython = match (&libpython, &self.places.libpython) {
            (None, Some((path, _))) => Some(path.clone()),
            _ => None,
        };
        Binaries {
            unread_libpython,
            executable_path: self.program,
            executable,
            libpython,
            paths: self.maps.iter().filter_map(mapped_file).cloned().collect(),
            places: self.places,
        }
    }

    fn length_at(&self, start: u64) -> u64 {
        let map = self.maps.iter().find(|map| map.address.0 == start);
        map.map_or(0, |map| map.address.1 - map.address.0)
    }

    /// Only the process has this directory, not its threads; it is empty once the first one has ended.
    fn map_file_at(&self, start: u64) -> PathBuf {
        let end = start + self.length_at(start);
        PathBuf::from(format!("map_files/{start:x}-{end:x}"))
    }
}

/// Whether a file is `libpython3.14.so.1.0`, or that of another build such as `libpython3.13t.so.1.0`. Not the library
/// `libpython3.so`, which only passes on.
fn is_libpython(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let Some((version, rest)) = name.strip_prefix("libpython").and_then(|name| name.split_once(".so")) else {
        return false;
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let ends_well = rest.is_empty() || rest.starts_with(['.', ' ', '-']);
    let numbers = version.trim_end_matches(|flag: char| flag.is_ascii_lowercase()).split_once('.');
    ends_well && numbers.is_some_and(|(major, minor)| digits(major) && digits(minor))
}

fn mapped_file(map: &MemoryMap) -> Option<&PathBuf> {
    match &map.pathname {
        MMapPath::Path(path) => Some(path),
        _ => None,
    }
}

/// Where the first executable piece of a file is mapped: what py-spy's parser counts addresses from.
fn first_code(maps: &[MemoryMap], is_wanted: impl Fn(&Path) -> bool) -> Option<u64> {
    maps.iter()
        .filter(|map| mapped_file(map).is_some_and(|path| is_wanted(path)))
        .filter(|map| map.perms.contains(MMPermissions::EXECUTE))
        .min_by_key(|map| map.offset)
        .map(|map| map.address.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libpython_is_known_by_its_name_in_every_build() {
        for name in
            ["3.9.so.1.0", "3.14.so", "3.13t.so.1.0", "3.7m.so.1.0 (deleted)", "3.15td.so.1.0", "2.7.so.1.0"]
        {
            assert!(is_libpython(Path::new(&format!("/usr/lib/libpython{name}"))), "{name}");
        }
        for name in
            ["libpython3.so", "libpython3.14.a", "libpython.so", "python3.14.so", "libpython3.14.source"]
        {
            assert!(!is_libpython(Path::new(name)), "{name}");
        }
    }
}
