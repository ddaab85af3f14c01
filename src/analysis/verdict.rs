//! What limits a process, in one sentence, with the figures that say so.

use std::collections::HashMap;

use serde::Serialize;

use super::gil::Uncertain;
use super::thresholds::{
    IDLE, MOST, MOSTLY_HELD, NATIVE_THREADS, SECOND_CAUSE, STARVED, WAITING_MATTERS, WAITING_MATTERS_SHARE,
};
use super::waiting::{self, Causes};
use super::{BatchMeans, Blame, Estimate, GilAnalysis, Waiting};
use crate::recording::{Frame, Recording, StackIndex, Stretch, Syscall, ThreadState};
use crate::text::seconds;

/// What limits a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Python code takes turns with the GIL.
    GilBound,
    /// C code does not release it.
    GilHogged,
    /// A holder is blocked in system calls.
    GilStalled,
    /// A holder has no CPU.
    CpuStarved,
    /// Threads run without the GIL.
    NativeBound,
    /// Threads are blocked mostly, and the GIL is mostly free.
    IoBound,
    /// One thread at a time wants the GIL.
    SingleThread,
    /// Hardly anything runs.
    Idle,
    /// There is no GIL.
    FreeThreaded,
}

/// What limits a process, why that is thought, and what to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// In a word.
    pub kind: Kind,
    /// In a sentence, with its figures. Names in it are the target's.
    pub summary: String,
    /// What to do about it.
    pub advice: Vec<String>,
    /// The figures that made it.
    pub figures: Vec<Figure>,
    /// What matters too, where the waiting has two causes.
    pub second: Option<Box<Verdict>>,
}

/// A figure of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// How much, with half the width of its 95 % confidence interval.
    #[serde(flatten)]
    pub estimate: Estimate,
}

impl Kind {
    /// Its name, as in the JSON report.
    pub fn name(self) -> &'static str {
        match self {
            Kind::GilBound => "gil-bound",
            Kind::GilHogged => "gil-hogged",
            Kind::GilStalled => "gil-stalled",
            Kind::CpuStarved => "cpu-starved",
            Kind::NativeBound => "native-bound",
            Kind::IoBound => "io-bound",
            Kind::SingleThread => "single-thread",
            Kind::Idle => "idle",
            Kind::FreeThreaded => "free-threaded",
        }
    }
}

/// What the verdict is made from: the GIL with the most waiting, and the process's threads.
struct Evidence<'a> {
    recording: &'a Recording,
    gil: &'a GilAnalysis,
    waiting: &'a Waiting,
    uncertain: Uncertain,
    /// How many threads ran without a GIL at a time, on the average.
    native: Estimate,
    /// How many ran Python without a GIL.
    parallel: Estimate,
    /// How many were blocked.
    blocked: Estimate,
    /// For how long threads did what with each stack, in nanoseconds.
    nanos: HashMap<(ThreadState, StackIndex), u64>,
}

/// What threads do that neither have a GIL nor wait for it, stretch by stretch.
pub(super) struct Doing {
    native: BatchMeans,
    parallel: BatchMeans,
    blocked: BatchMeans,
    nanos: HashMap<(ThreadState, StackIndex), u64>,
}

impl Doing {
    pub(super) fn new(recording: &Recording) -> Self {
        let means = || BatchMeans::new(recording.ticks);
        Doing { native: means(), parallel: means(), blocked: means(), nanos: HashMap::new() }
    }

    /// How many threads ran Python without a GIL at a time.
    pub(super) fn parallel(&self) -> Estimate {
        self.parallel.estimate()
    }

    /// Adds what a stretch saw.
    pub(super) fn add(&mut self, stretch: &Stretch) {
        for (means, does_so) in [
            (&mut self.native, (|state| state == ThreadState::Native) as fn(ThreadState) -> bool),
            (&mut self.parallel, |state| state == ThreadState::Parallel),
            (&mut self.blocked, |state| matches!(state, ThreadState::Blocked(_))),
        ] {
            let threads = waiting::how_many(stretch.ticks.len(), stretch.threads.iter(), does_so);
            for (tick, threads) in threads.into_iter().enumerate() {
                means.add(f64::from(threads), stretch.times.of_tick(tick));
            }
        }
        for (ticks, run) in stretch.threads.iter().flat_map(|track| track.runs.iter()) {
            if matches!(run.state, ThreadState::Native | ThreadState::Parallel | ThreadState::Blocked(_)) {
                *self.nanos.entry((run.state, run.stack)).or_default() += stretch.times.nanos(&ticks);
            }
        }
    }
}

