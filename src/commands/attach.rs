//! From a pid to a sampler: takes hold of the process, finds its interpreter.

use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::cli::Pausing;
use crate::cpython::locate::{Candidate, LocateError, Located};
use crate::recording::Target;
use crate::sampler::Sampler;
use crate::target::binaries::Mappings;
use crate::target::descriptors;
use crate::target::memory::ReadError;
use crate::target::memory::live::LiveMemory;
use crate::target::pause::Pauser;
use crate::target::permission::user_name;
use crate::target::process::{Process, ProcessError};
use crate::text::{from_bytes, visible};
use crate::units::Pid;

/// How long an interpreter that is still starting is waited for.
const STARTING: Duration = Duration::from_secs(2);

/// For how long a program is looked at again that has no interpreter: while it is being loaded, and while it
/// ends, only part of it is mapped.
const MAPPING: Duration = Duration::from_millis(300);

/// How long to wait before looking again for an interpreter that is still starting.
const RETRY: Duration = Duration::from_millis(5);

/// A process whose interpreter was found.
pub(super) struct Attached {
    /// The process.
    pub process: Process,
    /// What looks at it.
    pub sampler: Sampler<LiveMemory>,
    /// What it is.
    pub target: Target,
    /// Where its interpreter is.
    pub located: Located,
}

/// A running process.
pub(super) enum Running {
    /// It has an interpreter, and was attached to.
    Python(Box<Attached>),
    /// It has none.
    Other(Process, Missing),
}

/// Attaches to a running process.
pub(super) fn attach(pid: Pid) -> Result<Attached> {
    match look(pid)? {
        Running::Python(attached) => Ok(*attached),
        Running::Other(process, missing) => Err(missing.explain(&process)),
    }
}

/// Attaches to a running process, if it is one that can be attached to.
pub(super) fn look(pid: Pid) -> Result<Running> {
    let mut process = Process::open(pid)?;
    let began = Instant::now();
    loop {
        match find(&process) {
            Ok(located) if process.is_alive() => {
                process.accept_loaded_program();
                return Ok(Running::Python(Box::new(Attached::new(process, located)?)));
            }
            Ok(_) => return Err(ProcessError::Ending(pid).into()),
            Err(missing) if began.elapsed() < missing.patience() => std::thread::sleep(RETRY),
            Err(missing @ Missing::Interpreter(LocateError::NotPython(_))) if !process.has_no_memory() => {
                return Ok(Running::Other(process, missing));
            }
            Err(missing) => return Err(missing.explain(&process)),
        }
    }
}

/// What pauses a process, if it is to be paused.
pub(super) fn pauser(pausing: &Pausing, process: &Process) -> Result<Option<Pauser>> {
    Ok(if pausing.blocking { Some(Pauser::new(process)?) } else { None })
}

/// Why an interpreter was not found.
pub(super) enum Missing {
    /// The process cannot be looked at.
    Process(ProcessError),
    /// There is none that gilspy can read.
    Interpreter(LocateError),
}

/// Says so where it will not be seen what threads wait in.
pub(super) fn warn_of_hidden_threads(process: &Process) {
    if process.hides_threads() {
        eprintln!(
            "gilspy: what the threads of pid {} wait in is not shown to user {}: who does not hold the GIL is unknown\n  \
             grant that, too: sudo setcap cap_sys_ptrace,cap_dac_read_search=ep $(which gilspy)",
            process.pid(),
            user_name(nix::unistd::geteuid().as_raw())
        );
    }
}

/// Looks for the interpreter once.
pub(super) fn find(process: &Process) -> Result<Located, Missing> {
    let mappings = Mappings::of(process).map_err(Missing::Process)?;
    Candidate::new(mappings.parse(process)).locate(&process.memory()).map_err(|error| match error {
        // Its program could not be opened.
        LocateError::NotPython(_) if descriptors::are_used_up() => Missing::Process(process.too_many_files()),
        error => Missing::Interpreter(error),
    })
}

impl Missing {
    /// For how long it is worth looking again.
    fn patience(&self) -> Duration {
        match self {
            Missing::Interpreter(LocateError::NotReady(_)) => STARTING,
            Missing::Interpreter(LocateError::NotPython(_) | LocateError::Unopened(_)) => MAPPING,
            Missing::Interpreter(LocateError::Memory(ReadError::Unmapped(_))) => MAPPING,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn explain(self, process: &Process) -> anyhow::Error {
        let pid = process.pid();
        if process.has_no_memory() {
            return ProcessError::Ending(pid).into();
        }
        if process.has_executed() {
            return anyhow!("pid {pid} started another program while gilspy was attaching to it\nTry again");
        }
        match self {
            Missing::Process(error) => error.into(),
            Missing::Interpreter(LocateError::Memory(ReadError::Denied)) => process.denied().into(),
            Missing::Interpreter(error) => {
                let program = process.name();
                anyhow!("pid {pid} ({}) {error}", visible(&program))
            }
        }
    }
}

impl Attached {
    /// Joins a process and what was found in it.
    pub(super) fn new(process: Process, located: Located) -> Result<Self> {
        let target = Target {
            pid: process.pid(),
            namespace_pid: process.namespace_pid(),
            python: located.version.to_string(),
            free_threaded: located.free_threaded,
            command: process.command_line(),
            host: host_name(),
        };
        let pid = process.pid();
        let sampler = Sampler::new(process.entry().clone(), process.memory(), located.clone())
            .map_err(|error| anyhow!("pid {pid} cannot be looked at any more: {error}"))?;
        Ok(Attached { process, sampler, target, located })
    }
}

pub(super) fn host_name() -> String {
    let name = nix::unistd::gethostname();
    name.map_or_else(|_| "unknown host".to_owned(), |name| from_bytes(name.as_bytes()))
}
