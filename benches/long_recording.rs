//! What a long recording costs: its size, and size, time and memory of drawing it.
//!
//!     cargo bench --bench long_recording              # an hour of 20 threads
//!     cargo bench --bench long_recording -- 600 200   # so many seconds, of so many threads
//!
//! The recording is made up: 20 threads that take turns with the GIL at 1000 Hz and compute, each in one of 50 stacks;
//! all further ones sleep, and wake once a second.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::io::BufWriter;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gilspy::recording::{
    Appender, Counted, Ending, Frame, Holder, NewProcess, Recorder, Session, StackIndex, StackTable, Syscall,
    Target, TaskTimes, Thread, ThreadIndex, ThreadState,
};
use gilspy::sample::{GilSample, ThreadSample};
use gilspy::units::{NamespaceTid, Pid, Tid, Timestamp};
use nix::sys::resource::{UsageWho, getrusage};
use tempfile::TempDir;

const BUSY: u32 = 20;
const STACKS: usize = 50;
const DEPTH: u32 = 20;
const RATE_HZ: u32 = 1000;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let (seconds, threads) =
        (numbers.next().unwrap_or(3600), numbers.next().unwrap_or(u64::from(BUSY)) as u32);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("long.gilspy");
    let began = Instant::now();
    make(&path, seconds, threads);
    let size = std::fs::metadata(&path).unwrap().len() as f64 / 1e6;
    println!(
        "made in {:.1} s: {seconds} s of {threads} threads take {size:.1} MB",
        began.elapsed().as_secs_f64()
    );
    println!("\n| `gilspy render -f` | MB | seconds | largest memory so far, MB |\n|---|---:|---:|---:|");
    for format in ["json", "flamegraph", "timeline", "pprof", "chrometrace", "speedscope", "gecko"] {
        let (began, picture) = (Instant::now(), directory.path().join(format));
        let status = Command::new(env!("CARGO_BIN_EXE_gilspy"))
            .arg("render")
            .arg(&path)
            .args(["-f", format, "-o"])
            .arg(&picture)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let memory = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() / 1024;
        let size = std::fs::metadata(&picture).unwrap().len() as f64 / 1e6;
        println!("| {format} | {size:.2} | {:.1} | {memory} |", began.elapsed().as_secs_f64());
    }
}

fn make(path: &std::path::Path, seconds: u64, threads: u32) {
    let mut random = fastrand::Rng::with_seed(20);
    let session = Session {
        host: "here".into(),
        start: jiff::Timestamp::from_second(1_795_183_331).unwrap(),
        rate_hz: RATE_HZ,
        sees_all_threads: true,
    };
    let target = Target {
        pid: Pid::new(4242),
        namespace_pid: None,
        python: "3.12.7".into(),
        free_threaded: false,
        command: vec!["python3".into(), "app.py".into()],
        host: "here".into(),
    };
    let mut file = Appender::new(BufWriter::new(File::create(path).unwrap()), &session).unwrap();
    let process = NewProcess { target, cpus: 8, parent: None, since: Timestamp::START };
    file.add_process(&process).unwrap();
    let mut table = StackTable::default();
    let stacks: Vec<StackIndex> = (0..STACKS).map(|number| table.intern(frames(number as u32))).collect();
    let mut recorder = Recorder::new(RATE_HZ);
    recorder.set_interpreters(0, [0].into_iter());
    (0..threads).for_each(|number| recorder.set_thread(ThreadIndex(number), thread(number)));
    let mut last: Vec<StackIndex> = (0..threads).map(|_| stacks[random.usize(0..STACKS)]).collect();
    let (mut holder, mut left, mut handovers) = (0_u32, 5, 0);
    for tick in 0..seconds * u64::from(RATE_HZ) {
        let at = Timestamp::from_nanos_since_start(tick * 1_000_000 + random.u64(0..1_000_000));
        left -= 1;
        if left == 0 {
            (holder, left, handovers) = (random.u32(0..BUSY.min(threads)), random.u32(3..8), handovers + 1);
        }
        last[holder as usize] = stacks[random.usize(0..STACKS)];
        let gil = GilSample {
            holder: Holder::Thread { thread: ThreadIndex(holder), stack: last[holder as usize] },
            switch_number: Some(handovers),
            switch_interval: Some(Duration::from_millis(5)),
        };
        let samples: Vec<ThreadSample> = (0..threads)
            .map(|thread| {
                let state = match thread {
                    thread if thread == holder => ThreadState::Hold,
                    thread if thread < BUSY => ThreadState::Wait { gil: 0 },
                    thread if (tick + u64::from(thread) * 7) % 1000 == 0 => ThreadState::Wait { gil: 0 },
                    _ => ThreadState::Blocked(Syscall::from_number(230)),
                };
                let cpu =
                    Duration::from_nanos(if thread == holder { random.u64(900_000..1_100_000) } else { 0 });
                let times = TaskTimes { cpu, run_queue: Duration::ZERO };
                ThreadSample { thread: ThreadIndex(thread), state, stack: last[thread as usize], times }
            })
            .collect();
        recorder.add(at, 1, &[gil], &samples);
        if tick % u64::from(RATE_HZ) == u64::from(RATE_HZ) - 1 {
            recorder.confirm(at, &[]);
            let counted = Counted { own_cpu: Duration::from_millis(30), ..Counted::default() };
            file.append(0, &recorder.take(&table, at, counted)).unwrap();
        }
    }
    file.close(0, Ending::Finished, Duration::from_secs(seconds)).unwrap();
}

fn frames(number: u32) -> impl Iterator<Item = Frame> {
    let frame = move |depth: u32| Frame {
        function: format!("function_{depth}").into(),
        file: format!("/srv/app/package/module_{}.py", depth % 7).into(),
        line: Some(if depth == 0 { number + 1 } else { depth * 10 + number % depth.max(1) }),
    };
    (0..DEPTH).map(frame)
}

fn thread(number: u32) -> Thread {
    Thread {
        interpreter: 0,
        interpreters: vec![0],
        tid: Some(Tid::new(5000 + number as i32)),
        namespace_tid: Some(NamespaceTid::new(5000 + number as i32)),
        name: Some(format!("worker-{number}")),
        first_seen: Timestamp::START,
        last_seen: Timestamp::START,
        times: TaskTimes::default(),
    }
}
