//! Colours, textures and what they mean. States have the colours of Okabe and Ito, threads those of Paul Tol's "bright"
//! and "muted" schemes: colour-blind eyes tell them apart. Every state but those in which Python runs has a texture
//! besides, and a place in its lane: what runs stands below, what waits on top of it.

use std::io::Write;

use anyhow::Result;

use super::super::svg::{Anchor, Svg, TextStyle};
use super::page::Page;
use super::section::Section;
use super::{MARGIN, WIDTH};
use crate::analysis::STATES;

/// Colours of the threads that come first, light and dark; all further ones share the last.
const THREADS: [(&str, &str); 10] = [
    ("#4477AA", "#6699CC"),
    ("#CC6677", "#DD7788"),
    ("#117733", "#3FA763"),
    ("#DDAA33", "#DDAA33"),
    ("#882255", "#BB5588"),
    ("#44AA99", "#44AA99"),
    ("#AA4499", "#CC77BB"),
    ("#999933", "#AAAA44"),
    ("#88CCEE", "#88CCEE"),
    ("#7B8794", "#9AA5B1"),
];

/// A state: its name as in the docs, what it means in a legend, its fill.
const STATE: [(&str, &str, &str); STATES] = [
    ("hold", "holds the GIL, runs", "#0072B2"),
    ("stall", "holds it, blocked in a system call", "url(#stall)"),
    ("native", "runs without the GIL", "url(#native)"),
    ("parallel", "runs Python, no GIL", "#56B4E9"),
    ("wait", "waits for the GIL", "url(#wait)"),
    ("blocked", "I/O, lock, sleep", "none"),
    ("unknown", "could not be read", "url(#unknown)"),
];

const LIGHT: &str = "text{font-family:Inter,Helvetica,Arial,'DejaVu Sans',sans-serif;fill:#1F2933}\
.gilspy{background:#FFF}.page{fill:#FFF}.quiet{fill:#52606D}.faint{fill:#7B8794}.strong{font-weight:600}\
.number{font-variant-numeric:tabular-nums}.mono{font-family:'DejaVu Sans Mono',Menlo,Consolas,monospace}\
.panel{fill:#F5F7FA;stroke:#CBD2D9}.alarm{fill:#FFF8E6;stroke:#F0B429}.ground{fill:#F5F7FA}.line{fill:#CBD2D9}\
.grid{stroke:#1F2933;stroke-opacity:.08}.bar{fill:#FBE3A6}.empty{fill:none;stroke:#9AA5B1}.unseen{fill:url(#unseen)}\
.off{fill:#E4E7EB}.ug{fill:#FFF}.ul{fill:#52606D}.vg{fill:#F5F7FA}.vl{fill:#CBD2D9}.long{fill:#1F2933}.stalled{fill:#D55E00}.draw path{shape-rendering:crispEdges}";

const DARK: &str = "text{fill:#E4E7EB}.gilspy{background:#14181D}.page{fill:#14181D}.quiet{fill:#B0BAC5}.faint{fill:#8793A0}\
.panel{fill:#1F2730;stroke:#3E4C59}.alarm{fill:#33290F;stroke:#B7791F}.ground{fill:#1F2730}.line{fill:#3E4C59}\
.grid{stroke:#E4E7EB;stroke-opacity:.1}.bar{fill:#5C4712}.off{fill:#323F4B}.long{fill:#E4E7EB}\
.s0{fill:#3B9BDC}.stalled{fill:#F08A3C}.ug{fill:#14181D}.ul{fill:#8793A0}.vg{fill:#1A2027}.vl{fill:#3E4C59}";

/// The class of a state, given by its place in a mix.
pub(super) fn state_class(place: usize) -> String {
    format!("s{place}")
}

/// Its name.
pub(super) fn state_name(place: usize) -> &'static str {
    STATE.get(place).map_or("unknown", |(name, ..)| name)
}

/// The class of the thread that comes `rank`-th, from 0.
pub(super) fn thread_class(rank: usize) -> String {
    format!("t{}", rank.min(THREADS.len() - 1))
}

