//! The offsets that an interpreter publishes about itself from 3.13 on: `_Py_DebugOffsets`, the first
//! bytes of `_PyRuntime` (CPython 3.13 `Include/internal/pycore_runtime.h`, 3.14 and 3.15
//! `Include/internal/pycore_debug_offsets.h`).
//!
//! The struct is a row of 64-bit numbers whose order changes with the minor version, so a version is a
//! table of places in that row. What the target says of itself is checked before use: an offset beyond what any
//! object of its kind has is refused.

use super::*;
use crate::cpython::decode::u64_at;
use crate::target::memory::{ReadError, ReadMemory};
use crate::units::Address;

/// `_Py_Debug_Cookie`, the first eight bytes.
const COOKIE: &[u8; 8] = b"xdebugpy";

/// The largest offset believed in a struct of which single fields are read. `PyInterpreterState` is the largest struct: some 250 KB in 3.13, and more
/// than 1 MB in free-threaded builds, which keep their allocator in it.
const MAX_OFFSET: u64 = 16 << 20;

/// The largest offset believed within an object: `ht_cached_keys` is at 904 in free-threaded 3.15.
const MAX_MEMBER: u64 = 2048;

/// The largest offset believed within a thread state: `native_thread_id` is at 208 in free-threaded 3.15.
const MAX_THREAD: u64 = 480;

/// The same within a frame, and the least that its fields take up: `localsplus` is at 72 to 88.
const MAX_FRAME: u64 = 256;
const MIN_FRAME: u64 = 64;

/// The same within a code object: the bytecode starts at 184 to 240.
const MAX_CODE: u64 = 384;

/// The same within the header of a `str` or `bytes`: 56 bytes in a free-threaded build, with two words more.
const MAX_HEADER: u64 = 64;

/// The longest `_Py_DebugOffsets` known, with room: 888 bytes in 3.15.
const MAX_LENGTH: usize = 1024;

/// Places in the row of 64-bit numbers.
struct Places {
    interpreters_head: usize,
    interpreter_id: usize,
    interpreter_next: usize,
    threads_head: usize,
    modules: usize,
    ceval_gil: usize,
    /// `gil_runtime_state`; after it come `_enabled`, `_locked` and `_holder`.
    gil_runtime_state: usize,
    thread_next: usize,
    thread_interpreter: usize,
    current_frame: usize,
    thread_id: usize,
    native_thread_id: usize,
    datastack_chunk: usize,
    /// `interpreter_frame.size`; after it come `previous`, `executable`, `instr_ptr`, `localsplus`, `owner`.
    frame: usize,
    /// `code_object.size`; after it come `filename`, `name`, `qualname`, `linetable`, `firstlineno`.
    code: usize,
    bytecode: usize,
    /// `pyobject.size`, then `ob_type`; after it `type_object.size`, `tp_name`, `tp_repr`, `tp_flags`.
    object: usize,
    /// `type_object.tp_basicsize`, `tp_dictoffset`, `heap_type_object.size`, `ht_cached_keys` (from 3.15 on).
    type_details: Option<usize>,
    /// `dict_object.ma_keys`, then `ma_values`.
    dict: usize,
    /// `long_object.lv_tag`, then `ob_digit`.
    int: usize,
    /// `bytes_object.ob_size`, then `ob_sval`.
    bytes: usize,
    /// `unicode_object.state`, then `length`, `asciiobject_size`.
    unicode: usize,
}

/// CPython 3.13.0 `Include/internal/pycore_runtime.h`.
const V3_13: Places = Places {
    interpreters_head: 5,
    interpreter_id: 7,
    interpreter_next: 8,
    threads_head: 9,
    modules: 11,
    ceval_gil: 14,
    gil_runtime_state: 15,
    thread_next: 21,
    thread_interpreter: 22,
    current_frame: 23,
    thread_id: 24,
    native_thread_id: 25,
    datastack_chunk: 26,
    frame: 28,
    code: 34,
    bytecode: 43,
    object: 44,
    type_details: None,
    dict: 57,
    int: 62,
    bytes: 65,
    unicode: 68,
};

