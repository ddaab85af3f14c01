//! What `record` says when it is done with several processes: what they come to together, a row for each, and the verdict
//! on the one in which there was most waiting. 80 columns wide and at most 20 lines long, with those that name the files.

use std::cmp::Ordering;

use anstyle::Style;

use super::heading;
use super::summary::{self, WIDTH, percent, wrapped};
use crate::analysis::{Analysed, Totals, waited_s};
use crate::recording::Recording;
use crate::text::{pad, visible};

/// Lines in all, less those that name the files.
const LINES: usize = 17;

/// Rows of the table: at least and at most.
const FEWEST_ROWS: usize = 2;
const MOST_ROWS: usize = 6;

/// Columns for a process's command line.
const NAME_WIDTH: usize = 20;

/// The summary, an empty line first.
pub fn text(processes: &[Analysed<'_>], emphasis: Style) -> String {
    if let [process] = processes {
        return summary::text(process.recording, &process.analysis, emphasis);
    }
    let mut ranked: Vec<&Analysed<'_>> = processes.iter().collect();
    ranked.sort_by(|a, b| rank(a, b));
    let Some(worst) = ranked.first() else { return String::new() };
    let totals = Totals::of(processes);
    let head = format!("\n{}", together(&totals));
    let how = wrapped(&how(worst.recording, &totals), "", 1);
    let foot = format!("{}\n{how}", on_the_worst(worst, emphasis));
    // The table has an empty line and a heading.
    let room = LINES.saturating_sub(head.lines().count() + foot.lines().count() + 2);
    head + &table(&ranked, room.clamp(FEWEST_ROWS, MOST_ROWS)) + &foot
}

/// Those first in which threads waited most, then that held their GIL most, then the oldest.
fn rank(a: &Analysed<'_>, b: &Analysed<'_>) -> Ordering {
    let key = |process: &Analysed<'_>| (waited_s(process), held(process).unwrap_or(0.0));
    let (x, y) = (key(a), key(b));
    let order = y.0.total_cmp(&x.0).then(y.1.total_cmp(&x.1));
    order.then(a.recording.number.cmp(&b.recording.number))
}

fn together(totals: &Totals) -> String {
    let gils = match totals.gils == totals.processes {
        true => "each with its GIL".to_owned(),
        false => format!("with {} GILs", totals.gils),
    };
    let waited = totals.waited_s.map_or_else(String::new, |seconds| {
        format!("; threads waited {} for one", heading::seconds(seconds))
    });
    let text = format!(
        "{} processes, {gils}: held for {} together{waited}.",
        totals.processes,
        heading::seconds(totals.held_s)
    );
    wrapped(&text, "", 2)
}

/// The most that one of a process's GILs was held, from 0 to 1; `None` where there is none to hold.
fn held(process: &Analysed<'_>) -> Option<f64> {
    let gils = process.recording.gils.iter().zip(&process.analysis.gils);
    let held = gils.filter(|(gil, _)| gil.enabled).map(|(_, analysis)| analysis.held.mean);
    held.reduce(f64::max)
}

fn table(ranked: &[&Analysed<'_>], rows: usize) -> String {
    let mut table = format!(
        "\n{} {:>8}{:>9}{:>9}{:>8}{:>8}  verdict\n",
        pad("process", NAME_WIDTH),
        "pid",
        "seen for",
        "GIL held",
        "waiting",
        "threads"
    );
    let shown = if ranked.len() > rows { rows - 1 } else { ranked.len() };
    ranked[..shown].iter().for_each(|process| table.push_str(&row(process)));
    if shown < ranked.len() {
        table.push_str(&format!("{} more\n", ranked.len() - shown));
    }
    table
}

fn row(process: &Analysed<'_>) -> String {
    let (recording, analysis) = (process.recording, &process.analysis);
    let waiting = analysis.gils.iter().filter_map(|gil| gil.waiting.as_ref());
    let waiting = match recording.sees_all_threads {
        true => format!("{:.1}", waiting.map(|waiting| waiting.waiters.mean).sum::<f64>()),
        false => "?".to_owned(),
    };
    let verdict = analysis.verdict.as_ref().map_or("", |verdict| verdict.kind.name());
    let row = format!(
        "{} {:>8}{:>9}{:>9}{waiting:>8}{:>8}  {verdict}",
        pad(&visible(&recording.target.command_title()), NAME_WIDTH),
        recording.target.pid.to_string(),
        heading::duration(recording.length()),
        held(process).map_or_else(|| "no GIL".to_owned(), percent),
        recording.threads.len(),
    );
    format!("{}\n", pad(&row, WIDTH).trim_end())
}

/// The verdict on a process.
fn on_the_worst(process: &Analysed<'_>, emphasis: Style) -> String {
    let Some(verdict) = &process.analysis.verdict else { return String::new() };
    format!("\npid {}:\n{}", process.recording.target.pid, summary::judgement(verdict, emphasis).trim_end())
        + "\n"
}

fn how(first: &Recording, totals: &Totals) -> String {
    format!(
        "{} at {} Hz; gilspy used {} of one CPU",
        heading::seconds(totals.duration_s),
        first.rate_hz,
        percent(totals.overhead_cpu)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;

    #[test]
    fn however_many_processes_there_are_it_fits_a_terminal() {
        let recordings: Vec<Recording> =
            (50..80).map(|ticks| fake::of_threads(&[&"H".repeat(ticks), &"W".repeat(ticks)])).collect();
        let processes: Vec<Analysed<'_>> = recordings.iter().map(|it| Analysed::of(it).unwrap()).collect();
        let text = text(&processes, Style::new());
        assert!(text.lines().count() <= LINES, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("30 processes") && text.contains(" more\n"), "{text}");
    }

    #[test]
    fn the_process_with_most_waiting_comes_first() {
        let (calm, busy) = (fake::of_threads(&["HHHH", "BBBB"]), fake::of_threads(&["HHHH", "WWWW"]));
        let processes = [&calm, &busy].map(|recording| Analysed::of(recording).unwrap());
        let text = text(&processes, Style::new());
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("python3")).collect();
        assert!(rows[0].contains("1.0") && rows[1].contains("0.0"), "{text}");
    }
}
