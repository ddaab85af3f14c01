//! Field offsets of CPython 3.7 on 64-bit Linux, from the headers of 3.7.16.
//!
//! Made by `fixtures/offsets/regenerate.sh`; not edited by hand.

use super::*;

pub(super) const LAYOUT: Layout = Layout {
    runtime: RuntimeLayout { interpreters_head: 24 },
    interpreter: InterpreterLayout { id: 16, next: 0, threads_head: 8, modules: 40 },
    gil: GilLayout {
        place: GilPlace::InRuntime(1264),
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
        current_frame: CurrentFrame::InThread(24),
        thread_id: 176,
        native_thread_id: None,
        datastack_chunk: None,
        status: None,
        attachment: None,
    },
    frame: FrameLayout {
        size: 360,
        previous: 24,
        code: 32,
        owner: None,
        entry: Entry::None,
        instruction: Instruction::ByteIndex(104),
    },
    code: CodeLayout {
        filename: 96,
        name: 104,
        first_line: 36,
        qualified_name: None,
        line_table: LineTable::Increments(112),
        bytecode: None,
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
        type_object: TypeLayout { basic_size: 32, flags: 168, dict_offset: 288, cached_keys: None },
        managed_dict: ManagedDict::Absent,
        dict: DictLayout { keys: 32, values: 40, first_value: 0 },
        dict_keys: DictKeysLayout { used_entries: 32, indices: 40, index_table: IndexTable::Size(8) },
        int: IntLayout { size: 16, size_shift: 0, sign_mask: 0, digits: 24 },
    },
};
