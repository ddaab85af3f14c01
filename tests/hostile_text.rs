//! What a process calls its threads, functions and files, itself and its arguments, and what files are called that gilspy
//! reads and writes: all of it comes out as text and harmless, in every format, in terminals and in errors.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

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
    // In JSON names are what they are.
    assert!(what.contains("json") || !text.contains(&"\u{301}".repeat(5)), "{what} has a tower of marks");
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
    // inferno's own picture begins with `onload="init(evt)"`.
    let mut attributes = document.descendants().flat_map(|node| node.attributes());
    let is_own = |value: &str| value == "init(evt)";
    assert!(attributes.all(|it| !it.name().starts_with("on") || is_own(it.value())), "{what}");
    let elements =
        document.descendants().filter(|node| matches!(node.tag_name().name(), "img" | "b" | "iframe"));
    assert_eq!(elements.count(), 0, "{what}");
}

/// The page's elements and attributes, and its pictures.
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
                        let (start, end) = (value.find("<svg").unwrap(), value.rfind("</svg>").unwrap());
                        assert_svg("a picture in the page", &value[start..end + 6]);
                    }
                }
            }
            Token::Error(error) => panic!("{what}: {error:?}"),
            _ => {}
        }
    }
    assert!(!html.contains("<script>alert"), "{what}");
}

/// Whether it is well-formed, by its format.
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
                // What threading calls, the function that has the thread's name, and `reached` of the handshake.
                assert!((4..=7).contains(&stack.len()) || stack[0].starts_with("MainThread"), "{stack:?}");
            }
            assert!(text.lines().all(|line| !line.trim_start().starts_with("# ")), "{text}");
        }
        _ => drop(serde_json::from_str::<Value>(text).unwrap()),
    }
}

#[test]
fn whatever_a_process_calls_things_no_output_does_harm() {
    let _alone = alone();
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
    let _alone = alone();
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
    let _alone = alone();
    for interpreter in [interpreters().next().unwrap(), newest()] {
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

/// A process that is killed when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An interpreter whose executable is in another place, while its libraries stay where they are.
fn copy_of(python: &Path, place: &Path) -> PathBuf {
    let prefix = python.parent().unwrap().parent().unwrap();
    let new = place.join(prefix.file_name().unwrap());
    std::fs::create_dir_all(new.join("bin")).unwrap();
    for entry in std::fs::read_dir(prefix).unwrap().flatten() {
        if entry.file_name() != "bin" {
            std::os::unix::fs::symlink(entry.path(), new.join(entry.file_name())).unwrap();
        }
    }
    let copy = new.join("bin").join(python.file_name().unwrap());
    copy_program(python, &copy);
    copy
}

#[test]
fn a_program_whose_path_is_no_text_is_read_and_named() {
    let directory = TempDir::new().unwrap();
    let place = directory.path().join(OsStr::from_bytes(b"caf\xe9 \x1b[31m\xe2\x80\xae"));
    // 3.15 cannot load extension modules from there, so that handshake.py does not run.
    let script = "def spin():\n    print('ready', flush=True)\n    while True: pass\nspin()";
    let python = copy_of(&newest().path, &place);
    let mut command = Command::new(&python);
    command.args(["-S", "-c", script]).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let dump = dump_json(&child.0.id().to_string());
    assert_eq!(functions(threads(&dump)[0])[0], "spin");
    let path = dump["target"]["command"][0].as_str().unwrap();
    assert!(path.contains("caf\\xe9 \x1b[31m\u{202e}/"), "{path:?}");

    let sleep = place.join("sleep");
    copy_program("/bin/sleep", &sleep);
    let child = Killed(Command::new(&sleep).arg("60").spawn().unwrap());
    let text = failure(1, ["dump", "-p", &child.0.id().to_string()]);
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
    let _alone = alone();
    let fixture = hostile_process(newest());
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.svg");
    let recorded = on_a_terminal(["record", "-d", "2", "-o", path.to_str().unwrap(), "-p", &fixture.pid()]);
    let dumped = on_a_terminal(["dump", "-p", &fixture.pid()]);
    assert!(recorded.contains("\x1b[2K") && recorded.contains("\x1b[1m"), "it is a terminal: {recorded:?}");
    // What gilspy itself steers with: emphasis, and the line that moves.
    let own = ["\x1b[1m", "\x1b[0m", "\x1b[2K"];
    let plain = |text: &str| own.iter().fold(text.replace('\r', "\n"), |text, own| text.replace(own, ""));
    assert_harmless("the terminal", &plain(&dumped));
    assert_harmless("the terminal", &plain(&recorded));
    for line in plain(&recorded).lines().filter(|line| !line.contains("/x.")) {
        assert!(gilspy::text::columns(line) <= 80, "{line:?}");
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
