//! What the picture's script draws from when it zooms: each lane slot by slot, with the stacks that were seen. Text in it
//! is the target's; the script only ever shows it as text.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::super::stacks::short_file;
use super::super::svg::Svg;
use super::section::{LANE, STRIP, Section, WAITERS, is_stall};
use super::{COLUMNS, LEFT, WIDTH, palette, seconds};
use crate::analysis::{Analysed, Mix, STATES};
use crate::recording::{Recording, StackIndex};
use crate::text::{shorten, visible};

/// Shares are told in such parts.
const PARTS: f32 = 20.0;

/// Stacks and frames at most, the frames of one stack, and the characters of a name: what is beyond them is left out,
/// and the script says so.
const MOST_STACKS: usize = 2000;
const MOST_FRAMES: usize = 40_000;
const DEEPEST: usize = 60;
const LONGEST_NAME: usize = 120;

/// Bytes of all names together, about.
const MOST_TEXT: usize = 400_000;

#[derive(Serialize)]
struct Data<'a> {
    start_ms: i64,
    duration_s: f64,
    slots: usize,
    columns: usize,
    left: f64,
    width: f64,
    strip: f64,
    waiters: f64,
    lane: f64,
    parts: f32,
    states: [&'static str; STATES],
    mixes: Vec<[u8; STATES]>,
    frames: Vec<String>,
    stacks: Vec<Vec<u32>>,
    gils: Vec<GilData>,
    lanes: Vec<LaneData<'a>>,
    holds: Vec<(usize, f64, f64, bool)>,
    /// When a GIL, by its place, was switched on or off.
    switches: Vec<(usize, f64)>,
}

#[derive(Serialize)]
struct GilData {
    /// The number of its first lane, and how many it has.
    first: usize,
    lanes: usize,
    /// Runs of slots: how many, waiters in parts, parts held by others, parts that are unknown, parts without a GIL, parts not seen.
    runs: Vec<i64>,
}

#[derive(Serialize)]
struct LaneData<'a> {
    name: String,
    tid: String,
    class: &'a str,
    threads: usize,
    /// Runs of slots: how many, the place of their mix, the place of their stack or -1.
    runs: Vec<i64>,
}

