//! Processes in containers, of programs that have been replaced, and of programs that Python is only a part of.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::*;
use tempfile::TempDir;

/// What makes a container: namespaces of mounts, pids and users, with a /proc of its own.
const CONTAINER: [&str; 7] =
    ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// Where an interpreter is in [`Contained::with_root`], and nowhere else.
const IN_ITS_ROOT: &str = "/opt/gilspy-test/python";

/// A fixture program in a container. It ends with it.
struct Contained {
    fixture: Fixture,
    _root: TempDir,
}

impl Contained {
    /// With the files of this machine.
    fn start(interpreter: &Interpreter, name: &str) -> Self {
        let mut unshare = Command::new("unshare");
        unshare.args(CONTAINER).arg(&interpreter.path).arg(program(name));
        Contained { fixture: Fixture::run(unshare, name), _root: TempDir::new().unwrap() }
    }

    /// With a root of its own, in which the interpreter is at another path.
    fn with_root(interpreter: &Interpreter, name: &str) -> Self {
        let root = TempDir::new().unwrap();
        let script = "mount --rbind / $0 && mount -t tmpfs tmpfs $0/opt && mkdir -p $0$2 && mount --bind $1 $0$2 \
                      && mount -t proc proc $0/proc && shift && cd / && exec chroot \"$0\" \"$@\"";
        let (prefix, path) = prefix_and_path(interpreter);
        let mut unshare = Command::new("unshare");
        unshare.args(CONTAINER).args(["sh", "-ec"]).arg(script.replace("$2", IN_ITS_ROOT));
        unshare.arg(root.path()).arg(prefix).arg(Path::new(IN_ITS_ROOT).join(path)).arg(program(name));
        Contained { fixture: Fixture::run(unshare, name), _root: root }
    }

    /// The pid of the program as it is seen from here.
    fn pid(&self) -> String {
        let unshare = self.fixture.child.id();
        let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        children.trim().to_owned()
    }

    /// Runs gilspy through another command, which puts it into some of the container's namespaces.
    fn gilspy_through(&self, through: &[&str], arguments: &[&str]) -> Value {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid()]).args(through).arg(env!("CARGO_BIN_EXE_gilspy"));
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", stderr(&output));
        let document = serde_json::from_slice(&output.stdout).unwrap();
        validate("dump", &document);
        document
    }
}

/// Where an interpreter is installed, and its path from there.
fn prefix_and_path(interpreter: &Interpreter) -> (PathBuf, PathBuf) {
    let path = interpreter.path.canonicalize().unwrap();
    let depth = if path.components().any(|part| part.as_os_str() == "usr") { 3 } else { 2 };
    let prefix = path.ancestors().nth(depth).unwrap().to_owned();
    let from_there = path.strip_prefix(&prefix).unwrap().to_owned();
    (prefix, from_there)
}

/// Whether containers can be made here. CI has to be able to.
fn has_containers() -> bool {
    let mut unshare = Command::new("unshare");
    let can = unshare.args(CONTAINER).arg("true").output().is_ok_and(|output| output.status.success())
        && nix::unistd::Uid::effective().is_root();
    if !can {
        assert!(std::env::var_os("CI").is_none(), "no container can be made: {unshare:?}");
        eprintln!("SKIPPED: no container can be made here (unshare, as root)");
    }
    can
}

/// An interpreter of every way to find a thread's id: descriptor, thread state; a library of its own, or none.
fn chosen() -> Vec<&'static Interpreter> {
    let mut chosen: Vec<&Interpreter> = Vec::new();
    // The machine's own has no directory of its own that could be put elsewhere.
    let is_apart = |it: &&Interpreter| !it.path.canonicalize().unwrap().starts_with("/usr");
    for interpreter in interpreters().filter(is_apart) {
        let is_shared =
            interpreter.path.components().any(|part| part.as_os_str().to_string_lossy().ends_with("-shared"));
        if is_shared
            || [7, 9, 10, 11, 13, 15].contains(&interpreter.minor)
                && !chosen.iter().any(|it| it.minor == interpreter.minor)
        {
            chosen.push(interpreter);
        }
    }
    chosen
}

/// What `sleepers.py` does, thread by thread.
fn assert_all_sleep(dump: &Value, context: &str) {
    let names = ["MainThread", "sleeper", "reader", "lock-waiter", "event-waiter", "poller"];
    for name in names {
        assert_eq!(thread(dump, name)["state"], "blocked", "{context}: {dump:#}");
    }
    assert_eq!(threads(dump).len(), names.len(), "{context}: {dump:#}");
    assert_eq!(thread(dump, "reader")["syscall"], "recvfrom", "{context}: {dump:#}");
    assert_eq!(functions(thread(dump, "reader"))[0], "read_socket", "{context}: {dump:#}");
}

