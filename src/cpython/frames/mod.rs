//! The stack of one thread, read while it runs.
//!
//! The thread goes on calling and returning while its frames are read, so everything is read twice in
//! one batch, and a stack is believed when both readings show the same frames linked in the same way.
//! Where the frames lie is remembered from one reading to the next (the plan): in the steady state one
//! system call brings a whole stack twice.
//!
//! To 3.10 frames are objects of their own on the heap. From 3.11 on they lie in the chunks of the
//! thread's data stack (`_PyStackChunk`), save those of generators and coroutines.
mod reading;

use std::collections::HashSet;
use std::ops::RangeInclusive;

use super::code::Witness;
use super::decode::pointer_at;
use super::layout::{CurrentFrame, Layout};
use super::threads::{self, ThreadHeader};
use crate::target::memory::{ReadError, ReadMemory, Segment};
use crate::units::{Address, NamespaceTid};
use reading::{
    Broken, Linked, MAX_FRAME, Middle, Plan, Reading, Segments, chunks, decode_frame, frame_bytes,
};

/// Frames read at most, from the innermost outward. Python's own limit is 1,000 unless changed.
pub const MAX_FRAMES: usize = 4096;

/// How often a stack that moves is read before it is given up for this tick.
const ATTEMPTS: usize = 8;

/// How often the pieces found are read to find the next one.
const EXPLORATIONS: usize = 16;

/// In how many readings before a generator's frame and its caller have to be, which lie in different places.
const GENERATOR_READINGS: u8 = 3;

/// The same for frames on the heap (to 3.10), where this is about every frame.
const HEAP_READINGS: u8 = 1;

/// How many whole readings in a row have to end at another outermost call before that is believed.
const ROOT_READINGS: u8 = 4;

/// The same for the first one that is believed.
const FIRST_ROOT_READINGS: u8 = 2;

/// One Python call of a stack, as addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RawFrame {
    /// Its code object.
    pub code: Address,
    /// The instruction it is at, as the frame has it: an index (to 3.10) or a pointer (from 3.11 on).
    pub instruction: u64,
}

impl RawFrame {
    /// Stands for inner calls that came and went too fast to be read.
    pub const UNREAD: RawFrame = RawFrame { code: Address::NULL, instruction: 0 };
}

/// Reads one thread's stack again and again, cheaply.
#[derive(Debug, Clone)]
pub struct StackReader {
    thread: Address,
    plan: Plan,
    first: Reading,
    /// What is read between the two readings.
    middle: Middle,
    /// The thread's kernel id, if that is not in the thread state.
    descriptor: Option<Descriptor>,
    second: Reading,
    /// The calls of the reading before, outermost first.
    last: Vec<Seen>,
    /// The outermost call as it was last seen: the one that a stack has to end at.
    root: Root,
    stack: Vec<RawFrame>,
    has_arrived: bool,
}

impl StackReader {
    /// A reader for the stack of the thread state at `thread`.
    pub fn new(thread: Address) -> Self {
        StackReader {
            thread,
            plan: Plan::default(),
            first: Reading::default(),
            middle: Middle::default(),
            descriptor: None,
            second: Reading::default(),
            last: Vec::new(),
            root: Root::default(),
            stack: Vec::new(),
            has_arrived: false,
        }
    }

