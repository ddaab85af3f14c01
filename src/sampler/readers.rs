//! The readers of stacks, one for each thread state.

use crate::cpython::frames::StackReader;
use crate::units::Address;

/// Stack readers kept at most; beyond it they start anew.
const MAX_READERS: usize = 4096;

/// Bytes that they take together at most; beyond it they start anew. Those of ordinary threads take some 10 KB each.
const MAX_BYTES: usize = 128 << 20;

/// Each remembers where its stack was the last time.
#[derive(Debug, Default)]
pub(super) struct Readers {
    readers: std::collections::HashMap<Address, Kept, foldhash::fast::RandomState>,
    /// Bytes of all, save for what the one that was used last has come to since.
    bytes: usize,
    last: Address,
}

#[derive(Debug)]
struct Kept {
    reader: StackReader,
    bytes: usize,
}

impl Readers {
    /// The reader of a thread state's stack; `tid_offset` is for [`StackReader::with_tid_at`].
    pub(super) fn of(&mut self, thread_state: Address, tid_offset: Option<u64>) -> &mut StackReader {
        if self.last != thread_state {
            if let Some(last) = self.readers.get_mut(&self.last) {
                let bytes = last.reader.bytes();
                self.bytes = self.bytes - last.bytes + bytes;
                last.bytes = bytes;
            }
            if self.readers.len() > MAX_READERS || self.bytes > MAX_BYTES {
                self.readers.clear();
                self.bytes = 0;
            }
            self.last = thread_state;
        }
        let new = || Kept { reader: StackReader::new(thread_state).with_tid_at(tid_offset), bytes: 0 };
        &mut self.readers.entry(thread_state).or_insert_with(new).reader
    }

    /// The same, if it has been used.
    pub(super) fn get(&self, thread_state: Address) -> Option<&StackReader> {
        self.readers.get(&thread_state).map(|kept| &kept.reader)
    }
}
