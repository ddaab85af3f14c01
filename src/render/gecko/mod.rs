//! The Firefox Profiler's processed format: each thread with what it did, as categories of its samples, and markers of
//! when it held the GIL and when it waited for it, and for whom; each GIL as one more thread, whose samples are those of
//! whoever held it.
//!
//! The format wants a thread as a whole: until it is written, what each lane shows is in memory, 32 bytes for each time
//! that it changes. Time in which nothing changes is one or two samples for each 100 ms, weighted by the time.

mod markers;
mod tables;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::ops::Range;

use anyhow::Result;
use serde_json::{Value, json};

use self::markers::{of_gil, of_thread};
use self::tables::{Category, Markers, Names, Samples, Thread, milliseconds};
use super::chart::{Element, gil_title, thread_title};
use super::heading;
use super::lanes::{Kept, Slice, offset};
use crate::analysis::Analysed;
use crate::recording::{Holder, Recording, StackIndex, ThreadIndex, ThreadRun, ThreadState};
use crate::text;
use crate::units::{Tid, Timestamp};

/// The version of the format that is written. Readers take older versions too.
const VERSION: u32 = 55;

/// The longest time that a sample or two stand for: whoever looks at a part of the recording sees no more than that of
/// what lies outside.
const LONGEST_PIECE: u64 = 100_000_000;

/// Pieces of a slice at most: enough for a day.
const MOST_PIECES: u64 = 1_000_000;

/// Name and colour of each category. The first one is for what has none.
const CATEGORIES: [(&str, &str); 8] = [
    ("Other", "grey"),
    ("hold", "green"),
    ("stall", "red"),
    ("wait", "orange"),
    ("native", "blue"),
    ("blocked", "transparent"),
    ("parallel", "lightgreen"),
    ("unknown", "darkgrey"),
];

