//! Stacks as flame graphs and folded stacks show them: which calls are told apart, what they are called, and what kind
//! of code they are.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::analysis::{Analysed, By, StackTime, stack_times};
use crate::recording::{Frame, Recording, StackIndex, ThreadIndex};
use crate::sample::UNKNOWN_NAME;
use crate::text;

/// Which time is counted, which stacks are one, and what their calls are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StackOptions {
    /// What counts as a stack's time.
    pub by: By,
    /// All threads together, rather than each on its own.
    pub merge_threads: bool,
    /// Calls of one function together, whatever line they were at.
    pub merge_lines: bool,
    /// Whole paths, rather than their last two parts.
    pub full_filenames: bool,
    /// From the innermost call outward.
    pub reversed: bool,
}

/// What a part of a stack is: flame graphs have a colour for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A call of the program's own code.
    Own,
    /// A call of an installed package's code.
    Package,
    /// A call of Python's standard library.
    Library,
    /// A process, a thread, or that there is no Python call: no code.
    Root,
    /// Something that could not be read.
    Unknown,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Kind; 5] = [Kind::Own, Kind::Package, Kind::Library, Kind::Root, Kind::Unknown];

    /// What code of this file is.
    fn of_file(file: &str) -> Kind {
        let parts: Vec<&str> = file.split('/').collect();
        if parts.iter().any(|part| matches!(*part, "site-packages" | "dist-packages")) {
            return Kind::Package;
        }
        let is_library = |pair: &[&str]| pair[0].starts_with("lib") && is_python(pair[1]);
        let is_zip = |part: &&str| part.strip_suffix(".zip").is_some_and(is_python);
        match file.starts_with("<frozen ") || parts.windows(2).any(is_library) || parts.iter().any(is_zip) {
            true => Kind::Library,
            false => Kind::Own,
        }
    }
}

/// Whether it is called as Python's own directories are: `python3`, `python3.14t`, `python311`.
fn is_python(part: &str) -> bool {
    let version = part.strip_prefix("python3");
    let version = version.map(|version| version.strip_prefix('.').unwrap_or(version));
    version.is_some_and(|version| version.trim_end_matches('t').bytes().all(|byte| byte.is_ascii_digit()))
}

/// A part of a stack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// The time of each stack, from the outermost part inward unless reversed: the process where there are several, the
/// thread unless they are merged, the calls.
pub(super) fn named_stacks(
    processes: &[Analysed<'_>],
    options: StackOptions,
) -> Result<BTreeMap<Vec<Part>, StackTime>> {
    let mut stacks = BTreeMap::<Vec<Part>, StackTime>::new();
    for Analysed { recording, .. } in processes {
        for ((thread, stack), time) in stack_times(recording, options.by)? {
            let mut parts = Vec::new();
            if processes.len() > 1 {
                parts.push(process(recording));
            }
            if !options.merge_threads {
                parts.push(self::thread(recording, thread));
            }
            calls(recording, stack, options, &mut parts);
            if options.reversed {
                parts.reverse();
            }
            let sum = stacks.entry(parts).or_default();
            *sum = *sum + time;
        }
    }
    Ok(stacks)
}

fn process(recording: &Recording) -> Part {
    let target = &recording.target;
    Part::new(&format!("pid {} {}", target.pid, super::heading::command(recording)), Kind::Root)
}

fn thread(recording: &Recording, thread: ThreadIndex) -> Part {
    match recording.threads.get(thread.0 as usize) {
        Some(thread) => Part::new(&thread.title(), Kind::Root),
        None => Part::new("unknown thread", Kind::Unknown),
    }
}

fn calls(recording: &Recording, stack: StackIndex, options: StackOptions, parts: &mut Vec<Part>) {
    let Some(frames) = recording.stacks.frames(stack) else {
        return parts.push(Part::new("<stack unknown>", Kind::Unknown));
    };
    let before = parts.len();
    parts.extend(frames.rev().map(|frame| call(frame, options)));
    if parts.len() == before {
        parts.push(Part::new("<no Python call>", Kind::Root));
    }
}

/// `function (package/module.py:12)`.
fn call(frame: &Frame, options: StackOptions) -> Part {
    if [&*frame.function, &*frame.file] == [UNKNOWN_NAME; 2] {
        return Part::new(UNKNOWN_NAME, Kind::Unknown);
    }
    let kind = if &*frame.function == UNKNOWN_NAME { Kind::Unknown } else { Kind::of_file(&frame.file) };
    let file = if options.full_filenames { &*frame.file } else { short_file(&frame.file) };
    let name = match frame.line.filter(|_| !options.merge_lines) {
        Some(line) => format!("{} ({file}:{line})", frame.function),
        None => format!("{} ({file})", frame.function),
    };
    Part::new(&name, kind)
}

impl Part {
    fn new(name: &str, kind: Kind) -> Self {
        Part { name: foldable(name), kind }
    }
}

/// A name as a part of a folded stack. A semicolon would end the part, a line feed the stack, and `# ` at the beginning,
/// after spaces or not, would make a remark of it: none of them may come from a name.
pub(super) fn foldable(name: &str) -> String {
    let mut name = text::name(name).replace(';', ",");
    let start = name.len() - name.trim_start().len();
    if name[start..].starts_with("# ") {
        name.replace_range(start + 1..start + 2, "\u{a0}");
    }
    name
}

/// The last two parts of a path: enough to know a module by, short enough for a frame.
pub(super) fn short_file(file: &str) -> &str {
    let mut slashes = file.rmatch_indices('/').map(|(place, _)| place);
    match slashes.nth(1) {
        Some(place) => &file[place + 1..],
        None => file.trim_start_matches('/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_last_two_parts() {
        assert_eq!(short_file("/usr/lib/python3.9/threading.py"), "python3.9/threading.py");
        assert_eq!(short_file("/app.py"), "app.py");
        assert_eq!(short_file("<frozen site>"), "<frozen site>");
    }

    #[test]
    fn code_is_the_programs_own_unless_its_place_says_otherwise() {
        for (file, kind) in [
            ("/srv/app/main.py", Kind::Own),
            ("app/main.py", Kind::Own),
            ("<string>", Kind::Own),
            ("/home/me/python3.11/tool.py", Kind::Own),
            ("/srv/lib/pythonic/tool.py", Kind::Own),
            ("/usr/lib/python3.11/json/decoder.py", Kind::Library),
            ("/opt/python/lib64/python3.14t/threading.py", Kind::Library),
            ("/usr/lib/python311.zip/json/decoder.py", Kind::Library),
            ("<frozen importlib._bootstrap>", Kind::Library),
            ("/venv/lib/python3.12/site-packages/flask/app.py", Kind::Package),
            ("/usr/lib/python3/dist-packages/yaml/__init__.py", Kind::Package),
        ] {
            assert_eq!(Kind::of_file(file), kind, "{file}");
        }
    }
}
