//! `gilspy diff` of recordings of real processes.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::*;
use tempfile::TempDir;

/// Records a fixture program into a directory.
fn record(directory: &Path, name: &str, program: &str) -> String {
    let _alone = alone();
    let fixture = Fixture::start(newest(), program, &[]);
    let path = directory.join(name).to_str().unwrap().to_owned();
    run(["record", "-d", "4", "--max-overhead", "99", "-f", "recording", "-o", &path, "-p", &fixture.pid()]);
    path
}

#[test]
fn what_changed_is_told_and_drawn() {
    let directory = TempDir::new().unwrap();
    let before = record(directory.path(), "before.gilspy", "two_spinners.py");
    let after = record(directory.path(), "after.gilspy", "sleepers.py");
    let table = stdout(&run(["diff", &before, &after]));
    let row =
        |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{table}"));
    for name in ["GIL held", "threads waiting", "spin_one", "spin_two"] {
        assert!(row(name).ends_with("less"), "{table}");
    }
    let svg = std::fs::read_to_string(directory.path().join("after.diff.svg")).unwrap();
    parse_svg(&svg);

    let picture = directory.path().join("gone.svg").to_str().unwrap().to_owned();
    run(["diff", &after, &before, "--by", "blame", "-o", &picture]);
    let svg = std::fs::read_to_string(picture).unwrap();
    parse_svg(&svg);
    assert!(svg.contains("waiting inflicted") && svg.contains("spin_one"), "{svg}");
}

#[test]
fn a_picture_on_standard_output_stands_there_alone() {
    let directory = TempDir::new().unwrap();
    let path = record(directory.path(), "some.gilspy", "two_spinners.py");
    let output = run(["diff", &path, &path, "-o", "-"]);
    parse_svg(&stdout(&output));
    let table = stderr(&output);
    assert!(
        table.contains("GIL held") && table.contains("No function's time under the GIL changed"),
        "{table}"
    );
}

#[test]
fn what_is_no_recording_is_named() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x");
    std::fs::write(&path, "x").unwrap();
    let path = path.to_str().unwrap();
    assert!(failure(1, ["diff", path, path]).starts_with(&format!("gilspy: cannot read {path}: ")));
}
