//! Chrome's Trace Event Format, which Perfetto opens: one track a thread with what it did and, inside that, its calls;
//! one track a GIL with who held it; how many threads waited for it as a counter.
//!
//! Written as it is read: memory does not grow with the recording's length. Moments are microseconds since the
//! recording's start. The format is described in Google's document "Trace Event Format".

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::Write;
use std::ops::Range;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::chart::{Chart, Edge, Element, gil_title, thread_title};
use super::heading;
use super::lanes::{Lanes, Slice, offset, walk};
use crate::analysis::Analysed;
use crate::recording::{Holder, Recording, ThreadIndex, ThreadRun};
use crate::text::name;
use crate::units::Tid;

/// Tracks that are no thread of the kernel's have numbers from here on: the kernel's go up to 2^22
/// (`PID_MAX_LIMIT` in Linux `include/linux/threads.h`).
const FIRST_MADE_UP: i64 = 1 << 24;

/// Writes the recordings as one trace.
///
/// # Errors
/// When a recording can no longer be read, or the writer fails.
pub fn write(processes: &[Analysed<'_>], writer: &mut impl Write) -> Result<()> {
    let mut events = Events { writer, is_first: true };
    events.writer.write_all(b"{\"displayTimeUnit\":\"ms\",\"otherData\":")?;
    serde_json::to_writer(&mut *events.writer, &about(processes))?;
    events.writer.write_all(b",\"traceEvents\":[")?;
    for (place, Analysed { recording, .. }) in processes.iter().enumerate() {
        let mut trace = Trace::new(recording, place, &mut events);
        trace.name_tracks(place)?;
        walk(recording, offset(processes, recording), &mut trace)?;
        trace.finish()?;
    }
    events.writer.write_all(b"\n]}\n")?;
    Ok(())
}

/// What was recorded, and how.
fn about(processes: &[Analysed<'_>]) -> Value {
    let line = |process: &Analysed<'_>| Value::from(heading::line(process.recording));
    let start = processes.iter().map(|process| process.recording.start).min();
    json!({
        "gilspy": env!("CARGO_PKG_VERSION"),
        "start": start.map(|start| start.to_string()),
        "recordings": processes.iter().map(line).collect::<Vec<_>>(),
    })
}

/// An event of the format.
#[derive(Serialize)]
struct Event<'a, A> {
    ph: &'static str,
    pid: i32,
    tid: i64,
    ts: f64,
    name: &'a str,
    cat: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<A>,
}

/// The list of events.
struct Events<'w, W> {
    writer: &'w mut W,
    is_first: bool,
}

impl<W: Write> Events<'_, W> {
    fn add(&mut self, event: &impl Serialize) -> Result<()> {
        self.writer.write_all(if self.is_first { b"\n" } else { b",\n" })?;
        self.is_first = false;
        serde_json::to_writer(&mut *self.writer, event)?;
        Ok(())
    }
}

/// Writes the events of one process.
struct Process<'a, 'w, W> {
    recording: &'a Recording,
    events: &'a mut Events<'w, W>,
}

/// A track and its number.
struct Track<'a> {
    tid: i64,
    chart: Chart<'a>,
}

/// The trace of one process in the making.
struct Trace<'a, 'w, W> {
    process: Process<'a, 'w, W>,
    threads: Vec<Track<'a>>,
    gils: Vec<Track<'a>>,
    /// Until when it is known how many threads waited for each GIL.
    counted: Vec<u64>,
}

impl<'a, 'w, W: Write> Trace<'a, 'w, W> {
    fn new(recording: &'a Recording, place: usize, events: &'a mut Events<'w, W>) -> Self {
        let mut used = HashSet::<Tid>::new();
        let track = |tid| Track { tid, chart: Chart::default() };
        let (gils, threads) = (recording.gils.len(), recording.threads.len());
        // Readers take the number of a thread for one of the machine's, not of the process's.
        let made_up = FIRST_MADE_UP + ((place as i64) << 16);
        // The kernel hands the id of a thread that has ended to another one.
        let tid = |place: usize| match recording.threads[place].tid.filter(|tid| used.insert(*tid)) {
            Some(tid) => i64::from(tid.raw()),
            None => made_up + (gils + place) as i64,
        };
        Trace {
            process: Process { recording, events },
            threads: (0..threads).map(tid).map(track).collect(),
            gils: (0..gils).map(|gil| track(made_up + gil as i64)).collect(),
            counted: vec![0; gils],
        }
    }