/// CPython 3.14.0 `Include/internal/pycore_debug_offsets.h`.
const V3_14: Places = Places {
    interpreters_head: 5,
    interpreter_id: 7,
    interpreter_next: 8,
    threads_head: 9,
    modules: 12,
    ceval_gil: 15,
    gil_runtime_state: 16,
    thread_next: 24,
    thread_interpreter: 25,
    current_frame: 26,
    thread_id: 27,
    native_thread_id: 28,
    datastack_chunk: 29,
    frame: 31,
    code: 39,
    bytecode: 48,
    object: 50,
    type_details: None,
    dict: 67,
    int: 72,
    bytes: 75,
    unicode: 78,
};

/// CPython 3.15.0 `Include/internal/pycore_debug_offsets.h`.
const V3_15: Places = Places {
    interpreters_head: 5,
    interpreter_id: 7,
    interpreter_next: 8,
    threads_head: 9,
    modules: 12,
    ceval_gil: 15,
    gil_runtime_state: 16,
    thread_next: 24,
    thread_interpreter: 25,
    current_frame: 26,
    thread_id: 30,
    native_thread_id: 31,
    datastack_chunk: 32,
    frame: 39,
    code: 47,
    bytecode: 56,
    object: 58,
    type_details: Some(64),
    dict: 79,
    int: 84,
    bytes: 87,
    unicode: 90,
};

/// What an interpreter published.
#[derive(Debug)]
pub struct DebugOffsets {
    bytes: [u8; MAX_LENGTH],
}

/// Why published offsets cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DebugOffsetsError {
    /// A version whose order of fields is not known here.
    #[error("its debug offsets are of a version that gilspy does not know")]
    UnknownVersion,
    /// A number that cannot be an offset.
    #[error("its debug offsets are not plausible (damaged memory, or a modified build)")]
    Implausible,
}

impl DebugOffsets {
    /// What the interpreter published at `runtime`, `None` where it published nothing (before 3.13).
    ///
    /// # Errors
    /// When the memory could not be read.
    pub fn read(memory: &impl ReadMemory, runtime: Address) -> Result<Option<Self>, ReadError> {
        let mut bytes = [0; MAX_LENGTH];
        memory.read(runtime, &mut bytes)?;
        Ok((bytes[..8] == *COOKIE).then_some(DebugOffsets { bytes }))
    }

    /// The interpreter's version, `PY_VERSION_HEX`.
    pub fn version(&self) -> Version {
        Version::from_hex(self.number(1) as u32)
    }

    /// Whether it is a free-threaded build.
    pub fn free_threaded(&self) -> bool {
        self.number(2) != 0
    }

    /// The layout they describe.
    ///
    /// # Errors
    /// When the version is unknown, or a number cannot be an offset.
    pub fn layout(&self) -> Result<Layout, DebugOffsetsError> {
        let version = self.version();
        let places = match (version.major, version.minor) {
            (3, 13) => &V3_13,
            (3, 14) => &V3_14,
            (3, 15) => &V3_15,
            _ => return Err(DebugOffsetsError::UnknownVersion),
        };
        let gil = self.gil(places)?;
        let at = |place| self.offset(place);
        let in_thread = |place| self.within(place, MAX_THREAD);
        let in_frame = |place| self.within(place, MAX_FRAME);
        let in_code = |place| self.within(place, MAX_CODE);
        Ok(Layout {
            runtime: RuntimeLayout { interpreters_head: at(places.interpreters_head)? },
            interpreter: InterpreterLayout {
                id: at(places.interpreter_id)?,
                next: at(places.interpreter_next)?,
                threads_head: at(places.threads_head)?,
                modules: at(places.modules)?,
            },
            gil,
            thread: ThreadLayout {
                next: in_thread(places.thread_next)?,
                interpreter: in_thread(places.thread_interpreter)?,
                current_frame: CurrentFrame::InThread(in_thread(places.current_frame)?),
                thread_id: in_thread(places.thread_id)?,
                native_thread_id: Some(in_thread(places.native_thread_id)?),
                datastack_chunk: Some(in_thread(places.datastack_chunk)?),
                status: Some(in_thread(places.datastack_chunk + 1)?),
                attachment: Some(self.attachment(places, &version)?),
            },
            frame: FrameLayout {
                size: in_frame(places.frame + 4)?.max(in_frame(places.frame + 5)? + 1).max(MIN_FRAME),
                previous: in_frame(places.frame + 1)?,
                code: in_frame(places.frame + 2)?,
                owner: Some(in_frame(places.frame + 5)?),
                entry: Entry::Frame,
                instruction: Instruction::Pointer(in_frame(places.frame + 3)?),
            },
            code: CodeLayout {
                filename: in_code(places.code + 1)?,
                name: in_code(places.code + 2)?,
                qualified_name: Some(in_code(places.code + 3)?),
                line_table: LineTable::Locations(in_code(places.code + 4)?),
                first_line: in_code(places.code + 5)?,
                bytecode: Some(in_code(places.bytecode)?),
            },
            unicode: self.unicode(places, &version)?,
            bytes: BytesLayout {
                size: self.within(places.bytes, MAX_HEADER)?,
                data: self.within(places.bytes + 1, MAX_HEADER)?,
            },
            objects: self.objects(places)?,
        })
    }

