//! No stack that never was: programs whose threads, functions, frames, generators or whole selves come and
//! go all the time, and which say what alone may be seen in them.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashSet;
use std::fmt::{Display, Formatter, Write};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::*;
use tempfile::TempDir;

/// How many samples of each program there are on the newest interpreter of each series in [`SERIES`].
/// `GILSPY_CHURN_SAMPLES` asks for more: 100,000 take about a minute a program and an hour for all.
const SAMPLES: u64 = 20_000;

/// How many there are on every other interpreter.
const SAMPLES_OF_OTHERS: u64 = 5_000;

/// How many recordings there are of a process that calls exec(2), on the same interpreters and on the others.
/// Each is over soon: it is its end that matters, not how much there was before.
const RECORDINGS: u32 = 18;
const RECORDINGS_OF_OTHERS: u32 = 6;

/// How many samples such a recording has to bring, taken together.
const SAMPLES_A_RECORDING: u64 = 50;

/// The minor versions that keep frames, code objects or the GIL each in a way of their own.
const SERIES: [u32; 6] = [9, 11, 12, 13, 14, 15];

/// About what one recording reaches at best here; the ticks that come too late are missed.
const RATE: &str = "10000";

/// How many recordings of one process are made at the same time. One sleeps most of its time; several also
/// get in each other's and the target's way at more different moments.
const RECORDERS: u32 = 6;

/// How much later than the one before each of them starts.
const STAGGER: Duration = Duration::from_millis(40);

/// How long samples may take to come in on one interpreter.
const PATIENCE: Duration = Duration::from_secs(180);

/// How many impossible stacks are shown for one interpreter, each of another kind.
const EXAMPLES: usize = 6;

/// A frame of a folded stack, `function (file:line)`.
#[derive(Debug, Clone, Copy)]
struct Frame<'a> {
    /// Its function's name without what qualifies it.
    name: &'a str,
    /// Its function's name, qualified from 3.11 on.
    function: &'a str,
    file: &'a str,
    line: Option<u64>,
}

impl<'a> Frame<'a> {
    fn parse(text: &'a str) -> Self {
        let (function, place) = text.rsplit_once(" (").unwrap_or((text, ""));
        let place = place.trim_end_matches(')');
        let with_line = place.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse().ok()?)));
        let (file, line) = with_line.map_or((place, None), |(file, line)| (file, Some(line)));
        let name = function.rsplit_once('.').map_or(function, |(_, name)| name);
        Frame { name, function, file, line }
    }

    /// Whether gilspy says that it does not know what was there.
    fn is_unknown(&self) -> bool {
        matches!(self.function, "<unknown>" | "<stack unknown>")
    }
}

/// A folded stack of one thread, outermost call first.
struct Stack<'a> {
    text: &'a [String],
    /// The thread's name: Python's, or the kernel's where gilspy has not seen Python's.
    thread: &'a str,
    /// The kernel's id of the thread.
    tid: Option<i64>,
    frames: Vec<Frame<'a>>,
}

impl<'a> Stack<'a> {
    fn parse(text: &'a [String]) -> Self {
        let title = text[0].as_str();
        let (thread, tid) = title.rsplit_once(" (").unwrap_or((title, ""));
        let tid = tid.trim_end_matches(')').parse().ok();
        // A thread that runs no Python yet, or no more, has no frames.
        let frames = text[1..].iter().filter(|frame| *frame != "<no Python call>");
        Stack { text, thread, tid, frames: frames.map(|frame| Frame::parse(frame)).collect() }
    }

    /// Whether all of it was read.
    fn is_named(&self) -> bool {
        !self.frames.iter().any(Frame::is_unknown)
    }

    /// Each call with its caller, where both are known; the outermost frame has none.
    fn calls(&self) -> impl Iterator<Item = (Option<Frame<'a>>, Frame<'a>)> {
        let callers = std::iter::once(None).chain(self.frames.iter().copied().map(Some));
        let is_known = |(caller, callee): &(Option<Frame<'_>>, Frame<'_>)| {
            !callee.is_unknown() && !caller.is_some_and(|caller| caller.is_unknown())
        };
        callers.zip(self.frames.iter().copied()).filter(is_known)
    }
}

/// What came of the samples of one interpreter.
struct Tally {
    version: &'static str,
    due: u64,
    samples: u64,
    named: u64,
    impossible: u64,
    /// A few of the impossible stacks, what is wrong with them first.
    examples: Vec<String>,
}

