//! `gilspy completions` and `gilspy man`: what is generated from the definitions of the command line.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::text::shown;

/// Prints a shell's completions.
pub(super) fn completions(args: &CompletionsArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gilspy", &mut script);
    print(&script)
}

/// Prints the manual page, or writes those of all commands.
pub(super) fn man(args: &ManArgs) -> Result<u8> {
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command()).render(&mut page)?;
        return print(&page);
    };
    clap_mangen::generate_to(command(), directory)
        .with_context(|| format!("cannot write manual pages into {}", shown(directory)))?;
    Ok(0)
}

/// The definitions, without `help`: it has no page of its own.
fn command() -> Command {
    Cli::command().disable_help_subcommand(true)
}

/// Whoever reads may stop before the end, as `head` does.
fn print(bytes: &[u8]) -> Result<u8> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(0),
    }
}