/// The picture's style sheet.
pub(super) fn style() -> String {
    let states = STATE.iter().enumerate().map(|(place, (_, _, fill))| format!(".s{place}{{fill:{fill}}}"));
    let of_threads = |dark: bool| -> String {
        let fill = |&(light, on_dark)| if dark { on_dark } else { light };
        THREADS
            .iter()
            .enumerate()
            .map(|(rank, colors)| format!(".t{rank}{{fill:{}}}", fill(colors)))
            .collect()
    };
    format!(
        "{LIGHT}{}{}@media (prefers-color-scheme:dark){{{DARK}{}}}@media print{{.tools{{display:none}}}}",
        states.collect::<String>(),
        of_threads(false),
        of_threads(true)
    )
}

/// The textures that the style sheet refers to.
pub(super) fn define_patterns<W: Write>(svg: &mut Svg<W>) -> Result<()> {
    svg.open("defs", &[])?;
    // Width of a pattern and of its line, angle, and the classes or colours of ground and line.
    for (id, size, line, angle, ground, stroke) in [
        ("wait", "4", 1.3, "45", ("fill", "#F0B429"), ("fill", "#B7791F")),
        ("stall", "4", 1.4, "0", ("fill", "#D55E00"), ("fill", "#8A3D00")),
        ("native", "4", 1.2, "90", ("fill", "#009E73"), ("fill", "#5CC9A7")),
        ("unknown", "4", 1.2, "45", ("class", "ug"), ("class", "ul")),
        ("unseen", "4", 1.2, "-45", ("class", "vg"), ("class", "vl")),
    ] {
        svg.open(
            "pattern",
            &[
                ("id", id),
                ("width", size),
                ("height", size),
                ("patternUnits", "userSpaceOnUse"),
                ("patternTransform", &format!("rotate({angle})")),
            ],
        )?;
        svg.rect([0.0, 0.0, 4.0, 4.0], &[ground])?;
        svg.rect([0.0, 0.0, line, 4.0], &[stroke])?;
        svg.close("pattern")?;
    }
    svg.close("defs")
}

/// What the colours mean that the picture has.
pub(super) fn legend(page: &mut Page, sections: &[Section<'_>]) -> Result<()> {
    let shown = |place: usize| sections.iter().any(|section| section.shows(place));
    let mut entries: Vec<(String, String)> = (0..STATES)
        .filter(|place| shown(*place))
        .map(|place| {
            let (name, meaning, _) = STATE[place];
            let class = if name == "blocked" { "empty".to_owned() } else { state_class(place) };
            (class, format!("{name}: {meaning}"))
        })
        .collect();
    if sections.iter().any(Section::has_unseen) {
        entries.push(("unseen".to_owned(), "not seen: no tick here".to_owned()));
    }
    if sections.iter().any(|section| section.has_off() && section.track().enabled) {
        entries.push(("off".to_owned(), "the GIL was off".to_owned()));
    }
    let width = |words: &str| 18.0 + words.chars().count() as f64 * 5.9 + 20.0;
    let mut rows: Vec<(f64, f64)> = Vec::new();
    let (mut x, mut y) = (MARGIN, 12.0);
    for (_, words) in &entries {
        if x + width(words) > WIDTH - MARGIN {
            (x, y) = (MARGIN, y + 18.0);
        }
        rows.push((x, y));
        x += width(words);
    }
    page.block("legend", &[], y + 26.0, |svg| {
        for ((class, words), (x, y)) in entries.iter().zip(rows) {
            svg.rect([x, y - 10.0, 12.0, 11.0], &[("class", class)])?;
            svg.text(TextStyle { x: x + 18.0, y, size: 11.0, class: "quiet", anchor: Anchor::Start }, words)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::place_of;
    use crate::recording::ThreadState;

    #[test]
    fn states_have_their_names() {
        for (state, name) in [
            (ThreadState::Hold, "hold"),
            (ThreadState::Stall(None), "stall"),
            (ThreadState::Wait { gil: 0 }, "wait"),
            (ThreadState::Native, "native"),
            (ThreadState::Blocked(None), "blocked"),
            (ThreadState::Parallel, "parallel"),
            (ThreadState::Unknown, "unknown"),
        ] {
            assert_eq!(state_name(place_of(state)), name);
        }
    }
}
