//! Folded stacks: a line a stack, outermost call first, with the ticks that saw it (each as often
//! as it counts, where the rate was lowered). What flame graph tools read.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Result;

use crate::analysis::{Analysed, By, stack_times};
use crate::recording::{Frame, Recording, StackIndex, ThreadIndex};
use crate::text::visible;

/// Writes one line a stack, sorted: `thread (tid);outer (file.py:1);inner (file.py:2) TICKS`.
///
/// # Errors
/// When the recording can no longer be read, or the writer fails.
pub fn write(processes: &[Analysed<'_>], by: By, writer: &mut impl Write) -> Result<()> {
    for line in lines(processes, by)? {
        writeln!(writer, "{line}")?;
    }
    Ok(())
}

/// The lines without their ends, sorted.
pub(super) fn lines(processes: &[Analysed<'_>], by: By) -> Result<Vec<String>> {
    let mut folded = BTreeMap::<String, u64>::new();
    for Analysed { recording, .. } in processes {
        for ((thread, stack), time) in stack_times(recording, by)? {
            *folded.entry(fold(recording, thread, stack)).or_default() += time.ticks;
        }
    }
    Ok(folded.into_iter().map(|(stack, ticks)| format!("{stack} {ticks}")).collect())
}

fn fold(recording: &Recording, thread: ThreadIndex, stack: StackIndex) -> String {
    let mut folded = match recording.threads.get(thread.0 as usize) {
        Some(thread) => clean(&thread.title()),
        None => "unknown thread".to_owned(),
    };
    match recording.stacks.frames(stack) {
        Some(frames) => {
            for frame in frames.rev() {
                folded.push(';');
                folded.push_str(&clean(&label(frame)));
            }
        }
        None => folded.push_str(";<stack unknown>"),
    }
    folded
}

/// `function (package/module.py:12)`.
fn label(frame: &Frame) -> String {
    match frame.line {
        Some(line) => format!("{} ({}:{line})", frame.function, short_file(&frame.file)),
        None => format!("{} ({})", frame.function, short_file(&frame.file)),
    }
}

/// The last two parts of a path: enough to know a module by, short enough for a frame.
pub(super) fn short_file(file: &str) -> &str {
    let mut slashes = file.rmatch_indices('/').map(|(place, _)| place);
    match slashes.nth(1) {
        Some(place) => &file[place + 1..],
        None => file.trim_start_matches('/'),
    }
}

/// A semicolon would end the frame, a line feed the stack: neither may come from a name.
fn clean(text: &str) -> String {
    visible(text).replace(';', ",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;

    #[test]
    fn stacks_are_counted_from_the_outermost_call_inward() {
        let recording = fake::recording("AAB.?A");
        assert_eq!(
            lines(&[Analysed::of(&recording).unwrap()], By::Hold).unwrap(),
            [
                "spinner-1 (4243);run (app/main.py:3);spin_one (app/main.py:16) 3",
                "spinner-2 (4244);run (app/main.py:3);spin_two (app/main.py:22) 1",
            ]
        );
    }

    #[test]
    fn names_cannot_break_the_format() {
        let recording = fake::with_names("A", ["a;b\n99", "", ""]);
        assert_eq!(
            lines(&[Analysed::of(&recording).unwrap()], By::Hold).unwrap(),
            ["a,b␊99 (4243);run (app/main.py:3);spin_one (app/main.py:16) 1"]
        );
    }

    #[test]
    fn a_file_is_known_by_its_last_two_parts() {
        assert_eq!(short_file("/usr/lib/python3.9/threading.py"), "python3.9/threading.py");
        assert_eq!(short_file("/app.py"), "app.py");
        assert_eq!(short_file("<frozen site>"), "<frozen site>");
    }
}
