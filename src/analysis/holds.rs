//! How long threads keep the GIL at a time.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Duration;

use super::thresholds::LONG_HOLD_INTERVALS;
use super::waiting::GilTicks;
use crate::recording::{GilTrack, Holder, Recording, StackIndex, Stretch, ThreadIndex};
use crate::units::Timestamp;

/// Long holds that are kept with all that is known of them: the longest.
const LISTED: usize = 1000;

/// Lengths of holds are kept to so many binary digits: to a 16,384th.
const DIGITS: u32 = 14;

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

/// The holds of one GIL, put together from the runs of successive stretches.
pub(super) struct Holds {
    period: Duration,
    /// A hold is long if it is longer than that while somebody waits.
    least: Duration,
    /// The hold that may go on.
    open: Option<Hold>,
    /// How many there were of each length, in nanoseconds, all but the [`DIGITS`] highest of which are 0.
    lengths: BTreeMap<u64, u64>,
    longest: Duration,
    long: LongHolds,
}

/// The holds that were too long.
#[derive(Debug, Default)]
pub(super) struct LongHolds {
    /// The longest, in order of time.
    pub listed: Vec<LongHold>,
    /// The ticks of all of them, in order of time.
    pub ticks: Vec<Range<usize>>,
}

/// A stretch in which one thread kept the GIL, as far as the ticks and the count of handovers tell.
struct Hold {
    thread: ThreadIndex,
    handovers: u32,
    ticks: Range<usize>,
    start: Timestamp,
    /// Its last tick, and how many periods that stands for.
    last: (Timestamp, u32),
    seen: Seen,
    /// What was seen since the last tick that saw the thread hold the GIL, while that could not be read.
    unread: Seen,
    stacks: HashMap<StackIndex, u64>,
}

/// What ticks saw during a hold.
#[derive(Debug, Default)]
struct Seen {
    nanos: u64,
    stalled: u64,
    inflicted: u64,
    waiters_max: u32,
    /// When somebody was first seen to wait.
    waiting_since: Option<Timestamp>,
}

impl Holds {
    pub(super) fn new(recording: &Recording, gil: &GilTrack) -> Self {
        Holds {
            period: Duration::from_secs(1) / recording.rate_hz.max(1),
            least: gil.switch_interval * LONG_HOLD_INTERVALS,
            open: None,
            lengths: BTreeMap::new(),
            longest: Duration::ZERO,
            long: LongHolds::default(),
        }
    }

    /// Adds what a stretch saw of the GIL. Where a tick could not be read, the thread that held the GIL before and
    /// after held it then too, if there was no handover.
    pub(super) fn add(&mut self, stretch: &Stretch, gil: usize, ticks: &GilTicks) {
        for (span, run) in stretch.gils[gil].iter() {
            let (thread, stack) = match run.holder {
                Holder::Thread { thread, stack } => (thread, stack),
                Holder::Unknown => {
                    if let Some(open) = &mut self.open {
                        open.unread.add(stretch, &span, ticks);
                    }
                    continue;
                }
                Holder::Nobody | Holder::Disabled | Holder::Stopped => {
                    self.close();
                    continue;
                }
            };
            let key = (thread, run.handovers);
            if self.open.as_ref().is_none_or(|open| (open.thread, open.handovers) != key) {
                self.close();
                self.open = Some(Hold::new(thread, run.handovers, stretch, span.start));
            }
            if let Some(open) = &mut self.open {
                open.add(stretch, &span, stack, ticks);
            }
        }
    }

    /// The hold that was open is over.
    fn close(&mut self) {
        let Some(hold) = self.open.take() else { return };
        let length = hold.length(hold.start, self.period);
        *self.lengths.entry(rounded(length)).or_default() += 1;
        self.longest = self.longest.max(length);
        if hold.seen.waiting_since.is_some_and(|since| hold.length(since, self.period) > self.least) {
            self.long.ticks.push(hold.ticks.clone());
            self.long.listed.push(hold.into_long(length));
            if self.long.listed.len() >= 2 * LISTED {
                self.long.keep_longest();
            }
        }
    }

    /// The lengths of all, where the interpreter counted so many handovers, and the long ones.
    pub(super) fn finish(mut self, handovers: u64) -> (HoldLengths, LongHolds) {
        self.close();
        self.long.keep_longest();
        (self.hold_lengths(handovers), self.long)
    }