impl Tally {
    fn new(interpreter: &'static Interpreter, due: u64) -> Self {
        let version = &interpreter.version;
        Tally { version, due, samples: 0, named: 0, impossible: 0, examples: Vec::new() }
    }

    fn add(&mut self, stack: &Stack<'_>, ticks: u64, verdict: Result<(), String>) {
        self.samples += ticks;
        self.named += if stack.is_named() { ticks } else { 0 };
        if let Err(reason) = verdict {
            self.impossible += ticks;
            if self.examples.len() < EXAMPLES && !self.examples.iter().any(|other| other.starts_with(&reason))
            {
                self.examples.push(format!("{reason}: {ticks} times {}", stack.text.join(";")));
            }
        }
    }
}

impl Display for Tally {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        let Tally { version, samples, named, impossible, .. } = self;
        write!(formatter, "{version}: {samples} samples, {named} named, {impossible} impossible")
    }
}

/// What is due of one interpreter.
struct Due {
    interpreter: &'static Interpreter,
    samples: u64,
    /// How long one recording takes.
    seconds: &'static str,
    /// How often a process that calls exec(2) is recorded.
    recordings: u32,
}

/// All samples of the newest interpreter of each of the [`SERIES`], fewer of the others.
fn due() -> impl Iterator<Item = Due> {
    interpreters().map(|interpreter| {
        let newest = interpreters()
            .filter(|other| other.minor == interpreter.minor)
            .max_by_key(|other| (patch(other), std::cmp::Reverse(&other.path)));
        if SERIES.contains(&interpreter.minor) && newest == Some(interpreter) {
            Due { interpreter, samples: samples(), seconds: "2", recordings: RECORDINGS }
        } else {
            Due { interpreter, samples: SAMPLES_OF_OTHERS, seconds: "0.5", recordings: RECORDINGS_OF_OTHERS }
        }
    })
}

fn patch(interpreter: &Interpreter) -> u32 {
    interpreter.version.rsplit_once('.').and_then(|(_, patch)| patch.parse().ok()).unwrap_or(0)
}

/// A few recordings of one process at the same time. They start one after the other, so that they meet
/// different moments of what the process does at its own pace.
fn at_the_same_time<T: Send>(record: impl Fn() -> T + Sync) -> Vec<T> {
    let record = |recorder| {
        std::thread::sleep(STAGGER * recorder);
        record()
    };
    std::thread::scope(|scope| {
        let recorders: Vec<_> =
            (0..RECORDERS).map(|recorder| scope.spawn(move || record(recorder))).collect();
        recorders.into_iter().map(|recorder| recorder.join().unwrap()).collect()
    })
}

fn samples() -> u64 {
    let asked_for = std::env::var("GILSPY_CHURN_SAMPLES").ok();
    asked_for.map_or(SAMPLES, |samples| samples.parse().expect("GILSPY_CHURN_SAMPLES is a number"))
}

