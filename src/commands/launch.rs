//! `record -- COMMAND`: starts the program and finds its interpreter as early as there is one.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::attach::Attached;
use crate::cpython::locate::{Candidate, LocateError, Located};
use crate::target::binaries::{Mappings, Places};
use crate::target::children::Family;
use crate::target::process::{Process, ProcessError};
use crate::text::visible;
use crate::units::Pid;

/// How long to wait between two looks while the program is starting.
const EAGER: Duration = Duration::from_micros(200);

/// How long to wait between two looks at a program that has not become Python for a while.
const PATIENT: Duration = Duration::from_millis(20);

/// For how long the eager looks go on.
const STARTING: Duration = Duration::from_secs(3);

/// How often to see whether the program has been replaced by another, or has loaded a library.
const REMAP: Duration = Duration::from_millis(2);

/// How often to see whether the program has children.
const CHILDREN: Duration = Duration::from_millis(20);

/// A program that was started.
pub(super) struct Launched {
    child: Child,
    name: String,
    /// Why it could not be looked at.
    refusal: Option<ProcessError>,
}

/// How a program that was started ended before an interpreter was seen in it.
pub(super) enum Start {
    /// It is Python, and was attached to.
    Attached(Box<Attached>),
    /// It is something else, and has children.
    Other(Process),
    /// It ended first.
    Ended(ExitStatus),
}

impl Launched {
    /// Starts a program with gilspy's own standard input, output and error.
    pub(super) fn start(command: &[String]) -> Result<Self> {
        let (program, arguments) = command.split_first().context("there is no command to start")?;
        let name = visible(program).into_owned();
        let child = Command::new(program).args(arguments).spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow!("cannot start {name}: there is no such program"),
            _ => anyhow!("cannot start {name}: {error}"),
        })?;
        Ok(Launched { child, name, refusal: None })
    }

    /// Its process.
    pub(super) fn process(&mut self) -> Result<Process> {
        Process::open(Pid::new(self.child.id() as i32)).map_err(|error| match self.child.try_wait() {
            Ok(Some(status)) => self.never_python(status),
            _ => error.into(),
        })
    }

    /// Looks until its interpreter is there, or it has ended; or, if these may be recorded, until it has children.
    pub(super) fn attach(&mut self, mut process: Process, with_children: bool) -> Result<Start> {
        let started = Instant::now();
        let mut family = Family::of([process.pid()]);
        let mut next_family = started + CHILDREN;
        let mut search = Search::default();
        loop {
            if let Some(located) = search.look(&process) {
                process.accept_program();
                return Ok(Start::Attached(Box::new(Attached::new(process, located)?)));
            }
            if let Some(status) = self.child.try_wait().context("cannot wait for the program")? {
                self.refusal = search.refusal;
                return Ok(Start::Ended(status));
            }
            if with_children && Instant::now() >= next_family {
                next_family = Instant::now() + CHILDREN;
                // One that is just being started may turn out to be Python itself.
                if !search.is_promising() && !family.look().is_empty() {
                    return Ok(Start::Other(process));
                }
            }
            std::thread::sleep(if started.elapsed() < STARTING { EAGER } else { PATIENT });
        }
    }

    /// Waits for its end.
    pub(super) fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().context("cannot wait for the program")
    }

    /// The error for a program that ended as something else than Python.
    pub(super) fn never_python(&mut self, status: ExitStatus) -> anyhow::Error {
        if let Some(refusal) = self.refusal.take() {
            return refusal.into();
        }
        anyhow!(
            "{} ended ({status}) before a CPython interpreter was seen in it\n\
             without -s, gilspy looks at the program itself only, not at the processes that it starts",
            self.name
        )
    }
}

/// The exit status to pass on, as a shell counts: 128 and the signal's number for a program that was killed.
pub(super) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Remembers what was parsed, so that a look costs little while nothing has changed.
#[derive(Default)]
pub(super) struct Search {
    places: Places,
    candidate: Option<Candidate>,
    mapped_at: Option<Instant>,
    /// Why the last look was refused, if it was.
    refusal: Option<ProcessError>,
}

impl Search {
    /// Looks once.
    pub(super) fn look(&mut self, process: &Process) -> Option<Located> {
        if self.mapped_at.is_none_or(|at| at.elapsed() > REMAP) {
            self.remap(process)?;
        }
        match self.candidate.as_ref()?.locate(&process.memory()) {
            Ok(located) => Some(located),
            Err(LocateError::NotPython(_) | LocateError::Unopened(_)) => {
                self.candidate = None;
                None
            }
            Err(_) => None,
        }
    }

    /// Whether what was looked at last may be Python.
    fn is_promising(&self) -> bool {
        self.candidate.is_some()
    }

    fn remap(&mut self, process: &Process) -> Option<()> {
        let mappings = match Mappings::of(process) {
            Ok(mappings) => mappings,
            Err(error) => {
                if matches!(error, ProcessError::Denied { .. }) {
                    self.refusal = Some(error);
                }
                return None;
            }
        };
        self.refusal = None;
        self.mapped_at = Some(Instant::now());
        if mappings.places != self.places {
            self.places = mappings.places.clone();
            self.candidate = Some(Candidate::new(mappings.parse(process)));
        }
        Some(())
    }
}
