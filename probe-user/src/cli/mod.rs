//! The command line: a file a verb.

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
mod probing;
mod release_xdp;
mod reload;
mod run;
mod session;
mod source;
mod status_line;
mod summary;
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
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Watch interfaces as a daemon: metrics on HTTP, conflicts as JSON lines on standard output
    Run(Box<run::RunArguments>),
    /// Watch interfaces from a terminal: findings live, or from a capture
    Watch(Box<watch::WatchArguments>),
    /// Ask now who answers for an address, a range or a pool: one owner, a conflict, or nobody
    Check(Box<check::CheckArguments>),
    /// Tell everything about one address on one screen: who has it, who should, since when, why, and what to do
    Explain(Box<explain::ExplainArguments>),
    /// Show the open conflicts that the daemon knows; ends with 1 if there are any
    Conflicts(conflicts::ConflictsArguments),
    /// Show which address is at which MAC, as the daemon knows it
    Bindings(bindings::BindingsArguments),
    /// Show what the daemon watches, and how
    Interfaces(interfaces::InterfacesArguments),
    /// Release the XDP slot for another program: the daemon continues with TC until it is restarted
    ReleaseXdp(release_xdp::ReleaseXdpArguments),
    /// Show the findings that the daemon remembers
    History(history::HistoryArguments),
    /// Check address pools as they are written down, before they are applied; needs no root and no network
    #[command(subcommand)]
    Pools(pools::PoolsCommand),
    /// Show where the cluster and the wire have drifted apart without a conflict; ends with 3 if they have
    Drift(drift::DriftStatusArguments),
    /// Make the daemon report a conflict that nobody has, to see who is told of a real one
    Drill(drill::DrillArguments),
    /// Print the completions for a shell
    Completions(completions::CompletionsArguments),
    /// Write the man pages
    #[command(hide = true)]
    Man(completions::ManArguments),
    /// Show what this host offers and what is missing: everything that a bug report needs
    Doctor(doctor::DoctorArguments),
}

/// Runs the command line that this process was started with.
pub fn main() -> ExitCode {
    // The one TLS implementation of the process. An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let result = match cli.command {
        CliCommand::Run(_) => run::run(Cli::command()),
        CliCommand::Watch(arguments) => watch::run(&arguments),
        CliCommand::Check(arguments) => check::run(&arguments),
        CliCommand::Explain(arguments) => explain::run(&arguments),
        CliCommand::Conflicts(arguments) => conflicts::run(&arguments),
        CliCommand::Bindings(arguments) => bindings::run(&arguments),
        CliCommand::Interfaces(arguments) => interfaces::run(&arguments),
        CliCommand::ReleaseXdp(arguments) => release_xdp::run(&arguments),
        CliCommand::History(arguments) => history::run(&arguments),
        CliCommand::Pools(command) => pools::run(&command),
        CliCommand::Drift(arguments) => drift::run(&arguments),
        CliCommand::Drill(arguments) => drill::run(&arguments),
        CliCommand::Completions(arguments) => completions::completions(Cli::command(), &arguments),
        CliCommand::Man(arguments) => completions::man(Cli::command(), &arguments),
        CliCommand::Doctor(arguments) => doctor::run(&arguments),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            exit::print_error(&error);
            Exit::Failed.into()
        }
    }
}
