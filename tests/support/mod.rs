//! What the end-to-end tests share: real interpreters, fixture programs that say when they are ready, and
//! the gilspy binary.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod browser;
pub mod chaos;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::hash::{Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use serde_json::Value;
use tempfile::TempDir;

/// How long a fixture may take to be ready. A hog of the GIL keeps its own main thread from saying so.
const READY: Duration = Duration::from_secs(60);

/// Versions without which a CI run is a failure.
const REQUIRED: [&str; 6] = ["3.9", "3.11", "3.13", "3.13t", "3.14", "3.15"];

/// A CPython to test with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interpreter {
    pub minor: u32,
    pub free_threaded: bool,
    pub version: String,
    pub path: PathBuf,
}

impl Interpreter {
    /// `3.13` or `3.13t`.
    pub fn series(&self) -> String {
        format!("3.{}{}", self.minor, if self.free_threaded { "t" } else { "" })
    }

    /// Asks an executable what it is; `None` where it is no CPython from 3.7 on.
    fn ask(path: &Path) -> Option<Self> {
        let script = "import sys, sysconfig; v = sys.version_info; print(sys.implementation.name, v[0], v[1], \
                      '%d.%d.%d' % v[:3], int(bool(sysconfig.get_config_var('Py_GIL_DISABLED'))), sys.executable)";
        let output = Command::new(path).args(["-c", script]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let [name, major, minor, version, free_threaded, executable] =
            text.trim().splitn(6, ' ').collect::<Vec<_>>().try_into().ok()?;
        let minor = minor.parse().ok()?;
        (name == "cpython" && major == "3" && minor >= 7).then(|| Interpreter {
            minor,
            free_threaded: free_threaded == "1",
            version: version.to_owned(),
            path: PathBuf::from(executable),
        })
    }
}

/// Every interpreter of this machine that the tests use: fetched ones, pyenv's, and those on PATH.
pub fn all_interpreters() -> &'static [Interpreter] {
    static FOUND: OnceLock<Vec<Interpreter>> = OnceLock::new();
    FOUND.get_or_init(|| {
        // One executable may have several names, and copies.
        let mut executables = HashSet::new();
        let mut found: Vec<Interpreter> = candidates()
            .iter()
            .filter_map(|path| Interpreter::ask(path))
            .filter(|interpreter| executables.insert(hash(&std::fs::read(&interpreter.path).unwrap())))
            .collect();
        found.sort();
        for interpreter in &found {
            eprintln!("using CPython {:<6} {}", interpreter.version, interpreter.path.display());
        }
        let missing: Vec<_> = REQUIRED
            .iter()
            .filter(|series| !found.iter().any(|interpreter| interpreter.series() == **series))
            .collect();
        if !missing.is_empty() {
            let message = format!("no CPython {missing:?}: run fixtures/fetch-interpreters.sh");
            assert!(std::env::var_os("CI").is_none(), "{message}");
            eprintln!("SKIPPED for want of an interpreter: {message}");
        }
        assert!(!found.is_empty(), "no CPython at all: run fixtures/fetch-interpreters.sh");
        found
    })
}

/// The interpreters that have a GIL.
pub fn interpreters() -> impl Iterator<Item = &'static Interpreter> {
    all_interpreters().iter().filter(|interpreter| !interpreter.free_threaded)
}

/// The newest interpreter of each series, for what does not depend on how it was built.
pub fn one_of_each_series() -> impl Iterator<Item = &'static Interpreter> {
    let all = all_interpreters();
    all.iter().enumerate().filter_map(|(index, interpreter)| {
        let is_last = all[index + 1..].iter().all(|later| later.series() != interpreter.series());
        is_last.then_some(interpreter)
    })
}

/// One interpreter, for what does not depend on the version.
pub fn newest() -> &'static Interpreter {
    interpreters().last().expect("a CPython with a GIL")
}

