//! Code objects: their names, files and lines, decoded once and kept.
//!
//! A code object's address says little about what it is: a program that makes and drops functions puts
//! one at the address of another, with its name and tables at the old addresses too. So what identifies a
//! code object is compared, down to the length and hash of its strings: at each use at first. An address
//! that has been the same for long enough, with none near it that was not, is settled: it is trusted, and
//! compared a few times a second ([`CodeCache::confirm`]); where it changed, what was made of it since the
//! last time is in doubt.

mod line_table;

use std::sync::Arc;

use super::decode::{pointer_at, u32_at};
use super::frames::RawFrame;
use super::layout::{Instruction, Layout};
use super::objects::{FoundStr, ObjectError};
use crate::sample::{Frame, UNKNOWN_NAME};
use crate::target::memory::{ReadError, ReadMemory, Segment};
use crate::units::Address;

type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
type HashSet<T> = std::collections::HashSet<T, foldhash::fast::RandomState>;

/// The longest code object header read, in bytes.
const MAX_HEADER: usize = 256;

/// The longest line table read, in bytes. Generated modules reach some hundred KB.
const MAX_LINE_TABLE: u64 = 1 << 20;

/// Code objects kept at most; beyond it the cache starts anew.
const MAX_CODES: usize = 100_000;

/// Bytes of all names, tables and lines together at most; beyond it the cache starts anew, too.
const MAX_BYTES: usize = 64 << 20;

/// Lines kept for one code object at most; beyond it they are looked up each time.
const MAX_LINES: usize = 10_000;

/// Over how many confirmations in a row all comparisons have to agree before a code object is settled. A few a
/// second: two code objects that take turns at one address do so in less time, or hardly ever.
const QUIET_SPANS: u32 = 5;

/// How much longer it takes, after each change, until an address is settled again.
const DISTRUST: u32 = 8;

/// How many bits of an address tell places within one region, where a code object that changes says that
/// memory is being used anew: two that take turns at one address may look settled to whoever looks rarely. As
/// large as an arena (CPython 3.10 `Objects/obmalloc.c`, `ARENA_BITS`).
const REGION_BITS: u32 = 20;

/// The offset of a frame that has not started: an instruction of two bytes before the first.
const BEFORE_FIRST: i32 = -2;

/// How many bytes of a line table, from its length on, tell it from others: those of most functions are not
/// much longer. A `bytes` object of one byte has as many (CPython `Objects/bytesobject.c`).
const LINES_START: usize = 32;

/// What tells one code object from another at the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Identity {
    fields: Fields,
    contents: Contents,
}

/// Its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Fields {
    filename: Address,
    name: Address,
    line_table: Address,
    qualified_name: Address,
    first_line: u32,
}

/// What its fields lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Contents {
    /// Length and hash of the name, the file name and the qualified name, as their objects keep them.
    strings: [[u8; 16]; 3],
    /// The length of the line table, and how it starts.
    lines: [u8; LINES_START],
}

/// What a comparison of a stack's code objects has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// All are settled: nothing was compared.
    Settled,
    /// None is another than before.
    Same,
    /// At least one is another than before, or was not known before.
    Changed,
}

/// What is kept of one code object.
#[derive(Debug)]
struct Code {
    identity: Identity,
    function: Arc<str>,
    file: Arc<str>,
    line_table: Vec<u8>,
    lines: HashMap<u32, Option<u32>>,
    trust: Trust,
}

/// How far the code object at an address can be expected to stay the same.
#[derive(Debug, Clone, Copy)]
struct Trust {
    /// Whether it was compared since the last confirmation, and was the same.
    has_agreed: bool,
    /// Confirmations in a row before which it was so.
    quiet_spans: u32,
    needed: u32,
    is_settled: bool,
}

/// The code objects met so far.
#[derive(Debug)]
pub struct CodeCache {
    unknown: Arc<str>,
    codes: HashMap<Address, Code>,
    /// Those that are not settled yet.
    unsettled: Vec<Address>,
    /// Regions where one has changed since the last confirmation.
    restless: HashSet<u64>,
    wanted: Vec<Address>,
    identities: Vec<(Address, Identity)>,
    /// Bytes of what is kept of all, and of what was kept before at their addresses.
    bytes: usize,
    /// How many more bytes of line tables may be searched.
    lines_left: usize,
    /// Whether there were more to be searched.
    has_all_lines: bool,
}

