//! Colours of flame graphs: Paul Tol's "light" scheme, made for cells with dark text in them, in which colour-blind
//! eyes tell these apart. Shades of a colour tell neighbours apart, and stay with a name.

use std::io::Write;

use anyhow::Result;

use crate::render::stacks::Kind;
use crate::render::svg::Svg;

/// Fill of what could not be read.
const UNKNOWN: &str = "url(#unknown)";

/// Shades of each kind, on a light page; the first is the legend's.
const OWN: [&str; 4] = ["#EE8866", "#F19A7C", "#E9795A", "#F4AB91"];
const PACKAGE: [&str; 4] = ["#77AADD", "#8BB7E2", "#679ED5", "#9DC3E8"];
const LIBRARY: [&str; 4] = ["#EEDD88", "#F2E49F", "#E6D374", "#F5EAB3"];
const ROOT: [&str; 1] = ["#CBD2D9"];

/// What a kind is called in the legend; `None` where it needs no word.
pub(super) fn words(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Own => Some("own code"),
        Kind::Package => Some("site-packages"),
        Kind::Library => Some("standard library"),
        Kind::Root => None,
        Kind::Unknown => Some("could not be read"),
    }
}

/// The fill of something of that kind and name.
pub(super) fn fill(kind: Kind, name: &str) -> &'static str {
    let shades = match kind {
        Kind::Own => OWN.as_slice(),
        Kind::Package => &PACKAGE,
        Kind::Library => &LIBRARY,
        Kind::Root => &ROOT,
        Kind::Unknown => return UNKNOWN,
    };
    shades[(hash(name) % shades.len() as u64) as usize]
}

/// The fill of a kind in the legend.
pub(super) fn swatch(kind: Kind) -> &'static str {
    match kind {
        Kind::Own => OWN[0],
        Kind::Package => PACKAGE[0],
        Kind::Library => LIBRARY[0],
        Kind::Root => ROOT[0],
        Kind::Unknown => UNKNOWN,
    }
}

/// FNV-1a: the same on every machine, so that pictures of the same code can be laid side by side.
fn hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// The hatching that `UNKNOWN` refers to.
pub(super) fn define_hatching<W: Write>(svg: &mut Svg<W>) -> Result<()> {
    svg.open(
        "pattern",
        &[
            ("id", "unknown"),
            ("width", "6"),
            ("height", "6"),
            ("patternUnits", "userSpaceOnUse"),
            ("patternTransform", "rotate(45)"),
        ],
    )?;
    svg.rect([0.0, 0.0, 6.0, 6.0], &[("fill", "#F5F7FA")])?;
    svg.rect([0.0, 0.0, 1.5, 6.0], &[("fill", "#B8C1CC")])?;
    svg.close("pattern")
}
