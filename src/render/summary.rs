//! What `record` says at its end: at most 20 lines of 80 columns with the names of the files, in plain words.

use anstyle::Style;

use super::heading;
use crate::analysis::{
    Analysis, GilAnalysis, HoldLength, HoldLengths, States, TopHolder, Verdict, overhead_cpu, threads_of,
};
use crate::recording::{Ending, GilTrack, Recording, Thread, ThreadIndex};
use crate::text::{columns, pad, visible};
use crate::units::NamespaceTid;

/// Columns of a terminal.
pub(super) const WIDTH: usize = 80;

/// Lines in all, less those that name the files.
const LINES: usize = 17;

/// Rows of the table of threads, over all GILs: at least and at most.
const FEWEST_ROWS: usize = 2;
const MOST_ROWS: usize = 6;

/// Columns for a thread's id, and for its two ids where its own namespace counts otherwise.
const TID_WIDTH: usize = 8;
const CONTAINED_TID_WIDTH: usize = 13;

/// Lines for GILs at most, where there are several.
const MOST_GILS: usize = 5;

/// Columns for a thread's name.
const NAME_WIDTH: usize = 20;

/// Columns for the numbers of the interpreters that share a GIL.
const INTERPRETERS_WIDTH: usize = 12;

/// Lines for what a verdict says, and for its advice.
const VERDICT_LINES: usize = 2;
const ADVICE_LINES: usize = 2;

/// Lines for how it was recorded.
const HOW_LINES: usize = 2;

/// Lines of code that made others wait, at most.
const BLAMED: usize = 2;

/// The least headroom worth a word.
const WORTH_SAYING: f64 = 1.05;

/// The least waiting worth a line, in thread-seconds a second.
const LEAST_BLAME: f64 = 0.01;

/// The summary, an empty line first. What it comes to is emphasised.
pub fn text(recording: &Recording, analysis: &Analysis, emphasis: Style) -> String {
    let head = match &analysis.verdict {
        Some(verdict) => judgement(verdict, emphasis),
        None if recording.sees_all_threads && recording.ticks > 0 => {
            let unknown = percent(analysis.unknown);
            format!("Not known who waits: what the threads do is unknown for {unknown} of their time.\n\n")
        }
        None => String::new(),
    };
    let foot = how(recording);
    let gils = gil_sentences(recording, analysis);
    let fixed = [&head, &foot, &gils].into_iter().map(|text| text.lines().count());
    let room = LINES.saturating_sub(1 + fixed.sum::<usize>());
    // The table has an empty line and a heading.
    let blamed = blamed(recording, analysis, room.saturating_sub(2 + FEWEST_ROWS).clamp(1, BLAMED));
    let room = room.saturating_sub(blamed.lines().count());
    let rows = room.saturating_sub(2).clamp(FEWEST_ROWS, MOST_ROWS);
    String::from("\n") + &head + &gils + &table(recording, analysis, rows) + &blamed + &foot
}

/// A sentence or two for each GIL, those first for which there was most waiting, then that were held most.
fn gil_sentences(recording: &Recording, analysis: &Analysis) -> String {
    let rank = |gil: &usize| {
        let of_gil = &analysis.gils[*gil];
        let waited = of_gil.waiting.as_ref().map_or(0.0, |waiting| waiting.causes.total_s());
        (waited, of_gil.held.mean)
    };
    let mut gils: Vec<usize> = (0..recording.gils.len()).collect();
    gils.sort_by(|a, b| {
        let (x, y) = (rank(a), rank(b));
        y.0.total_cmp(&x.0).then(y.1.total_cmp(&x.1))
    });
    let shown = if gils.len() > MOST_GILS { MOST_GILS - 1 } else { gils.len() };
    let mut text: String = gils[..shown].iter().map(|&gil| gil_sentence(recording, analysis, gil)).collect();
    if shown < gils.len() {
        text.push_str(&format!("{} more GILs\n", gils.len() - shown));
    }
    text
}

/// The verdict in words, its kind first, with its advice, and the second one where there are two.
pub(super) fn judgement(verdict: &Verdict, emphasis: Style) -> String {
    let mut text = sentence(verdict, "", emphasis);
    for advice in verdict.advice.iter().take(1) {
        text.push_str(&wrapped(&format!("Try: {}", visible(advice)), "     ", ADVICE_LINES));
    }
    if let Some(second) = &verdict.second {
        text.push_str(&sentence(second, "also ", emphasis));
    }
    text + "\n"
}

