//! `gilspy dump`: a snapshot as text for a terminal, or as JSON.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::recording::snapshot::{GilSnapshot, InterpreterSnapshot, Snapshot, ThreadSnapshot, label};
use crate::recording::{Frame, Target, ThreadState};
use crate::text::{self, columns, name};
use crate::units::{NamespaceTid, Tid};

/// The shortest stay in a state that is worth a word.
const WORTH_SAYING: Duration = Duration::from_millis(2);

/// The widest column of function names; longer names push their file to the right.
const WIDEST_FUNCTION: usize = 40;

/// The snapshot as lines of text; only the GIL's holder if `holder_only`.
pub fn text(snapshot: &Snapshot, holder_only: bool) -> String {
    let target = &snapshot.target;
    let build = if target.free_threaded { ", free-threaded build" } else { "" };
    let (pid, own) = (target.pid, target.own_pid());
    let command = target.command_title();
    let (command, python) = (name(&command), name(&target.python));
    let mut text = format!("pid {pid}{own}  {command}  CPython {python}{build}\n");
    for interpreter in &snapshot.interpreters {
        if snapshot.interpreters.len() > 1 {
            text.push_str(&format!("\ninterpreter {}\n", interpreter.id));
        }
        text.push_str(&gil_sentence(&interpreter.gil));
        text.push('\n');
        match holder_only {
            true => text.push_str(&holder(snapshot, interpreter)),
            false => text.push_str(&threads(interpreter)),
        }
    }
    text
}

/// In one sentence, how often the GIL was seen held by whom.
fn gil_sentence(gil: &GilSnapshot) -> String {
    let looks = format!("{} looks over {:.0} ms", gil.looks, gil.span.as_secs_f64() * 1000.0);
    if gil.enabled == Some(false) {
        let stopped = match gil.stopped {
            0 => String::new(),
            stopped => format!(", others stopped by one thread in {stopped}"),
        };
        return format!("There is no GIL to hold: it is off ({looks}{stopped}).");
    }
    let mut sentence = match gil.holder() {
        Some((holder, held)) => {
            format!("GIL held by {} in {held} of {looks}", named(&holder.name, holder.tid))
        }
        None if gil.unknown == gil.looks => format!("GIL: unknown, no consistent reading in {looks}"),
        None => format!("Nobody holds the GIL: free in {} of {looks}", gil.free),
    };
    if let Some((_, others)) = gil.held_by.split_first().filter(|(_, others)| !others.is_empty()) {
        let held: u32 = others.iter().map(|(_, held)| held).sum();
        match others {
            [(other, held)] => {
                sentence.push_str(&format!(", by {} in {held}", named(&other.name, other.tid)))
            }
            _ => sentence.push_str(&format!(", by {} others in {held}", others.len())),
        }
    }
    if gil.free > 0 && gil.holder().is_some() {
        sentence.push_str(&format!(", free in {}", gil.free));
    }
    match gil.waiting {
        0 => {}
        1 => sentence.push_str("; 1 thread waits"),
        waiting => sentence.push_str(&format!("; {waiting} threads wait")),
    }
    if gil.unknown > 0 && gil.unknown < gil.looks {
        sentence.push_str(&format!(", unknown in {}", gil.unknown));
    }
    sentence + "."
}

fn holder(snapshot: &Snapshot, interpreter: &InterpreterSnapshot) -> String {
    let Some((holder, _)) = interpreter.gil.holder() else {
        return String::new();
    };
    let mut threads = snapshot.interpreters.iter().flat_map(|interpreter| &interpreter.threads);
    let thread = threads.find(|thread| thread.index == holder.index);
    let state = match thread.map(|thread| thread.state) {
        Some(state @ ThreadState::Stall(_)) => state,
        _ => ThreadState::Hold,
    };
    let since = holder.since.filter(|since| *since >= WORTH_SAYING);
    let since =
        since.map_or_else(String::new, |since| format!(", in the same call for at least {}", ms(since)));
    let (name, frames) = (named(&holder.name, holder.tid), stack(Some(&holder.frames)));
    format!("\n{name}  {}{since}\n{frames}", state_words(state))
}

fn threads(interpreter: &InterpreterSnapshot) -> String {
    let mut text = String::new();
    for thread in &interpreter.threads {
        text.push_str(&format!("\n{}  {}\n", title(thread), doing(thread)));
        text.push_str(&stack(thread.frames.as_deref()));
    }
    text
}

/// Its name and id, with its own namespace's where that is another.
fn title(thread: &ThreadSnapshot) -> String {
    let own = thread.namespace_tid.filter(|own| thread.tid.is_some_and(|tid| tid.raw() != own.raw()));
    let name = name(thread.name.as_deref().unwrap_or("thread"));
    match (thread.tid, own) {
        (Some(tid), Some(own)) => format!("{name} ({tid}, {own} in its namespace)"),
        _ => named(&thread.name, thread.tid),
    }
}

/// What a thread does, for how long already, and for whom it waits.
fn doing(thread: &ThreadSnapshot) -> String {
    let mut text = state_words(thread.state);
    if let Some(since) = thread.since.filter(|since| *since >= WORTH_SAYING) {
        text.push_str(&format!(", for at least {}", ms(since)));
    }
    if let Some(interpreter) = thread.waits_elsewhere {
        text.push_str(&format!(", for the GIL of interpreter {interpreter}"));
    }
    if let (ThreadState::Wait { .. }, Some((name, tid))) = (thread.state, &thread.waits_for) {
        let held = if thread.waits_elsewhere.is_some() { ", held by" } else { ", for" };
        text.push_str(&format!("{held} {}", named(name, *tid)));
    }
    text
}

