//! The rows of the report's tables.

use crate::analysis::{Analysed, GilAnalysis, LongHold, States, TopHolder, threads_of};
use crate::recording::{Frame, Recording, ThreadIndex};
use crate::render::heading::seconds;
use crate::sample::UNKNOWN_NAME;
use crate::text::{shorten, visible};

/// Rows of a table at most.
const MOST_HOLDS: usize = 100;
const MOST_CODE: usize = 20;
const MOST_THREADS: usize = 1000;

/// Calls of a stack at most, the innermost.
const MOST_CALLS: usize = 100;

/// The longest name or path, in characters.
const LONGEST: usize = 160;

/// Something to read, and something to sort by.
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) key: f64,
}

impl Cell {
    fn time(time: f64) -> Self {
        Cell { text: if time > 0.0 { seconds(time) } else { "–".to_owned() }, key: time }
    }

    fn share(share: f64) -> Self {
        let text = if share > 0.0 { format!("{:.1} %", share * 100.0) } else { "–".to_owned() };
        Cell { text, key: share }
    }

    fn number(number: impl Into<f64>) -> Self {
        let key = number.into();
        Cell { text: format!("{key:.0}"), key }
    }
}

/// A call: what it is called, and where it is.
pub(super) struct Call {
    pub(super) function: String,
    pub(super) place: String,
}

impl Call {
    fn of(frame: &Frame) -> Self {
        if &*frame.file == UNKNOWN_NAME {
            return Call { function: safe(&frame.function), place: String::new() };
        }
        let line = frame.line.map_or_else(String::new, |line| format!(":{line}"));
        Call { function: safe(&frame.function), place: safe(&frame.file) + &line }
    }

    fn unknown() -> Self {
        Call { function: "<stack unknown>".to_owned(), place: String::new() }
    }
}

/// A long hold.
pub(super) struct HoldRow {
    pub(super) start: Cell,
    pub(super) duration: Cell,
    pub(super) thread: String,
    pub(super) state: &'static str,
    pub(super) waiters: Cell,
    pub(super) inflicted: Cell,
    pub(super) innermost: Call,
    pub(super) stack: Vec<Call>,
    /// How many more calls the stack has.
    pub(super) more: usize,
}

impl HoldRow {
    /// The longest in order of time, and how many there are besides; `None` where it is not known who waits.
    pub(super) fn all(process: &Analysed<'_>) -> (Option<Vec<HoldRow>>, usize) {
        let Analysed { recording, analysis } = process;
        if !process.knows_waiting() {
            return (None, 0);
        }
        let waiting = analysis.gils.iter().filter_map(|gil| gil.waiting.as_ref());
        let mut holds: Vec<&LongHold> = waiting.flat_map(|waiting| &waiting.long_holds).collect();
        let left_out = holds.len().saturating_sub(MOST_HOLDS);
        holds.sort_by(|a, b| b.duration_s.total_cmp(&a.duration_s));
        holds.truncate(MOST_HOLDS);
        holds.sort_by_key(|hold| hold.start);
        (Some(holds.into_iter().map(|hold| HoldRow::of(recording, hold)).collect()), left_out)
    }

    fn of(recording: &Recording, hold: &LongHold) -> Self {
        let frames: Vec<&Frame> = recording.stacks.frames(hold.stack).into_iter().flatten().collect();
        let start_s = hold.start.as_secs_f64();
        HoldRow {
            start: Cell { text: format!("{start_s:.3} s"), key: start_s },
            duration: Cell::time(hold.duration_s),
            thread: thread(recording, hold.thread),
            state: if hold.stalled >= 0.5 { "stall" } else { "hold" },
            waiters: Cell::number(hold.waiters_max),
            inflicted: Cell::time(hold.inflicted_s),
            innermost: frames.first().map_or_else(Call::unknown, |frame| Call::of(frame)),
            stack: frames.iter().take(MOST_CALLS).map(|frame| Call::of(frame)).collect(),
            more: frames.len().saturating_sub(MOST_CALLS),
        }
    }
}

/// A line of code that held the GIL.
pub(super) struct CodeRow {
    pub(super) call: Call,
    pub(super) syscall: Option<String>,
    pub(super) held: Cell,
    pub(super) inflicted: Cell,
    /// Of the most that any inflicted, or held the GIL, in percent: the length of a bar.
    pub(super) bar: String,
}

impl CodeRow {
    /// Those first that made others wait most, or, where that is not known, that held the GIL most; and how many there
    /// are besides.
    pub(super) fn all(process: &Analysed<'_>) -> (Vec<CodeRow>, usize) {
        let inflicted = |top: &TopHolder| top.blame.map_or(0.0, |blame| blame.inflicted.total_s());
        let mut tops: Vec<&TopHolder> =
            process.analysis.gils.iter().flat_map(|gil| &gil.top_holders).collect();
        tops.sort_by(|a, b| inflicted(b).total_cmp(&inflicted(a)).then(b.held.total_cmp(&a.held)));
        let left_out = tops.len().saturating_sub(MOST_CODE);
        tops.truncate(MOST_CODE);
        let weight = |top: &TopHolder| match process.knows_waiting() {
            true => inflicted(top),
            false => top.held,
        };
        let most = tops.first().map_or(0.0, |top| weight(top)).max(f64::MIN_POSITIVE);
        let row = |top: &&TopHolder| CodeRow {
            call: top.frame.as_ref().map_or_else(Call::unknown, Call::of),
            syscall: top.blame.and_then(|blame| blame.syscall).map(|syscall| syscall.name().into_owned()),
            held: Cell::share(top.held),
            inflicted: Cell::time(inflicted(top)),
            bar: format!("{:.1}", weight(top) * 100.0 / most),
        };
        (tops.iter().map(row).collect(), left_out)
    }
}

