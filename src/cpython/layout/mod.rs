//! Where CPython keeps the fields that gilspy reads, as typed data: one table a version, never code.
//! All offsets are in bytes. A version without a table is refused, not treated as the newest.
//!
//! Up to 3.12 the tables are made from the interpreters' own headers (`fixtures/offsets`); from 3.13 on
//! the interpreter publishes them itself, see [`debug_offsets`]. Offsets can differ between patch
//! releases, libcs and architectures: [`locate`](super::locate) checks a table against the live process
//! before it is trusted.

pub mod debug_offsets;
mod objects;
mod v3_10;
mod v3_11;
mod v3_12;
mod v3_7;
mod v3_8;
mod v3_9;

pub use objects::*;

use super::version::Version;

/// Everything gilspy needs to know about one interpreter's data structures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `_PyRuntimeState`.
    pub runtime: RuntimeLayout,
    /// `PyInterpreterState`.
    pub interpreter: InterpreterLayout,
    /// `struct _gil_runtime_state`.
    pub gil: GilLayout,
    /// `PyThreadState`.
    pub thread: ThreadLayout,
    /// `PyFrameObject` (to 3.10), `_PyInterpreterFrame` (from 3.11).
    pub frame: FrameLayout,
    /// `PyCodeObject`.
    pub code: CodeLayout,
    /// `PyUnicodeObject`.
    pub unicode: UnicodeLayout,
    /// `PyBytesObject`.
    pub bytes: BytesLayout,
    /// What lies on the way to an attribute: instances, types, dicts, ints.
    pub objects: ObjectsLayout,
}

/// Fields of `_PyRuntimeState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuntimeLayout {
    /// Pointer to the newest interpreter.
    pub interpreters_head: u64,
}

/// Fields of `PyInterpreterState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterpreterLayout {
    /// Signed 64-bit number of the interpreter; 0 is the main one.
    pub id: u64,
    /// Pointer to the next older interpreter.
    pub next: u64,
    /// Pointer to the newest thread state.
    pub threads_head: u64,
    /// Pointer to the dict `sys.modules`.
    pub modules: u64,
}

/// Where a GIL lives and what is where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GilLayout {
    /// How to get to the struct.
    pub place: GilPlace,
    /// Length of the struct as compiled on glibc: a waiter's futex address lies inside.
    pub size: u64,
    /// `int enabled`, only in free-threaded builds; zero while the GIL is off.
    pub enabled: Option<u64>,
    /// `unsigned long interval`, the switch interval in microseconds.
    pub interval: u64,
    /// `PyThreadState *last_holder`: who holds it, or held it last.
    pub last_holder: u64,
    /// `int locked`: 1 held, 0 free, -1 not initialised.
    pub locked: u64,
    /// `unsigned long switch_number`: handovers since the start.
    pub switch_number: u64,
}

/// How to get to a GIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GilPlace {
    /// One for the whole process, inside `_PyRuntime` at this offset (to 3.11).
    InRuntime(u64),
    /// The interpreter holds a pointer to its GIL at this offset (from 3.12 on).
    BehindInterpreter(u64),
}

/// Fields of `PyThreadState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadLayout {
    /// Pointer to the next older thread state.
    pub next: u64,
    /// Pointer to the interpreter.
    pub interpreter: u64,
    /// How to get to the innermost frame.
    pub current_frame: CurrentFrame,
    /// `unsigned long thread_id`: the `pthread_t`, on Linux the address of the thread's descriptor.
    pub thread_id: u64,
    /// `unsigned long native_thread_id`: the kernel's thread id in the target's namespace (from 3.11 on).
    pub native_thread_id: Option<u64>,
    /// Pointer to the newest chunk of the data stack, where frames live (from 3.11 on); the pointers to its
    /// first free place and to its end follow.
    pub datastack_chunk: Option<u64>,
    /// `_status`, bit fields (from 3.12 on).
    pub status: Option<u64>,
    /// `int state`: detached, attached or suspended (from 3.13 on).
    pub attachment: Option<u64>,
}

impl ThreadLayout {
    /// How many bytes of a thread state hold all the fields gilspy reads.
    pub fn extent(&self) -> u64 {
        let current_frame = match self.current_frame {
            CurrentFrame::InThread(offset) => offset,
            CurrentFrame::BehindCFrame { cframe, .. } => cframe,
        };
        [
            Some(self.next),
            Some(self.interpreter),
            Some(current_frame),
            Some(self.thread_id),
            self.native_thread_id,
            self.datastack_chunk.map(|offset| offset + 16),
            self.status,
            self.attachment,
        ]
        .into_iter()
        .flatten()
        .fold(0, u64::max)
            + 8
    }
}

