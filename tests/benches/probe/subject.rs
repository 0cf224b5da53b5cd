//! The `probe` process that is measured.

use std::{path::Path, time::Duration};

use anyhow::Result;
use probe_common::counter::Direction;
use probe_tests::{
    CounterBalance, Host, INTERFACE, LISTEN, Metrics, Process, Stream, binary, eventually,
};

/// Timeout for loading and attaching.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// Starts a subcommand that attaches in `mode`, and waits until it is ready.
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
    process.wait_for_line(Stream::Stderr, READY_TIMEOUT, |line| {
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

/// Waits until the daemon has processed this many received frames, and returns its counters, which add up.
pub fn wait_until_processed(host: &Host, frames: u64) -> Result<CounterBalance> {
    let mut last = CounterBalance::default();
    let balance = eventually(
        "the frames to be counted and processed",
        Duration::from_mins(1),
        || {
            last = CounterBalance::read(&scrape(host)?, Direction::Ingress)?;
            Ok((last.frames >= frames && last.is_settled()).then_some(last))
        },
    );
    let balance = balance.map_err(|error| {
        error.context(format!("{frames} frames arrived, last scrape: {last:?}"))
    })?;
    balance.check()?;
    Ok(balance)
}

fn scrape(host: &Host) -> Result<Metrics> {
    Metrics::parse(&host.http_get(LISTEN, "/metrics")?.body)
}
