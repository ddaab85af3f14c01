//! Code objects: their names, files and lines, decoded once and kept.
//!
//! A code object's address says little about what it is: a program that makes and drops functions puts
//! one at the address of another, with its name and tables at the old addresses too. So every use
//! compares what identifies a code object, down to the length and hash of its strings.

mod line_table;

use std::collections::HashMap;
use std::sync::Arc;

use super::decode::{pointer_at, u32_at};
use super::frames::RawFrame;
use super::layout::{Instruction, Layout};
use super::objects::{ObjectError, read_bytes, read_str};
use crate::sample::Frame;
use crate::target::memory::{ReadError, ReadMemory, Segment};
use crate::units::Address;

/// The longest code object header read, in bytes.
const MAX_HEADER: usize = 256;

/// The longest line table read, in bytes. Generated modules reach some hundred KB.
const MAX_LINE_TABLE: u64 = 4 << 20;

/// Code objects kept at most; beyond it the cache starts anew.
const MAX_CODES: usize = 100_000;

/// Lines kept for one code object at most; beyond it they are looked up each time.
const MAX_LINES: usize = 10_000;

/// What tells one code object from another at the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Identity {
    filename: Address,
    name: Address,
    line_table: Address,
    first_line: u32,
    /// Length and hash of the name and of the file name, as their objects keep them.
    strings: [[u8; 16]; 2],
}

/// What is kept of one code object.
#[derive(Debug)]
struct Code {
    identity: Identity,
    function: Arc<str>,
    file: Arc<str>,
    line_table: Vec<u8>,
    lines: HashMap<u32, Option<u32>>,
}

/// The code objects met so far.
#[derive(Debug, Default)]
pub struct CodeCache {
    codes: HashMap<Address, Code>,
    identities: Vec<(Address, Identity)>,
}

impl CodeCache {
    /// Names, files and lines of a stack, innermost frame first. A code object that cannot be read
    /// leaves a frame that says so.
    ///
    /// # Errors
    /// When the target is gone or refuses.
    pub fn name_stack(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        stack: &[RawFrame],
        frames: &mut Vec<Frame>,
    ) -> Result<(), ReadError> {
        self.verify(memory, layout, stack)?;
        frames.clear();
        frames.extend(stack.iter().map(|raw| self.name_frame(layout, raw)));
        Ok(())
    }

    fn name_frame(&mut self, layout: &Layout, raw: &RawFrame) -> Frame {
        let Some(code) = self.codes.get_mut(&raw.code) else {
            return Frame { function: "<unknown>".into(), file: "<unknown>".into(), line: None };
        };
        let line = instruction_offset(layout, raw).and_then(|offset| code.line(layout, offset));
        Frame { function: Arc::clone(&code.function), file: Arc::clone(&code.file), line }
    }

    /// Makes sure that what is kept of the stack's code objects is what is there now.
    fn verify(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        stack: &[RawFrame],
    ) -> Result<(), ReadError> {
        if self.codes.len() > MAX_CODES {
            self.codes.clear();
        }
        let mut identities = std::mem::take(&mut self.identities);
        read_identities(memory, layout, stack, &mut identities)?;
        for &(address, identity) in &identities {
            if self.codes.get(&address).is_some_and(|code| code.identity == identity) {
                continue;
            }
            match Code::read(memory, layout, address, identity) {
                Ok(code) => self.codes.insert(address, code),
                Err(ObjectError::Memory(error @ (ReadError::Gone | ReadError::Denied))) => return Err(error),
                Err(_) => self.codes.remove(&address),
            };
        }
        self.identities = identities;
        Ok(())
    }
}