/// What has come of those that were settled, at a confirmation.
#[derive(Debug)]
pub struct Confirmed {
    /// Those that are others now, in order.
    pub changed: Vec<Address>,
    /// Whether any is no longer settled: those that have changed, and those near one that has.
    pub came_loose: bool,
}

/// A code object that is not settled, to be looked at once more.
#[derive(Debug)]
pub struct Witness {
    code: Address,
    known: Identity,
    header: [u8; MAX_HEADER],
    contents: Contents,
}

impl Default for CodeCache {
    fn default() -> Self {
        CodeCache {
            unknown: UNKNOWN_NAME.into(),
            codes: HashMap::default(),
            unsettled: Vec::new(),
            restless: HashSet::default(),
            wanted: Vec::new(),
            identities: Vec::new(),
            bytes: 0,
            lines_left: 0,
            has_all_lines: true,
        }
    }
}

impl CodeCache {
    /// Whether the cache has to start anew.
    pub fn is_full(&self) -> bool {
        self.codes.len() > MAX_CODES || self.bytes > MAX_BYTES
    }

    /// From now on so many bytes of line tables may be searched.
    pub fn allow_lines(&mut self, bytes: usize) {
        (self.lines_left, self.has_all_lines) = (bytes, true);
    }

    /// Whether no line was left out since then for want of that.
    pub fn has_all_lines(&self) -> bool {
        self.has_all_lines
    }

    /// The name, file and line of a frame, whose code object has to be verified before; one that could not be
    /// read gives a frame that says so. `None` for a frame that is no call of the program's.
    pub fn name_frame(&mut self, layout: &Layout, raw: &RawFrame) -> Option<Frame> {
        let Some(code) = self.codes.get_mut(&raw.code) else {
            let unknown = || Arc::clone(&self.unknown);
            return Some(Frame { function: unknown(), file: unknown(), line: None });
        };
        if code.is_shim() {
            return None;
        }
        let line = instruction_offset(layout, raw).and_then(|offset| match code.known_line(offset) {
            Some(line) => line,
            None if code.line_table.len() > self.lines_left => {
                self.has_all_lines = false;
                None
            }
            None => {
                self.lines_left -= code.line_table.len();
                self.bytes += size_of::<(u32, Option<u32>)>();
                code.find_line(layout, offset)
            }
        });
        Some(Frame { function: Arc::clone(&code.function), file: Arc::clone(&code.file), line })
    }

    /// Whether a code object is trusted without being looked at.
    pub fn is_settled(&self, code: Address) -> bool {
        self.codes.get(&code).is_some_and(|code| code.trust.is_settled)
    }

    /// Makes sure that what is kept of a stack's code objects is what is there now, save for those that are
    /// settled.
    ///
    /// # Errors
    /// When the target is gone or refuses.
    pub fn verify(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        stack: &[RawFrame],
    ) -> Result<Verified, ReadError> {
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.clear();
        let codes = stack.iter().map(|raw| raw.code).filter(|code| !code.is_null());
        wanted.extend(codes.filter(|code| !self.is_settled(*code)));
        let verified = match wanted.is_empty() {
            true => Verified::Settled,
            false => self.verify_each(memory, layout, &mut wanted)?,
        };
        self.wanted = wanted;
        Ok(verified)
    }

