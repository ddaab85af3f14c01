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

use super::layout::{CurrentFrame, Layout};
use super::threads::{self, ThreadHeader};
use crate::target::memory::{ReadError, ReadMemory, Segment};
use crate::units::{Address, NamespaceTid};
use reading::{Broken, MAX_FRAME, Middle, Plan, Reading, Segments, chunks, decode_frame, frame_bytes};

/// Frames read at most, from the innermost outward. Python's own limit is 1,000 unless changed.
pub const MAX_FRAMES: usize = 4096;

/// How often a stack that moves is read before it is given up for this tick.
const ATTEMPTS: usize = 8;

/// How often the pieces found are read to find the next one.
const EXPLORATIONS: usize = 16;

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
    /// The outermost frame as it was last seen: the one that a stack has to end at.
    root: Option<Address>,
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
            root: None,
            stack: Vec::new(),
            has_arrived: false,
        }
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
        self.first.prepare(layout, &self.plan);
        self.second.prepare(layout, &self.plan);
        self.middle.prepare(layout, &self.plan);
        let mut tid = [0; 4];
        let mut segments = Segments::new();
        segments.push(before);
        self.first.add_forward(layout, self.thread, &self.plan, &mut segments);
        self.middle.add(layout, self.thread, &self.plan, &mut segments);
        self.second.add_backward(layout, self.thread, &self.plan, &mut segments);
        segments.push(after);
        let last = segments.len() - 1;
        if let Some(Descriptor { offset, pthread, .. }) = self.descriptor {
            segments.push(Segment::new(Address::new(pthread) + offset, &mut tid));
        }
        memory.read_batch(&mut segments)?;

        let enclosing_arrived = segments[0].arrived && segments[last].arrived;
        self.has_arrived = segments[1..last].iter().all(|segment| segment.arrived);
        let tid_arrived = segments.get(last + 1).is_some_and(|segment| segment.arrived);
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

    /// Finds out anew where the stack lies, after a reading that failed.
    ///
    /// # Errors
    /// When the target is gone or refuses.
    pub fn learn(&mut self, memory: &impl ReadMemory, layout: &Layout) -> Result<(), ReadError> {
        match self.explore(memory, layout) {
            Err(error @ (ReadError::Gone | ReadError::Denied)) => Err(error),
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
        for _ in 0..MAX_FRAMES {
            let plan = &self.plan;
            let is_covered = plan.covers(frame, layout.frame.size) || plan.loose.contains(&frame);
            if is_covered || frame.is_null() || plan.loose.len() + plan.foreign.len() > MAX_FRAMES {
                break;
            }
            memory.read(frame, bytes)?;
            let Some(found) = decode_frame(&layout.frame, frame, bytes) else { break };
            self.plan.add_frame(layout, self.thread, frame, found.is_python);
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
        let (first, second) = (&self.first.frames, &self.second.frames);
        let pairs = first.iter().rev().zip(second.iter().rev());
        let same = pairs.take_while(|(first, second)| first.links_as(second)).count();
        let outer = &second[second.len() - same..];
        let live = outer.iter().rev().take_while(|frame| self.was_live(layout, frame.address)).count();
        let whole = live == first.len() && live == second.len();
        if !self.ends_at_its_root(whole) {
            return Consistency::None;
        }
        let frames = &self.second.frames;
        let outer = &frames[frames.len() - live..];
        if !whole {
            self.stack.push(RawFrame::UNREAD);
        }
        self.stack.extend(outer.iter().filter(|frame| frame.is_python).map(|frame| frame.raw));
        self.plan.forget_unused(&self.second.frames);
        match (whole, self.stack.len()) {
            (true, _) => Consistency::Whole,
            (false, 0 | 1) => Consistency::None,
            (false, _) => Consistency::Outer,
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
    /// astray ends elsewhere. If it does change, two whole readings in a row have to say so.
    fn ends_at_its_root(&mut self, whole: bool) -> bool {
        let root = self.second.root();
        let is_known = root == self.root;
        if whole {
            self.root = root;
        }
        is_known
    }
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
