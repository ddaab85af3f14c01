//! What gilspy reads of a real interpreter, word for word, as `hostile_memory.rs` takes it: one file a layout.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use gilspy::target::memory::{ReadError, ReadMemory, Segment};
use gilspy::units::Address;
use serde::{Deserialize, Serialize};

macro_rules! images {
    ($($series:literal),* $(,)?) => {
        /// The series of interpreters, and the images.
        pub const IMAGES: &[&StoredImage] = &[$(&StoredImage {
            series: $series,
            bytes: include_bytes!(concat!("../../fixtures/memory/", $series, ".image")),
        }),*];
    };
}

images!["3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.13t", "3.14", "3.15"];

/// An image as it is kept.
pub struct StoredImage {
    pub series: &'static str,
    pub bytes: &'static [u8],
}

/// What was read of an interpreter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// `PY_VERSION_HEX`, near enough.
    pub version: u32,
    pub free_threaded: bool,
    pub is_musl: bool,
    pub runtime: u64,
    /// Where each piece starts, and its bytes.
    pub pieces: Vec<(u64, Vec<u8>)>,
}

/// In an image, the kernel's id of the interpreter's n-th thread is this and n: another one has it where it is replayed.
const TID: i32 = 0x6714_5000;

/// Threads whose ids are kept at most.
pub const THREADS: usize = 8;

impl Image {
    /// As it was taken, with the ids of threads of this process.
    pub fn load(stored: &StoredImage) -> Self {
        static ALL: OnceLock<Vec<Image>> = OnceLock::new();
        let all = ALL.get_or_init(|| IMAGES.iter().map(|stored| Image::unpack(stored.bytes)).collect());
        let place = IMAGES.iter().position(|known| known.series == stored.series).unwrap();
        all[place].clone()
    }

    fn unpack(stored: &[u8]) -> Image {
        let bytes = zstd::bulk::decompress(stored, 16 << 20).unwrap();
        let mut image: Image = postcard::from_bytes(&bytes).unwrap();
        let own: Vec<i32> = own_threads().to_vec();
        image.replace_tids(|word| own.get(usize::try_from(word.checked_sub(TID)?).ok()?).copied());
        image
    }

    pub fn pack(mut self, tids: &[i32]) -> Vec<u8> {
        let place = |word| tids.iter().take(THREADS).position(|tid| *tid == word);
        self.replace_tids(|word| Some(TID + place(word)? as i32));
        zstd::bulk::compress(&postcard::to_allocvec(&self).unwrap(), 19).unwrap()
    }

    fn replace_tids(&mut self, new: impl Fn(i32) -> Option<i32>) {
        for word in self.pieces.iter_mut().flat_map(|(_, bytes)| bytes.as_chunks_mut::<4>().0) {
            if let Some(new) = new(i32::from_le_bytes(*word)) {
                *word = new.to_le_bytes();
            }
        }
    }

    /// Whether the interpreter publishes where its fields are.
    pub fn publishes(&self) -> bool {
        self.version >= 0x030d_0000
    }
}

/// The ids of threads of this process that sleep for ever.
pub fn own_threads() -> &'static [i32] {
    static TIDS: OnceLock<Vec<i32>> = OnceLock::new();
    TIDS.get_or_init(|| {
        let (tell, told) = std::sync::mpsc::channel();
        for _ in 0..THREADS {
            let tell = tell.clone();
            std::thread::spawn(move || {
                tell.send(nix::unistd::gettid().as_raw()).unwrap();
                loop {
                    std::thread::park();
                }
            });
        }
        told.iter().take(THREADS).collect()
    })
}

/// Keeps every word that is read.
pub struct Taking<M> {
    memory: M,
    words: RefCell<BTreeMap<u64, [u8; 8]>>,
}

impl<M> Taking<M> {
    pub fn new(memory: M) -> Self {
        Taking { memory, words: RefCell::default() }
    }

    /// What was read, in pieces as long as can be.
    pub fn pieces(&self) -> Vec<(u64, Vec<u8>)> {
        let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
        for (&address, word) in self.words.borrow().iter() {
            match pieces.last_mut() {
                Some((start, bytes)) if *start + bytes.len() as u64 == address => bytes.extend(word),
                _ => pieces.push((address, word.to_vec())),
            }
        }
        pieces
    }
}

impl<M: ReadMemory> ReadMemory for Taking<M> {
    fn read_batch(&self, segments: &mut [Segment<'_>]) -> Result<(), ReadError> {
        self.memory.read_batch(segments)?;
        for segment in segments.iter().filter(|segment| segment.arrived) {
            let start = segment.address.raw() & !7;
            let end = (segment.address.raw() + segment.buffer.len() as u64).next_multiple_of(8);
            let mut bytes = vec![0; (end - start) as usize];
            self.memory.read(Address::new(start), &mut bytes)?;
            let words = (start..).step_by(8).zip(bytes.as_chunks::<8>().0.iter().copied());
            self.words.borrow_mut().extend(words);
        }
        Ok(())
    }
}
