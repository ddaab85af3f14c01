//! Runs the command line and turns what comes of it into an exit status: 0 done, 1 failed, 2 wrong usage.

use std::process::ExitCode;

use clap::Parser;
use gilspy::cli::Cli;
use gilspy::commands;

fn main() -> ExitCode {
    let cli = match Cli::try_parse().and_then(Cli::checked) {
        Ok(cli) => cli,
        Err(error) => commands::exit_with_usage(&error),
    };
    match commands::run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            commands::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
