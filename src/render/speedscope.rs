//! speedscope's file format: a chart a GIL of who held it and in which calls, and a chart a thread of what it did and,
//! inside that, its calls. The format wants a chart as a whole: until it is written, what each lane shows is in memory,
//! 32 bytes for each time that it changes.
//!
//! The format is given by `file-format-schema.json` of speedscope.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::chart::{Chart, Edge, Element, gil_title, thread_title};
use super::heading;
use super::lanes::{Kept, Slice, offset};
use crate::analysis::Analysed;
use crate::recording::{Recording, ThreadIndex};
use crate::text;

/// Writes the recordings as one file.
///
/// # Errors
/// When a recording can no longer be read, or the writer fails.
pub fn write(processes: &[Analysed<'_>], writer: &mut impl Write) -> Result<()> {
    let about = processes.iter().map(|process| heading::line(process.recording)).collect::<Vec<_>>();
    let head = json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": format!("gilspy@{}", env!("CARGO_PKG_VERSION")),
        "name": about.join("; "),
    });
    let head = head.to_string();
    write!(writer, "{},\"profiles\":[", head.trim_end_matches('}'))?;
    let mut frames = Vec::new();
    let mut is_first = true;
    for Analysed { recording, .. } in processes {
        let offset = offset(processes, recording);
        let mut process = Process { recording, known: HashMap::new(), frames: &mut frames };
        let name = |lane: String| match processes {
            [_] => lane,
            _ => format!("pid {} {lane}", recording.target.pid),
        };
        let Kept { gils, threads } = Kept::of(recording, offset)?;
        for (gil, slices) in gils.into_iter().enumerate() {
            let name = name(gil_title(recording, gil));
            separate(&mut is_first, writer)?;
            process.profile(
                &name,
                offset,
                &slices,
                |holder| Element::of_holder(recording, holder),
                writer,
            )?;
        }
        for (place, slices) in threads.into_iter().enumerate().filter(|(_, slices)| !slices.is_empty()) {
            let name = name(thread_title(recording, ThreadIndex(place as u32)));
            separate(&mut is_first, writer)?;
            process.profile(&name, offset, &slices, |run| Element::of_thread(recording, run), writer)?;
        }
    }
    writer.write_all(b"],\"shared\":")?;
    serde_json::to_writer(&mut *writer, &json!({ "frames": frames }))?;
    writer.write_all(b"}\n")?;
    Ok(())
}

fn separate(is_first: &mut bool, writer: &mut impl Write) -> Result<()> {
    writer.write_all(if std::mem::take(is_first) { b"\n" } else { b",\n" })?;
    Ok(())
}

