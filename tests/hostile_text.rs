//! What a process calls its threads, functions and files, itself and its arguments, and what files are called that gilspy
//! reads and writes: all of it comes out as text and harmless, in every format, in terminals and in errors.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gilspy::text::needs_showing;
use html5gum::{Token, Tokenizer};
use nix::pty::{Winsize, openpty};
use serde_json::Value;
use support::*;
use tempfile::TempDir;

/// Arguments that no terminal, page or shell should take for anything else.
const ARGUMENTS: [&[u8]; 4] = [
    b"\x1b]0;title\x07\x1b[2J",
    b"caf\xe9 \xff",
    "\u{202e}\u{200b}</script><script>alert('f')</script>".as_bytes(),
    b"$(touch pasted)",
];

/// Every format, with the ending of its file.
const FORMATS: [&str; 10] = [
    "flamegraph",
    "timeline",
    "html",
    "raw",
    "chrometrace",
    "speedscope",
    "gecko",
    "pprof",
    "json",
    "recording",
];

/// The process whose every text is hostile, its executable's path too.
fn hostile_process(interpreter: &Interpreter) -> Fixture {
    let mut command = Command::new(&interpreter.path);
    command.arg(program("hostile_names.py")).args(ARGUMENTS.map(OsStr::from_bytes));
    Fixture::run(command, "hostile_names.py")
}

/// Whether nothing in it steers a terminal or makes text read as other text; what joins emoji does neither.
fn assert_harmless(what: &str, text: &str) {
    let harmful = |character: &char| needs_showing(*character) && !matches!(character, '\n' | '\u{200d}');
    let found: Vec<char> = text.chars().filter(harmful).collect();
    assert!(found.is_empty(), "{what}: {found:?}");
    assert!(!text.contains(&"\u{301}".repeat(5)), "{what} has a tower of marks");
}

/// The SVG's scripts and its handlers: none but gilspy's own.
fn assert_svg(what: &str, svg: &str) {
    let document = parse_svg(svg);
    let scripts = document.descendants().filter(|node| node.tag_name().name() == "script");
    let own = scripts.filter(|script| script.attribute("type") != Some("application/json"));
    assert!(
        own.map(|script| script.text().unwrap_or_default()).all(|text| !text.contains("alert(")),
        "{what}"
    );
    let attributes = document.descendants().flat_map(|node| node.attributes());
    assert!(attributes.into_iter().all(|attribute| !attribute.name().starts_with("on")), "{what}");
    let elements =
        document.descendants().filter(|node| matches!(node.tag_name().name(), "img" | "b" | "iframe"));
    assert_eq!(elements.count(), 0, "{what}");
}

/// The page's elements and those of the pages in it.
fn assert_html(what: &str, html: &str) {
    for token in Tokenizer::new(html) {
        match token.unwrap() {
            Token::StartTag(tag) => {
                let name = String::from_utf8_lossy(&tag.name).into_owned();
                assert_ne!(name, "img", "{what}");
                for (key, value) in &tag.attributes {
                    let value = String::from_utf8_lossy(value);
                    assert!(!key.starts_with(b"on"), "{what}: {name} {value}");
                    if **key == b"srcdoc"[..] {
                        assert_html("a picture in the page", &value);
                    }
                }
            }
            Token::Error(error) => panic!("{what}: {error:?}"),
            _ => {}
        }
    }
    assert!(!html.contains("<script>alert"), "{what}");
}

/// Whether it is well-formed, by its format; answers how many bytes it has.
fn assert_well_formed(format: &str, bytes: &[u8]) {
    if matches!(format, "recording" | "pprof") {
        return;
    }
    let text = std::str::from_utf8(bytes).unwrap();
    // Page and pictures are files of lines, the style sheets and scripts in them too.
    assert_harmless(format, text);
    match format {
        "flamegraph" | "timeline" => assert_svg(format, text),
        "html" => assert_html(format, text),
        "raw" => {
            for (stack, _) in unfold(text) {
                assert_eq!(
                    stack.len(),
                    if stack[0].starts_with("MainThread") { stack.len() } else { 5 },
                    "{stack:?}"
                );
            }
            assert!(text.lines().all(|line| !line.trim_start().starts_with("# ")), "{text}");
        }
        _ => drop(serde_json::from_str::<Value>(text).unwrap()),
    }
}

