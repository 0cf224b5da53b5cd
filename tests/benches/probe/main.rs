//! The benchmarks, in separate parts: the cost of a frame, the effect on other traffic, a storm, the comparison
//! with other programs, the latency, a scrape, and scans.
//!
//! `cargo xtask bench [NAME…]` installs the required programs and runs them. Every load is limited in number and
//! time and stays inside namespaces of the benchmark. Results are compared within one run, because ratios depend
//! less on the machine than absolute values.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "results are printed as numbers, and rounding errors are below their noise"
)]

mod check;
mod cpu;
mod frame_cost;
mod latency;
mod load;
mod machine;
mod peers;
mod report;
mod scrape;
mod storm;
mod subject;
mod traffic;

use std::{env, process::ExitCode};

use anyhow::{Result, bail};
use report::Section;

/// A benchmark: its name, and the function that returns its section.
type Part = (&'static str, fn() -> Result<Section>);

const PARTS: [Part; 7] = [
    ("frame-cost", frame_cost::run),
    ("latency", latency::run),
    ("storm", storm::run),
    ("peers", peers::run),
    ("scrape", scrape::run),
    ("traffic", traffic::run),
    ("check", check::run),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // cargo adds `--bench`.
    let wanted: Vec<_> = env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    for name in &wanted {
        if !PARTS.iter().any(|(part, _)| part == name) {
            let names: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
            bail!(
                "there is no benchmark {name}; there are {}",
                names.join(", ")
            );
        }
    }
    for (name, part) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            eprintln!("==> {name}");
            let shape = machine::shape()?;
            let section = part()?;
            println!("\n{}", section.text(&shape));
            report::write(name, &section.text(&shape))?;
        }
    }
    Ok(())
}
