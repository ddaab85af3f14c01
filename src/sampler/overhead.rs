//! Keeps gilspy's own use of the CPU below a limit, by looking less often.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// How often it is measured.
const SPAN: Duration = Duration::from_secs(1);

/// The rate aims a little below the limit, so that one step is enough.
const MARGIN: f64 = 0.9;

/// How long gilspy gets to know the program: it reads more then than it does later.
const START: Duration = Duration::from_secs(1);

/// Measures gilspy's own use of the CPU.
#[derive(Debug)]
pub struct Overhead {
    limit: f64,
    measured_at: Duration,
    cpu: Duration,
}

/// That gilspy has used more than it may.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exceeded {
    /// What it used, as a share of one CPU.
    pub used: f64,
    /// By how much the rate has to be divided.
    pub divisor: u64,
}

impl Overhead {
    /// With a limit, as a share of one CPU.
    pub fn new(limit: f64) -> Self {
        Overhead { limit, measured_at: Duration::ZERO, cpu: own_cpu() }
    }

    /// Measures anew from now on.
    pub fn restart(&mut self, now: Duration) {
        (self.measured_at, self.cpu) = (now, own_cpu());
    }

    /// To be called now and then with the time since the start: answers once a second, if more than the
    /// limit was used since the last time. The first second is not counted.
    pub fn check(&mut self, now: Duration) -> Option<Exceeded> {
        let span = now.saturating_sub(self.measured_at);
        if span < SPAN {
            return None;
        }
        let cpu = own_cpu();
        let since = self.measured_at;
        let used = cpu.saturating_sub(self.cpu).as_secs_f64() / span.as_secs_f64();
        (self.measured_at, self.cpu) = (now, cpu);
        if since < START { None } else { exceeded(used, self.limit) }
    }
}

fn exceeded(used: f64, limit: f64) -> Option<Exceeded> {
    (used > limit).then(|| Exceeded { used, divisor: (used / (limit * MARGIN)).ceil() as u64 })
}

/// CPU time that gilspy has used since it was started.
pub fn own_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_divided_until_the_use_fits() {
        assert_eq!(exceeded(0.05, 0.05), None);
        for used in [0.051, 0.08, 0.5, 1.0] {
            let Some(exceeded) = exceeded(used, 0.05) else { panic!("{used} is more") };
            assert!(exceeded.divisor >= 2 && used / exceeded.divisor as f64 <= 0.05, "{exceeded:?}");
        }
    }

    #[test]
    fn it_is_measured_once_a_second() {
        let mut overhead = Overhead::new(0.0);
        assert_eq!(overhead.check(Duration::from_secs(1)), None, "the first second is not counted");
        assert_eq!(overhead.check(Duration::from_millis(1999)), None);
        assert!(overhead.check(Duration::from_secs(2)).is_some());
    }
}
