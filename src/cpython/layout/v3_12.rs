//! Field offsets of CPython 3.12 on 64-bit Linux, from the headers of 3.12.1.
//!
//! Made by `fixtures/offsets/regenerate.sh`; not edited by hand.

use super::*;

pub(super) const LAYOUT: Layout = Layout {
    runtime: RuntimeLayout { interpreters_head: 40 },
    interpreter: InterpreterLayout { id: 8, next: 0, threads_head: 72, modules: 944 },
    gil: GilLayout {
        place: GilPlace::BehindInterpreter(384),
        size: 208,
        enabled: None,
        interval: 0,
        last_holder: 8,
        locked: 16,
        switch_number: 24,
    },
    thread: ThreadLayout {
        next: 8,
        interpreter: 16,
        current_frame: CurrentFrame::BehindCFrame { cframe: 56, current_frame: 0 },
        thread_id: 136,
        native_thread_id: Some(144),
        datastack_chunk: Some(232),
        status: Some(24),
        attachment: None,
    },
    frame: FrameLayout {
        size: 72,
        previous: 8,
        code: 0,
        owner: Some(70),
        entry: Entry::Frame,
        instruction: Instruction::Previous(56),
    },
    code: CodeLayout {
        filename: 112,
        name: 120,
        first_line: 68,
        qualified_name: Some(128),
        line_table: LineTable::Locations(136),
        bytecode: Some(192),
    },
    unicode: UnicodeLayout {
        length: 16,
        state: 32,
        ascii_data: 40,
        compact_data: 56,
        kind_shift: 2,
        compact_bit: 5,
        ascii_bit: 6,
    },
    bytes: BytesLayout { size: 16, data: 32 },
    objects: ObjectsLayout {
        object_type: 8,
        module_dict: 16,
        type_object: TypeLayout { basic_size: 32, flags: 168, dict_offset: 288, cached_keys: Some(880) },
        managed_dict: ManagedDict::Tagged { before: 24 },
        dict: DictLayout { keys: 32, values: 40, first_value: 0 },
        dict_keys: DictKeysLayout {
            used_entries: 24,
            indices: 32,
            index_table: IndexTable::Logarithm { log2_bytes: 9, kind: 10 },
        },
        int: IntLayout { size: 16, size_shift: 3, sign_mask: 3, digits: 24 },
    },
};
