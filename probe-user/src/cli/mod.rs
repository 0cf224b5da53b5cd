//! The command line: a file a verb.

mod asking;
mod bindings;
mod check;
mod cluster;
mod completions;
mod conflicts;
mod daemon;
mod detection;
mod doctor;
mod drift;
mod drill;
mod exit;
mod explain;
mod filter;
mod history;
mod interfaces;
mod kubernetes;
mod metrics;
mod notify;
mod output;
mod pools;
mod reload;
mod run;
mod session;
mod source;
mod status_line;
mod tally;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
pub use exit::Exit;

/// Finds IP addresses that have more than one owner, by reading ARP in the kernel.
#[derive(Debug, Parser)]
#[command(name = "probe", version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 as expected, 1 conflict or overlap found, 2 usage, 3 an expectation not met, \
                        4 could not do it or not completely."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Watch interfaces as a daemon: metrics on HTTP, conflicts as JSON lines on standard output
    Run(Box<run::Arguments>),
    /// Watch interfaces from a terminal: findings live, or from a capture
    Watch(Box<watch::Arguments>),
    /// Ask now who answers for an address, a range or a pool: one owner, a conflict, or nobody
    Check(Box<check::Arguments>),
    /// Tell everything about one address on one screen: who has it, who should, since when, why, and what to do
    Explain(Box<explain::Arguments>),
    /// Show the open conflicts that the daemon knows; ends with 1 if there are any
    Conflicts(conflicts::Arguments),
    /// Show which address is at which MAC, as the daemon knows it
    Bindings(bindings::Arguments),
    /// Show what the daemon watches, and how
    Interfaces(interfaces::Arguments),
    /// Show the findings that the daemon remembers
    History(history::Arguments),
    /// Check address pools as they are written down, before they are applied; needs no root and no network
    #[command(subcommand)]
    Pools(pools::Verb),
    /// Show where the cluster and the wire have drifted apart without a conflict; ends with 3 if they have
    Drift(drift::Arguments),
    /// Make the daemon report a conflict that nobody has, to see who is told of a real one
    Drill(drill::Arguments),
    /// Print the completions for a shell
    Completions(completions::CompletionsArguments),
    /// Write the man pages
    #[command(hide = true)]
    Man(completions::ManArguments),
    /// Show what this host offers and what is missing: everything that a bug report needs
    Doctor(doctor::Arguments),
}

/// Runs the command line that this process was started with.
pub fn main() -> ExitCode {
    // The one TLS implementation of the process. An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let result = match cli.verb {
        Verb::Run(_) => run::run(Cli::command()),
        Verb::Watch(arguments) => watch::run(&arguments),
        Verb::Check(arguments) => check::run(&arguments),
        Verb::Explain(arguments) => explain::run(&arguments),
        Verb::Conflicts(arguments) => conflicts::run(&arguments),
        Verb::Bindings(arguments) => bindings::run(&arguments),
        Verb::Interfaces(arguments) => interfaces::run(&arguments),
        Verb::History(arguments) => history::run(&arguments),
        Verb::Pools(verb) => pools::run(&verb),
        Verb::Drift(arguments) => drift::run(&arguments),
        Verb::Drill(arguments) => drill::run(&arguments),
        Verb::Completions(arguments) => completions::completions(Cli::command(), &arguments),
        Verb::Man(arguments) => completions::man(Cli::command(), &arguments),
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
