//! What happens to gilspy and to its targets at random moments: killed, stopped, executing something else, forking, out of
//! memory, out of CPU, the clock stepped. The targets check their own results and have to go on as if nobody looked.
//!
//!     cargo test --test chaos                                 # three rounds of each
//!     GILSPY_CHAOS_ROUNDS=100 cargo test --test chaos         # a hundred: half an hour
//!     GILSPY_CHAOS_CLOCK=1 cargo test --test chaos clock      # steps the machine's clock by an hour, and back

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gilspy::recording::{Ending, NotARecording};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime, clock_settime};
use support::chaos::*;
use support::*;

const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL];

/// What a recording may lose to SIGKILL, in seconds: what the last second or two saw, and a busy machine is late.
const LOST_TO_KILL: f64 = 3.0;

/// The oldest and the newest interpreter, and a free-threaded one.
fn some_interpreters() -> Vec<&'static Interpreter> {
    let free_threaded = all_interpreters().iter().find(|interpreter| interpreter.free_threaded);
    [interpreters().next(), Some(newest()), free_threaded].into_iter().flatten().collect()
}

/// The target of a round: by turns of each interpreter.
fn of_round(round: u32) -> &'static Interpreter {
    let interpreters = some_interpreters();
    interpreters[round as usize % interpreters.len()]
}

/// Kills a recording at a random moment, and looks what it has left.
fn kill_recording(target: &Checked, arguments: &[&str], signal: Signal, round: u32) {
    let mut recorder = Recorder::start(&[arguments, &["-p", &target.pid()]].concat());
    // Now and then long enough for something to be on the disk.
    std::thread::sleep(moment(if signal == Signal::SIGKILL && round.is_multiple_of(3) { 5000 } else { 700 }));
    let recorded = recorder.recording_for();
    send(recorder.child.id(), signal);
    let status = recorder.end();
    target.must_go_on();
    let Some(recorded) = recorded.map(|recorded| recorded.as_secs_f64()) else { return };
    match recorder.recordings() {
        Ok(recordings) if signal == Signal::SIGKILL => {
            let length = recordings[0].duration.as_secs_f64();
            assert!(length > recorded - LOST_TO_KILL, "{length} s are left of {recorded} s");
            is_whole(&recordings[0]);
        }
        Ok(recordings) => {
            assert!(status.success(), "{status}: {}", recorder.said());
            assert_eq!(recordings[0].ending, Ending::Interrupted);
            is_whole(&recordings[0]);
        }
        Err(NotARecording::Empty) if signal == Signal::SIGKILL && recorded < LOST_TO_KILL => {}
        Err(error) => panic!("after {signal}: {error}"),
    }
}

fn kill_recordings(arguments: &[&str]) {
    for interpreter in some_interpreters() {
        let target = Checked::start(interpreter, &[]);
        for round in 0..rounds() {
            for signal in SIGNALS {
                kill_recording(&target, arguments, signal, round);
            }
        }
        target.finish();
    }
}

#[test]
fn a_target_goes_on_when_gilspy_is_killed() {
    kill_recordings(&[]);
}

#[test]
fn a_target_goes_on_when_gilspy_is_killed_that_pauses_it() {
    kill_recordings(&["--blocking", "-r", "5000", "--max-overhead", "99"]);
}

