//! The tasks of this repository: `cargo xtask setup | build | demo | lint | test | bench | image | dist | manifests
//! | run | fresh-root`.
//!
//! Each verb first runs the steps that it depends on.

mod apt;
mod archive;
mod cache;
mod dashboard_tools;
mod ebpf;
mod executions;
mod host;
mod image;
mod kernels;
mod kube_apiserver;
mod manifests;
mod policy;
mod programs;
mod python_tools;
mod required_packages;
mod stages;
mod step;
mod test_totals;
mod toolchain;
mod unpacked;
mod verb;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;

/// Builds, checks and runs probe.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
enum Verb {
    /// Find or install what building and testing needs
    Setup,
    /// Build target/release/probe, the eBPF programs included
    Build,
    /// Show probe finding a duplicate address, in a network of namespaces (needs root)
    Demo,
    /// Check formatting, lints and documentation, of both sides
    Lint,
    /// Lint, then run every test against the release build (needs root)
    Test {
        /// Whether this is the process in the PID namespace
        #[arg(long, hide = true)]
        in_namespace: bool,
    },
    /// Run a command on a clean clone in a minimal Debian system (needs root)
    FreshRoot {
        /// Keep the system in this directory, or use the existing one
        #[arg(long, value_name = "DIRECTORY")]
        keep: Option<PathBuf>,
        /// The command, such as `cargo xtask demo`
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<OsString>,
    },
    /// Run the tests that guests can run on other kernels under QEMU (all of the matrix, or these)
    Kernels {
        /// A version, like 6.12
        versions: Vec<String>,
    },
    /// Measure what frames cost, a storm, latency, a scrape and other programs; writes docs/benchmarks.md (needs root)
    Bench {
        /// Only these: frame-cost, latency, storm, peers, scrape, traffic
        names: Vec<String>,
    },
    /// Build the container image, into target/image
    Image,
    /// Build the release files in target/dist: archives of the binary, the image and the chart
    Dist,
    /// Write the manifests in deploy/kubernetes and deploy/kustomize, from the Helm chart
    Manifests,
    /// Build, then run probe with these arguments
    Run {
        /// The arguments of probe
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match perform(Verb::parse()) {
        Ok(status) => status,
        // Print it here instead of returning it: with RUST_BACKTRACE set, the next step would be lost between stack
        // frames.
        Err(error) => {
            step::log(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup => verb::setup::run()?,
        Verb::Build => verb::build::run()?,
        Verb::Demo => return verb::demo::run(),
        Verb::Lint => verb::lint::run()?,
        Verb::Test { in_namespace } => return verb::test::run(in_namespace),
        Verb::FreshRoot { keep, command } => return verb::fresh_root::run(keep, &command),
        Verb::Kernels { versions } => return verb::kernels::run(versions),
        Verb::Bench { names } => verb::bench::run(&names)?,
        Verb::Image => verb::image::run()?,
        Verb::Dist => verb::dist::run()?,
        Verb::Manifests => verb::manifests::run()?,
        Verb::Run { arguments } => verb::run::run(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