/// Whether a stack is possible, or why not.
type Check = fn(&Fixture, &Stack<'_>) -> Result<(), String>;

/// Records a program until all samples are in, and holds each stack against what the program says.
fn watch(program: &str, check: Check) -> Vec<Tally> {
    let _alone = alone();
    due().map(|due| watch_one(program, check, &due)).collect()
}

fn watch_one(program: &str, check: Check, due: &Due) -> Tally {
    let (mut tally, start) = (Tally::new(due.interpreter, due.samples), Instant::now());
    let fixture = Fixture::start(due.interpreter, program, &["--seconds", "600"]);
    let pid = fixture.pid();
    while tally.samples < tally.due && start.elapsed() < PATIENCE {
        let recordings = at_the_same_time(|| folded(&["-r", RATE, "-d", due.seconds, "-p", &pid]));
        for (text, ticks) in recordings.iter().flatten() {
            let stack = Stack::parse(text);
            tally.add(&stack, *ticks, check(&fixture, &stack));
        }
    }
    eprintln!("{program} on {tally} in {:.1} s", start.elapsed().as_secs_f64());
    tally
}

/// How many impossible stacks are tolerated where what is read comes and goes as fast as it is read.
#[derive(Clone, Copy)]
enum Tolerated {
    None,
    OneIn(u64),
}

/// No stack may be impossible; all samples have to be there, and one in so many has to be named, or that
/// would say little.
fn judge(tallies: &[Tally], one_named_in: u64, tolerated: Tolerated) {
    let mut wrong = String::new();
    for tally in tallies {
        let most = match tolerated {
            Tolerated::None => 0,
            Tolerated::OneIn(samples) => tally.samples.div_ceil(samples),
        };
        if tally.impossible > most {
            writeln!(wrong, "{tally}, such as\n  {}", tally.examples.join("\n  ")).unwrap();
        }
        if tally.samples < tally.due {
            writeln!(wrong, "{tally}: {} were due", tally.due).unwrap();
        }
        if tally.named * one_named_in < tally.samples {
            writeln!(wrong, "{tally}: fewer than one in {one_named_in} are named").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Whether the thread is one of those that stay, as the ready line lists them.
fn stays(fixture: &Fixture, stack: &Stack<'_>) -> bool {
    let threads = fixture.ready["threads"].as_object().unwrap();
    threads.iter().any(|(name, tid)| {
        let comes_and_goes = ["churn-", "brief_"].iter().any(|start| name.starts_with(start));
        // 3.7 does not tell the ids.
        let is_it = tid.as_i64().map_or(stack.thread == name, |tid| stack.tid == Some(tid));
        !comes_and_goes && is_it
    })
}

/// Every stack starts where its thread starts: one that does not has lost its outer calls. A thread that is
/// just starting or ending has no frames, or only those of a callback of what is freed with it.
fn starts_at_its_thread(fixture: &Fixture, stack: &Stack<'_>) -> Result<(), String> {
    let Some(first) = stack.frames.first() else {
        return if stays(fixture, stack) { Err("there are no frames".to_owned()) } else { Ok(()) };
    };
    let is_start = first.is_unknown() || ["_bootstrap", "<module>"].contains(&first.name);
    let is_callback = first.name == "_remove" && is_of_threading(first) && !stays(fixture, stack);
    if is_start || is_callback { Ok(()) } else { Err(format!("{} starts no thread", first.name)) }
}

/// Each function of the ready line's `callers` is called only by these, and at the line in `called_at`.
fn has_only_known_callers(fixture: &Fixture, stack: &Stack<'_>) -> Result<(), String> {
    for (caller, callee) in stack.calls() {
        let Some(allowed) = fixture.ready["callers"][callee.name].as_array() else { continue };
        let Some(caller) = caller.filter(|caller| allowed.iter().any(|name| name == caller.name)) else {
            let caller = caller.map_or("nothing", |caller| caller.name);
            return Err(format!("{} is not called by {caller}", callee.name));
        };
        let line = fixture.ready["called_at"][callee.name][caller.name].as_u64();
        if let (Some(expected), Some(line)) = (line, caller.line)
            && line != expected
        {
            return Err(format!("{} is not called at line {line} of {}", callee.name, caller.name));
        }
    }
    Ok(())
}

/// Each function of the ready line's `threads_of` is on the stacks of these threads only.
fn is_on_its_thread(fixture: &Fixture, stack: &Stack<'_>) -> Result<(), String> {
    for frame in &stack.frames {
        let thread = fixture.ready["threads_of"][frame.name].as_str();
        if thread.is_some_and(|thread| !stack.thread.starts_with(thread)) {
            return Err(format!("{} is not called in {}", frame.name, stack.thread));
        }
    }
    Ok(())
}

fn is_possible(fixture: &Fixture, stack: &Stack<'_>) -> Result<(), String> {
    starts_at_its_thread(fixture, stack)?;
    has_only_known_callers(fixture, stack)?;
    is_on_its_thread(fixture, stack)
}

/// A stack of `call_pairs.py`, which also says how often deep may be there.
fn is_no_deeper(fixture: &Fixture, stack: &Stack<'_>) -> Result<(), String> {
    let deep = stack.frames.iter().filter(|frame| frame.name == "deep").count() as u64;
    if Some(deep) > fixture.ready["deepest"].as_u64() {
        return Err(format!("deep is {deep} times there"));
    }
    is_possible(fixture, stack)
}

#[test]
fn fast_calls_in_pairs_are_not_mixed() {
    judge(&watch("call_pairs.py", is_no_deeper), 2, Tolerated::None);
}

#[test]
fn deep_and_shallow_stacks_are_not_mixed() {
    judge(&watch("deep_shallow.py", is_possible), 2, Tolerated::None);
}

// A generator lies elsewhere than its caller and is read at another moment. Where the two go back and forth in
// a microsecond, chance can make three readings agree: not seen in 200,000 samples.
#[test]
fn generators_and_coroutines_are_not_mixed() {
    judge(&watch("generator_churn.py", is_possible), 10, Tolerated::OneIn(10_000));
}

/// A thread of `thread_churn.py`. What the kernel calls one whose Python name was not seen is no matter: from
/// 3.14 on that is the name of the thread that started it.
fn is_of_its_thread(fixture: &Fixture, stack: &Stack<'_>) -> Result<(), String> {
    starts_at_its_thread(fixture, stack)?;
    let stays = stays(fixture, stack);
    for (caller, frame) in stack.calls() {
        let is_possible = match (frame.name, caller.map(|caller| caller.name)) {
            ("live", Some("run")) => !stays,
            ("breed", Some("run")) => stays && stack.thread == "breeder",
            ("<module>", None) | ("main", Some("<module>")) => stays && stack.thread == "MainThread",
            _ => is_of_threading(&frame),
        };
        if !is_possible {
            return Err(format!("{} is not called in {}", frame.function, stack.thread));
        }
    }
    Ok(())
}

/// Whether a frame belongs to the machinery of threads and what it cleans up.
fn is_of_threading(frame: &Frame<'_>) -> bool {
    ["threading.py", "weakrefset.py"].iter().any(|file| frame.file.ends_with(file))
}

#[test]
fn threads_that_come_and_go_are_not_mixed() {
    judge(&watch("thread_churn.py", is_of_its_thread), 2, Tolerated::None);
}

/// What the name of a made function says, such as `even_17_140`.
struct Made<'a> {
    kind: &'a str,
    number: &'a str,
    first_line: u64,
}

impl<'a> Made<'a> {
    fn parse(frame: &Frame<'a>) -> Option<Self> {
        let [kind, number, first_line] = frame.name.split('_').collect::<Vec<_>>().try_into().ok()?;
        let first_line = first_line.parse().ok()?;
        (number.len() == 2).then_some(Made { kind, number, first_line })
    }
}

/// A frame of `code_churn.py`: whether name, file, line, caller and thread of a made function, or of the
/// lambda in it, belong together.
fn is_as_it_was_made(fixture: &Fixture, stack: &Stack<'_>) -> Result<(), String> {
    is_possible(fixture, stack)?;
    let mut rule = &Value::Null;
    for (caller, frame) in stack.calls() {
        let caller_made = caller.and_then(|caller| Made::parse(&caller));
        let is_possible = match (Made::parse(&frame), caller_made, caller) {
            (Some(made), None, Some(caller)) => {
                rule = &fixture.ready["made"][caller.name];
                is_made_so(rule, &made, &frame) && is_made_in(rule, &frame, stack)
            }
            (None, Some(made), Some(caller)) => is_its_lambda(rule, &made, &caller, &frame),
            (None, None, caller) => is_of_the_makers(&frame, caller),
            _ => false,
        };
        if !is_possible {
            let caller = caller.map_or("nothing", |caller| caller.function);
            return Err(format!(
                "{} at {:?} of {} is not called by {caller}",
                frame.function, frame.line, frame.file
            ));
        }
    }
    Ok(())
}

/// Whether a frame is of the program itself, or of the module that is executed to make a function.
fn is_of_the_makers(frame: &Frame<'_>, caller: Option<Frame<'_>>) -> bool {
    match frame.name {
        "<module>" => {
            caller.is_none_or(|caller| caller.name == "make_quick" && frame.file.starts_with("<quick_"))
        }
        name => name != "<lambda>" && !frame.file.starts_with('<'),
    }
}

/// Whether name, file and line of a made function belong together, and to its caller.
fn is_made_so(rule: &Value, made: &Made<'_>, frame: &Frame<'_>) -> bool {
    let offsets = rule["lines"].as_array().into_iter().flatten().filter_map(Value::as_u64);
    let lines: HashSet<u64> = offsets.map(|offset| made.first_line + offset).collect();
    rule["function"].as_str().is_some_and(|start| frame.function.starts_with(start))
        && frame.file == format!("<{}_{}>", made.kind, made.number)
        && frame.line.is_none_or(|line| lines.contains(&line))
}

/// Whether a made function is in its thread. That of brief_… is named like it, once its name was seen.
fn is_made_in(rule: &Value, frame: &Frame<'_>, stack: &Stack<'_>) -> bool {
    match rule["thread"].as_str() {
        Some(thread) => stack.thread == thread,
        None => !stack.thread.starts_with("brief_") || stack.thread == frame.name,
    }
}

/// Whether this is the one function that a made function calls: its lambda, on its second line.
fn is_its_lambda(rule: &Value, made: &Made<'_>, caller: &Frame<'_>, frame: &Frame<'_>) -> bool {
    let expected = rule["lines"][1].as_u64().map(|offset| made.first_line + offset);
    let qualified = format!("{}.<locals>.<lambda>", caller.function);
    (frame.function == "<lambda>" || frame.function == qualified)
        && frame.file == caller.file
        && (expected.is_none() || frame.line.is_none() || frame.line == expected)
}

// Two functions that take turns at one address every 10 us: seen once in 740,000 samples.
#[test]
fn functions_that_are_made_and_dropped_are_not_mixed() {
    judge(&watch("code_churn.py", is_as_it_was_made), 10, Tolerated::OneIn(100_000));
}

/// Records until the process calls exec(2). `None` where it does so while gilspy attaches, or is not yet an
/// interpreter again: that may be refused, if in plain words.
fn record_until_exec(pid: &str) -> Option<Vec<(Vec<String>, u64)>> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("folded");
    // Long enough for more than one exec(2), if the first should go unnoticed.
    let arguments = ["record", "-f", "raw", "-o", path.to_str().unwrap(), "-r", RATE, "-d", "1", "-p", pid];
    let output = gilspy(arguments).output().unwrap();
    if output.status.success() {
        return Some(unfold(&std::fs::read_to_string(path).unwrap()));
    }
    assert!(output.status.code() == Some(1) && stderr(&output).starts_with("gilspy: "), "{output:?}");
    None
}

/// Adds a recording, which is of one program: a stack of another is impossible, as is one of both. Which of
/// the programs came first it does not tell, so those of either are the impossible ones.
fn add_program(tally: &mut Tally, fixture: &Fixture, recording: &[(Vec<String>, u64)]) {
    let mut recorded = None;
    for (text, ticks) in recording {
        let stack = Stack::parse(text);
        let mut programs = stack.frames.iter().filter_map(program_of);
        let other = programs.find(|program| recorded.get_or_insert(*program) != program);
        let verdict = match other {
            Some(other) => Err(format!("{other} is not the only program there")),
            None => has_only_known_callers(fixture, &stack),
        };
        tally.add(&stack, *ticks, verdict);
    }
}

/// Which of the two programs of `exec_churn.py` a frame is of, if one can tell.
fn program_of(frame: &Frame<'_>) -> Option<&'static str> {
    ["first_", "second_"].into_iter().find(|start| frame.name.starts_with(start))
}

/// Records a process that calls exec(2) all the time, each time until it does.
fn watch_execs(arguments: &[&str]) -> Vec<Tally> {
    let _alone = alone();
    due().map(|due| watch_execs_of_one(arguments, &due)).collect()
}

fn watch_execs_of_one(arguments: &[&str], due: &Due) -> Tally {
    let samples = u64::from(due.recordings) * SAMPLES_A_RECORDING;
    let (mut tally, start) = (Tally::new(due.interpreter, samples), Instant::now());
    let fixture =
        Fixture::start(due.interpreter, "exec_churn.py", &[arguments, &["--seconds", "600"]].concat());
    let pid = fixture.pid();
    let (mut recorded, mut refused) = (0, 0);
    while (recorded < due.recordings || tally.samples < samples) && start.elapsed() < PATIENCE {
        for recording in at_the_same_time(|| record_until_exec(&pid)) {
            match recording {
                Some(recording) => {
                    add_program(&mut tally, &fixture, &recording);
                    recorded += 1;
                }
                None => refused += 1,
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("exec_churn.py on {tally}, {recorded} recordings, {refused} refused, in {seconds:.1} s");
    tally
}

#[test]
fn programs_that_follow_one_another_are_not_mixed() {
    judge(&watch_execs(&[]), 2, Tolerated::None);
}

#[test]
fn programs_that_follow_one_another_at_the_same_addresses_are_not_mixed() {
    judge(&watch_execs(&["--same-addresses"]), 2, Tolerated::None);
}
