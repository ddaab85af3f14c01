//! What gilspy does with a process, with memory that is hostile: attach, tick, refresh, confirm, name, record, read back.

use std::cell::RefCell;
use std::io::sink;
use std::sync::OnceLock;
use std::time::Duration;

use gilspy::analysis::Analysed;
use gilspy::cpython::locate::{ATTACHING, LocateError, Located};
use gilspy::cpython::names::thread_names;
use gilspy::cpython::version::Version;
use gilspy::recording::{
    Appender, Counted, Ending, NewProcess, Recorder, Session, Source, Target, TaskTimes, Thread, read,
};
use gilspy::render::report;
use gilspy::sample::ThreadIndex;
use gilspy::sampler::{Sampler, bounds};
use gilspy::target::entry::ProcEntry;
use gilspy::target::memory::budget::Budgeted;
use gilspy::units::{Address, Pid, Timestamp};

use super::image::Image;
use super::memory::Hostile;
use super::script::Script;

/// Where to begin.
pub enum Start {
    /// With looking for the interpreter.
    Runtime { runtime: Address, version: Version, is_musl: bool },
    /// With one that was found.
    Located(Box<Located>),
}

impl Start {
    pub fn of(image: &Image) -> Self {
        Start::Runtime {
            runtime: Address::new(image.runtime),
            version: Version::from_hex(image.version),
            is_musl: image.is_musl,
        }
    }

    pub fn at(located: Located) -> Self {
        Start::Located(Box::new(located))
    }
}

pub fn own_process() -> ProcEntry {
    static OWN: OnceLock<ProcEntry> = OnceLock::new();
    OWN.get_or_init(|| ProcEntry::open(Pid::new(std::process::id() as i32)).unwrap()).clone()
}

/// Steps of one run at most.
const STEPS: usize = 40;

/// Does what the script says.
pub fn drive(memory: &Hostile, start: &Start, script: &mut Script<'_>) {
    let located = match start {
        Start::Located(located) => (**located).clone(),
        Start::Runtime { runtime, version, is_musl } => {
            let version = || Ok::<_, LocateError>(version.clone());
            let at = || Located::at(memory, *runtime, *is_musl, version);
            match memory.within(ATTACHING, bounds::MEMORY, "attaching", at) {
                Ok(located) => located,
                Err(error) => {
                    error.to_string();
                    return;
                }
            }
        }
    };
    let new = || Sampler::new(own_process(), memory.clone(), located.clone());
    let Ok(mut sampler) = memory.within(bounds::REFRESH, bounds::MEMORY, "the first look", new) else {
        return;
    };
    let recorder = RefCell::new(Recorder::new(1000));
    let mut time = Timestamp::START;
    for _ in 0..STEPS {
        // Before those that have ended are forgotten: threads are numbered without gaps.
        take_over(&mut recorder.borrow_mut(), &sampler, time);
        time = time.after(Duration::from_millis(1));
        match script.byte() % 16 {
            0..=3 => {
                let gils = memory.within(bounds::TICK, bounds::MEMORY, "a tick", || sampler.tick_gils());
                let Ok(gils) = gils else { continue };
                recorder.borrow_mut().add(time, 1, gils, &[]);
            }
            4..=9 => {
                let seen = memory.within(bounds::TICK, bounds::MEMORY, "a tick", || sampler.tick_all());
                let Ok((gils, threads)) = seen else { continue };
                recorder.borrow_mut().add(time, 1, gils, threads);
            }
            10 => {
                let _ = memory.within(bounds::REFRESH, bounds::MEMORY, "a refresh", || sampler.refresh());
            }
            11 => {
                let confirm = || sampler.confirm();
                let doubtful = memory.within(bounds::CONFIRMATION, bounds::MEMORY, "a confirmation", confirm);
                let doubtful = doubtful.unwrap_or_default();
                recorder.borrow_mut().confirm(time, &doubtful);
            }
            12 => {
                let threads: Vec<ThreadIndex> = sampler.threads().all().map(|(index, _)| index).collect();
                let stacks = || {
                    for thread in threads {
                        let _ = sampler.stack(thread);
                    }
                };
                memory.within(bounds::STACKS, bounds::MEMORY, "all stacks", stacks);
            }
            13 => {
                for gil in sampler.gils() {
                    for interpreter in &gil.interpreters {
                        let memory = Budgeted::new(memory, bounds::REFRESH);
                        drop(thread_names(&memory, &located.layout, interpreter.address));
                    }
                }
            }
            _ => memory.change(script),
        }
        if script.is_empty() {
            break;
        }
    }
    take_over(&mut recorder.borrow_mut(), &sampler, time);
    record(recorder.into_inner(), &sampler, time);
}

fn take_over(recorder: &mut Recorder, sampler: &Sampler<Hostile>, at: Timestamp) {
    for (gil, known) in sampler.gils().iter().enumerate() {
        recorder.set_interpreters(gil, known.interpreters.iter().map(|interpreter| interpreter.id));
    }
    for (index, known) in sampler.threads().all() {
        recorder.set_thread(
            index,
            Thread {
                interpreter: known.interpreter(),
                interpreters: known.interpreters().collect(),
                tid: known.tid,
                namespace_tid: known.namespace_tid,
                name: known.name.clone(),
                first_seen: at,
                last_seen: at,
                times: TaskTimes::default(),
            },
        );
    }
}

/// What was seen makes a recording that can be read.
fn record(mut recorder: Recorder, sampler: &Sampler<Hostile>, end: Timestamp) {
    let start = jiff::Timestamp::UNIX_EPOCH;
    let session = Session { host: String::new(), start, rate_hz: 1000, sees_all_threads: true };
    let mut appender = Appender::new(Vec::new(), &session).unwrap();
    let target = Target {
        pid: Pid::new(1),
        namespace_pid: None,
        python: String::new(),
        free_threaded: false,
        command: Vec::new(),
        host: String::new(),
    };
    let process = NewProcess { target, cpus: 1, parent: None, since: Timestamp::START };
    let number = appender.add_process(&process).unwrap();
    let part = recorder.take(sampler.stacks(), end, Counted::default());
    // A part that is too large is refused as a whole.
    if appender.append(number, &part).is_err() {
        return;
    }
    appender.close(number, Ending::Finished, Duration::from_nanos(end.as_nanos())).unwrap();
    let recordings = read(&Source::memory(appender.into_inner())).expect("it is read as it was written");
    let analysed: Vec<_> =
        recordings.iter().map(|recording| Analysed::of(recording).expect("it adds up")).collect();
    report::write(&analysed, &mut sink()).expect("it can be reported");
}
