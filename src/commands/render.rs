//! `gilspy render`: any picture of a recording, later.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::output::Outputs;
use super::recordings;
use crate::analysis::Analysed;
use crate::cli::{Format, RenderArgs};
use crate::recording::{Recording, Thread};
use crate::text::{shell_word, visible};

/// Reads a recording and draws it.
pub(super) fn run(args: &RenderArgs) -> Result<u8> {
    let recordings = recordings::open(&args.recording)?;
    let until = recordings.iter().map(|recording| recording.duration).max().unwrap_or_default();
    let narrowed = recordings.into_iter().map(|recording| narrow(recording, args, until).transpose());
    let recordings: Vec<Recording> = narrowed.flatten().collect::<Result<_>>()?;
    is_shown(&recordings, args)?;
    let output = args.output.as_deref();
    let outputs = Outputs::of_recording(&args.recording, output, args.format, &args.stacks, &args.files)?;
    let analysed = recordings
        .iter()
        .map(Analysed::of)
        .collect::<Result<Vec<_>, _>>()
        .with_context(recordings::cannot_read(&args.recording))?;
    outputs.write(&analysed)?;
    Ok(0)
}

/// The part of it, and the threads, that are asked for; none of a process that was not there in that time.
fn narrow(recording: Recording, args: &RenderArgs, until: Duration) -> Result<Option<Recording>> {
    let is_narrowed = args.from.is_some() || args.to.is_some() || !args.threads.is_empty();
    if is_narrowed && args.format == Some(Format::Recording) {
        return Err(anyhow!("a part of a recording cannot be written as a recording"));
    }
    let mut recording = match (args.from, args.to) {
        (None, None) => recording,
        (from, to) => {
            let (from, to) = (from.unwrap_or_default(), to.unwrap_or(Duration::MAX));
            let seconds = until.as_secs_f64();
            if from >= to || from >= until {
                return Err(anyhow!(
                    "there is nothing of the recording in that time\n\
                     it lasts {seconds:.3} s; --from has to be less than that, and less than --to"
                ));
            }
            if from >= recording.duration || to <= recording.since {
                return Ok(None);
            }
            recording.cut(from..to)?
        }
    };
    if !args.threads.is_empty() {
        recording.show_only(|_, thread| args.threads.iter().any(|wanted| is_called(thread, wanted)));
    }
    Ok(Some(recording))
}

/// Whether a thread has this name, as it is or as it is shown, or this id in either namespace.
fn is_called(thread: &Thread, wanted: &str) -> bool {
    let ids = [thread.tid.map(|tid| tid.raw()), thread.namespace_tid.map(|tid| tid.raw())];
    let has_name = |name: &str| name == wanted || visible(name) == wanted;
    thread.name.as_deref().is_some_and(has_name) || ids.iter().flatten().any(|id| id.to_string() == wanted)
}

/// Complains of threads that there are none.
fn is_shown(recordings: &[Recording], args: &RenderArgs) -> Result<()> {
    let threads = || recordings.iter().flat_map(|recording| &recording.threads);
    match args.threads.iter().find(|wanted| !threads().any(|thread| is_called(thread, wanted))) {
        Some(missing) => Err(anyhow!(
            "no thread of the recording is called {}\n\
             `gilspy render {} -f json -o -` lists their names and ids",
            visible(missing),
            shell_word(&args.recording)
        )),
        None => Ok(()),
    }
}