/// The threads, with what they did.
pub(super) struct ThreadTable {
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<ThreadRow>,
    pub(super) left_out: usize,
}

/// A thread.
pub(super) struct ThreadRow {
    pub(super) name: String,
    pub(super) tid: Cell,
    /// The parts of a bar: state and percent.
    pub(super) bar: Vec<(&'static str, String)>,
    pub(super) cells: Vec<Cell>,
    pub(super) waits_for: String,
}

/// A state: its name, and how much of it there is.
type State = (&'static str, fn(&States) -> f64);

const STATES: [State; 7] = [
    ("hold", |states| states.hold),
    ("stall", |states| states.stall),
    ("wait", |states| states.wait),
    ("native", |states| states.native),
    ("parallel", |states| states.parallel),
    ("blocked", |states| states.blocked),
    ("unknown", |states| states.unknown),
];

impl ThreadTable {
    /// Those first that made others wait most.
    pub(super) fn of(process: &Analysed<'_>) -> Self {
        let Analysed { recording, analysis } = process;
        let shown: Vec<State> = STATES
            .into_iter()
            .filter(|(name, share)| {
                let any = |states: &States| share(states) > 0.0;
                let is_usual = !matches!(*name, "parallel" | "unknown");
                is_usual || analysis.threads.iter().filter_map(|thread| thread.states.as_ref()).any(any)
            })
            .collect();
        let mut columns: Vec<&'static str> = match recording.sees_all_threads {
            true => shown.iter().map(|(name, _)| *name).collect(),
            false => vec!["hold"],
        };
        if recording.sees_all_threads {
            columns.extend(["waited", "inflicted", "CPU", "no CPU"]);
        }
        let (mut rows, mut left_out) = (Vec::new(), 0);
        for (place, gil) in analysis.gils.iter().enumerate() {
            for index in threads_of(recording, place, analysis) {
                match rows.len() < MOST_THREADS {
                    true => rows.push(row(process, gil, index, &shown)),
                    false => left_out += 1,
                }
            }
        }
        ThreadTable { columns, rows, left_out }
    }
}

fn row(process: &Analysed<'_>, gil: &GilAnalysis, index: ThreadIndex, shown: &[State]) -> ThreadRow {
    let Analysed { recording, analysis } = process;
    let place = index.0 as usize;
    let (thread, of_thread) = (&recording.threads[place], &analysis.threads[place]);
    let mut cells = Vec::new();
    let mut bar = Vec::new();
    match &of_thread.states {
        Some(states) => {
            cells.extend(shown.iter().map(|(_, share)| Cell::share(share(states))));
            cells.extend([of_thread.waited_s, of_thread.inflicted_s].map(Cell::time));
            cells.extend(
                [thread.times.cpu, thread.times.run_queue].map(|time| Cell::time(time.as_secs_f64())),
            );
            let parts = STATES.iter().map(|(name, share)| (*name, share(states) * 100.0));
            bar.extend(
                parts.filter(|(_, part)| *part > 0.0).map(|(name, part)| (name, format!("{part:.2}"))),
            );
        }
        None => {
            let held = gil.hold.get(&index).copied().unwrap_or(0.0);
            cells.push(Cell::share(held));
            bar.push(("hold", format!("{:.2}", held * 100.0)));
        }
    }
    let tid = thread.tid.map_or(-1.0, |tid| f64::from(tid.raw()));
    ThreadRow {
        name: safe(&thread.label()),
        tid: Cell { text: thread.tid.map_or_else(|| "?".to_owned(), |tid| tid.to_string()), key: tid },
        bar,
        cells,
        waits_for: waits_for(recording, gil, index).unwrap_or_default(),
    }
}

/// For whom a thread waited longest, and for how long.
fn waits_for(recording: &Recording, gil: &GilAnalysis, waiter: ThreadIndex) -> Option<String> {
    let pairs = &gil.waiting.as_ref()?.pairs;
    let most = pairs.iter().find(|pair| pair.waiter == waiter && pair.holder.is_some())?;
    Some(format!("{} ({})", thread(recording, most.holder?), seconds(most.seconds)))
}

fn thread(recording: &Recording, index: ThreadIndex) -> String {
    recording.threads.get(index.0 as usize).map_or_else(|| "?".to_owned(), |thread| safe(&thread.label()))
}

/// A name of the target's: everything visible, and not too long.
fn safe(name: &str) -> String {
    shorten(&visible(name), LONGEST)
}
