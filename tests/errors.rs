//! What gilspy says when it cannot do what it is asked to.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::*;
use tempfile::TempDir;

/// A process that is killed when this is dropped.
struct Running(Child);

impl Running {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let child = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        Running(child)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// Waits until the program has printed a line: then it is what it is going to be.
    fn wait_for_line(&mut self) {
        let mut line = String::new();
        let stdout = self.0.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_pid_that_no_process_has() {
    for command in ["dump", "record"] {
        let text = failure(1, [command, "-p", "2147483646"]);
        assert!(text.starts_with("gilspy: no process has pid 2147483646"), "{text}");
        assert!(text.contains("pgrep"), "says what to do next: {text}");
    }
}

#[test]
fn a_process_that_is_not_python() {
    let mut shell = Running::start("sh", &["-c", "echo ready; sleep 60; exit"]);
    shell.wait_for_line();
    let text = failure(1, ["dump", "-p", &shell.pid()]);
    assert!(text.contains(&format!("pid {} (sh) is not a CPython process", shell.pid())), "{text}");
    assert!(text.contains("/bin/"), "says where it looked: {text}");
}

#[test]
fn other_pythons_are_named_as_what_they_are() {
    let script = "import sys, time; sys.stdout.write('ready\\n'); sys.stdout.flush(); time.sleep(60)";
    let candidates = ["python2", "python2.7", "pypy3", "python3.6"];
    let found: Vec<PathBuf> = other_pythons(&candidates);
    if found.is_empty() {
        assert!(
            std::env::var_os("CI").is_none(),
            "none of {candidates:?}: run fixtures/fetch-interpreters.sh"
        );
        eprintln!("SKIPPED: none of {candidates:?} is on this machine");
    }
    for path in found {
        let mut python = Running::start(path.to_str().unwrap(), &["-c", script]);
        python.wait_for_line();
        let text = failure(1, ["dump", "-p", &python.pid()]);
        eprintln!("{}: {text}", path.display());
        let named = ["runs Python 2.7.", "runs PyPy", "runs Python 3.6."];
        assert!(named.iter().any(|name| text.contains(name)), "{}: {text}", path.display());
        assert!(text.contains("CPython 3.7 to 3.15"), "{text}");
    }
}

fn other_pythons(names: &[&str]) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let pyenv = std::env::var_os("PYENV_ROOT").map_or_else(|| home.join(".pyenv"), PathBuf::from);
    let pyenv = std::fs::read_dir(pyenv.join("versions")).into_iter().flatten().flatten();
    let fetched = fetched_interpreters();
    let fetched = ["2.7", "pypy3"].map(|name| fetched.join(name).join("usr/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = pyenv
        .map(|version| version.path().join("bin"))
        .chain(fetched)
        .chain(std::env::split_paths(&path).filter(|directory| !directory.ends_with("shims")));
    let mut found: Vec<PathBuf> = directories
        .flat_map(|directory| names.iter().map(move |name| directory.join(name)))
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn a_thread_is_not_a_process() {
    let fixture = Fixture::start(newest(), "two_spinners.py", &[]);
    let thread = fixture.tid("spinner-1").unwrap().to_string();
    let text = failure(1, ["dump", "-p", &thread]);
    assert!(text.contains(&format!("{thread} is a thread of process {}", fixture.pid())), "{text}");
}

#[test]
fn a_zombie_has_ended() {
    let mut child = Running::start("true", &[]);
    // End of file: it has ended; nobody has waited for it.
    std::io::Read::read_to_end(&mut child.0.stdout.take().unwrap(), &mut Vec::new()).unwrap();
    while !std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    let text = failure(1, ["dump", "-p", &child.pid()]);
    assert!(text.contains("has ended"), "{text}");
}

#[test]
fn another_users_process_names_what_is_missing() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: becoming another user needs root");
        return;
    }
    let fixture = Fixture::start(newest(), "sleepers.py", &[]);
    let directory = TempDir::new().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let binary = directory.path().join("gilspy");
    copy_program(env!("CARGO_BIN_EXE_gilspy"), &binary);
    let output = Command::new(binary)
        .args(["dump", "-p", &fixture.pid()])
        .uid(65534)
        .gid(65534)
        .current_dir("/")
        .output()
        .unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("cannot read pid {}", fixture.pid())), "{text}");
    assert!(text.contains("user root): permission denied"), "{text}");
    for word in ["do not have CAP_SYS_PTRACE", "ptrace_scope is ", "sudo"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn the_same_user_needs_no_root() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: becoming another user needs root");
        return;
    }
    let directory = TempDir::new().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let binary = directory.path().join("gilspy");
    copy_program(env!("CARGO_BIN_EXE_gilspy"), &binary);
    // An interpreter that every user can run; those in a home directory are not.
    let Some(python) =
        ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter().find(|path| Path::new(path).exists())
    else {
        eprintln!("SKIPPED: no Python that every user can run");
        return;
    };
    let mut target = Running(
        Command::new(python)
            .args(["-c", "import time; print('ready', flush=True); time.sleep(60)"])
            .stdout(Stdio::piped())
            .uid(65534)
            .gid(65534)
            .current_dir("/")
            .spawn()
            .unwrap(),
    );
    target.wait_for_line();
    let output = Command::new(binary)
        .args(["dump", "-p", &target.pid()])
        .uid(65534)
        .gid(65534)
        .current_dir("/")
        .output()
        .unwrap();
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "" | "0" => assert!(stdout(&output).contains("<module>"), "{}", stderr(&output)),
        _ => assert!(stderr(&output).contains("ptrace_scope is "), "{}", stderr(&output)),
    }
}