/// Where `fixtures/fetch-interpreters.sh` puts them.
pub fn fetched_interpreters() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("GILSPY_INTERPRETERS").map_or_else(|| root.join("target/interpreters"), PathBuf::from)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn candidates() -> Vec<PathBuf> {
    let fetched = fetched_interpreters();
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pyenv")));
    let mut paths = Vec::new();
    for version in entries(&fetched) {
        paths.extend(pythons(&version.join("bin")));
        paths.extend(pythons(&version.join("usr/bin")));
    }
    for version in pyenv.iter().flat_map(|pyenv| entries(&pyenv.join("versions"))) {
        paths.extend(pythons(&version.join("bin")));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    paths.extend(
        std::env::split_paths(&path)
            .map(|directory| directory.join("python3"))
            .filter(|python| python.exists()),
    );
    paths
}

/// `python3.9` and the like, but not `python3.9-config`.
fn pythons(directory: &Path) -> Vec<PathBuf> {
    let is_python = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_prefix("python3."));
        name.is_some_and(|minor| minor.trim_end_matches('t').bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries(directory).into_iter().filter(is_python).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// A fixture program's file.
pub fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/programs").join(name)
}

/// A fixture program that runs and has said that it is ready. It is killed when this is dropped.
pub struct Fixture {
    pub child: Child,
    /// What it said of itself.
    pub ready: Value,
}

impl Fixture {
    /// Starts a program and waits until it is ready.
    pub fn start(interpreter: &Interpreter, name: &str, arguments: &[&str]) -> Self {
        Self::start_with(interpreter, name, arguments, &[])
    }

    /// The same, with more in its environment.
    pub fn start_with(
        interpreter: &Interpreter,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(&interpreter.path);
        command.arg(program(name)).args(arguments).envs(environment.iter().copied());
        Self::run(command, name)
    }

    /// Runs a command that starts a fixture program.
    pub fn run(mut command: Command, name: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let fifo = directory.path().join("ready");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        // Read and write: opening does not wait for the program, and its end is seen as a time-out.
        let ready = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
        let child =
            command.env("GILSPY_READY", &fifo).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut fds = [PollFd::new(ready.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(READY).unwrap();
        assert_eq!(poll(&mut fds, timeout), Ok(1), "{name} is not ready: {command:?}");
        let mut line = String::new();
        BufReader::new(&ready).read_line(&mut line).unwrap();
        Fixture { child, ready: serde_json::from_str(&line).unwrap() }
    }

    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// The kernel's id of a thread by its Python name, as the program itself says (from 3.8 on).
    pub fn tid(&self, name: &str) -> Option<i64> {
        self.ready["threads"][name].as_i64()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The gilspy that is tested: the one that was built for this, or what `GILSPY_TEST_BINARY` names.
pub fn binary() -> PathBuf {
    let named = std::env::var_os("GILSPY_TEST_BINARY");
    named.map_or_else(|| env!("CARGO_BIN_EXE_gilspy").into(), PathBuf::from)
}

/// The gilspy command with these arguments.
pub fn gilspy<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Copies a program that is to be run. By a process of its own: one that another test starts meanwhile would inherit the
/// file, which cannot be run as long as somebody may write to it (ETXTBSY of execve(2)).
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    assert!(Command::new("cp").arg("--").arg(from.as_ref()).arg(to.as_ref()).status().unwrap().success());
}

/// Runs gilspy, which has to succeed.
pub fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    let output = gilspy(arguments).output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, stderr(&output));
    output
}

/// What gilspy says where it has to fail with this exit status.
pub fn failure<S: AsRef<OsStr>>(status: i32, arguments: impl IntoIterator<Item = S>) -> String {
    let output = gilspy(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(status), "{}", stderr(&output));
    assert!(output.stdout.is_empty(), "an error belongs on standard error");
    stderr(&output)
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `dump --json` of a process, held against its schema.
pub fn dump_json(pid: &str) -> Value {
    let output = run(["dump", "--json", "-p", pid]);
    let document = serde_json::from_slice(&output.stdout).unwrap();
    validate("dump", &document);
    document
}

/// The report of a recording with these further arguments, held against its schema.
pub fn report(arguments: &[&str]) -> Value {
    report_and_summary(arguments).0
}

/// The report of a recording with these further arguments, and what gilspy said.
pub fn report_and_summary(arguments: &[&str]) -> (Value, String) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("report.json");
    let output = run([&["record", "-f", "json", "-o", path.to_str().unwrap()], arguments].concat());
    let document = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    validate("report", &document);
    (document, stderr(&output))
}

/// Whether a tool can be run. CI has to have it.
pub fn is_there(tool: &str) -> bool {
    let is_there = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        assert!(std::env::var_os("CI").is_none(), "no {tool}");
        eprintln!("SKIPPED for want of {tool}");
    }
    is_there
}

/// The folded stacks of a recording with these further arguments: stack, outermost first, and ticks.
pub fn folded(arguments: &[&str]) -> Vec<(Vec<String>, u64)> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("folded");
    run([&["record", "--max-overhead", "99", "-f", "raw", "-o", path.to_str().unwrap()], arguments].concat());
    unfold(&std::fs::read_to_string(path).unwrap())
}

/// Stack, outermost first, and ticks of each line of a file of folded stacks.
pub fn unfold(text: &str) -> Vec<(Vec<String>, u64)> {
    text.lines()
        .map(|line| {
            let (stack, count) = line.rsplit_once(' ').unwrap();
            (stack.split(';').map(str::to_owned).collect(), count.parse().unwrap())
        })
        .collect()
}

/// The function of a folded frame, `function (file:line)`.
pub fn function(frame: &str) -> &str {
    frame.rsplit_once(" (").map_or(frame, |(function, _)| function)
}

/// Holds a document against `docs/schema/NAME.json`.
pub fn validate(name: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/schema/{name}.json"));
    let schema = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}\nin {document:#}");
}

/// The threads of all interpreters in a `dump --json` or a report.
pub fn threads(document: &Value) -> Vec<&Value> {
    let interpreters = document["interpreters"].as_array().unwrap();
    interpreters.iter().flat_map(|interpreter| interpreter["threads"].as_array().unwrap()).collect()
}

/// The thread of this name.
pub fn thread<'a>(document: &'a Value, name: &str) -> &'a Value {
    let found = threads(document).into_iter().find(|thread| thread["name"] == name);
    found.unwrap_or_else(|| panic!("no thread {name} in {document:#}"))
}

/// The functions of a thread's stack in `dump --json`, innermost first.
pub fn functions(thread: &Value) -> Vec<&str> {
    thread["frames"].as_array().unwrap().iter().map(|frame| frame["function"].as_str().unwrap()).collect()
}

/// An SVG as XML; inferno declares SVG's document type.
pub fn parse_svg(svg: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    roxmltree::Document::parse_with_options(svg, options).unwrap()
}

/// The tests of one file one at a time, where they would take each other's CPUs.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
