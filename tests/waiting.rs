//! What threads do, for whom they wait, and what that comes to: of processes of one behaviour each.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use procfs::CurrentSI;
use procfs::process::Process;
use serde_json::Value;
use support::*;

/// The programs of `fixtures/programs/README.md` and what limits them, with the seconds that it takes to see.
const VERDICTS: [(&str, &str, &str); 19] = [
    ("two_spinners.py", "gil-bound", "0.6"),
    ("c_holds_gil.py", "gil-hogged", "1.5"),
    ("regex_backtrack.py", "gil-hogged", "0.6"),
    ("demo.py", "gil-hogged", "2.5"),
    ("c_stalls_gil.py", "gil-stalled", "1"),
    ("cpu_starved.py", "cpu-starved", "1"),
    ("hash_pool.py", "native-bound", "0.6"),
    ("echo_clients.py", "io-bound", "1"),
    ("sleepers.py", "idle", "0.5"),
    ("unequal_share.py", "single-thread", "0.6"),
    ("deep_recursion.py", "single-thread", "0.5"),
    ("asyncio_tasks.py", "single-thread", "0.6"),
    ("short_lived.py", "single-thread", "0.5"),
    ("process_pool.py", "idle", "0.6"),
    ("parked_stacks.py", "idle", "0.5"),
    ("call_pairs.py", "gil-bound", "0.6"),
    ("non_ascii_names.py", "gil-bound", "0.6"),
    ("generator_churn.py", "gil-bound", "0.6"),
    ("thread_churn.py", "gil-bound", "1"),
];

/// Looks at a program that count for nothing because somebody else used the machine: it may rightly be found
/// starved of CPU then, or to take turns unlike when it is alone. After so many it is skipped.
const BUSY_LOOKS: usize = 6;

/// A machine is busy from so many CPUs on that others use.
const BUSY_CPUS: f64 = 0.25;

/// Verdicts that hold without a GIL too.
const WITHOUT_A_GIL: [&str; 3] = ["idle", "native-bound", "io-bound"];