/// Writes the recordings as one profile.
///
/// # Errors
/// When a recording can no longer be read, or the writer fails.
pub fn write(processes: &[Analysed<'_>], writer: &mut impl Write) -> Result<()> {
    let mut categories = Categories::default();
    writer.write_all(b"{\"libs\":[],\"pages\":[],\"counters\":[],\"threads\":[")?;
    let mut is_first = true;
    for Analysed { recording, .. } in processes {
        let process = Process::new(recording, offset(processes, recording))?;
        let gils = (0..recording.gils.len()).map(|gil| process.gil(gil, &mut categories)).collect::<Vec<_>>();
        for thread in gils {
            separate(&mut is_first, writer)?;
            serde_json::to_writer(&mut *writer, &thread)?;
        }
        let mut tids = HashSet::new();
        let threads = (0..recording.threads.len()).map(|place| ThreadIndex(place as u32));
        for thread in threads.filter(|thread| recording.shows(*thread)) {
            separate(&mut is_first, writer)?;
            let thread = process.thread(thread, &mut tids, &mut categories);
            serde_json::to_writer(&mut *writer, &thread)?;
        }
    }
    writer.write_all(b"],\"meta\":")?;
    serde_json::to_writer(&mut *writer, &meta(processes, &categories))?;
    writer.write_all(b"}\n")?;
    Ok(())
}

fn separate(is_first: &mut bool, writer: &mut impl Write) -> Result<()> {
    writer.write_all(if std::mem::take(is_first) { b"\n" } else { b",\n" })?;
    Ok(())
}

fn meta(processes: &[Analysed<'_>], categories: &Categories) -> Value {
    let first = processes.first().map(|process| process.recording);
    let start = processes.iter().map(|process| process.recording.start).min();
    let entry = |process: &Analysed<'_>| {
        let recording = process.recording;
        json!({ "label": format!("pid {}", recording.target.pid), "format": "string", "value": heading::line(recording) })
    };
    json!({
        "preprocessedProfileVersion": VERSION,
        "version": 24,
        "product": first.map(heading::command),
        "importedFrom": format!("gilspy {}", env!("CARGO_PKG_VERSION")),
        "startTime": start.map_or(0.0, |start| start.as_nanosecond() as f64 / 1e6),
        "interval": first.map_or(1.0, |first| 1000.0 / f64::from(first.rate_hz.max(1))),
        "processType": 0,
        "debug": false,
        "symbolicated": true,
        "sourceCodeIsNotOnSearchfox": true,
        "usesOnlyOneStackType": true,
        "doesNotUseFrameImplementation": true,
        "keepProfileThreadOrder": true,
        "extensions": { "length": 0, "baseURL": [], "id": [], "name": [] },
        "sampleUnits": { "time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs" },
        "categories": categories.to_json(),
        "markerSchema": markers::schemas(),
        "initialSelectedThreads": [0],
        "extra": [{ "label": "gilspy", "entries": processes.iter().map(entry).collect::<Vec<_>>() }],
    })
}

/// The system calls that threads were blocked in: subcategories of each state, in order of first sight.
#[derive(Default)]
struct Categories {
    syscalls: HashMap<(usize, String), usize>,
}

impl Categories {
    fn of(&mut self, state: ThreadState) -> Category {
        let category = CATEGORIES.iter().position(|(name, _)| *name == state.name()).unwrap_or(0);
        let Some(syscall) = state.syscall() else { return (category, 0) };
        let next = self.syscalls.keys().filter(|(of, _)| *of == category).count() + 1;
        (category, *self.syscalls.entry((category, syscall.name().into_owned())).or_insert(next))
    }

    fn to_json(&self) -> Value {
        let category = |(place, (name, color)): (usize, &(&str, &str))| {
            let mut syscalls: Vec<(&usize, &str)> = (self.syscalls.iter())
                .filter(|((of, _), _)| *of == place)
                .map(|((_, syscall), place)| (place, syscall.as_str()))
                .collect();
            syscalls.sort_unstable();
            let subcategories: Vec<&str> =
                ["Other"].into_iter().chain(syscalls.into_iter().map(|(_, syscall)| syscall)).collect();
            json!({ "name": name, "color": color, "subcategories": subcategories })
        };
        CATEGORIES.iter().enumerate().map(category).collect()
    }
}

/// One process of the profile.
struct Process<'a> {
    recording: &'a Recording,
    /// From when to when it was recorded.
    time: Range<u64>,
    kept: Kept,
}

impl<'a> Process<'a> {
    fn new(recording: &'a Recording, offset: u64) -> Result<Self> {
        let duration = u64::try_from(recording.duration.as_nanos()).unwrap_or(u64::MAX);
        let time = offset..offset.saturating_add(duration);
        Ok(Process { recording, time, kept: Kept::of(recording, offset)? })
    }

    /// A GIL as a thread: who held it, and in which calls.
    fn gil(&self, gil: usize, categories: &mut Categories) -> Thread {
        let slices = &self.kept.gils[gil];
        let mut names = Names::default();
        let markers = of_gil(self.recording, slices, &mut names);
        let samples = self.samples(slices, |holder: Holder| {
            let state = match holder {
                Holder::Unknown => ThreadState::Unknown,
                _ => ThreadState::Hold,
            };
            let elements = Element::of_holder(self.recording, holder);
            names.stack(self.recording, &elements, categories.of(state))
        });
        let tid = format!("{}-gil-{gil}", self.recording.target.pid);
        self.a_thread(gil_title(self.recording, gil), tid, self.time.clone(), samples, markers, names)
    }