    /// `state` is not published. It follows `_status`, with `_whence` in between, from 3.14 on `holds_gil` too, and
    /// in 3.15 `gil_requested`, each an `int` (3.13.0, 3.14.0 and 3.15.0 `Include/cpython/pystate.h`).
    fn attachment(&self, places: &Places, version: &Version) -> Result<u64, DebugOffsetsError> {
        let status = self.within(places.datastack_chunk + 1, MAX_THREAD)?;
        Ok(status + 4 * (version.minor.clamp(13, 15) - 11))
    }

    /// The GIL's fields are published relative to the interpreter, as those of its own GIL.
    fn gil(&self, places: &Places) -> Result<GilLayout, DebugOffsetsError> {
        let start = self.offset(places.gil_runtime_state)?;
        let field = |place| {
            let offset = self.offset(place)?.checked_sub(start);
            offset.filter(|&offset| offset < 64).ok_or(DebugOffsetsError::Implausible)
        };
        // `interval` precedes `last_holder`, and `switch_number` follows `locked`, in every version with a
        // GIL struct (3.7 `Include/internal/gil.h` to 3.15 `Include/internal/pycore_gil.h`); neither is
        // published.
        let (locked, last_holder) =
            (field(places.gil_runtime_state + 2)?, field(places.gil_runtime_state + 3)?);
        let interval = last_holder.checked_sub(8).ok_or(DebugOffsetsError::Implausible)?;
        // Free-threaded builds put `int enabled` first (3.13 to 3.15 `Include/internal/pycore_gil.h`).
        let enabled = self.free_threaded().then_some(0);
        Ok(GilLayout {
            place: GilPlace::BehindInterpreter(self.offset(places.ceval_gil)?),
            size: if self.free_threaded() { 216 } else { 208 },
            enabled,
            interval,
            last_holder,
            locked,
            switch_number: locked + 8,
        })
    }

    /// What is not published is the same in 3.13 to 3.15, free-threaded or not, relative to what is
    /// (CPython 3.13.0, 3.14.10 and 3.15.2 `Include/`):
    /// - `md_dict` is a module's first field (`internal/pycore_moduleobject.h`),
    /// - `tp_basicsize` follows `tp_name`, and `tp_dictoffset` comes 15 words after `tp_flags`
    ///   (`cpython/object.h`),
    /// - `ht_cached_keys` comes 464 bytes after the `PyTypeObject` (`PyHeapTypeObject`, `cpython/object.h`),
    /// - the dict's pointer is 3 words before an instance, or 1 if free-threaded (`MANAGED_DICT_OFFSET`,
    ///   `internal/pycore_object.h`),
    /// - `struct _dictvalues` and `struct _dictkeysobject` (`internal/pycore_dict.h`),
    /// - the bits of `lv_tag` (`_PyLong_SIGN_MASK`, `_PyLong_NON_SIZE_BITS`, `cpython/longintrepr.h`).
    fn objects(&self, places: &Places) -> Result<ObjectsLayout, DebugOffsetsError> {
        let at = |place| self.within(place, MAX_MEMBER);
        let (tp_size, tp_name, flags) =
            (at(places.object + 2)?, at(places.object + 3)?, at(places.object + 5)?);
        let type_object = match places.type_details {
            Some(details) => TypeLayout {
                basic_size: at(details)?,
                flags,
                dict_offset: at(details + 1)?,
                cached_keys: Some(at(details + 3)?),
            },
            None => TypeLayout {
                basic_size: tp_name + 8,
                flags,
                dict_offset: flags + 15 * 8,
                cached_keys: Some(tp_size + 464),
            },
        };
        Ok(ObjectsLayout {
            object_type: at(places.object + 1)?,
            module_dict: at(places.object)?,
            type_object,
            managed_dict: ManagedDict::Inline {
                dict_before: if self.free_threaded() { 8 } else { 3 * 8 },
                valid: 3,
            },
            dict: DictLayout { keys: at(places.dict)?, values: at(places.dict + 1)?, first_value: 8 },
            dict_keys: DictKeysLayout {
                used_entries: 24,
                indices: 32,
                index_table: IndexTable::Logarithm { log2_bytes: 9, kind: 10 },
            },
            int: IntLayout {
                size: at(places.int)?,
                size_shift: 3,
                sign_mask: 3,
                digits: at(places.int + 1)?,
            },
        })
    }

