//! The interpreters of a process and their thread states, as bounded walks along their linked lists.

use smallvec::SmallVec;

use super::decode::{i32_at, pointer_at, u64_at};
use super::layout::{CurrentFrame, Layout};
use crate::target::memory::{ReadError, ReadMemory, Segment};
use crate::target::tasks::Tasks;
use crate::units::{Address, NamespaceTid};

/// More interpreters than a process can usefully have; a longer list is damaged or a trap.
const MAX_INTERPRETERS: usize = 1024;

/// More thread states than a process can usefully have, in all of its interpreters; a longer list is damaged or a trap.
pub const MAX_THREADS: usize = 32_768;

/// The longest thread state header read, in bytes.
const MAX_HEADER: usize = 512;

/// One `PyInterpreterState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interpreter {
    /// Where it is.
    pub address: Address,
    /// CPython's own number for it; 0 is the main interpreter.
    pub id: i64,
}

/// One `PyThreadState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadHeader {
    /// Where it is: what a GIL's `last_holder` points to.
    pub address: Address,
    /// The interpreter it belongs to.
    pub interpreter: Address,
    /// The next older thread state of the interpreter.
    pub next: Address,
    /// Its `pthread_t`, which is what `threading.get_ident()` answers.
    pub pthread: u64,
    /// The kernel's id of its thread, where the interpreter keeps it (3.11 on) and has one.
    pub native_tid: Option<NamespaceTid>,
    /// Its innermost frame, or the `_PyCFrame` that points to it (3.11 and 3.12).
    pub frame_pointer: Address,
    /// Somewhere on the C stack of the thread that runs with it (3.11 and 3.12).
    pub c_stack: Option<Address>,
    /// Where its frames lie (3.11 on).
    pub data_stack: Option<DataStack>,
    /// Whether it may run Python: attached, which with a GIL means that it holds that. `None` where the
    /// interpreter does not keep it (to 3.11).
    pub is_attached: Option<bool>,
    /// Whether it is the thread state that its thread was last attached with, of perhaps several. `None` where the
    /// interpreter does not keep that (to 3.11).
    pub is_current: Option<bool>,
    /// Whether it may not run because another thread has stopped all others. `None` to 3.12.
    pub is_suspended: Option<bool>,
}

/// The newest chunk of a thread's data stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataStack {
    /// Where the chunk starts, with its header.
    pub chunk: Address,
    /// Where the next frame would go.
    pub top: Address,
    /// Where the chunk ends.
    pub limit: Address,
}

/// The process's interpreters, newest first.
///
/// # Errors
/// When the memory could not be read, or the list does not end.
pub fn interpreters(
    memory: &impl ReadMemory,
    layout: &Layout,
    runtime: Address,
) -> Result<Vec<Interpreter>, ReadError> {
    let mut found = Vec::new();
    let mut next = memory.read_pointer(runtime + layout.runtime.interpreters_head)?;
    while !next.is_null() {
        if found.len() == MAX_INTERPRETERS {
            return Err(ReadError::Unmapped(next));
        }
        let id = memory.read_u64(next + layout.interpreter.id)? as i64;
        found.push(Interpreter { address: next, id });
        next = memory.read_pointer(next + layout.interpreter.next)?;
    }
    Ok(found)
}

/// The list of an interpreter's thread states, read again and again.
#[derive(Debug)]
pub struct ThreadList {
    interpreter: Address,
    /// Where they were at the last reading, newest first.
    addresses: Vec<Address>,
    bytes: Vec<u8>,
}

impl ThreadList {
    /// The list of the interpreter at this address.
    pub fn new(interpreter: Address) -> Self {
        ThreadList { interpreter, addresses: Vec::new(), bytes: Vec::new() }
    }

    /// Whose list it is.
    pub fn interpreter(&self) -> Address {
        self.interpreter
    }

    /// Adds the thread states there are now to `found`, newest first.
    ///
    /// The list changes while it is read: a walk that leaves the interpreter or does not end is broken off,
    /// and what it found until then is answered.
    ///
    /// # Errors
    /// When the list's head could not be read.
    pub fn read(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        found: &mut Vec<ThreadHeader>,
    ) -> Result<(), ReadError> {
        let before = found.len();
        if before + self.addresses.len() > MAX_THREADS || !self.read_unchanged(memory, layout, found)? {
            found.truncate(before);
            self.walk(memory, layout, found)?;
            self.addresses.clear();
            self.addresses.extend(found[before..].iter().map(|header| header.address));
        }
        Ok(())
    }

