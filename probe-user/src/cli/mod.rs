//! The command line: a file a verb.

mod detection;
mod doctor;
mod exit;
mod run;
mod session;
mod source;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::Exit;

/// Finds IP addresses that have more than one owner, by reading ARP in the kernel.
#[derive(Debug, Parser)]
#[command(name = "probe", version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 as expected, 1 conflict found, 2 usage, 3 an expectation not met, \
                        4 could not do it or not completely."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Watch interfaces as a daemon: metrics on HTTP, conflicts as JSON lines on standard output
    Run(run::Arguments),
    /// Watch interfaces from a terminal: findings live
    Watch(watch::Arguments),
    /// Show what this host offers and what is missing: everything that a bug report needs
    Doctor(doctor::Arguments),
}

/// Runs the command line that this process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.verb {
        Verb::Run(arguments) => run::run(arguments),
        Verb::Watch(arguments) => watch::run(arguments),
        Verb::Doctor(arguments) => doctor::run(&arguments),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            exit::complain(&error);
            Exit::Failed.into()
        }
    }
}
