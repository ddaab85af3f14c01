//! Shell completions and manual pages.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use support::*;
use tempfile::TempDir;

#[test]
fn completions_of_every_shell_name_the_commands_and_options() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&run(["completions", shell]));
        for word in ["record", "render", "diff", "dump", "max-overhead"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn bash_completes_with_them() {
    let mut bash = Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = bash.stdin.take().unwrap();
    stdin.write_all(&run(["completions", "bash"]).stdout).unwrap();
    // What bash does when somebody types `gilspy record -f spe` and the tabulator key.
    let complete =
        "COMP_WORDS=(gilspy record -f spe) COMP_CWORD=3\n_gilspy gilspy spe -f\necho \"${COMPREPLY[@]}\"\n";
    stdin.write_all(complete.as_bytes()).unwrap();
    drop(stdin);
    assert_eq!(stdout(&bash.wait_with_output().unwrap()), "speedscope\n");
}

#[test]
fn every_command_has_a_manual_page_that_man_can_show() {
    let directory = TempDir::new().unwrap();
    run(["man", directory.path().to_str().unwrap()]);
    for (page, words) in [
        ("gilspy.1", "SUBCOMMANDS"),
        ("gilspy-record.1", "--max-overhead"),
        ("gilspy-dump.1", "--json"),
        ("gilspy-render.1", "--from"),
        ("gilspy-diff.1", "BEFORE"),
    ] {
        let path = directory.path().join(page);
        let source = std::fs::read_to_string(&path).unwrap().replace("\\-", "-");
        assert!(source.starts_with(".ie \\n(.g .ds Aq \\(aq") && source.contains(words), "{page}: {source}");
        // Where there is one: what it complains of is an error.
        if let Ok(shown) = Command::new("man").args(["--warnings", "-E", "ascii", "-l"]).arg(&path).output() {
            assert!(shown.status.success() && shown.stderr.is_empty(), "{page}: {}", stderr(&shown));
            assert!(stdout(&shown).contains("gilspy"), "{page}");
        }
    }
    assert!(stdout(&run(["man"])).contains("gilspy"));
}
