//! What `gilspy diff` says: two recordings side by side in 80 columns, and which differences are more than chance.

use anstyle::Style;

use super::differential::what;
use super::heading;
use super::summary::{WIDTH, list, wrapped};
use crate::analysis::{Analysed, By, Change, Changes, Function, FunctionChange, Worth};
use crate::text::{pad, visible};

/// Functions listed at most.
const FUNCTIONS: usize = 10;

/// Columns of the table: what, before, after, change, and what that is worth.
const NAME_WIDTH: usize = 22;
const FIGURE_WIDTH: usize = 16;

/// The comparison. Verdicts are emphasised.
pub fn text(
    before: &Analysed<'_>,
    after: &Analysed<'_>,
    changes: &Changes,
    by: By,
    emphasis: Style,
) -> String {
    let mut text = String::new();
    for (name, process) in [("before", before), ("after", after)] {
        text.push_str(&wrapped(&format!("{name:<6}  {}", heading::line(process.recording)), "        ", 3));
    }
    text.push('\n');
    text.push_str(&verdicts(before, after, emphasis));
    text.push_str(&heading_row(""));
    text.push_str(&gils(changes));
    text.push_str(&functions(changes, by));
    text
}

/// Both verdicts in words.
fn verdicts(before: &Analysed<'_>, after: &Analysed<'_>, emphasis: Style) -> String {
    let (Some(old), Some(new)) = (&before.analysis.verdict, &after.analysis.verdict) else {
        return String::new();
    };
    let emphasised = |kind: &str| format!("{emphasis}{kind}{emphasis:#}");
    let mut text = match old.kind == new.kind {
        true => format!("{}, before and after.\n", emphasised(&capital(new.kind.name()))),
        false => format!("{} → {}\n", emphasised(&capital(old.kind.name())), emphasised(new.kind.name())),
    };
    for (name, verdict) in [("Before", old), ("After", new)] {
        text.push_str(&wrapped(&format!("{name}: {}", visible(&verdict.summary)), "  ", 2));
    }
    text + "\n"
}

