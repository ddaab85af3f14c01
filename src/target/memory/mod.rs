//! Reading another process's memory, as an argument: the interpreter side reads through
//! [`ReadMemory`], so that recorded bytes can stand in for a live process.

pub mod budget;
pub mod live;

use crate::units::Address;

/// One piece of memory to read, whole or not at all.
#[derive(Debug)]
pub struct Segment<'a> {
    /// Where it starts in the target.
    pub address: Address,
    /// Where the bytes go; its length says how many.
    pub buffer: &'a mut [u8],
    /// Whether all of it arrived. If not, the buffer's content means nothing.
    pub arrived: bool,
}

impl<'a> Segment<'a> {
    /// A segment still to be read.
    pub fn new(address: Address, buffer: &'a mut [u8]) -> Self {
        Segment { address, buffer, arrived: false }
    }
}

/// Why memory could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing readable is mapped there.
    #[error("no readable memory at {0:?}")]
    Unmapped(Address),
    /// More than is read at a time: see [`budget`].
    #[error("there is more to read than gilspy reads at a time")]
    Exhausted,
    /// The process no longer exists.
    #[error("the process has ended")]
    Gone,
    /// The kernel refuses (ptrace access mode, see ptrace(2)).
    #[error("permission denied")]
    Denied,
    /// Any other answer of the kernel.
    #[error("the kernel says: {0}")]
    Kernel(nix::errno::Errno),
}

impl ReadError {
    /// Whether it ends what is being done, rather than be about one place in memory.
    pub fn is_final(self) -> bool {
        matches!(self, ReadError::Gone | ReadError::Denied | ReadError::Exhausted)
    }
}

/// A process's memory, or a recording of it.
pub trait ReadMemory {
    /// Reads every segment, in the given order, and marks those that arrived.
    ///
    /// # Errors
    /// When nothing can be read at all, because the process is gone, access is denied, or enough was read. A segment
    /// that is not mapped is no error: it is left marked as not arrived.
    fn read_batch(&self, segments: &mut [Segment<'_>]) -> Result<(), ReadError>;

    /// Fills `buffer` from `address`.
    ///
    /// # Errors
    /// When any byte of it could not be read.
    fn read(&self, address: Address, buffer: &mut [u8]) -> Result<(), ReadError> {
        let mut segments = [Segment::new(address, buffer)];
        self.read_batch(&mut segments)?;
        if segments[0].arrived { Ok(()) } else { Err(ReadError::Unmapped(address)) }
    }

    /// The unsigned 64-bit number at `address`.
    ///
    /// # Errors
    /// When it could not be read.
    fn read_u64(&self, address: Address) -> Result<u64, ReadError> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The pointer at `address`.
    ///
    /// # Errors
    /// When it could not be read.
    fn read_pointer(&self, address: Address) -> Result<Address, ReadError> {
        self.read_u64(address).map(Address::new)
    }
}

impl<M: ReadMemory + ?Sized> ReadMemory for &M {
    fn read_batch(&self, segments: &mut [Segment<'_>]) -> Result<(), ReadError> {
        (**self).read_batch(segments)
    }
}
