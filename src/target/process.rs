//! One process: held by a pidfd, so that its pid cannot come to mean another one unnoticed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::descriptors;
use super::entry::ProcEntry;
use super::memory::ReadMemory;
use super::memory::live::LiveMemory;
use super::permission::{self, Permission};
use crate::text::{from_bytes, visible};
use crate::units::{Address, NamespacePid, Pid};

/// A process that existed when it was opened.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    entry: ProcEntry,
    program: Option<Program>,
}

/// What changes when a process replaces its program by exec(2): where the stack of the new one starts
/// (`startstack` of proc_pid_stat(5)), and, where addresses are not random, the 16 random bytes that the kernel
/// gives each program (`AT_RANDOM` of getauxval(3)).
type Program = (u64, Option<[u8; 16]>);

/// Key of the address of 16 random bytes in the auxiliary vector (Linux `include/uapi/linux/auxvec.h`).
const AT_RANDOM: u64 = 25;

/// Flag of kernel threads in proc_pid_stat(5) (Linux `include/linux/sched.h`).
const PF_KTHREAD: u32 = 0x0020_0000;

/// Bytes of `auxv`, `comm` and `cmdline` at most. A program can have the kernel take any part of its memory for its
/// command line (`PR_SET_MM_MAP` of prctl(2)).
const MOST_AUXV: usize = 1 << 16;
const MOST_COMM: usize = 256;
const MOST_CMDLINE: usize = 1 << 16;

/// Why a process could not be opened or looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// No process has this pid.
    #[error(
        "no process has pid {0}; it may have ended\n\
         `pgrep -a python` lists what runs here. In a container, pids differ from the host's"
    )]
    NoSuchProcess(Pid),
    /// The number is a thread's.
    #[error("{thread} is a thread of process {process}, not a process\nTry: gilspy … -p {process}")]
    IsThread {
        /// The number given.
        thread: Pid,
        /// The process it is a thread of.
        process: Pid,
    },
    /// The process has ended, but its parent has not asked for its exit status yet.
    #[error("pid {0} has ended (it is a zombie: its parent has not waited for it yet)")]
    Zombie(Pid),
    /// It has given up its memory already, but is not quite gone.
    #[error("pid {0} ended while gilspy was attaching to it")]
    Ending(Pid),
    /// A kernel thread has no memory of its own.
    #[error("pid {0} is a kernel thread, not a program")]
    KernelThread(Pid),
    /// The kernel refuses access.
    #[error("cannot read pid {pid}{description}: permission denied\n{permission}")]
    Denied {
        /// The process.
        pid: Pid,
        /// Its program and user, where those could be found, such as ` (gunicorn, user www-data)`.
        description: String,
        /// What it would take.
        permission: Permission,
    },
    /// gilspy may open no more files.
    #[error(
        "cannot look at pid {pid}: gilspy may have only {limit} files open\n\
         Raise that limit: ulimit -n, LimitNOFILE= of a systemd unit, --ulimit nofile=… of docker run"
    )]
    TooManyFiles {
        /// The process.
        pid: Pid,
        /// How many.
        limit: u64,
    },
    /// Any other answer of the kernel.
    #[error("cannot look at pid {pid}: {error}")]
    Other {
        /// The process.
        pid: Pid,
        /// What the kernel says.
        error: std::io::Error,
    },
}

