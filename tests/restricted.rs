//! gilspy and its targets where not everything is allowed: few file descriptors, a /proc that hides processes, processes
//! that may not be looked at, seccomp filters, `ptrace_scope`.
//!
//!     GILSPY_CHAOS_ROUNDS=100 cargo test --test restricted
//!
//! `GILSPY_CHAOS_PTRACE_SCOPE_3=1` sets `ptrace_scope` to 3 too, which lasts until the next boot.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use support::chaos::rounds;
use support::*;
use syscalls::Sysno;
use tempfile::TempDir;

const NOBODY: u32 = 65534;

/// The kernel's setting, where there is Yama.
const PTRACE_SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: this takes root");
    }
    is_root
}

/// gilspy where every user may run it.
struct Everybodys(TempDir);

impl Everybodys {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        copy_program(binary(), directory.path().join("gilspy"));
        Everybodys(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("gilspy")
    }

    fn dump_as(&self, user: u32, pid: &str) -> Output {
        let mut command = Command::new(self.path());
        command.args(["dump", "-p", pid]).uid(user).gid(user).current_dir("/").output().unwrap()
    }
}

/// A Python of some user, which runs a script that prints a line when it is ready; killed when this is dropped.
struct Python(Child);

impl Python {
    /// One that every user may run. `None` where there is none.
    fn start(user: u32, script: &str) -> Option<Self> {
        let everybodys = ["/usr/bin/python3", "/usr/local/bin/python3"];
        let Some(python) = everybodys.into_iter().find(|path| Path::new(path).exists()) else {
            eprintln!("SKIPPED: no Python that every user may run");
            return None;
        };
        let mut command = Command::new(python);
        command.args(["-c", script]).stdout(Stdio::piped()).uid(user).gid(user).current_dir("/");
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Some(Python(child))
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// CPU time so far, in ticks of the kernel's clock: field 14 of proc_pid_stat(5).
    fn cpu(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(11).unwrap().parse().unwrap()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SLEEPS: &str = "import time; print('ready', flush=True); time.sleep(7200)";

/// A script that has so many children, each a Python of its own, and rests.
fn children(number: u32) -> String {
    format!(
        "import os, time\n\
         parent = os.getpid()\n\
         for _ in range({number}):\n    \
             if not os.fork():\n        \
                 while os.getppid() == parent: time.sleep(0.05)\n        \
                 os._exit(0)\n\
         print('ready', flush=True)\n\
         time.sleep(7200)"
    )
}

/// gilspy with a limit of file descriptors: `-n` both, `-Sn` only the soft one.
fn with_files(limit: &str, arguments: &[&str]) -> Output {
    let script = format!("ulimit {limit}; exec \"$@\"");
    Command::new("sh").args(["-c", &script, "sh"]).arg(binary()).args(arguments).output().unwrap()
}

#[test]
fn few_file_descriptors_are_enough_for_many_threads() {
    let fixture = Fixture::start(newest(), "many_threads.py", &["--seconds", "7200"]);
    for _ in 0..rounds() {
        let dump = with_files("-n 64", &["dump", "--json", "-p", &fixture.pid()]);
        assert!(dump.status.success(), "{}", stderr(&dump));
        let document = serde_json::from_slice(&dump.stdout).unwrap();
        assert!(threads(&document).len() >= 1000, "{} threads", threads(&document).len());
        assert!(threads(&document).iter().all(|thread| thread["state"] != "unknown"), "{document:#}");
    }
}

#[test]
fn what_is_not_followed_for_want_of_file_descriptors_is_told() {
    let Some(parent) = Python::start(nix::unistd::geteuid().as_raw(), &children(60)) else { return };
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.json");
    let record = |limit: &str| {
        let arguments = ["record", "-s", "-r", "20", "-d", "3", "-f", "json", "-o", path.to_str().unwrap()];
        let output = with_files(limit, &[arguments.as_slice(), &["-p", &parent.pid()]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (report["processes"].as_array().map_or(1, Vec::len), stderr(&output))
    };
    let (followed, said) = record("-n 64");
    assert!(said.contains("some processes are not followed: gilspy may have only 64 files open"), "{said}");
    assert!((2..61).contains(&followed), "{followed} processes");
    // It takes what it may.
    let (followed, said) = record("-Sn 64");
    assert!(!said.contains("files open"), "{said}");
    assert_eq!(followed, 61, "{said}");
}

#[test]
fn a_process_that_cannot_be_opened_for_want_of_file_descriptors_is_told() {
    let pythons: Vec<Python> =
        (0..30).filter_map(|_| Python::start(nix::unistd::geteuid().as_raw(), SLEEPS)).collect();
    let mut arguments = vec!["record".to_owned(), "-d".into(), "0.2".into(), "-o".into(), "/dev/null".into()];
    arguments.extend(["-f".into(), "json".into()]);
    pythons.iter().for_each(|python| arguments.extend(["-p".into(), python.pid()]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    for limit in 15..40 {
        // Wherever they run out: it works, or that is what is said.
        let output = with_files(&format!("-n {limit}"), &arguments);
        let said = stderr(&output);
        assert!(!said.contains("panicked"), "{said}");
        assert!(output.status.success() || said.contains("files open"), "with {limit}: {said}");
    }
}

#[test]
fn where_proc_hides_processes_that_is_named() {
    if !is_root() {
        return;
    }
    let gilspy = Everybodys::new();
    let (Some(own), Some(others)) = (Python::start(NOBODY, SLEEPS), Python::start(0, SLEEPS)) else { return };
    let dump = |option: &str, user: u32, pid: &str| {
        let script = "mount -t proc -o $0 proc /proc; exec setpriv --reuid $1 --regid $1 --clear-groups \"$2\" dump -p $3";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", script, option, &user.to_string()]).arg(gilspy.path()).arg(pid);
        command.current_dir("/").output().unwrap()
    };
    for _ in 0..rounds() {
        for option in ["hidepid=1", "hidepid=2"] {
            let refused = dump(option, NOBODY, &others.pid());
            let said = stderr(&refused);
            assert_eq!(refused.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("cannot read pid {}", others.pid())), "{said}");
            assert!(said.contains("/proc is mounted with hidepid=") && said.contains("sudo"), "{said}");
            // Its own ones, and any as root, are shown.
            for (user, pid) in [(NOBODY, own.pid()), (0, own.pid()), (0, others.pid())] {
                let shown = dump(option, user, &pid);
                assert!(shown.status.success(), "{option}, user {user}: {}", stderr(&shown));
            }
        }
    }
}

#[test]
fn a_process_that_is_not_dumpable_takes_root() {
    if !is_root() {
        return;
    }
    let gilspy = Everybodys::new();
    let script = "import ctypes, time\n\
                  assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0\n\
                  print('ready', flush=True)\n\
                  time.sleep(7200)";
    let Some(target) = Python::start(NOBODY, script) else { return };
    for _ in 0..rounds() {
        let refused = gilspy.dump_as(NOBODY, &target.pid());
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains("not dumpable"), "{}", stderr(&refused));
        assert!(gilspy.dump_as(0, &target.pid()).status.success());
    }
}

/// The kernel kills it for any system call but read, write, exit and sigreturn (seccomp(2), `SECCOMP_SET_MODE_STRICT`).
#[test]
fn a_process_that_may_do_nothing_does_nothing() {
    let script = "import ctypes\n\
                  prctl = ctypes.CDLL(None).prctl\n\
                  print('ready', flush=True)\n\
                  assert prctl(22, 1, 0, 0, 0) == 0\n\
                  while True: pass";
    let Some(mut target) = Python::start(nix::unistd::geteuid().as_raw(), script) else { return };
    for _ in 0..rounds() {
        let dump = run(["dump", "-p", &target.pid()]);
        assert!(stdout(&dump).contains("<module>"), "{}", stdout(&dump));
        run(["dump", "--blocking", "-p", &target.pid()]);
        let report = report(&["-s", "-d", "0.3", "-p", &target.pid()]);
        assert!(report["interpreters"][0]["gil"]["held"].as_f64() > Some(0.9), "{report:#}");
        let before = target.cpu();
        while target.cpu() == before {
            assert_eq!(target.0.try_wait().unwrap(), None, "it was killed");
        }
    }
}

#[test]
fn a_filter_on_gilspy_itself_is_named() {
    let Some(target) = Python::start(nix::unistd::geteuid().as_raw(), SLEEPS) else { return };
    let forbid = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/forbid.py");
    for errno in [nix::errno::Errno::EPERM, nix::errno::Errno::ENOSYS] {
        let filtered = |arguments: &[&str]| {
            let call = (Sysno::process_vm_readv as i32).to_string();
            let mut command = Command::new(&newest().path);
            command.arg(&forbid).args([&call, &(errno as i32).to_string()]).arg(binary()).args(arguments);
            let output = command.output().unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("process_vm_readv(2) is forbidden to gilspy itself"), "{said}");
            assert!(said.contains("seccomp") && said.contains("docker run --cap-add SYS_PTRACE"), "{said}");
        };
        filtered(&["dump", "-p", &target.pid()]);
        filtered(&["record", "-d", "1", "-f", "json", "-o", "/dev/null", "-p", &target.pid()]);
        let python = newest().path.to_str().unwrap();
        filtered(&[
            "record",
            "-f",
            "json",
            "-o",
            "/dev/null",
            "--",
            python,
            "-c",
            "import time; time.sleep(0.5)",
        ]);
    }
}

/// `ptrace_scope` as it was, once this is dropped.
struct Scope(String);

impl Scope {
    /// `None` where there is no Yama.
    fn set(scope: &str) -> Option<Self> {
        let before = std::fs::read_to_string(PTRACE_SCOPE).ok()?;
        std::fs::write(PTRACE_SCOPE, scope).ok()?;
        Some(Scope(before))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // 3 cannot be left again.
        let _ = std::fs::write(PTRACE_SCOPE, &self.0);
    }
}

#[test]
fn each_ptrace_scope_is_named_where_it_forbids_to_look() {
    if !is_root() {
        return;
    }
    let gilspy = Everybodys::new();
    let Some(target) = Python::start(NOBODY, SLEEPS) else { return };
    let disposable = std::env::var_os("GILSPY_CHAOS_PTRACE_SCOPE_3").map(|_| "3");
    for scope in ["1", "2"].into_iter().chain(disposable) {
        let Some(_scope) = Scope::set(scope) else {
            eprintln!("SKIPPED: there is no {PTRACE_SCOPE} here, or it cannot be set");
            return;
        };
        let refused = gilspy.dump_as(NOBODY, &target.pid());
        let said = stderr(&refused);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("kernel.yama.ptrace_scope is {scope}")), "{said}");
        assert!(said.contains(&format!("ptrace_scope {scope} ")), "{said}");
        assert_eq!(gilspy.dump_as(0, &target.pid()).status.success(), scope != "3");
    }
}
