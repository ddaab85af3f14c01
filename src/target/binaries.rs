//! The programs and libraries that a process has mapped, and the symbols of those that can be an
//! interpreter. Files are opened through /proc, so a container's files and deleted ones are found.

use std::path::{Path, PathBuf};

use procfs::process::{MMPermissions, MMapPath, MemoryMap};
use py_spy::binary_parser::{BinaryInfo, parse_binary};
use py_spy::python_process_info::is_python_lib;

use super::process::{Process, ProcessError};
use crate::units::Address;

/// What a process has mapped that matters for finding an interpreter.
pub struct Binaries {
    /// Path of the program, as the process sees it.
    pub executable_path: PathBuf,
    /// The program's symbols; `None` where its file could not be parsed.
    pub executable: Option<BinaryInfo>,
    /// The symbols of libpython, where one is mapped and could be parsed.
    pub libpython: Option<BinaryInfo>,
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
        let proc_entry = procfs::process::Process::new(process.pid().raw());
        let proc_entry = proc_entry.map_err(|error| process.explain(error))?;
        let maps = proc_entry.maps().map_err(|error| process.explain(error))?.0;
        let program = proc_entry.exe().map_err(|error| process.explain(error))?;
        let first = maps.first().ok_or(ProcessError::Ending(process.pid()))?;
        process.check_access(Address::new(first.address.0))?;
        let executable = first_code(&maps, |path| path == program).map(|start| (program.clone(), start));
        let libpython = (maps.iter().filter_map(path_of))
            .find(|path| path.to_str().is_some_and(is_python_lib))
            .and_then(|path| Some((path.clone(), first_code(&maps, |mapped| mapped == path)?)));
        Ok(Mappings { maps, program, places: Places { executable, libpython } })
    }

    /// Opens and parses the program and libpython.
    pub fn parse(self, process: &Process) -> Binaries {
        let pid = process.pid();
        let parse = |file: &Path, start: u64| parse_binary(file, start, self.length_at(start)).ok();
        let executable = (self.places.executable.as_ref())
            .and_then(|(_, start)| parse(Path::new(&format!("/proc/{pid}/exe")), *start));
        let libpython = self.places.libpython.as_ref().and_then(|(path, start)| {
            let in_its_root = format!("/proc/{pid}/root{}", path.display());
            // The file may have been replaced or deleted since it was mapped.
            let as_mapped = self.map_file_at(pid.raw(), *start);
            parse(Path::new(&in_its_root), *start).or_else(|| parse(&as_mapped, *start))
        });
        Binaries {
            executable_path: self.program,
            executable,
            libpython,
            paths: self.maps.iter().filter_map(path_of).cloned().collect(),
            places: self.places,
        }
    }

    fn length_at(&self, start: u64) -> u64 {
        let map = self.maps.iter().find(|map| map.address.0 == start);
        map.map_or(0, |map| map.address.1 - map.address.0)
    }

    fn map_file_at(&self, pid: i32, start: u64) -> PathBuf {
        let end = start + self.length_at(start);
        PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"))
    }
}

fn path_of(map: &MemoryMap) -> Option<&PathBuf> {
    match &map.pathname {
        MMapPath::Path(path) => Some(path),
        _ => None,
    }
}

/// Where the first executable piece of a file is mapped: what py-spy's parser counts addresses from.
fn first_code(maps: &[MemoryMap], is_wanted: impl Fn(&Path) -> bool) -> Option<u64> {
    maps.iter()
        .filter(|map| path_of(map).is_some_and(|path| is_wanted(path)))
        .filter(|map| map.perms.contains(MMPermissions::EXECUTE))
        .min_by_key(|map| map.offset)
        .map(|map| map.address.0)
}