/// That each thread has the two ids that the kernel says, and the own one is what the program says.
fn assert_ids(dump: &Value, fixture: &Fixture, pid: &str, context: &str) {
    for thread in threads(dump) {
        let tid = thread["tid"].as_i64().unwrap_or_else(|| panic!("{context}: {dump:#}"));
        let status = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
        let own = ids.split_whitespace().last().unwrap().parse::<i64>().unwrap();
        assert_eq!(thread["namespace_tid"], own, "{context}: {dump:#}");
        // 3.7 does not know its threads' ids.
        if let Some(said) = fixture.tid(thread["name"].as_str().unwrap()) {
            assert_eq!(said, own, "{context}: {dump:#}");
        }
    }
}

#[test]
fn sleeping_threads_of_a_container_are_blocked_and_have_two_ids() {
    let _alone = alone();
    if !has_containers() {
        return;
    }
    for interpreter in chosen() {
        let contained = Contained::start(interpreter, "sleepers.py");
        let (pid, context) = (contained.pid(), interpreter.path.display().to_string());
        let dump = dump_json(&pid);
        assert_all_sleep(&dump, &context);
        assert_ids(&dump, &contained.fixture, &pid, &context);
        assert_eq!(
            (dump["target"]["pid"].to_string(), &dump["target"]["namespace_pid"]),
            (pid.clone(), &1.into())
        );

        let text = stdout(&run(["dump", "-p", &pid]));
        assert!(text.starts_with(&format!("pid {pid} (1 in its namespace)  ")), "{text}");
        assert!(text.contains(&format!("MainThread ({pid}, 1 in its namespace)  blocked")), "{text}");
        let (report, summary) = report_and_summary(&["-d", "0.3", "-p", &pid]);
        assert_ids(&report, &contained.fixture, &pid, &context);
        assert_eq!(report["verdict"]["kind"], "idle", "{report:#}");
        assert!(summary.contains(&format!("{pid}/1 ")), "{summary}");
        assert!(summary.lines().all(|line| line.chars().count() <= 80), "{summary}");
    }
}

#[test]
fn gilspy_inside_of_the_same_container_sees_the_same() {
    let _alone = alone();
    if !has_containers() {
        return;
    }
    for interpreter in chosen() {
        let contained = Contained::start(interpreter, "sleepers.py");
        let through = ["--user", "--preserve-credentials", "--mount", "--pid"];
        let dump = contained.gilspy_through(&through, &["dump", "--json", "-p", "1"]);
        assert_all_sleep(&dump, &interpreter.version);
        assert_eq!(dump["target"]["pid"], dump["target"]["namespace_pid"], "{dump:#}");
        assert!(threads(&dump).iter().all(|thread| thread["tid"] == thread["namespace_tid"]), "{dump:#}");
    }
}

#[test]
fn a_sidecar_that_shares_only_pids_finds_an_interpreter_at_a_path_that_it_does_not_have() {
    let _alone = alone();
    if !has_containers() {
        return;
    }
    for interpreter in chosen() {
        let contained = Contained::with_root(interpreter, "sleepers.py");
        let (pid, context) = (contained.pid(), interpreter.path.display().to_string());
        assert!(!Path::new(IN_ITS_ROOT).exists());
        // From outside: another mount, PID and user namespace.
        let dump = dump_json(&pid);
        assert_all_sleep(&dump, &context);
        assert_ids(&dump, &contained.fixture, &pid, &context);
        let file = thread(&dump, "sleeper")["frames"][1]["file"].as_str().unwrap().to_owned();
        assert!(file.starts_with(IN_ITS_ROOT), "{context}: {dump:#}");
        // From a container of its own that shares the PID namespace.
        let sidecar = ["--pid", "unshare", "--mount", "--mount-proc"];
        let dump = contained.gilspy_through(&sidecar, &["dump", "--json", "-p", "1"]);
        assert_all_sleep(&dump, &context);
    }
}

/// A copy of an interpreter, whose files can be taken away.
fn copy_of(interpreter: &Interpreter, directory: &Path) -> (Interpreter, PathBuf) {
    let (prefix, path) = prefix_and_path(interpreter);
    let copy = directory.join("python");
    let cp = Command::new("cp").arg("-r").arg(prefix).arg(&copy).status().unwrap();
    assert!(cp.success());
    (Interpreter { path: copy.join(path), ..interpreter.clone() }, copy)
}

/// The fetched interpreters that are linked with libpython, and one that is not.
fn small() -> impl Iterator<Item = &'static Interpreter> {
    let fetched = fetched_interpreters();
    let is_small = move |interpreter: &&Interpreter| {
        let below = interpreter.path.strip_prefix(&fetched);
        below
            .is_ok_and(|path| ["3.9-shared", "3.13-shared", "3.13"].iter().any(|name| path.starts_with(name)))
    };
    interpreters().filter(is_small)
}