    fn verify_each(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        wanted: &mut Vec<Address>,
    ) -> Result<Verified, ReadError> {
        let mut verified = Verified::Same;
        let mut identities = std::mem::take(&mut self.identities);
        read_identities(memory, layout, wanted, &mut identities)?;
        for &(address, identity) in &identities {
            let known = self.codes.get_mut(&address);
            let is_new = known.is_none();
            let trust = match known {
                Some(code) if code.identity == identity => {
                    code.trust.has_agreed = true;
                    continue;
                }
                Some(code) => {
                    self.restless.insert(region(address));
                    code.trust.after_change()
                }
                None => Trust::default(),
            };
            verified = Verified::Changed;
            let code = match Code::read(memory, layout, address, identity, trust) {
                Ok(code) => code,
                Err(ObjectError::Memory(error)) if error.is_final() => return Err(error),
                Err(_) => Code::unknown(trust),
            };
            self.bytes += code.bytes();
            self.codes.insert(address, code);
            if is_new {
                self.unsettled.push(address);
            }
        }
        for address in wanted.iter().filter(|address| !has(&identities, **address)) {
            verified = Verified::Changed;
            if let Some(code) = self.codes.get_mut(address) {
                self.restless.insert(region(*address));
                *code = Code::unknown(code.trust.after_change());
            }
        }
        self.identities = identities;
        Ok(verified)
    }

    /// The code objects of a stack that are known but not settled.
    pub fn witnesses(&self, stack: &[RawFrame]) -> Vec<Witness> {
        let mut codes: Vec<Address> = stack.iter().map(|raw| raw.code).collect();
        codes.sort_unstable();
        codes.dedup();
        let kept = codes.into_iter().filter_map(|code| Some((code, self.codes.get(&code)?)));
        let unsettled =
            kept.filter(|(_, kept)| !kept.trust.is_settled && !kept.identity.fields.name.is_null());
        unsettled.map(|(code, kept)| Witness::new(code, kept.identity)).collect()
    }

    /// Compares settled code objects with what is there now, and settles those that have been the same for long
    /// enough. Where one has changed since the last time, those near it are no longer settled.
    ///
    /// # Errors
    /// When the target is gone or refuses.
    pub fn confirm(
        &mut self,
        memory: &impl ReadMemory,
        layout: &Layout,
        codes: &mut Vec<Address>,
    ) -> Result<Confirmed, ReadError> {
        let mut identities = std::mem::take(&mut self.identities);
        read_identities(memory, layout, codes, &mut identities)?;
        let mut changed = Vec::new();
        for &address in codes.iter() {
            let now = identities.binary_search_by_key(&address, |(address, _)| *address);
            let now = now.ok().map(|place| identities[place].1);
            match self.codes.get_mut(&address) {
                Some(code) if Some(code.identity) == now => continue,
                Some(code) => {
                    self.restless.insert(region(address));
                    *code = Code::unknown(code.trust.after_change());
                    self.unsettled.push(address);
                }
                None => {}
            }
            changed.push(address);
        }
        self.identities = identities;
        let came_loose = self.start_over_where_restless() || !changed.is_empty();
        let known = &mut self.codes;
        self.unsettled.retain(|address| {
            known.get_mut(address).is_some_and(|code| {
                code.trust.end_span();
                !code.trust.is_settled
            })
        });
        Ok(Confirmed { changed, came_loose })
    }

    /// Answers whether any was settled there.
    fn start_over_where_restless(&mut self) -> bool {
        let restless = std::mem::take(&mut self.restless);
        if restless.is_empty() {
            return false;
        }
        let unsettled_before = self.unsettled.len();
        for (address, code) in &mut self.codes {
            if restless.contains(&region(*address)) {
                if code.trust.is_settled {
                    self.unsettled.push(*address);
                }
                code.trust = Trust { needed: code.trust.needed, ..Trust::default() };
            }
        }
        self.unsettled.len() > unsettled_before
    }
}

fn region(address: Address) -> u64 {
    address.raw() >> REGION_BITS
}

impl Witness {
    fn new(code: Address, known: Identity) -> Self {
        Witness { code, known, header: [0; MAX_HEADER], contents: Contents::default() }
    }

    /// Its address.
    pub fn code(&self) -> Address {
        self.code
    }

    /// What has to be read to look at it.
    pub fn segments(&mut self, layout: &Layout) -> impl Iterator<Item = Segment<'_>> {
        let header = Segment::new(self.code, &mut self.header[..header_length(layout)]);
        std::iter::once(header).chain(self.contents.segments(layout, self.known.fields))
    }

    /// Whether what was read then is what is known.
    pub fn agrees(&self, layout: &Layout) -> bool {
        Fields::decode(layout, &self.header) == Some(self.known.fields)
            && self.contents == self.known.contents
    }
}

