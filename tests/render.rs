//! Recordings as files: of gilspy killed, of a full disk, of a part, and `gilspy render` of them.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::*;
use tempfile::TempDir;

/// The report of a recording with these further arguments, held against its schema.
fn rendered(recording: &Path, arguments: &[&str]) -> Value {
    let output = run([&["render", recording.to_str().unwrap(), "-f", "json", "-o", "-"], arguments].concat());
    let document = serde_json::from_slice(&output.stdout).unwrap();
    validate("report", &document);
    document
}

/// gilspy that records until it is told to stop.
struct Recording {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Recording {
    fn start(arguments: &[&str]) -> Self {
        let mut child = gilspy([&["record"], arguments].concat()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut recording = Recording { child, lines };
        recording.wait_for("at 1000 Hz");
        recording
    }

    /// Reads what it says up to a line with these words.
    fn wait_for(&mut self, words: &str) -> String {
        let mut said = String::new();
        for line in self.lines.by_ref() {
            said.push_str(&line.unwrap());
            said.push('\n');
            if said.contains(words) {
                return said;
            }
        }
        panic!("it never says {words}: {said}");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for its end and answers whether that was well, and what it said last.
    fn end(mut self) -> (bool, String) {
        let said: Vec<String> = self.lines.by_ref().map(Result::unwrap).collect();
        (self.child.wait().unwrap().success(), said.join("\n"))
    }
}

/// Waits until a file has grown so many times.
fn wait_until_grown(path: &Path, times: usize) {
    let size = || std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let mut before = size();
    for _ in 0..times {
        while size() == before {
            std::thread::sleep(Duration::from_millis(20));
        }
        before = size();
    }
}

#[test]
fn pictures_of_a_recording_are_those_that_record_wrote() {
    for interpreter in [interpreters().next().unwrap(), newest()] {
        let fixture = Fixture::start(interpreter, "demo.py", &[]);
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        let pid = fixture.pid();
        run(["record", "-d", "2.5", "-o", path("x.svg").to_str().unwrap(), "-p", &pid]);
        let recording = path("x.gilspy");
        run(["render", recording.to_str().unwrap(), "-o", path("y.svg").to_str().unwrap()]);
        for (written, drawn) in [("x.svg", "y.svg"), ("x.timeline.svg", "y.timeline.svg")] {
            let [written, drawn] = [written, drawn].map(|name| std::fs::read(path(name)).unwrap());
            assert!(written == drawn, "{}", interpreter.version);
        }
        assert_eq!(rendered(&recording, &[]), rendered(&recording, &[]));
        // Without -o, by the recording's name; all of it is in the one file.
        std::fs::rename(&recording, path("z.gilspy")).unwrap();
        run(["render", path("z.gilspy").to_str().unwrap()]);
        assert!(path("z.svg").exists() && path("z.timeline.svg").exists());
    }
}

#[test]
fn a_recording_alone_is_exactly_that_file() {
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("alone");
    run(["record", "-d", "0.5", "-f", "recording", "-o", path.to_str().unwrap(), "-p", &fixture.pid()]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    let report = rendered(&path, &[]);
    assert!(thread(&report, "spinner-1")["states"]["hold"].as_f64() > Some(0.1), "{report:#}");
    let piped = run(["record", "-d", "0.5", "-f", "recording", "-o", "-", "-p", &fixture.pid()]);
    assert!(piped.stdout.starts_with(b"gilspy\n\x01"));
    std::fs::write(&path, piped.stdout).unwrap();
    assert!(rendered(&path, &[])["recording"]["ticks"].as_u64() > Some(100));
}

#[test]
fn a_gilspy_that_is_killed_loses_the_last_second_at_most() {
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let directory = TempDir::new().unwrap();
    let svg = directory.path().join("x.svg");
    let path = directory.path().join("x.gilspy");
    let recording = Recording::start(&["-o", svg.to_str().unwrap(), "-p", &fixture.pid()]);
    wait_until_grown(&path, 3);
    recording.signal(Signal::SIGKILL);
    assert!(!recording.end().0);
    let output = run(["render", path.to_str().unwrap(), "-o", svg.to_str().unwrap()]);
    assert!(stderr(&output).contains("was not ended properly"), "{}", stderr(&output));
    let report = rendered(&path, &[]);
    assert!(report["recording"]["duration_s"].as_f64() >= Some(2.0), "{report:#}");
    assert!(report["recording"]["overhead_cpu"].as_f64() > Some(0.0), "{report:#}");
    let timeline = std::fs::read_to_string(directory.path().join("x.timeline.svg")).unwrap();
    assert!(timeline.contains("gilspy ended, and not properly"));
    for name in ["spinner-1", "spinner-2"] {
        assert!(thread(&report, name)["states"]["hold"].as_f64() > Some(0.2), "{report:#}");
    }
}

/// A small file system of its own, as long as this lives.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path());
        mount
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
            .then(|| SmallDisk(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_what_was_written_is_kept() {
    let Some(disk) = SmallDisk::mount("24k") else {
        eprintln!("SKIPPED: mounting a file system needs root");
        return;
    };
    let fixture = Fixture::start(newest(), "demo.py", &[]);
    let svg = disk.0.path().join("x.svg");
    let output =
        gilspy(["record", "--max-overhead", "99", "-o", svg.to_str().unwrap(), "-p", &fixture.pid()])
            .output()
            .unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let path = disk.0.path().join("x.gilspy");
    assert!(said.contains("the recording ended after"), "{said}");
    assert!(said.contains(&format!("cannot write {}: No space left", path.display())), "{said}");
    assert!(said.contains("GIL held"), "what there is is summed up: {said}");
    let report = rendered(&path, &[]);
    assert!(report["recording"]["ticks"].as_u64() > Some(300), "{report:#}");
}

#[test]
fn pictures_of_what_is_recorded_so_far_are_drawn_on_sigusr1() {
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let svg = path("x.svg");
    let mut recording = Recording::start(&["-o", svg.to_str().unwrap(), "-p", &fixture.pid()]);
    wait_until_grown(&path("x.gilspy"), 1);
    for number in [1, 2] {
        recording.signal(Signal::SIGUSR1);
        recording.wait_for(&format!("snapshot {number}: timeline"));
        for name in [format!("x.{number}.svg"), format!("x.{number}.timeline.svg")] {
            let picture = std::fs::read_to_string(path(&name)).unwrap();
            parse_svg(&picture);
            assert!(picture.contains("spinner-1"), "{name}");
        }
    }
    assert!(!svg.exists(), "it goes on");
    recording.signal(Signal::SIGTERM);
    let (is_well, said) = recording.end();
    assert!(is_well && svg.exists(), "{said}");
}

/// A recording of two seconds.
fn two_seconds(directory: &TempDir) -> PathBuf {
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let path = directory.path().join("x.gilspy");
    run(["record", "-d", "2", "-f", "recording", "-o", path.to_str().unwrap(), "-p", &fixture.pid()]);
    path
}

#[test]
fn a_part_of_a_recording_has_figures_of_its_own() {
    let directory = TempDir::new().unwrap();
    let path = two_seconds(&directory);
    let whole = rendered(&path, &[]);
    let part = rendered(&path, &["--from", "0.5", "--to", "1.25"]);
    assert_eq!(part["recording"]["duration_s"], 0.75);
    let number = |report: &Value, name: &str| report["recording"][name].as_u64().unwrap();
    assert!(number(&part, "ticks") < number(&whole, "ticks"));
    let periods = number(&part, "ticks") + number(&part, "missed_ticks");
    // A tick may be a period late.
    assert!((748..=752).contains(&periods), "{part:#}");
    let [first, second] = [&["--to", "1"], &["--from", "1"]].map(|span| rendered(&path, span));
    assert_eq!(number(&first, "ticks") + number(&second, "ticks"), number(&whole, "ticks"));
    assert!(first["recording"]["start"].as_str() < second["recording"]["start"].as_str());
    let text = failure(1, ["render", path.to_str().unwrap(), "--from", "3"]);
    assert!(text.contains("it lasts 2.0"), "{text}");
}

#[test]
fn threads_are_chosen_by_name_or_id() {
    let directory = TempDir::new().unwrap();
    let path = two_seconds(&directory);
    let whole = rendered(&path, &[]);
    let tid = thread(&whole, "spinner-2")["tid"].to_string();
    let chosen = rendered(&path, &["--thread", "spinner-1", "--thread", &tid]);
    let mut names: Vec<&str> =
        threads(&chosen).iter().map(|thread| thread["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["spinner-1", "spinner-2"]);
    assert_eq!(chosen["verdict"], whole["verdict"], "the process stays what it is");
    let raw = |by| {
        let output =
            run(["render", path.to_str().unwrap(), "-f", "raw", "-o", "-", "--by", by, "--thread", &tid]);
        unfold(&stdout(&output))
    };
    let ticks = |by| raw(by).iter().map(|(_, ticks)| ticks).sum::<u64>();
    assert!(raw("wall").iter().all(|(stack, _)| stack[0].starts_with("spinner-2 (")));
    assert!(ticks("hold") > 100 && ticks("wait") > 100 && ticks("wall") > ticks("hold"));
    let text = failure(1, ["render", path.to_str().unwrap(), "--thread", "nobody"]);
    assert!(text.contains("no thread of the recording is called nobody"), "{text}");
}

#[test]
fn what_is_no_recording_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.gilspy");
    let path = path.to_str().unwrap();
    assert!(failure(1, ["render", path]).contains(&format!("cannot read {path}: ")));
    std::fs::write(path, "<svg/>").unwrap();
    let text = failure(1, ["render", path]);
    assert_eq!(text, format!("gilspy: cannot read {path}: it is not a recording of gilspy\n"));
    assert!(failure(1, ["render", directory.path().to_str().unwrap()]).contains("cannot read "));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is written");
}

/// Recordings of each version of the format are read for ever.
#[test]
fn an_old_recording_gives_the_figures_it_always_gave() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/recordings/v1.gilspy");
    let report = rendered(&path, &[]);
    let expected = path.with_extension("json");
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    for (place, wanted) in expected.as_object().unwrap() {
        let found = report.pointer(place).unwrap_or_else(|| panic!("no {place} in {report:#}"));
        match (found.as_f64(), wanted.as_f64()) {
            (Some(found), Some(wanted)) => {
                assert!((found - wanted).abs() < 1e-6, "{place}: {found}, {wanted}")
            }
            _ => assert_eq!(found, wanted, "{place}"),
        }
    }
}
