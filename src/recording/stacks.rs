//! Stacks, each kept once: a tick holds a four-byte index, however deep its stack is.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sample::Frame;

/// A stack's place in a [`StackTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackIndex(u32);

impl StackIndex {
    /// A stack that could not be read consistently.
    pub const UNKNOWN: StackIndex = StackIndex(u32::MAX);
}

/// Every distinct stack of a recording, innermost frame first.
#[derive(Debug, Clone, Default)]
pub struct StackTable {
    stacks: Vec<Arc<[Frame]>>,
    places: HashMap<Arc<[Frame]>, StackIndex>,
}

impl StackTable {
    /// The place of a stack, given innermost frame first; the same stack gets the same place.
    ///
    /// A table that is full (4 billion stacks) answers [`StackIndex::UNKNOWN`].
    pub fn intern(&mut self, frames: &[Frame]) -> StackIndex {
        if let Some(&place) = self.places.get(frames) {
            return place;
        }
        let place = match u32::try_from(self.stacks.len()) {
            Ok(next) if next != u32::MAX => StackIndex(next),
            _ => return StackIndex::UNKNOWN,
        };
        let stack: Arc<[Frame]> = frames.into();
        self.stacks.push(Arc::clone(&stack));
        self.places.insert(stack, place);
        place
    }

    /// The frames of a stack, innermost first; `None` for [`StackIndex::UNKNOWN`].
    pub fn frames(&self, index: StackIndex) -> Option<&[Frame]> {
        self.stacks.get(index.0 as usize).map(|stack| &**stack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, line: u32) -> Frame {
        Frame { function: function.into(), file: "f.py".into(), line: Some(line) }
    }

    #[test]
    fn the_same_stack_is_kept_once() {
        let mut table = StackTable::default();
        let first = table.intern(&[frame("leaf", 1), frame("root", 2)]);
        let other = table.intern(&[frame("leaf", 1), frame("root", 3)]);
        assert_eq!(table.intern(&[frame("leaf", 1), frame("root", 2)]), first);
        assert_ne!(first, other);
        assert_eq!(table.frames(other).unwrap()[1].line, Some(3));
        assert_eq!(table.frames(StackIndex::UNKNOWN), None);
    }
}
