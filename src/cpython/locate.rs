//! Finds the interpreter in a process: its version, `_PyRuntime` and the layout of its data.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use py_spy::python_process_info::{ContainsAddr, PythonProcessInfo, get_python_version};

use super::gil::{gil_address, read_gil};
use super::layout::debug_offsets::{DebugOffsets, DebugOffsetsError};
use super::layout::{self, Layout};
use super::threads::{Interpreter, ThreadList, interpreters};
use super::version::Version;
use crate::target::binaries::Binaries;
use crate::target::memory::budget::{Budget, Budgeted};
use crate::target::memory::{ReadError, ReadMemory};
use crate::text::shown;
use crate::units::Address;

/// What is read at most to hold a layout against a live process.
pub const ATTACHING: Budget = Budget { reads: 1 << 17, bytes: 32 << 20 };

/// An interpreter that was found and whose layout fits.
#[derive(Debug, Clone)]
pub struct Located {
    /// Its version.
    pub version: Version,
    /// Whether it is a free-threaded build.
    pub free_threaded: bool,
    /// Where its `_PyRuntime` is.
    pub runtime: Address,
    /// Where its fields are.
    pub layout: Layout,
    /// Whether its C library is musl: who waits for the GIL is found otherwise then.
    pub is_musl: bool,
}

/// Why no interpreter was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocateError {
    /// The program is something else.
    #[error("is not a CPython process: no interpreter in\n{} or the libraries it has loaded", shown(.0))]
    NotPython(PathBuf),
    /// It has a libpython that could not be opened, or is no library any more.
    #[error(
        "has loaded {}, which cannot be opened\n\
         Where it was deleted, or only another user can get at it, that takes root (or CAP_DAC_READ_SEARCH)", shown(.0)
    )]
    Unopened(PathBuf),
    /// Another implementation of Python.
    #[error("runs {0}, which is not CPython\ngilspy reads CPython 3.7 to 3.15")]
    OtherImplementation(&'static str),
    /// A version without a layout.
    #[error("runs Python {0}\ngilspy reads CPython 3.7 to 3.15")]
    UnsupportedVersion(Version),
    /// It has not been initialised yet, or is gone already.
    #[error(
        "runs Python {0}, but its interpreter is still starting or already shutting down\n\
         If this stays so, it is a build that gilspy does not understand: please report it"
    )]
    NotReady(Version),
    /// Its debug offsets cannot be used.
    #[error("runs Python {0}, but {1}\nPlease report it, with where the interpreter comes from")]
    DebugOffsets(Version, DebugOffsetsError),
    /// Its memory could not be read.
    #[error("has memory that cannot be read: {0}")]
    Memory(#[from] ReadError),
}

/// A program that may be an interpreter: its symbols, parsed once and asked as often as it takes.
pub struct Candidate {
    executable: PathBuf,
    other_implementation: Option<&'static str>,
    unread_libpython: Option<PathBuf>,
    is_musl: bool,
    info: PythonProcessInfo,
}

impl Candidate {
    /// The program that has these binaries mapped.
    pub fn new(binaries: Binaries) -> Self {
        Candidate {
            executable: binaries.executable_path.clone(),
            unread_libpython: binaries.unread_libpython.clone(),
            other_implementation: other_implementation(&binaries),
            is_musl: binaries.paths.iter().any(|path| is_musl(path)),
            info: process_info(binaries),
        }
    }

    /// Finds its interpreter.
    ///
    /// # Errors
    /// When there is none, or it is not one that gilspy can read.
    pub fn locate(&self, memory: &impl ReadMemory) -> Result<Located, LocateError> {
        if let Some(name) = self.other_implementation {
            return Err(LocateError::OtherImplementation(name));
        }
        let not_python = || match &self.unread_libpython {
            Some(path) => LocateError::Unopened(path.clone()),
            None => LocateError::NotPython(self.executable.clone()),
        };
        let Some(runtime) = runtime_address(&self.info) else {
            // Before 3.7 there is no `_PyRuntime`.
            return Err(match version(&self.info, memory) {
                Some(version) if is_before_3_7(&version) => LocateError::UnsupportedVersion(version),
                _ => not_python(),
            });
        };
        Located::at(memory, runtime, self.is_musl, || version(&self.info, memory).ok_or_else(not_python))
    }
}

impl Located {
    /// The interpreter whose `_PyRuntime` is at this address; `version` is asked where that does not tell.
    ///
    /// # Errors
    /// When there is none, or it is not one that gilspy can read.
    pub fn at(
        memory: &impl ReadMemory,
        runtime: Address,
        is_musl: bool,
        version: impl FnOnce() -> Result<Version, LocateError>,
    ) -> Result<Self, LocateError> {
        let memory = &Budgeted::new(memory, ATTACHING);
        let located = match DebugOffsets::read(memory, runtime)? {
            Some(offsets) => from_debug_offsets(&offsets, runtime)?,
            None => from_table(version()?, runtime)?,
        };
        located.check(memory)?;
        Ok(Located { is_musl, ..located })
    }

