//! The file that a recording is: a magic, then blocks, each a zstd frame with its length before it
//! (`docs/recording-format.md`). Written block by block, and read so from wherever.
//!
//! A file may be damaged or made to do harm: nothing is allocated because a number in it says so.

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use super::part::Part;
use super::{Ending, Target, v1};
use crate::units::{NamespacePid, Timestamp};

/// What a recording begins with; the version follows. The line feed shows where one was transferred as text.
pub(super) const MAGIC: &[u8] = b"gilspy\n";

/// The version of the format.
pub(super) const VERSION: u8 = 1;

/// Before each block: the length of its frame, and the same with each bit inverted.
const LENGTHS: usize = 8;

/// Bytes of a block at most, compressed or not.
const MOST_BYTES: usize = 16 << 20;

/// Bytes that are copied at a time.
const COPIED_AT_ONCE: usize = 1 << 20;

/// Speed matters more here than the last percent: gilspy may have little CPU.
const LEVEL: i32 = 3;

/// Kinds of blocks: the first byte of each.
pub(super) const HEADER: u8 = 1;
pub(super) const PROCESS: u8 = 2;
pub(super) const STRETCH: u8 = 3;
pub(super) const CLOSING: u8 = 4;

/// Kinds from here on have to be understood by who reads a file; others may be skipped.
pub(super) const MUST_BE_KNOWN: u8 = 128;

/// The finest difference of time that is kept, and the coarsest: a thousandth of a period is plenty.
const FINEST_NS: u64 = 1;
const COARSEST_NS: u64 = 1000;

/// What holds for every process that a file has recordings of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The host's name.
    pub host: String,
    /// When the recording started, by the wall clock.
    pub start: jiff::Timestamp,
    /// The rate that was asked for, in ticks per second.
    pub rate_hz: u32,
    /// Whether every thread is looked at, or only who holds a GIL.
    pub sees_all_threads: bool,
}

/// A process whose recording begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProcess {
    /// What it is.
    pub target: Target,
    /// On how many CPUs it may run.
    pub cpus: u32,
    /// The number of the process that started it, if that is recorded too.
    pub parent: Option<u32>,
    /// When it is looked at first.
    pub since: Timestamp,
}

impl Session {
    /// The unit of the times of ticks.
    fn tick_unit_ns(&self) -> u32 {
        let period = 1_000_000_000 / u64::from(self.rate_hz.max(1));
        (period / 1000).clamp(FINEST_NS, COARSEST_NS) as u32
    }
}

/// Writes a recording.
pub struct Appender<W> {
    writer: W,
    length: u64,
    tick_unit_ns: u32,
    processes: Vec<v1::Texts>,
    compressor: Compressor<'static>,
}

impl<W: Write> Appender<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn new(mut writer: W, session: &Session) -> Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        writer.write_all(MAGIC)?;
        writer.write_all(&[VERSION])?;
        let mut appender = Appender {
            writer,
            length: MAGIC.len() as u64 + 1,
            tick_unit_ns: session.tick_unit_ns(),
            processes: Vec::new(),
            compressor,
        };
        let header = v1::Header {
            gilspy: env!("CARGO_PKG_VERSION").to_owned(),
            host: session.host.clone(),
            start_s: session.start.as_second(),
            start_ns: session.start.subsec_nanosecond(),
            rate_hz: session.rate_hz,
            sees_all_threads: session.sees_all_threads,
            tick_unit_ns: appender.tick_unit_ns,
        };
        appender.write(HEADER, &header)?;
        Ok(appender)
    }

    /// Adds a process and answers its number.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn add_process(&mut self, process: &NewProcess) -> Result<u32> {
        let number = self.processes.len() as u32;
        self.processes.push(v1::Texts::default());
        let NewProcess { target, cpus, parent, since } = process;
        let process = v1::Process {
            number,
            parent: *parent,
            since_ns: since.as_nanos(),
            pid: target.pid.raw(),
            namespace_pid: target.namespace_pid.map(NamespacePid::raw),
            python: target.python.clone(),
            free_threaded: target.free_threaded,
            command: target.command.clone(),
            cpus: *cpus,
        };
        self.write(PROCESS, &process)?;
        Ok(number)
    }

    /// Adds what has come of a process.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn append(&mut self, process: u32, part: &Part) -> Result<()> {
        let texts = self.processes.get_mut(process as usize);
        let texts = texts.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "there is no such process"))?;
        let stretch = v1::Stretch::encode(process, part, texts, self.tick_unit_ns);
        self.write(STRETCH, &stretch)
    }

    /// Ends what there is of a process.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn close(&mut self, process: u32, ending: Ending, end: Duration) -> Result<()> {
        self.write(CLOSING, &v1::Closing::new(process, ending, end))
    }

    /// How long it is now.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where it is written to.
    pub fn get_ref(&self) -> &W {
        &self.writer
    }

    /// The same, when there is nothing more to write.
    pub fn into_inner(self) -> W {
        self.writer
    }

    fn write(&mut self, kind: u8, content: &impl Serialize) -> Result<()> {
        let block = postcard::to_extend(content, vec![kind]).map_err(invalid)?;
        if block.len() > MOST_BYTES {
            return Err(invalid("too much happened at once to be written"));
        }
        let frame = self.compressor.compress(&block)?;
        let length = frame.len() as u32;
        let mut bytes = Vec::with_capacity(LENGTHS + frame.len());
        bytes.extend(length.to_le_bytes());
        bytes.extend((!length).to_le_bytes());
        bytes.extend(frame);
        self.writer.write_all(&bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::InvalidData, error)
}