    /// How many bytes it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.first.bytes()
            + self.second.bytes()
            + self.middle.bytes()
            + self.plan.bytes()
            + self.last.capacity() * size_of::<Seen>()
            + self.stack.capacity() * size_of::<RawFrame>()
    }

    /// Reads the thread's kernel id along, which is at this offset of its descriptor: see
    /// [`PthreadTid`](super::threads::PthreadTid).
    pub fn with_tid_at(mut self, offset: Option<u64>) -> Self {
        self.descriptor = offset.map(|offset| Descriptor { offset, pthread: 0, tid: None });
        self
    }

    /// The thread state as the last reading found it; `None` where it failed.
    pub fn thread(&self, layout: &Layout) -> Option<ThreadHeader> {
        if !self.has_arrived {
            return None;
        }
        let mut header = threads::decode(&self.second.header, layout, self.thread)?;
        if let Some(descriptor) = &self.descriptor {
            header.native_tid =
                descriptor.tid.filter(|_| descriptor.pthread == header.pthread && header.pthread != 0);
        }
        Some(header)
    }

    /// Reads the stack between two other segments, all in one batch: whatever the two enclosing segments
    /// agree on held while the stack was read. What was read of it is in [`StackReader::stack`].
    ///
    /// # Errors
    /// When the target is gone or refuses.
    pub fn read_between(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        before: Segment<'_>,
        after: Segment<'_>,
    ) -> Result<Enclosed, ReadError> {
        self.read_among(memory, layout, Some(before), std::iter::empty(), Some(after))
    }

    /// The same, with any number of segments between the two readings of the stack.
    fn read_among<'a>(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        before: Option<Segment<'a>>,
        between: impl Iterator<Item = Segment<'a>>,
        after: Option<Segment<'a>>,
    ) -> Result<Enclosed, ReadError> {
        self.first.prepare(layout, &self.plan);
        self.second.prepare(layout, &self.plan);
        self.middle.prepare(layout, &self.plan);
        let mut tid = [0; 4];
        let mut segments = Segments::new();
        before.into_iter().for_each(|segment| segments.push(segment));
        let start = segments.len();
        self.first.add_forward(layout, self.thread, &self.plan, &mut segments);
        self.middle.add(layout, self.thread, &self.plan, &mut segments);
        between.for_each(|segment| segments.push(segment));
        self.second.add_backward(layout, self.thread, &self.plan, &mut segments);
        let end = segments.len();
        after.into_iter().for_each(|segment| segments.push(segment));
        let last = segments.len();
        if let Some(Descriptor { offset, pthread, .. }) = self.descriptor {
            segments.push(Segment::new(Address::new(pthread) + offset, &mut tid));
        }
        memory.read_batch(&mut segments)?;

        let mut around = segments[..start].iter().chain(&segments[end..last]);
        let enclosing_arrived = around.all(|segment| segment.arrived);
        self.has_arrived = segments[start..end].iter().all(|segment| segment.arrived);
        let tid_arrived = segments.get(last).is_some_and(|segment| segment.arrived);
        drop(segments);
        if let Some(descriptor) = &mut self.descriptor {
            descriptor.tid = if tid_arrived { threads::decode_tid(tid) } else { None };
            let pthread =
                threads::decode(&self.second.header, layout, self.thread).map(|header| header.pthread);
            if pthread != Some(descriptor.pthread) {
                // Read along from the next time on.
                *descriptor = Descriptor { pthread: pthread.unwrap_or(0), tid: None, ..*descriptor };
            }
        }
        let consistency = if self.has_arrived {
            self.compare(layout)
        } else {
            // Something the plan asks for is not mapped any more.
            self.plan = Plan::default();
            Consistency::None
        };
        Ok(Enclosed { enclosing_arrived, consistency })
    }

    /// The stack that the last reading found, innermost call first; [`RawFrame::UNREAD`] stands for the calls
    /// that moved, where the reading was [`Consistency::Outer`].
    pub fn stack(&self) -> &[RawFrame] {
        &self.stack
    }

    /// Reads the stack of a thread, whatever it does meanwhile, and answers how much of it is consistent.
    ///
    /// # Errors
    /// When the target is gone or refuses.
    pub fn read(&mut self, memory: &impl ReadMemory, layout: &Layout) -> Result<Consistency, ReadError> {
        let mut consistency = Consistency::None;
        for _attempt in 0..ATTEMPTS {
            let (mut before, mut after) = ([0], [0]);
            let before = Segment::new(self.thread, &mut before);
            let after = Segment::new(self.thread, &mut after);
            consistency = self.read_between(memory, layout, before, after)?.consistency;
            match consistency {
                Consistency::Whole => break,
                Consistency::Outer => {}
                Consistency::None => self.learn(memory, layout)?,
            }
        }
        Ok(consistency)
    }

    /// Reads once more, and answers how many calls of a stack that was read before, from the outermost inward,
    /// have been there all the while. The witnesses are read between the two readings.
    ///
    /// # Errors
    /// When the target is gone or refuses.
    pub fn still_there(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        stack: &[RawFrame],
        witnesses: &mut [Witness],
    ) -> Result<usize, ReadError> {
        let between = witnesses.iter_mut().flat_map(|witness| witness.segments(layout));
        let agreed = match self.read_among(memory, layout, None, between, None)?.consistency {
            Consistency::None => 0,
            Consistency::Outer => self.stack.len() - 1,
            Consistency::Whole => self.stack.len(),
        };
        let calls = self.last.iter().take(agreed).zip(stack.iter().rev());
        Ok(calls.take_while(|(seen, raw)| seen.readings > 1 && seen.call.raw.code == raw.code).count())
    }

    /// Finds out anew where the stack lies, after a reading that failed.
    ///
    /// # Errors
    /// When the target is gone or refuses.
    pub fn learn(&mut self, memory: &impl ReadMemory, layout: &Layout) -> Result<(), ReadError> {
        match self.explore(memory, layout) {
            Err(error) if error.is_final() => Err(error),
            // A thread that moved on or ended: the next reading will tell.
            _ => Ok(()),
        }
    }

    fn explore(&mut self, memory: &impl ReadMemory, layout: &Layout) -> Result<(), ReadError> {
        let Some(thread) = threads::read_thread(memory, layout, self.thread)? else {
            return Ok(());
        };
        if let CurrentFrame::BehindCFrame { current_frame, .. } = layout.thread.current_frame {
            self.plan.add_cframe(thread.frame_pointer + current_frame);
        }
        self.plan.set_chunks(chunks(memory, &thread)?);
        for _ in 0..EXPLORATIONS {
            self.first.prepare(layout, &self.plan);
            self.middle.prepare(layout, &self.plan);
            let mut segments = Segments::new();
            self.first.add_forward(layout, self.thread, &self.plan, &mut segments);
            self.middle.add(layout, self.thread, &self.plan, &mut segments);
            memory.read_batch(&mut segments)?;
            drop(segments);
            match self.first.walk(layout, self.thread, &self.plan, &self.middle) {
                Err(Broken::Uncovered(frame)) => self.follow_uncovered(memory, layout, frame)?,
                Ok(()) | Err(Broken::Torn) => break,
            }
        }
        Ok(())
    }

    /// Adds frames to the plan, one after the other, until one that it covers.
    fn follow_uncovered(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        mut frame: Address,
    ) -> Result<(), ReadError> {
        let mut bytes = [0; MAX_FRAME];
        let bytes = &mut bytes[..frame_bytes(layout)];
        let mut known: HashSet<Address> = self.plan.loose.iter().copied().collect();
        for _ in 0..MAX_FRAMES {
            let plan = &self.plan;
            let is_covered = plan.covers(frame, layout.frame.size) || !known.insert(frame);
            if is_covered || frame.is_null() || plan.loose.len() + plan.foreign.len() > MAX_FRAMES {
                break;
            }
            memory.read(frame, bytes)?;
            let Some(found) = decode_frame(&layout.frame, frame, bytes) else { break };
            self.plan.add_frame(frame, found.is_python);
            frame = found.previous;
        }
        Ok(())
    }

    /// Keeps what both readings agree on: the calls from the outermost inward that were the same, linked in
    /// the same way. They have been on the stack all the while.
    fn compare(&mut self, layout: &Layout) -> Consistency {
        self.stack.clear();
        for reading in [&mut self.first, &mut self.second] {
            if reading.walk(layout, self.thread, &self.plan, &self.middle).is_err() {
                return Consistency::None;
            }
        }
        let frames = &self.second.frames;
        let same = self.agreed(layout);
        let whole = same == self.first.frames.len() && same == frames.len();
        if !whole {
            self.stack.push(RawFrame::UNREAD);
        }
        let outer = &frames[frames.len() - same..];
        self.stack.extend(outer.iter().filter(|frame| frame.is_python).map(|frame| frame.raw));
        remember(&mut self.last, frames);
        self.plan.forget_unused(frames);
        match (self.ends_at_its_root(whole), whole, self.stack.len()) {
            (false, ..) | (true, false, 0 | 1) => Consistency::None,
            (true, true, _) => Consistency::Whole,
            (true, false, _) => Consistency::Outer,
        }
    }

    /// How many frames, from the outermost inward, are believed.
    ///
    /// A frame that has moved on in between has returned from its call, whatever it calls now. The frames of
    /// a data stack are read at one moment, those elsewhere (generators; all frames to 3.10) at others, so
    /// these and their neighbours have to be the same in the reading before, too: what comes and goes as
    /// fast as it is read may be the same twice by chance.
    fn agreed(&self, layout: &Layout) -> usize {
        let (first, second) = (&self.first.frames, &self.second.frames);
        let stood_still = self.stood_still(layout);
        let (mut agreed, mut calls) = (0, 0);
        let mut caller: Option<&Linked> = None;
        for (before, now) in first.iter().rev().zip(second.iter().rev()) {
            if !before.links_as(now) || !self.was_live(layout, now.address) {
                break;
            }
            if now.is_python {
                let beside_loose = now.is_loose || caller.is_some_and(|caller| caller.is_loose);
                let neighbours = calls - usize::from(caller.is_some() && now.is_loose)..=calls;
                if beside_loose && !(stood_still && self.was_there_before(layout, neighbours, second)) {
                    break;
                }
                caller = Some(now);
                calls += 1;
            }
            agreed += 1;
            if before.raw.instruction != now.raw.instruction {
                break;
            }
        }
        agreed
    }

    /// Whether these calls, counted from the outermost, were in the readings before.
    fn was_there_before(&self, layout: &Layout, calls: RangeInclusive<usize>, now: &[Linked]) -> bool {
        let needed = if layout.frame.owner.is_some() { GENERATOR_READINGS } else { HEAP_READINGS };
        let now = now.iter().rev().filter(|frame| frame.is_python).skip(*calls.start());
        let Some(before) = self.last.get(calls) else { return false };
        before.iter().zip(now).all(|(before, now)| before.call.links_as(now) && before.readings >= needed)
    }

    /// Whether the innermost frame was the same at all three looks at the thread state, as far as that tells:
    /// 3.11 and 3.12 keep it elsewhere.
    fn stood_still(&self, layout: &Layout) -> bool {
        match layout.thread.current_frame {
            CurrentFrame::InThread(offset) => {
                let innermost = |header| pointer_at(header, offset);
                innermost(&self.middle.thread) == innermost(&self.second.header)
                    && innermost(&self.first.header) == innermost(&self.second.header)
            }
            CurrentFrame::BehindCFrame { .. } => true,
        }
    }

    /// Whether a frame was below the top of the data stack at all three looks at the thread state. Frames that
    /// were left lie about above the top, and others are written over them: a walk that starts at one goes
    /// astray, and two walks may go astray alike.
    fn was_live(&self, layout: &Layout, frame: Address) -> bool {
        [&self.first.header, &self.middle.thread, &self.second.header].into_iter().all(|header| {
            match threads::data_stack(layout, header) {
                Some(stack) => !(stack.top..stack.limit).contains(&frame),
                None => true,
            }
        })
    }

    /// Whether a reading ends at the thread's outermost frame, which hardly ever changes: a walk that went
    /// astray ends elsewhere. If it does change, some whole readings in a row have to say so.
    fn ends_at_its_root(&mut self, whole: bool) -> bool {
        let root = self.second.root().map(|frame| frame.address);
        if self.root.known == Some(root) {
            return true;
        }
        if !whole {
            return false;
        }
        let seen = &mut self.root;
        seen.readings = if seen.other == root { seen.readings.saturating_add(1) } else { 1 };
        seen.other = root;
        let needed = if seen.known.is_none() { FIRST_ROOT_READINGS } else { ROOT_READINGS };
        if seen.readings >= needed {
            seen.known = Some(root);
        }
        seen.known == Some(root)
    }
}

