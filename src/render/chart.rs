//! Stack charts: rows of slices inside each other, each from a beginning to an end. What the exports that show moments
//! draw a lane as.

use std::borrow::Cow;
use std::ops::Range;

use anyhow::Result;

use crate::recording::{Frame, Holder, Recording, StackIndex, ThreadIndex, ThreadRun, ThreadState};
use crate::text::name;

/// A chart in the making: what is open, outermost first, and until when.
#[derive(Debug, Default)]
pub(super) struct Chart<'a> {
    open: Vec<Element<'a>>,
    end: u64,
}

/// One end of a slice of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    Begin,
    End,
}

impl<'a> Chart<'a> {
    /// Until when it goes so far.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Goes on with what is shown next, outermost first: what is open and shown now too stays open. `edge` takes the
    /// edges in order, each with its moment.
    pub(super) fn go_on(
        &mut self,
        time: Range<u64>,
        elements: Vec<Element<'a>>,
        mut edge: impl FnMut(Edge, u64, &Element<'a>) -> Result<()>,
    ) -> Result<()> {
        let both = self.open.iter().zip(&elements);
        let same = match self.end == time.start {
            true => both.take_while(|(open, element)| open == element).count(),
            false => 0,
        };
        self.close(same, &mut edge)?;
        for element in &elements[same..] {
            edge(Edge::Begin, time.start, element)?;
        }
        (self.open, self.end) = (elements, time.end);
        Ok(())
    }

    /// Closes everything.
    pub(super) fn finish(&mut self, edge: impl FnMut(Edge, u64, &Element<'a>) -> Result<()>) -> Result<()> {
        self.close(0, edge)
    }

    fn close(
        &mut self,
        depth: usize,
        mut edge: impl FnMut(Edge, u64, &Element<'a>) -> Result<()>,
    ) -> Result<()> {
        self.open.drain(depth..).rev().try_for_each(|element| edge(Edge::End, self.end, &element))
    }
}

/// What one row of a stack chart shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Element<'a> {
    /// What a thread did.
    State(ThreadState),
    /// The thread that held a GIL.
    Thread(ThreadIndex),
    /// A call.
    Frame(&'a Frame),
    /// A stack that could not be read.
    StackUnknown,
    /// Who held a GIL could not be read.
    Unknown,
    /// Nobody looked.
    NotSeen,
}

impl<'a> Element<'a> {
    /// A stack, outermost call first.
    pub(super) fn of_stack(recording: &'a Recording, stack: StackIndex) -> Vec<Element<'a>> {
        match recording.stacks.frames(stack) {
            Some(frames) => frames.rev().map(Element::Frame).collect(),
            None => vec![Element::StackUnknown],
        }
    }

    /// What a thread did, and its stack in that.
    pub(super) fn of_thread(recording: &'a Recording, run: ThreadRun) -> Vec<Element<'a>> {
        [Element::State(run.state)].into_iter().chain(Element::of_stack(recording, run.stack)).collect()
    }

    /// Who held a GIL, and its stack; nothing where nobody did.
    pub(super) fn of_holder(recording: &'a Recording, holder: Holder) -> Vec<Element<'a>> {
        match holder {
            Holder::Thread { thread, stack } => {
                [Element::Thread(thread)].into_iter().chain(Element::of_stack(recording, stack)).collect()
            }
            Holder::Unknown => vec![Element::Unknown],
            Holder::Nobody | Holder::Disabled | Holder::Stopped => Vec::new(),
        }
    }

    /// What to call it, made harmless.
    pub(super) fn name(&self, recording: &Recording) -> Cow<'a, str> {
        match self {
            Element::State(state) => Cow::Borrowed(state.name()),
            Element::Thread(thread) => Cow::Owned(thread_title(recording, *thread)),
            Element::Frame(frame) => name(&frame.function),
            Element::StackUnknown => Cow::Borrowed("<stack unknown>"),
            Element::Unknown => Cow::Borrowed("unknown"),
            Element::NotSeen => Cow::Borrowed("not seen"),
        }
    }
}

/// A thread's name and id, made harmless.
pub(super) fn thread_title(recording: &Recording, thread: ThreadIndex) -> String {
    let thread = recording.threads.get(thread.0 as usize);
    thread.map_or_else(|| "unknown thread".to_owned(), |thread| name(&thread.title()).into_owned())
}

/// What to call a GIL, given by its place: `GIL`, or `GIL of interpreter 1` where there are several.
pub(super) fn gil_title(recording: &Recording, gil: usize) -> String {
    match recording.gils.as_slice() {
        [_] => "GIL".to_owned(),
        gils => {
            let interpreters: Vec<String> = (gils.get(gil).into_iter())
                .flat_map(|gil| gil.interpreters.iter().map(i64::to_string))
                .collect();
            let plural = if interpreters.len() == 1 { "" } else { "s" };
            format!("GIL of interpreter{plural} {}", interpreters.join(", "))
        }
    }
}
