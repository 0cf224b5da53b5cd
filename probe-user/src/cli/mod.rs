//! The command line, with one file for each command.

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
                        4 failed or incomplete."
)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the daemon: watch interfaces, serve metrics over HTTP, log conflicts as JSON lines
    Run(Box<run::RunArguments>),
    /// Show findings live, or from a capture
    Watch(Box<watch::WatchArguments>),
    /// Send ARP probes for addresses, ranges or pools and list the replies
    Check(Box<check::CheckArguments>),
    /// Explain one address: its owners, expected owner, history, likely cause and next steps
    Explain(Box<explain::ExplainArguments>),
    /// Show the open conflicts of this node; exits 1 if there are any
    Conflicts(conflicts::ConflictsArguments),
    /// Show the known addresses of the daemon with their owners
    Bindings(bindings::BindingsArguments),
    /// Show the interfaces that the daemon watches, and how
    Interfaces(interfaces::InterfacesArguments),
    /// Release the XDP slot for another program: the daemon continues with TC until it is restarted
    ReleaseXdp(release_xdp::ReleaseXdpArguments),
    /// Show the last findings of the daemon
    History(history::HistoryArguments),
    /// Check address pools in manifests and live clusters; needs no root
    #[command(subcommand)]
    Pools(pools::PoolsCommand),
    /// Show drift between the Kubernetes objects and the network; exits 3 if there is any
    Drift(drift::DriftStatusArguments),
    /// Make the daemon report a simulated conflict, to test alerts and notifications
    Drill(drill::DrillArguments),
    /// Print shell completions
    Completions(completions::CompletionsArguments),
    /// Write the man pages
    #[command(hide = true)]
    Man(completions::ManArguments),
    /// Check the requirements on this host, also for bug reports
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use clap::Command;

    use super::*;

    /// The long flags of a command and of its verbs.
    fn flags(command: &Command) -> BTreeSet<String> {
        let own = command.get_arguments().filter_map(|flag| flag.get_long());
        let own = own.map(str::to_owned);
        own.chain(command.get_subcommands().flat_map(flags))
            .collect()
    }

    #[test]
    fn every_flag_in_the_documentation_exists() {
        let mut known = flags(&Cli::command());
        known.extend(["help", "version"].map(str::to_owned));
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let mut checked = 0;
        for entry in fs::read_dir(docs).unwrap() {
            let path = entry.unwrap().path();
            // Benchmarks run other programs, and so does the page about building.
            let is_of_other_programs =
                ["benchmarks.md", "development.md"].map(|name| path.ends_with(name));
            if path.extension().is_none_or(|extension| extension != "md")
                || is_of_other_programs.contains(&true)
            {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let prose: String = text.split("```").step_by(2).collect();
            for span in prose.split('`').skip(1).step_by(2) {
                let Some(flag) = span.strip_prefix("--") else {
                    continue;
                };
                let flag = flag.split([' ', '=', ',']).next().unwrap();
                checked += 1;
                assert!(known.contains(flag), "{}: --{flag}", path.display());
            }
        }
        assert!(checked > 100, "{checked}");
    }
}