    /// Reads all thread states of the last time at once, and answers whether they are still the list.
    fn read_unchanged(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        found: &mut Vec<ThreadHeader>,
    ) -> Result<bool, ReadError> {
        let length = header_bytes(layout);
        self.bytes.resize(self.addresses.len() * length, 0);
        let mut head = [0; 8];
        let mut segments: SmallVec<[Segment<'_>; 16]> = SmallVec::new();
        segments.push(Segment::new(self.interpreter + layout.interpreter.threads_head, &mut head));
        for (&address, bytes) in self.addresses.iter().zip(self.bytes.chunks_exact_mut(length)) {
            segments.push(Segment::new(address, bytes));
        }
        memory.read_batch(&mut segments)?;
        let all_arrived = segments.iter().all(|segment| segment.arrived);
        drop(segments);
        let mut next = Address::new(u64::from_le_bytes(head));
        for (&address, bytes) in self.addresses.iter().zip(self.bytes.chunks_exact(length)) {
            match decode(bytes, layout, address) {
                Some(header) if address == next && header.interpreter == self.interpreter => {
                    next = header.next;
                    found.push(header);
                }
                _ => return Ok(false),
            }
        }
        Ok(all_arrived && next.is_null())
    }

    fn walk(
        &self,
        memory: &impl ReadMemory,
        layout: &Layout,
        found: &mut Vec<ThreadHeader>,
    ) -> Result<(), ReadError> {
        let mut next = memory.read_pointer(self.interpreter + layout.interpreter.threads_head)?;
        while found.len() < MAX_THREADS && !next.is_null() {
            match read_thread(memory, layout, next) {
                Ok(Some(header)) if header.interpreter == self.interpreter => {
                    next = header.next;
                    found.push(header);
                }
                Err(error) if error.is_final() => return Err(error),
                _ => break,
            }
        }
        Ok(())
    }
}

fn header_bytes(layout: &Layout) -> usize {
    (layout.thread.extent() as usize).min(MAX_HEADER)
}

/// One thread state; `None` where the bytes make no sense.
///
/// # Errors
/// When the memory could not be read.
pub fn read_thread(
    memory: &impl ReadMemory,
    layout: &Layout,
    address: Address,
) -> Result<Option<ThreadHeader>, ReadError> {
    let mut bytes = [0; MAX_HEADER];
    let length = header_bytes(layout);
    memory.read(address, &mut bytes[..length])?;
    Ok(decode(&bytes[..length], layout, address))
}

/// Which of a thread's thread states, the oldest first, it runs with now; `None` where none can be told from the others.
///
/// # Errors
/// When the target is gone or refuses.
pub fn current_of(
    memory: &impl ReadMemory,
    layout: &Layout,
    states: impl Iterator<Item = Address>,
) -> Result<Option<Address>, ReadError> {
    let mut innermost = None;
    for address in states {
        let header = match read_thread(memory, layout, address) {
            Ok(Some(header)) => header,
            Err(error) if error.is_final() => return Err(error),
            _ => continue,
        };
        match header.is_current {
            Some(true) => return Ok(Some(address)),
            Some(false) => {}
            // To 3.11 none is marked. One that has frames is inside of those before it, save for one that was left by
            // the call of another.
            None if has_frames(memory, layout, &header) => innermost = Some(address),
            None => {}
        }
    }
    Ok(innermost)
}

fn has_frames(memory: &impl ReadMemory, layout: &Layout, header: &ThreadHeader) -> bool {
    let frame = match layout.thread.current_frame {
        CurrentFrame::InThread(_) => Ok(header.frame_pointer),
        CurrentFrame::BehindCFrame { current_frame, .. } => {
            memory.read_pointer(header.frame_pointer + current_frame)
        }
    };
    frame.is_ok_and(|frame| !frame.is_null())
}

pub(super) fn decode(bytes: &[u8], layout: &Layout, address: Address) -> Option<ThreadHeader> {
    let fields = &layout.thread;
    let frame_pointer = match fields.current_frame {
        CurrentFrame::InThread(offset) => offset,
        CurrentFrame::BehindCFrame { cframe, .. } => cframe,
    };
    let native_tid = match fields.native_thread_id {
        Some(offset) => i32::try_from(u64_at(bytes, offset)?).ok().filter(|&tid| tid > 0),
        None => None,
    };
    let status = fields.status.and_then(|offset| i32_at(bytes, offset));
    Some(ThreadHeader {
        address,
        interpreter: pointer_at(bytes, fields.interpreter)?,
        next: pointer_at(bytes, fields.next)?,
        pthread: u64_at(bytes, fields.thread_id)?,
        native_tid: native_tid.map(NamespaceTid::new),
        frame_pointer: pointer_at(bytes, frame_pointer)?,
        c_stack: c_stack(fields.current_frame, address, pointer_at(bytes, frame_pointer)?),
        data_stack: data_stack(layout, bytes),
        is_attached: status.map(|status| status & ACTIVE != 0),
        is_current: status.map(|status| status & BOUND_GILSTATE != 0),
        is_suspended: fields.attachment.and_then(|offset| Some(i32_at(bytes, offset)? == SUSPENDED)),
    })
}

/// A `_PyCFrame` is on the C stack, save for the outermost, which is in the thread state (`root_cframe`).
fn c_stack(current_frame: CurrentFrame, thread_state: Address, cframe: Address) -> Option<Address> {
    let is_on_stack = cframe.offset_from(thread_state).is_none_or(|offset| offset > MAX_HEADER as u64);
    (matches!(current_frame, CurrentFrame::BehindCFrame { .. }) && is_on_stack).then_some(cframe)
}

/// `active`, the fifth bit of `PyThreadState._status` (CPython `Include/cpython/pystate.h`, 3.12 to 3.15): set
/// and cleared with the attachment (`tstate_activate` in `Python/pystate.c`).
const ACTIVE: i32 = 1 << 4;

/// `bound_gilstate`, the fourth: set with each attachment and cleared in the thread's other thread states
/// (`bind_gilstate_tstate` in `Python/pystate.c`).
const BOUND_GILSTATE: i32 = 1 << 3;

/// `_Py_THREAD_SUSPENDED` (CPython 3.13 to 3.15 `Include/internal/pycore_pystate.h`).
const SUSPENDED: i32 = 2;

/// Where a thread's frames lie, out of the bytes of its thread state.
pub(super) fn data_stack(layout: &Layout, header: &[u8]) -> Option<DataStack> {
    layout.thread.datastack_chunk.and_then(|offset| decode_data_stack(header, offset))
}

/// `datastack_chunk`, `datastack_top` and `datastack_limit` are neighbours (CPython
/// `Include/cpython/pystate.h`, 3.11 to 3.15); only the first is published by the debug offsets.
fn decode_data_stack(bytes: &[u8], offset: u64) -> Option<DataStack> {
    Some(DataStack {
        chunk: pointer_at(bytes, offset)?,
        top: pointer_at(bytes, offset + 8)?,
        limit: pointer_at(bytes, offset + 16)?,
    })
}

/// Where glibc keeps a thread's kernel id in its descriptor, `struct pthread`: the only way to it before
/// 3.11. The offset changes with glibc and architecture (720 on x86-64 with glibc 2.31 to 2.41), so it is
/// found by looking for ids that the kernel says the process has.
#[derive(Debug, Default)]
pub struct PthreadTid {
    offset: Option<u64>,
}

/// Where it is in glibc 2.26 to 2.41, on x86-64 and on aarch64.
const USUAL_OFFSETS: [u64; 2] = [720, 208];

/// How much of a descriptor is searched, in bytes.
const DESCRIPTOR: usize = 2048;

/// Descriptors that are searched at most: of more threads these decide.
const MAX_DESCRIPTORS: usize = 1024;

impl PthreadTid {
    /// Finds the offset at which every thread's descriptor holds an id of the process, each another one.
    pub fn learn(
        &mut self,
        memory: &impl ReadMemory,
        threads: &[ThreadHeader],
        tasks: impl FnOnce() -> Tasks,
    ) {
        let needs_it = threads.iter().any(|thread| thread.native_tid.is_none());
        if self.offset.is_some() || !needs_it {
            return;
        }
        let tasks = tasks();
        // Each possible offset with the ids found there.
        let mut candidates: Option<Vec<(u64, Vec<i32>)>> = None;
        let mut descriptors: Vec<u64> = threads.iter().map(|thread| thread.pthread).collect();
        descriptors.sort_unstable();
        descriptors.dedup();
        descriptors.truncate(MAX_DESCRIPTORS);
        for pthread in descriptors {
            let mut descriptor = [0; DESCRIPTOR];
            // A thread that just ended has no descriptor any more; the others decide.
            if memory.read(Address::new(pthread), &mut descriptor).is_err() {
                continue;
            }
            let everywhere =
                || (0..DESCRIPTOR as u64).step_by(4).map(|offset| (offset, Vec::new())).collect();
            let mut fitting = candidates.take().unwrap_or_else(everywhere);
            fitting.retain_mut(|(offset, tids)| {
                // It is 0 once the thread has ended.
                if i32_at(&descriptor, *offset) == Some(0) {
                    return true;
                }
                let tid = i32_at(&descriptor, *offset)
                    .filter(|tid| tasks.contains(NamespaceTid::new(*tid)) && !tids.contains(tid));
                tids.extend(tid);
                tid.is_some()
            });
            candidates = Some(fitting);
        }
        // The ids of a container are small numbers, of which there may be more in a descriptor.
        let rank = |(offset, tids): &(u64, Vec<i32>)| {
            (tids.len(), USUAL_OFFSETS.contains(offset), std::cmp::Reverse(*offset))
        };
        let best = candidates.into_iter().flatten().filter(|(_, tids)| !tids.is_empty()).max_by_key(rank);
        self.offset = best.map(|(offset, _)| offset);
    }

    /// Where in its descriptor a thread's kernel id is; `None` where that has not been found, or the
    /// interpreter keeps the ids itself.
    pub fn offset(&self) -> Option<u64> {
        self.offset
    }

    /// The kernel's id of the thread with this descriptor.
    pub fn of(&self, memory: &impl ReadMemory, pthread: u64) -> Option<NamespaceTid> {
        let mut bytes = [0; 4];
        memory.read(Address::new(pthread) + self.offset?, &mut bytes).ok()?;
        decode_tid(bytes)
    }
}

/// A thread's kernel id in its descriptor; zero or less once it has ended.
pub(super) fn decode_tid(bytes: [u8; 4]) -> Option<NamespaceTid> {
    Some(i32::from_le_bytes(bytes)).filter(|&tid| tid > 0).map(NamespaceTid::new)
}