/// Writes it as JSON.
pub(super) fn write<W: Write>(
    svg: &mut Svg<W>,
    processes: &[Analysed<'_>],
    sections: &[Section<'_>],
    length: Duration,
) -> Result<()> {
    let Some(first) = processes.first() else { return Ok(()) };
    let slots = sections.first().map_or(0, |section| section.slots.waiters.len());
    let (mut mixes, mut stacks) = (Mixes::default(), Stacks::default());
    let mut data = Data {
        start_ms: first.recording.start.as_millisecond(),
        duration_s: seconds(length),
        slots,
        columns: COLUMNS,
        left: LEFT,
        width: WIDTH,
        strip: STRIP,
        waiters: WAITERS,
        lane: LANE,
        parts: PARTS,
        states: std::array::from_fn(palette::state_name),
        mixes: Vec::new(),
        frames: Vec::new(),
        stacks: Vec::new(),
        gils: Vec::new(),
        lanes: Vec::new(),
        holds: Vec::new(),
        switches: Vec::new(),
    };
    for section in sections {
        data.gils.push(GilData {
            first: data.lanes.len(),
            lanes: section.lanes.len(),
            runs: runs((0..slots).map(|slot| section.gil_slot(slot))),
        });
        stacks.rank(section);
        for lane in &section.lanes {
            let (name, tid) = section.name(lane);
            let of_slot = |(mix, stack): (&Mix, &StackIndex)| {
                [mixes.place(mix), stacks.place(section.recording(), *stack)]
            };
            data.lanes.push(LaneData {
                name: shorten(&visible(&name), LONGEST_NAME),
                tid,
                class: &lane.class,
                threads: lane.threads.len(),
                runs: runs(lane.slots.mixes.iter().zip(&lane.slots.stacks).map(of_slot)),
            });
        }
        let holds = section.analysis().waiting.iter().flat_map(|waiting| &waiting.long_holds);
        let gil = data.gils.len() - 1;
        data.switches.extend(section.track().switches.iter().map(|switch| (gil, round(switch.at_s))));
        data.holds.extend(
            holds.map(|hold| (gil, round(hold.start.as_secs_f64()), round(hold.duration_s), is_stall(hold))),
        );
    }
    (data.mixes, data.frames, data.stacks) = (mixes.all, stacks.frames, stacks.all);
    svg.holding("script", &[("type", "application/json")], &serde_json::to_string(&data)?)
}

/// Milliseconds are enough.
fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// Runs of slots that hold the same, as one list of numbers: how many slots, and what they hold.
fn runs<const N: usize>(slots: impl Iterator<Item = [i64; N]>) -> Vec<i64> {
    let mut runs: Vec<(i64, [i64; N])> = Vec::new();
    for slot in slots {
        match runs.last_mut() {
            Some((length, same)) if *same == slot => *length += 1,
            _ => runs.push((1, slot)),
        }
    }
    runs.into_iter().flat_map(|(length, slot)| [length].into_iter().chain(slot)).collect()
}

fn parts(share: f32) -> i64 {
    (share * PARTS).round() as i64
}

impl Section<'_> {
    fn gil_slot(&self, slot: usize) -> [i64; 5] {
        let slots = &self.slots;
        let (others, unseen) = (self.others_at(slot), self.unseen_at(slot));
        [slots.waiters[slot], others, slots.unknown[slot], slots.disabled[slot], unseen].map(parts)
    }
}

/// Distinct mixes, in parts.
#[derive(Default)]
struct Mixes {
    all: Vec<[u8; STATES]>,
    known: HashMap<[u8; STATES], i64>,
}

impl Mixes {
    fn place(&mut self, mix: &Mix) -> i64 {
        let mix = mix.map(|share| parts(share) as u8);
        *self.known.entry(mix).or_insert_with(|| {
            self.all.push(mix);
            self.all.len() as i64 - 1
        })
    }
}

/// Distinct stacks and frames.
#[derive(Default)]
struct Stacks {
    all: Vec<Vec<u32>>,
    frames: Vec<String>,
    known_frames: HashMap<String, u32>,
    /// Of the process that is being written: its stacks that are worth their room, and where they are.
    known: HashMap<StackIndex, Option<i64>>,
    references: usize,
    text: usize,
}

impl Stacks {
    /// Takes those of a section that fill most slots.
    fn rank(&mut self, section: &Section<'_>) {
        let mut slots = HashMap::<StackIndex, u64>::new();
        section
            .lanes
            .iter()
            .flat_map(|lane| &lane.slots.stacks)
            .for_each(|stack| *slots.entry(*stack).or_default() += 1);
        slots.remove(&StackIndex::UNKNOWN);
        let mut ranked: Vec<(StackIndex, u64)> = slots.into_iter().collect();
        ranked.sort_by_key(|(stack, slots)| (std::cmp::Reverse(*slots), *stack));
        ranked.truncate(MOST_STACKS.saturating_sub(self.all.len()));
        self.known = ranked.into_iter().map(|(stack, _)| (stack, None)).collect();
    }

    /// The place of a stack, or -1: it is not known, or there is no room for it.
    fn place(&mut self, recording: &Recording, stack: StackIndex) -> i64 {
        match self.known.get(&stack) {
            None => return -1,
            Some(Some(place)) => return *place,
            Some(None) => {}
        }
        let place = self.add(recording, stack).unwrap_or(-1);
        self.known.insert(stack, Some(place));
        place
    }

    fn add(&mut self, recording: &Recording, stack: StackIndex) -> Option<i64> {
        if self.references >= MOST_FRAMES || self.text >= MOST_TEXT {
            return None;
        }
        let frames = recording.stacks.frames(stack)?;
        let mut places = Vec::new();
        for frame in frames.take(DEEPEST) {
            let line = frame.line.map_or_else(String::new, |line| format!(":{line}"));
            let function = shorten(&visible(&frame.function), LONGEST_NAME);
            let file = shorten(&visible(short_file(&frame.file)), LONGEST_NAME);
            places.push(self.frame(format!("{function}\t{file}{line}")));
        }
        self.references += places.len();
        self.all.push(places);
        Some(self.all.len() as i64 - 1)
    }

    fn frame(&mut self, text: String) -> u32 {
        if let Some(&place) = self.known_frames.get(&text) {
            return place;
        }
        let place = self.frames.len() as u32;
        self.text += text.len();
        self.frames.push(text.clone());
        self.known_frames.insert(text, place);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_hold_the_same_are_one_run() {
        assert_eq!(runs([[1, 2], [1, 2], [3, 4]].into_iter()), [2, 1, 2, 1, 3, 4]);
    }

    #[test]
    fn mixes_are_kept_once_in_parts() {
        let mut mixes = Mixes::default();
        let half = [0.5, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0];
        assert_eq!([mixes.place(&half), mixes.place(&[0.0; 7]), mixes.place(&half)], [0, 1, 0]);
        assert_eq!(mixes.all[0], [10, 0, 0, 0, 10, 0, 0]);
    }
}
