//! Runs the command line and turns what comes of it into an exit status: 0 done, 1 failed, 2 wrong usage.

use std::process::ExitCode;

use clap::Parser;
use gilspy::cli::Cli;
use gilspy::commands;

fn main() -> ExitCode {
    let cli = match Cli::parse().checked() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match commands::run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            commands::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
