//! Gilspy's stacks against what others see of the same process while it stands still: py-spy, of which gilspy
//! uses how to find an interpreter but nothing that reads stacks, and the interpreter's own faulthandler.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use py_spy::config::{Config, LineNo, LockingStrategy};
use py_spy::{PythonSpy, StackTrace};
use serde_json::Value;
use support::*;
use tempfile::TempDir;

/// How often each target is stopped, somewhere else each time.
const STOPS: usize = 3;

/// How long it may run in between.
const RUN: Duration = Duration::from_millis(7);

/// How long faulthandler may take to tell its stacks.
const TOLD: Duration = Duration::from_secs(30);

/// Versions that py-spy has to manage, lest the tests compare nothing.
const REQUIRED: [&str; 3] = ["3.9", "3.11", "3.13"];

#[test]
fn threads_parked_in_all_kinds_of_code_are_as_py_spy_sees_them() {
    agrees_with_py_spy("parked_stacks.py");
}

#[test]
fn spinners_are_as_py_spy_sees_them() {
    agrees_with_py_spy("two_spinners.py");
}

#[test]
fn a_deep_recursion_is_as_py_spy_sees_it() {
    agrees_with_py_spy("deep_recursion.py");
}

#[test]
fn callers_of_c_are_as_py_spy_sees_them() {
    agrees_with_py_spy("c_holds_gil.py");
}

#[test]
fn coroutines_are_as_py_spy_sees_them() {
    agrees_with_py_spy("asyncio_tasks.py");
}

#[test]
fn fast_calls_are_as_py_spy_sees_them() {
    agrees_with_py_spy("call_pairs.py");
}

#[test]
fn an_application_is_as_py_spy_sees_it() {
    agrees_with_py_spy("demo.py");
}

#[test]
fn names_of_any_script_are_as_py_spy_sees_them() {
    agrees_with_py_spy("non_ascii_names.py");
}

/// The free-threaded builds, which py-spy cannot read, have only this oracle.
#[test]
fn stacks_are_those_that_faulthandler_tells() {
    for interpreter in all_interpreters() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("stacks");
        let fixture = Fixture::start(interpreter, "tell_stacks.py", &[file.to_str().unwrap()]);
        let dump = dump_json(&fixture.pid());
        let told = told_stacks(&fixture, &file);

        let idents = fixture.ready["idents"].as_object().unwrap();
        assert_eq!((told.len(), threads(&dump).len()), (idents.len(), idents.len()), "{interpreter:?}");
        for (name, ident) in idents {
            let seen: Vec<Frame> = frames(thread(&dump, name)).into_iter().map(Frame::unqualified).collect();
            assert_eq!(seen, told[&ident.as_u64().unwrap()], "{name} on {interpreter:?}");
        }
    }
}

/// Stops a program again and again on every interpreter: gilspy and py-spy have to see the same threads with
/// the same names and the same frames, with function, file and line.
fn agrees_with_py_spy(program: &str) {
    let (mut found, mut worked) = (BTreeSet::new(), BTreeSet::new());
    for interpreter in interpreters() {
        found.insert(interpreter.series());
        match compare(interpreter, program) {
            Ok(()) => _ = worked.insert(interpreter.series()),
            Err(error) => {
                let path = interpreter.path.display();
                eprintln!("SKIPPED {program} on {} {path}: py-spy: {error:#}", interpreter.version);
            }
        }
    }
    for series in REQUIRED.into_iter().filter(|series| found.contains(*series)) {
        assert!(worked.contains(series), "py-spy did not manage {program} on any {series}");
    }
}

/// Compares at every stop; the error is py-spy's.
fn compare(interpreter: &Interpreter, program: &str) -> anyhow::Result<()> {
    let fixture = Fixture::start(interpreter, program, &[]);
    let mut py_spy = PySpy::attach(&Stopped::stop(&fixture))?;
    for stop in 1..=STOPS {
        std::thread::sleep(RUN);
        let _stopped = Stopped::stop(&fixture);
        let theirs = py_spy.threads()?;
        let dump = dump_json(&fixture.pid());
        let context = format!("{program} on {interpreter:?}, stop {stop}");
        let names: BTreeSet<&str> =
            threads(&dump).iter().map(|thread| thread["name"].as_str().unwrap()).collect();
        assert_eq!(threads(&dump).len(), names.len(), "{context}: a name comes twice");
        assert_eq!(names, theirs.keys().map(String::as_str).collect(), "{context}");
        for (name, theirs) in &theirs {
            let ours = thread(&dump, name);
            // Before 3.11 an interpreter does not know its threads' ids, and so py-spy does not.
            assert!(theirs.tid.is_none() || ours["tid"].as_u64() == theirs.tid, "{context}, {name}");
            if let Some(difference) = difference(interpreter, &frames(ours), &theirs.frames) {
                panic!("{context}, {name}: {difference}");
            }
        }
    }
    Ok(())
}

/// The first frame, from the innermost outward, in which two stacks differ.
fn difference(interpreter: &Interpreter, ours: &[Frame], theirs: &[OtherFrame]) -> Option<String> {
    let is_same = |place: usize| {
        let (ours, theirs) = (&ours[place], &theirs[place]);
        *ours == theirs.frame || place == 0 && is_excused(interpreter, ours, theirs)
    };
    let shared = ours.len().min(theirs.len());
    let place = (0..shared).find(|&place| !is_same(place)).or((ours.len() != theirs.len()).then_some(shared));
    place.map(|place| {
        format!(
            "of {} and {} frames, frame {place} is\n{:?} to gilspy and\n{:?} to py-spy",
            ours.len(),
            theirs.len(),
            ours.get(place),
            theirs.get(place)
        )
    })
}

