//! Memory that answers with whatever an input says, and counts what it is asked for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use gilspy::target::memory::budget::Budget;
use gilspy::target::memory::{ReadError, ReadMemory, Segment};

use super::image::{Image, own_threads};
use super::script::Script;
use super::{allocation, timing};

/// Where a maze lies.
pub const MAZE: u64 = 0x10_0000;

/// Bytes of a piece that changing memory makes up anew; the others are the same again.
const NEW_AT_ONCE: usize = 16 << 10;

/// Hostile memory; clones are the same memory.
#[derive(Clone)]
pub struct Hostile(Rc<Inner>);

struct Inner {
    pieces: RefCell<Vec<(u64, Vec<u8>)>>,
    words: u64,
    beyond: Cell<Beyond>,
    restless: RefCell<BTreeMap<u64, Restless>>,
    /// Whether everything is made from the stream.
    is_changing: bool,
    stream: Vec<u8>,
    position: Cell<usize>,
    asked: Cell<Asked>,
}

/// How much was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    pub batches: usize,
    pub segments: usize,
    pub bytes: usize,
}

impl Asked {
    /// What was asked for since then is within a budget.
    fn assert_within(self, before: Asked, budget: Budget, what: &str) {
        let (reads, bytes) = (self.segments - before.segments, self.bytes - before.bytes);
        assert!(
            reads <= budget.reads && bytes <= budget.bytes,
            "{what} read {bytes} bytes in {reads} pieces"
        );
    }
}

/// What is where nothing was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    Nothing,
    Zeros,
    /// The memory there is, again.
    More,
}

impl Beyond {
    pub fn from_byte(byte: u8) -> Self {
        match byte % 4 {
            0 | 1 => Beyond::Nothing,
            2 => Beyond::Zeros,
            _ => Beyond::More,
        }
    }
}

/// A word that is not the same at each reading.
#[derive(Debug, Clone, Copy)]
enum Restless {
    Alternates(u64, u64),
    Grows(u64),
    Stream,
}

impl Hostile {
    fn new(pieces: Vec<(u64, Vec<u8>)>, is_changing: bool, stream: &[u8]) -> Self {
        let words = pieces.iter().map(|(_, bytes)| bytes.len() as u64 / 8).sum();
        Hostile(Rc::new(Inner {
            pieces: RefCell::new(pieces),
            words,
            beyond: Cell::new(Beyond::Nothing),
            restless: RefCell::default(),
            is_changing,
            stream: stream.to_vec(),
            position: Cell::new(0),
            asked: Cell::default(),
        }))
    }

    pub fn from_image(image: &Image) -> Self {
        Self::new(image.pieces.clone(), false, &[])
    }

    /// A word for each byte.
    pub fn maze(bytes: &[u8]) -> Self {
        let length = bytes.len().max(1) as u64;
        let bytes = if bytes.is_empty() { &[0] } else { bytes };
        let words = bytes.iter().flat_map(|byte| word(*byte, length).to_le_bytes()).collect();
        Self::new(vec![(MAZE, words)], false, &[])
    }

    /// The words of such a maze, one after the other, wherever one is read.
    pub fn changing(bytes: &[u8]) -> Self {
        Self::new(Vec::new(), true, bytes)
    }

    pub fn set_beyond(&self, beyond: Beyond) {
        self.0.beyond.set(beyond);
    }

    pub fn asked(&self) -> Asked {
        self.0.asked.get()
    }

    /// Does something that may read so much, and take so much memory.
    pub fn within<T>(
        &self,
        budget: Budget,
        most_bytes: usize,
        what: &'static str,
        work: impl FnOnce() -> T,
    ) -> T {
        let asked = self.asked();
        let result = allocation::within(most_bytes, what, || timing::timed(what, work));
        self.asked().assert_within(asked, budget, what);
        result
    }

    /// The address of a word that there is.
    fn pick(&self, number: u64) -> u64 {
        let mut place = number % self.0.words.max(1);
        for (start, bytes) in self.0.pieces.borrow().iter() {
            let words = bytes.len() as u64 / 8;
            if place < words {
                return start + place * 8;
            }
            place -= words;
        }
        MAZE
    }