/// A thread's outermost call.
#[derive(Debug, Clone, Copy, Default)]
struct Root {
    /// As it is believed to be; the outer `None` before the first whole reading.
    known: Option<Option<Address>>,
    /// Another one that was seen.
    other: Option<Address>,
    readings: u8,
}

/// A call, and in how many readings in a row it was there.
#[derive(Debug, Clone, Copy)]
struct Seen {
    call: Linked,
    readings: u8,
}

/// Takes over the calls of a reading, given innermost first.
fn remember(last: &mut Vec<Seen>, frames: &[Linked]) {
    let mut depth = 0;
    for &call in frames.iter().rev().filter(|frame| frame.is_python) {
        match last.get_mut(depth) {
            Some(seen) if seen.call.links_as(&call) => seen.readings = seen.readings.saturating_add(1),
            Some(seen) => *seen = Seen { call, readings: 1 },
            None => last.push(Seen { call, readings: 1 }),
        }
        depth += 1;
    }
    last.truncate(depth);
}

/// The C library's descriptor of a thread, its `struct pthread`.
#[derive(Debug, Clone, Copy)]
struct Descriptor {
    /// Where in it the kernel's id is.
    offset: u64,
    /// Where it is; zero while that is not known.
    pthread: u64,
    /// What the last reading found.
    tid: Option<NamespaceTid>,
}

/// How much of a stack two readings agree on; more is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consistency {
    /// Nothing.
    None,
    /// The outer calls; the inner ones came and went in between.
    Outer,
    /// All of it.
    Whole,
}

/// What came of [`StackReader::read_between`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enclosed {
    /// Whether both enclosing segments arrived.
    pub enclosing_arrived: bool,
    /// How much of the stack is consistent.
    pub consistency: Consistency,
}