/// Whether two lines of an innermost frame differ only as they are known to: before a function's first
/// instruction, and where py-spy is wrong because an instruction has no line. Which lines these are the
/// interpreter itself has to say, of this very function: `tests/programs/excused_lines.py`.
fn is_excused(interpreter: &Interpreter, ours: &Frame, theirs: &OtherFrame) -> bool {
    let Frame { function, file, line } = theirs.frame.clone().unqualified();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/excused_lines.py");
    let mut excused = Command::new(&interpreter.path);
    excused.arg(script).args([&file, &function, &theirs.first_line.to_string()]);
    let stdout = excused.output().unwrap().stdout;
    let pairs: Vec<(Option<i64>, Option<i64>)> = serde_json::from_slice(&stdout).unwrap_or_default();
    let is_same_code = (&ours.function, &ours.file) == (&theirs.frame.function, &theirs.frame.file);
    is_same_code && pairs.contains(&(ours.line, line))
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    function: String,
    file: String,
    line: Option<i64>,
}

impl Frame {
    /// The same as whoever does not know qualified names (`Class.method`, `outer.<locals>.inner`) sees it.
    fn unqualified(self) -> Self {
        let bare = self.function.rsplit('.').next().unwrap_or_default().to_owned();
        Frame { function: bare, ..self }
    }
}

/// A thread's frames in gilspy's dump, innermost first.
fn frames(thread: &Value) -> Vec<Frame> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let frames = thread["frames"].as_array().unwrap().iter();
    frames
        .map(|frame| Frame {
            function: text(&frame["function"]),
            file: text(&frame["file"]),
            line: frame["line"].as_i64(),
        })
        .collect()
}

/// A thread as py-spy sees it.
struct OtherThread {
    tid: Option<u64>,
    frames: Vec<OtherFrame>,
}

/// A call as py-spy sees it.
#[derive(Debug)]
struct OtherFrame {
    frame: Frame,
    /// Where the function's definition starts.
    first_line: i64,
}

/// Py-spy, attached to one process.
struct PySpy {
    lines: PythonSpy,
    first_lines: PythonSpy,
}

impl PySpy {
    fn attach(target: &Stopped) -> anyhow::Result<Self> {
        let attach = |lineno| {
            let config = Config { blocking: LockingStrategy::NonBlocking, lineno, ..Config::default() };
            PythonSpy::new(target.0.as_raw(), &config)
        };
        Ok(PySpy { lines: attach(LineNo::LastInstruction)?, first_lines: attach(LineNo::First)? })
    }

    /// The threads of the process, which has to be stopped, by their names.
    fn threads(&mut self) -> anyhow::Result<BTreeMap<String, OtherThread>> {
        let traces = self.lines.get_stack_traces()?;
        let count = traces.len();
        let both = traces.into_iter().zip(self.first_lines.get_stack_traces()?);
        let threads: BTreeMap<_, _> = both.map(other_thread).collect();
        assert_eq!(threads.len(), count, "a name comes twice");
        Ok(threads)
    }
}

fn other_thread((trace, first_lines): (StackTrace, StackTrace)) -> (String, OtherThread) {
    let frames = trace.frames.into_iter().zip(first_lines.frames).map(|(frame, first)| OtherFrame {
        frame: Frame { function: frame.name, file: frame.filename, line: Some(frame.line.into()) },
        first_line: first.line.into(),
    });
    let name = trace.thread_name.expect("a thread without a name");
    (name, OtherThread { tid: trace.os_thread_id, frames: frames.collect() })
}

/// A process that stands still until this is dropped.
struct Stopped(Pid);

impl Stopped {
    /// Returns once every thread of the program has stopped.
    fn stop(fixture: &Fixture) -> Self {
        let pid = Pid::from_raw(fixture.child.id() as i32);
        kill(pid, Signal::SIGSTOP).unwrap();
        let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(status, WaitStatus::Stopped(pid, Signal::SIGSTOP));
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// The stacks that faulthandler writes to this file when asked, by the thread's ident.
fn told_stacks(fixture: &Fixture, file: &Path) -> BTreeMap<u64, Vec<Frame>> {
    kill(Pid::from_raw(fixture.child.id() as i32), Signal::SIGUSR1).unwrap();
    let begun = Instant::now();
    let text = loop {
        let text = std::fs::read_to_string(file).unwrap();
        // The outermost frame of the main thread, which comes last.
        if text.ends_with(" in <module>\n") {
            break text;
        }
        assert!(begun.elapsed() < TOLD, "faulthandler has not told everything: {text}");
        std::thread::sleep(Duration::from_millis(10));
    };
    text.split("\n\n").map(|stack| told_stack(stack).unwrap_or_else(|| panic!("{stack}"))).collect()
}

/// A line `Thread 0x00007fefcbbd56c0 (most recent call first):`, from 3.14 on with a name after the number, and
/// lines `  File "spam.py", line 7 in eggs`.
fn told_stack(text: &str) -> Option<(u64, Vec<Frame>)> {
    let mut lines = text.lines();
    let (_, ident) = lines.next()?.split_once("hread 0x")?;
    let ident = u64::from_str_radix(ident.split(' ').next()?, 16).ok()?;
    let frames = lines.map(|line| {
        let (file, place) = line.strip_prefix("  File \"")?.rsplit_once("\", line ")?;
        let (line, function) = place.split_once(" in ")?;
        Some(Frame { function: function.to_owned(), file: file.to_owned(), line: Some(line.parse().ok()?) })
    });
    Some((ident, frames.collect::<Option<_>>()?))
}
