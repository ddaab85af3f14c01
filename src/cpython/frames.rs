//! The stack of one thread, read while it runs.
//!
//! The thread goes on calling and returning while its frames are read, so everything is read twice in
//! one batch, and a stack is believed when both readings show the same frames linked in the same way.
//! Where the frames lie is remembered from one reading to the next (the plan): in the steady state one
//! system call brings a whole stack twice.
//!
//! To 3.10 frames are objects of their own on the heap. From 3.11 on they lie in the chunks of the
//! thread's data stack (`_PyStackChunk`), save those of generators and coroutines.

use arrayvec::ArrayVec;
use smallvec::SmallVec;

use super::decode::{i32_at, pointer_at, u8_at, u64_at};
use super::layout::{CurrentFrame, FrameLayout, Instruction, Layout};
use super::threads::{self, ThreadHeader};
use crate::target::memory::{ReadError, ReadMemory, Segment};
use crate::units::Address;

/// Frames read at most, from the innermost outward. Python's own limit is 1,000 unless changed.
pub const MAX_FRAMES: usize = 4096;

/// The longest piece of the data stack read at once. Chunks start at 16 KiB (CPython 3.11
/// `Python/pystate.c`, `DATA_STACK_CHUNK_SIZE`) and double where one frame needs more.
const MAX_CHUNK: u64 = 1 << 20;

/// Chunks of one data stack read at most.
const MAX_CHUNKS: usize = 64;

/// The longest frame header read, in bytes: 360 in 3.7.
const MAX_FRAME: usize = 384;

/// How often a stack that moves is read before it is given up for this tick.
const ATTEMPTS: usize = 4;

/// `_PyCFrame`s of a thread read at once.
const CFRAMES: usize = 4;

/// How often the pieces found are read to find the next one.
const EXPLORATIONS: usize = 16;

/// Frames outside the data stack that are read along although the stack did not need them last time.
const UNUSED_FRAMES: usize = 32;

/// Room read beyond the end of the data stack, in bytes, so that a few more calls need no second reading.
const ROOM: u64 = 512;

/// `_PyStackChunk` up to its data: `previous`, `size`, `top` (CPython 3.11 `Include/cpython/pystate.h`,
/// the same to 3.15).
const CHUNK_HEADER: u64 = 24;

/// Frames whose owner is this or more are no Python calls: they belong to the C stack or to the
/// interpreter (CPython `Include/internal/pycore_frame.h` and `pycore_interpframe_structs.h`, 3.12 to 3.15).
const FIRST_FOREIGN_OWNER: u8 = 3;

/// One Python call of a stack, as addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFrame {
    /// Its code object.
    pub code: Address,
    /// The instruction it is at, as the frame has it: an index (to 3.10) or a pointer (from 3.11 on).
    pub instruction: u64,
}

/// Where a stack's pieces were at the last reading.
#[derive(Debug, Default, Clone)]
struct Plan {
    /// The pointers to the innermost frame in the last `_PyCFrame`s (3.11 and 3.12), newest first. C code
    /// that calls back into Python makes one more, so a thread goes back and forth between a few.
    cframes: ArrayVec<Address, CFRAMES>,
    /// Pieces of the data stack: start and length in bytes.
    chunks: SmallVec<[(Address, u64); 2]>,
    /// Frames that lie elsewhere.
    loose: SmallVec<[Address; 8]>,
}

/// One of the two readings.
#[derive(Debug, Default, Clone)]
struct Reading {
    header: Vec<u8>,
    current_frames: [[u8; 8]; CFRAMES],
    chunks: Vec<u8>,
    loose: Vec<u8>,
    frames: Vec<Linked>,
}

/// A frame with its place in the linked list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Linked {
    address: Address,
    previous: Address,
    raw: RawFrame,
    is_python: bool,
}

/// Why a walk along the frames ended before the outermost.
enum Broken {
    /// The plan does not cover this frame.
    Uncovered(Address),
    /// The thread moved on between two pieces.
    Torn,
}

