//! What a binding and an open conflict cost in memory, as the growth of the process.
//!
//! `cargo bench -p probe-user --bench detect_memory`
#![allow(
    clippy::print_stdout,
    reason = "the output is the point of this program"
)]

mod support;

use std::{fs, io};

use support::{answer, at, detector, observe};

fn main() -> io::Result<()> {
    for bindings in [65_536, 1_000_000] {
        let before = resident()?;
        let machine = detector(bindings);
        let grown = resident()?.saturating_sub(before);
        println!(
            "{bindings} bindings: {} bytes each",
            grown / u64::from(bindings)
        );
        drop(machine);
    }

    let conflicts = 100_000;
    let mut machine = detector(conflicts);
    let before = resident()?;
    let mut findings = Vec::new();
    for number in 0..conflicts {
        let asked = at(conflicts + number);
        for owner in [0, 1] {
            observe(
                &mut machine,
                answer(asked, number, owner, asked),
                &mut findings,
            );
        }
        findings.clear();
    }
    let grown = resident()?.saturating_sub(before);
    let open = machine.statistics().open_conflicts;
    println!(
        "{open} open conflicts: {} bytes each, beyond the binding",
        grown / u64::from(conflicts)
    );
    Ok(())
}

/// Resident memory of this process in bytes (proc(5), `VmRSS`, which is in KiB).
fn resident() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| io::Error::other("/proc/self/status has no VmRSS"))
}
