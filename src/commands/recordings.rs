//! Recordings on their way back from files.

use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::recording::{Ending, Recording, Source, read};
use crate::text::shown;

/// Reads the recordings of a file, and says so where it was not ended properly.
pub(super) fn open(path: &Path) -> Result<Vec<Recording>> {
    let source =
        Source::open(path).map_err(|error| anyhow!("{}", error.kind())).with_context(cannot_read(path))?;
    let recordings = read(&source).with_context(cannot_read(path))?;
    if recordings.iter().any(|recording| recording.ending == Ending::Lost) {
        eprintln!("gilspy: {} was not ended properly; this is what had been written", shown(path));
    }
    Ok(recordings)
}

/// What failed, of a file that cannot be read.
pub(super) fn cannot_read(path: &Path) -> impl Fn() -> String {
    move || format!("cannot read {}", shown(path))
}