    /// Holds that fell between two ticks are known from the interpreter's count of handovers: each is shorter than the
    /// way from one tick to the next. So is one that a single tick saw, or nearly.
    fn hold_lengths(&self, handovers: u64) -> HoldLengths {
        let seen: u64 = self.lengths.values().sum();
        let count = if seen == 0 && handovers == 0 { 0 } else { seen.max(handovers.saturating_add(1)) };
        let shortest = 2.0 * self.period.as_secs_f64();
        let about = |length: Option<f64>| match length {
            Some(length) if length >= shortest => HoldLength::About(length),
            _ => HoldLength::Below(shortest),
        };
        let at = |share: f64| {
            let rank = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1)) - 1;
            about(rank.checked_sub(count - seen).and_then(|rank| self.length_at(rank)))
        };
        let at = |share: f64| (count > 0).then(|| at(share));
        HoldLengths {
            count,
            resolution_s: shortest,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: (count > 0).then(|| about((seen > 0).then_some(self.longest.as_secs_f64()))),
        }
    }

    /// The length of the hold that has so many shorter ones, in seconds.
    fn length_at(&self, rank: u64) -> Option<f64> {
        let mut shorter = 0;
        let length = self.lengths.iter().find(|(_, count)| {
            shorter += **count;
            shorter > rank
        });
        length.map(|(nanos, _)| *nanos as f64 / 1e9)
    }
}

/// A length in nanoseconds, of which only the highest digits are kept.
fn rounded(length: Duration) -> u64 {
    let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    let dropped = (u64::BITS - nanos.leading_zeros()).saturating_sub(DIGITS);
    nanos >> dropped << dropped
}

impl LongHolds {
    fn keep_longest(&mut self) {
        self.listed.sort_by(|a, b| b.duration_s.total_cmp(&a.duration_s));
        self.listed.truncate(LISTED);
        self.listed.sort_by_key(|hold| hold.ticks.start);
    }
}

impl Hold {
    /// A hold that some tick of a stretch is the first to see.
    fn new(thread: ThreadIndex, handovers: u32, stretch: &Stretch, tick: usize) -> Self {
        let start = stretch.first + tick;
        Hold {
            thread,
            handovers,
            ticks: start..start,
            start: stretch.ticks[tick].at,
            last: (stretch.ticks[tick].at, 1),
            seen: Seen::default(),
            unread: Seen::default(),
            stacks: HashMap::new(),
        }
    }

    fn add(&mut self, stretch: &Stretch, span: &Range<usize>, stack: StackIndex, ticks: &GilTicks) {
        let unread = std::mem::take(&mut self.unread);
        self.seen.join(unread);
        self.seen.add(stretch, span, ticks);
        self.ticks.end = stretch.first + span.end;
        if let Some(last) = stretch.ticks[span.clone()].last() {
            self.last = (last.at, last.weight);
        }
        *self.stacks.entry(stack).or_default() += stretch.times.nanos(span);
    }

    /// From some moment to its last tick, and a period more: half of one before and half after, on the average.
    fn length(&self, from: Timestamp, period: Duration) -> Duration {
        let (last, weight) = self.last;
        Duration::from_nanos(last.as_nanos().saturating_sub(from.as_nanos())) + period * weight
    }

    fn into_long(self, length: Duration) -> LongHold {
        let most = self.stacks.into_iter().max_by_key(|&(stack, nanos)| (nanos, std::cmp::Reverse(stack)));
        LongHold {
            ticks: self.ticks,
            start: self.start,
            duration_s: length.as_secs_f64(),
            thread: self.thread,
            stalled: self.seen.stalled as f64 / self.seen.nanos.max(1) as f64,
            waiters_max: self.seen.waiters_max,
            inflicted_s: self.seen.inflicted as f64 / 1e9,
            stack: most.map_or(StackIndex::UNKNOWN, |(stack, _)| stack),
        }
    }
}

impl Seen {
    fn add(&mut self, stretch: &Stretch, span: &Range<usize>, ticks: &GilTicks) {
        for tick in span.clone() {
            let nanos = stretch.times.nanos(&(tick..tick + 1));
            let waiters = ticks.waiters(tick);
            let one = Seen {
                nanos,
                stalled: if ticks.is_stalled(tick) { nanos } else { 0 },
                inflicted: nanos.saturating_mul(u64::from(waiters)),
                waiters_max: waiters,
                waiting_since: (waiters > 0).then_some(stretch.ticks[tick].at),
            };
            self.join(one);
        }
    }

    /// Adds what came after.
    fn join(&mut self, after: Seen) {
        self.nanos = self.nanos.saturating_add(after.nanos);
        self.stalled = self.stalled.saturating_add(after.stalled);
        self.inflicted = self.inflicted.saturating_add(after.inflicted);
        self.waiters_max = self.waiters_max.max(after.waiters_max);
        self.waiting_since = self.waiting_since.or(after.waiting_since);
    }
}
