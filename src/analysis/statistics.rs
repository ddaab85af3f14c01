//! Means of what successive ticks saw, and how sure they are.
//!
//! Successive ticks see much the same, so that they say less than as many independent ones would. The method of
//! batch means takes the means of long stretches instead, which are nearly independent (Law and Kelton, Simulation
//! Modeling and Analysis, 9.5.3). If neighbours are still alike, they are put together.

use serde::Serialize;

/// Batches at first, and at least.
pub(super) const MOST_BATCHES: usize = 64;
const FEWEST_BATCHES: usize = 8;

/// Neighbouring batches that are more alike than this are put together.
const ALIKE: f64 = 0.15;

/// A mean and how sure it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    #[serde(rename = "value")]
    pub mean: f64,
    /// Half the width of its 95 % confidence interval; `None` where there were too few ticks to tell.
    pub ci95: Option<f64>,
}

/// Takes the mean of what ticks saw, in one pass.
#[derive(Debug)]
pub(super) struct BatchMeans {
    ticks: usize,
    seen: usize,
    /// Sum of the weights and of the weighted values of each batch.
    batches: Vec<(f64, f64)>,
}

impl BatchMeans {
    /// Of so many ticks.
    pub(super) fn new(ticks: usize) -> Self {
        BatchMeans { ticks, seen: 0, batches: vec![(0.0, 0.0); MOST_BATCHES] }
    }

    /// Of batches that were added up elsewhere, each with its weight and its weighted value, from so many ticks.
    pub(super) fn of_batches(batches: Vec<(f64, f64)>, ticks: usize) -> Self {
        BatchMeans { ticks, seen: ticks, batches }
    }

    /// Adds what the next tick saw; it counts as often as its weight.
    pub(super) fn add(&mut self, value: f64, weight: f64) {
        let place = self.seen * MOST_BATCHES / self.ticks.max(1);
        let (weights, values) = &mut self.batches[place.min(MOST_BATCHES - 1)];
        *weights += weight;
        *values += weight * value;
        self.seen += 1;
    }

    /// The mean of all.
    pub(super) fn estimate(&self) -> Estimate {
        let total: f64 = self.batches.iter().map(|(weights, _)| weights).sum();
        if total <= 0.0 {
            return Estimate::default();
        }
        let mean = self.batches.iter().map(|(_, values)| values).sum::<f64>() / total;
        if self.seen < 4 * MOST_BATCHES {
            return Estimate { mean, ci95: None };
        }
        let mut batches = self.batches.clone();
        while batches.len() / 2 >= FEWEST_BATCHES && correlation(&means(&batches)) > ALIKE {
            batches = batches
                .chunks(2)
                .map(|pair| pair.iter().fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1)))
                .collect();
        }
        let means = means(&batches);
        let count = means.len() as f64;
        let variance = means.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        // What was never seen in n ticks may still take 3/n of the time (the rule of three).
        let least = 3.0 / self.seen as f64;
        Estimate { mean, ci95: Some((t_quantile(means.len() - 1) * (variance / count).sqrt()).max(least)) }
    }
}

fn means(batches: &[(f64, f64)]) -> Vec<f64> {
    batches.iter().filter(|(weights, _)| *weights > 0.0).map(|(weights, values)| values / weights).collect()
}

/// How much each value is like the one before, from -1 to 1.
fn correlation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let variance: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let product: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    if variance > 0.0 { product / variance } else { 0.0 }
}

/// The 97.5 % quantile of Student's t distribution (Abramowitz and Stegun, 26.7.5).
fn t_quantile(degrees: usize) -> f64 {
    let (z, n) = (1.959_964_f64, degrees.max(1) as f64);
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + first / n + second / n.powi(2) + third / n.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of 1 and of 0, whose lengths are exponential or always the same; the interval's verdict on the share.
    fn covers(random: &mut fastrand::Rng, ticks: usize, on: f64, off: f64, is_fixed: bool) -> bool {
        let mut means = BatchMeans::new(ticks);
        let mut length = |mean: f64| if is_fixed { mean } else { -mean * (1.0 - random.f64()).ln() };
        let (mut value, mut left) = (1.0, length(on));
        // Start somewhere within a run.
        left *= 0.37;
        for _ in 0..ticks {
            while left < 1.0 {
                value = 1.0 - value;
                left += length(if value > 0.5 { on } else { off });
            }
            left -= 1.0;
            means.add(value, 1.0);
        }
        let estimate = means.estimate();
        (estimate.mean - on / (on + off)).abs() <= estimate.ci95.unwrap()
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let mut random = fastrand::Rng::with_seed(7);
        for (ticks, on, off) in [
            (1000, 5.0, 5.0),
            (5000, 5.0, 5.0),
            (5000, 3.0, 27.0),
            (10_000, 50.0, 150.0),
            (10_000, 300.0, 100.0),
        ] {
            let covered = (0..400).filter(|_| covers(&mut random, ticks, on, off, false)).count();
            let share = covered as f64 / 400.0;
            assert!((0.89..=1.0).contains(&share), "{ticks} {on} {off}: {share}");
        }
    }

    #[test]
    fn what_never_varies_is_not_known_for_certain() {
        let mut means = BatchMeans::new(3000);
        (0..3000).for_each(|_| means.add(1.0, 1.0));
        assert_eq!(means.estimate(), Estimate { mean: 1.0, ci95: Some(0.001) });
    }

    #[test]
    fn few_ticks_tell_no_interval() {
        let mut means = BatchMeans::new(3);
        (0..3).for_each(|place| means.add(f64::from(place), 2.0));
        assert_eq!(means.estimate(), Estimate { mean: 1.0, ci95: None });
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (degrees, quantile) in [(7, 2.365), (15, 2.131), (63, 1.998)] {
            assert!((t_quantile(degrees) - quantile).abs() < 0.003, "{degrees}");
        }
    }
}
