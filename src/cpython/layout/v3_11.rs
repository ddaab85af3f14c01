//! Field offsets of CPython 3.11 on 64-bit Linux, from the headers of 3.11.7.
//!
//! Made by `fixtures/offsets/regenerate.sh`; not edited by hand.

use super::*;

pub(super) const LAYOUT: Layout = Layout {
    runtime: RuntimeLayout { interpreters_head: 40 },
    interpreter: InterpreterLayout { id: 48, next: 0, threads_head: 16, modules: 888 },
    gil: GilLayout {
        place: GilPlace::InRuntime(360),
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
        current_frame: CurrentFrame::BehindCFrame { cframe: 56, current_frame: 8 },
        thread_id: 152,
        native_thread_id: Some(160),
        datastack_chunk: Some(296),
        status: None,
        attachment: None,
    },
    frame: FrameLayout {
        size: 72,
        previous: 48,
        code: 32,
        owner: Some(69),
        entry: Entry::Flag(68),
        instruction: Instruction::Previous(56),
    },
    code: CodeLayout {
        filename: 112,
        name: 120,
        first_line: 72,
        qualified_name: Some(128),
        line_table: LineTable::Locations(136),
        bytecode: Some(184),
    },
    unicode: UnicodeLayout {
        length: 16,
        state: 32,
        ascii_data: 48,
        compact_data: 72,
        kind_shift: 2,
        compact_bit: 5,
        ascii_bit: 6,
    },
    bytes: BytesLayout { size: 16, data: 32 },
    objects: ObjectsLayout {
        object_type: 8,
        module_dict: 16,
        type_object: TypeLayout { basic_size: 32, flags: 168, dict_offset: 288, cached_keys: Some(872) },
        managed_dict: ManagedDict::TwoPointers { values_before: 32, dict_before: 24 },
        dict: DictLayout { keys: 32, values: 40, first_value: 0 },
        dict_keys: DictKeysLayout {
            used_entries: 24,
            indices: 32,
            index_table: IndexTable::Logarithm { log2_bytes: 9, kind: 10 },
        },
        int: IntLayout { size: 16, size_shift: 0, sign_mask: 0, digits: 24 },
    },
};
