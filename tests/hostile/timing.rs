//! How long steps take, for `benches/hostile.rs`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The longest of each kind since they were last taken.
static LONGEST: Mutex<BTreeMap<&'static str, Duration>> = Mutex::new(BTreeMap::new());

/// Does something of a kind, and remembers how long it took if nothing of its kind took longer.
pub fn timed<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    let took = began.elapsed();
    let mut longest = LONGEST.lock().unwrap();
    let before = longest.entry(what).or_default();
    *before = took.max(*before);
    result
}

/// The longest of each kind, which are forgotten.
pub fn take_longest() -> BTreeMap<&'static str, Duration> {
    std::mem::take(&mut *LONGEST.lock().unwrap())
}