/// Where a recording is read from.
#[derive(Debug, Clone)]
pub struct Source {
    bytes: Bytes,
    length: u64,
}

#[derive(Debug, Clone)]
enum Bytes {
    File(Arc<File>),
    Memory(Arc<[u8]>),
}

/// What is at some place of a file.
pub(super) enum Found {
    /// A block: its first byte, the others, and where the next one is.
    Block { kind: u8, content: Vec<u8>, next: u64 },
    /// Nothing more: the file ends here, as it should.
    End,
    /// The beginning of a block, the rest of which was never written.
    CutOff,
    /// Something that no block is.
    Damaged(&'static str),
}

impl Source {
    /// The file at this path.
    ///
    /// # Errors
    /// When it cannot be opened, or is none.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        match file.metadata()?.is_file() {
            true => Source::file(file),
            false => Err(Error::new(ErrorKind::InvalidInput, "it is not a file")),
        }
    }

    /// An open file, as long as it is now.
    ///
    /// # Errors
    /// When its length cannot be found out.
    pub fn file(file: File) -> Result<Self> {
        let length = file.metadata()?.len();
        Ok(Source { bytes: Bytes::File(Arc::new(file)), length })
    }

    /// The same up to a length.
    pub fn until(self, length: u64) -> Self {
        Source { length: self.length.min(length), ..self }
    }

    /// Bytes in memory.
    pub fn memory(bytes: Vec<u8>) -> Self {
        Source { length: bytes.len() as u64, bytes: Bytes::Memory(bytes.into()) }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When it cannot be read, or the writer fails.
    pub fn copy(&self, writer: &mut impl Write) -> Result<()> {
        let mut at = 0;
        while at < self.length {
            let bytes = self.bytes(at, COPIED_AT_ONCE)?;
            writer.write_all(&bytes)?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// At most so many bytes from some place on: fewer where it ends.
    pub(super) fn bytes(&self, at: u64, count: usize) -> Result<Vec<u8>> {
        let count = self.length.saturating_sub(at).min(count as u64) as usize;
        let mut bytes = vec![0; count];
        match &self.bytes {
            Bytes::File(file) => file.read_exact_at(&mut bytes, at)?,
            Bytes::Memory(memory) => bytes.copy_from_slice(&memory[at as usize..at as usize + count]),
        }
        Ok(bytes)
    }

    /// What is at some place, where a block should begin.
    pub(super) fn block(&self, at: u64) -> Result<Found> {
        let found = self.look(at)?;
        Ok(match found {
            // What a file system leaves of what it had not written when the machine stopped.
            Found::Damaged(_) if self.ends_in_zeros()? => Found::CutOff,
            found => found,
        })
    }

    fn look(&self, at: u64) -> Result<Found> {
        let lengths = self.bytes(at, LENGTHS)?;
        if lengths.is_empty() {
            return Ok(Found::End);
        }
        let Ok([a, b, c, d, inverted @ ..]) = <[u8; LENGTHS]>::try_from(lengths) else {
            return Ok(Found::CutOff);
        };
        let length = u32::from_le_bytes([a, b, c, d]);
        if length != !u32::from_le_bytes(inverted) || length as usize > MOST_BYTES {
            return Ok(Found::Damaged("the length of a block is none"));
        }
        let frame = self.bytes(at + LENGTHS as u64, length as usize)?;
        if frame.len() < length as usize {
            return Ok(Found::CutOff);
        }
        let content = Decompressor::new()?.decompress(&frame, MOST_BYTES);
        let Ok(content) = content else {
            return Ok(Found::Damaged("a block is not what was written"));
        };
        let Some((&kind, content)) = content.split_first() else {
            return Ok(Found::Damaged("a block is empty"));
        };
        let next = at + LENGTHS as u64 + u64::from(length);
        Ok(Found::Block { kind, content: content.to_vec(), next })
    }

    fn ends_in_zeros(&self) -> Result<bool> {
        let tail = self.bytes(self.length.saturating_sub(LENGTHS as u64), LENGTHS)?;
        Ok(tail.iter().all(|byte| *byte == 0))
    }
}