#[test]
fn a_path_that_cannot_be_written_is_found_before_recording() {
    let fixture = Fixture::start(newest(), "sleepers.py", &[]);
    for path in ["/nonexistent/x.svg", "/proc/x.svg", "/tmp"] {
        // A recording without -d would never end by itself.
        let text = failure(1, ["record", "-o", path, "-p", &fixture.pid()]);
        assert!(text.starts_with(&format!("gilspy: cannot write {path}: ")), "{text}");
        assert!(!text.contains("Recording"), "{text}");
    }
}

#[test]
fn a_started_program_does_not_start_where_the_output_cannot_be_written() {
    let directory = TempDir::new().unwrap();
    let witness = directory.path().join("started");
    failure(1, ["record", "-o", "/nonexistent/x.svg", "--", "touch", witness.to_str().unwrap()]);
    assert!(!witness.exists());
}

#[test]
fn an_unknown_format_lists_the_known() {
    let text = failure(2, ["record", "-p", "1", "-f", "gif"]);
    for format in ["gif", "flamegraph", "timeline", "raw", "json"] {
        assert!(text.contains(format), "{text}");
    }
}

#[test]
fn wrong_usage_has_status_two() {
    for arguments in
        [vec!["record"], vec!["dump", "-p", "x"], vec!["record", "-p", "1", "-r", "0"], vec!["nothing"]]
    {
        failure(2, arguments);
    }
}

#[test]
fn a_target_may_end_at_any_moment() {
    for step in 0..25 {
        let script = format!("import time; time.sleep({})", f64::from(step) * 0.004);
        let target = Command::new(&newest().path).args(["-S", "-c", &script]).spawn().unwrap();
        let pid = target.id().to_string();
        let reaper = std::thread::spawn(move || Running(target).0.wait());
        let output = gilspy(["dump", "-p", &pid]).output().unwrap();
        reaper.join().unwrap().unwrap();
        // Either it was quick enough, or it says that the process ended.
        let text = stderr(&output);
        let said = ["no process has pid", "ended while gilspy was", "has ended"];
        let is_explained = said.iter().any(|said| text.contains(said));
        assert!(output.status.success() || (output.status.code() == Some(1) && is_explained), "{text}");
    }
}

#[test]
fn a_command_that_does_not_exist_or_never_becomes_python() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.svg");
    let path = path.to_str().unwrap();
    let text = failure(1, ["record", "-o", path, "--", "no-such-program"]);
    assert!(text.contains("cannot start no-such-program"), "{text}");
    let text = failure(1, ["record", "-o", path, "--", "sh", "-c", "exit 3"]);
    assert!(text.contains("sh ended (exit status: 3) before a CPython interpreter was seen"), "{text}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
}
