//! What the report's words mean, and what its flame graphs are for.

use crate::analysis::{By, Kind};

/// What a kind of flame graph is called, and which question it answers.
pub(super) fn of_kind(by: By) -> (&'static str, &'static str) {
    match by {
        By::Hold => ("held the GIL", "Which code uses the GIL up?"),
        By::Wait => ("waited for it", "Whom does the GIL cost time, and where?"),
        By::Blame => ("made others wait", "Whose fault is the waiting?"),
        By::Cpu => ("ran", "What costs CPU time, with the GIL or without it?"),
        By::Wall => ("was there", "Where does time go, blocked or not?"),
    }
}

/// Whether a verdict is one to do something about.
pub(super) fn is_alarming(kind: Kind) -> bool {
    matches!(kind, Kind::GilBound | Kind::GilHogged | Kind::GilStalled | Kind::CpuStarved)
}

/// What a figure of a verdict is called, with its unit: a share, a length of time or a number.
pub(super) fn of_figure(name: &'static str) -> (&'static str, Unit) {
    match name {
        "held" => ("GIL held", Unit::Share),
        "waiters_mean" => ("threads waiting at a time", Unit::Number),
        "share_of_waiting" => ("of all waiting", Unit::Share),
        "long_holds" => ("long holds", Unit::Count),
        "longest_hold_s" => ("longest hold", Unit::Time),
        "starved_s" => ("holder without a CPU", Unit::Time),
        "starved" => ("holder without a CPU", Unit::Share),
        "native_mean" => ("threads running without the GIL", Unit::Number),
        "blocked_mean" => ("threads blocked", Unit::Number),
        "parallel_mean" => ("threads running Python at a time", Unit::Number),
        _ => (name, Unit::Number),
    }
}

/// What a figure is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// From 0 to 1.
    Share,
    /// Seconds.
    Time,
    /// Something with fractions.
    Number,
    /// Something without.
    Count,
}

/// The words of the report.
pub(super) const GLOSSARY: &[(&str, &str)] = &[
    ("GIL", "Python's global interpreter lock: whoever holds it runs Python, everybody else has to wait."),
    ("hold", "The thread holds the GIL and runs, or is ready to."),
    (
        "stall",
        "The thread holds the GIL and is blocked in a system call: nobody else can run Python meanwhile.",
    ),
    ("wait", "The thread wants the GIL and sleeps until it gets it: lost time."),
    ("native", "The thread runs C code that has released the GIL, beside Python."),
    ("blocked", "The thread has released the GIL and is blocked: I/O, a lock, a sleep."),
    ("parallel", "There is no GIL, and the thread runs Python."),
    ("unknown", "The state could not be read consistently. Counted, never guessed."),
    (
        "long hold",
        "A hold that is longer than twice the switch interval while somebody waits: Python code would have given the GIL up by then.",
    ),
    (
        "waiting inflicted",
        "What all others waited together, in thread-seconds, while this thread or code held the GIL (blame).",
    ),
    ("handover", "The GIL passes from one thread to another. Counted by the interpreter, so exact."),
    (
        "tick",
        "A moment at which gilspy looked. Missed: gilspy was too late for it. Torn: what it read was not consistent.",
    ),
    ("±", "Half the width of the 95 % confidence interval."),
];
