//! Paths of boxes: how much of something each column of time holds, as one path, crisp at every zoom.

use std::fmt::Write as _;

use super::super::svg::number;
use super::LEFT;

/// Heights are multiples of such a part of a pixel, so that columns that look the same are one box.
const GRAIN: f64 = 0.5;

/// A column's boxes, stacked: where the next one starts.
pub(super) struct Stacked {
    top: f64,
    height: f64,
    /// What is taken already, in grains.
    below: Vec<u32>,
}

impl Stacked {
    /// Nothing in any column of a lane from `top` down to `top + height`.
    pub(super) fn new(top: f64, height: f64, columns: usize) -> Self {
        Stacked { top, height, below: vec![0; columns] }
    }

    /// Puts shares of the height, one a column, on top of what is there; empty where there is nothing to see.
    pub(super) fn add(&mut self, shares: &[f64]) -> String {
        let most = self.grains(1.0);
        let heights: Vec<u32> = (shares.iter().zip(&self.below))
            .map(|(share, below)| self.grains(*share).min(most.saturating_sub(*below)))
            .collect();
        let mut path = String::new();
        let mut start = 0;
        while start < heights.len() {
            let same =
                |place: &usize| (heights[*place], self.below[*place]) == (heights[start], self.below[start]);
            let end = (start..heights.len()).find(|place| !same(place)).unwrap_or(heights.len());
            if heights[start] > 0 {
                let bottom = self.top + self.height - f64::from(self.below[start]) * GRAIN;
                push(&mut path, (start, end), bottom, f64::from(heights[start]) * GRAIN);
            }
            start = end;
        }
        for (below, height) in self.below.iter_mut().zip(&heights) {
            *below += height;
        }
        path
    }

    /// What can be seen at all is at least a grain high.
    fn grains(&self, share: f64) -> u32 {
        let grains = (share * self.height / GRAIN).clamp(0.0, self.height / GRAIN);
        if share > 0.001 { grains.round().max(1.0) as u32 } else { 0 }
    }
}

fn push(path: &mut String, (start, end): (usize, usize), bottom: f64, height: f64) {
    let (x, y, width, height) = (LEFT + start as f64, number(bottom), end - start, number(height));
    // Writing to a string cannot fail.
    let _ = write!(path, "M{x} {y}h{width}v-{height}h-{width}z");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_look_the_same_are_one_box() {
        let mut lane = Stacked::new(0.0, 20.0, 5);
        assert_eq!(lane.add(&[0.5, 0.501, 0.0, 1.0, 1.0]), "M206 20h2v-10h-2zM209 20h2v-20h-2z");
        assert_eq!(lane.add(&[0.5, 0.5, 0.0, 1.0, 0.0]), "M206 10h2v-10h-2z");
    }

    #[test]
    fn what_is_little_can_be_seen_still() {
        assert_eq!(Stacked::new(0.0, 20.0, 1).add(&[0.002]), "M206 20h1v-0.5h-1z");
        assert_eq!(Stacked::new(0.0, 20.0, 1).add(&[0.0]), "");
    }
}