    /// Names the process and its tracks: GILs come first, then threads by age.
    fn name_tracks(&mut self, place: usize) -> Result<()> {
        let recording = self.process.recording;
        let command = name(&recording.target.command_title()).into_owned();
        let python = format!("CPython {}", name(&recording.target.python));
        self.process.describe(0, "process_name", json!({ "name": command }))?;
        self.process.describe(0, "process_labels", json!({ "labels": python }))?;
        self.process.describe(0, "process_sort_index", json!({ "sort_index": place }))?;
        let gils = self.gils.iter().enumerate().map(|(gil, track)| (track.tid, gil_title(recording, gil)));
        let threads = self.threads.iter().enumerate();
        let threads = threads.map(|(place, track)| (ThreadIndex(place as u32), track.tid));
        let threads = threads.filter(|(thread, _)| recording.shows(*thread));
        let threads = threads.map(|(thread, tid)| (tid, thread_title(recording, thread)));
        for (place, (tid, name)) in gils.chain(threads).enumerate() {
            self.process.describe(tid, "thread_name", json!({ "name": name }))?;
            self.process.describe(tid, "thread_sort_index", json!({ "sort_index": place }))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        for gil in 0..self.gils.len() {
            self.process.count(gil, self.counted[gil], 0)?;
        }
        for track in self.gils.iter_mut().chain(&mut self.threads) {
            track.chart.finish(|edge, at, element| self.process.edge(track.tid, edge, at, element))?;
        }
        Ok(())
    }
}

impl<'a, W: Write> Lanes for Trace<'a, '_, W> {
    fn gil(&mut self, gil: usize, slice: Slice<Holder>) -> Result<()> {
        let track = &mut self.gils[gil];
        if (1..slice.start).contains(&track.chart.end()) {
            self.process.go_on(track, track.chart.end()..slice.start, vec![Element::NotSeen])?;
        }
        let mut elements = Element::of_holder(self.process.recording, slice.value);
        // Who, and the innermost call: the others are on the thread's own track.
        if elements.len() > 2 {
            elements.drain(1..elements.len() - 1);
        }
        self.process.go_on(track, slice.time(), elements)
    }

    fn waiters(&mut self, gil: usize, slice: Slice<u32>) -> Result<()> {
        if self.counted[gil] < slice.start {
            self.process.count(gil, self.counted[gil], 0)?;
        }
        self.counted[gil] = slice.end;
        self.process.count(gil, slice.start, slice.value)
    }

    fn thread(&mut self, thread: ThreadIndex, slice: Slice<ThreadRun>) -> Result<()> {
        let elements = Element::of_thread(self.process.recording, slice.value);
        self.process.go_on(&mut self.threads[thread.0 as usize], slice.time(), elements)
    }
}

impl<'a, W: Write> Process<'a, '_, W> {
    fn go_on(&mut self, track: &mut Track<'a>, time: Range<u64>, elements: Vec<Element<'a>>) -> Result<()> {
        track.chart.go_on(time, elements, |edge, at, element| self.edge(track.tid, edge, at, element))
    }

    /// Readers find the slice that ends by its name.
    fn edge(&mut self, tid: i64, edge: Edge, at: u64, element: &Element<'a>) -> Result<()> {
        let name = element.name(self.recording);
        match edge {
            Edge::Begin => self.event("B", tid, at, &name, Details::of(element)),
            Edge::End => self.event("E", tid, at, &name, None::<Details<'_>>),
        }
    }

    /// How many threads wait for a GIL from some moment on; 0 too where nobody looked, since a counter has no gaps.
    fn count(&mut self, gil: usize, at: u64, threads: u32) -> Result<()> {
        if !self.recording.sees_all_threads {
            return Ok(());
        }
        let name = format!("threads waiting for the {}", gil_title(self.recording, gil));
        self.event("C", 0, at, &name, Some(json!({ "threads": threads })))
    }

    fn describe(&mut self, tid: i64, name: &str, args: Value) -> Result<()> {
        self.event("M", tid, 0, name, Some(args))
    }

    fn event(
        &mut self,
        ph: &'static str,
        tid: i64,
        at: u64,
        name: &str,
        args: Option<impl Serialize>,
    ) -> Result<()> {
        let pid = self.recording.target.pid.raw();
        self.events.add(&Event { ph, pid, tid, ts: at as f64 / 1000.0, name, cat: "gilspy", args })
    }
}