    /// Holds the layout against the live process: an interpreter with a thread of its own, and a GIL
    /// whose fields can be those of a GIL.
    fn check(&self, memory: &impl ReadMemory) -> Result<(), LocateError> {
        let not_ready = || LocateError::NotReady(self.version.clone());
        let main = self.interpreters(memory)?.pop().ok_or_else(not_ready)?;
        let gil = gil_address(memory, &self.layout.gil, self.runtime, main.address)?;
        let reading = read_gil(memory, &self.layout.gil, gil).map_err(|_| not_ready())?;
        if !reading.is_some_and(|reading| reading.is_plausible()) {
            return Err(not_ready());
        }
        let mut threads = Vec::new();
        ThreadList::new(main.address).read(memory, &self.layout, &mut threads)?;
        if threads.is_empty() {
            return Err(not_ready());
        }
        Ok(())
    }

    /// Its interpreters, newest first.
    ///
    /// # Errors
    /// When the memory could not be read, or the list does not end.
    pub fn interpreters(&self, memory: &impl ReadMemory) -> Result<Vec<Interpreter>, ReadError> {
        interpreters(memory, &self.layout, self.runtime)
    }
}

/// musl's C library is its dynamic linker (musl 1.2, `ldso/dlstart.c`), such as `/lib/ld-musl-x86_64.so.1`.
fn is_musl(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("ld-musl-"))
}

fn from_debug_offsets(offsets: &DebugOffsets, runtime: Address) -> Result<Located, LocateError> {
    let version = offsets.version();
    let layout = match offsets.layout() {
        Ok(layout) => layout,
        Err(DebugOffsetsError::UnknownVersion) => return Err(LocateError::UnsupportedVersion(version)),
        Err(error) => return Err(LocateError::DebugOffsets(version, error)),
    };
    Ok(Located { version, free_threaded: offsets.free_threaded(), runtime, layout, is_musl: false })
}

fn from_table(version: Version, runtime: Address) -> Result<Located, LocateError> {
    match layout::table(&version) {
        Some(layout) => Ok(Located { version, free_threaded: false, runtime, layout, is_musl: false }),
        None => Err(LocateError::UnsupportedVersion(version)),
    }
}

/// The symbol `_PyRuntime`, which survives stripping, or the section of that name.
fn runtime_address(info: &PythonProcessInfo) -> Option<Address> {
    let symbol = info.get_symbol("_PyRuntime").copied();
    let section = || {
        let binaries = [&info.libpython_binary, &info.python_binary].into_iter().flatten();
        binaries.map(|binary| binary.pyruntime_addr).find(|&address| address != 0)
    };
    symbol.or_else(section).map(Address::new)
}

fn other_implementation(binaries: &Binaries) -> Option<&'static str> {
    let is_pypy = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("pypy") || name.starts_with("libpypy")
    };
    (binaries.paths.iter().chain([&binaries.executable_path]).any(|path| is_pypy(path))).then_some("PyPy")
}

fn is_before_3_7(version: &Version) -> bool {
    (version.major, version.minor) < (3, 7)
}

/// What py-spy's functions for finding the version want to know.
fn process_info(binaries: Binaries) -> PythonProcessInfo {
    PythonProcessInfo {
        python_binary: binaries.executable,
        libpython_binary: binaries.libpython,
        maps: Box::new(NoMaps),
        python_filename: binaries.executable_path,
        dockerized: false,
    }
}

fn version(info: &PythonProcessInfo, memory: &impl ReadMemory) -> Option<Version> {
    let found = get_python_version(info, &ProcessMemory(memory)).ok()?;
    Some(Version {
        major: found.major,
        minor: found.minor,
        patch: found.patch,
        pre_release: found.release_flags,
    })
}

struct NoMaps;

impl ContainsAddr for NoMaps {
    fn contains_addr(&self, _address: usize) -> bool {
        false
    }
}

/// The target's memory as py-spy's functions want it.
struct ProcessMemory<'a, M>(&'a M);

impl<M: ReadMemory> remoteprocess::ProcessMemory for ProcessMemory<'_, M> {
    fn read(&self, address: usize, buffer: &mut [u8]) -> Result<(), remoteprocess::Error> {
        let read = self.0.read(Address::new(address as u64), buffer);
        read.map_err(|error| remoteprocess::Error::Other(error.to_string()))
    }
}