    fn thread(&self, index: ThreadIndex, tids: &mut HashSet<Tid>, categories: &mut Categories) -> Thread {
        let place = index.0 as usize;
        let (thread, slices) = (&self.recording.threads[place], &self.kept.threads[place]);
        let shares = |gil: &usize| self.recording.gils[*gil].interpreters.contains(&thread.interpreter);
        let gil = (0..self.recording.gils.len()).find(shares);
        let holders = gil.map_or(&[][..], |gil| &self.kept.gils[gil]);
        let mut names = Names::default();
        let markers = of_thread(self.recording, slices, holders, &mut names);
        let mut known = HashMap::<(StackIndex, Category), Option<usize>>::new();
        let samples = self.samples(slices, |run: ThreadRun| {
            let category = categories.of(run.state);
            *known.entry((run.stack, category)).or_insert_with(|| {
                names.stack(self.recording, &Element::of_stack(self.recording, run.stack), category)
            })
        });
        // The kernel hands the id of a thread that has ended to another one.
        let tid = match thread.tid.filter(|tid| tids.insert(*tid)) {
            Some(tid) => tid.to_string(),
            None => format!("{}-thread-{place}", self.recording.target.pid),
        };
        let moved = |seen: Timestamp| self.time.start.saturating_add(seen.as_nanos());
        let life = moved(thread.first_seen)..moved(thread.last_seen);
        let is_main = thread.tid.is_some_and(|tid| tid.raw() == self.recording.target.pid.raw());
        let title = thread_title(self.recording, index);
        Thread { is_main_thread: is_main, ..self.a_thread(title, tid, life, samples, markers, names) }
    }

    fn a_thread(
        &self,
        name: String,
        tid: String,
        life: Range<u64>,
        samples: Samples,
        markers: Markers,
        names: Names,
    ) -> Thread {
        Thread {
            name,
            is_main_thread: false,
            process_type: "default",
            process_name: text::name(&self.recording.target.command_title()).into_owned(),
            process_startup_time: milliseconds(self.time.start),
            process_shutdown_time: milliseconds(self.time.end),
            register_time: milliseconds(life.start),
            unregister_time: milliseconds(life.end),
            pid: self.recording.target.pid.to_string(),
            tid,
            paused_ranges: [],
            show_markers_in_timeline: true,
            samples,
            markers,
            names,
        }
    }

    fn samples<T: Copy>(&self, slices: &[Slice<T>], mut stack: impl FnMut(T) -> Option<usize>) -> Samples {
        let period = 1_000_000_000 / u64::from(self.recording.rate_hz.max(1));
        let mut samples = Samples::new();
        let mut end = None;
        for slice in slices {
            // A sample's place in the track reaches half-way to its neighbours.
            if let Some(end) = end.filter(|end| end + period < slice.start) {
                samples.add(end + period / 2, 0, None);
                samples.add(slice.start - period / 2, 0, None);
            }
            let stack = stack(slice.value);
            for (at, nanos) in pieces(slice.time(), period) {
                samples.add(at, nanos, stack);
            }
            end = Some(slice.end);
        }
        samples
    }
}

