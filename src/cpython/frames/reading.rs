//! One reading of a thread's stack: which pieces of memory it asks for, and what the bytes say.

use std::collections::{HashMap, HashSet};

use arrayvec::ArrayVec;
use smallvec::SmallVec;

use super::{MAX_FRAMES, RawFrame};
use crate::cpython::decode::{i32_at, pointer_at, u8_at, u64_at};
use crate::cpython::layout::{CurrentFrame, Entry, FrameLayout, Instruction, Layout};
use crate::cpython::threads::ThreadHeader;
use crate::target::memory::{ReadError, ReadMemory, Segment};
use crate::units::Address;

/// The longest piece of a data stack read at once, in bytes, over all its chunks: room for [`MAX_FRAMES`]
/// frames of ordinary size. Chunks start at 16 KiB (CPython 3.11 `Python/pystate.c`,
/// `DATA_STACK_CHUNK_SIZE`).
const MAX_DATA_STACK: u64 = 2 << 20;

/// Chunks of one data stack read at most.
const MAX_CHUNKS: usize = 64;

/// The longest frame header read, in bytes: 360 in 3.7.
pub(super) const MAX_FRAME: usize = 384;

/// How long a thread state is at most, in bytes, up to its first `_PyCFrame` (3.11 and 3.12).
const MAX_THREAD: usize = 2048;

/// `_PyCFrame`s of a thread read at once.
const CFRAMES: usize = 3;

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

/// `FRAME_OWNED_BY_GENERATOR` (the same places, 3.11 to 3.15).
const OWNED_BY_GENERATOR: u8 = 1;

/// The segments of one batch.
pub(super) type Segments<'a> = SmallVec<[Segment<'a>; 16]>;

/// Pieces of a data stack: start and length in bytes.
pub(super) type Chunks = SmallVec<[(Address, u64); 2]>;

/// Where a stack's pieces were at the last reading.
#[derive(Debug, Default, Clone)]
pub(super) struct Plan {
    /// The pointers to the innermost frame in the last `_PyCFrame`s (3.11 and 3.12), newest first. C code
    /// that calls back into Python makes one more, so a thread goes back and forth between a few.
    cframes: ArrayVec<Address, CFRAMES>,
    /// Pieces of the data stack: start and length in bytes.
    pub(super) chunks: Chunks,
    /// Python calls that lie elsewhere.
    pub(super) loose: SmallVec<[Address; 8]>,
    /// Frames that belong to the C stack or to the interpreter.
    pub(super) foreign: SmallVec<[Address; 4]>,
}

/// What is read once, between the two readings. A foreign frame is no call, it only leads from one to the
/// next; that both readings see the same calls on either side of it is witness enough.
#[derive(Debug, Default, Clone)]
pub(super) struct Middle {
    /// The thread state.
    pub(super) thread: Vec<u8>,
    foreign: Vec<u8>,
}

/// One of the two readings.
#[derive(Debug, Default, Clone)]
pub(super) struct Reading {
    pub(super) header: Vec<u8>,
    current_frames: [[u8; 8]; CFRAMES],
    chunks: Vec<u8>,
    loose: Vec<u8>,
    pub(super) frames: Vec<Linked>,
}

/// A frame with its place in the linked list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Linked {
    pub(super) address: Address,
    pub(super) previous: Address,
    pub(super) raw: RawFrame,
    pub(super) is_python: bool,
    /// Whether it is a Python call whose frame lies outside the data stack: read at another moment than those
    /// of the data stack.
    pub(super) is_loose: bool,
    is_generator: bool,
    /// Whether it is marked as a call out of C, where such are.
    is_entry: bool,
}

/// Why a walk along the frames ended before the outermost.
pub(super) enum Broken {
    /// The plan does not cover this frame, or takes it for something else.
    Uncovered(Address),
    /// The thread moved on between two pieces.
    Torn,
}

impl Plan {
    pub(super) fn add_cframe(&mut self, pointer: Address) {
        self.cframes.retain(|known| *known != pointer);
        self.cframes.truncate(CFRAMES - 1);
        self.cframes.insert(0, pointer);
    }