/// What is told of a slice besides its name.
#[derive(Serialize)]
#[serde(untagged)]
enum Details<'a> {
    State { syscall: Cow<'static, str> },
    Frame { file: Cow<'a, str>, line: Option<u32> },
}

impl<'a> Details<'a> {
    fn of(element: &Element<'a>) -> Option<Self> {
        match element {
            Element::State(state) => Some(Details::State { syscall: state.syscall()?.name() }),
            Element::Frame(frame) => Some(Details::Frame { file: name(&frame.file), line: frame.line }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;
    use crate::render::lanes::tests::recordings;
    use proptest::prelude::*;

    fn trace(recording: &Recording) -> Vec<Value> {
        let mut json = Vec::new();
        write(&[Analysed::of(recording).unwrap()], &mut json).unwrap();
        let trace: Value = serde_json::from_slice(&json).unwrap();
        trace["traceEvents"].as_array().unwrap().clone()
    }

    /// The outermost slices of a track: name, start and end in microseconds. All its slices have to be inside each
    /// other, and each has to end.
    fn slices(events: &[Value], tid: i64) -> Vec<(String, f64, f64)> {
        let (mut open, mut slices, mut now) = (Vec::new(), Vec::new(), 0.0);
        for event in events.iter().filter(|event| event["tid"] == tid && event["ph"] != "M") {
            let (name, at) = (event["name"].as_str().unwrap().to_owned(), event["ts"].as_f64().unwrap());
            assert!(at >= now, "{event}");
            now = at;
            if event["ph"] == "B" {
                open.push((name, at));
                continue;
            }
            let (opened, start) = open.pop().unwrap();
            assert_eq!((&opened, event["ph"].as_str()), (&name, Some("E")));
            if open.is_empty() {
                slices.push((name, start, at));
            }
        }
        assert!(open.is_empty(), "{open:?}");
        slices
    }

    #[test]
    fn threads_have_states_and_the_gil_has_holders() {
        let events = trace(&fake::of_threads(&["HHWW?", "WWHH?"]));
        let slice = |name: &str, start, end| (name.to_owned(), start, end);
        assert_eq!(
            slices(&events, 4243),
            [slice("hold", 0.0, 2000.0), slice("wait", 2000.0, 4000.0), slice("unknown", 4000.0, 5000.0)]
        );
        assert_eq!(
            slices(&events, FIRST_MADE_UP),
            [
                slice("thread-1 (4243)", 0.0, 2000.0),
                slice("thread-2 (4244)", 2000.0, 4000.0),
                slice("unknown", 4000.0, 5000.0)
            ]
        );
        let counts = events.iter().filter(|event| event["ph"] == "C");
        let counts: Vec<_> =
            counts.map(|event| (event["ts"].as_f64(), event["args"]["threads"].as_u64())).collect();
        assert_eq!(counts, [(Some(0.0), Some(1)), (Some(4000.0), Some(0)), (Some(5000.0), Some(0))]);
    }

    #[test]
    fn time_that_nobody_looked_at_is_shown_as_such() {
        let events = trace(&fake::of_threads(&[&format!("H{}H", "_".repeat(50))]));
        let names: Vec<String> = slices(&events, FIRST_MADE_UP).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["thread-1 (4243)", "not seen", "thread-1 (4243)"]);
        assert_eq!(slices(&events, 4243).len(), 2);
    }

    #[test]
    fn hostile_names_are_harmless() {
        let events = trace(&fake::with_names("A", ["\"}],\x1b[31m", "x", "y"]));
        assert!(events.iter().any(|event| event["args"]["name"] == "\"}],␛[31m (4243)"));
    }

    proptest! {
        #[test]
        fn at_any_moment_one_thread_at_most_holds_the_gil(recording in recordings()) {
            let events = trace(&recording);
            let holds = |tid| slices(&events, tid).into_iter().filter(|(name, ..)| name == "hold" || name == "stall");
            let mut holds: Vec<_> = (4243..4246).flat_map(holds).collect();
            holds.sort_by(|(_, a, _), (_, b, _)| a.total_cmp(b));
            prop_assert!(holds.windows(2).all(|pair| pair[0].2 <= pair[1].1));
            let by_threads: f64 = holds.iter().map(|(_, start, end)| end - start).sum();
            let held = slices(&events, FIRST_MADE_UP).into_iter().filter(|(name, ..)| name.starts_with("thread-"));
            let by_gil: f64 = held.map(|(_, start, end)| end - start).sum();
            prop_assert!((by_threads - by_gil).abs() < 1e-6);
        }
    }
}