impl Code {
    /// Reads everything of a code object, and makes sure that it stayed the same meanwhile.
    fn read(
        memory: &impl ReadMemory,
        layout: &Layout,
        address: Address,
        identity: Identity,
    ) -> Result<Self, ObjectError> {
        let name = match layout.code.qualified_name {
            Some(offset) => memory.read_pointer(address + offset)?,
            None => identity.name,
        };
        let function = read_str(memory, &layout.unicode, name)?;
        let file = read_str(memory, &layout.unicode, identity.filename)?;
        let line_table = read_bytes(memory, &layout.bytes, identity.line_table, MAX_LINE_TABLE)?;

        let raw = RawFrame { code: address, instruction: 0 };
        let mut now = Vec::new();
        read_identities(memory, layout, &[raw], &mut now)?;
        if now != [(address, identity)] {
            return Err(ObjectError::Implausible(address));
        }
        Ok(Code { identity, function: function.into(), file: file.into(), line_table, lines: HashMap::new() })
    }

    fn line(&mut self, layout: &Layout, offset: u32) -> Option<u32> {
        if let Some(&line) = self.lines.get(&offset) {
            return line;
        }
        let line =
            line_table::line_at(layout.code.line_table, &self.line_table, self.identity.first_line, offset);
        if self.lines.len() < MAX_LINES {
            self.lines.insert(offset, line);
        }
        line
    }
}

/// What identifies each distinct code object of a stack; those that cannot be read are left out.
fn read_identities(
    memory: &impl ReadMemory,
    layout: &Layout,
    stack: &[RawFrame],
    identities: &mut Vec<(Address, Identity)>,
) -> Result<(), ReadError> {
    identities.clear();
    identities.extend(stack.iter().map(|raw| (raw.code, Identity::default())));
    identities.sort_unstable_by_key(|(address, _)| *address);
    identities.dedup_by_key(|(address, _)| *address);

    let length = (layout.code.extent() as usize).min(MAX_HEADER);
    let mut headers = vec![[0; MAX_HEADER]; identities.len()];
    let mut segments: Vec<Segment<'_>> = (identities.iter().zip(&mut headers))
        .map(|((address, _), header)| Segment::new(*address, &mut header[..length]))
        .collect();
    memory.read_batch(&mut segments)?;
    for ((_, identity), segment) in identities.iter_mut().zip(&segments) {
        if segment.arrived {
            *identity = Identity::decode(layout, segment.buffer).unwrap_or_default();
        }
    }
    identities.retain(|(_, identity)| !identity.name.is_null());

    // Length and hash are neighbours: CPython `Include/cpython/unicodeobject.h`, 3.7 to 3.15.
    let mut segments: Vec<Segment<'_>> = Vec::with_capacity(identities.len() * 2);
    for (_, identity) in identities.iter_mut() {
        let [name, filename] = &mut identity.strings;
        segments.push(Segment::new(identity.name + layout.unicode.length, name));
        segments.push(Segment::new(identity.filename + layout.unicode.length, filename));
    }
    memory.read_batch(&mut segments)
}

impl Identity {
    fn decode(layout: &Layout, header: &[u8]) -> Option<Self> {
        Some(Identity {
            filename: pointer_at(header, layout.code.filename)?,
            name: pointer_at(header, layout.code.name)?,
            line_table: pointer_at(header, layout.code.line_table.offset())?,
            first_line: u32_at(header, layout.code.first_line)?,
            strings: [[0; 16]; 2],
        })
    }
}

/// Where in its bytecode a frame is, in bytes; `None` where it has not started or the pointer leads elsewhere.
fn instruction_offset(layout: &Layout, raw: &RawFrame) -> Option<u32> {
    let index = || u64::try_from(raw.instruction as u32 as i32).ok();
    let offset = match layout.frame.instruction {
        Instruction::ByteIndex(_) => index()?,
        Instruction::CodeUnitIndex(_) => index()? * 2,
        Instruction::Previous(_) | Instruction::Pointer(_) => {
            Address::new(raw.instruction).offset_from(raw.code + layout.code.bytecode?)?
        }
    };
    u32::try_from(offset).ok()
}