impl Process {
    /// Takes hold of a process.
    ///
    /// # Errors
    /// When there is none of this pid, or it is not one that can have Python code.
    pub fn open(pid: Pid) -> Result<Self, ProcessError> {
        let raw = rustix::process::Pid::from_raw(pid.raw()).ok_or(ProcessError::NoSuchProcess(pid))?;
        let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => return Err(not_a_process(pid, error.into())),
        };
        let entry = ProcEntry::open(pid).map_err(|error| not_in_proc(pid, pidfd.as_fd(), error))?;
        let mut process = Process { pid, pidfd, entry, program: None };
        // While it has not ended, no other process can have got its pid before its directory was opened.
        if !process.is_alive() {
            return Err(process.ended());
        }
        process.program = process.current_program();
        process.refuse_without_program()?;
        Ok(process)
    }

    fn refuse_without_program(&self) -> Result<(), ProcessError> {
        match self.entry.stat() {
            Ok(stat) if stat.state == 'Z' || stat.state == 'X' => Err(ProcessError::Zombie(self.pid)),
            Ok(stat) if stat.flags & PF_KTHREAD != 0 => Err(ProcessError::KernelThread(self.pid)),
            Ok(stat) if stat.vsize == 0 => Err(ProcessError::Ending(self.pid)),
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The descriptor that becomes readable when it ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its directory in /proc.
    pub fn entry(&self) -> &ProcEntry {
        &self.entry
    }

    /// Its memory.
    pub fn memory(&self) -> LiveMemory {
        LiveMemory::of(self.entry.clone())
    }

    /// Its pid as its own namespace counts; `None` where the kernel does not say.
    pub fn namespace_pid(&self) -> Option<NamespacePid> {
        let ids = self.entry.status(None).ok()?.nspid?;
        ids.last().copied().map(NamespacePid::new)
    }

    /// What to call a process that was there a moment ago.
    fn ended(&self) -> ProcessError {
        match self.entry.procfs().stat() {
            Ok(_) => ProcessError::Zombie(self.pid),
            Err(_) => ProcessError::NoSuchProcess(self.pid),
        }
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        has_not_ended(self.pidfd.as_fd())
    }

    /// Whether it has no memory any more: a process gives that up some time before its pidfd says that it
    /// has ended.
    pub fn has_no_memory(&self) -> bool {
        !self.is_alive() || self.entry.stat().is_ok_and(|stat| stat.vsize == 0)
    }

    /// Whether it runs another program than when it was opened, or when [`Process::accept_program`] was
    /// called.
    pub fn has_executed(&self) -> bool {
        let now = self.current_program();
        now.is_some() && now != self.program
    }

    /// Whether it ran the very program that the other one ran when they were opened: one is the other's child, which has
    /// not executed another program (what fork(2) copies has the same random bytes).
    pub fn is_fork_of(&self, other: &Process) -> bool {
        self.program.is_some_and(|(_, random)| random.is_some()) && self.program == other.program
    }

    /// Takes the program that it runs now as the one it ought to run.
    pub fn accept_program(&mut self) {
        self.program = self.current_program();
    }

    /// Takes the program that it runs now, if it was in the midst of exec(2) when it was opened: then it was neither
    /// the old program nor the new one.
    pub fn accept_loaded_program(&mut self) {
        if self.program.is_none_or(|(_, random)| random.is_none()) {
            self.accept_program();
        }
    }

    /// `None` where it has no memory any more; no random bytes where they cannot be read, as in the midst of exec(2)
    /// (`create_elf_tables` in Linux `fs/binfmt_elf.c` puts them there).
    fn current_program(&self) -> Option<Program> {
        let mut random = [0; 16];
        let address = self
            .entry
            .bytes(self.entry.directory() + "auxv", MOST_AUXV)
            .ok()
            .and_then(|auxv| at_random(&auxv));
        let read = address.map(|address| self.memory().read(Address::new(address), &mut random));
        // After the memory, which could be gone by then: a process that ends is not another program.
        let stat = self.entry.stat().ok()?;
        (stat.vsize > 0).then_some((stat.startstack, matches!(read, Some(Ok(()))).then_some(random)))
    }

    /// The kernel's name for its program, at most 15 bytes; empty where it cannot be read.
    pub fn name(&self) -> String {
        let comm = self.entry.bytes("comm", MOST_COMM).unwrap_or_default();
        from_bytes(comm.strip_suffix(b"\n").unwrap_or(&comm))
    }

    /// Its command line, cut where it is very long; a program may have changed it.
    pub fn command_line(&self) -> Vec<String> {
        let Ok(bytes) = self.entry.bytes(self.entry.directory() + "cmdline", MOST_CMDLINE + 1) else {
            return Vec::new();
        };
        let (line, end) = match bytes.get(..MOST_CMDLINE) {
            Some(beginning) if bytes.len() > MOST_CMDLINE => (beginning, "…"),
            _ => (bytes.strip_suffix(b"\0").unwrap_or(&bytes), ""),
        };
        let mut words: Vec<String> = line.split(|&byte| byte == 0).map(from_bytes).collect();
        if let Some(last) = words.last_mut() {
            last.push_str(end);
        }
        words
    }

    /// On how many CPUs it may run, as far as is known; at least 1.
    pub fn cpus(&self) -> u32 {
        let allowed = self.entry.status(None).ok().and_then(|status| status.cpus_allowed);
        let allowed = allowed.map(|words| words.iter().map(|word| word.count_ones()).sum());
        allowed
            .filter(|&cpus| cpus > 0)
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended, or the kernel refuses.
    pub fn signal(&self, signal: Signal) -> std::io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// The error to show for what /proc answered about this process.
    pub fn explain(&self, error: procfs::ProcError) -> ProcessError {
        match error {
            procfs::ProcError::PermissionDenied(_) => self.denied(),
            error if is_too_many_files(&error) => self.too_many_files(),
            procfs::ProcError::NotFound(_) if self.is_alive() && permission::hidden_by().is_some() => {
                self.denied()
            }
            procfs::ProcError::NotFound(_) => ProcessError::NoSuchProcess(self.pid),
            other if !self.is_alive() => {
                drop(other);
                ProcessError::NoSuchProcess(self.pid)
            }
            other => ProcessError::Other { pid: self.pid, error: std::io::Error::other(other) },
        }
    }

    /// The error to show where gilspy may open no more files.
    pub fn too_many_files(&self) -> ProcessError {
        too_many_files(self.pid)
    }

    /// The error to show where the kernel refuses to show this process.
    pub fn denied(&self) -> ProcessError {
        denied(self.pid)
    }

    /// Whether the kernel does not show what its threads wait in. Memory may be readable though this is not: only the process's
    /// own user may open `syscall`, or who has CAP_DAC_READ_SEARCH besides CAP_SYS_PTRACE (Linux `fs/proc/base.c`).
    pub fn hides_threads(&self) -> bool {
        let syscall = self.entry.file(self.entry.directory() + "syscall");
        matches!(syscall, Err(procfs::ProcError::PermissionDenied(_)))
    }

    /// Whether any byte of it may be read; `probe` is an address that is surely mapped.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn check_access(&self, probe: Address) -> Result<(), ProcessError> {
        use super::memory::ReadError;
        match self.memory().read(probe, &mut [0]) {
            Err(ReadError::Denied) => Err(self.denied()),
            Err(ReadError::Gone) => Err(ProcessError::NoSuchProcess(self.pid)),
            _ => Ok(()),
        }
    }
}

/// Whether the process behind a pidfd has not ended.
pub(super) fn has_not_ended(pidfd: BorrowedFd<'_>) -> bool {
    matches!(poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], PollTimeout::ZERO), Ok(0))
}