fn capital(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn gils(changes: &Changes) -> String {
    let mut text = String::new();
    for gil in &changes.gils {
        let of = match changes.gils.len() {
            1 => String::new(),
            _ => format!(" ({})", list(&gil.interpreters)),
        };
        text.push_str(&row(&format!("GIL held{of}"), &gil.held, Unit::Percent));
        if let Some(waiters) = &gil.waiters {
            text.push_str(&row(&format!("threads waiting{of}"), waiters, Unit::Threads));
        }
        if let Some([before, after]) = gil.handovers_per_s {
            let figures = [format!("{before:.0}"), format!("{after:.0}"), format!("{:+.0}", after - before)];
            text.push_str(&line(&format!("handovers/s{of}"), &figures, ""));
        }
    }
    text
}

fn functions(changes: &Changes, by: By) -> String {
    let (told, others): (Vec<&FunctionChange>, Vec<&FunctionChange>) = (changes.functions.iter())
        .filter(|function| function.matters())
        .partition(|function| function.change.worth() != Worth::Noise);
    let mut text = String::new();
    if !told.is_empty() {
        text = format!("\n{}", heading_row(what(by)));
        for function in told.iter().take(FUNCTIONS) {
            text.push_str(&row(&name(function.function.as_ref()), &function.change, Unit::Percent));
        }
    }
    let more = told.len().saturating_sub(FUNCTIONS);
    let mut remarks = Vec::new();
    if more > 0 {
        remarks.push(format!("{more} more functions changed."));
    }
    match others.len() {
        0 => {}
        1 => remarks.push("1 function differs by no more than chance explains.".to_owned()),
        count => remarks.push(format!("{count} functions differ by no more than chance explains.")),
    }
    if told.is_empty() && others.is_empty() {
        remarks.push(format!("No function's {} changed.", what(by).trim_start_matches("all ")));
    }
    if told.iter().any(|function| function.change.worth() == Worth::NotKnown) {
        remarks.push("A recording is too short to tell changes from chance; record for longer.".to_owned());
    }
    if !remarks.is_empty() {
        text.push('\n');
        text.push_str(&wrapped(&remarks.join(" "), "", 3));
    }
    text
}

/// `blur (thumbs.py)`.
fn name(function: Option<&Function>) -> String {
    let Some(function) = function else { return "<stack unknown>".to_owned() };
    let file = function.file.rsplit('/').next().unwrap_or_default();
    visible(&format!("{} ({file})", function.name)).into_owned()
}

/// What a figure counts.
#[derive(Clone, Copy)]
enum Unit {
    Percent,
    Threads,
}

impl Unit {
    fn show(self, mean: f64, ci95: Option<f64>, is_change: bool) -> String {
        let (factor, sign) = match self {
            Unit::Percent => (100.0, " %"),
            Unit::Threads => (1.0, ""),
        };
        let mean = match is_change {
            true => format!("{:+.1}", mean * factor),
            false => format!("{:.1}", mean * factor),
        };
        match ci95 {
            Some(ci95) => format!("{mean} ± {:.1}{sign}", ci95 * factor),
            None => format!("{mean}{sign}"),
        }
    }
}

fn heading_row(name: &str) -> String {
    line(name, &["before", "after", "change"].map(str::to_owned), "")
}

fn row(name: &str, change: &Change, unit: Unit) -> String {
    let estimates =
        [change.before, change.after].map(|estimate| unit.show(estimate.mean, estimate.ci95, false));
    let [before, after] = estimates;
    let difference = unit.show(change.difference(), change.ci95(), true);
    let worth = match change.worth() {
        Worth::Significant if change.difference() > 0.0 => "more",
        Worth::Significant => "less",
        Worth::Noise => "chance",
        Worth::NotKnown => "?",
    };
    line(name, &[before, after, difference], worth)
}

fn line(name: &str, figures: &[String; 3], worth: &str) -> String {
    let [before, after, change] = figures;
    let line = format!(
        "{}{before:>FIGURE_WIDTH$}{after:>FIGURE_WIDTH$}{change:>FIGURE_WIDTH$}  {worth}",
        pad(name, NAME_WIDTH)
    );
    pad(&line, WIDTH).trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Recording, fake};
    use unicode_width::UnicodeWidthStr;

    fn diff(before: &Recording, after: &Recording, by: By) -> String {
        let (before, after) = (Analysed::of(before).unwrap(), Analysed::of(after).unwrap());
        let changes = Changes::between(&before, &after, by).unwrap();
        text(&before, &after, &changes, by, Style::new())
    }

    #[test]
    fn it_says_what_changed_and_what_is_chance() {
        let before = fake::of_threads(&[&"HHHHHHHHWW".repeat(100), &"WWWWWWWWHH".repeat(100)]);
        let after = fake::of_threads(&[&"HHWWBBBBBB".repeat(100), &"WWHHBBBBBB".repeat(100)]);
        let text = diff(&before, &after, By::Hold);
        for words in
            ["GIL held", "-60.0 ± ", "less", "threads waiting", "handovers/s", "spin_one (main.py)", "before"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        let same = diff(&before, &before, By::Hold);
        assert!(
            same.contains("chance") && same.contains("No function's time under the GIL changed"),
            "{same}"
        );
    }

    #[test]
    fn it_fits_a_terminal_whatever_the_names() {
        let long = "計算".repeat(5000);
        let names = [long.as_str(), "\x1b[31mred\n", "MainThread"];
        for (before, after) in [("AAB.?_A", "BBBBBBB"), ("", ""), ("--", "AA"), (".", "?")] {
            let text = diff(&fake::with_names(before, names), &fake::with_names(after, names), By::Wall);
            assert!(text.lines().all(|line| line.width() <= WIDTH), "{text}");
            assert!(
                !text.contains(|character: char| character.is_control() && character != '\n'),
                "{text:?}"
            );
        }
    }

    #[test]
    fn short_recordings_are_said_to_be_too_short() {
        let text = diff(&fake::recording("AAAB"), &fake::recording("BBBA"), By::Hold);
        assert!(text.contains("too short to tell"), "{text}");
    }
}
