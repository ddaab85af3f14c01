//! What tests of chaos share: a target that checks its own results, gilspys that look at it meanwhile, and how often all of
//! that is done.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gilspy::recording::{Ending, NotARecording, Recording, Source, read};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{Fixture, Interpreter, gilspy, program};

/// How long anything may take here before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often each thing is tried: `GILSPY_CHAOS_ROUNDS`.
pub fn rounds() -> u32 {
    std::env::var("GILSPY_CHAOS_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap())
}

/// A random time below so many milliseconds.
pub fn moment(below_ms: u64) -> Duration {
    Duration::from_micros(fastrand::u64(0..below_ms * 1000))
}

pub fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// Waits for something that has to come.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for the end of a process, which must not hang.
pub fn end_of(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("pid {} hangs", child.id());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// `checked.py`: a process that checks its own results.
pub struct Checked {
    pub fixture: Fixture,
    tell: PathBuf,
    _directory: TempDir,
}

impl Checked {
    pub fn start(interpreter: &Interpreter, arguments: &[&str]) -> Self {
        Self::start_through(&[], interpreter, arguments)
    }

    /// Starts it through another command.
    pub fn start_through(through: &[&str], interpreter: &Interpreter, arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let tell = directory.path().join("tell");
        let mut words = through.iter().map(PathBuf::from).collect::<Vec<_>>();
        words.push(interpreter.path.clone());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program("checked.py")).arg("--tell").arg(&tell).args(arguments);
        Checked { fixture: Fixture::run(command, "checked.py"), tell, _directory: directory }
    }

    pub fn id(&self) -> u32 {
        self.fixture.child.id()
    }

    pub fn pid(&self) -> String {
        self.fixture.pid()
    }

    /// Rounds that were right, results that were wrong, the longest gap in nanoseconds, how often there was no memory.
    pub fn told(&self) -> [u64; 4] {
        let bytes = std::fs::read(&self.tell).unwrap();
        [0, 8, 16, 24].map(|place| u64::from_ne_bytes(bytes[place..place + 8].try_into().unwrap()))
    }

    /// It goes on: nobody traces it, no thread is stopped, it gets further, and all was right so far.
    pub fn must_go_on(&self) {
        let [before, ..] = self.told();
        wait_until("going on", || self.told()[0] > before + 20);
        for (state, tracer) in self.threads() {
            assert!(!matches!(state, 'T' | 't'), "a thread is in state {state}");
            assert_eq!(tracer, "0", "it is still traced");
        }
        assert_eq!(self.told()[1], 0, "it found wrong results");
    }

    /// Whether all of its threads are stopped.
    pub fn is_stopped(&self) -> bool {
        self.threads().iter().all(|(state, _)| *state == 'T')
    }

    /// State and tracer of each of its threads.
    fn threads(&self) -> Vec<(char, String)> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let status =
            tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok());
        let field = |status: &str, name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        status
            .map(|status| (field(&status, "State:").chars().next().unwrap(), field(&status, "TracerPid:")))
            .collect()
    }

    /// Ends it; it says whether all was right.
    pub fn finish(mut self) {
        let [right, wrong, gap, no_memory] = self.told();
        eprintln!(
            "the target: {right} right, {wrong} wrong, longest gap {} ms, {no_memory} times no memory",
            gap / 1_000_000
        );
        send(self.id(), Signal::SIGTERM);
        assert_eq!(end_of(&mut self.fixture.child).code(), Some(0), "it found wrong results");
    }
}

/// A `gilspy record` that is running.
pub struct Recorder {
    pub child: Child,
    pub path: PathBuf,
    /// Since when it has been recording, if it has.
    began: Arc<Mutex<Option<Instant>>>,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Recorder {
    pub fn start(arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("x.gilspy");
        let output = ["-f", "recording", "-o", path.to_str().unwrap()];
        let mut command = gilspy([&["record"], output.as_slice(), arguments].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (began, said) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(String::new())));
        let (own_began, own_said) = (Arc::clone(&began), Arc::clone(&said));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let reader = std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if line.starts_with("Recording ") {
                    own_began.lock().unwrap().get_or_insert_with(Instant::now);
                }
                own_said.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Recorder { child, path, began, said, reader: Some(reader), _directory: directory }
    }

    /// For how long it has been recording.
    pub fn recording_for(&self) -> Option<Duration> {
        self.began.lock().unwrap().map(|began| began.elapsed())
    }

    pub fn wait_until_recording(&mut self) {
        wait_until("recording", || {
            self.recording_for().is_some() || self.child.try_wait().unwrap().is_some()
        });
        assert!(self.recording_for().is_some(), "{}", self.said());
    }

    /// What it has said.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Its end, which must not be a crash.
    pub fn end(&mut self) -> ExitStatus {
        let status = end_of(&mut self.child);
        self.reader.take().unwrap().join().unwrap();
        assert!(!self.said().contains("panicked"), "{}", self.said());
        status
    }

