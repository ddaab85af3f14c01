//! How long the costliest step takes with hostile memory: what fuzzing has kept (`fuzz/corpus`) is done once more.
//!
//!     cargo bench --bench hostile
//!
//! Each input is done several times, of which the fastest counts. The memory is in this process: a real target's costs a
//! system call besides for each batch of pieces.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/hostile/mod.rs"]
mod hostile;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use hostile::timing::take_longest;

const ROUNDS: usize = 3;

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut longest: BTreeMap<&str, (Duration, String)> = BTreeMap::new();
    for (name, target) in hostile::TARGETS {
        for input in std::fs::read_dir(corpus.join(name)).unwrap().map(Result::unwrap) {
            let bytes = std::fs::read(input.path()).unwrap();
            let mut fastest = BTreeMap::new();
            for _ in 0..ROUNDS {
                target(&bytes);
                for (step, took) in take_longest() {
                    let before = fastest.entry(step).or_insert(took);
                    *before = took.min(*before);
                }
            }
            for (step, took) in fastest {
                let entry = longest.entry(step).or_default();
                if took > entry.0 {
                    *entry = (took, format!("{name}/{}", input.file_name().display()));
                }
            }
        }
    }
    println!("| step | longest, ms | input |");
    println!("|---|---:|---|");
    for (step, (took, input)) in longest {
        println!("| {step} | {:.1} | {input} |", took.as_secs_f64() * 1000.0);
    }
}
