//! What is read of a process at most, at a tick and otherwise, whatever its memory says: it is not trusted, and gilspy
//! may run as root on a machine that matters.
//!
//! An ordinary tick reads a few KB in ten pieces; the first one of a process of 200 threads some MB, since nothing is
//! known yet. What is more than that is left for the next tick, and `unknown` at this one.

use crate::target::memory::budget::Budget;

/// At a tick: some 10 to 30 ms.
pub const TICK: Budget = Budget { reads: 1 << 16, bytes: 8 << 20 };

/// At a look for interpreters, threads and names, a few times a second.
pub const REFRESH: Budget = Budget { reads: 1 << 18, bytes: 32 << 20 };

/// At a look at the code objects that are trusted, a few times a second.
pub const CONFIRMATION: Budget = Budget { reads: 1 << 19, bytes: 48 << 20 };

/// For the stacks that `dump` asks for besides, all together.
pub const STACKS: Budget = Budget { reads: 1 << 20, bytes: 128 << 20 };

/// Bytes of line tables that are searched at a tick: a table is read from its beginning on for each line.
pub const LINE_TABLES: usize = 8 << 20;

/// Bytes that any of these allocates at most, beside what there is already.
pub const MEMORY: usize = 256 << 20;
