//! `gilspy diff`: what changed between two recordings.

use std::path::Path;

use anstyle::Style;
use anyhow::{Context, Result};

use super::files::Rules;
use super::output::{Outputs, beside};
use super::recordings;
use crate::analysis::{Analysed, Changes};
use crate::cli::DiffArgs;
use crate::recording::Recording;
use crate::render::{diff, differential};
use crate::text::shown;

/// Prints what changed, and draws it.
pub(super) fn run(args: &DiffArgs) -> Result<u8> {
    let (before, after) = (open(&args.before)?, open(&args.after)?);
    let made = beside(&args.after, "diff.svg");
    let rules = Rules::new(&args.files);
    let picture = Outputs::picture(args.output.as_deref().unwrap_or(&made), &rules)?;
    let (before, after) = (analyse(&before, &args.before)?, analyse(&after, &args.after)?);
    let changes = Changes::between(&before, &after, args.by)?;
    let table = diff::text(&before, &after, &changes, args.by, Style::new().bold());
    match picture.is_standard_output() {
        true => anstream::eprint!("{table}"),
        false => anstream::print!("{table}"),
    }
    let path = picture.write_with(&rules, |writer| differential::write(&before, &after, args.by, writer))?;
    eprintln!("flame graph  {}", shown(path));
    Ok(0)
}

/// The recording of a file; of several processes' the first one.
fn open(path: &Path) -> Result<Recording> {
    let mut recordings = recordings::open(path)?;
    if recordings.len() > 1 {
        let (count, pid) = (recordings.len(), recordings[0].target.pid);
        eprintln!("gilspy: {} is of {count} processes; this compares pid {pid} only", shown(path));
    }
    recordings.drain(..).next().with_context(|| format!("{} is of no process", shown(path)))
}

fn analyse<'a>(recording: &'a Recording, path: &Path) -> Result<Analysed<'a>> {
    Analysed::of(recording).with_context(recordings::cannot_read(path))
}
