//! What `gilspy record -f` writes for other programs, opened by those programs. `tests/consumers/fetch` fetches them.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::*;
use tempfile::TempDir;

/// One second of two threads that take turns with the GIL, in some format.
struct Export {
    _directory: TempDir,
    path: PathBuf,
}

impl Export {
    fn of(format: &str) -> Self {
        let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(format);
        let arguments = ["record", "-d", "1", "--max-overhead", "99", "-f", format];
        run(arguments.into_iter().chain(["-p", &fixture.pid(), "-o", path.to_str().unwrap()]));
        Export { _directory: directory, path }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&std::fs::read(&self.path).unwrap()).unwrap()
    }
}

/// Where `tests/consumers/fetch` puts them; `None` where it was not run.
fn consumers() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory =
        std::env::var_os("GILSPY_CONSUMERS").map_or_else(|| root.join("target/consumers"), PathBuf::from);
    let is_there = directory.join("pprof").exists() && directory.join("node_modules").exists();
    if !is_there {
        let message = "no programs to open exports with: run tests/consumers/fetch";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("SKIPPED: {message}");
    }
    is_there.then_some(directory)
}

/// What a program prints, which has to succeed.
fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// A slice of time: its name, start and end.
type Slice = (String, f64, f64);

/// Whether slices are one after the other, and how long they are together.
fn one_at_a_time(slices: impl IntoIterator<Item = Slice>) -> f64 {
    let mut slices: Vec<Slice> = slices.into_iter().collect();
    slices.sort_by(|(_, a, _), (_, b, _)| a.total_cmp(b));
    for pair in slices.windows(2) {
        // An end that is a start plus a duration can be off in its last digit.
        assert!(pair[0].2 <= pair[1].1 + 1e-6, "{pair:?}");
    }
    slices.iter().map(|(_, start, end)| end - start).sum()
}

/// Those of a GIL's slices at which a spinner held it.
fn of_spinners(gil: &[Slice]) -> Vec<Slice> {
    gil.iter().filter(|(name, ..)| name.starts_with("spinner-")).cloned().collect()
}

/// Whether threads hold the GIL for as long as the GIL is held by them, less what readers round.
fn assert_same(by_threads: f64, by_gil: f64) {
    assert!(by_threads > 0.0 && (by_threads - by_gil).abs() <= by_gil / 1000.0, "{by_threads} {by_gil}");
}

/// What speedscope understands: the outermost slices of each profile.
fn by_speedscope(consumers: &Path, file: &Path) -> Vec<(String, Vec<Slice>)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/consumers/speedscope.mjs");
    let package = consumers.join("node_modules/speedscope");
    let printed = output_of(Command::new("node").arg(script).arg(package).arg(file));
    let profiles: Vec<Value> = serde_json::from_str(&printed).unwrap();
    let profile = |profile: Value| {
        let name = profile["name"].as_str().unwrap().to_owned();
        (name, serde_json::from_value(profile["calls"].clone()).unwrap())
    };
    profiles.into_iter().map(profile).collect()
}

/// Those of the spinners that speedscope shows to hold the GIL.
fn holds(profiles: &[(String, Vec<Slice>)]) -> Vec<Slice> {
    let of_spinners = profiles.iter().filter(|(name, _)| name.contains("spinner-"));
    assert_eq!(of_spinners.clone().count(), 2, "{profiles:?}");
    let holds = of_spinners.flat_map(|(_, slices)| slices);
    holds.filter(|(name, ..)| name.starts_with("hold") || name.starts_with("stall")).cloned().collect()
}

#[test]
fn speedscope_opens_its_format_and_sees_one_holder_at_a_time() {
    let Some(consumers) = consumers() else { return };
    let export = Export::of("speedscope");
    let schema = consumers.join("node_modules/speedscope/dist/release/file-format-schema.json");
    let schema = serde_json::from_slice(&std::fs::read(schema).unwrap()).unwrap();
    let file = export.json();
    let errors: Vec<String> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(&file)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");

    let profiles = by_speedscope(&consumers, &export.path);
    let held = one_at_a_time(holds(&profiles));
    assert_eq!(profiles[0].0, "GIL");
    one_at_a_time(profiles[0].1.iter().cloned());
    assert_same(held, one_at_a_time(of_spinners(&profiles[0].1)));
}

#[test]
fn a_trace_is_as_documented_and_speedscope_sees_one_holder_at_a_time() {
    let export = Export::of("chrometrace");
    validate("chrometrace", &export.json());
    let Some(consumers) = consumers() else { return };
    let profiles = by_speedscope(&consumers, &export.path);
    let gil = profiles.iter().find(|(name, _)| name.contains(", GIL")).unwrap();
    one_at_a_time(gil.1.iter().cloned());
    assert_same(one_at_a_time(holds(&profiles)), one_at_a_time(of_spinners(&gil.1)));
}

/// The Firefox Profiler with a profile open: its command line, as the server that it starts by itself too.
struct Firefox {
    script: PathBuf,
    sessions: TempDir,
    server: Child,
}