    /// What it has written.
    pub fn recordings(&self) -> Result<Vec<Recording>, NotARecording> {
        read(&Source::open(&self.path).unwrap())
    }

    /// Its end after it was told to, or because the target has ended: everything is there, or it says why not.
    pub fn ended_well(mut self, endings: &[Ending]) {
        let status = self.end();
        if status.signal().is_some() && self.recording_for().is_none() {
            // The signal came before gilspy was ready for it.
            return;
        }
        if status.code() == Some(1) {
            assert!(is_plain(&self.said()), "{}", self.said());
            return;
        }
        assert!(status.success(), "{status}: {}", self.said());
        for recording in self.recordings().unwrap() {
            assert!(endings.contains(&recording.ending), "{:?}: {}", recording.ending, self.said());
            is_whole(&recording);
        }
    }
}

/// Each period of a recording has its tick, or is counted as missed; and no figure contradicts another.
pub fn is_whole(recording: &Recording) {
    let length = recording.length().as_secs_f64();
    let periods = recording.weight + recording.missed_ticks;
    assert!(recording.since <= recording.duration, "it ends before it begins");
    if recording.since.is_zero()
        && recording.rate_changes.is_empty()
        && recording.ending == Ending::Interrupted
    {
        let expected = length * f64::from(recording.rate_hz);
        assert!((periods as f64 - expected).abs() <= 2.0, "{periods} of {expected} periods");
    }
    let mut last = None;
    for stretch in recording.stretches() {
        let stretch = stretch.unwrap();
        for tick in &stretch.ticks {
            assert!(last <= Some(tick.at), "time goes back");
            last = Some(tick.at);
        }
    }
    assert!(last.is_none_or(|last| last.as_secs_f64() <= recording.duration.as_secs_f64() + 1e-6));
}

/// What gilspy may say where a process ends, executes or is not there yet.
pub fn is_plain(said: &str) -> bool {
    let known = [
        "ended while gilspy was",
        "has ended",
        "no process has pid",
        "started another program",
        "cannot be looked at any more",
        "cannot be read any more",
        "no CPython interpreter was seen",
        "is not a CPython process",
    ];
    let error = said.lines().find(|line| line.starts_with("gilspy: ")).unwrap_or_default();
    known.iter().any(|known| error.contains(known))
}

/// gilspys that look at a process in each way that does not pause it: `record`, `record -s`, and `dump` again and again.
pub struct Observers {
    recorders: Vec<Recorder>,
    is_over: Arc<AtomicBool>,
    dumper: JoinHandle<u32>,
}

impl Observers {
    /// Waits until they look, unless the process has ended by then.
    pub fn start(pid: &str) -> Self {
        let recorders = vec![Recorder::start(&["-p", pid]), Recorder::start(&["-s", "-p", pid])];
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, pid) = (Arc::clone(&is_over), pid.to_owned());
        let dumper = std::thread::spawn(move || {
            let mut dumps = 0;
            while !over.load(Ordering::Relaxed) {
                dumps += u32::from(dump_is_sound(&["-p", &pid]));
            }
            dumps
        });
        Observers { recorders, is_over, dumper }
    }

    pub fn wait_until_recording(&mut self) {
        self.recorders.iter_mut().for_each(Recorder::wait_until_recording);
    }

    /// Tells them to stop; answers how many dumps were made.
    pub fn stop(self, endings: &[Ending]) -> u32 {
        for recorder in &self.recorders {
            let _ = kill(Pid::from_raw(recorder.child.id() as i32), Signal::SIGINT);
        }
        self.end(endings)
    }

    /// Waits for their end.
    pub fn end(self, endings: &[Ending]) -> u32 {
        self.is_over.store(true, Ordering::Relaxed);
        self.recorders.into_iter().for_each(|recorder| recorder.ended_well(endings));
        self.dumper.join().unwrap()
    }
}

/// Whether `dump` showed something; it may say why it does not, but do nothing else.
pub fn dump_is_sound(arguments: &[&str]) -> bool {
    let mut child = gilspy([&["dump"], arguments].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let shown = std::thread::spawn(move || std::io::read_to_string(&mut stdout).unwrap());
    let mut stderr = child.stderr.take().unwrap();
    let said = std::thread::spawn(move || std::io::read_to_string(&mut stderr).unwrap());
    let status = end_of(&mut child);
    let (shown, said) = (shown.join().unwrap(), said.join().unwrap());
    match status.code() {
        Some(0) => assert!(shown.starts_with("pid "), "{shown}"),
        Some(1) => assert!(shown.is_empty() && is_plain(&said), "{said}"),
        _ => panic!("{status} (signal {:?}): {said}", status.signal()),
    }
    status.success()
}
