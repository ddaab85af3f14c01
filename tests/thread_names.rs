//! The names that `threading` gives its threads, read from live interpreters of every version found.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use gilspy::cpython::locate::{Candidate, Located};
use gilspy::cpython::names::{NameReader, thread_names};
use gilspy::target::binaries::Mappings;
use gilspy::target::memory::live::LiveMemory;
use gilspy::target::memory::{ReadError, ReadMemory, Segment};
use gilspy::target::process::Process;
use gilspy::units::{Address, Pid};

type Names = BTreeMap<u64, String>;

/// Every interpreter of this machine.
fn pythons() -> Vec<PathBuf> {
    support::all_interpreters().iter().map(|interpreter| interpreter.path.clone()).collect()
}

/// A running target.
struct Target {
    child: Child,
    answers: BufReader<ChildStdout>,
    process: Process,
}

impl Target {
    fn start(python: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(python)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let process = Process::open(Pid::new(child.id() as i32)).unwrap();
        Target { child, answers, process }
    }

    fn thread_names(python: &Path) -> Self {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/thread_names.py");
        Self::start(python, &[program])
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the target has ended");
        line
    }

    /// Has it obey a command, and answers the names that its threads have then.
    fn tell(&mut self, command: &str) -> Names {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{command}").unwrap();
        serde_json::from_str(&self.answer()).unwrap()
    }

    fn memory(&self) -> LiveMemory {
        self.process.memory()
    }

    fn locate(&self) -> (Located, Address) {
        let mappings = Mappings::of(&self.process).unwrap();
        let located = Candidate::new(mappings.parse(&self.process)).locate(&self.memory()).unwrap();
        let main = located.interpreters(&self.memory()).unwrap().pop().unwrap();
        (located, main.address)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory that counts what is read of it.
struct Counting {
    memory: LiveMemory,
    calls: Cell<usize>,
    segments: Cell<usize>,
}

impl ReadMemory for Counting {
    fn read_batch(&self, segments: &mut [Segment<'_>]) -> Result<(), ReadError> {
        // LiveMemory puts 64 segments into a call; what does not arrive ends one.
        let answer = self.memory.read_batch(segments);
        let missing = segments.iter().filter(|segment| !segment.arrived).count();
        self.calls.set(self.calls.get() + segments.len().div_ceil(64) + missing);
        self.segments.set(self.segments.get() + segments.len());
        answer
    }
}

#[test]
fn every_thread_has_the_name_that_threading_gives_it() {
    for python in pythons() {
        let mut target = Target::thread_names(&python);
        let started = target.tell("start");
        assert!(started.len() > 200);
        let (located, interpreter) = target.locate();
        let memory = Counting { memory: target.memory(), calls: Cell::new(0), segments: Cell::new(0) };
        let mut reader = NameReader::new(interpreter);
        let mut read = || -> (Names, usize) {
            memory.calls.set(0);
            let names = reader.read(&memory, &located.layout).unwrap();
            (names.into_iter().collect(), memory.calls.get())
        };
        let who = format!("{} of {}", located.version, python.display());
        let (names, first_calls) = read();
        assert_eq!(names, started, "{who}");
        let (names, calls) = read();
        assert_eq!(names, started, "{who}, read again");
        println!("{who}: {} names in {first_calls} calls, then {calls}", names.len());
        assert!(calls < 100, "{who} took {calls} calls");

        let renamed = target.tell("rename");
        assert_ne!(renamed, started);
        assert_eq!(read().0, renamed, "{who}, renamed");
        let finished = target.tell("finish");
        assert!(finished.len() < 10);
        // On a free-threaded build those that end still do so in parallel, and the dict moves under the
        // reader: a name that does not stand still is left out until it does.
        let mut settled = read().0;
        for _ in 0..50 {
            if settled == finished {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            settled = read().0;
        }
        assert_eq!(settled, finished, "{who}, most ended");
        let once = thread_names(&target.memory(), &located.layout, interpreter).unwrap();
        assert_eq!(once.into_iter().collect::<Names>(), finished, "{who}, read once");
    }
}

#[test]
fn a_program_without_threading_has_no_names() {
    const PROGRAM: &str = "import sys; assert 'threading' not in sys.modules; \
        print(1, flush=True); sys.stdin.readline(); import threading; print(2, flush=True); sys.stdin.readline()";
    for python in pythons() {
        let mut target = Target::start(&python, &["-S", "-c", PROGRAM]);
        target.answer();
        let (located, interpreter) = target.locate();
        let mut reader = NameReader::new(interpreter);
        for _ in 0..2 {
            let names = reader.read(&target.memory(), &located.layout).unwrap();
            assert!(names.is_empty(), "{}: {names:?}", python.display());
        }
        writeln!(target.child.stdin.as_mut().unwrap()).unwrap();
        target.answer();
        let names = reader.read(&target.memory(), &located.layout).unwrap();
        assert_eq!(
            names.into_values().collect::<Vec<_>>(),
            ["MainThread"],
            "{}, imported later",
            python.display()
        );
    }
}

#[test]
fn names_that_change_while_they_are_read_are_never_wrong() {
    for python in pythons() {
        let mut target = Target::thread_names(&python);
        let main = *target.tell("churn").keys().next().unwrap();
        let (located, interpreter) = target.locate();
        let mut reader = NameReader::new(interpreter);
        let (mut most, mut reads) = (0, 0);
        for _ in 0..400 {
            // Reading without a pause can keep a target from starting threads: both want its mmap_lock.
            std::thread::sleep(Duration::from_millis(1));
            let Ok(names) = reader.read(&target.memory(), &located.layout) else {
                continue;
            };
            reads += 1;
            most = most.max(names.len());
            for (ident, name) in &names {
                let expected = match name.as_str() {
                    "MainThread" => *ident == main,
                    "churner" | "churn" => *ident != main,
                    _ => name.starts_with(&format!("churn-{ident}-")),
                };
                assert!(expected, "{}: thread {ident} has the name {name:?}", python.display());
            }
        }
        println!("{}: {reads} reads, at most {most} names", python.display());
        assert!(reads > 300 && most > 5, "{}: {reads} reads, {most} names", python.display());
    }
}