    fn get(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.copy(address, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Changes a word; answers whether it is there.
    pub fn set(&self, address: u64, word: u64) -> bool {
        let mut pieces = self.0.pieces.borrow_mut();
        let Some(place) = pieces.partition_point(|(start, _)| *start <= address).checked_sub(1) else {
            return false;
        };
        let (start, bytes) = &mut pieces[place];
        let old = bytes.get_mut((address - *start) as usize..).and_then(|bytes| bytes.get_mut(..8));
        let Some(old) = old else { return false };
        old.copy_from_slice(&word.to_le_bytes());
        true
    }

    /// Changes a word, or more, as the script says.
    pub fn change(&self, script: &mut Script<'_>) {
        let kind = script.byte();
        let place = self.pick(u64::from(script.short()) | u64::from(kind >> 4) << 16);
        let value = self.value(script, place);
        let restless = match kind & 15 {
            0..=9 => {
                self.set(place, value);
                return;
            }
            10 | 11 => Restless::Alternates(self.get(place), value),
            12 => Restless::Grows(value),
            13 => Restless::Stream,
            _ => {
                // A piece that is like another one.
                let (from, words) = (self.pick(value), script.byte());
                for offset in (0..u64::from(words) * 8).step_by(8) {
                    self.set(place + offset, self.get(from + offset));
                }
                return;
            }
        };
        self.0.restless.borrow_mut().insert(place, restless);
    }

    /// A word that hurts.
    pub fn value(&self, script: &mut Script<'_>, place: u64) -> u64 {
        let (kind, number) = (script.byte(), script.byte());
        let old = self.get(place);
        let near = |base: u64| base.wrapping_add((number as i8 as i64 * 8) as u64);
        match kind % 16 {
            0 => u64::from(number),
            1 => near(place),
            2 => near(old),
            3 => old.wrapping_add(number as i8 as i64 as u64),
            4 => 0,
            5 => near(u64::MAX),
            6 => near(1 << 60),
            7 => near(i64::MAX as u64),
            8 => 1 << (number % 64),
            9 => (1 << (number % 64)) - 1,
            10 => old ^ 1 << (number % 64),
            11 => u64::from(script.short()) << (number % 48),
            12 => script.long(),
            _ => near(self.pick(u64::from(script.short()) | u64::from(kind >> 4) << 16)),
        }
    }

    /// Whether it is there.
    fn copy(&self, address: u64, buffer: &mut [u8]) -> bool {
        let pieces = self.0.pieces.borrow();
        let place = pieces.partition_point(|(start, _)| *start <= address).checked_sub(1);
        let found = place.and_then(|place| {
            let (start, bytes) = &pieces[place];
            let offset = usize::try_from(address - start).ok()?;
            bytes.get(offset..offset.checked_add(buffer.len())?)
        });
        if let Some(found) = found {
            buffer.copy_from_slice(found);
            return true;
        }
        match self.0.beyond.get() {
            Beyond::Nothing => false,
            Beyond::Zeros => {
                buffer.fill(0);
                true
            }
            Beyond::More => {
                let place = (address >> 3) as usize % pieces.len().max(1);
                let bytes = pieces.get(place).map_or(&[0; 8][..], |(_, bytes)| bytes);
                let mut at = (address % bytes.len() as u64) as usize;
                let mut rest = buffer;
                while !rest.is_empty() {
                    let length = rest.len().min(bytes.len() - at);
                    let (now, later) = rest.split_at_mut(length);
                    now.copy_from_slice(&bytes[at..at + length]);
                    (rest, at) = (later, 0);
                }
                true
            }
        }
    }

    fn next_of_stream(&self) -> u64 {
        let position = self.0.position.get();
        self.0.position.set(position + 1);
        let length = self.0.stream.len();
        if length == 0 { 0 } else { word(self.0.stream[position % length], length as u64) }
    }

    fn unsettle(&self, address: u64, buffer: &mut [u8]) {
        let mut restless = self.0.restless.borrow_mut();
        let (first, end) = (address.saturating_sub(7), address.saturating_add(buffer.len() as u64));
        for (&place, kind) in restless.range_mut(first..end) {
            let word = match kind {
                Restless::Alternates(now, next) => {
                    std::mem::swap(now, next);
                    *next
                }
                Restless::Grows(now) => {
                    *now = now.wrapping_add(8);
                    *now
                }
                Restless::Stream => self.next_of_stream(),
            };
            for (at, byte) in (place..).zip(word.to_le_bytes()) {
                let into = at.checked_sub(address).and_then(|offset| buffer.get_mut(offset as usize));
                into.into_iter().for_each(|into| *into = byte);
            }
        }
    }
}

impl ReadMemory for Hostile {
    fn read_batch(&self, segments: &mut [Segment<'_>]) -> Result<(), ReadError> {
        let mut asked = self.0.asked.get();
        asked.batches += 1;
        for segment in segments {
            asked.segments += 1;
            asked.bytes += segment.buffer.len();
            if self.0.is_changing {
                let (new, rest) = segment.buffer.split_at_mut(segment.buffer.len().min(NEW_AT_ONCE));
                for word in new.chunks_mut(8) {
                    word.copy_from_slice(&self.next_of_stream().to_le_bytes()[..word.len()]);
                }
                for again in rest.chunks_mut(NEW_AT_ONCE) {
                    again.copy_from_slice(&new[..again.len()]);
                }
                segment.arrived = true;
            } else {
                segment.arrived = self.copy(segment.address.raw(), segment.buffer);
                self.unsettle(segment.address.raw(), segment.buffer);
            }
        }
        self.0.asked.set(asked);
        Ok(())
    }
}

/// The word of a maze that a byte stands for.
fn word(byte: u8, length: u64) -> u64 {
    match byte {
        0..160 => MAZE + u64::from(byte) * length / 160 * 8,
        160..200 => u64::from(byte - 160),
        200..208 => u64::from(own_threads()[usize::from(byte - 200)] as u32),
        208..224 => 1 << ((byte - 208) * 4),
        224 => u64::MAX,
        225 => i64::MAX as u64,
        226 => 1 << 63,
        227 => (1 << 60) + 3,
        228 => MAZE - 8,
        229 => MAZE + length * 8,
        230 => 5000,
        231 => 0x0001_0303_0000_0000,
        232 => 0xe4,
        _ => 0,
    }
}
