//! Markers of when a thread held a GIL and when it waited for one, and behind whom.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use serde_json::{Value, json};

use super::tables::{Details, Markers, Names};
use crate::recording::{Holder, Recording, StackIndex, ThreadIndex, ThreadRun, ThreadState};
use crate::render::chart::thread_title;
use crate::render::lanes::Slice;
use crate::text;

const HELD: &str = "GIL held";
const WAIT: &str = "GIL wait";

/// The categories of markers, as in `CATEGORIES`.
const HOLD_CATEGORY: usize = 1;
const WAIT_CATEGORY: usize = 3;
const UNKNOWN_CATEGORY: usize = 7;

/// What the details of markers are called, and where they are shown.
pub(super) fn schemas() -> Value {
    let display = ["marker-chart", "marker-table", "timeline-overview"];
    let field = |key: &str, label: &str| json!({ "key": key, "label": label, "format": "unique-string", "searchable": true });
    json!([
        {
            "name": HELD,
            "display": display,
            "chartLabel": "{marker.data.function}",
            "tooltipLabel": "{marker.name}: {marker.data.function}",
            "tableLabel": "{marker.name}: {marker.data.function}",
            "description": "The GIL was held.",
            "fields": [field("function", "Longest in")],
        },
        {
            "name": WAIT,
            "display": display,
            "chartLabel": "{marker.data.holder}: {marker.data.function}",
            "tooltipLabel": "{marker.name}: {marker.data.holder}",
            "tableLabel": "{marker.name}: {marker.data.holder}: {marker.data.function}",
            "description": "The thread waited for the GIL.",
            "fields": [field("holder", "Longest behind"), field("function", "Which was in")],
        },
    ])
}

/// Of a GIL: a marker a hold, called by the thread that held it.
pub(super) fn of_gil(recording: &Recording, slices: &[Slice<Holder>], names: &mut Names) -> Markers {
    let mut markers = Markers::default();
    for hold in together(slices, |holder| match holder {
        Holder::Thread { thread, .. } => Some(Some(thread)),
        Holder::Unknown => Some(None),
        Holder::Nobody | Holder::Disabled | Holder::Stopped => None,
    }) {
        let stack = longest(slices, &hold.time, |holder| match holder {
            Holder::Thread { stack, .. } => Some(stack),
            _ => None,
        });
        let (name, category) = match hold.what {
            Some(thread) => (thread_title(recording, thread), HOLD_CATEGORY),
            None => ("unknown".to_owned(), UNKNOWN_CATEGORY),
        };
        let data = Details::Held { function: names.string(&function(recording, stack)) };
        markers.add(hold.time.start, hold.time.end, names.string(&name), category, data);
    }
    markers
}

/// Of a thread, with who held its GIL.
pub(super) fn of_thread(
    recording: &Recording,
    slices: &[Slice<ThreadRun>],
    holders: &[Slice<Holder>],
    names: &mut Names,
) -> Markers {
    let mut markers = Markers::default();
    for interval in together(slices, |run| match run.state {
        ThreadState::Hold | ThreadState::Stall(_) => Some(HELD),
        ThreadState::Wait { .. } => Some(WAIT),
        _ => None,
    }) {
        let (category, data) = if interval.what == HELD {
            let stack = longest(slices, &interval.time, |run| Some(run.stack));
            (HOLD_CATEGORY, Details::Held { function: names.string(&function(recording, stack)) })
        } else {
            (WAIT_CATEGORY, wait(recording, holders, &interval.time, names))
        };
        markers.add(interval.time.start, interval.time.end, names.string(interval.what), category, data);
    }
    markers
}

/// Who held the GIL for most of the time that a thread waited, and in which call mostly.
fn wait(recording: &Recording, holders: &[Slice<Holder>], time: &Range<u64>, names: &mut Names) -> Details {
    let held = |holder| match holder {
        Holder::Thread { thread, stack } => Some((thread, stack)),
        _ => None,
    };
    let thread: Option<ThreadIndex> = longest(holders, time, |holder| held(holder).map(|(thread, _)| thread));
    let stack = longest(holders, time, |holder| {
        held(holder).filter(|(of, _)| Some(*of) == thread).map(|(_, stack)| stack)
    });
    let holder = thread.map_or_else(|| "not known".to_owned(), |thread| thread_title(recording, thread));
    Details::Wait { holder: names.string(&holder), function: names.string(&function(recording, stack)) }
}

/// The innermost call of a stack.
fn function(recording: &Recording, stack: Option<StackIndex>) -> String {
    let frame = stack.and_then(|stack| recording.stacks.frames(stack)?.next());
    frame.map_or_else(|| "<stack unknown>".to_owned(), |frame| text::name(&frame.place()).into_owned())
}

/// Successive slices that come to the same.
struct Interval<T> {
    time: Range<u64>,
    what: T,
}

fn together<S: Copy, T: Copy + PartialEq>(
    slices: &[Slice<S>],
    what: impl Fn(S) -> Option<T>,
) -> Vec<Interval<T>> {
    let mut intervals: Vec<Interval<T>> = Vec::new();
    for slice in slices {
        let Some(what) = what(slice.value) else { continue };
        match intervals.last_mut() {
            Some(last) if last.time.end == slice.start && last.what == what => last.time.end = slice.end,
            _ => intervals.push(Interval { time: slice.time(), what }),
        }
    }
    intervals
}

/// What the slices of a lane say for the longest within some time.
fn longest<S: Copy, T: Copy + Eq + Hash + Ord>(
    slices: &[Slice<S>],
    within: &Range<u64>,
    what: impl Fn(S) -> Option<T>,
) -> Option<T> {
    let first = slices.partition_point(|slice| slice.end <= within.start);
    let mut nanos = HashMap::<T, u64>::new();
    for slice in slices[first..].iter().take_while(|slice| slice.start < within.end) {
        if let Some(what) = what(slice.value) {
            let both = slice.start.max(within.start)..slice.end.min(within.end);
            *nanos.entry(what).or_default() += both.end - both.start;
        }
    }
    nanos.into_iter().max_by_key(|&(what, nanos)| (nanos, what)).map(|(what, _)| what)
}
