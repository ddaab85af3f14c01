//! pprof's format: for how long each stack of each thread held a GIL, waited for one, made others wait and ran.
//!
//! Sums, so that memory grows with the number of distinct stacks and not with the recording's length.

mod messages;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use self::messages::{Function, Label, Line, Location, Profile, Sample, ValueType};
use super::heading;
use crate::analysis::{Analysed, By, StackTimes, all_stack_times};
use crate::recording::{Frame, Recording, StackIndex, ThreadIndex};
use crate::text;

/// What a sample tells, each in nanoseconds.
const KINDS: [(By, &str); 4] =
    [(By::Hold, "gil_hold"), (By::Wait, "gil_wait"), (By::Blame, "gil_blame"), (By::Cpu, "cpu")];

/// Writes the recordings as one profile, compressed by gzip.
///
/// # Errors
/// When a recording can no longer be read, or the writer fails.
pub fn write(processes: &[Analysed<'_>], writer: &mut impl Write) -> Result<()> {
    let sees_all_threads = processes.iter().all(|process| process.recording.sees_all_threads);
    // What was not looked at is not there, rather than 0.
    let kinds = if sees_all_threads { &KINDS[..] } else { &KINDS[..1] };
    let mut profile = Builder::new(processes, kinds);
    for Analysed { recording, .. } in processes {
        profile.add(recording, kinds.len())?;
    }
    let mut gzip = GzEncoder::new(writer, Compression::default());
    gzip.write_all(&profile.profile.encode_to_vec())?;
    gzip.finish()?;
    Ok(())
}

/// A profile in the making.
struct Builder {
    profile: Profile,
    texts: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<(u64, i64), u64>,
}

impl Builder {
    fn new(processes: &[Analysed<'_>], kinds: &[(By, &str)]) -> Self {
        let mut builder = Builder {
            profile: Profile::default(),
            texts: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
        };
        builder.text("");
        let nanoseconds = builder.text("nanoseconds");
        for (_, name) in kinds {
            let r#type = builder.text(name);
            builder.profile.sample_type.push(ValueType { r#type, unit: nanoseconds });
        }
        builder.profile.default_sample_type = builder.text(KINDS[0].1);
        builder.profile.period_type = Some(ValueType { r#type: builder.text("wall"), unit: nanoseconds });
        for Analysed { recording, .. } in processes {
            let comment = builder.text(&heading::line(recording));
            builder.profile.comment.push(comment);
            builder.profile.period = 1_000_000_000 / i64::from(recording.rate_hz.max(1));
        }
        let starts = || processes.iter().map(|process| process.recording.start);
        let ends = processes.iter().map(|process| process.recording.start + process.recording.duration);
        if let (Some(start), Some(end)) = (starts().min(), ends.max()) {
            builder.profile.time_nanos = nanos(start.as_nanosecond());
            builder.profile.duration_nanos = nanos(end.duration_since(start).as_nanos());
        }
        builder
    }

    /// Adds a process, with the first so many kinds of time.
    fn add(&mut self, recording: &Recording, kinds: usize) -> Result<()> {
        let times = match kinds {
            1 => all_stack_times(recording, [By::Hold])?.to_vec(),
            _ => all_stack_times(recording, KINDS.map(|(by, _)| by))?.to_vec(),
        };
        for ((thread, stack), value) in together(&times) {
            let sample = Sample {
                location_id: self.stack(recording, stack),
                value,
                label: self.labels(recording, thread),
            };
            self.profile.sample.push(sample);
        }
        Ok(())
    }

    /// The innermost call first.
    fn stack(&mut self, recording: &Recording, stack: StackIndex) -> Vec<u64> {
        match recording.stacks.frames(stack) {
            Some(frames) => frames.map(|frame| self.frame(frame)).collect(),
            None => vec![self.location("<stack unknown>", "", 0)],
        }
    }

    fn frame(&mut self, frame: &Frame) -> u64 {
        self.location(&text::name(&frame.function), &text::name(&frame.file), frame.line.unwrap_or(0).into())
    }

    fn location(&mut self, name: &str, file: &str, line: i64) -> u64 {
        let (name, filename) = (self.text(name), self.text(file));
        let next = self.functions.len() as u64 + 1;
        let function_id = *self.functions.entry((name, filename)).or_insert(next);
        if function_id == next {
            self.profile.function.push(Function { id: next, name, system_name: name, filename });
        }
        let next = self.locations.len() as u64 + 1;
        let location = *self.locations.entry((function_id, line)).or_insert(next);
        if location == next {
            self.profile.location.push(Location { id: next, line: vec![Line { function_id, line }] });
        }
        location
    }

    fn labels(&mut self, recording: &Recording, thread: ThreadIndex) -> Vec<Label> {
        let known = recording.threads.get(thread.0 as usize);
        let name = known.map_or_else(|| "unknown thread".to_owned(), |thread| thread.label());
        let thread = Label { key: self.text("thread"), str: self.text(&text::name(&name)), num: 0 };
        let pid = Label { key: self.text("pid"), str: 0, num: recording.target.pid.raw().into() };
        let tid = known.and_then(|thread| thread.tid);
        let tid = tid.map(|tid| Label { key: self.text("tid"), str: 0, num: tid.raw().into() });
        [thread, pid].into_iter().chain(tid).collect()
    }

    /// The place of a text in the table.
    fn text(&mut self, text: &str) -> i64 {
        if let Some(&place) = self.texts.get(text) {
            return place;
        }
        let place = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.texts.insert(text.to_owned(), place);
        place
    }
}

/// The times of each stack of each thread, one of each kind.
fn together(kinds: &[StackTimes]) -> BTreeMap<(ThreadIndex, StackIndex), Vec<i64>> {
    let mut all = BTreeMap::<_, Vec<i64>>::new();
    for (kind, times) in kinds.iter().enumerate() {
        for (stack, time) in times {
            all.entry(*stack).or_insert_with(|| vec![0; kinds.len()])[kind] = nanos(time.nanos.into());
        }
    }
    all
}

fn nanos(nanos: i128) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Holder, fake};
    use crate::render::lanes::Kept;
    use crate::render::lanes::tests::{nanos, recordings};
    use flate2::read::GzDecoder;
    use proptest::prelude::*;
    use std::io::Read;

    fn profile(recording: &Recording) -> Profile {
        let mut bytes = Vec::new();
        write(&[Analysed::of(recording).unwrap()], &mut bytes).unwrap();
        let mut message = Vec::new();
        GzDecoder::new(bytes.as_slice()).read_to_end(&mut message).unwrap();
        Profile::decode(message.as_slice()).unwrap()
    }

    fn types(profile: &Profile) -> Vec<&str> {
        profile.sample_type.iter().map(|kind| profile.string_table[kind.r#type as usize].as_str()).collect()
    }

    /// Milliseconds of each kind, of each thread.
    fn values(profile: &Profile) -> Vec<(&str, Vec<i64>)> {
        let values = profile.sample.iter().map(|sample| {
            let thread = &profile.string_table[sample.label[0].str as usize];
            (thread.as_str(), sample.value.iter().map(|nanos| nanos / 1_000_000).collect())
        });
        values.collect()
    }

    #[test]
    fn each_stack_has_each_kind_of_time() {
        let profile = profile(&fake::of_threads(&["HHHS", "WWNB"]));
        assert_eq!(types(&profile), ["gil_hold", "gil_wait", "gil_blame", "cpu"]);
        assert_eq!(values(&profile), [("thread-1", vec![4, 0, 2, 3]), ("thread-2", vec![0, 2, 0, 1])]);
        assert_eq!((profile.duration_nanos, profile.period), (4_000_000, 1_000_000));
        assert_eq!(profile.time_nanos, 1_795_183_331_000_000_000);
        let first = &profile.sample[0];
        assert_eq!(first.label[1..].iter().map(|label| label.num).collect::<Vec<_>>(), [4242, 4243]);
        let innermost = &profile.location[first.location_id[0] as usize - 1].line[0];
        let function = profile.function[innermost.function_id as usize - 1];
        let text = |place: i64| profile.string_table[place as usize].as_str();
        assert_eq!(
            (text(function.name), text(function.filename), innermost.line),
            ("spin_one", "/srv/app/main.py", 16)
        );
    }

    #[test]
    fn what_was_not_looked_at_is_not_there() {
        let mut recording = fake::of_threads(&["HHH"]);
        recording.sees_all_threads = false;
        let profile = profile(&recording);
        assert_eq!((types(&profile), values(&profile)), (vec!["gil_hold"], vec![("thread-1", vec![3])]));
    }

    #[test]
    fn nothing_to_see_is_a_profile_too() {
        assert!(profile(&fake::recording("")).sample.is_empty());
    }

    proptest! {
        #[test]
        fn the_gil_is_not_held_for_longer_than_one_thread_at_a_time_can(recording in recordings()) {
            let profile = profile(&recording);
            let held: i64 = profile.sample.iter().map(|sample| sample.value[0]).sum();
            let kept = Kept::of(&recording, 0).unwrap();
            let by_one = kept.gils[0].iter().filter(|slice| matches!(slice.value, Holder::Thread { .. }));
            prop_assert_eq!(held as u64, by_one.map(nanos).sum::<u64>());
            prop_assert!(held <= profile.duration_nanos);
        }
    }
}
