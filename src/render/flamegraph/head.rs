//! What stands above a flame graph: what it shows, what width means, and what was recorded.

use crate::analysis::{Analysed, By};
use crate::recording::Recording;
use crate::render::heading;
use crate::render::stacks::StackOptions;
use crate::render::svg::fit;
use crate::text::seconds;

/// Width of the picture, where nothing makes it another.
pub(super) const WIDTH: f64 = 1200.0;
/// Space at its left and right: inferno's.
pub(super) const MARGIN: f64 = 10.0;
/// Room at the right for the words to click on.
pub(super) const ASIDE: f64 = 110.0;

/// Font sizes of the title, and of all below it.
pub(super) const TITLE_SIZE: f64 = 18.0;
pub(super) const LINE_SIZE: f64 = 12.0;

/// The words, fitted to the picture's width.
pub(super) struct Head {
    pub(super) title: String,
    /// The lines below it, first what width means.
    pub(super) lines: Vec<String>,
    /// What to say where there is nothing to see.
    pub(super) nothing: String,
}

impl Head {
    pub(super) fn new(processes: &[Analysed<'_>], stacks: StackOptions, total_us: u64) -> Self {
        let room = WIDTH - 2.0 * MARGIN;
        let total_s = total_us as f64 / 1e6;
        let mut lines = vec![meaning(stacks)];
        match processes {
            [Analysed { recording, .. }] => {
                lines.push(heading::process(recording));
                lines.push(format!("{} · {}", heading::when(recording), heading::ticks(recording)));
            }
            [] => {}
            [first, ..] => {
                let pids: Vec<String> =
                    processes.iter().map(|process| process.recording.target.pid.to_string()).collect();
                lines.push(format!("{} processes: pid {}", processes.len(), pids.join(", ")));
                lines.push(heading::when(first.recording));
            }
        }
        let rooms = [room, room - ASIDE].into_iter().chain(std::iter::repeat(room));
        Head {
            title: fit(&title(processes, stacks.by, total_s), room - ASIDE, TITLE_SIZE),
            lines: lines.iter().zip(rooms).map(|(line, room)| fit(line, room, LINE_SIZE)).collect(),
            nothing: nothing(processes, stacks.by),
        }
    }
}

/// What the picture shows, with its figure.
fn title(processes: &[Analysed<'_>], by: By, total_s: f64) -> String {
    let time = seconds(total_s);
    match by {
        By::Hold => {
            let share = match processes {
                [Analysed { analysis, .. }] if analysis.gils.len() == 1 => {
                    format!(", {:.1} % of the time", analysis.gils[0].held.mean * 100.0)
                }
                _ => String::new(),
            };
            format!("Code that held the GIL: {time}{share}")
        }
        By::Wait => format!("Code that waited for the GIL: {time} over all threads"),
        By::Blame => format!("Code that made others wait for the GIL: they waited {time} together"),
        By::Cpu => format!("Code that ran: {time} over all threads"),
        By::Wall => format!("Where threads were: {time} over all threads"),
    }
}

/// What width means, and what stands on what.
fn meaning(stacks: StackOptions) -> String {
    let width = match stacks.by {
        By::Hold => "for how long a call held the GIL",
        By::Wait => "for how long threads waited for the GIL in a call",
        By::Blame => "for how long all others waited while a call held the GIL",
        By::Cpu => "for how long threads ran, or were ready to, in a call, with the GIL or without it",
        By::Wall => "for how long threads were in a call: running, waiting for the GIL, or blocked",
    };
    let order = match (stacks.reversed, stacks.merge_threads) {
        (false, false) => "Upward: thread, then from caller to callee",
        (false, true) => "Upward: from caller to callee, all threads together",
        (true, false) => "Downward: from the innermost call to its callers, then the thread",
        (true, true) => "Downward: from the innermost call to its callers, all threads together",
    };
    format!("Width: {width}. {order}.")
}

/// What to say where no stack has any time.
fn nothing(processes: &[Analysed<'_>], by: By) -> String {
    let all = |is: fn(&Recording) -> bool| processes.iter().all(|process| is(process.recording));
    let sees_all = all(|recording| recording.sees_all_threads);
    let knows_waiting = processes.iter().any(Analysed::knows_waiting);
    let is_free = all(|recording| recording.gils.iter().all(|gil| !gil.enabled));
    let words = match by {
        By::Wait | By::Blame | By::Cpu | By::Wall if !sees_all => {
            "Only holders of the GIL were looked at (--gil): nothing is known of this"
        }
        By::Wait | By::Blame if !knows_waiting => {
            "What threads did is mostly unknown: nothing is known of this"
        }
        By::Hold | By::Wait | By::Blame if is_free => "There was no GIL to hold (free-threaded build)",
        By::Hold => "Nobody held the GIL during this recording",
        By::Wait => "Nobody waited for the GIL during this recording",
        By::Blame => "Nobody made others wait for the GIL during this recording",
        By::Cpu => "No thread was seen to run during this recording",
        By::Wall => "No thread was seen during this recording",
    };
    words.to_owned()
}