/// The samples that stand for a slice: when, and for how long.
fn pieces(slice: Range<u64>, period: u64) -> impl Iterator<Item = (u64, u64)> {
    let nanos = slice.end - slice.start;
    let count = nanos.div_ceil(LONGEST_PIECE.max(period)).min(MOST_PIECES);
    (0..count).flat_map(move |place| {
        let edge =
            |place: u64| slice.start + (u128::from(nanos) * u128::from(place) / u128::from(count)) as u64;
        let (start, end) = (edge(place), edge(place + 1));
        let half = (end - start) / 2;
        match half > period {
            true => vec![(start + period / 2, half), (end - period / 2, end - start - half)],
            false => vec![(start + half, end - start)],
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;
    use crate::render::lanes::tests::recordings;
    use proptest::prelude::*;

    fn profile(recording: &Recording) -> Value {
        let mut json = Vec::new();
        write(&[Analysed::of(recording).unwrap()], &mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// Name, start and end of a thread's markers, in microseconds.
    fn markers(thread: &Value) -> Vec<(String, u64, u64)> {
        let table = &thread["markers"];
        let marker = |place: usize| {
            let micros = |column: &str| (table[column][place].as_f64().unwrap() * 1000.0).round() as u64;
            let name = table["name"][place].as_u64().unwrap() as usize;
            (thread["stringArray"][name].as_str().unwrap().to_owned(), micros("startTime"), micros("endTime"))
        };
        (0..table["length"].as_u64().unwrap() as usize).map(marker).collect()
    }

    #[test]
    fn the_gil_is_a_thread_whose_markers_are_its_holders() {
        let profile = profile(&fake::of_threads(&["HHWW?", "WWHH?"]));
        let threads = profile["threads"].as_array().unwrap();
        let names: Vec<_> = threads.iter().map(|thread| thread["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["GIL", "thread-1 (4243)", "thread-2 (4244)"]);
        let marker = |name: &str, start, end| (name.to_owned(), start, end);
        assert_eq!(
            markers(&threads[0]),
            [
                marker("thread-1 (4243)", 0, 2000),
                marker("thread-2 (4244)", 2000, 4000),
                marker("unknown", 4000, 5000)
            ]
        );
        assert_eq!(markers(&threads[1]), [marker("GIL held", 0, 2000), marker("GIL wait", 2000, 4000)]);
        let wait = &threads[1]["markers"]["data"][1];
        let text =
            |place: &Value| threads[1]["stringArray"][place.as_u64().unwrap() as usize].as_str().unwrap();
        assert_eq!(wait["type"], "GIL wait");
        assert_eq!(
            [text(&wait["holder"]), text(&wait["function"])],
            ["thread-2 (4244)", "spin_two at main.py:22"]
        );
    }

    #[test]
    fn samples_have_the_category_of_what_the_thread_did() {
        let profile = profile(&fake::of_threads(&["HHSS"]));
        let thread = &profile["threads"][1];
        let category = |sample: usize| {
            let stack = thread["samples"]["stack"][sample].as_u64().unwrap() as usize;
            let frame = thread["stackTable"]["frame"][stack].as_u64().unwrap() as usize;
            let category = thread["frameTable"]["category"][frame].as_u64().unwrap() as usize;
            profile["meta"]["categories"][category]["name"].as_str().unwrap()
        };
        assert_eq!(
            (thread["samples"]["length"].as_u64(), category(0), category(1)),
            (Some(2), "hold", "stall")
        );
        assert_eq!(thread["samples"]["weight"], json!([2.0, 2.0]));
        assert_eq!(profile["meta"]["categories"][2]["subcategories"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn long_slices_are_samples_that_stand_for_all_of_it() {
        for nanos in [1, 1_000_000, 2_000_000, 99_999_999, 1_234_567_891] {
            let pieces: Vec<(u64, u64)> = pieces(7..7 + nanos, 1_000_000).collect();
            assert_eq!(pieces.iter().map(|(_, nanos)| nanos).sum::<u64>(), nanos);
            assert!(pieces.windows(2).all(|pair| pair[0].0 < pair[1].0), "{pieces:?}");
            assert!(pieces.iter().all(|(at, part)| (7..7 + nanos).contains(at) && *part <= LONGEST_PIECE));
        }
    }

    proptest! {
        #[test]
        fn at_any_moment_one_thread_at_most_holds_the_gil(recording in recordings()) {
            let profile = profile(&recording);
            let (gil, threads) = profile["threads"].as_array().unwrap().split_first().unwrap();
            let mut held: Vec<_> =
                threads.iter().flat_map(markers).filter(|(name, ..)| name == "GIL held").collect();
            held.sort_by_key(|(_, start, _)| *start);
            prop_assert!(held.windows(2).all(|pair| pair[0].2 <= pair[1].1));
            let by_gil: Vec<_> = markers(gil).into_iter().filter(|(name, ..)| name.starts_with("thread-")).collect();
            let sum = |markers: &[(String, u64, u64)]| markers.iter().map(|(_, start, end)| end - start).sum::<u64>();
            prop_assert_eq!(sum(&held), sum(&by_gil));
        }
    }
}
