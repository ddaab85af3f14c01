//! How long threads keep the GIL at a time.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use super::thresholds::LONG_HOLD_INTERVALS;
use super::waiting::GilTicks;
use crate::recording::{GilTrack, Holder, Recording, StackIndex, ThreadIndex, TickTimes};
use crate::units::Timestamp;

/// How long the GIL is kept at a time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HoldLengths {
    /// How many holds there were: those that were seen, and those that the interpreter counted besides.
    pub count: u64,
    /// Lengths below this, in seconds, are too short for the rate.
    pub resolution_s: f64,
    /// Half of them are shorter.
    pub p50: Option<HoldLength>,
    /// Nine of ten are shorter.
    pub p90: Option<HoldLength>,
    /// All but one of a hundred are shorter.
    pub p99: Option<HoldLength>,
    /// The longest.
    pub max: Option<HoldLength>,
}

/// The length of a hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HoldLength {
    /// About so many seconds, give or take a period of the rate.
    About(f64),
    /// Less than so many seconds: too short for the rate.
    Below(f64),
}

/// A hold that is longer than the interpreter would let it be while somebody waits.
#[derive(Debug, Clone, PartialEq)]
pub struct LongHold {
    /// The places of the ticks that saw it.
    pub ticks: Range<usize>,
    /// When it was first seen.
    pub start: Timestamp,
    /// How long it was, in seconds.
    pub duration_s: f64,
    /// Who held the GIL.
    pub thread: ThreadIndex,
    /// Share of it that the holder was blocked, from 0 to 1.
    pub stalled: f64,
    /// How many threads waited at most.
    pub waiters_max: u32,
    /// What others waited for it, in thread-seconds.
    pub inflicted_s: f64,
    /// The stack that was seen most.
    pub stack: StackIndex,
}

/// A stretch in which one thread kept the GIL, as far as the ticks and the count of handovers tell.
struct Hold {
    ticks: Range<usize>,
    thread: ThreadIndex,
    handovers: u32,
}

/// The lengths of all holds, and the long ones in order of time.
pub(super) fn holds(
    recording: &Recording,
    gil: &GilTrack,
    times: &TickTimes,
    ticks: &GilTicks,
) -> (HoldLengths, Vec<LongHold>) {
    let holds = seen(gil);
    let least = (gil.switch_interval * LONG_HOLD_INTERVALS).as_secs_f64();
    let long = holds.iter().filter(|hold| {
        let first = hold.ticks.clone().find(|&tick| ticks.waiters(tick) > 0);
        first.is_some_and(|first| length(recording, &(first..hold.ticks.end)).as_secs_f64() > least)
    });
    let long = long.map(|hold| long_hold(recording, gil, times, ticks, hold)).collect();
    (lengths(recording, gil, &holds), long)
}

/// The holds that ticks saw. Where a tick could not be read, the thread that held the GIL before and after held it
/// then too, if there was no handover.
fn seen(gil: &GilTrack) -> Vec<Hold> {
    let mut holds: Vec<Hold> = Vec::new();
    let mut goes_on = false;
    for (ticks, run) in gil.runs.iter() {
        match run.holder {
            Holder::Thread { thread, .. } => match holds.last_mut() {
                Some(last) if goes_on && (last.thread, last.handovers) == (thread, run.handovers) => {
                    last.ticks.end = ticks.end;
                }
                _ => holds.push(Hold { ticks, thread, handovers: run.handovers }),
            },
            Holder::Unknown => continue,
            Holder::Nobody | Holder::Disabled => {}
        }
        goes_on = matches!(run.holder, Holder::Thread { .. });
    }
    holds
}

/// From the first tick to the last, and a period more: half of one before and half after, on the average.
fn length(recording: &Recording, ticks: &Range<usize>) -> Duration {
    let at = |place: usize| recording.ticks.get(place).map_or(0, |tick| tick.at.as_nanos());
    let last = ticks.end.saturating_sub(1);
    let weight = recording.ticks.get(last).map_or(1, |tick| tick.weight);
    Duration::from_nanos(at(last).saturating_sub(at(ticks.start))) + period(recording) * weight
}

fn period(recording: &Recording) -> Duration {
    Duration::from_secs(1) / recording.rate_hz.max(1)
}

fn long_hold(
    recording: &Recording,
    gil: &GilTrack,
    times: &TickTimes,
    ticks: &GilTicks,
    hold: &Hold,
) -> LongHold {
    let all = || hold.ticks.clone();
    let stalled: u64 =
        all().filter(|&tick| ticks.is_stalled(tick)).map(|tick| times.nanos(&(tick..tick + 1))).sum();
    let inflicted: f64 = all().map(|tick| f64::from(ticks.waiters(tick)) * times.of_tick(tick)).sum();
    LongHold {
        ticks: all(),
        start: recording.ticks[hold.ticks.start].at,
        duration_s: length(recording, &hold.ticks).as_secs_f64(),
        thread: hold.thread,
        stalled: stalled as f64 / times.nanos(&hold.ticks).max(1) as f64,
        waiters_max: all().map(|tick| ticks.waiters(tick)).max().unwrap_or(0),
        inflicted_s: inflicted,
        stack: most_seen(gil, times, &hold.ticks),
    }
}

fn most_seen(gil: &GilTrack, times: &TickTimes, within: &Range<usize>) -> StackIndex {
    let mut seen = HashMap::<StackIndex, u64>::new();
    for (ticks, run) in gil.runs.from(within.start).take_while(|(ticks, _)| ticks.start < within.end) {
        if let Holder::Thread { stack, .. } = run.holder {
            let ticks = ticks.start.max(within.start)..ticks.end.min(within.end);
            *seen.entry(stack).or_default() += times.nanos(&ticks);
        }
    }
    let most = seen.into_iter().max_by_key(|&(stack, nanos)| (nanos, std::cmp::Reverse(stack)));
    most.map_or(StackIndex::UNKNOWN, |(stack, _)| stack)
}

/// Holds that fell between two ticks are known from the interpreter's count of handovers: each is shorter than the
/// way from one tick to the next. So is one that a single tick saw, or nearly.
fn lengths(recording: &Recording, gil: &GilTrack, holds: &[Hold]) -> HoldLengths {
    let seen = holds.len() as u64;
    let count = if seen == 0 && gil.handovers == 0 { 0 } else { seen.max(gil.handovers + 1) };
    let mut known: Vec<f64> = holds.iter().map(|hold| length(recording, &hold.ticks).as_secs_f64()).collect();
    known.sort_by(f64::total_cmp);
    let shortest = 2.0 * period(recording).as_secs_f64();
    let at = |share: f64| {
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1)) - 1;
        let length = known.get(rank.checked_sub(count - seen).unwrap_or(u64::MAX) as usize);
        match length {
            Some(&length) if length >= shortest => HoldLength::About(length),
            _ => HoldLength::Below(shortest),
        }
    };
    let at = |share: f64| (count > 0).then(|| at(share));
    HoldLengths { count, resolution_s: shortest, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
}
