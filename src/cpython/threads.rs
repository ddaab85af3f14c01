//! The interpreters of a process and their thread states, as bounded walks along their linked lists.

use super::decode::{pointer_at, u64_at};
use super::layout::{CurrentFrame, Layout};
use crate::target::memory::{ReadError, ReadMemory};
use crate::units::{Address, NamespaceTid};

/// More interpreters than a process can usefully have; a longer list is damaged or a trap.
const MAX_INTERPRETERS: usize = 1024;

/// More thread states than a process can usefully have; a longer list is damaged or a trap.
const MAX_THREADS: usize = 65_536;

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
    /// The newest chunk of its data stack (3.11 on).
    pub datastack_chunk: Option<Address>,
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

/// The thread states of an interpreter, newest first.
///
/// The list changes while it is read: a walk that leaves the interpreter or does not end is broken off,
/// and what it found until then is answered.
///
/// # Errors
/// When the list's head could not be read.
pub fn threads(
    memory: &impl ReadMemory,
    layout: &Layout,
    interpreter: Address,
) -> Result<Vec<ThreadHeader>, ReadError> {
    let mut found = Vec::new();
    let mut next = memory.read_pointer(interpreter + layout.interpreter.threads_head)?;
    while !next.is_null() && found.len() < MAX_THREADS {
        match read_thread(memory, layout, next) {
            Ok(Some(header)) if header.interpreter == interpreter => {
                next = header.next;
                found.push(header);
            }
            Err(error @ (ReadError::Gone | ReadError::Denied)) => return Err(error),
            _ => break,
        }
    }
    Ok(found)
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
    let length = (layout.thread.extent() as usize).min(MAX_HEADER);
    memory.read(address, &mut bytes[..length])?;
    Ok(decode(&bytes[..length], layout, address))
}

fn decode(bytes: &[u8], layout: &Layout, address: Address) -> Option<ThreadHeader> {
    let fields = &layout.thread;
    let frame_pointer = match fields.current_frame {
        CurrentFrame::InThread(offset) => offset,
        CurrentFrame::BehindCFrame { cframe, .. } => cframe,
    };
    let native_tid = match fields.native_thread_id {
        Some(offset) => i32::try_from(u64_at(bytes, offset)?).ok().filter(|&tid| tid > 0),
        None => None,
    };
    Some(ThreadHeader {
        address,
        interpreter: pointer_at(bytes, fields.interpreter)?,
        next: pointer_at(bytes, fields.next)?,
        pthread: u64_at(bytes, fields.thread_id)?,
        native_tid: native_tid.map(NamespaceTid::new),
        frame_pointer: pointer_at(bytes, frame_pointer)?,
        datastack_chunk: fields
            .datastack_chunk
            .and_then(|offset| pointer_at(bytes, offset)),
    })
}
