//! What gilspy needs to be allowed, and what it gives up once it is attached: `cargo test --test privileges`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use support::*;
use tempfile::TempDir;

/// Another user than the target's, without any rights.
const NOBODY: u32 = 65534;

/// Bits of capabilities(7).
const CHOWN: u64 = 1 << 0;
const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;
const FOWNER: u64 = 1 << 3;
const KILL: u64 = 1 << 5;
const SETPCAP: u64 = 1 << 8;
const SYS_PTRACE: u64 = 1 << 19;
const CHECKPOINT_RESTORE: u64 = 1 << 40;
const LOOKING: u64 = SYS_PTRACE | DAC_READ_SEARCH;

/// A field of `/proc/PID/status`.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

fn capabilities(status: &str, set: &str) -> u64 {
    u64::from_str_radix(&field(status, set), 16).unwrap()
}

fn own(set: &str) -> u64 {
    capabilities(&fs::read_to_string("/proc/self/status").unwrap(), set)
}

fn is_root() -> bool {
    let is_root = geteuid().is_root() && own("CapEff") & SYS_PTRACE != 0;
    if !is_root {
        eprintln!("SKIPPED: giving and taking privileges needs root");
    }
    is_root
}

/// A copy of gilspy that everybody can run, beside a directory of nobody's.
struct Copy(TempDir);

