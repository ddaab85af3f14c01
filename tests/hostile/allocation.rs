//! How much memory something takes, where the allocator counts: in the tests, not under libFuzzer, which limits the whole.

use std::sync::OnceLock;

/// What the allocator counts.
pub struct Counter {
    /// Bytes that are allocated.
    pub now: fn() -> usize,
    /// The most since the last time that this was called.
    pub start: fn(),
    pub most: fn() -> usize,
}

pub static COUNTER: OnceLock<Counter> = OnceLock::new();

/// Does something that may have so many bytes allocated at a time, beside what there is.
pub fn within<T>(most: usize, what: &str, work: impl FnOnce() -> T) -> T {
    let Some(counter) = COUNTER.get() else { return work() };
    let before = (counter.now)();
    (counter.start)();
    let result = work();
    let taken = (counter.most)().saturating_sub(before);
    assert!(taken <= most, "{what} took {taken} bytes, more than {most}");
    result
}