/// Reads one thread's stack again and again, cheaply.
#[derive(Debug, Clone)]
pub struct StackReader {
    thread: Address,
    plan: Plan,
    first: Reading,
    second: Reading,
    stack: Vec<RawFrame>,
}

impl StackReader {
    /// A reader for the stack of the thread state at `thread`.
    pub fn new(thread: Address) -> Self {
        StackReader {
            thread,
            plan: Plan::default(),
            first: Reading::default(),
            second: Reading::default(),
            stack: Vec::new(),
        }
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
        let mut segments = SmallVec::<[Segment<'_>; 16]>::new();
        segments.push(before);
        self.first.add_segments(layout, self.thread, &self.plan, &mut segments);
        self.second.add_segments(layout, self.thread, &self.plan, &mut segments);
        segments.push(after);
        memory.read_batch(&mut segments)?;

        let last = segments.len() - 1;
        let enclosing_arrived = segments[0].arrived && segments[last].arrived;
        let arrived = segments[1..last].iter().all(|segment| segment.arrived);
        drop(segments);
        let consistency = if arrived {
            self.compare(layout)
        } else {
            // Something the plan asks for is not mapped any more.
            self.plan = Plan::default();
            Consistency::None
        };
        Ok(Enclosed { enclosing_arrived, consistency })
    }

    /// The stack that the last reading found, innermost call first; without the calls that moved, where
    /// the reading was [`Consistency::Outer`].
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
            let mut segments = SmallVec::new();
            self.first.add_segments(layout, self.thread, &self.plan, &mut segments);
            memory.read_batch(&mut segments)?;
            drop(segments);
            match self.first.walk(layout, &self.plan) {
                Err(Broken::Uncovered(frame)) => self.follow_uncovered(memory, layout, frame)?,
                _ => break,
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
        while !frame.is_null() && self.plan.loose.len() < MAX_FRAMES {
            if self.plan.covers(frame, layout.frame.size) || self.plan.loose.contains(&frame) {
                break;
            }
            let previous = memory.read_pointer(frame + layout.frame.previous)?;
            self.plan.loose.push(frame);
            frame = previous;
        }
        Ok(())
    }

    /// Keeps what both readings agree on: the calls from the outermost inward that were the same, linked in
    /// the same way. They have been on the stack all the while.
    fn compare(&mut self, layout: &Layout) -> Consistency {
        self.stack.clear();
        for reading in [&mut self.first, &mut self.second] {
            if reading.walk(layout, &self.plan).is_err() {
                return Consistency::None;
            }
        }
        let (first, second) = (&self.first.frames, &self.second.frames);
        let pairs = first.iter().rev().zip(second.iter().rev());
        let same = pairs.take_while(|(first, second)| first.links_as(second)).count();
        let outer = &second[second.len() - same..];
        self.stack.extend(outer.iter().filter(|frame| frame.is_python).map(|frame| frame.raw));
        let whole = same == first.len() && same == second.len();
        self.forget_unused();
        match (whole, self.stack.is_empty()) {
            (true, _) => Consistency::Whole,
            (false, false) => Consistency::Outer,
            (false, true) => Consistency::None,
        }
    }

    /// Loose frames that are no longer part of the stack are read a few times more, since calls come back to
    /// the same places; but not for ever.
    fn forget_unused(&mut self) {
        let frames = &self.second.frames;
        if self.plan.loose.len() > frames.len() + UNUSED_FRAMES {
            self.plan.loose.retain(|loose| frames.iter().any(|frame| frame.address == *loose));
        }
    }
}

/// How much of a stack two readings agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// All of it.
    Whole,
    /// The outer calls; the inner ones came and went in between.
    Outer,
    /// Nothing.
    None,
}

/// What came of [`StackReader::read_between`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enclosed {
    /// Whether both enclosing segments arrived.
    pub enclosing_arrived: bool,
    /// How much of the stack is consistent.
    pub consistency: Consistency,
}