/// How to get from a thread state to its innermost frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CurrentFrame {
    /// The thread state points to it (to 3.10, and from 3.13 on).
    InThread(u64),
    /// The thread state points to a `_PyCFrame`, which points to it (3.11 and 3.12).
    BehindCFrame {
        /// Offset of the pointer in the thread state.
        cframe: u64,
        /// Offset of the pointer in the `_PyCFrame`.
        current_frame: u64,
    },
}

/// Fields of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLayout {
    /// How many bytes of a frame hold all the fields gilspy reads.
    pub size: u64,
    /// Pointer to the caller's frame.
    pub previous: u64,
    /// Pointer to the code object (tagged in its lowest bits from 3.14 on).
    pub code: u64,
    /// `char owner` (from 3.11 on): frames owned by the C stack or the interpreter are no Python calls.
    pub owner: Option<u64>,
    /// What marks the outermost call.
    pub entry: Entry,
    /// Which instruction it is at.
    pub instruction: Instruction,
}

/// What marks a call out of C, as a thread's outermost is: a new frame without the mark that has no caller has
/// not been linked to its own yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Nothing; frames have their caller from the beginning (to 3.10).
    None,
    /// `bool is_entry` (3.11).
    Flag(u64),
    /// A frame of the C stack or the interpreter below it (from 3.12 on; `entry_frame` of
    /// `_PyEval_EvalFrameDefault` in CPython `Python/ceval.c`).
    Frame,
}

/// How a frame says which instruction it is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// `int f_lasti`, in bytes (to 3.9).
    ByteIndex(u64),
    /// `int f_lasti`, in code units of two bytes (3.10).
    CodeUnitIndex(u64),
    /// Pointer to the last instruction or one of its caches (3.11 and 3.12).
    Previous(u64),
    /// Pointer to the current or next instruction (from 3.13 on).
    Pointer(u64),
}

/// Fields of `PyCodeObject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeLayout {
    /// Pointer to the file's name, a `str`.
    pub filename: u64,
    /// Pointer to the function's name, a `str`.
    pub name: u64,
    /// `int co_firstlineno`.
    pub first_line: u64,
    /// Pointer to the qualified name, a `str` (from 3.11 on).
    pub qualified_name: Option<u64>,
    /// Which bytes say what line an instruction is on.
    pub line_table: LineTable,
    /// Where the bytecode starts inside the code object (from 3.11 on).
    pub bytecode: Option<u64>,
}

impl CodeLayout {
    /// How many bytes of a code object hold all the fields gilspy reads.
    pub fn extent(&self) -> u64 {
        [self.filename, self.name, self.first_line, self.line_table.offset()]
            .into_iter()
            .chain(self.qualified_name)
            .fold(0, u64::max)
            + 8
    }
}

/// The format of a line table, and where the pointer to it (a `bytes`) is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineTable {
    /// `co_lnotab`: pairs of increments, CPython's `Objects/lnotab_notes.txt` (to 3.9).
    Increments(u64),
    /// `co_linetable` of PEP 626: ranges with increments, `Objects/lnotab_notes.txt` (3.10).
    Ranges(u64),
    /// `co_linetable` of PEP 657: locations, `Objects/locations.md` (from 3.11 on).
    Locations(u64),
}

impl LineTable {
    /// Offset of the pointer to the table in the code object.
    pub fn offset(self) -> u64 {
        match self {
            LineTable::Increments(offset) | LineTable::Ranges(offset) | LineTable::Locations(offset) => {
                offset
            }
        }
    }
}

/// Fields of `PyASCIIObject` and `PyCompactUnicodeObject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnicodeLayout {
    /// Length in code points, signed 64-bit.
    pub length: u64,
    /// The 32 bits that hold `kind`, `compact` and `ascii`.
    pub state: u64,
    /// Where the characters of a compact ASCII string start.
    pub ascii_data: u64,
    /// Where the characters of any other compact string start.
    pub compact_data: u64,
    /// Lowest of the three bits of `kind`: 1, 2 or 4 bytes a character.
    pub kind_shift: u32,
    /// The bit `compact`: the characters follow the header.
    pub compact_bit: u32,
    /// The bit `ascii`.
    pub ascii_bit: u32,
}

/// Fields of `PyBytesObject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BytesLayout {
    /// Length in bytes, signed 64-bit.
    pub size: u64,
    /// Where the bytes start.
    pub data: u64,
}

/// The table of a version up to 3.12; `None` for any other.
pub fn table(version: &Version) -> Option<Layout> {
    match (version.major, version.minor) {
        (3, 7) => Some(v3_7::LAYOUT),
        (3, 8) => Some(v3_8::LAYOUT),
        (3, 9) => Some(v3_9::LAYOUT),
        (3, 10) => Some(v3_10::LAYOUT),
        (3, 11) => Some(v3_11::LAYOUT),
        (3, 12) => Some(v3_12::LAYOUT),
        _ => None,
    }
}