impl Default for Trust {
    fn default() -> Self {
        Trust { has_agreed: false, quiet_spans: 0, needed: QUIET_SPANS, is_settled: false }
    }
}

impl Trust {
    fn after_change(self) -> Self {
        Trust { needed: self.needed.saturating_mul(DISTRUST), ..Trust::default() }
    }

    fn end_span(&mut self) {
        self.quiet_spans += u32::from(std::mem::take(&mut self.has_agreed));
        self.is_settled = self.quiet_spans >= self.needed;
    }
}

fn has(identities: &[(Address, Identity)], address: Address) -> bool {
    identities.binary_search_by_key(&address, |(address, _)| *address).is_ok()
}

impl Code {
    /// A code object that could not be read, or is not what it was: no identity equals its own.
    fn unknown(trust: Trust) -> Self {
        Code {
            identity: Identity::default(),
            function: UNKNOWN_NAME.into(),
            file: UNKNOWN_NAME.into(),
            line_table: Vec::new(),
            lines: HashMap::default(),
            trust,
        }
    }

    /// Reads everything of a code object, and makes sure that it stayed the same meanwhile.
    fn read(
        memory: &impl ReadMemory,
        layout: &Layout,
        address: Address,
        identity: Identity,
        trust: Trust,
    ) -> Result<Self, ObjectError> {
        let read = || Self::read_contents(memory, layout, address, identity);
        // Twice: what was replaced and put back in between does not read the same.
        let first = read()?;
        if read()? != first {
            return Err(ObjectError::Implausible(address));
        }
        let (function, file, line_table) = first;
        let (function, file, lines) = (function.into(), file.into(), HashMap::default());
        Ok(Code { identity, function, file, line_table, lines, trust })
    }

    /// Function, file and line table, read in one batch between two looks at what identifies them.
    fn read_contents(
        memory: &impl ReadMemory,
        layout: &Layout,
        address: Address,
        identity: Identity,
    ) -> Result<(String, String, Vec<u8>), ObjectError> {
        let fields = identity.fields;
        let function = FoundStr::at(memory, &layout.unicode, fields.qualified_name)?;
        let file = FoundStr::at(memory, &layout.unicode, fields.filename)?;
        let length = memory.read_u64(fields.line_table + layout.bytes.size)?;
        if length > MAX_LINE_TABLE {
            return Err(ObjectError::Implausible(fields.line_table));
        }
        let (mut function_bytes, mut file_bytes) = (vec![0; function.length()], vec![0; file.length()]);
        let mut line_table = vec![0; length as usize];
        let contents = [
            Segment::new(fields.qualified_name, &mut function_bytes),
            Segment::new(fields.filename, &mut file_bytes),
            Segment::new(fields.line_table + layout.bytes.data, &mut line_table),
        ];
        let mut witnesses = [(); 2].map(|()| Witness::new(address, identity));
        let [before, after] = &mut witnesses;
        let mut segments: Vec<Segment<'_>> =
            before.segments(layout).chain(contents).chain(after.segments(layout)).collect();
        memory.read_batch(&mut segments)?;
        let arrived = segments.iter().all(|segment| segment.arrived);
        let is_same = arrived && witnesses.iter().all(|witness| witness.agrees(layout));
        let function = function.text(&layout.unicode, &function_bytes);
        let file = file.text(&layout.unicode, &file_bytes);
        match (function, file) {
            (Some(function), Some(file)) if is_same => Ok((function, file, line_table)),
            _ => Err(ObjectError::Implausible(address)),
        }
    }

    /// Whether this is code that the interpreter puts between two calls, and hides from tracebacks: below the
    /// `__init__` of a class (`_Py_InitCleanup`, CPython `Python/specialize.c`, from 3.13 on), or below a call
    /// out of C (`interpreter_trampoline` in `Python/pylifecycle.c`, 3.12 on).
    fn is_shim(&self) -> bool {
        (&*self.function, &*self.file) == ("__init__", "__init__") || &*self.file == "<shim>"
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.function.len() + self.file.len() + self.line_table.len()
    }