#[test]
fn whatever_a_process_calls_things_no_output_does_harm() {
    for interpreter in [interpreters().next().unwrap(), newest()] {
        let fixture = hostile_process(interpreter);
        let directory = TempDir::new().unwrap();
        let recording = directory.path().join("x.gilspy");
        let output = run(["record", "-d", "1", "--max-overhead", "90", "-f", "recording"]
            .map(OsStr::new)
            .into_iter()
            .chain([OsStr::new("-o"), recording.as_os_str(), OsStr::new("-p"), OsStr::new(&fixture.pid())]));
        assert_harmless("the summary", &stderr(&output));
        assert!(stderr(&output).lines().all(|line| gilspy::text::columns(line) <= 80), "{}", stderr(&output));
        for format in FORMATS {
            let path = directory.path().join(format);
            run([OsStr::new("render"), recording.as_os_str(), OsStr::new("-f"), OsStr::new(format)]
                .into_iter()
                .chain([OsStr::new("-o"), path.as_os_str()]));
            let bytes = std::fs::read(&path).unwrap();
            assert!(bytes.len() < 4_000_000, "{format}: {} bytes", bytes.len());
            assert_well_formed(format, &bytes);
        }
        for by in ["wait", "blame", "cpu", "wall"] {
            let path = directory.path().join("by.svg");
            let arguments =
                ["render", recording.to_str().unwrap(), "-f", "flamegraph", "--by", by, "--reverse", "-o"];
            run(arguments.into_iter().chain([path.to_str().unwrap()]));
            assert_svg(by, &std::fs::read_to_string(&path).unwrap());
        }
        let path = directory.path().join("x.diff.svg");
        let compared = ["diff", recording.to_str().unwrap(), recording.to_str().unwrap()];
        assert_harmless("the comparison", &stdout(&run(compared)));
        assert_svg("the differential flame graph", &std::fs::read_to_string(&path).unwrap());
        for arguments in [vec!["dump"], vec!["dump", "--gil"], vec!["dump", "--json"]] {
            let output = run(arguments.iter().copied().chain(["-p", &fixture.pid()]));
            assert_harmless(&arguments.join(" "), &stdout(&output));
        }
    }
}