fn sentence(verdict: &Verdict, before: &str, emphasis: Style) -> String {
    let kind = format!("{before}{}", verdict.kind.name());
    let kind = kind[..1].to_uppercase() + &kind[1..];
    let lines = wrapped(&format!("{kind}: {}", visible(&verdict.summary)), "", VERDICT_LINES);
    lines.replacen(&kind, &format!("{emphasis}{kind}{emphasis:#}"), 1)
}

/// Lines of at most [`WIDTH`] columns; what does not fit is cut with an ellipsis.
pub(super) fn wrapped(text: &str, indent: &str, most: usize) -> String {
    let options = textwrap::Options::new(WIDTH).subsequent_indent(indent).break_words(true);
    let mut lines = textwrap::wrap(text, options);
    if lines.len() > most {
        lines.truncate(most);
        if let Some(last) = lines.last_mut() {
            *last = format!("{}…", pad(last, WIDTH - 1).trim_end_matches([' ', '…'])).into();
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn gil_sentence(recording: &Recording, analysis: &Analysis, place: usize) -> String {
    let (gil, of_gil) = (&recording.gils[place], &analysis.gils[place]);
    let mut sentence = match recording.gils.len() {
        1 => String::new(),
        _ => format!("interpreter {}: ", pad(&list(&gil.interpreters), INTERPRETERS_WIDTH).trim_end()),
    };
    sentence.push_str(&figures(recording, gil, of_gil));
    if recording.gils.len() > 1 {
        return wrapped(sentence.trim_end(), "", 1);
    }
    if recording.ticks == 0 || !gil.enabled {
        return sentence;
    }
    sentence.push_str(&lengths(&of_gil.hold_lengths));
    let headroom = analysis.headroom.filter(|headroom| *headroom >= WORTH_SAYING);
    let headroom = headroom.map(|times| format!("At most {times:.1} times as fast without the GIL."));
    let remarks: Vec<String> = [headroom, carrier(of_gil)].into_iter().flatten().collect();
    if !remarks.is_empty() {
        sentence.push_str(&wrapped(&remarks.join(" "), "", 1));
    }
    sentence
}

fn figures(recording: &Recording, gil: &GilTrack, analysis: &GilAnalysis) -> String {
    if recording.ticks == 0 {
        return "The recording ended before the first look.\n".to_owned();
    }
    if !gil.enabled {
        let stopped = match analysis.stopped {
            0.0 => String::new(),
            stopped => format!(" One thread had stopped all others {} of the time.", percent(stopped)),
        };
        let was_on = match gil.switches.is_empty() {
            true => String::new(),
            false => format!(", and was held {} of the time before", percent(analysis.held.mean)),
        };
        if recording.gils.len() > 1 {
            return format!("there is no GIL to hold: it is off{was_on}.{stopped}\n");
        }
        let sentence = format!(
            "There is no GIL to hold: this is a free-threaded build and its GIL is off{was_on}.{stopped}"
        );
        return wrapped(&sentence, "", 2);
    }
    let rate = analysis.handovers_per_s.map_or_else(String::new, |rate| format!("   {rate:.0} handovers/s"));
    let unknown = match analysis.unknown {
        0.0 => String::new(),
        unknown => format!("   unknown {}", percent(unknown)),
    };
    if analysis.hold.is_empty() && analysis.unknown == 0.0 {
        return format!("Nobody held the GIL during this recording.{rate}\n");
    }
    let held = match analysis.held.ci95 {
        Some(ci95) => format!("{:.1} ± {:.1} %", analysis.held.mean * 100.0, ci95 * 100.0),
        None => percent(analysis.held.mean),
    };
    let since = match gil.switches.last() {
        Some(switch) => format!("The GIL was switched on after {}.\n", heading::seconds(switch.at_s)),
        None if recording.target.free_threaded => {
            "The GIL of this free-threaded build was on all the time.\n".to_owned()
        }
        None => String::new(),
    };
    let waiting = analysis
        .waiting
        .as_ref()
        .map_or_else(String::new, |waiting| format!("   {:.1} threads waiting", waiting.waiters.mean));
    format!("{since}GIL held {held}{waiting}{rate}{unknown}\n")
}

/// How long the GIL is kept at a time, as far as the rate can tell.
fn lengths(lengths: &HoldLengths) -> String {
    let in_words = |length: HoldLength| match length {
        HoldLength::About(seconds) => heading::seconds(seconds),
        HoldLength::Below(seconds) => format!("< {}", heading::seconds(seconds)),
    };
    match (lengths.p50, lengths.p99, lengths.max) {
        (Some(p50), Some(p99), Some(max)) => {
            let [p50, p99, max] = [p50, p99, max].map(in_words);
            format!("Kept at a time for: median {p50}, 99th percentile {p99}, longest {max}.\n")
        }
        _ => String::new(),
    }
}

/// Whether one function carries the GIL or threads take turns with it.
fn carrier(analysis: &GilAnalysis) -> Option<String> {
    let carrier = analysis.carrier.as_ref()?;
    let function = pad(&visible(&carrier.function), 20);
    let (function, share) = (function.trim_end(), format!("{:.0} %", carrier.share * 100.0));
    Some(match carrier.threads {
        1 => format!("{function} holds it {share} of that time."),
        threads => format!("It rotates among {threads} threads in {function}, {share}."),
    })
}

/// The threads of all GILs, each with the place of its own.
fn threads(recording: &Recording, analysis: &Analysis) -> Vec<(usize, ThreadIndex)> {
    let of_gil = |gil| threads_of(recording, gil, analysis).into_iter().map(move |thread| (gil, thread));
    let mut threads: Vec<_> = (0..recording.gils.len()).flat_map(of_gil).collect();
    let rank = |(gil, thread): &(usize, ThreadIndex)| {
        let of_thread = &analysis.threads[thread.0 as usize];
        let held = analysis.gils[*gil].hold.get(thread).copied().unwrap_or(0.0);
        (of_thread.inflicted_s, held, of_thread.waited_s)
    };
    if recording.gils.len() > 1 {
        threads.sort_by(|a, b| {
            let (x, y) = (rank(a), rank(b));
            y.0.total_cmp(&x.0).then(y.1.total_cmp(&x.1)).then(y.2.total_cmp(&x.2))
        });
    }
    threads
}

fn table(recording: &Recording, analysis: &Analysis, rows: usize) -> String {
    let threads = threads(recording, analysis);
    let is_enabled = recording.gils.iter().any(|gil| gil.enabled);
    if threads.is_empty() || recording.ticks == 0 || (!is_enabled && !recording.sees_all_threads) {
        return String::new();
    }
    let shown = if threads.len() > rows { rows - usize::from(rows > 1) } else { threads.len() };
    let columns = Column::of(recording);
    let waits_for = |(gil, index): (usize, ThreadIndex)| waits_for(recording, analysis, gil, index);
    let has_waiting = threads[..shown].iter().any(|&thread| waits_for(thread).is_some());
    let width = if columns.len() > 3 { 8 } else { 9 };
    let is_contained = recording.threads.iter().any(|thread| own_tid(thread).is_some());
    let (tid_title, tid_width) =
        if is_contained { ("tid/own", CONTAINED_TID_WIDTH) } else { ("tid", TID_WIDTH) };
    let name_width = NAME_WIDTH + TID_WIDTH - tid_width;
    // `parallel` fills its column.
    let gap = if columns.len() > 3 && columns.contains(&Column::Parallel) { " " } else { "" };
    let name_width = name_width - gap.len();
    let mut table = format!("\n{} {tid_title:>tid_width$}{gap}", pad("thread", name_width));
    columns.iter().for_each(|column| table.push_str(&format!("{:>width$}", column.title())));
    table.push_str(if has_waiting { "  waits for\n" } else { "\n" });
    for &(gil, index) in &threads[..shown] {
        let thread = &recording.threads[index.0 as usize];
        let mut tid = thread.tid.map_or_else(|| "?".to_owned(), |tid| tid.to_string());
        tid.extend(own_tid(thread).map(|own| format!("/{own}")));
        table.push_str(&format!("{} {tid:>tid_width$}{gap}", pad(&visible(&thread.label()), name_width)));
        columns
            .iter()
            .for_each(|column| table.push_str(&share(column.of_thread(analysis, gil, index), width)));
        table.push_str(
            waits_for((gil, index)).map_or_else(String::new, |name| format!("  {name}")).trim_end(),
        );
        table.push('\n');
    }
    let rest = &threads[shown..];
    if !rest.is_empty() {
        table.push_str(&format!(
            "{} {:>tid_width$}{gap}",
            pad(&format!("{} more", rest.len()), name_width),
            "…"
        ));
        for column in &columns {
            let sum = rest.iter().map(|&(gil, index)| column.of_thread(analysis, gil, index)).sum();
            let is_sum = matches!(column, Column::Held | Column::Hold | Column::Stall);
            table.push_str(&if is_sum { share(sum, width) } else { " ".repeat(width) });
        }
        table = table.trim_end().to_owned() + "\n";
    }
    table
}

/// A thread's id in its own namespace, where that is another.
fn own_tid(thread: &Thread) -> Option<NamespaceTid> {
    thread.namespace_tid.filter(|own| thread.tid.is_some_and(|tid| tid.raw() != own.raw()))
}

/// A column of the table of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    /// Share of all ticks at which it held the GIL.
    Held,
    Hold,
    Stall,
    Wait,
    Native,
    Blocked,
    Parallel,
}

impl Column {
    fn of(recording: &Recording) -> Vec<Column> {
        let is_enabled = recording.gils.iter().any(|gil| gil.enabled);
        let has_switched = recording.gils.iter().any(|gil| !gil.switches.is_empty());
        match (recording.sees_all_threads, is_enabled) {
            (false, _) => vec![Column::Held],
            (true, _) if has_switched => {
                vec![Column::Parallel, Column::Hold, Column::Wait, Column::Native, Column::Blocked]
            }
            (true, true) => vec![Column::Hold, Column::Stall, Column::Wait, Column::Native, Column::Blocked],
            (true, false) => vec![Column::Parallel, Column::Native, Column::Blocked],
        }
    }

    fn title(self) -> &'static str {
        match self {
            Column::Held | Column::Hold => "hold",
            Column::Stall => "stall",
            Column::Wait => "wait",
            Column::Native => "native",
            Column::Blocked => "blocked",
            Column::Parallel => "parallel",
        }
    }

    fn of_thread(self, analysis: &Analysis, gil: usize, index: ThreadIndex) -> f64 {
        let states: States = analysis.threads[index.0 as usize].states.unwrap_or_default();
        match self {
            Column::Held => analysis.gils[gil].hold.get(&index).copied().unwrap_or(0.0),
            Column::Hold => states.hold,
            Column::Stall => states.stall,
            Column::Wait => states.wait,
            Column::Native => states.native,
            Column::Blocked => states.blocked,
            Column::Parallel => states.parallel,
        }
    }
}

/// So many columns.
fn share(share: f64, width: usize) -> String {
    if share > 0.0 { format!("{:>width$}", percent(share)) } else { format!("{:>width$}", "-") }
}

/// For whom a thread waits most; after its interpreter's number and a colon where that has another GIL than the
/// thread's.
fn waits_for(recording: &Recording, analysis: &Analysis, own: usize, waiter: ThreadIndex) -> Option<String> {
    let of_waiter = |gil: usize| {
        let pairs = analysis.gils[gil].waiting.iter().flat_map(|waiting| &waiting.pairs);
        pairs.filter(move |pair| pair.waiter == waiter)
    };
    let total = |gil: &usize| of_waiter(*gil).map(|pair| pair.seconds).sum::<f64>();
    let gil = (0..recording.gils.len()).max_by(|a, b| total(a).total_cmp(&total(b)))?;
    if total(&gil) < LEAST_BLAME * recording.length().as_secs_f64() {
        return None;
    }
    let holder = of_waiter(gil).find_map(|pair| pair.holder)?;
    let holder = recording.threads.get(holder.0 as usize)?.label();
    let elsewhere = recording.gils[gil].interpreters.first().filter(|_| gil != own);
    let holder = elsewhere.map_or_else(|| holder.clone(), |interpreter| format!("{interpreter}: {holder}"));
    let used = NAME_WIDTH + 1 + TID_WIDTH + 5 * 8 + 2;
    Some(pad(&visible(&holder), WIDTH - used))
}

/// The lines of code behind which others waited most, at most so many.
fn blamed(recording: &Recording, analysis: &Analysis, most: usize) -> String {
    let inflicted = |top: &TopHolder| top.blame.map_or(0.0, |blame| blame.inflicted.total_s());
    let least = LEAST_BLAME * recording.length().as_secs_f64();
    let mut tops: Vec<&TopHolder> = analysis.gils.iter().flat_map(|gil| &gil.top_holders).collect();
    tops.retain(|top| inflicted(top) > least);
    tops.sort_by(|a, b| inflicted(b).total_cmp(&inflicted(a)));
    let mut text = String::new();
    for top in tops.into_iter().take(most) {
        let place = top.frame.as_ref().map_or_else(|| "<stack unknown>".to_owned(), |frame| frame.place());
        let syscall = top.blame.and_then(|blame| blame.syscall);
        let stalled = syscall.map_or_else(String::new, |syscall| format!(" (blocked in {})", syscall.name()));
        let waited = heading::seconds(inflicted(top));
        text.push_str(&wrapped(&format!("{waited:>8} waited behind {}{stalled}", visible(&place)), "", 1));
    }
    text
}

/// How it was recorded, and why it ended where that was not asked for.
fn how(recording: &Recording) -> String {
    let ending = match recording.ending {
        Ending::Finished | Ending::Interrupted | Ending::StillRecording => String::new(),
        Ending::TargetExited => format!("pid {} ended.\n", recording.target.pid),
        Ending::TargetExecuted => format!("pid {} started another program.\n", recording.target.pid),
        Ending::TargetUnreadable => format!("pid {} can no longer be read.\n", recording.target.pid),
        Ending::Lost => "gilspy did not end properly; this is what it had written.\n".to_owned(),
    };
    let ticks = format!("{} in {}", heading::ticks(recording), heading::duration(recording.length()));
    let used = percent(overhead_cpu(recording));
    let used = [
        format!("; gilspy used {used} of one CPU"),
        format!("; gilspy: {used} CPU"),
        format!("; gilspy {used}"),
    ];
    let fitting = used.iter().find(|used| columns(&ticks) + columns(used) <= WIDTH);
    let how = ticks.clone() + fitting.unwrap_or(&used[2]);
    format!("\n{ending}{}", wrapped(&how, "", HOW_LINES))
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

pub(super) fn list(numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
    numbers.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{RateChange, fake};
    use unicode_width::UnicodeWidthStr;

    fn text_of(ticks: &str) -> String {
        let recording = fake::recording(ticks);
        text(&recording, &Analysis::of(&recording).unwrap(), Style::new())
    }

    #[test]
    fn it_fits_a_terminal_whatever_the_names() {
        let long = "計算".repeat(5000);
        let recording = fake::with_names("AAB.?_A", [&long, "\x1b[31mred\n", "MainThread"]);
        let text = text(&recording, &Analysis::of(&recording).unwrap(), Style::new());
        assert!(text.lines().count() <= 20, "{text}");
        assert!(text.lines().all(|line| line.width() <= 80), "{text}");
        assert!(!text.contains(|character: char| character.is_control() && character != '\n'), "{text:?}");
    }

    #[test]
    fn with_two_causes_and_many_threads_it_still_fits() {
        let hog = ("H".repeat(25) + &"W".repeat(10)).repeat(50);
        let staller = ("W".repeat(25) + &"S".repeat(10)).repeat(50);
        let waiting = "W".repeat(35 * 50);
        let rows: Vec<&str> = [&*hog, &*staller].into_iter().chain([&*waiting; 30]).collect();
        let mut recording = fake::of_threads(&rows);
        recording.rate_changes.push(RateChange { at_s: 1.0, rate_hz: 250.0 });
        (recording.missed_ticks, recording.torn_ticks) = (123_456, 123_456);
        let text = text(&recording, &Analysis::of(&recording).unwrap(), Style::new());
        assert!(text.lines().count() <= LINES, "{text}");
        assert!(text.lines().all(|line| line.width() <= WIDTH), "{text}");
        for words in ["Gil-hogged: ", "Also gil-stalled: ", "Try: ", "waits for", " more ", "waited behind"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn emphasis_is_never_the_only_sign() {
        let recording = fake::recording(&"A".repeat(500));
        let analysis = Analysis::of(&recording).unwrap();
        let emphasised = text(&recording, &analysis, Style::new().bold());
        assert!(emphasised.contains("\x1b[1mSingle-thread\x1b[0m: "), "{emphasised:?}");
        let plain = emphasised.replace("\x1b[1m", "").replace("\x1b[0m", "");
        assert_eq!(plain, text(&recording, &analysis, Style::new()));
    }

    #[test]
    fn it_says_who_held_the_gil_and_how_well_that_is_known() {
        let text = text_of("AAAB..?A");
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
        assert!(text_of("...").contains("Nobody held the GIL"));
        assert!(text_of("--").contains("no GIL to hold"));
        assert!(text_of("").contains("before the first look"));
    }
}
