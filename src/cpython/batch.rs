//! Many small reads of the target at once: one batch a step, however many objects the step is about.

use crate::target::memory::{ReadError, ReadMemory, Segment};
use crate::units::Address;

/// Pieces of memory that were read together.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Where each piece ends in `bytes`, and whether it arrived.
    ends: Vec<(usize, bool)>,
}

impl Pieces {
    /// Reads pieces of these places and lengths; nothing is at the null pointer. The caller bounds how many
    /// and how long they are.
    ///
    /// # Errors
    /// When nothing can be read at all.
    pub(super) fn read(memory: &impl ReadMemory, wanted: &[(Address, usize)]) -> Result<Self, ReadError> {
        let mut bytes = vec![0; wanted.iter().map(|(_, length)| length).sum()];
        let mut rest = bytes.as_mut_slice();
        let mut segments = Vec::with_capacity(wanted.len());
        for &(address, length) in wanted {
            let (buffer, later) = rest.split_at_mut(length);
            rest = later;
            if !address.is_null() {
                segments.push(Segment::new(address, buffer));
            }
        }
        memory.read_batch(&mut segments)?;
        let mut arrived = segments.iter().map(|segment| segment.arrived);
        let mut end = 0;
        let ends = wanted
            .iter()
            .map(|(address, length)| {
                end += length;
                (end, !address.is_null() && arrived.next() == Some(true))
            })
            .collect();
        Ok(Pieces { bytes, ends })
    }

    /// Reads pieces of one length.
    ///
    /// # Errors
    /// When nothing can be read at all.
    pub(super) fn read_equal(
        memory: &impl ReadMemory,
        addresses: impl IntoIterator<Item = Address>,
        length: u64,
    ) -> Result<Self, ReadError> {
        let wanted: Vec<_> = (addresses.into_iter()).map(|address| (address, length as usize)).collect();
        Self::read(memory, &wanted)
    }

    /// The pieces in the order they were asked for; `None` where one did not arrive.
    pub(super) fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut start = 0;
        self.ends.iter().map(move |&(end, arrived)| {
            let piece = &self.bytes[start..end];
            start = end;
            arrived.then_some(piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::memory::live::LiveMemory;
    use crate::units::Pid;

    #[test]
    fn pieces_of_different_lengths_come_back_in_order_without_the_missing() {
        let (first, third) = (*b"first", *b"the third");
        let own = LiveMemory::new(Pid::new(std::process::id() as i32));
        let wanted = [
            (Address::new(first.as_ptr() as u64), first.len()),
            (Address::new(8), 3),
            (Address::new(third.as_ptr() as u64), third.len()),
        ];
        let pieces = Pieces::read(&own, &wanted).unwrap();
        let read: Vec<_> = pieces.iter().collect();
        assert_eq!(read, [Some(&first[..]), None, Some(&third[..])]);
    }
}