/// The verdict on a recording of all threads that has ticks.
pub(super) fn of(
    recording: &Recording,
    gils: &[GilAnalysis],
    uncertain: &[Uncertain],
    doing: Doing,
) -> Verdict {
    let nothing = Waiting::default();
    let waited = |gil: &GilAnalysis| gil.waiting.as_ref().map_or(0.0, |waiting| waiting.causes.total_s());
    let busiest = (gils.iter().zip(uncertain))
        .max_by(|(a, _), (b, _)| waited(a).total_cmp(&waited(b)).then(a.held.mean.total_cmp(&b.held.mean)));
    let (gil, uncertain) = match busiest {
        Some(busiest) => busiest,
        None => return Verdict::new(Kind::Idle, "there is no interpreter to look at.".to_owned(), &[]),
    };
    let evidence = Evidence {
        recording,
        gil,
        waiting: gil.waiting.as_ref().unwrap_or(&nothing),
        uncertain: *uncertain,
        native: doing.native.estimate(),
        parallel: doing.parallel.estimate(),
        blocked: doing.blocked.estimate(),
        nanos: doing.nanos,
    };
    if recording.gils.iter().all(|gil| !gil.enabled) {
        return evidence.free_threaded();
    }
    if evidence.waiting_matters() { evidence.why_they_wait() } else { evidence.where_time_goes() }
}

impl Verdict {
    fn new(kind: Kind, summary: String, advice: &[String]) -> Self {
        Verdict { kind, summary, advice: advice.to_vec(), figures: Vec::new(), second: None }
    }

    fn with(mut self, figures: impl IntoIterator<Item = (&'static str, Estimate)>) -> Self {
        self.figures.extend(figures.into_iter().map(|(name, estimate)| Figure { name, estimate }));
        self
    }
}

impl Evidence<'_> {
    fn waiting_matters(&self) -> bool {
        let waiters = self.waiting.waiters.mean;
        let wanted = self.gil.held.mean + self.native.mean + waiters;
        waiters >= WAITING_MATTERS && waiters >= WAITING_MATTERS_SHARE * wanted
    }

    /// The cause of most of the waiting, and the second one if it is large.
    fn why_they_wait(&self) -> Verdict {
        let causes = self.waiting.causes;
        // What is lost while the GIL changes hands goes with ordinary sharing.
        let mut shares = [
            (Kind::GilBound, causes.shared_s + causes.between_s),
            (Kind::GilHogged, causes.hogged_s),
            (Kind::GilStalled, causes.stalled_s),
            (Kind::CpuStarved, causes.starved_s),
        ];
        shares.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let total = causes.total_s().max(f64::MIN_POSITIVE);
        let [(first, most), (second, next), ..] = shares;
        let mut verdict = self.cause(first, most / total);
        if next / total >= SECOND_CAUSE {
            verdict.second = Some(Box::new(self.cause(second, next / total)));
        }
        verdict
    }

    fn cause(&self, kind: Kind, share: f64) -> Verdict {
        let of_waiting = percent(share);
        let (summary, advice) = match kind {
            Kind::GilHogged => self.hogged(&of_waiting),
            Kind::GilStalled => self.stalled(&of_waiting),
            Kind::CpuStarved => (
                format!(
                    "{of_waiting} of all waiting is for a holder that is ready to run but has no CPU{}.",
                    self.throttling()
                ),
                self.more_cpu(),
            ),
            _ => (
                format!("{of_waiting} of all waiting is for Python code that runs and gives way when asked."),
                format!(
                    "processes, subinterpreters or a free-threaded build{}.",
                    self.most_held(" for code such as ")
                ),
            ),
        };
        let mut figures = vec![
            ("held", self.gil.held),
            ("waiters_mean", self.waiting.waiters),
            ("share_of_waiting", Estimate { mean: share, ci95: self.uncertainty(kind) }),
        ];
        if kind == Kind::GilHogged {
            let longest = self.waiting.long_holds.iter().map(|hold| hold.duration_s).fold(0.0, f64::max);
            figures.push(("long_holds", exact(self.waiting.long_hold_count as f64)));
            let period_s = 1.0 / f64::from(self.recording.rate_hz.max(1));
            figures.push(("longest_hold_s", Estimate { mean: longest, ci95: Some(period_s) }));
        }
        if kind == Kind::CpuStarved {
            figures.push(("starved_s", exact(self.waiting.starved_s)));
        }
        Verdict::new(kind, summary, &[advice]).with(figures)
    }

