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
use crate::text::{needs_showing, visible_lines};

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
    eprintln!("{}", in_words(error));
}

/// Names in an error have been made visible where it arose, line feeds in them too; the rest is what libraries say.
fn in_words(error: &anyhow::Error) -> String {
    format!("gilspy: {}", visible_lines(&format!("{error:#}")).replace('\n', "\n  "))
}

/// Prints what clap says of wrong usage, and exits. It quotes the command line, in which there may be names of files that
/// somebody else has chosen (`gilspy render *`).
pub fn exit_with_usage(error: &clap::Error) -> ! {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.any(|argument| argument.to_string_lossy().chars().any(needs_showing)) {
        true => {
            eprint!("{}", visible_lines(&error.render().to_string()));
            std::process::exit(error.exit_code())
        }
        false => error.exit(),
    }
}