impl Firefox {
    fn open(consumers: &Path, file: &Path) -> Self {
        let script = consumers.join("node_modules/@firefox-devtools/profiler-cli/dist/profiler-cli.js");
        let sessions = TempDir::new().unwrap();
        let mut server = Command::new("node");
        server.arg(&script).arg("--daemon").arg(file).args(["--session", "gilspy"]);
        server.env("PROFILER_CLI_SESSION_DIR", sessions.path()).stdin(Stdio::null()).stdout(Stdio::null());
        // It would ask servers for symbols.
        server.env("PROFILER_CLI_NO_SYMBOLICATE", "1");
        let mut firefox = Firefox { script, sessions, server: server.spawn().unwrap() };
        // Its log says how reading the file went. A command that came before it listens could remove its socket, and a
        // file that it cannot read does not end it.
        let log = firefox.sessions.path().join("gilspy.log");
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            if log.contains("Profile loaded successfully") {
                return firefox;
            }
            let ended = firefox.server.try_wait().unwrap();
            let fails = ended.is_some() || log.contains("Failed to load") || Instant::now() > deadline;
            assert!(!fails, "the Firefox Profiler does not open {}: {ended:?}: {log}", file.display());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("node");
        command.arg(&self.script).args(arguments).args(["--session", "gilspy"]);
        command.env("PROFILER_CLI_SESSION_DIR", self.sessions.path());
        command
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        let printed = output_of(self.command(arguments).arg("--json"));
        serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{arguments:?}: {printed}"))
    }

    /// Handle and name of each thread.
    fn threads(&self) -> Vec<(String, String)> {
        let list = self.ask(&["thread", "list"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let threads = list["threads"].as_array().unwrap().iter();
        threads.map(|thread| (text(&thread["threadHandle"]), text(&thread["name"]))).collect()
    }

    /// The markers of a thread.
    fn markers(&self, thread: &str) -> Vec<Slice> {
        self.ask(&["thread", "select", thread]);
        let list = self.ask(&["thread", "markers", "--list", "--limit", "0"]);
        let slice = |marker: &Value| {
            let start = marker["start"].as_f64().unwrap();
            (marker["name"].as_str().unwrap().to_owned(), start, start + marker["duration"].as_f64().unwrap())
        };
        list["flatMarkers"].as_array().unwrap().iter().map(slice).collect()
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn the_firefox_profiler_opens_its_format_and_sees_one_holder_at_a_time() {
    let Some(consumers) = consumers() else { return };
    let export = Export::of("gecko");
    let firefox = Firefox::open(&consumers, &export.path);
    let threads = firefox.threads();
    let handle = |name: &str| &threads.iter().find(|(_, title)| title.starts_with(name)).unwrap().0;
    let spinners = [handle("spinner-1"), handle("spinner-2")].map(|handle| firefox.markers(handle));
    let named =
        |wanted: &'static str| spinners.iter().flatten().filter(move |(name, ..)| name == wanted).cloned();
    let held = one_at_a_time(named("GIL held"));
    let gil = firefox.markers(handle("GIL"));
    one_at_a_time(gil.iter().cloned());
    assert_same(held, one_at_a_time(of_spinners(&gil)));
    assert!(named("GIL wait").count() > 0, "{spinners:?}");
}

#[test]
fn the_firefox_profiler_opens_a_trace() {
    let Some(consumers) = consumers() else { return };
    let firefox = Firefox::open(&consumers, &Export::of("chrometrace").path);
    let threads = firefox.threads();
    for name in ["GIL", "MainThread", "spinner-1", "spinner-2"] {
        assert!(threads.iter().any(|(_, title)| title.starts_with(name)), "{name} in {threads:?}");
    }
}

#[test]
fn pprof_opens_its_format_and_adds_up_to_one_holder_at_a_time() {
    let Some(consumers) = consumers() else { return };
    let export = Export::of("pprof");
    let pprof = |arguments: &[&str]| {
        output_of(
            Command::new(consumers.join("pprof"))
                .args(arguments)
                .arg(&export.path)
                .env("HOME", "/nonexistent"),
        )
    };
    let raw = pprof(&["-raw"]);
    for words in
        ["PeriodType: wall nanoseconds", "Period: 1000000", "Duration: 1s", "gil_hold/nanoseconds[dflt]"]
    {
        assert!(raw.contains(words), "{words}: {raw}");
    }
    // Each sample's line begins with its values, one of each kind, and ends with its locations.
    let samples = raw.lines().skip_while(|line| *line != "Samples:").take_while(|line| *line != "Locations");
    let values: Vec<Vec<f64>> = samples
        .filter_map(|line| {
            line.split_once(": ")?.0.split_whitespace().map(|value| value.parse().ok()).collect()
        })
        .filter(|values: &Vec<f64>| values.len() == 4)
        .collect();
    let sum = |kind: usize| values.iter().map(|values| values[kind]).sum::<f64>();
    // For no longer than it was recorded.
    assert!(sum(0) > 0.0 && sum(0) <= 1.001e9, "{raw}");
    assert!((1..4).all(|kind| sum(kind) > 0.0), "{raw}");
    let of_one = pprof(&["-top", "-sample_index=gil_hold", "-tagfocus=thread=spinner-1"]);
    assert!(of_one.contains("spin"), "{of_one}");
}

#[test]
fn folded_stacks_and_the_report_have_one_holder_at_a_time() {
    let stacks = unfold(&std::fs::read_to_string(Export::of("raw").path).unwrap());
    let ticks: u64 = stacks.iter().map(|(_, ticks)| ticks).sum();
    assert!((1..=1001).contains(&ticks), "{stacks:?}");
    let report = Export::of("json").json();
    let held: f64 = threads(&report).iter().map(|thread| thread["states"]["hold"].as_f64().unwrap()).sum();
    assert!(held > 0.0 && held <= 1.001, "{report:#}");
}