    fn hogged(&self, of_waiting: &str) -> (String, String) {
        let count = self.waiting.long_hold_count;
        let longest = self.waiting.long_holds.iter().map(|hold| hold.duration_s).fold(0.0, f64::max);
        let holds = format!("{count} long hold{}, longest {}", plural(count), seconds(longest));
        match self.most_to_blame(|causes| causes.hogged_s) {
            Some((frame, share, _)) if share >= MOST => (
                format!(
                    "{of_waiting} of all waiting is for calls that do not release the GIL, {} of that for {} \
                     ({holds}).",
                    percent(share),
                    frame.place()
                ),
                format!("move {} to a process, or use a build of it that releases the GIL.", frame.function),
            ),
            _ => (
                format!("{of_waiting} of all waiting is for calls that do not release the GIL ({holds})."),
                "move the calls of the long holds to a process, or have them release the GIL.".to_owned(),
            ),
        }
    }

    fn stalled(&self, of_waiting: &str) -> (String, String) {
        let waiting = format!("{of_waiting} of all waiting is for a holder that is blocked");
        let Some((frame, share, syscall)) = self.most_to_blame(|causes| causes.stalled_s) else {
            return (waiting + ".", "release the GIL around the calls that block.".to_owned());
        };
        let call = syscall.map_or_else(String::new, |syscall| format!(" in {}", syscall.name()));
        (
            format!(
                "{waiting} while it holds the GIL, {} of that{call} below {}.",
                percent(share),
                frame.place()
            ),
            format!("have {} release the GIL around that call, or move it to a process.", frame.function),
        )
    }

    /// The innermost frame behind which there was most waiting of one cause, and its share of that.
    fn most_to_blame(&self, of: impl Fn(&Causes) -> f64) -> Option<(&Frame, f64, Option<Syscall>)> {
        let mut frames = HashMap::<&Frame, (f64, Option<Syscall>)>::new();
        let mut total = 0.0;
        // In order, so that sums of fractions are the same each time.
        let mut blames: Vec<(&StackIndex, &Blame)> = self.waiting.blame.iter().collect();
        blames.sort_by_key(|(stack, _)| **stack);
        for (stack, blame) in blames {
            total += of(&blame.inflicted);
            if let Some(frame) = self.innermost(*stack) {
                let entry = frames.entry(frame).or_default();
                entry.0 += of(&blame.inflicted);
                entry.1 = entry.1.max(blame.syscall);
            }
        }
        let most = frames.into_iter().max_by(|(a, (x, _)), (b, (y, _))| {
            x.total_cmp(y).then_with(|| (&b.function, b.line).cmp(&(&a.function, a.line)))
        });
        most.filter(|_| total > 0.0).map(|(frame, (seconds, syscall))| (frame, seconds / total, syscall))
    }

    /// The code that held the GIL most.
    fn most_held(&self, before: &str) -> String {
        let frame = self.gil.top_holders.first().and_then(|top| top.frame.as_ref());
        frame.map_or_else(String::new, |frame| format!("{before}{}", frame.place()))
    }

    fn innermost(&self, stack: StackIndex) -> Option<&Frame> {
        self.recording.stacks.frames(stack)?.next()
    }

    /// Half the width of the confidence interval of a cause's share of the waiting, the waiting as a whole taken as
    /// it is.
    fn uncertainty(&self, kind: Kind) -> Option<f64> {
        let waiters = match kind {
            Kind::GilHogged => self.uncertain.hogged,
            Kind::GilStalled => self.uncertain.stalled,
            Kind::CpuStarved => self.uncertain.starved,
            _ => self.uncertain.shared,
        };
        let width = waiters.ci95? / self.waiting.waiters.mean.max(f64::MIN_POSITIVE);
        Some(width.min(1.0))
    }

    /// For how much of the time that a thread held the GIL it had no CPU.
    fn starved(&self) -> Estimate {
        let starved = self.uncertain.without_cpu;
        let of_held = |share: f64| match self.gil.held.mean {
            held if held > 0.0 => (share / held).min(1.0),
            _ => 0.0,
        };
        Estimate { mean: of_held(starved.mean), ci95: starved.ci95.map(of_held) }
    }

