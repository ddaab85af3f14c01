//! The offset tables of CPython 3.7 to 3.12 against the headers of the interpreters of this machine.
//!
//! `fixtures/offsets/regenerate.sh` makes the tables from one patch release of each version. Gilspy relies on
//! them for all the others, so every interpreter that brings its headers is asked whether it agrees.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::*;
use tempfile::TempDir;

/// The versions that have a table; later ones publish their offsets themselves.
const TABLES: std::ops::RangeInclusive<u32> = 7..=12;

/// What comes before the patch release in a table's first line, the only part that may differ.
const PATCH_RELEASE: &str = " from the headers of ";

#[test]
fn tables_are_what_the_headers_of_every_patch_release_say() {
    if !(is_there("cc") && is_there("rustfmt")) {
        return;
    }
    let (mut compared, mut differences) = (BTreeSet::new(), Vec::new());
    for interpreter in all_interpreters().iter().filter(|interpreter| TABLES.contains(&interpreter.minor)) {
        let Some(include) = headers(interpreter) else { continue };
        let (said, table) = (offsets(&include), std::fs::read_to_string(table(interpreter.minor)).unwrap());
        if without_patch_release(&said) != without_patch_release(&table) {
            differences.push(format!("{interpreter:?} says\n{said}\nthe table says\n{table}"));
        }
        compared.insert(interpreter.minor);
        eprintln!("compared the table of 3.{} with {}", interpreter.minor, include.display());
    }
    for minor in TABLES.filter(|minor| !compared.contains(minor)) {
        eprintln!("SKIPPED the table of 3.{minor}: no interpreter with its headers");
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The directory of an interpreter's headers, if it has them all, the internal ones included.
fn headers(interpreter: &Interpreter) -> Option<PathBuf> {
    let script = "import sysconfig; print(sysconfig.get_paths()['include'])";
    let output = Command::new(&interpreter.path).args(["-c", script]).output().unwrap();
    let include = PathBuf::from(stdout(&output).trim());
    let has_internal = include.join("internal").is_dir();
    if !has_internal {
        eprintln!("SKIPPED {} {}: no internal headers", interpreter.version, interpreter.path.display());
    }
    has_internal.then_some(include)
}

/// The table that the headers in this directory make, as `regenerate.sh` makes it.
fn offsets(include: &Path) -> String {
    let directory = TempDir::new().unwrap();
    let (program, printed) = (directory.path().join("offsets"), directory.path().join("offsets.rs"));
    let mut cc = Command::new("cc");
    cc.arg("-w").arg("-I").arg(include).arg("-I").arg(include.join("internal"));
    cc.arg(repository().join("fixtures/offsets/offsets.c")).arg("-o").arg(&program);
    output(&mut cc);
    std::fs::write(&printed, output(&mut Command::new(&program))).unwrap();
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.args(["--edition", "2024", "--config-path"]).arg(repository().join("rustfmt.toml"));
    output(rustfmt.stdin(File::open(&printed).unwrap()))
}

/// What a command prints, which has to succeed.
fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, stderr(&output));
    stdout(&output)
}

fn without_patch_release(table: &str) -> (&str, &str) {
    let (first, rest) = table.split_once('\n').unwrap();
    (first.split_once(PATCH_RELEASE).unwrap().0, rest)
}

fn table(minor: u32) -> PathBuf {
    repository().join(format!("src/cpython/layout/v3_{minor}.rs"))
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