    /// Takes over where the data stack is now. A piece that was longer before will be so again.
    pub(super) fn set_chunks(&mut self, mut chunks: Chunks) {
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

    /// Loose frames that are no longer part of the stack are read a few times more, since calls come back to
    /// the same places; but not for ever.
    pub(super) fn forget_unused(&mut self, frames: &[Linked]) {
        if self.loose.len() + self.foreign.len() > frames.len() + UNUSED_FRAMES {
            let used: HashSet<Address> = frames.iter().map(|frame| frame.address).collect();
            self.loose.retain(|known| used.contains(known));
            self.foreign.retain(|known| used.contains(known));
        }
    }

    /// Adds a frame that lies outside the data stack.
    pub(super) fn add_frame(&mut self, frame: Address, is_python: bool) {
        self.foreign.retain(|known| *known != frame);
        if is_python {
            self.loose.push(frame);
        } else {
            self.foreign.push(frame);
        }
    }

    pub(super) fn covers(&self, frame: Address, length: u64) -> bool {
        self.chunks.iter().any(|&(start, size)| {
            frame.offset_from(start).is_some_and(|offset| offset.saturating_add(length) <= size)
        })
    }
}

impl Plan {
    pub(super) fn bytes(&self) -> usize {
        (self.loose.capacity() + self.foreign.capacity()) * size_of::<Address>()
    }
}

impl Linked {
    pub(super) fn links_as(&self, other: &Linked) -> bool {
        (self.address, self.previous, self.raw.code) == (other.address, other.previous, other.raw.code)
    }
}

impl Middle {
    pub(super) fn bytes(&self) -> usize {
        self.thread.capacity() + self.foreign.capacity()
    }

    /// Makes room for what the plan asks for.
    pub(super) fn prepare(&mut self, layout: &Layout, plan: &Plan) {
        self.thread.resize(layout.thread.extent() as usize, 0);
        self.foreign.resize(plan.foreign.len() * frame_bytes(layout), 0);
    }

    /// Asks for it.
    pub(super) fn add<'a>(
        &'a mut self,
        layout: &Layout,
        thread: Address,
        plan: &Plan,
        segments: &mut Segments<'a>,
    ) {
        segments.push(Segment::new(thread, &mut self.thread));
        for (&frame, bytes) in plan.foreign.iter().zip(self.foreign.chunks_exact_mut(frame_bytes(layout))) {
            segments.push(Segment::new(frame, bytes));
        }
    }

    fn bytes_read(&self) -> usize {
        self.thread.len() + self.foreign.len()
    }

    fn frame(&self, layout: &Layout, foreign: &mut InOrder<'_>, frame: Address) -> Option<&[u8]> {
        self.foreign.chunks_exact(frame_bytes(layout)).nth(foreign.place(frame)?)
    }
}

impl Reading {
    pub(super) fn bytes(&self) -> usize {
        let frames = self.frames.capacity() * size_of::<Linked>();
        self.header.capacity() + self.chunks.capacity() + self.loose.capacity() + frames
    }

    /// Makes room for what the plan asks for.
    pub(super) fn prepare(&mut self, layout: &Layout, plan: &Plan) {
        self.header.resize(layout.thread.extent() as usize, 0);
        self.chunks.resize(plan.chunks.iter().map(|(_, size)| *size as usize).sum(), 0);
        self.loose.resize(plan.loose.len() * frame_bytes(layout), 0);
    }