#[test]
fn a_program_whose_files_are_deleted_or_replaced_is_read_all_the_same() {
    let _alone = alone();
    for interpreter in small() {
        let directory = TempDir::new().unwrap();
        let (copied, copy) = copy_of(interpreter, directory.path());
        let context = interpreter.path.display().to_string();
        let mut command = Command::new(&copied.path);
        command.arg(program("sleepers.py"));
        let fixture = Fixture::run(command, "sleepers.py");
        // As a package upgrade does it: other files take the names.
        for file in mapped_files(&fixture.pid()).iter().filter(|file| file.starts_with(&copy)) {
            std::fs::remove_file(file).unwrap();
            std::fs::write(file, "not what it was").unwrap();
        }
        assert_all_sleep(&dump_json(&fixture.pid()), &context);
        std::fs::remove_dir_all(&copy).unwrap();
        assert_all_sleep(&dump_json(&fixture.pid()), &context);
        let report = report(&["-d", "0.3", "-p", &fixture.pid()]);
        assert_eq!(report["verdict"]["kind"], "idle", "{context}: {report:#}");
    }
}

fn mapped_files(pid: &str) -> Vec<PathBuf> {
    let process = procfs::process::Process::new(pid.parse().unwrap()).unwrap();
    let mut files: Vec<PathBuf> = (process.maps().unwrap().into_iter())
        .filter_map(|map| match map.pathname {
            procfs::process::MMapPath::Path(path) => Some(path),
            _ => None,
        })
        .collect();
    files.sort();
    files.dedup();
    files
}

#[test]
fn a_virtual_environments_python_is_found() {
    let _alone = alone();
    for interpreter in chosen().into_iter().filter(|interpreter| interpreter.minor >= 11) {
        let directory = TempDir::new().unwrap();
        let venv = directory.path().join("venv");
        let made = Command::new(&interpreter.path)
            .args(["-m", "venv", "--without-pip"])
            .arg(&venv)
            .output()
            .unwrap();
        // Debian's packages of the interpreter alone have no venv.
        if !made.status.success() {
            eprintln!("SKIPPED {}: it has no venv", interpreter.path.display());
            continue;
        }
        let mut command = Command::new(venv.join("bin/python"));
        command.arg(program("sleepers.py"));
        let fixture = Fixture::run(command, "sleepers.py");
        let dump = dump_json(&fixture.pid());
        assert_all_sleep(&dump, &interpreter.version);
        assert_eq!(dump["target"]["command"][0], venv.join("bin/python").to_str().unwrap());
    }
}

/// A C program with Python in it, linked with the library of an interpreter if it has one, else with all of it.
fn embedding(interpreter: &Interpreter, directory: &Path) -> Option<PathBuf> {
    let script = "import sysconfig; v = sysconfig.get_config_vars; \
                  print(sysconfig.get_paths()['include'], *v('LIBPL', 'LIBDIR', 'LDLIBRARY', 'LIBS', 'SYSLIBS'), sep='\\n')";
    let asked = stdout(&Command::new(&interpreter.path).args(["-c", script]).output().unwrap());
    let [include, config, _, library, libs, more] = asked.lines().collect::<Vec<_>>().try_into().unwrap();
    let archive = Path::new(config).join(library);
    if !Path::new(include).join("Python.h").exists()
        || !library.ends_with(".a")
        || !archive.exists()
        || !is_there("cc")
    {
        return None;
    }
    let path = directory.join("embedding");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/embedding.c");
    let mut cc = Command::new("cc");
    cc.arg("-I")
        .arg(include)
        .arg(source)
        .arg(archive)
        .args(libs.split_whitespace())
        .args(more.split_whitespace());
    let output =
        cc.args(["-lm", "-ldl", "-lpthread", "-lutil", "-rdynamic", "-o"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{cc:?}: {}", stderr(&output));
    Some(path)
}

#[test]
fn python_inside_of_another_program_is_found() {
    let _alone = alone();
    let mut tested = 0;
    for interpreter in interpreters() {
        let directory = TempDir::new().unwrap();
        let Some(program_path) = embedding(interpreter, directory.path()) else { continue };
        let mut command = Command::new(&program_path);
        let home = interpreter.path.ancestors().nth(2).unwrap();
        command.arg(program("sleepers.py")).env("PYTHONHOME", home);
        let fixture = Fixture::run(command, "sleepers.py");
        let dump = dump_json(&fixture.pid());
        assert_all_sleep(&dump, &interpreter.version);
        assert_eq!(dump["target"]["command"][0], program_path.to_str().unwrap());
        tested += 1;
    }
    if tested == 0 {
        eprintln!("SKIPPED: no interpreter with headers and a static library");
    }
}