#[test]
fn a_target_goes_on_when_a_dump_is_killed() {
    let target = Checked::start(newest(), &["--fork"]);
    for _ in 0..rounds() * 3 {
        for signal in SIGNALS {
            let arguments = ["dump", "--blocking", "-p", &target.pid()];
            let mut dump = gilspy(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(moment(120));
            send(dump.id(), signal);
            end_of(&mut dump);
            target.must_go_on();
        }
    }
    target.finish();
}

#[test]
fn a_target_may_be_killed_at_any_moment() {
    for round in 0..rounds() {
        let mut target = Checked::start(of_round(round), &[]);
        let mut observers = Observers::start(&target.pid());
        if round.is_multiple_of(2) {
            observers.wait_until_recording();
        }
        std::thread::sleep(moment(400));
        target.fixture.child.kill().unwrap();
        target.fixture.child.wait().unwrap();
        observers.end(&[Ending::TargetExited]);
    }
}

#[test]
fn a_target_may_be_killed_while_it_is_paused() {
    for round in 0..rounds() {
        let mut target = Checked::start(of_round(round), &[]);
        let arguments = ["--blocking", "-r", "5000", "--max-overhead", "99", "-p", &target.pid()];
        let mut recorder = Recorder::start(&arguments);
        recorder.wait_until_recording();
        std::thread::sleep(moment(300));
        target.fixture.child.kill().unwrap();
        target.fixture.child.wait().unwrap();
        recorder.ended_well(&[Ending::TargetExited]);
    }
}

#[test]
fn a_target_may_be_stopped_and_continued() {
    let target = Checked::start(newest(), &["--fork"]);
    let mut observers = Observers::start(&target.pid());
    observers.wait_until_recording();
    for _ in 0..rounds() * 4 {
        send(target.id(), Signal::SIGSTOP);
        std::thread::sleep(moment(200));
        send(target.id(), Signal::SIGCONT);
        std::thread::sleep(moment(50));
    }
    target.must_go_on();
    // Its children end.
    assert!(observers.stop(&[Ending::Interrupted, Ending::TargetExited]) > 0);
    target.finish();
}

/// gilspy neither waits for a stopped process nor makes it go on, also where it would pause it.
#[test]
fn a_target_may_stay_stopped() {
    let target = Checked::start(newest(), &[]);
    for _ in 0..rounds() {
        let mut observers = Observers::start(&target.pid());
        let mut pausing = Recorder::start(&["--blocking", "-p", &target.pid()]);
        observers.wait_until_recording();
        pausing.wait_until_recording();
        send(target.id(), Signal::SIGSTOP);
        wait_until("stopped", || target.is_stopped());
        assert!(dump_is_sound(&["-p", &target.pid()]));
        assert!(dump_is_sound(&["--blocking", "-p", &target.pid()]));
        let mut late = Recorder::start(&["--blocking", "-p", &target.pid()]);
        late.wait_until_recording();
        std::thread::sleep(Duration::from_secs(1));
        for recorder in [pausing, late] {
            send(recorder.child.id(), Signal::SIGINT);
            recorder.ended_well(&[Ending::Interrupted]);
        }
        observers.stop(&[Ending::Interrupted]);
        assert!(target.is_stopped(), "gilspy made it go on");
        send(target.id(), Signal::SIGCONT);
        target.must_go_on();
    }
    target.finish();
}

#[test]
fn a_target_may_execute_other_programs() {
    for round in 0..rounds() {
        let fixture = Fixture::start(of_round(round), "exec_churn.py", &[]);
        let observers = Observers::start(&fixture.pid());
        std::thread::sleep(moment(1500));
        observers.stop(&[Ending::Interrupted, Ending::TargetExecuted]);
        drop(fixture);
    }
    for round in 0..rounds() {
        // One that is not Python: it ends as a recording's target, whatever becomes of it.
        let script =
            "import os, time\nprint(flush=True)\ntime.sleep(0.3)\nos.execv('/bin/sleep', ['sleep', '60'])";
        let mut target =
            Command::new(&of_round(round).path).args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(target.stdout.take().unwrap()),
            &mut String::new(),
        )
        .unwrap();
        let observers = Observers::start(&target.id().to_string());
        std::thread::sleep(Duration::from_millis(500));
        observers.stop(&[Ending::Interrupted, Ending::TargetExecuted]);
        target.kill().unwrap();
        target.wait().unwrap();
    }
}

#[test]
fn a_target_may_fork_all_the_time() {
    for round in 0..rounds() {
        let target = Checked::start(of_round(round), &["--fork"]);
        let mut observers = Observers::start(&target.pid());
        observers.wait_until_recording();
        std::thread::sleep(moment(1500));
        target.must_go_on();
        observers.stop(&[Ending::Interrupted, Ending::TargetExited]);
        target.finish();
    }
}

#[test]
fn a_target_may_have_no_memory_left() {
    for round in 0..rounds() {
        let target = Checked::start(of_round(round), &["--hungry", "100"]);
        let mut observers = Observers::start(&target.pid());
        observers.wait_until_recording();
        wait_until("out of memory", || target.told()[3] > 3);
        target.must_go_on();
        observers.stop(&[Ending::Interrupted]);
        target.finish();
    }
}

