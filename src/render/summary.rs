//! What `record` says at its end: at most 20 lines of 80 columns, in plain words.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::heading;
use crate::analysis::{GilAnalysis, analyse, overhead_cpu, threads_of};
use crate::recording::{Ending, GilTrack, Recording, ThreadIndex};
use crate::text::visible;

/// Rows of the table of threads, over all GILs.
const ROWS: usize = 6;

/// Columns for a thread's name.
const NAME_WIDTH: usize = 28;

/// The summary, an empty line first.
pub fn text(recording: &Recording) -> String {
    let mut text = String::from("\n");
    let rows = (ROWS / recording.gils.len().max(1)).max(1);
    for gil in recording.gils.iter().take(ROWS) {
        let analysis = analyse(recording, gil);
        if recording.gils.len() > 1 {
            text.push_str(&format!("interpreter {}: ", list(&gil.interpreters)));
        }
        text.push_str(&gil_sentence(recording, gil, &analysis));
        text.push_str(&table(recording, gil, &analysis, rows));
    }
    text.push_str(&how(recording));
    text
}

fn gil_sentence(recording: &Recording, gil: &GilTrack, analysis: &GilAnalysis) -> String {
    if recording.ticks == 0 {
        return "The recording ended before the first look.\n".to_owned();
    }
    if !gil.enabled {
        return "There is no GIL to hold: this is a free-threaded build and its GIL is off.\n".to_owned();
    }
    let rate = analysis.handovers_per_s.map_or_else(String::new, |rate| format!("   {rate:.0} handovers/s"));
    let unknown = match analysis.unknown {
        0.0 => String::new(),
        unknown => format!("   unknown {}", percent(unknown)),
    };
    match analysis.hold.is_empty() {
        true if analysis.unknown == 0.0 => format!("Nobody held the GIL during this recording.{rate}\n"),
        _ => format!("GIL held {}{rate}{unknown}\n", percent(analysis.held)),
    }
}

fn table(recording: &Recording, gil: &GilTrack, analysis: &GilAnalysis, rows: usize) -> String {
    let threads = threads_of(recording, gil, analysis);
    if threads.is_empty() || !gil.enabled {
        return String::new();
    }
    let shown = if threads.len() > rows { rows - usize::from(rows > 1) } else { threads.len() };
    let mut table = format!("\n{} {:>10} {:>7}\n", pad("thread", NAME_WIDTH), "tid", "hold");
    for &index in &threads[..shown] {
        let thread = &recording.threads[index.0 as usize];
        let tid = thread.tid.map_or_else(|| "?".to_owned(), |tid| tid.to_string());
        let name = pad(&visible(&thread.label()), NAME_WIDTH);
        table.push_str(&format!("{name} {tid:>10} {:>7}\n", hold(analysis, index)));
    }
    let rest = &threads[shown..];
    if !rest.is_empty() {
        let held: f64 = rest.iter().filter_map(|index| analysis.hold.get(index)).sum();
        let label = pad(&format!("{} more", rest.len()), NAME_WIDTH);
        let held = if held > 0.0 { percent(held) } else { "-".to_owned() };
        table.push_str(&format!("{label} {:>10} {held:>7}\n", "…"));
    }
    table
}

fn hold(analysis: &GilAnalysis, thread: ThreadIndex) -> String {
    analysis.hold.get(&thread).map_or_else(|| "-".to_owned(), |&hold| percent(hold))
}

/// How it was recorded, and why it ended where that was not asked for.
fn how(recording: &Recording) -> String {
    let ending = match recording.ending {
        Ending::Finished | Ending::Interrupted => String::new(),
        Ending::TargetExited => format!("pid {} ended.\n", recording.target.pid),
        Ending::TargetExecuted => format!("pid {} started another program.\n", recording.target.pid),
        Ending::TargetUnreadable => format!("pid {} can no longer be read.\n", recording.target.pid),
    };
    format!(
        "\n{ending}{} in {}; gilspy used {} of one CPU\n",
        heading::ticks(recording),
        heading::duration(recording.duration),
        percent(overhead_cpu(recording)),
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn list(numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
    numbers.join(", ")
}

/// The text in exactly that many columns of a terminal, cut with an ellipsis where it is longer.
fn pad(text: &str, columns: usize) -> String {
    let mut cut = String::new();
    if text.width() <= columns {
        cut.push_str(text);
    } else {
        let mut width = 0;
        for character in text.chars() {
            width += character.width().unwrap_or(0);
            if width > columns - 1 {
                break;
            }
            cut.push(character);
        }
        cut.push('…');
    }
    let padding = columns.saturating_sub(cut.width());
    cut + &" ".repeat(padding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;

    #[test]
    fn it_fits_a_terminal_whatever_the_names() {
        let long = "計算".repeat(5000);
        let recording = fake::with_names("AAB.?_A", [&long, "\x1b[31mred\n", "MainThread"]);
        let text = text(&recording);
        assert!(text.lines().count() <= 20, "{text}");
        assert!(text.lines().all(|line| line.width() <= 80), "{text}");
        assert!(!text.contains(|character: char| character.is_control() && character != '\n'), "{text:?}");
    }

    #[test]
    fn it_says_who_held_the_gil_and_how_well_that_is_known() {
        let text = text(&fake::recording("AAAB..?A"));
        for words in [
            "GIL held 62.5 %",
            "unknown 12.5 %",
            "spinner-1",
            "50.0 %",
            "8 ticks, 0 missed, 1 torn",
            "gilspy used",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn nobody_and_no_gil_are_said_in_words() {
        assert!(text(&fake::recording("...")).contains("Nobody held the GIL"));
        assert!(text(&fake::recording("--")).contains("no GIL to hold"));
        assert!(text(&fake::recording("")).contains("before the first look"));
    }
}