    /// Asks for the pointers first, then for the frames.
    pub(super) fn add_forward<'a>(
        &'a mut self,
        layout: &Layout,
        thread: Address,
        plan: &Plan,
        segments: &mut Segments<'a>,
    ) {
        let Reading { header, current_frames, chunks, loose, .. } = self;
        add_pointers(header, current_frames, thread, plan, segments);
        add_frames(chunks, loose, layout, plan, segments);
    }

    /// Asks for the frames first, then for the pointers.
    pub(super) fn add_backward<'a>(
        &'a mut self,
        layout: &Layout,
        thread: Address,
        plan: &Plan,
        segments: &mut Segments<'a>,
    ) {
        let Reading { header, current_frames, chunks, loose, .. } = self;
        add_frames(chunks, loose, layout, plan, segments);
        add_pointers(header, current_frames, thread, plan, segments);
    }

    /// Follows the frames through the bytes that arrived.
    pub(super) fn walk(
        &mut self,
        layout: &Layout,
        thread: Address,
        plan: &Plan,
        middle: &Middle,
    ) -> Result<(), Broken> {
        self.frames.clear();
        let mut next = self.innermost(layout, thread, plan).ok_or(Broken::Torn)?;
        let mut loose = InOrder::new(&plan.loose);
        let mut foreign = InOrder::new(&plan.foreign);
        // Frames do not overlap, so there is room for so many.
        let read = self.chunks.len() + self.loose.len() + middle.bytes_read();
        let room = read / frame_bytes(layout).max(1);
        while !next.is_null() {
            if self.frames.len() > room {
                return Err(Broken::Torn);
            }
            if self.frames.len() == MAX_FRAMES {
                // Deeper than that, or a frame that was used anew while it was read leads back inward.
                return if self.are_distinct() { Ok(()) } else { Err(Broken::Torn) };
            }
            let own = (self.frame_in_chunks(layout, plan, next))
                .or_else(|| self.loose.chunks_exact(frame_bytes(layout)).nth(loose.place(next)?));
            let bytes = own.or_else(|| middle.frame(layout, &mut foreign, next));
            let frame = decode_frame(&layout.frame, next, bytes.ok_or(Broken::Uncovered(next))?);
            let mut frame = frame.ok_or(Broken::Torn)?;
            if own.is_none() && frame.is_python {
                return Err(Broken::Uncovered(next));
            }
            frame.is_loose = frame.is_python && !plan.covers(next, layout.frame.size);
            self.frames.push(frame);
            next = frame.previous;
        }
        if self.starts_well(layout) { Ok(()) } else { Err(Broken::Torn) }
    }

    /// Whether the outermost frame has no caller because it needs none. A generator's has none while it is
    /// suspended: it was, when it was read. A call that is just being made has none yet; a thread without a CPU
    /// can stay at that for many readings.
    fn starts_well(&self, layout: &Layout) -> bool {
        let is_entry = match layout.frame.entry {
            Entry::None => true,
            Entry::Flag(_) => self.root().is_none_or(|root| root.is_entry),
            Entry::Frame => self.frames.last().is_none_or(|frame| !frame.is_python),
        };
        is_entry && self.root().is_none_or(|root| !root.is_generator)
    }

    /// Whether no frame comes twice.
    fn are_distinct(&self) -> bool {
        let mut addresses: Vec<Address> = self.frames.iter().map(|frame| frame.address).collect();
        addresses.sort_unstable();
        addresses.windows(2).all(|pair| pair[0] != pair[1])
    }

    /// The outermost call that a walk has come to.
    pub(super) fn root(&self) -> Option<&Linked> {
        self.frames.iter().rev().find(|frame| frame.is_python)
    }

    /// The innermost frame; null where there is none. A `_PyCFrame` without a frame is the thread's first, which
    /// lies in its thread state; any other has just been left.
    fn innermost(&self, layout: &Layout, thread: Address, plan: &Plan) -> Option<Address> {
        match layout.thread.current_frame {
            CurrentFrame::InThread(offset) => pointer_at(&self.header, offset),
            CurrentFrame::BehindCFrame { cframe, current_frame } => {
                let pointer = pointer_at(&self.header, cframe)? + current_frame;
                let place = plan.cframes.iter().position(|known| *known == pointer)?;
                let frame = Address::new(u64::from_le_bytes(self.current_frames[place]));
                let is_first = pointer.offset_from(thread).is_some_and(|offset| offset < MAX_THREAD as u64);
                Some(frame).filter(|frame| is_first || !frame.is_null())
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
}

/// Addresses that are mostly looked for one after the other: the plan lists frames in the stack's own order.
struct InOrder<'a> {
    addresses: &'a [Address],
    next: usize,
    /// Where each is, if there are many and they are looked for in another order.
    places: Option<HashMap<Address, usize>>,
}

/// So many are looked through one by one.
const FEW: usize = 16;

impl<'a> InOrder<'a> {
    fn new(addresses: &'a [Address]) -> Self {
        InOrder { addresses, next: 0, places: None }
    }

    fn place(&mut self, wanted: Address) -> Option<usize> {
        let place = match self.addresses.get(self.next) {
            Some(next) if *next == wanted => self.next,
            _ if self.addresses.len() <= FEW => self.addresses.iter().position(|known| *known == wanted)?,
            _ => {
                let places =
                    || self.addresses.iter().enumerate().map(|(place, known)| (*known, place)).collect();
                *self.places.get_or_insert_with(places).get(&wanted)?
            }
        };
        self.next = place + 1;
        Some(place)
    }
}

fn add_pointers<'a>(
    header: &'a mut [u8],
    current_frames: &'a mut [[u8; 8]; CFRAMES],
    thread: Address,
    plan: &Plan,
    segments: &mut Segments<'a>,
) {
    segments.push(Segment::new(thread, header));
    for (&pointer, bytes) in plan.cframes.iter().zip(current_frames) {
        segments.push(Segment::new(pointer, bytes));
    }
}

