//! Stacks and frames, each kept once: a tick holds a four-byte index, however deep its stack is.

use std::hash::Hash;
use std::sync::Arc;

use super::Frame;

/// Bytes of all frames with their names together at most.
const MOST_BYTES: usize = 1 << 28;

type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// A stack's place in a [`StackTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackIndex(u32);

impl StackIndex {
    /// A stack that could not be read consistently.
    pub const UNKNOWN: StackIndex = StackIndex(u32::MAX);

    /// The stack at this place; [`StackIndex::UNKNOWN`] for the largest number.
    pub const fn new(place: u32) -> Self {
        StackIndex(place)
    }

    /// Its place; `None` for [`StackIndex::UNKNOWN`].
    pub const fn place(self) -> Option<u32> {
        if self.0 == u32::MAX { None } else { Some(self.0) }
    }
}

/// Every distinct stack that was seen, innermost frame first. It only grows: 4 bytes a frame of each stack,
/// and each distinct frame once.
#[derive(Debug, Clone, Default)]
pub struct StackTable {
    frames: Places<Frame>,
    stacks: Places<Arc<[u32]>>,
    /// Frames of all stacks together.
    places: usize,
    /// Bytes of all frames with their names together.
    bytes: usize,
}

/// What a [`StackTable`] has got since some moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewStacks {
    /// Frames, in the order of their places.
    pub frames: Vec<Frame>,
    /// Stacks, in the order of theirs: the places of their frames, innermost first.
    pub stacks: Vec<Arc<[u32]>>,
}

impl StackTable {
    /// Frames of all stacks together at most: 256 MiB.
    pub const MOST_FRAMES: usize = 1 << 26;

    /// The place of a stack, given innermost frame first; the same stack gets the same place.
    ///
    /// A table that is full (67 million frames in all stacks, or 256 MiB of names) answers [`StackIndex::UNKNOWN`].
    pub fn intern(&mut self, frames: impl IntoIterator<Item = Frame>) -> StackIndex {
        let places: Option<Vec<u32>> = frames.into_iter().map(|frame| self.intern_frame(frame)).collect();
        let place = places.and_then(|places| self.intern_stack(places.into()));
        place.map_or(StackIndex::UNKNOWN, StackIndex)
    }

    fn intern_frame(&mut self, frame: Frame) -> Option<u32> {
        if let Some(&place) = self.frames.known.get(&frame) {
            return Some(place);
        }
        let bytes = size_of::<Frame>() + frame.function.len() + frame.file.len();
        let bytes = self.bytes.saturating_add(bytes);
        let place = if bytes <= MOST_BYTES { self.frames.add(frame) } else { None }?;
        self.bytes = bytes;
        Some(place)
    }

    fn intern_stack(&mut self, stack: Arc<[u32]>) -> Option<u32> {
        if let Some(&place) = self.stacks.known.get(&stack) {
            return Some(place);
        }
        let places = self.places.saturating_add(stack.len().max(1));
        let place = if places <= Self::MOST_FRAMES { self.stacks.add(stack) } else { None }?;
        self.places = places;
        Some(place)
    }

    /// What it has got since it had so many frames and so many stacks.
    pub fn since(&self, (frames, stacks): (usize, usize)) -> NewStacks {
        NewStacks {
            frames: self.frames.values.get(frames..).unwrap_or_default().to_vec(),
            stacks: self.stacks.values.get(stacks..).unwrap_or_default().to_vec(),
        }
    }

    /// Takes over what another table has got; answers whether this one can be what that was. A frame or a stack that
    /// is there already cannot be new, nor can a stack have frames that are not there.
    pub fn extend(&mut self, new: NewStacks) -> bool {
        let next = |places: usize| u32::try_from(places).ok();
        for frame in new.frames {
            let place = next(self.frames.values.len());
            if place.is_none() || self.intern_frame(frame) != place {
                return false;
            }
        }
        for stack in new.stacks {
            let place = next(self.stacks.values.len());
            let is_known = |frame: &u32| (*frame as usize) < self.frames.values.len();
            if place.is_none() || !stack.iter().all(is_known) || self.intern_stack(stack) != place {
                return false;
            }
        }
        true
    }

    /// How many frames and how many stacks there are, for [`StackTable::since`].
    pub fn size(&self) -> (usize, usize) {
        (self.frames.values.len(), self.stacks.values.len())
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
    /// Adds a value that is not there yet; `None` where there is no place left.
    fn add(&mut self, value: T) -> Option<u32> {
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

    #[test]
    fn what_a_table_got_makes_another_one_the_same() {
        let (mut table, mut copy) = (StackTable::default(), StackTable::default());
        let mut size = table.size();
        for line in 1..5 {
            table.intern([frame("leaf", line), frame("root", 2)]);
            assert!(copy.extend(table.since(size)));
            size = table.size();
            assert_eq!(copy.since((0, 0)), table.since((0, 0)));
        }
        assert!(
            !copy.extend(NewStacks { frames: vec![frame("leaf", 1)], stacks: Vec::new() }),
            "known already"
        );
        assert!(!copy.extend(NewStacks { frames: Vec::new(), stacks: vec![[9].into()] }), "no such frame");
    }
}