impl Plan {
    fn add_cframe(&mut self, pointer: Address) {
        self.cframes.retain(|known| *known != pointer);
        self.cframes.truncate(CFRAMES - 1);
        self.cframes.insert(0, pointer);
    }

    /// Takes over where the data stack is now. A piece that was longer before will be so again.
    fn set_chunks(&mut self, mut chunks: SmallVec<[(Address, u64); 2]>) {
        for (start, size) in &mut chunks {
            if let Some((_, before)) = self.chunks.iter().find(|(known, _)| known == start) {
                *size = (*size).max(*before);
            }
        }
        self.chunks = chunks;
        let mut loose = std::mem::take(&mut self.loose);
        loose.retain(|frame| !self.covers(*frame, 1));
        self.loose = loose;
    }

    fn covers(&self, frame: Address, length: u64) -> bool {
        self.chunks.iter().any(|&(start, size)| {
            frame.offset_from(start).is_some_and(|offset| offset.saturating_add(length) <= size)
        })
    }
}

impl Linked {
    fn links_as(&self, other: &Linked) -> bool {
        (self.address, self.previous, self.raw.code) == (other.address, other.previous, other.raw.code)
    }
}

impl Reading {
    /// Makes room for what the plan asks for.
    fn prepare(&mut self, layout: &Layout, plan: &Plan) {
        self.header.resize(layout.thread.extent() as usize, 0);
        self.chunks.resize(plan.chunks.iter().map(|(_, size)| *size as usize).sum(), 0);
        self.loose.resize(plan.loose.len() * frame_bytes(layout), 0);
    }

    fn add_segments<'a>(
        &'a mut self,
        layout: &Layout,
        thread: Address,
        plan: &Plan,
        segments: &mut SmallVec<[Segment<'a>; 16]>,
    ) {
        segments.push(Segment::new(thread, &mut self.header));
        for (&pointer, bytes) in plan.cframes.iter().zip(&mut self.current_frames) {
            segments.push(Segment::new(pointer, bytes));
        }
        let mut rest: &mut [u8] = &mut self.chunks;
        for &(start, size) in &plan.chunks {
            let (chunk, others) = rest.split_at_mut(size as usize);
            segments.push(Segment::new(start, chunk));
            rest = others;
        }
        for (&frame, bytes) in plan.loose.iter().zip(self.loose.chunks_exact_mut(frame_bytes(layout))) {
            segments.push(Segment::new(frame, bytes));
        }
    }

    /// Follows the frames through the bytes that arrived.
    fn walk(&mut self, layout: &Layout, plan: &Plan) -> Result<(), Broken> {
        self.frames.clear();
        let mut next = self.innermost(layout, plan).ok_or(Broken::Torn)?;
        let mut loose_seen = 0;
        while !next.is_null() {
            if self.frames.len() == MAX_FRAMES {
                // Deeper than that, or a frame that was used anew while it was read leads back inward.
                return if self.are_distinct() { Ok(()) } else { Err(Broken::Torn) };
            }
            let bytes = (self.frame_in_chunks(layout, plan, next))
                .or_else(|| self.loose_frame(layout, plan, next, &mut loose_seen))
                .ok_or(Broken::Uncovered(next))?;
            let frame = decode(&layout.frame, next, bytes).ok_or(Broken::Torn)?;
            self.frames.push(frame);
            next = frame.previous;
        }
        Ok(())
    }

    /// Whether no frame comes twice.
    fn are_distinct(&self) -> bool {
        let mut addresses: Vec<Address> = self.frames.iter().map(|frame| frame.address).collect();
        addresses.sort_unstable();
        addresses.windows(2).all(|pair| pair[0] != pair[1])
    }

