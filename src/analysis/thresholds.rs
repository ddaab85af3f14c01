//! From which figure on something is said; `docs/reading-the-results.md` explains each.

/// A hold is long from so many switch intervals on: after one a waiter asks for the GIL, and Python code gives it
/// up soon (`eval_breaker` in CPython `Python/ceval_gil.c`).
pub(super) const LONG_HOLD_INTERVALS: u32 = 2;

/// A function carries the GIL from such a share on of the time that it is held.
pub(super) const CARRIES: f64 = 0.6;

/// A thread takes part in that from such a share on of the function's.
pub(super) const TAKES_PART: f64 = 0.05;

/// Waiting matters from so many threads on that wait at a time, on the average.
pub(super) const WAITING_MATTERS: f64 = 0.1;

/// And from such a share on of the time that threads run or want to.
pub(super) const WAITING_MATTERS_SHARE: f64 = 0.1;

/// A second cause is named from such a share of the waiting on.
pub(super) const SECOND_CAUSE: f64 = 0.25;

/// Of threads that do something unknown for such a share of their time it is not said whether they wait.
pub(super) const MOSTLY_UNKNOWN: f64 = 0.25;

/// One frame is to blame from such a share on.
pub(super) const MOST: f64 = 0.5;

/// The GIL is held nearly always, or mostly, from such a share on.
pub(super) const MOSTLY_HELD: f64 = 0.5;

/// A holder is starved if it has no CPU for such a share of its time.
pub(super) const STARVED: f64 = 0.2;

/// Threads run without the GIL if so many do at a time, on the average.
pub(super) const NATIVE_THREADS: f64 = 0.5;

/// Hardly anything runs if so few threads do at a time, on the average.
pub(super) const IDLE: f64 = 0.05;

/// Where many figures are compared at once, a change is beyond chance from so many times its 95 % interval on: 3.1
/// standard errors, which chance exceeds twice in a thousand comparisons.
pub(super) const MANY_COMPARED: f64 = 1.6;

/// A function's change matters from such a share of the time on.
pub(super) const CHANGE_MATTERS: f64 = 0.005;
