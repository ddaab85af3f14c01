//! Pictures of what is recorded so far, on SIGUSR1: a thread reads the file that is being written, and no tick waits.

use std::thread::JoinHandle;

use anyhow::{Context, Result};

use super::output::SnapshotNames;
use super::print_error;
use crate::analysis::Analysed;
use crate::recording::{Ending, Source, Written, read};

/// The snapshots of one recording.
pub(super) struct Snapshots {
    names: SnapshotNames,
    count: u32,
    /// The one that is being drawn.
    drawing: Option<JoinHandle<()>>,
}

impl Snapshots {
    /// Pictures by these names.
    pub(super) fn new(names: SnapshotNames) -> Self {
        Snapshots { names, count: 0, drawing: None }
    }

    /// Whether one is being drawn, or was since this was called last.
    pub(super) fn were_drawing(&mut self) -> bool {
        match &self.drawing {
            Some(thread) if thread.is_finished() => {
                self.wait();
                true
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Draws what has been handed over to be written by now, if nothing else is being drawn.
    pub(super) fn draw(&mut self, written: Written) {
        if self.drawing.is_some() {
            return;
        }
        self.count += 1;
        let (names, number) = (self.names.clone(), self.count);
        let draw = move || {
            let drawn = written.source().map_err(Into::into).and_then(|source| draw(&source, &names, number));
            if let Err(error) = drawn {
                print_error(&error.context(format!("snapshot {number} was not written")));
            }
        };
        let thread = std::thread::Builder::new().name("snapshot".into()).spawn(draw);
        match thread.context("cannot start a thread for the snapshot") {
            Ok(thread) => self.drawing = Some(thread),
            Err(error) => print_error(&error),
        }
    }

    /// Waits until the last one is drawn.
    pub(super) fn wait(&mut self) {
        if let Some(thread) = self.drawing.take() {
            // It has said itself what went wrong.
            let _ = thread.join();
        }
    }
}

fn draw(source: &Source, names: &SnapshotNames, number: u32) -> Result<()> {
    let mut recordings = read(source)?;
    recordings.iter_mut().for_each(|recording| recording.ending = Ending::StillRecording);
    let analysed = recordings.iter().map(Analysed::of).collect::<Result<Vec<_>, _>>()?;
    names.write(number, &analysed)
}