impl Copy {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        copy_program(env!("CARGO_BIN_EXE_gilspy"), directory.path().join("gilspy"));
        fs::create_dir(directory.path().join("his")).unwrap();
        chown(directory.path().join("his"), Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(directory.path().join("his"), Permissions::from_mode(0o700)).unwrap();
        Copy(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs it as nobody; no process that it starts can ever have more than these capabilities.
    fn run(&self, granted: &[&str], arguments: &[&str]) -> Output {
        let set = granted.iter().fold("-all".to_owned(), |set, name| format!("{set},+{name}"));
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.args(["inh-caps", "ambient-caps", "bounding-set"].map(|option| format!("--{option}={set}")));
        command.arg(self.path("gilspy")).args(arguments).current_dir(self.path("his")).stdin(Stdio::null());
        command.output().unwrap()
    }

    fn json(&self, granted: &[&str], arguments: &[&str]) -> (Value, String) {
        let output = self.run(granted, arguments);
        let said = stderr(&output);
        assert!(output.status.success(), "{arguments:?}: {said}");
        (serde_json::from_slice(&output.stdout).unwrap(), said)
    }
}

/// One that has its interpreter in the program itself, which is found wherever that lies.
fn standalone() -> &'static Interpreter {
    let fetched = interpreters().filter(|interpreter| interpreter.path.starts_with(fetched_interpreters()));
    fetched.last().expect("a fetched interpreter: run fixtures/fetch-interpreters.sh")
}

fn is_ready() -> bool {
    is_root() && is_there("setpriv")
}

#[test]
fn with_cap_sys_ptrace_alone_every_command_reads_another_users_process() {
    if !is_ready() {
        return;
    }
    let copy = Copy::new();
    let fixture = Fixture::start(standalone(), "two_spinners.py", &[]);
    let pid = fixture.pid();
    let granted = ["sys_ptrace"];

    let (dump, said) = copy.json(&granted, &["dump", "--json", "-p", &pid]);
    validate("dump", &dump);
    assert!(dump["interpreters"][0]["gil"]["locked"].as_bool().is_some(), "{dump:#}");
    assert!(functions(thread(&dump, "spinner-1")).contains(&"spin_one"), "{dump:#}");
    assert!(said.contains("cap_sys_ptrace,cap_dac_read_search"), "says what is not to be seen: {said}");
    let holder = copy.run(&granted, &["dump", "--gil", "-p", &pid]);
    assert!(stdout(&holder).contains("GIL held by spinner-"), "{}", stdout(&holder));
    assert_eq!(stderr(&holder), "");

    for further in [["-d", "0.5"].as_slice(), &["-d", "0.5", "--gil"], &["-d", "0.5", "--blocking"]] {
        let record = ["record", "--max-overhead", "99", "-f", "json", "-o", "-", "-p", &pid];
        let (report, said) = copy.json(&granted, &[record.as_slice(), further].concat());
        let gil = &report["interpreters"][0]["gil"];
        assert!(gil["held"].as_f64() > Some(0.5), "{further:?}: {said}");
        assert!(thread(&report, "spinner-1")["states"]["hold"].as_f64() > Some(0.1), "{further:?}: {said}");
        validate("report", &report);
        assert!(report["verdict"].is_null(), "{further:?}: it is not known who waits: {report:#}");
        assert_eq!(said.contains("Not known who waits"), !further.contains(&"--gil"), "{further:?}: {said}");
    }
    // A process that the target has started, and files in a directory of one's own.
    let family = Fixture::start(standalone(), "family.py", &["--kind", "exec"]);
    let output = copy.run(&granted, &["record", "-s", "-d", "3", "-o", "x.svg", "-p", &family.pid()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let svg = fs::metadata(copy.path("his/x.svg")).unwrap();
    assert_eq!((svg.uid(), svg.mode() & 0o777), (NOBODY, 0o600));
    let report = run(["render", copy.path("his/x.gilspy").to_str().unwrap(), "-f", "json", "-o", "-"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert!(report["processes"].as_array().unwrap().len() > 1, "{report:#}");
}

#[test]
fn with_cap_dac_read_search_too_every_threads_state_is_seen() {
    if !is_ready() {
        return;
    }
    let copy = Copy::new();
    let fixture = Fixture::start(standalone(), "two_spinners.py", &[]);
    let record = ["record", "--max-overhead", "99", "-d", "1", "-f", "json", "-o", "-", "-p", &fixture.pid()];
    let (report, said) = copy.json(&["sys_ptrace", "dac_read_search"], &record);
    for name in ["spinner-1", "spinner-2"] {
        let states = &thread(&report, name)["states"];
        assert!(states["wait"].as_f64() > Some(0.02), "{name}: {states}");
        assert!(states["unknown"].as_f64() < Some(0.1), "{name}: {states}");
    }
    assert!(!said.contains("setcap"), "{said}");
    assert_eq!(report["verdict"]["kind"], "gil-bound", "{said}");
}

#[test]
fn a_library_that_cannot_be_opened_is_said_to_be_what_is_missing() {
    if !is_ready() {
        return;
    }
    let shared = fetched_interpreters().join("3.13-shared");
    let libraries = fs::read_dir(shared.join("usr/lib")).into_iter().flatten().flatten();
    let mut libraries = libraries.map(|entry| entry.path().join("libpython3.13.so.1.0"));
    let Some(library) = libraries.find(|path| path.exists()) else {
        return eprintln!("SKIPPED: no libpython in {}", shared.display());
    };
    // In a directory of root's alone.
    let closed = TempDir::new().unwrap();
    fs::set_permissions(closed.path(), Permissions::from_mode(0o700)).unwrap();
    fs::copy(library, closed.path().join("libpython3.13.so.1.0")).unwrap();
    let mut python = Command::new(shared.join("bin/python3.13"));
    python.arg(program("sleepers.py")).env("LD_PRELOAD", closed.path().join("libpython3.13.so.1.0"));
    let fixture = Fixture::run(python, "sleepers.py");
    let copy = Copy::new();
    let output = copy.run(&["sys_ptrace"], &["dump", "-p", &fixture.pid()]);
    let said = stderr(&output);
    assert!(said.contains("libpython3.13.so") && said.contains("CAP_DAC_READ_SEARCH"), "{said}");
    let output = copy.run(&["sys_ptrace", "dac_read_search"], &["dump", "-p", &fixture.pid()]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_capability_of_the_file_does_as_well() {
    if !is_ready() {
        return;
    }
    let copy = Copy::new();
    let setcap = Command::new("setcap").arg("cap_sys_ptrace=ep").arg(copy.path("gilspy")).status();
    if !setcap.is_ok_and(|status| status.success()) {
        return eprintln!("SKIPPED: setcap cannot be run here");
    }
    let fixture = Fixture::start(standalone(), "two_spinners.py", &[]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(copy.path("gilspy"));
    let output = command.args(["dump", "--gil", "-p", &fixture.pid()]).current_dir("/").output().unwrap();
    assert!(stdout(&output).contains("GIL held by spinner-"), "{}", stderr(&output));
}

/// Whom gilspy runs for, where it writes, and what it may keep meanwhile.
struct Case {
    is_sudo: bool,
    directory: &'static str,
    further: &'static [&'static str],
    kept: u64,
    /// Who gilspy is then, and whose its files are.
    user: u32,
    owner: u32,
}

fn recording(directory: &Path, case: &Case, pid: &str) -> Child {
    let mut command = gilspy(["record", "-p", pid, "-o", directory.join("x.svg").to_str().unwrap()]);
    command.args(case.further).stderr(Stdio::piped());
    if case.is_sudo {
        command.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
    }
    command.spawn().unwrap()
}

/// The status of each thread, by its name, once a recording is going.
fn statuses(pid: u32, recording: &Path) -> Vec<(String, String)> {
    while fs::metadata(recording).map_or(0, |metadata| metadata.len()) == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    // The threads that are started after the file.
    std::thread::sleep(Duration::from_millis(200));
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    tasks
        .map(|task| ["comm", "status"].map(|file| fs::read_to_string(task.join(file)).unwrap()))
        .map(|[name, status]| (name.trim().to_owned(), status))
        .collect()
}

#[test]
fn what_recording_does_not_take_is_given_up_by_every_thread() {
    if !is_root() {
        return;
    }
    let cases = [
        Case { is_sudo: false, directory: "roots", further: &[], kept: LOOKING, user: 0, owner: 0 },
        Case {
            is_sudo: false,
            directory: "everybodys",
            further: &["--gil"],
            kept: LOOKING,
            user: 0,
            owner: 0,
        },
        Case {
            is_sudo: false,
            directory: "his",
            further: &[],
            kept: LOOKING | DAC_OVERRIDE | FOWNER,
            user: 0,
            owner: 0,
        },
        Case { is_sudo: true, directory: "his", further: &[], kept: LOOKING, user: NOBODY, owner: NOBODY },
        Case {
            is_sudo: true,
            directory: "everybodys",
            further: &["-s", "--blocking"],
            kept: LOOKING | CHECKPOINT_RESTORE,
            user: NOBODY,
            owner: NOBODY,
        },
        Case {
            is_sudo: true,
            directory: "roots",
            further: &[],
            kept: LOOKING | CHOWN,
            user: 0,
            owner: NOBODY,
        },
    ];
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let (permitted, bounding) = (own("CapPrm"), own("CapBnd"));
    for case in &cases {
        let root = TempDir::new().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        for (name, mode, owner) in [("his", 0o700, NOBODY), ("roots", 0o755, 0), ("everybodys", 0o1777, 0)] {
            fs::create_dir(root.path().join(name)).unwrap();
            chown(root.path().join(name), Some(owner), Some(owner)).unwrap();
            fs::set_permissions(root.path().join(name), Permissions::from_mode(mode)).unwrap();
        }
        let directory = root.path().join(case.directory);
        let child = recording(&directory, case, &fixture.pid());
        let what = format!("{} {:?} sudo: {}", case.directory, case.further, case.is_sudo);
        let statuses = statuses(child.id(), &directory.join("x.gilspy"));
        assert!(statuses.iter().any(|(name, _)| name == "watcher"), "{what}: {statuses:?}");
        assert!(statuses.iter().any(|(name, _)| name == "writer"), "{what}: {statuses:?}");
        for (thread, status) in &statuses {
            let kept = case.kept & permitted;
            for set in ["CapPrm", "CapEff"] {
                assert_eq!(capabilities(status, set), kept, "{set} of {thread}, {what}");
            }
            assert_eq!(
                capabilities(status, "CapInh") | capabilities(status, "CapAmb"),
                0,
                "{thread}, {what}"
            );
            if permitted & SETPCAP != 0 {
                assert_eq!(capabilities(status, "CapBnd"), kept & bounding, "{thread}, {what}");
            }
            assert_eq!(field(status, "NoNewPrivs"), "1", "{thread}, {what}");
            let user = format!("{0}\t{0}\t{0}\t{0}", case.user);
            assert_eq!(field(status, "Uid"), user, "{thread}, {what}");
        }
        let pid = Pid::from_raw(child.id() as i32);
        kill(pid, Signal::SIGUSR1).unwrap();
        while !directory.join("x.1.timeline.svg").exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        kill(pid, Signal::SIGTERM).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{what}: {}", stderr(&output));
        let files = ["x.svg", "x.timeline.svg", "x.gilspy", "x.1.svg", "x.1.timeline.svg"];
        for file in files.map(|name| fs::metadata(directory.join(name)).unwrap()) {
            assert_eq!((file.uid(), file.mode() & 0o777), (case.owner, 0o600), "{what}");
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), files.len(), "{what}");
    }
}

#[test]
fn a_command_that_gilspy_starts_has_all_privileges_that_gilspy_had() {
    if !is_root() {
        return;
    }
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let path = |name: &str| directory.path().join(name);
    let script = "import os, shutil, sys, time; time.sleep(1); shutil.copy('/proc/self/status', sys.argv[1])
shutil.copy(f'/proc/{os.getppid()}/status', sys.argv[2])";
    let mut command = gilspy(["record", "-f", "raw", "-o", path("raw").to_str().unwrap(), "--"]);
    command.arg(&newest().path).args(["-c", script]).args([path("command"), path("gilspy")]);
    let output = command.env("SUDO_UID", "65534").env("SUDO_GID", "65534").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let [started, gilspy] = ["command", "gilspy"].map(|name| fs::read_to_string(path(name)).unwrap());
    for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
        assert_eq!(capabilities(&started, set), own(set), "{set}");
    }
    assert_eq!(
        field(&started, "NoNewPrivs"),
        field(&fs::read_to_string("/proc/self/status").unwrap(), "NoNewPrivs")
    );
    assert_eq!(field(&started, "Uid"), "0\t0\t0\t0");
    assert_eq!(capabilities(&gilspy, "CapPrm"), (LOOKING | KILL) & own("CapPrm"));
    assert_eq!(field(&gilspy, "Uid"), format!("{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}"));
}

#[test]
fn dump_gives_up_what_looking_does_not_take() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let has_been_seen = (0..50).any(|_| {
        let mut child = gilspy(["dump", "-p", &fixture.pid()]).stdout(Stdio::null()).spawn().unwrap();
        let mut has_been_seen = false;
        while child.try_wait().unwrap().is_none() {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
            if status.contains("NoNewPrivs:\t1") && status.contains("VmSize") {
                assert_eq!(capabilities(&status, "CapEff"), LOOKING & own("CapPrm"), "{status}");
                has_been_seen = true;
            }
        }
        has_been_seen
    });
    assert!(has_been_seen, "in none of 50 runs");
}