/// A cgroup with a limit of memory; `None` where none can be made.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("gilspy-chaos-{}", std::process::id());
        let limits = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        limits.into_iter().find_map(|(parent, limit)| {
            let group = MemoryGroup(Path::new(parent).join(&name));
            std::fs::create_dir(&group.0).ok()?;
            // A file of that name is there only where the controller is.
            std::fs::File::options().write(true).open(group.0.join(limit)).ok()?;
            std::fs::write(group.0.join(limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_target_may_be_killed_for_want_of_memory() {
    let Some(group) = MemoryGroup::new(150 << 20) else {
        eprintln!("SKIPPED: no cgroup with a limit of memory can be made here");
        return;
    };
    let enter = format!("echo $$ > '{}/cgroup.procs'; exec \"$@\"", group.0.display());
    for round in 0..rounds() {
        let mut target =
            Checked::start_through(&["sh", "-ec", &enter, "sh"], of_round(round), &["--hungry", "4000"]);
        let observers = Observers::start(&target.pid());
        let status = end_of(&mut target.fixture.child);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGKILL as i32));
        observers.end(&[Ending::TargetExited]);
    }
}

/// Processes that keep all CPUs busy, killed when this is dropped.
struct Busy(Vec<Child>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|child| {
            let _ = child.kill();
            let _ = child.wait();
        });
    }
}

#[test]
fn shares_add_up_on_a_machine_that_is_too_busy() {
    let spinners = Fixture::start(newest(), "two_spinners.py", &["--seconds", "7200"]);
    let busy = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
    let busy = Busy((0..10).map(|_| busy()).collect());
    for _ in 0..rounds() {
        let (report, said) = report_and_summary(&["-d", "2", "-p", &spinners.pid()]);
        let recording = &report["recording"];
        let number = |name: &str| recording[name].as_f64().unwrap();
        if recording["rate_changes"].as_array().unwrap().is_empty() {
            let periods = number("ticks") + number("missed_ticks");
            assert!((1998.0..=2002.0).contains(&periods), "{recording:#}");
        }
        assert!(said.contains("missed"), "{said}");
        for thread in threads(&report) {
            let states = thread["states"].as_object().unwrap();
            let sum: f64 = states.values().map(|share| share.as_f64().unwrap()).sum();
            assert!((0.99..=1.01).contains(&sum) || sum == 0.0, "{thread:#}");
        }
        let held = report["interpreters"][0]["gil"]["held"].as_f64().unwrap();
        let holding: f64 = (threads(&report).iter())
            .map(|thread| {
                thread["states"]["hold"].as_f64().unwrap() + thread["states"]["stall"].as_f64().unwrap()
            })
            .sum();
        assert!(held <= 1.0 && (held - holding).abs() < 0.02, "held {held}, by threads {holding}");
    }
    drop(busy);
}

/// The machine's clock, an hour off until this is dropped.
struct Stepped(i64);

impl Stepped {
    fn by(seconds: i64) -> Option<Self> {
        step(seconds)?;
        Some(Stepped(seconds))
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        step(-self.0);
    }
}

fn step(seconds: i64) -> Option<()> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).ok()?;
    let then = nix::sys::time::TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    clock_settime(ClockId::CLOCK_REALTIME, then).ok()
}

/// By an hour, for some tenths of a second: not on a machine that does anything else.
#[test]
fn a_clock_that_is_stepped_does_no_harm() {
    if std::env::var_os("GILSPY_CHAOS_CLOCK").is_none() {
        eprintln!("SKIPPED: steps the machine's clock; set GILSPY_CHAOS_CLOCK=1 if it may");
        return;
    }
    let target = Checked::start(newest(), &[]);
    for round in 0..rounds() {
        let before = jiff::Timestamp::now();
        let mut recorder = Recorder::start(&["-p", &target.pid()]);
        recorder.wait_until_recording();
        let after = jiff::Timestamp::now();
        let began = std::time::Instant::now();
        let stepped = Stepped::by(if round.is_multiple_of(2) { 3600 } else { -3600 });
        assert!(stepped.is_some(), "the clock cannot be set here");
        std::thread::sleep(Duration::from_millis(300));
        assert!(dump_is_sound(&["-p", &target.pid()]));
        drop(stepped);
        std::thread::sleep(Duration::from_millis(100));
        send(recorder.child.id(), Signal::SIGINT);
        assert!(recorder.end().success(), "{}", recorder.said());
        let recording = &recorder.recordings().unwrap()[0];
        let elapsed = began.elapsed();
        assert!((before..=after).contains(&recording.start), "it started at {}", recording.start);
        assert!(recording.duration < elapsed + Duration::from_secs(2), "{:?}", recording.duration);
        is_whole(recording);
    }
    target.finish();
}