fn add_frames<'a>(
    chunks: &'a mut [u8],
    loose: &'a mut [u8],
    layout: &Layout,
    plan: &Plan,
    segments: &mut Segments<'a>,
) {
    let mut rest = chunks;
    for &(start, size) in &plan.chunks {
        let (chunk, others) = rest.split_at_mut(size as usize);
        segments.push(Segment::new(start, chunk));
        rest = others;
    }
    for (&frame, bytes) in plan.loose.iter().zip(loose.chunks_exact_mut(frame_bytes(layout))) {
        segments.push(Segment::new(frame, bytes));
    }
}

pub(super) fn frame_bytes(layout: &Layout) -> usize {
    (layout.frame.size as usize).min(MAX_FRAME)
}

pub(super) fn decode_frame(layout: &FrameLayout, address: Address, bytes: &[u8]) -> Option<Linked> {
    let owner = match layout.owner {
        Some(offset) => u8_at(bytes, offset)?,
        None => 0,
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
    let is_foreign = owner >= FIRST_FOREIGN_OWNER;
    if code.is_null() && !is_foreign {
        return None;
    }
    Some(Linked {
        address,
        previous: pointer_at(bytes, layout.previous)?,
        raw: RawFrame { code, instruction },
        is_python: !is_foreign,
        is_loose: false,
        is_generator: owner == OWNED_BY_GENERATOR,
        is_entry: match layout.entry {
            Entry::Flag(offset) => u8_at(bytes, offset)? != 0,
            Entry::None | Entry::Frame => false,
        },
    })
}

/// The used pieces of a thread's data stack, newest first.
///
/// # Errors
/// When the memory could not be read.
pub(super) fn chunks(memory: &impl ReadMemory, thread: &ThreadHeader) -> Result<Chunks, ReadError> {
    let mut found = Chunks::new();
    let Some(data_stack) = thread.data_stack.filter(|stack| !stack.chunk.is_null()) else { return Ok(found) };
    let newest = data_stack.chunk;
    let used = data_stack.top.offset_from(newest).unwrap_or(0).saturating_add(ROOM);
    let whole = data_stack.limit.offset_from(newest).unwrap_or(0);
    let mut room = MAX_DATA_STACK;
    let mut take = |size: u64| {
        let taken = size.min(room);
        room -= taken;
        taken
    };
    found.push((newest, take(used.min(whole))));

    let mut header = [0; CHUNK_HEADER as usize];
    memory.read(newest, &mut header)?;
    while let Some(older) = pointer_at(&header, 0).filter(|older| !older.is_null()) {
        if found.len() == MAX_CHUNKS {
            break;
        }
        memory.read(older, &mut header)?;
        let (size, top) = (u64_at(&header, 8).unwrap_or(0), u64_at(&header, 16).unwrap_or(0));
        let used = top.saturating_mul(8).saturating_add(CHUNK_HEADER);
        found.push((older, take(used.min(size))));
    }
    Ok(found)
}
