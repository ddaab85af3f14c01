//! Pictures of kept recordings, pixel by pixel: `fixtures/golden/NAME.png` is what resvg makes of them, without scripts and
//! with a font that is the same everywhere. `GILSPY_BLESS=1 cargo test --test golden` makes them anew, to be looked at.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use gilspy::analysis::{Analysed, By};
use gilspy::recording::{Source, read};
use gilspy::render::flamegraph::Place;
use gilspy::render::{StackOptions, flamegraph, timeline};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

/// A pixel differs if a channel does by more: processors round unlike in the last place.
const TOLERANCE: u8 = 8;

/// Such a share of the pixels may differ.
const MOST_DIFFERENT: f64 = 0.0002;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// What a picture looks like where no script runs.
fn rendered(svg: &[u8]) -> Pixmap {
    let mut options = Options { font_family: "DejaVu Sans".to_owned(), ..Options::default() };
    let fonts = options.fontdb_mut();
    for font in [dejavu::sans::regular(), dejavu::sans::bold(), dejavu::sans_mono::regular()] {
        fonts.load_font_data(font.to_vec());
    }
    fonts.set_sans_serif_family("DejaVu Sans");
    fonts.set_monospace_family("DejaVu Sans Mono");
    let tree = Tree::from_data(svg, &options).unwrap();
    let size = tree.size().to_int_size();
    let mut pixels = Pixmap::new(size.width(), size.height()).unwrap();
    resvg::render(&tree, Transform::identity(), &mut pixels.as_mut());
    pixels
}

/// Holds a picture against the kept one, or keeps it if that is asked for.
fn hold_against(name: &str, svg: &[u8]) {
    let pixels = rendered(svg);
    let kept = fixtures().join(format!("golden/{name}.png"));
    if std::env::var_os("GILSPY_BLESS").is_some() {
        pixels.save_png(&kept).unwrap();
        return;
    }
    let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
    pixels.save_png(&found).unwrap();
    let context = format!("{} against {}", found.display(), kept.display());
    let golden = Pixmap::load_png(&kept).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!((pixels.width(), pixels.height()), (golden.width(), golden.height()), "{context}");
    let differs = |(a, b): &(&[u8], &[u8])| a.iter().zip(*b).any(|(a, b)| a.abs_diff(*b) > TOLERANCE);
    let different = pixels.data().chunks(4).zip(golden.data().chunks(4)).filter(differs).count();
    let share = different as f64 / (pixels.data().len() / 4) as f64;
    assert!(share <= MOST_DIFFERENT, "{:.2} % of the pixels differ: {context}", share * 100.0);
}

/// The timeline of a kept recording, and its flame graphs by some kinds of time.
fn pictures(name: &str, kinds: &[(&str, By)]) {
    let source = Source::open(&fixtures().join(format!("recordings/{name}.gilspy"))).unwrap();
    let recordings = read(&source).unwrap();
    let processes: Vec<Analysed<'_>> =
        recordings.iter().map(|recording| Analysed::of(recording).unwrap()).collect();
    let mut svg = Vec::new();
    timeline::write(&processes, &mut svg).unwrap();
    hold_against(&format!("{name}.timeline"), &svg);
    for (kind, by) in kinds {
        let mut svg = Vec::new();
        let stacks = StackOptions { by: *by, ..StackOptions::default() };
        flamegraph::write(&processes, stacks, Place::Window, &mut svg).unwrap();
        hold_against(&format!("{name}.{kind}"), &svg);
    }
}

#[test]
fn a_call_that_does_not_release_the_gil() {
    pictures("hogged", &[("hold", By::Hold), ("blame", By::Blame)]);
}

#[test]
fn a_holder_that_sleeps() {
    pictures("stalled", &[("wait", By::Wait)]);
}

#[test]
fn threads_without_a_gil() {
    pictures("free-threaded", &[("cpu", By::Cpu)]);
}

#[test]
fn a_process_that_does_nothing() {
    pictures("idle", &[("hold", By::Hold), ("wall", By::Wall)]);
}

#[test]
fn many_threads() {
    pictures("many-threads", &[]);
}

#[test]
fn names_that_would_do_harm() {
    pictures("hostile-names", &[("hold", By::Hold)]);
}
