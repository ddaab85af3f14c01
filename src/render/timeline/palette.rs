//! Colours that colour-blind eyes tell apart: Paul Tol's "bright" and "muted" schemes, in an order in which
//! neighbours differ in lightness too.

use std::io::Write;

use anyhow::Result;

use crate::render::svg::Svg;

/// Colours of the threads that held the GIL most; the others share [`OTHERS`].
const THREADS: [&str; 9] =
    ["#4477AA", "#CC6677", "#117733", "#DDAA33", "#882255", "#44AA99", "#AA4499", "#999933", "#88CCEE"];

/// The colour of all threads beyond those.
const OTHERS: &str = "#7B8794";

/// Fill of what could not be read.
pub(super) const UNKNOWN: &str = "url(#unknown)";

/// Fill of moments at which nobody looked.
pub(super) const NOT_SEEN: &str = "url(#not-seen)";

/// The colour of the thread that comes `rank`-th, from 0.
pub(super) fn thread(rank: usize) -> &'static str {
    THREADS.get(rank).copied().unwrap_or(OTHERS)
}

/// The hatchings, to be referred to by [`UNKNOWN`] and [`NOT_SEEN`].
pub(super) fn define_patterns<W: Write>(svg: &mut Svg<W>) -> Result<()> {
    svg.open("defs", &[])?;
    hatch(svg, "unknown", "45", "#FFFFFF", "#52606D")?;
    hatch(svg, "not-seen", "-45", "#F5F7FA", "#CBD2D9")?;
    svg.close("defs")
}

fn hatch<W: Write>(svg: &mut Svg<W>, id: &str, angle: &str, ground: &str, line: &str) -> Result<()> {
    svg.open(
        "pattern",
        &[
            ("id", id),
            ("width", "4"),
            ("height", "4"),
            ("patternUnits", "userSpaceOnUse"),
            ("patternTransform", &format!("rotate({angle})")),
        ],
    )?;
    svg.rect([0.0, 0.0, 4.0, 4.0], &[("fill", ground)])?;
    svg.rect([0.0, 0.0, 1.2, 4.0], &[("fill", line)])?;
    svg.close("pattern")
}
