//! The units everything else is measured in. Each is its own type, so that a namespace's thread id
//! cannot be taken for a host's, nor a length for an address. Imports nothing from the crate.

use std::fmt;
use std::ops::{Add, Range};
use std::time::Duration;

/// An address in the target's memory. Untrusted: it may point anywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(u64);

impl Address {
    /// The null pointer.
    pub const NULL: Address = Address(0);

    /// An address from the number the target's memory or a symbol table holds.
    pub const fn new(raw: u64) -> Self {
        Address(raw)
    }

    /// The bare number.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Whether this is the null pointer.
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// How many bytes this address lies above `start`, if it lies above it at all.
    pub const fn offset_from(self, start: Address) -> Option<u64> {
        self.0.checked_sub(start.0)
    }
}

/// Wraps around: an address that overflows is read and fails like any other bad one.
impl Add<u64> for Address {
    type Output = Address;

    fn add(self, offset: u64) -> Address {
        Address(self.0.wrapping_add(offset))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A number that the kernel hands out for a process or thread.
macro_rules! kernel_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(i32);

        impl $name {
            /// The id from the kernel's number.
            pub const fn new(raw: i32) -> Self {
                $name(raw)
            }

            /// The kernel's number.
            pub const fn raw(self) -> i32 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

kernel_id! {
    /// A process id as gilspy's own PID namespace counts it.
    Pid
}
kernel_id! {
    /// A process id as the target's own PID namespace counts it: what it knows itself by.
    NamespacePid
}
kernel_id! {
    /// A thread id as gilspy's own PID namespace counts it.
    Tid
}
kernel_id! {
    /// A thread id as the target's PID namespace counts it: what the target itself sees and stores.
    NamespaceTid
}

/// A moment of a recording: nanoseconds of the monotonic clock since the recording's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The recording's start.
    pub const START: Timestamp = Timestamp(0);

    /// A moment that many nanoseconds after the recording's start.
    pub const fn from_nanos_since_start(nanos: u64) -> Self {
        Timestamp(nanos)
    }

    /// A moment that long after the recording's start, at most some 584 years.
    pub fn from_duration_since_start(duration: Duration) -> Self {
        Timestamp(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The moment that much later.
    pub fn after(self, duration: Duration) -> Self {
        Timestamp(self.0.saturating_add(Self::from_duration_since_start(duration).0))
    }

    /// The same moment since the start of a span of time; what is not in it is at its start or its end.
    pub fn within(self, span: &Range<Timestamp>) -> Self {
        Timestamp(self.0.min(span.end.0).saturating_sub(span.start.0))
    }

    /// Nanoseconds since the recording's start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since the recording's start.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}