/// A state, with the system call that a thread is blocked in.
fn state_words(state: ThreadState) -> String {
    let name = state.name();
    match state {
        ThreadState::Stall(Some(call)) | ThreadState::Blocked(Some(call)) => {
            format!("{name} in {}", call.name())
        }
        ThreadState::Stall(None) | ThreadState::Blocked(None) => format!("{name} outside of system calls"),
        _ => name.to_owned(),
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1000.0)
}

fn named(name: &Option<String>, tid: Option<Tid>) -> String {
    let label = label(name.as_deref(), tid);
    match (name, tid) {
        (Some(_), Some(tid)) => format!("{} ({tid})", text::name(&label)),
        _ => text::name(&label).into_owned(),
    }
}

fn stack(frames: Option<&[Frame]>) -> String {
    let Some(frames) = frames else {
        return "    (its stack could not be read consistently)\n".to_owned();
    };
    if frames.is_empty() {
        return "    (no Python code on its stack)\n".to_owned();
    }
    let functions: Vec<_> = frames.iter().map(|frame| name(&frame.function)).collect();
    let widest = functions.iter().map(|function| columns(function)).max().unwrap_or(0).min(WIDEST_FUNCTION);
    let mut text = String::new();
    for (frame, function) in frames.iter().zip(functions) {
        let line = frame.line.map_or_else(|| "?".to_owned(), |line| line.to_string());
        let padding = " ".repeat(widest.saturating_sub(columns(&function)));
        text.push_str(&format!("    {function}{padding}  {}:{line}\n", name(&frame.file)));
    }
    text
}

/// Writes the snapshot as one JSON object, see `docs/schema/dump.json`.
///
/// # Errors
/// When the writer fails.
pub fn json(snapshot: &Snapshot, writer: &mut impl Write) -> serde_json::Result<()> {
    let document = Document {
        schema: 1,
        gilspy: env!("CARGO_PKG_VERSION"),
        time: snapshot.time.to_string(),
        target: &snapshot.target,
        interpreters: snapshot.interpreters.iter().map(Interpreter::of).collect(),
    };
    super::json::write(&document, writer)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    gilspy: &'static str,
    time: String,
    target: &'a Target,
    interpreters: Vec<Interpreter<'a>>,
}

#[derive(Serialize)]
struct Interpreter<'a> {
    id: i64,
    gil: Gil,
    looks: Looks,
    threads: Vec<Thread<'a>>,
}

#[derive(Serialize)]
struct Gil {
    enabled: Option<bool>,
    locked: Option<bool>,
    holder_tid: Option<Tid>,
    handovers: Option<u64>,
    switch_interval_us: Option<u64>,
}

#[derive(Serialize)]
struct Looks {
    total: u32,
    held_by: Vec<HeldBy>,
    free: u32,
    unknown: u32,
    stopped: u32,
    span_ms: f64,
}

#[derive(Serialize)]
struct HeldBy {
    tid: Option<Tid>,
    looks: u32,
}

#[derive(Serialize)]
struct Thread<'a> {
    tid: Option<Tid>,
    namespace_tid: Option<NamespaceTid>,
    name: Option<&'a str>,
    state: &'static str,
    syscall: Option<String>,
    since_ms: Option<f64>,
    waits_for_tid: Option<Tid>,
    waits_for_interpreter: Option<i64>,
    interpreters: &'a [i64],
    frames: &'a [Frame],
}

impl<'a> Interpreter<'a> {
    fn of(interpreter: &'a InterpreterSnapshot) -> Self {
        let gil = &interpreter.gil;
        let holder = gil.holder();
        let was_read = gil.enabled == Some(true);
        Interpreter {
            id: interpreter.id,
            gil: Gil {
                enabled: gil.enabled,
                locked: was_read.then_some(holder.is_some()),
                holder_tid: holder.and_then(|(holder, _)| holder.tid),
                handovers: gil.handovers,
                switch_interval_us: gil.switch_interval.map(|interval| interval.as_micros() as u64),
            },
            looks: Looks {
                total: gil.looks,
                held_by: (gil.held_by.iter())
                    .map(|(holder, looks)| HeldBy { tid: holder.tid, looks: *looks })
                    .collect(),
                free: gil.free,
                unknown: gil.unknown,
                stopped: gil.stopped,
                span_ms: gil.span.as_secs_f64() * 1000.0,
            },
            threads: interpreter.threads.iter().map(Thread::of).collect(),
        }
    }
}

impl<'a> Thread<'a> {
    fn of(thread: &'a ThreadSnapshot) -> Self {
        Thread {
            tid: thread.tid,
            namespace_tid: thread.namespace_tid,
            name: thread.name.as_deref(),
            state: thread.state.name(),
            syscall: thread.state.syscall().map(|call| call.name().into_owned()),
            since_ms: thread.since.map(|since| since.as_secs_f64() * 1000.0),
            waits_for_tid: match thread.state {
                ThreadState::Wait { .. } => thread.waits_for.as_ref().and_then(|(_, tid)| *tid),
                _ => None,
            },
            waits_for_interpreter: thread.waits_elsewhere,
            interpreters: &thread.interpreters,
            frames: thread.frames.as_deref().unwrap_or_default(),
        }
    }
}
