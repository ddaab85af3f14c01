//! What changed between two recordings, and what of that is more than chance.
//!
//! Both recordings' figures have 95 % intervals. The recordings are independent of each other, so that the interval of
//! the difference is the root of the sum of both squares (Law and Kelton, Simulation Modeling and Analysis, 10.2). For
//! functions, the means of 64 parts of each recording's time are taken, as elsewhere for ticks (`statistics`).

use std::collections::HashMap;
use std::sync::Arc;

use super::by::{By, each};
use super::statistics::{BatchMeans, MOST_BATCHES};
use super::thresholds::{CHANGE_MATTERS, MANY_COMPARED};
use super::{Analysed, Estimate};
use crate::recording::{GilTrack, Recording, Stretch, Unreadable};

/// What changed between two recordings.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// Each GIL that both have.
    pub gils: Vec<GilChange>,
    /// For how much of the time functions did something, the largest difference first. A function's time is that of
    /// the stacks in which it is the innermost call; where several threads may do the same at once, it may be more
    /// than all.
    pub functions: Vec<FunctionChange>,
}

/// What changed about one GIL.
#[derive(Debug, Clone, PartialEq)]
pub struct GilChange {
    /// The interpreters that share it.
    pub interpreters: Vec<i64>,
    /// Share of time at which it was held, from 0 to 1.
    pub held: Change,
    /// How many threads waited for it at a time; `None` unless both recordings are of all threads.
    pub waiters: Option<Change>,
    /// Handovers a second, before and after; `None` where a recording took no time.
    pub handovers_per_s: Option<[f64; 2]>,
}

/// What changed about one function.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionChange {
    /// Its name; `None` for stacks that could not be read.
    pub function: Option<Function>,
    /// Share of the time, from 0 up.
    pub change: Change,
}

/// A function, whatever line it was at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Function {
    /// Its name.
    pub name: Arc<str>,
    /// Its file.
    pub file: Arc<str>,
}

/// A figure before and after.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// In the first recording.
    pub before: Estimate,
    /// In the second one.
    pub after: Estimate,
    /// From which part of its interval on the difference is more than chance.
    certainty: f64,
}

/// What a difference is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// More than chance explains.
    Significant,
    /// Chance explains it.
    Noise,
    /// A recording is too short to tell.
    NotKnown,
}

impl Changes {
    /// Between two recordings; functions by what they did.
    ///
    /// # Errors
    /// When a recording can no longer be read.
    pub fn between(before: &Analysed<'_>, after: &Analysed<'_>, by: By) -> Result<Self, Unreadable> {
        Ok(Changes {
            gils: gils(before, after),
            functions: functions(before.recording, after.recording, by)?,
        })
    }
}

impl Change {
    fn new(before: Estimate, after: Estimate) -> Self {
        Change { before, after, certainty: 1.0 }
    }

    /// How much more it is now.
    pub fn difference(&self) -> f64 {
        self.after.mean - self.before.mean
    }

    /// Half the width of the difference's 95 % interval; `None` where a recording is too short to tell.
    pub fn ci95(&self) -> Option<f64> {
        Some(self.before.ci95?.hypot(self.after.ci95?))
    }

    /// What the difference is worth.
    pub fn worth(&self) -> Worth {
        match self.ci95() {
            Some(ci95) if self.difference().abs() > ci95 * self.certainty => Worth::Significant,
            Some(_) => Worth::Noise,
            None => Worth::NotKnown,
        }
    }
}

fn gils(before: &Analysed<'_>, after: &Analysed<'_>) -> Vec<GilChange> {
    let mut changes = Vec::new();
    for (old, old_gil) in before.recording.gils.iter().enumerate() {
        let is_same = |(_, gil): &(usize, &GilTrack)| gil.interpreters == old_gil.interpreters;
        let Some((new, _)) = after.recording.gils.iter().enumerate().find(is_same) else { continue };
        let (old, new) = (&before.analysis.gils[old], &after.analysis.gils[new]);
        let waiters = old.waiting.as_ref().zip(new.waiting.as_ref());
        let handovers = old.handovers_per_s.zip(new.handovers_per_s);
        changes.push(GilChange {
            interpreters: old_gil.interpreters.clone(),
            held: Change::new(old.held, new.held),
            waiters: waiters.map(|(old, new)| Change::new(old.waiters, new.waiters)),
            handovers_per_s: handovers.map(|(old, new)| [old, new]),
        });
    }
    changes
}

