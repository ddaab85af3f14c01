//! Stacks and frames, each kept once: a tick holds a four-byte index, however deep its stack is.

use std::hash::Hash;
use std::sync::Arc;

use super::Frame;

type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// A stack's place in a [`StackTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackIndex(u32);

impl StackIndex {
    /// A stack that could not be read consistently.
    pub const UNKNOWN: StackIndex = StackIndex(u32::MAX);
}

/// Every distinct stack that was seen, innermost frame first. It only grows: 4 bytes a frame of each stack,
/// and each distinct frame once.
#[derive(Debug, Clone, Default)]
pub struct StackTable {
    frames: Places<Frame>,
    stacks: Places<Arc<[u32]>>,
}

impl StackTable {
    /// The place of a stack, given innermost frame first; the same stack gets the same place.
    ///
    /// A table that is full (4 billion stacks) answers [`StackIndex::UNKNOWN`].
    pub fn intern(&mut self, frames: impl IntoIterator<Item = Frame>) -> StackIndex {
        let places: Option<Vec<u32>> = frames.into_iter().map(|frame| self.frames.intern(frame)).collect();
        let place = places.and_then(|places| self.stacks.intern(places.into()));
        place.map_or(StackIndex::UNKNOWN, StackIndex)
    }

    /// The frames of a stack, innermost first; `None` for [`StackIndex::UNKNOWN`].
    pub fn frames(&self, index: StackIndex) -> Option<impl DoubleEndedIterator<Item = &Frame>> {
        let places = self.stacks.values.get(index.0 as usize)?;
        Some(places.iter().map(|&place| &self.frames.values[place as usize]))
    }

    /// How many distinct stacks there are.
    pub fn len(&self) -> usize {
        self.stacks.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.stacks.values.is_empty()
    }
}

/// Values, each at a place of its own.
#[derive(Debug, Clone)]
struct Places<T> {
    values: Vec<T>,
    known: HashMap<T, u32>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Places { values: Vec::new(), known: HashMap::default() }
    }
}

impl<T: Clone + Eq + Hash> Places<T> {
    /// `None` where there is no place left.
    fn intern(&mut self, value: T) -> Option<u32> {
        if let Some(&place) = self.known.get(&value) {
            return Some(place);
        }
        let place = u32::try_from(self.values.len()).ok().filter(|&place| place != u32::MAX)?;
        self.values.push(value.clone());
        self.known.insert(value, place);
        Some(place)
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
        let first = table.intern([frame("leaf", 1), frame("root", 2)]);
        let other = table.intern([frame("leaf", 1), frame("root", 3)]);
        assert_eq!(table.intern([frame("leaf", 1), frame("root", 2)]), first);
        assert_ne!(first, other);
        assert_eq!((table.len(), table.frames.values.len()), (2, 3));
        assert_eq!(table.frames(other).unwrap().nth(1).unwrap().line, Some(3));
        assert!(table.frames(StackIndex::UNKNOWN).is_none());
    }
}
