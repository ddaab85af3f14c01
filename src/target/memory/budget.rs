//! How much of a target's memory is read at a time. A process that is made to be costly to look at is not looked at for
//! longer than an honest one of great size: what is left over is not known.
//!
//! Everything that walks through memory has limits of its own, but one may start another: a thread has thousands of
//! frames, a frame a code object, that a table of lines. So reads and bytes are counted together.

use std::cell::Cell;

use super::{ReadError, ReadMemory, Segment};

/// So many reads and bytes. 16,384 reads take some 3 ms in batches and 10 ms one by one, 4 MiB some 2 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Pieces of memory.
    pub reads: usize,
    /// Bytes of them together.
    pub bytes: usize,
}

/// Memory of which no more is read than was allowed.
#[derive(Debug)]
pub struct Budgeted<M> {
    memory: M,
    left: Cell<Option<Budget>>,
}

impl<M> Budgeted<M> {
    /// Memory of which so much may be read.
    pub fn new(memory: M, budget: Budget) -> Self {
        Budgeted { memory, left: Cell::new(Some(budget)) }
    }

    /// From now on so much may be read, whatever is left.
    pub fn allow(&self, budget: Budget) {
        self.left.set(Some(budget));
    }

    /// Whether something was asked for that was more than was left.
    pub fn is_exhausted(&self) -> bool {
        self.left.get().is_none()
    }
}

impl<M: ReadMemory> ReadMemory for Budgeted<M> {
    /// Once a batch was more than what was left, none is read any more.
    fn read_batch(&self, segments: &mut [Segment<'_>]) -> Result<(), ReadError> {
        let bytes = segments.iter().map(|segment| segment.buffer.len()).sum();
        let left = self.left.get().and_then(|left| {
            Some(Budget {
                reads: left.reads.checked_sub(segments.len())?,
                bytes: left.bytes.checked_sub(bytes)?,
            })
        });
        self.left.set(left);
        match left {
            Some(_) => self.memory.read_batch(segments),
            None => Err(ReadError::Exhausted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::live::LiveMemory;
    use crate::units::{Address, Pid};

    #[test]
    fn what_is_more_than_was_allowed_is_not_read_and_nothing_after_it() {
        let words = [7_u64; 4];
        let own = LiveMemory::new(Pid::new(std::process::id() as i32));
        let memory = Budgeted::new(own, Budget { reads: 3, bytes: 64 });
        let address = Address::new(words.as_ptr() as u64);
        assert_eq!(memory.read_u64(address), Ok(7));
        assert_eq!(memory.read(address, &mut [0; 57]), Err(ReadError::Exhausted));
        assert_eq!(memory.read_u64(address), Err(ReadError::Exhausted));
        assert!(memory.is_exhausted());
        memory.allow(Budget { reads: 1, bytes: 64 });
        assert_eq!(memory.read_u64(address), Ok(7));
        assert_eq!(memory.read_u64(address), Err(ReadError::Exhausted));
    }
}