/// The address of the 16 random bytes in an auxiliary vector, pairs of key and value (proc_pid_auxv(5)).
fn at_random(auxv: &[u8]) -> Option<u64> {
    let words = auxv.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes);
    let words: Vec<u64> = words.collect();
    words.chunks_exact(2).find(|pair| pair[0] == AT_RANDOM).map(|pair| pair[1])
}

fn denied(pid: Pid) -> ProcessError {
    ProcessError::Denied { pid, description: describe(pid), permission: Permission::for_process(pid) }
}

fn too_many_files(pid: Pid) -> ProcessError {
    ProcessError::TooManyFiles { pid, limit: descriptors::limit() }
}

fn is_too_many_files(error: &procfs::ProcError) -> bool {
    let procfs::ProcError::Io(error, _) = error else { return false };
    is_out_of_descriptors(error)
}

fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE].iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// The error for a process that there is, or was a moment ago, and that has no directory in /proc.
fn not_in_proc(pid: Pid, pidfd: BorrowedFd<'_>, error: procfs::ProcError) -> ProcessError {
    match error {
        error if is_too_many_files(&error) => too_many_files(pid),
        // A mount option hides it.
        _ if has_not_ended(pidfd) => denied(pid),
        _ => ProcessError::NoSuchProcess(pid),
    }
}

/// pidfd_open(2) answers EINVAL (ENOENT since Linux 6.16) for a thread that is not its process's first.
fn not_a_process(pid: Pid, error: std::io::Error) -> ProcessError {
    if is_out_of_descriptors(&error) {
        return too_many_files(pid);
    }
    match ProcEntry::open(pid).and_then(|entry| entry.status(None)) {
        Ok(status) if status.tgid != pid.raw() => {
            ProcessError::IsThread { thread: pid, process: Pid::new(status.tgid) }
        }
        Ok(_) => ProcessError::Other { pid, error },
        Err(_) => ProcessError::NoSuchProcess(pid),
    }
}

/// Program and user of a process, for an error message: ` (gunicorn, user www-data)`.
fn describe(pid: Pid) -> String {
    let Ok(status) = ProcEntry::open(pid).and_then(|entry| entry.status(None)) else {
        return String::new();
    };
    let program = visible(&status.name);
    format!(" ({program}, user {})", permission::user_name(status.ruid))
}