    /// What a process does in which hardly anybody waits for the GIL.
    fn where_time_goes(&self) -> Verdict {
        let held = self.gil.held;
        let starved = self.starved();
        let waits = match self.waiting.waiters.mean {
            few if few < 0.05 => "hardly anybody waits for it".to_owned(),
            waiters => format!("{waiters:.1} threads wait for it"),
        };
        let figures = [
            ("held", held),
            ("waiters_mean", self.waiting.waiters),
            ("native_mean", self.native),
            ("blocked_mean", self.blocked),
        ];
        let (kind, summary, advice) = match () {
            () if held.mean >= IDLE && starved.mean >= STARVED => (
                Kind::CpuStarved,
                format!(
                    "the holder of the GIL is ready to run but has no CPU for {} of that time{}.",
                    percent(starved.mean),
                    self.throttling()
                ),
                self.more_cpu(),
            ),
            () if self.native.mean >= NATIVE_THREADS && self.native.mean > held.mean => (
                Kind::NativeBound,
                format!(
                    "{} at a time run C code that has released the GIL, which is held {} of the time.",
                    count(self.native.mean),
                    percent(held.mean)
                ),
                format!("more threads and CPUs: this scales.{}", self.runs_in(ThreadState::Native)),
            ),
            () if held.mean >= MOSTLY_HELD => (
                Kind::SingleThread,
                format!(
                    "the GIL is held {} of the time and {waits}: it is not what limits this process.",
                    percent(held.mean)
                ),
                format!("the flame graph says what holds it{}.", self.most_held(", such as ")),
            ),
            () if held.mean + self.native.mean < IDLE => (
                Kind::Idle,
                format!("hardly anything runs: the GIL is held {} of the time.", percent(held.mean)),
                format!("whoever should give this process work. Its threads wait{}.", self.blocked_in()),
            ),
            () => (
                Kind::IoBound,
                format!(
                    "threads are mostly blocked and the GIL mostly free: held {} of the time, {waits}.",
                    percent(held.mean)
                ),
                format!("what threads wait for{}; the GIL is no problem here.", self.blocked_in()),
            ),
        };
        let verdict = Verdict::new(kind, summary, &[advice]).with([("starved", starved)]);
        verdict.with(figures)
    }

    fn free_threaded(&self) -> Verdict {
        Verdict::new(
            Kind::FreeThreaded,
            format!("there is no GIL: {} run Python at a time.", count(self.parallel.mean)),
            &[format!("more threads, as far as there are CPUs.{}", self.runs_in(ThreadState::Parallel))],
        )
        .with([("parallel_mean", self.parallel), ("native_mean", self.native)])
    }

    /// What the cgroup's quota did, if it did anything.
    fn throttling(&self) -> String {
        let throttled = self.recording.throttling.filter(|it| it.throttled_periods > 0);
        throttled.map_or_else(String::new, |it| {
            let quota = it.quota_cpus.map_or_else(String::new, |cpus| format!(" of {cpus:.2} CPUs"));
            format!(", held back by its cgroup's quota{quota} for {}", seconds(it.throttled.as_secs_f64()))
        })
    }

    fn more_cpu(&self) -> String {
        let code = self.most_held(" for code such as ");
        match self.recording.throttling.is_some_and(|it| it.throttled_periods > 0) {
            true => format!("a higher CPU quota for its cgroup (the container's CPU limit){code}."),
            false => format!("more CPU{code}: others compete with this process for it."),
        }
    }

    /// The innermost frame and the system call in which threads spent most of their time in some states.
    fn most_in(&self, is_meant: impl Fn(ThreadState) -> bool) -> Option<(&Frame, Option<Syscall>)> {
        let mut nanos = HashMap::<(&Frame, Option<Syscall>), u64>::new();
        for (&(state, stack), &more) in self.nanos.iter().filter(|((state, _), _)| is_meant(*state)) {
            if let Some(frame) = self.innermost(stack) {
                let syscall = match state {
                    ThreadState::Blocked(syscall) => syscall,
                    _ => None,
                };
                *nanos.entry((frame, syscall)).or_default() += more;
            }
        }
        let place = |frame: &Frame| (frame.file.clone(), frame.line, frame.function.clone());
        let most = nanos
            .into_iter()
            .max_by_key(|((frame, syscall), nanos)| (*nanos, std::cmp::Reverse((place(frame), *syscall))));
        most.map(|(frame, _)| frame)
    }

    /// What threads are blocked in most: `, most of all in recvfrom below serve at echo.py:12`.
    fn blocked_in(&self) -> String {
        let most = self.most_in(|state| matches!(state, ThreadState::Blocked(_)));
        most.map_or_else(String::new, |(frame, syscall)| match syscall {
            Some(syscall) => format!(", most of all in {} below {}", syscall.name(), frame.place()),
            None => format!(", most of all below {}", frame.place()),
        })
    }

    /// Where threads run most that do so without the GIL.
    fn runs_in(&self, state: ThreadState) -> String {
        let most = self.most_in(|other| other == state);
        most.map_or_else(String::new, |(frame, _)| format!(" It runs mostly in {}.", frame.place()))
    }
}

/// Counted, by the ticks or by the kernel.
fn exact(mean: f64) -> Estimate {
    Estimate { mean, ci95: Some(0.0) }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn count(threads: f64) -> String {
    format!("{threads:.1} threads")
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