    /// Where the bits of a string's state lie is not published: `PyASCIIObject.state` in CPython
    /// `Include/cpython/unicodeobject.h`. Free-threaded builds widen `interned` to a byte in 3.14.
    fn unicode(&self, places: &Places, version: &Version) -> Result<UnicodeLayout, DebugOffsetsError> {
        let at = |place| self.within(place, MAX_HEADER);
        let ascii_data = at(places.unicode + 2)?;
        let kind_shift = if self.free_threaded() && version.minor >= 14 { 8 } else { 2 };
        Ok(UnicodeLayout {
            state: at(places.unicode)?,
            length: at(places.unicode + 1)?,
            ascii_data,
            compact_data: ascii_data + 16,
            kind_shift,
            compact_bit: kind_shift + 3,
            ascii_bit: kind_shift + 4,
        })
    }

    fn number(&self, place: usize) -> u64 {
        u64_at(&self.bytes, place as u64 * 8).unwrap_or(u64::MAX)
    }

    /// An offset within an object that is read whole up to it.
    fn within(&self, place: usize, most: u64) -> Result<u64, DebugOffsetsError> {
        Some(self.number(place)).filter(|&offset| offset <= most).ok_or(DebugOffsetsError::Implausible)
    }

    fn offset(&self, place: usize) -> Result<u64, DebugOffsetsError> {
        self.within(place, MAX_OFFSET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a free-threaded 3.13.5 (x86-64, glibc) publishes, from the version on.
    const ROW_OF_3_13T: [u64; 73] = [
        51185136, 1, 328320, 608, 632, 215616, 7272, 7264, 7344, 7400, 7664, 7648, 7656, 16, 7760, 0, 7784,
        7776, 304, 0, 8, 16, 72, 152, 160, 232, 32, 80, 8, 0, 56, 72, 70, 224, 128, 136, 144, 152, 84, 68,
        112, 120, 216, 32, 24, 432, 40, 104, 184, 48, 40, 32, 56, 40, 32, 64, 48, 56, 40, 32, 48, 32, 40, 56,
        32, 48, 80, 48, 32, 56, 248, 200, 1,
    ];

    fn published(row: &[u64]) -> DebugOffsets {
        let mut bytes = [0; MAX_LENGTH];
        bytes[..8].copy_from_slice(COOKIE);
        for (place, number) in row.iter().enumerate() {
            bytes[8 + place * 8..][..8].copy_from_slice(&number.to_le_bytes());
        }
        DebugOffsets { bytes }
    }

    /// The expected numbers are `offsetof` of 3.13.5's headers, compiled with `Py_GIL_DISABLED`.
    #[test]
    fn what_3_13_does_not_publish_follows_from_what_it_does() {
        let objects = published(&ROW_OF_3_13T).layout().unwrap().objects;
        assert_eq!((objects.object_type, objects.module_dict), (24, 32));
        let type_object = TypeLayout { basic_size: 48, flags: 184, dict_offset: 304, cached_keys: Some(896) };
        assert_eq!(objects.type_object, type_object);
        assert_eq!(objects.managed_dict, ManagedDict::Inline { dict_before: 8, valid: 3 });
        assert_eq!((objects.dict.keys, objects.dict.values), (48, 56));
        assert_eq!((objects.int.size, objects.int.digits), (32, 40));
    }

    #[test]
    fn an_object_of_a_megabyte_is_not_believed() {
        let mut row = ROW_OF_3_13T;
        // `heap_type_object` is derived from `type_object.size`, number 46.
        row[46 - 1] = 1 << 20;
        assert_eq!(published(&row).layout(), Err(DebugOffsetsError::Implausible));
    }
}
