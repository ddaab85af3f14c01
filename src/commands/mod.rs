//! The subcommands: the only place that joins the half that reads a process and the half that draws.

mod attach;
mod diff;
mod dump;
mod files;
mod finder;
mod followed;
mod generated;
mod launch;
mod output;
mod privileges;
mod progress;
mod record;
mod recordings;
mod render;
mod snapshots;
mod stop;

use anyhow::Result;

use crate::cli::{Cli, Command};

/// Does what the command line asks for, and answers the exit status.
///
/// # Errors
/// Whatever a user should read, as a chain of causes.
pub fn run(cli: Cli) -> Result<u8> {
    match cli.command {
        Command::Record(args) => record::run(args),
        Command::Dump(args) => dump::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Completions(args) => generated::completions(&args),
        Command::Man(args) => generated::man(&args),
    }
}

/// Prints an error and its causes to standard error, in the look of all others: what failed on the first
/// line, why and what to do next indented below it.
pub fn print_error(error: &anyhow::Error) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        text = format!("{text}: {cause}");
    }
    eprintln!("gilspy: {}", text.replace('\n', "\n  "));
}
