//! The report for incident reviews: one HTML file that needs nothing else, neither network nor scripts, though with
//! scripts it sorts and searches. Text is escaped by askama; [`visible`] shows what is invisible.
//!
//! The pictures are the same SVGs as on their own, each in a document of its own (`iframe srcdoc`), since their ids and
//! scripts would get in each other's way. The page's policy (CSP) lets nothing be loaded and only our own scripts run,
//! known by their hashes.
//!
//! [`visible`]: crate::text::visible

mod embedded;
mod process;
mod rows;
mod words;

use std::io::Write;

use anyhow::{Context, Result};
use askama::Template;

use super::flamegraph::Place;
use super::stacks::StackOptions;
use super::{flamegraph, heading, timeline};
use crate::analysis::{Analysed, By};
use embedded::{Embedded, hash};
use process::Process;

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// The whole page.
#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    title: String,
    policy: String,
    style: &'static str,
    script: &'static str,
    processes: Vec<Process>,
    timeline: Embedded,
    flames: Vec<Flame>,
    glossary: &'static [(&'static str, &'static str)],
    version: &'static str,
}

/// A flame graph with its choice.
struct Flame {
    by: &'static str,
    label: &'static str,
    question: &'static str,
    is_chosen: bool,
    picture: Embedded,
}

/// Writes the report. Flame graphs of every kind are in it, whatever `stacks` says to show first.
///
/// # Errors
/// When the recording can no longer be read, or the writer fails.
pub fn write(processes: &[Analysed<'_>], stacks: StackOptions, writer: &mut impl Write) -> Result<()> {
    let mut timeline_svg = Vec::new();
    timeline::write(processes, &mut timeline_svg)?;
    let timeline = Embedded::new("Timeline", timeline_svg)?;
    let flames = flames(processes, stacks)?;
    let mut scripts: Vec<&String> = flames
        .iter()
        .map(|flame| &flame.picture)
        .chain([&timeline])
        .flat_map(|picture| &picture.scripts)
        .collect();
    let own = hash(SCRIPT);
    scripts.push(&own);
    scripts.sort();
    scripts.dedup();
    let page = Page {
        title: title(processes),
        policy: policy(&scripts),
        style: STYLE,
        script: SCRIPT,
        processes: processes.iter().map(Process::of).collect(),
        timeline,
        flames,
        glossary: words::GLOSSARY,
        version: env!("CARGO_PKG_VERSION"),
    };
    page.write_into(writer).context("cannot write the report")
}

fn title(processes: &[Analysed<'_>]) -> String {
    match processes {
        [Analysed { recording, .. }] => {
            format!("{} · pid {}", heading::command(recording), recording.target.pid)
        }
        _ => format!("{} processes", processes.len()),
    }
}

/// Nothing may be loaded from anywhere; the styles are the page's own, and so are the scripts with these hashes.
fn policy(scripts: &[&String]) -> String {
    let scripts: Vec<String> = scripts.iter().map(|hash| format!("'sha256-{hash}'")).collect();
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src {}; base-uri 'none'; form-action 'none'",
        scripts.join(" ")
    )
}

/// A flame graph of each kind that something is known for.
fn flames(processes: &[Analysed<'_>], stacks: StackOptions) -> Result<Vec<Flame>> {
    let kinds: &[By] = match processes.iter().any(|process| process.recording.sees_all_threads) {
        true => &By::ALL,
        false => &[By::Hold],
    };
    let chosen = if kinds.contains(&stacks.by) { stacks.by } else { By::Hold };
    let flame = |&by: &By| {
        let (label, question) = words::of_kind(by);
        let mut svg = Vec::new();
        flamegraph::write(processes, StackOptions { by, ..stacks }, Place::Page, &mut svg)?;
        let picture = Embedded::new(&format!("Flame graph: {label}"), svg)?;
        Ok(Flame { by: by.name(), label, question, is_chosen: by == chosen, picture })
    };
    kinds.iter().map(flame).collect()
}

#[cfg(test)]
mod tests;