#[test]
fn every_program_has_its_verdict() {
    let _alone = alone();
    let looks = one_of_each_series().flat_map(|interpreter| VERDICTS.map(|verdict| (interpreter, verdict)));
    let wrong = looks.filter_map(|(interpreter, (name, kind, seconds))| {
        let take = |fixture: &Fixture| {
            let report = report(&["-d", seconds, "--max-overhead", "50", "-p", &fixture.pid()]);
            let summary = report["verdict"]["summary"].as_str().unwrap();
            assert!(!summary.is_empty() || WITHOUT_A_GIL.contains(&kind));
            report
        };
        let check = |report: &Value| {
            let verdict = &report["verdict"];
            let free_threaded = interpreter.free_threaded && verdict["kind"] == "free-threaded";
            assert!(
                verdict["kind"] == kind || free_threaded,
                "{verdict} {}",
                report["interpreters"][0]["gil"]
            );
        };
        wrong_look(interpreter, name, take, check)
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Starts a program, takes something of it, and checks that.
fn look<T>(interpreter: &Interpreter, name: &str, take: impl Fn(&Fixture) -> T, check: impl Fn(&T)) {
    if let Some(wrong) = wrong_look(interpreter, name, take, check) {
        panic!("{wrong}");
    }
}

/// What was wrong, if anything was: where others used the machine meanwhile, it is looked at again.
fn wrong_look<T>(
    interpreter: &Interpreter,
    name: &str,
    take: impl Fn(&Fixture) -> T,
    check: impl Fn(&T),
) -> Option<String> {
    let what = format!("{name} on {}", interpreter.version);
    for _ in 0..BUSY_LOOKS {
        let fixture = start(interpreter, name);
        let (begin, used) = (Instant::now(), cpu_used() - cpu_used_by(&fixture));
        let taken = take(&fixture);
        let others = (cpu_used() - cpu_used_by(&fixture) - used) / begin.elapsed().as_secs_f64();
        let Err(wrong) = catch_unwind(AssertUnwindSafe(|| check(&taken))) else { return None };
        let wrong = wrong.downcast_ref::<String>().cloned().unwrap_or_default();
        let wrong = format!("{what}, while others use {others:.2} CPUs: {wrong}");
        if others < BUSY_CPUS {
            return Some(wrong);
        }
        eprintln!("{wrong}");
    }
    eprintln!("SKIPPED {what}: others use the machine");
    None
}

/// Starts a program once the machine is calm, or after a while anyway.
fn start(interpreter: &Interpreter, name: &str) -> Fixture {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let (begin, used) = (Instant::now(), cpu_used());
        std::thread::sleep(Duration::from_millis(100));
        let busy = (cpu_used() - used) / begin.elapsed().as_secs_f64();
        if busy < BUSY_CPUS || Instant::now() > patience {
            return Fixture::start(interpreter, name, &[]);
        }
    }
}

/// What all processes have used since the machine was started, and what a hypervisor gave to others instead.
fn cpu_used() -> f64 {
    let total = procfs::KernelStats::current().unwrap().total;
    let others = [total.irq, total.softirq, total.steal].into_iter().flatten().sum::<u64>();
    (total.user + total.nice + total.system + others) as f64 / procfs::ticks_per_second() as f64
}

/// What a program and its children have used, and what was run by this test and has ended.
fn cpu_used_by(fixture: &Fixture) -> f64 {
    let pid = fixture.child.id() as i32;
    let stats = procfs::process::all_processes().unwrap().filter_map(|process| process.ok()?.stat().ok());
    let family = stats.filter(|stat| stat.pid == pid || stat.ppid == pid);
    let theirs: i64 = family.map(|stat| (stat.utime + stat.stime) as i64 + stat.cutime + stat.cstime).sum();
    let children = Process::myself().unwrap().stat().unwrap();
    (theirs + children.cutime + children.cstime) as f64 / procfs::ticks_per_second() as f64
}

fn state(report: &Value, thread_name: &str, state: &str) -> f64 {
    thread(report, thread_name)["states"][state].as_f64().unwrap()
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn spinners_wait_for_one_another() {
    let _alone = alone();
    for interpreter in interpreters() {
        look(interpreter, "two_spinners.py", sound_report, |report| {
            let [one, two] = ["spinner-1", "spinner-2"].map(|name| thread(report, name));
            for (spinner, other) in [(one, two), (two, one)] {
                let states = &spinner["states"];
                assert!(seconds(&states["hold"]) + seconds(&states["wait"]) > 0.9, "{report:#}");
                assert!((0.3..0.7).contains(&seconds(&states["wait"])), "{report:#}");
                let waits = report["interpreters"][0]["waits"].as_array().unwrap();
                let wait = waits.iter().find(|wait| {
                    (&wait["holder_tid"], &wait["waiter_tid"]) == (&other["tid"], &spinner["tid"])
                });
                let waited = seconds(&spinner["waited_s"]);
                assert!(seconds(&wait.unwrap()["wait_s"]) > 0.9 * waited, "{report:#}");
            }
            assert!(state(report, "MainThread", "blocked") > 0.95, "{report:#}");
            let gil = &report["interpreters"][0]["gil"];
            assert!((0.8..1.2).contains(&seconds(&gil["waiters_mean"])), "{report:#}");
            assert!((1.6..=2.0001).contains(&seconds(&report["headroom"])), "{report:#}");
        });
    }
}

/// A report in which what has to add up does, however busy the machine is.
fn sound_report(fixture: &Fixture) -> Value {
    let report = report(&["-d", "1.5", "--max-overhead", "50", "-p", &fixture.pid()]);
    for thread in threads(&report) {
        let states = thread["states"].as_object().unwrap();
        assert!((states.values().map(seconds).sum::<f64>() - 1.0).abs() < 1e-6, "{report:#}");
    }
    let by_cause = report["interpreters"][0]["gil"]["waiting_s"].as_object().unwrap();
    let waited = threads(&report).iter().map(|thread| seconds(&thread["waited_s"])).sum::<f64>();
    assert!((by_cause.values().map(seconds).sum::<f64>() - waited).abs() < 0.001, "{report:#}");
    report
}

#[test]
fn a_thread_that_sleeps_under_the_gil_stalls_and_its_victim_waits_for_it() {
    let _alone = alone();
    for interpreter in interpreters() {
        let fixture = start(interpreter, "c_stalls_gil.py");
        let recorded = report(&["-d", "1.5", "--max-overhead", "50", "-p", &fixture.pid()]);
        assert!(state(&recorded, "staller", "stall") > 0.8, "{}: {recorded:#}", interpreter.version);
        assert!(state(&recorded, "victim", "wait") > 0.8, "{}: {recorded:#}", interpreter.version);
        let holds = recorded["interpreters"][0]["long_holds"].as_array().unwrap();
        let hold =
            holds.iter().max_by(|a, b| seconds(&a["duration_s"]).total_cmp(&seconds(&b["duration_s"])));
        let hold = hold.unwrap();
        assert_eq!(hold["state"], "stall", "{recorded:#}");
        assert!(hold["waiters_max"].as_u64() >= Some(1), "{recorded:#}");
        assert_eq!(hold["frames"][0]["function"], "stall", "{recorded:#}");
        assert!((0.2..0.5).contains(&seconds(&hold["duration_s"])), "{recorded:#}");

        let dump = dump_json(&fixture.pid());
        let (staller, victim) = (thread(&dump, "staller"), thread(&dump, "victim"));
        // Between two stalls, it may be the other way round.
        if staller["state"] == "stall" {
            assert!(staller["syscall"].as_str().unwrap().ends_with("nanosleep"), "{dump:#}");
            assert_eq!((&victim["state"], &victim["waits_for_tid"]), (&"wait".into(), &staller["tid"]));
        }
    }
}

#[test]
fn sleeping_threads_are_blocked_in_the_system_calls_that_they_made() {
    let _alone = alone();
    for interpreter in interpreters() {
        let fixture = start(interpreter, "sleepers.py");
        let dump = dump_json(&fixture.pid());
        // `time.sleep` is select(2) to 3.10, clock_nanosleep(2) since.
        let expected: [(&str, &[&str]); 4] = [
            ("sleeper", &["clock_nanosleep", "select", "pselect6"]),
            ("reader", &["recvfrom"]),
            ("lock-waiter", &["futex"]),
            ("poller", &["poll", "ppoll"]),
        ];
        for (name, syscalls) in expected {
            let found = thread(&dump, name);
            assert_eq!(found["state"], "blocked", "{} {name}: {found:#}", interpreter.version);
            let syscall = found["syscall"].as_str().unwrap();
            assert!(syscalls.contains(&syscall), "{} {name}: {syscall}", interpreter.version);
            assert!(seconds(&found["since_ms"]) > 20.0, "{} {name}: {found:#}", interpreter.version);
        }
        let text = stdout(&run(["dump", "-p", &fixture.pid()]));
        assert!(text.contains("blocked in recvfrom, for at least"), "{text}");
    }
}

#[test]
fn only_one_thread_is_said_to_hold_the_gil() {
    let _alone = alone();
    for interpreter in interpreters() {
        let fixture = start(interpreter, "two_spinners.py");
        for _ in 0..5 {
            let dump = dump_json(&fixture.pid());
            let holders = threads(&dump).into_iter().filter(|thread| thread["state"] == "hold").count();
            assert!(holders <= 1, "{}: {dump:#}", interpreter.version);
        }
    }
}

#[test]
fn a_holder_without_a_cpu_is_told_from_one_that_computes() {
    let _alone = alone();
    look(newest(), "cpu_starved.py", sound_report, |report| {
        let starved = thread(report, "starved");
        let (cpu, run_queue) = (seconds(&starved["cpu_s"]), seconds(&starved["runqueue_s"]));
        assert!((0.5..0.95).contains(&(run_queue / (cpu + run_queue))), "{report:#}");
        assert!(seconds(&report["interpreters"][0]["gil"]["starved_s"]) > 0.8, "{report:#}");
    });
}

/// A control group with a CPU quota; it is removed when this is dropped.
struct Quota(PathBuf);

impl Quota {
    fn new(cpus: f64) -> Option<Self> {
        let group = Path::new("/sys/fs/cgroup/cpu").join(format!("gilspy-quota-{}", std::process::id()));
        std::fs::create_dir(&group).ok()?;
        let quota = Quota(group);
        std::fs::write(quota.0.join("cpu.cfs_quota_us"), format!("{:.0}", cpus * 100_000.0)).ok()?;
        Some(quota)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // Its processes have ended, but may not be gone yet.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_cpu_quota_that_holds_the_process_back_is_named() {
    let _alone = alone();
    let Some(quota) = Quota::new(0.25) else {
        eprintln!("SKIPPED: no control group with a quota can be made here");
        return;
    };
    let fixture = Fixture::start(newest(), "short_lived.py", &["--seconds", "30"]);
    std::fs::write(quota.0.join("cgroup.procs"), fixture.pid()).unwrap();
    let report = report(&["-d", "2", "--max-overhead", "50", "-p", &fixture.pid()]);
    assert_eq!(report["verdict"]["kind"], "cpu-starved", "{report:#}");
    assert!(report["verdict"]["summary"].as_str().unwrap().contains("quota of 0.25 CPUs"), "{report:#}");
    assert_eq!(report["cpu_quota"]["cpus"], 0.25);
    assert!(seconds(&report["cpu_quota"]["throttled_s"]) > 0.5, "{report:#}");
    drop(fixture);
}

#[test]
fn threads_that_run_no_python_are_counted() {
    let _alone = alone();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/native_thread.py");
    let mut target = Command::new(&newest().path).arg(program).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(target.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let report = report(&["-d", "0.5", "-p", &target.id().to_string()]);
    target.kill().unwrap();
    target.wait().unwrap();
    let [native] = report["native_threads"].as_array().unwrap().as_slice() else { panic!("{report:#}") };
    assert!(native["tid"] != threads(&report)[0]["tid"], "{report:#}");
    assert!(native["name"].as_str().unwrap().starts_with("python3"), "{report:#}");
}

#[test]
fn where_only_holders_are_looked_at_nothing_is_said_of_waiting() {
    let _alone = alone();
    for interpreter in interpreters() {
        let fixture = start(interpreter, "two_spinners.py");
        let report = report(&["-d", "1", "--gil", "-p", &fixture.pid()]);
        assert!(state(&report, "spinner-1", "hold") > 0.2, "{}: {report:#}", interpreter.version);
        assert_eq!(thread(&report, "spinner-1")["states"]["wait"], Value::Null);
        assert_eq!((&report["verdict"], &report["headroom"]), (&Value::Null, &Value::Null));
    }
}

#[test]
fn the_summary_says_it_in_twenty_lines_of_eighty_columns() {
    let _alone = alone();
    for (name, words) in [
        ("demo.py", &["Gil-hogged: ", "Try: ", "blur", "thumbnailer", "waits for", "threads waiting"][..]),
        ("two_spinners.py", &["Gil-bound: ", "spinner-1", "times as fast without the GIL"][..]),
        ("sleepers.py", &["Idle: ", "Nobody held the GIL"][..]),
    ] {
        look(newest(), name, summary, |text| {
            for word in words {
                assert!(text.contains(word), "{name}: {word}: {text}");
            }
        });
    }
}

/// What is said at the end of a recording, which keeps to its lines and columns whatever it says.
fn summary(fixture: &Fixture) -> String {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["record", "-d", "3", "--max-overhead", "50", "-p", &fixture.pid()];
    let output = gilspy(arguments).current_dir(directory.path()).output().unwrap();
    let text = stderr(&output);
    // The two lines before the recording say what is recorded.
    let summary: Vec<&str> = text.lines().skip_while(|line| !line.is_empty()).collect();
    assert!(summary.len() <= 20, "{text}");
    assert!(summary.iter().all(|line| line.chars().count() <= 80), "{text}");
    assert!(!text.contains('\x1b'), "colour is for terminals: {text:?}");
    text
}
