//! The picture's body: blocks, one below the other, each in its own coordinates, so that the script can hide one and
//! move the others up.

use anyhow::Result;

use super::super::svg::{Svg, number};

/// Blocks that have been drawn.
pub(super) struct Page {
    svg: Svg<Vec<u8>>,
    top: f64,
}

impl Page {
    pub(super) fn new() -> Self {
        Page { svg: Svg::new(Vec::new()), top: 0.0 }
    }

    /// Draws a block of that height below the last one; its own top is at 0.
    pub(super) fn block(
        &mut self,
        class: &str,
        attributes: &[(&str, &str)],
        height: f64,
        draw: impl FnOnce(&mut Svg<Vec<u8>>) -> Result<()>,
    ) -> Result<()> {
        let (place, height_text) = (format!("translate(0 {})", number(self.top)), number(height));
        let mut all = vec![("class", class), ("data-height", height_text.as_str()), ("transform", &place)];
        all.extend_from_slice(attributes);
        self.svg.open("g", &all)?;
        draw(&mut self.svg)?;
        self.svg.close("g")?;
        self.top += height;
        Ok(())
    }

    /// Where the next block begins.
    pub(super) fn top(&self) -> f64 {
        self.top
    }

    /// What was drawn, and how high it is.
    pub(super) fn finish(self) -> (Vec<u8>, f64) {
        (self.svg.into_inner(), self.top)
    }
}