#[test]
fn names_are_whole_in_json_and_different_names_stay_different() {
    let fixture = hostile_process(newest());
    let dump = dump_json(&fixture.pid());
    let names: Vec<&str> = threads(&dump).iter().filter_map(|thread| thread["name"].as_str()).collect();
    for name in [
        "\x1b[31mred\x1b[0m\x07;\n\r\t",
        "\u{9b}31mred\u{9d}0;title\u{9c}\x7f\0",
        "right \u{202e}to left\u{202c} שלום مرحبا",
        "caf\\xe9",
        "caf\\xea",
        "lone ⟨U+D800⟩, pair ⟨U+D83D⟩⟨U+DE00⟩",
    ] {
        assert!(names.contains(&name), "{name:?}: {names:?}");
        let spin = &thread(&dump, name)["frames"][0];
        let functions = functions(thread(&dump, name));
        assert!(functions.contains(&name), "{functions:?}");
        let file = format!("{name}.py");
        assert!(spin["file"] == file || thread(&dump, name)["frames"][1]["file"] == file, "{spin}");
    }
    let command: Vec<&str> =
        dump["target"]["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(command[2..4], ["\x1b]0;title\x07\x1b[2J", "caf\\xe9 \\xff"]);
    let text = stdout(&run(["dump", "-p", &fixture.pid()]));
    for shown in ["␛[31mred␛[0m␇;␊␍␉ (", "⟨U+009B⟩31mred", "caf\\xe9 (", "⟨U+202E⟩to left", "caf\\xe9 \\xff"]
    {
        assert!(text.contains(shown), "{shown}: {text}");
    }
}

#[test]
fn a_process_whose_name_is_no_text_is_read_like_any_other() {
    for interpreter in all_interpreters() {
        let fixture = hostile_process(interpreter);
        let comm = std::fs::read(format!("/proc/{}/comm", fixture.pid())).unwrap();
        assert_eq!(&comm[..4], b"\xff\x1b[3");
        let dump = dump_json(&fixture.pid());
        for thread in threads(&dump) {
            assert!(thread["tid"].is_i64(), "{}: {thread:#}", interpreter.version);
            assert!(thread["state"] != "unknown", "{}: {thread:#}", interpreter.version);
        }
    }
}

#[test]
fn a_program_whose_path_is_no_text_is_read_and_named() {
    let directory = TempDir::new().unwrap();
    let place = directory.path().join(OsStr::from_bytes(b"caf\xe9 \x1b[31m\xe2\x80\xae"));
    std::fs::create_dir(&place).unwrap();
    let python = place.join("python3");
    std::fs::copy(&newest().path, &python).unwrap();
    let mut command = Command::new(&python);
    // Where it is, it finds no library of its own.
    let prefix = ["-c", "import sys; print(sys.base_prefix)"];
    let home = Command::new(&newest().path).args(prefix).output().unwrap();
    command.env("PYTHONHOME", stdout(&home).trim()).arg(program("two_spinners.py"));
    let fixture = Fixture::run(command, "two_spinners.py");
    let dump = dump_json(&fixture.pid());
    assert_eq!(functions(thread(&dump, "spinner-1"))[0], "spin_one");
    assert!(
        dump["target"]["command"][0].as_str().unwrap().contains("caf\\xe9 \x1b[31m\u{202e}/python3"),
        "{dump:#}"
    );

    let sleep = place.join("sleep");
    std::fs::copy("/bin/sleep", &sleep).unwrap();
    let mut child = Command::new(&sleep).arg("60").spawn().unwrap();
    let text = failure(1, ["dump", "-p", &child.id().to_string()]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_harmless("the error", &text);
    assert!(text.contains("caf\\xe9 ␛[31m⟨U+202E⟩/sleep"), "{text}");
}

/// What gilspy prints on a terminal of 80 columns: standard output and error.
fn on_a_terminal<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> String {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).unwrap();
    let mut command = gilspy(arguments);
    command.env("TERM", "xterm-256color");
    let mut child = command.stdout(pty.slave.try_clone().unwrap()).stderr(pty.slave).spawn().unwrap();
    drop(command);
    let mut bytes = Vec::new();
    // The end of a pseudoterminal is an error: EIO.
    let _ = File::from(pty.master).read_to_end(&mut bytes);
    assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&bytes));
    String::from_utf8(bytes).unwrap()
}

#[test]
fn on_a_terminal_only_gilspy_steers() {
    let fixture = hostile_process(newest());
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.svg");
    let recorded = on_a_terminal(["record", "-d", "2", "-o", path.to_str().unwrap(), "-p", &fixture.pid()]);
    let dumped = on_a_terminal(["dump", "-p", &fixture.pid()]);
    assert!(recorded.contains("\x1b[1mGil-bound\x1b[0m"), "it is a terminal: {recorded:?}");
    for text in [&recorded, &dumped] {
        // What gilspy itself steers with: emphasis, and the line that moves.
        let mut plain = text.replace("\x1b[1m", "").replace("\x1b[0m", "");
        plain = plain.replace("\x1b[2K", "").replace("\x1b[1A", "").replace("\x1b[1B", "").replace('\r', "");
        assert_harmless("the terminal", &plain);
    }
    let lines = recorded.split(['\n', '\r']).filter(|line| !line.contains("x."));
    for line in lines {
        assert!(gilspy::text::columns(&line.replace("\x1b[1m", "")) <= 80, "{line:?}");
    }
}

