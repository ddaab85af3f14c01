//! The memory of a live process, through process_vm_readv(2): no pause, no attachment, one system
//! call a batch.

use std::io::IoSliceMut;
use std::sync::atomic::{AtomicI32, Ordering};

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};

use super::{ReadError, ReadMemory, Segment};
use crate::target::entry::ProcEntry;
use crate::units::Pid;

/// Segments that go into one system call; the kernel takes up to 1,024 (UIO_MAXIOV).
const SEGMENTS_A_CALL: usize = 64;

/// A live process's memory.
#[derive(Debug)]
pub struct LiveMemory {
    /// The thread through which it is read: the first one, or another once that has ended and has no memory any more.
    task: AtomicI32,
    /// Where to look for another one.
    process: Option<ProcEntry>,
}

impl LiveMemory {
    /// The memory of this process. Nothing is opened: access is checked by the kernel at each read.
    pub fn new(pid: Pid) -> Self {
        LiveMemory { task: AtomicI32::new(pid.raw()), process: None }
    }

    /// The memory of this process for as long as any of its threads runs.
    pub fn of(process: ProcEntry) -> Self {
        LiveMemory { task: AtomicI32::new(process.pid().raw()), process: Some(process) }
    }

    /// Reads as many leading segments as the kernel gives in one call, and answers how many.
    fn read_leading(&self, segments: &mut [Segment<'_>]) -> Result<usize, ReadError> {
        let bytes = match self.read_bytes(segments) {
            Ok(bytes) => bytes,
            Err(Errno::EFAULT) => 0,
            Err(Errno::ESRCH) => return Err(ReadError::Gone),
            // The second where a seccomp filter forbids the call, as those of containers do.
            Err(Errno::EPERM | Errno::ENOSYS) => return Err(ReadError::Denied),
            Err(other) => return Err(ReadError::Kernel(other)),
        };
        Ok(mark_arrived(segments, bytes))
    }

    fn read_bytes(&self, segments: &mut [Segment<'_>]) -> nix::Result<usize> {
        let mut remote = ArrayVec::<RemoteIoVec, SEGMENTS_A_CALL>::new();
        let mut local = ArrayVec::<IoSliceMut<'_>, SEGMENTS_A_CALL>::new();
        for segment in segments {
            remote.push(RemoteIoVec { base: segment.address.raw() as usize, len: segment.buffer.len() });
            local.push(IoSliceMut::new(segment.buffer));
        }
        let task = self.task.load(Ordering::Relaxed);
        match process_vm_readv(nix::unistd::Pid::from_raw(task), &mut local, &remote) {
            Err(Errno::ESRCH) => {
                let another = self.process.as_ref().and_then(ProcEntry::running_task);
                let another = another.filter(|another| another.raw() != task).ok_or(Errno::ESRCH)?;
                self.task.store(another.raw(), Ordering::Relaxed);
                process_vm_readv(nix::unistd::Pid::from_raw(another.raw()), &mut local, &remote)
            }
            bytes => bytes,
        }
    }
}

impl ReadMemory for LiveMemory {
    fn read_batch(&self, segments: &mut [Segment<'_>]) -> Result<(), ReadError> {
        let mut next = 0;
        while next < segments.len() {
            let end = segments.len().min(next + SEGMENTS_A_CALL);
            let arrived = self.read_leading(&mut segments[next..end])?;
            next += arrived;
            // The kernel stops at the first segment it cannot read (process_vm_readv(2)): step over it.
            if next < end {
                segments[next].arrived = false;
                next += 1;
            }
        }
        Ok(())
    }
}

/// Marks the leading segments that `bytes` bytes fill, and answers how many those are.
fn mark_arrived(segments: &mut [Segment<'_>], mut bytes: usize) -> usize {
    let mut arrived = 0;
    for segment in segments {
        if segment.buffer.len() > bytes {
            break;
        }
        bytes -= segment.buffer.len();
        segment.arrived = true;
        arrived += 1;
    }
    arrived
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Address;

    fn own_memory() -> LiveMemory {
        LiveMemory::new(Pid::new(std::process::id() as i32))
    }

    #[test]
    fn a_batch_reads_all_that_is_mapped_and_marks_what_is_not() {
        let (first, third) = (*b"first", *b"third");
        let (mut a, mut b, mut c) = ([0; 5], [0; 5], [0; 5]);
        let mut segments = [
            Segment::new(Address::new(first.as_ptr() as u64), &mut a),
            Segment::new(Address::new(8), &mut b),
            Segment::new(Address::new(third.as_ptr() as u64), &mut c),
        ];
        own_memory().read_batch(&mut segments).unwrap();
        assert_eq!(segments.each_ref().map(|segment| segment.arrived), [true, false, true]);
        assert_eq!((a, c), (first, third));
    }

    #[test]
    fn more_segments_than_one_call_takes_all_arrive() {
        let numbers: Vec<u64> = (0..200).collect();
        let mut buffers = vec![[0; 8]; numbers.len()];
        let mut segments: Vec<Segment<'_>> = buffers
            .iter_mut()
            .zip(&numbers)
            .map(|(buffer, number)| Segment::new(Address::new(number as *const u64 as u64), buffer))
            .collect();
        own_memory().read_batch(&mut segments).unwrap();
        assert!(segments.iter().all(|segment| segment.arrived));
        let read: Vec<u64> = buffers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        assert_eq!(read, numbers);
    }

    #[test]
    fn a_process_that_does_not_exist_is_gone() {
        let mut byte = [0];
        let nobody = LiveMemory::new(Pid::new(i32::MAX));
        assert_eq!(nobody.read(Address::new(4096), &mut byte), Err(ReadError::Gone));
    }
}
