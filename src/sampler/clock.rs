//! When to look: one moment in each period, uniformly at random inside it, so that the ticks never beat
//! with the interpreter's own switch interval of 5 ms.

use std::time::Duration;

use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};

use crate::units::Timestamp;

/// The longest uninterrupted sleep, so that a request to stop is noticed soon.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// The lowest rate is one a second, or so.
const MAX_STRIDE: u64 = 1_000_000;

/// Turns of a busy wait between two looks at the request to stop.
const BUSY_TURNS: u32 = 64;

/// The clock of one recording. Its ticks are absolute moments: a late one delays none after it.
#[derive(Debug)]
pub struct Clock {
    start: Duration,
    period_ns: u64,
    next_period: u64,
    /// The first period whose tick neither came nor was missed.
    awaited: u64,
    /// Periods that make one tick.
    stride: u64,
    is_busy: bool,
    missed: u64,
    random: fastrand::Rng,
}

/// Why [`Clock::wait`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wakeup {
    /// It is time for a tick.
    Tick(Timestamp),
    /// It was asked to stop.
    Stopped,
}

impl Clock {
    /// A clock that starts now and ticks `rate_hz` times a second.
    pub fn start(rate_hz: u32) -> Self {
        // Sleeps are up to 50 µs too long otherwise (PR_SET_TIMERSLACK of prctl(2)); if not granted, so be it.
        let _ = set_timerslack(1);
        Clock {
            start: monotonic(),
            period_ns: 1_000_000_000 / u64::from(rate_hz.max(1)),
            next_period: 0,
            awaited: 0,
            stride: 1,
            is_busy: false,
            missed: 0,
            random: fastrand::Rng::new(),
        }
    }

    /// Waits without sleeping: being woken takes longer than the periods of high rates, but this uses a whole
    /// CPU.
    pub fn busy(mut self) -> Self {
        self.is_busy = true;
        self
    }

    /// From now on ticks so many times less often.
    pub fn slow_down(&mut self, divisor: u64) {
        self.stride = self.stride.saturating_mul(divisor.max(1)).min(MAX_STRIDE);
    }

    /// How many periods of the rate asked for one tick stands for.
    pub fn stride(&self) -> u32 {
        self.stride as u32
    }

    /// Time since the start.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_duration_since_start(monotonic().saturating_sub(self.start))
    }

    /// Ticks that were left out because it was too late for them.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The same where there is no tick any more until `end`: with those whose period is over by then, and without those
    /// that would have come later.
    pub fn missed_until(&self, end: Timestamp) -> u64 {
        let last = end.as_nanos() / self.period_ns;
        let over = last.saturating_sub(self.awaited) / self.stride;
        let beyond = self.awaited.saturating_sub(last + 1) / self.stride;
        (self.missed + over).saturating_sub(beyond)
    }

    /// Sleeps until the next tick is due, or `should_stop` says so.
    pub fn wait(&mut self, should_stop: impl Fn(Timestamp) -> bool) -> Wakeup {
        loop {
            let deadline = self.next_deadline();
            self.awaited = self.next_period - self.stride;
            if !self.sleep_until(deadline, &should_stop) {
                return Wakeup::Stopped;
            }
            self.awaited = self.next_period;
            let now = self.now();
            // Woken more than a period late: that tick is missed, not made up for.
            if now.as_nanos() - deadline <= self.period_ns * self.stride {
                return Wakeup::Tick(now);
            }
            self.missed += 1;
        }
    }

    /// A moment inside the next period (or as many as make a tick) that is not over yet; what is over is
    /// missed.
    fn next_deadline(&mut self) -> u64 {
        let length = self.period_ns * self.stride;
        loop {
            let now = self.now().as_nanos();
            let over = (now / self.period_ns).saturating_sub(self.next_period) / self.stride;
            self.missed += over;
            let period = self.next_period + over * self.stride;
            self.next_period = period + self.stride;
            let deadline = period * self.period_ns + self.random.u64(0..length.max(1));
            if deadline >= now {
                return deadline;
            }
            self.missed += 1;
        }
    }

    fn sleep_until(&self, deadline_ns: u64, should_stop: &impl Fn(Timestamp) -> bool) -> bool {
        loop {
            let now = self.now();
            if should_stop(now) {
                return false;
            }
            let now = now.as_nanos();
            if now >= deadline_ns {
                return true;
            }
            if self.is_busy {
                (0..BUSY_TURNS).for_each(|_| std::hint::spin_loop());
                continue;
            }
            let next = deadline_ns.min(now + LONGEST_SLEEP.as_nanos() as u64);
            let until = TimeSpec::from_duration(self.start + Duration::from_nanos(next));
            // An interrupted sleep is resumed by the loop.
            let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &until);
        }
    }
}

fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_missed_ticks_add_up_to_the_periods_gone_by() {
        let mut clock = Clock::start(2000);
        let mut ticks = Vec::new();
        for turn in 0..60 {
            if turn == 30 {
                std::thread::sleep(Duration::from_millis(7));
            }
            match clock.wait(|_| false) {
                Wakeup::Tick(at) => ticks.push(at),
                Wakeup::Stopped => unreachable!(),
            }
        }
        assert_eq!(60 + clock.missed(), clock.next_period);
        assert!(clock.missed() >= 12, "{} missed in a pause of 14 periods", clock.missed());
        assert!(ticks.is_sorted());
    }

    #[test]
    fn what_is_over_at_the_end_is_missed() {
        let mut clock = Clock::start(1000);
        let ticks = (0..20).filter(|_| matches!(clock.wait(|_| false), Wakeup::Tick(_))).count() as u64;
        std::thread::sleep(Duration::from_millis(7));
        let end = clock.now();
        assert_eq!(ticks + clock.missed_until(end), end.as_nanos() / 1_000_000);
        assert_eq!(clock.wait(|_| true), Wakeup::Stopped);
        let end = clock.now();
        // The tick of the period in which it is stopped may have been missed already.
        let periods = end.as_nanos() / 1_000_000;
        assert!((periods..=periods + 1).contains(&(ticks + clock.missed_until(end))));
        std::thread::sleep(Duration::from_millis(7));
        assert_eq!(clock.wait(|_| true), Wakeup::Stopped);
        assert!((periods..=periods + 1).contains(&(ticks + clock.missed_until(end))), "late for the end");
    }

    #[test]
    fn ticks_fall_anywhere_in_their_period() {
        let mut clock = Clock::start(1000);
        // The first period has begun already.
        clock.next_deadline();
        let deadlines: Vec<u64> = (0..400).map(|_| clock.next_deadline() % 1_000_000).collect();
        for quarter in 0..4 {
            let inside = deadlines.iter().filter(|place| **place / 250_000 == quarter).count();
            assert!(inside > 50, "{inside} of 400 in quarter {quarter}");
        }
    }

    #[test]
    fn a_slower_clock_ticks_once_in_as_many_periods() {
        let mut clock = Clock::start(1000);
        clock.slow_down(2);
        clock.slow_down(5);
        assert_eq!(clock.stride(), 10);
        clock.next_deadline();
        let periods: Vec<u64> = (0..50).map(|_| clock.next_deadline() / 1_000_000).collect();
        assert!(periods.windows(2).all(|pair| pair[0] / 10 + 1 == pair[1] / 10), "{periods:?}");
    }

    #[test]
    fn a_busy_clock_keeps_the_same_grid() {
        let mut clock = Clock::start(20_000).busy();
        let ticks = (0..200).filter(|_| matches!(clock.wait(|_| false), Wakeup::Tick(_))).count() as u64;
        assert_eq!(ticks + clock.missed(), clock.next_period);
    }

    #[test]
    fn a_request_to_stop_ends_the_wait() {
        let mut clock = Clock::start(1);
        assert_eq!(clock.wait(|_| true), Wakeup::Stopped);
    }
}