    fn innermost(&self, layout: &Layout, plan: &Plan) -> Option<Address> {
        match layout.thread.current_frame {
            CurrentFrame::InThread(offset) => pointer_at(&self.header, offset),
            CurrentFrame::BehindCFrame { cframe, current_frame } => {
                let pointer = pointer_at(&self.header, cframe)? + current_frame;
                let place = plan.cframes.iter().position(|known| *known == pointer)?;
                Some(Address::new(u64::from_le_bytes(self.current_frames[place])))
            }
        }
    }

    fn frame_in_chunks(&self, layout: &Layout, plan: &Plan, frame: Address) -> Option<&[u8]> {
        let length = frame_bytes(layout);
        let mut chunk_start = 0;
        for &(start, size) in &plan.chunks {
            if let Some(offset) = frame.offset_from(start)
                && offset.saturating_add(length as u64) <= size
            {
                return self.chunks.get(chunk_start + offset as usize..)?.get(..length);
            }
            chunk_start += size as usize;
        }
        None
    }

    /// The plan lists loose frames in the stack's own order, so the next one is where the search starts.
    fn loose_frame(&self, layout: &Layout, plan: &Plan, frame: Address, seen: &mut usize) -> Option<&[u8]> {
        let place = if plan.loose.get(*seen) == Some(&frame) {
            *seen
        } else {
            plan.loose.iter().position(|loose| *loose == frame)?
        };
        *seen = place + 1;
        self.loose.chunks_exact(frame_bytes(layout)).nth(place)
    }
}

fn frame_bytes(layout: &Layout) -> usize {
    (layout.frame.size as usize).min(MAX_FRAME)
}

fn decode(layout: &FrameLayout, address: Address, bytes: &[u8]) -> Option<Linked> {
    let is_python = match layout.owner {
        Some(offset) => u8_at(bytes, offset)? < FIRST_FOREIGN_OWNER,
        None => true,
    };
    let instruction = match layout.instruction {
        Instruction::ByteIndex(offset) | Instruction::CodeUnitIndex(offset) => {
            u64::from(i32_at(bytes, offset)? as u32)
        }
        Instruction::Previous(offset) | Instruction::Pointer(offset) => u64_at(bytes, offset)?,
    };
    // From 3.14 on the lowest bits say who counts the reference (`_PyStackRef`, CPython
    // `Include/internal/pycore_stackref.h`); objects are aligned to 16 bytes.
    let code = Address::new(pointer_at(bytes, layout.code)?.raw() & !7);
    Some(Linked {
        address,
        previous: pointer_at(bytes, layout.previous)?,
        raw: RawFrame { code, instruction },
        is_python: is_python && !code.is_null(),
    })
}

/// The used pieces of a thread's data stack, newest first.
fn chunks(
    memory: &impl ReadMemory,
    thread: &ThreadHeader,
) -> Result<SmallVec<[(Address, u64); 2]>, ReadError> {
    let mut found = SmallVec::new();
    let Some(data_stack) = thread.data_stack else {
        return Ok(found);
    };
    let mut chunk = data_stack.chunk;
    if chunk.is_null() {
        return Ok(found);
    }
    let used = data_stack.top.offset_from(chunk).unwrap_or(0).saturating_add(ROOM);
    let whole = data_stack.limit.offset_from(chunk).unwrap_or(0);
    found.push((chunk, used.min(whole).min(MAX_CHUNK)));
    while found.len() < MAX_CHUNKS {
        let mut header = [0; CHUNK_HEADER as usize];
        memory.read(chunk, &mut header)?;
        chunk = pointer_at(&header, 0).unwrap_or(Address::NULL);
        if chunk.is_null() {
            break;
        }
        memory.read(chunk, &mut header)?;
        let (size, top) = (u64_at(&header, 8).unwrap_or(0), u64_at(&header, 16).unwrap_or(0));
        let used = top.saturating_mul(8).saturating_add(CHUNK_HEADER);
        found.push((chunk, used.min(size).min(MAX_CHUNK)));
    }
    Ok(found)
}