fn functions(before: &Recording, after: &Recording, by: By) -> Result<Vec<FunctionChange>, Unreadable> {
    let (before, after) = (Shares::of(before, by)?, Shares::of(after, by)?);
    let mut names: Vec<&Option<Function>> = before.functions.keys().chain(after.functions.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let change = |name: &Option<Function>| {
        let (before, after) = (before.estimate(name), after.estimate(name));
        FunctionChange { function: name.clone(), change: Change { before, after, certainty: MANY_COMPARED } }
    };
    let mut changes: Vec<FunctionChange> = names.into_iter().map(change).collect();
    changes.sort_by(|a, b| {
        let order = b.change.difference().abs().total_cmp(&a.change.difference().abs());
        order.then_with(|| a.function.cmp(&b.function))
    });
    Ok(changes)
}

impl FunctionChange {
    /// Whether it is large enough to be told.
    pub fn matters(&self) -> bool {
        self.change.difference().abs() >= CHANGE_MATTERS
    }
}

/// For how long each function did something, in each part of a recording's time; in nanoseconds.
struct Shares {
    /// The time that ticks stand for.
    total: [u64; MOST_BATCHES],
    ticks: usize,
    functions: HashMap<Option<Function>, [u64; MOST_BATCHES]>,
}

impl Shares {
    fn of(recording: &Recording, by: By) -> Result<Self, Unreadable> {
        let mut shares = Shares { total: [0; MOST_BATCHES], ticks: 0, functions: HashMap::new() };
        for stretch in recording.stretches() {
            shares.add(recording, &stretch?, by);
        }
        Ok(shares)
    }

    fn add(&mut self, recording: &Recording, stretch: &Stretch, by: By) {
        let (since, length) = (recording.since.as_nanos(), recording.length().as_nanos().max(1));
        let part = |at: u64| {
            let place = u128::from(at).saturating_sub(since) * MOST_BATCHES as u128 / length;
            (place as usize).min(MOST_BATCHES - 1)
        };
        let parts: Vec<usize> = stretch.ticks.iter().map(|tick| part(tick.at.as_nanos())).collect();
        self.ticks += parts.len();
        for (tick, part) in parts.iter().enumerate() {
            self.total[*part] += stretch.times.nanos(&(tick..tick + 1));
        }
        each(stretch, by, |_, stack, mut ticks, threads| {
            let frame = recording.stacks.frames(stack).and_then(|mut frames| frames.next());
            let function = frame
                .map(|frame| Function { name: Arc::clone(&frame.function), file: Arc::clone(&frame.file) });
            let of_function = self.functions.entry(function).or_insert([0; MOST_BATCHES]);
            while let Some(&part) = parts.get(ticks.start).filter(|_| !ticks.is_empty()) {
                let length = parts[ticks.clone()].iter().take_while(|of_tick| **of_tick == part).count();
                let first = ticks.start..ticks.start + length;
                of_function[part] += stretch.times.nanos(&first) * u64::from(threads);
                ticks.start = first.end;
            }
        });
    }

    fn estimate(&self, function: &Option<Function>) -> Estimate {
        let nanos = self.functions.get(function).copied().unwrap_or([0; MOST_BATCHES]);
        let batches = self.total.iter().zip(nanos).map(|(total, nanos)| (*total as f64, nanos as f64));
        // Parts in which nobody looked tell nothing.
        let batches = batches.filter(|(total, _)| *total > 0.0).collect();
        BatchMeans::of_batches(batches, self.ticks).estimate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::fake;

    /// A thousand ticks of two threads that hold the GIL by turns of so many ticks.
    fn recording(first: usize, second: usize) -> Recording {
        let turns = |own: char, other: char| -> String {
            let turn = format!("{}{}", own.to_string().repeat(first), other.to_string().repeat(second));
            turn.chars().cycle().take(1000).collect()
        };
        fake::of_threads(&[&turns('H', 'B'), &turns('B', 'H')])
    }

    fn changes(before: &Recording, after: &Recording, by: By) -> Changes {
        Changes::between(&Analysed::of(before).unwrap(), &Analysed::of(after).unwrap(), by).unwrap()
    }

    /// Name, hundredths and worth of each function's change.
    fn named(changes: &Changes) -> Vec<(&str, i64, Worth)> {
        let changes = changes.functions.iter().map(|of| {
            let name = of.function.as_ref().map_or("", |function| &function.name);
            (name, (of.change.difference() * 100.0).round() as i64, of.change.worth())
        });
        changes.collect()
    }

    #[test]
    fn a_function_that_takes_more_is_told_from_one_that_does_not() {
        let changes = changes(&recording(5, 5), &recording(8, 2), By::Hold);
        assert_eq!(
            named(&changes),
            [("spin_one", 30, Worth::Significant), ("spin_two", -30, Worth::Significant)]
        );
        assert_eq!(changes.gils[0].held.worth(), Worth::Noise);
    }

    #[test]
    fn two_recordings_of_the_same_differ_by_chance_only() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut rows = || -> [String; 2] {
            let holder: Vec<bool> = (0..2000)
                .scan(true, |holder, _| {
                    *holder ^= random.f64() < 0.1;
                    Some(*holder)
                })
                .collect();
            [true, false]
                .map(|own| holder.iter().map(|holder| if *holder == own { 'H' } else { 'W' }).collect())
        };
        let mut significant = 0;
        for _ in 0..50 {
            let ([a, b], [c, d]) = (rows(), rows());
            let (before, after) = (fake::of_threads(&[&a, &b]), fake::of_threads(&[&c, &d]));
            let changes = changes(&before, &after, By::Blame);
            significant +=
                changes.functions.iter().filter(|of| of.change.worth() == Worth::Significant).count();
        }
        assert!(significant <= 4, "{significant} of 100");
    }

    #[test]
    fn short_recordings_tell_nothing() {
        let (before, after) = (fake::recording("AAAB"), fake::recording("BBBA"));
        assert_eq!(named(&changes(&before, &after, By::Hold))[0], ("spin_one", -50, Worth::NotKnown));
    }

    #[test]
    fn what_is_gone_or_new_is_there_with_nothing() {
        let changes = changes(&recording(10, 0), &recording(0, 10), By::Cpu);
        let [first, second] = &changes.functions[..] else { panic!("{changes:?}") };
        assert_eq!((first.change.before.mean, first.change.after.mean), (1.0, 0.0));
        assert_eq!((second.change.before.mean, second.change.after.mean), (0.0, 1.0));
    }
}
