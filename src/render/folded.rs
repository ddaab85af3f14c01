//! Folded stacks: a line a stack, outermost call first, with the ticks that saw it (each as often
//! as it counts, where the rate was lowered). What flame graph tools read.

use std::io::Write;

use anyhow::Result;

use super::stacks::{StackOptions, named_stacks};
use crate::analysis::Analysed;

/// Writes one line a stack, sorted: `thread (tid);outer (file.py:1);inner (file.py:2) TICKS`.
///
/// # Errors
/// When the recording can no longer be read, or the writer fails.
pub fn write(processes: &[Analysed<'_>], options: StackOptions, writer: &mut impl Write) -> Result<()> {
    for (parts, time) in named_stacks(processes, options)? {
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        writeln!(writer, "{} {}", without_count(names.join(";")), time.ticks)?;
    }
    Ok(())
}

/// A number at the end of a stack, as in `server 8080`, would be taken for a count: two counts are what differences have.
fn without_count(mut stack: String) -> String {
    let end = stack.trim_end().len();
    if let Some(place) = stack[..end].rfind(' ')
        && stack[place + 1..end].bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        stack.replace_range(place..=place, "\u{a0}");
    }
    stack
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::By;
    use crate::recording::{Recording, fake};

    fn lines(recordings: &[&Recording], options: StackOptions) -> Vec<String> {
        let processes: Vec<_> = recordings.iter().map(|recording| Analysed::of(recording).unwrap()).collect();
        let mut text = Vec::new();
        write(&processes, options, &mut text).unwrap();
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn stacks_are_counted_from_the_outermost_call_inward() {
        let recording = fake::recording("AAB.?A");
        assert_eq!(
            lines(&[&recording], StackOptions::default()),
            [
                "spinner-1 (4243);run (app/main.py:3);spin_one (app/main.py:16) 3",
                "spinner-2 (4244);run (app/main.py:3);spin_two (app/main.py:22) 1",
            ]
        );
    }

    #[test]
    fn threads_lines_and_paths_are_told_apart_as_asked_for() {
        let recording = fake::of_threads(&["HH", "WW"]);
        let options = StackOptions {
            by: By::Wait,
            merge_threads: true,
            merge_lines: true,
            full_filenames: true,
            reversed: true,
        };
        assert_eq!(lines(&[&recording], options), ["spin_two (/srv/app/main.py);run (/srv/app/main.py) 2"]);
    }

    #[test]
    fn several_processes_are_told_apart() {
        let recording = fake::recording("A");
        let lines = lines(&[&recording, &recording], StackOptions::default());
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("pid 4242 python3 app.py;spinner-1 (4243);"), "{lines:?}");
    }

    #[test]
    fn names_cannot_break_the_format() {
        let recording = fake::with_names("A", ["a;b\n99", "", ""]);
        assert_eq!(
            lines(&[&recording], StackOptions::default()),
            ["a,b␊99 (4243);run (app/main.py:3);spin_one (app/main.py:16) 1"]
        );
        for name in ["# x", " \t # x"] {
            let recording = fake::with_names("A", [name, "", ""]);
            let lines = lines(&[&recording], StackOptions::default());
            assert!(lines.iter().all(|line| !line.trim_start().starts_with("# ")), "{lines:?}");
        }
    }

    #[test]
    fn a_number_at_the_end_of_a_command_is_no_count() {
        for command in ["8080", "3.14", "8080 "] {
            let mut recording = fake::recording("A");
            recording.target.command.push(command.to_owned());
            let options = StackOptions { reversed: true, ..StackOptions::default() };
            let lines = lines(&[&recording, &recording], options);
            let (stack, count) = lines[0].rsplit_once(' ').unwrap();
            assert_eq!(count, "2");
            let last = stack.trim_end().rsplit(' ').next().unwrap();
            assert!(!last.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'), "{lines:?}");
        }
    }
}