/// Names of files that a shell or a terminal could take for something else.
const FILES: [&[u8]; 7] = [
    b"a b",
    b"it's \"it\" !x",
    b"$(touch pasted)`touch pasted`;touch pasted",
    b"line\nfeed\x1b[31m",
    b"-rf",
    b"caf\xe9",
    "\u{202e}gpj".as_bytes(),
];

/// gilspy in some directory.
fn in_directory(directory: &Path, arguments: &[&OsStr]) -> Output {
    gilspy(arguments).current_dir(directory).output().unwrap()
}

#[test]
fn a_command_that_gilspy_suggests_can_be_pasted_whatever_files_are_called() {
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/recordings/hogged.gilspy");
    for name in FILES {
        let directory = TempDir::new().unwrap();
        let name = OsStr::from_bytes(name);
        std::fs::copy(&recording, directory.path().join(name)).unwrap();
        let render = ["render", "--thread", "no such thread", "--"].map(OsStr::new);
        let output = in_directory(directory.path(), &[&render[..], &[name]].concat());
        let text = stderr(&output);
        assert_harmless("the hint", &text);
        let (_, hint) = text.split_once("`gilspy ").unwrap();
        let (hint, _) = hint.rsplit_once('`').unwrap();
        let pasted = Command::new("bash")
            .args(["-ic", &format!("{} {hint}", env!("CARGO_BIN_EXE_gilspy"))])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(pasted.status.success(), "{hint}: {}", stderr(&pasted));
        let report: Value = serde_json::from_slice(&pasted.stdout).unwrap();
        assert!(report["interpreters"].is_array());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "{hint} did something else too");
    }
}

#[test]
fn names_of_files_are_shown_in_errors_and_where_things_were_written() {
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/recordings/hogged.gilspy");
    for name in FILES {
        let directory = TempDir::new().unwrap();
        let name = OsStr::from_bytes(name);
        let path: PathBuf = Path::new(".").join(name);
        let arguments = |words: &[&str], path: &Path| -> Vec<OsString> {
            words.iter().map(OsString::from).chain([path.into()]).collect()
        };
        let missing = gilspy(arguments(&["render"], &path)).current_dir(directory.path()).output().unwrap();
        assert_eq!(missing.status.code(), Some(1));
        assert_harmless("a missing file", &stderr(&missing));
        let lines = stderr(&missing).lines().count();
        assert_eq!(lines, 1, "{}", stderr(&missing));

        let written = gilspy(arguments(&["render", recording.to_str().unwrap(), "-o"], &path));
        let written = { written }.current_dir(directory.path()).output().unwrap();
        assert!(written.status.success() && directory.path().join(name).exists(), "{}", stderr(&written));
        assert_harmless("what was written", &stderr(&written));
        assert_eq!(stderr(&written).lines().count(), 2, "{}", stderr(&written));

        // Wrong usage that quotes it.
        let wrong = gilspy(arguments(&["render", "a", "b"], Path::new(name))).output().unwrap();
        assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
        assert_harmless("wrong usage", &stderr(&wrong));
        let thread = in_directory(
            directory.path(),
            &["render", recording.to_str().unwrap(), "--thread"]
                .map(OsStr::new)
                .into_iter()
                .chain([OsStr::new("\u{1b}[31m\u{202e}")])
                .collect::<Vec<_>>(),
        );
        assert_harmless("no such thread", &stderr(&thread));
        let started = gilspy([OsStr::new("record"), OsStr::new("--"), path.as_os_str()]).output().unwrap();
        assert_harmless("no such program", &stderr(&started));
    }
}
