//! The binary that is measured.

use std::{path::Path, time::Duration};

use anyhow::Result;
use probe_common::counter::Direction;
use probe_tests::{Host, INTERFACE, LISTEN, Ledger, Metrics, Process, Stream, binary, eventually};

/// Until it has loaded and attached.
const READY: Duration = Duration::from_mins(1);

/// Starts a verb that attaches by `mode`, and waits until it watches.
pub fn start(host: &Host, verb: &str, mode: &str, options: &[&str]) -> Result<Process> {
    let binary = binary()?;
    let words = ["env", "RUST_LOG=info"].map(Path::new);
    let verb = [verb, "-i", INTERFACE, "--attach", mode].map(Path::new);
    let process = host.spawn(
        words
            .into_iter()
            .chain([binary.as_path()])
            .chain(verb)
            .chain(options.iter().map(Path::new)),
    )?;
    process.wait_for_line(Stream::Stderr, READY, |line| {
        line.contains("interface is watched")
    })?;
    Ok(process)
}

/// Starts the daemon.
pub fn daemon(host: &Host, mode: &str, options: &[&str]) -> Result<Process> {
    let listen = LISTEN.to_string();
    let options = [&["--listen", &listen], options].concat();
    start(host, "run", mode, &options)
}

/// Waits until the daemon has digested this many frames that arrived, and returns its counts, which add up.
pub fn digested(host: &Host, frames: u64) -> Result<Ledger> {
    let mut last = Ledger::default();
    let ledger = eventually(
        "the frames to be counted and digested",
        Duration::from_mins(1),
        || {
            last = Ledger::read(&scrape(host)?, Direction::Ingress)?;
            Ok((last.frames >= frames && last.is_settled()).then_some(last))
        },
    );
    let ledger = ledger.map_err(|error| {
        error.context(format!("{frames} frames arrived, last scrape: {last:?}"))
    })?;
    ledger.check()?;
    Ok(ledger)
}

fn scrape(host: &Host) -> Result<Metrics> {
    Metrics::parse(&host.http_get(LISTEN, "/metrics")?.body)
}
