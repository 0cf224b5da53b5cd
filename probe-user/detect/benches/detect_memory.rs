//! What a binding and an open conflict cost in memory, as the growth of the process.
//!
//! `cargo bench -p probe-user --bench detect_memory`
#![allow(
    clippy::print_stdout,
    reason = "the output is the point of this program"
)]

mod support;

use std::{fs, io};

use support::{at, detector, observe, reply_by};

fn main() -> io::Result<()> {
    for bindings in [65_536, 1_000_000] {
        let before = resident()?;
        let bench_detector = detector(bindings);
        let grown = resident()?.saturating_sub(before);
        println!(
            "{bindings} bindings: {} bytes each",
            grown / u64::from(bindings)
        );
        drop(bench_detector);
    }

    let conflicts = 100_000;
    let mut detector = detector(conflicts);
    let before = resident()?;
    let mut findings = Vec::new();
    for number in 0..conflicts {
        let requested_at = at(conflicts + number);
        for owner in [0, 1] {
            observe(
                &mut detector,
                reply_by(requested_at, number, owner, requested_at),
                &mut findings,
            );
        }
        findings.clear();
    }
    let grown = resident()?.saturating_sub(before);
    let open = detector.statistics().open_conflicts;
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