/// A name of the list that all charts share.
#[derive(Serialize)]
struct FrameName {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

/// The beginning or the end of a slice.
#[derive(Serialize)]
struct Event {
    r#type: &'static str,
    at: u64,
    frame: usize,
}

/// Writes the charts of one process.
struct Process<'a, 'f> {
    recording: &'a Recording,
    known: HashMap<Element<'a>, usize>,
    frames: &'f mut Vec<FrameName>,
}

impl<'a> Process<'a, '_> {
    fn profile<T: Copy>(
        &mut self,
        name: &str,
        offset: u64,
        slices: &[Slice<T>],
        elements: impl Fn(T) -> Vec<Element<'a>>,
        writer: &mut impl Write,
    ) -> Result<()> {
        let duration = u64::try_from(self.recording.duration.as_nanos()).unwrap_or(u64::MAX);
        let end = slices.last().map_or(0, |slice| slice.end).max(offset.saturating_add(duration));
        let head = json!({
            "type": "evented", "name": name, "unit": "nanoseconds", "startValue": 0, "endValue": end,
        });
        let head = head.to_string();
        write!(writer, "{},\"events\":[", head.trim_end_matches('}'))?;
        let mut is_first = true;
        let mut chart = Chart::default();
        let mut event = |edge, at, element: &Element<'a>| {
            let r#type = if edge == Edge::Begin { "O" } else { "C" };
            if !std::mem::take(&mut is_first) {
                writer.write_all(b",")?;
            }
            Ok(serde_json::to_writer(&mut *writer, &Event { r#type, at, frame: self.frame(*element) })?)
        };
        for slice in slices {
            chart.go_on(slice.time(), elements(slice.value), &mut event)?;
        }
        chart.finish(&mut event)?;
        writer.write_all(b"]}")?;
        Ok(())
    }

    /// The place of a name in the list.
    fn frame(&mut self, element: Element<'a>) -> usize {
        if let Some(&place) = self.known.get(&element) {
            return place;
        }
        let name = element.name(self.recording).into_owned();
        let new = match element {
            Element::Frame(frame) => {
                FrameName { name, file: Some(text::name(&frame.file).into_owned()), line: frame.line }
            }
            Element::State(state) => {
                let syscall = state.syscall().map_or_else(String::new, |call| format!(" in {}", call.name()));
                FrameName { name: name + &syscall, file: None, line: None }
            }
            _ => FrameName { name, file: None, line: None },
        };
        self.frames.push(new);
        self.known.insert(element, self.frames.len() - 1);
        self.frames.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;
    use crate::render::lanes::tests::recordings;
    use proptest::prelude::*;
    use serde_json::Value;

    fn file(recording: &Recording) -> Value {
        let mut json = Vec::new();
        write(&[Analysed::of(recording).unwrap()], &mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// The outermost slices of a chart. All its slices have to be inside each other, and each has to end.
    fn slices(file: &Value, profile: &Value) -> Vec<(String, u64, u64)> {
        let (mut open, mut slices, mut now) = (Vec::new(), Vec::new(), 0);
        for event in profile["events"].as_array().unwrap() {
            let (frame, at) = (event["frame"].as_u64().unwrap(), event["at"].as_u64().unwrap());
            assert!(at >= now && at <= profile["endValue"].as_u64().unwrap(), "{event}");
            now = at;
            if event["type"] == "O" {
                open.push((frame, at));
                continue;
            }
            let (opened, start) = open.pop().unwrap();
            assert_eq!(opened, frame);
            if open.is_empty() {
                let name = file["shared"]["frames"][frame as usize]["name"].as_str().unwrap();
                slices.push((name.to_owned(), start / 1000, at / 1000));
            }
        }
        assert!(open.is_empty());
        slices
    }

    #[test]
    fn the_gil_comes_first_then_every_thread() {
        let file = file(&fake::of_threads(&["HHWW", "WWSS"]));
        let profiles = file["profiles"].as_array().unwrap();
        let names: Vec<_> = profiles.iter().map(|profile| profile["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["GIL", "thread-1 (4243)", "thread-2 (4244)"]);
        let slice = |name: &str, start, end| (name.to_owned(), start, end);
        let gil = [slice("thread-1 (4243)", 0, 2000), slice("thread-2 (4244)", 2000, 4000)];
        assert_eq!(slices(&file, &profiles[0]), gil);
        let second = slices(&file, &profiles[2]);
        assert_eq!((&second[0], second[1].0.starts_with("stall in ")), (&slice("wait", 0, 2000), true));
    }

    #[test]
    fn nothing_to_see_is_a_file_too() {
        assert_eq!(file(&fake::recording(""))["profiles"][0]["events"], json!([]));
    }

    proptest! {
        #[test]
        fn at_any_moment_one_thread_at_most_holds_the_gil(recording in recordings()) {
            let file = file(&recording);
            let (gil, threads) = file["profiles"].as_array().unwrap().split_first().unwrap();
            let holds = threads.iter().flat_map(|profile| slices(&file, profile));
            let mut holds: Vec<_> =
                holds.filter(|(name, ..)| name == "hold" || name.starts_with("stall")).collect();
            holds.sort_by_key(|(_, start, _)| *start);
            prop_assert!(holds.windows(2).all(|pair| pair[0].2 <= pair[1].1));
            let by_gil: Vec<_> =
                slices(&file, gil).into_iter().filter(|(name, ..)| name.starts_with("thread-")).collect();
            let sum = |slices: &[(String, u64, u64)]| slices.iter().map(|(_, start, end)| end - start).sum::<u64>();
            prop_assert_eq!(sum(&holds), sum(&by_gil));
        }
    }
}