    /// The line of an instruction that was asked for before. Before the first instruction the line is the function's
    /// own, as in tracebacks (`PyCode_Addr2Line`, CPython `Objects/codeobject.c`).
    fn known_line(&self, offset: i32) -> Option<Option<u32>> {
        match u32::try_from(offset) {
            Ok(offset) => self.lines.get(&offset).copied(),
            Err(_) => Some(Some(self.identity.fields.first_line)),
        }
    }

    fn find_line(&mut self, layout: &Layout, offset: i32) -> Option<u32> {
        let offset = u32::try_from(offset).ok()?;
        let line = line_table::line_at(
            layout.code.line_table,
            &self.line_table,
            self.identity.fields.first_line,
            offset,
        );
        if self.lines.len() < MAX_LINES {
            self.lines.insert(offset, line);
        }
        line
    }
}

/// What identifies each of these code objects, which are sorted and made distinct on the way; those that
/// cannot be read are left out.
fn read_identities(
    memory: &impl ReadMemory,
    layout: &Layout,
    codes: &mut Vec<Address>,
    identities: &mut Vec<(Address, Identity)>,
) -> Result<(), ReadError> {
    codes.sort_unstable();
    codes.dedup();
    identities.clear();
    identities.extend(codes.iter().map(|code| (*code, Identity::default())));

    let mut headers = vec![[0; MAX_HEADER]; identities.len()];
    let mut segments: Vec<Segment<'_>> = (identities.iter().zip(&mut headers))
        .map(|((address, _), header)| Segment::new(*address, &mut header[..header_length(layout)]))
        .collect();
    memory.read_batch(&mut segments)?;
    for ((_, identity), segment) in identities.iter_mut().zip(&segments) {
        if segment.arrived {
            identity.fields = Fields::decode(layout, segment.buffer).unwrap_or_default();
        }
    }
    identities.retain(|(_, identity)| !identity.fields.name.is_null());

    let mut segments: Vec<Segment<'_>> = Vec::with_capacity(identities.len() * 4);
    for (_, Identity { fields, contents }) in identities.iter_mut() {
        segments.extend(contents.segments(layout, *fields));
    }
    memory.read_batch(&mut segments)
}

fn header_length(layout: &Layout) -> usize {
    (layout.code.extent() as usize).min(MAX_HEADER)
}

impl Fields {
    fn decode(layout: &Layout, header: &[u8]) -> Option<Self> {
        Some(Fields {
            filename: pointer_at(header, layout.code.filename)?,
            name: pointer_at(header, layout.code.name)?,
            qualified_name: pointer_at(header, layout.code.qualified_name.unwrap_or(layout.code.name))?,
            line_table: pointer_at(header, layout.code.line_table.offset())?,
            first_line: u32_at(header, layout.code.first_line)?,
        })
    }
}

impl Contents {
    /// What has to be read for them. Length and hash are neighbours: CPython `Include/cpython/unicodeobject.h`,
    /// 3.7 to 3.15.
    fn segments(&mut self, layout: &Layout, fields: Fields) -> impl Iterator<Item = Segment<'_>> {
        let [name, filename, qualified_name] = &mut self.strings;
        let length = layout.unicode.length;
        let has_two_names = fields.qualified_name != fields.name;
        [
            Some(Segment::new(fields.name + length, name)),
            Some(Segment::new(fields.filename + length, filename)),
            has_two_names.then(|| Segment::new(fields.qualified_name + length, qualified_name)),
            Some(Segment::new(fields.line_table + layout.bytes.size, &mut self.lines)),
        ]
        .into_iter()
        .flatten()
    }
}

/// Where in its bytecode a frame is, in bytes: negative before its first instruction. `None` where the pointer
/// leads elsewhere.
fn instruction_offset(layout: &Layout, raw: &RawFrame) -> Option<i32> {
    let index = i64::from(raw.instruction as u32 as i32);
    let offset = match layout.frame.instruction {
        Instruction::ByteIndex(_) => index,
        Instruction::CodeUnitIndex(_) => index * 2,
        Instruction::Previous(_) | Instruction::Pointer(_) => {
            let first = raw.code + layout.code.bytecode?;
            raw.instruction.wrapping_sub(first.raw()) as i64
        }
    };
    i32::try_from(offset).ok().filter(|&offset| offset >= BEFORE_FIRST)
}
