//! Starts the `probe` binary on a host.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, bail};
use probe_common::counter::Direction;

use crate::{
    counter_balance::CounterBalance,
    finding::Finding,
    host::{Host, INTERFACE},
    http::Response,
    metrics::Metrics,
    process::{Finished, Process, Stream},
    wait::eventually,
};

/// The address on which `probe run` serves its metrics. Every host has its own loopback interface, so all daemons
/// use the same port.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9790);

/// Options that select the interface and the attach mode explicitly, so that tests do not depend on the mode that
/// the daemon would choose on a veth.
const NATIVE: [&str; 4] = ["-i", INTERFACE, "--attach", "native"];

/// Timeout for loading and attaching the programs on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// Timeout for frames that are in flight.
const PROCESSING_DEADLINE: Duration = Duration::from_secs(10);

/// Timeout for a shutdown.
const EXIT_DEADLINE: Duration = Duration::from_secs(10);

/// The binary under test: `$PROBE_BIN`, or the output of `cargo xtask build`.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("PROBE_BIN") {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            bail!("PROBE_BIN names {}, which is not a file", path.display())
        };
    }
    let path = target_directory()?.join("release/probe");
    if !path.is_file() {
        bail!("there is no {}: run `cargo xtask build`", path.display());
    }
    Ok(path)
}

/// The target directory of cargo.
pub(crate) fn target_directory() -> anyhow::Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("this crate has no workspace")?;
    Ok(env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), |target| workspace.join(target)))
}

impl Host {
    /// Runs a subcommand of `probe` on this host.
    pub fn probe(&self, words: &[&str]) -> anyhow::Result<Process> {
        self.probe_under(&[], words)
    }

    /// Runs a subcommand of `probe` through a wrapper program that changes the process and then executes it.
    pub fn probe_under(&self, wrapper: &[&str], words: &[&str]) -> anyhow::Result<Process> {
        let binary = binary()?;
        // The Unix socket is in the file system, which all namespaces share: without an explicit path, the socket
        // is disabled.
        let socket = if words.first() == Some(&"run") {
            own_socket(words)
        } else {
            &[]
        };
        let wrapper = wrapper.iter().map(Path::new);
        let words = words.iter().chain(socket).map(Path::new);
        self.spawn(wrapper.chain([binary.as_path()]).chain(words))
    }

    /// Starts `probe run` on this host's interface with native XDP. Active probing is off unless `--active-probing`
    /// is among the options.
    pub fn daemon(&self, options: &[&str]) -> anyhow::Result<Daemon<'_>> {
        self.bare_daemon(&[&NATIVE[..], options].concat())
    }

    /// Starts `probe run` on one interface of this host in the given attach mode.
    pub fn daemon_on(&self, interface: &str, mode: &str) -> anyhow::Result<Daemon<'_>> {
        self.bare_daemon(&["-i", interface, "--attach", mode])
    }

    /// Starts `probe run` on this host. The options may select interfaces and attach mode; otherwise the daemon
    /// chooses.
    pub fn bare_daemon(&self, options: &[&str]) -> anyhow::Result<Daemon<'_>> {
        self.daemon_under(&[], options)
    }

    /// Starts `probe run` through a wrapper program that changes the process and then executes it.
    pub fn daemon_under(&self, wrapper: &[&str], options: &[&str]) -> anyhow::Result<Daemon<'_>> {
        let listen = LISTEN.to_string();
        let mut words = vec!["run", "--listen", &listen];
        words.extend(only_listening(options));
        words.extend(options);
        Ok(Daemon {
            host: self,
            process: self.probe_under(wrapper, &words)?,
        })
    }

    /// Starts `probe watch` on this host's interface with native XDP and waits until it receives frames in both
    /// directions.
    pub fn watch(&self, options: &[&str]) -> anyhow::Result<Process> {
        self.bare_watch(&[&NATIVE[..], options].concat())
    }

    /// Starts `probe watch` with these options, without a default for interface and attach mode.
    pub fn bare_watch(&self, options: &[&str]) -> anyhow::Result<Process> {
        let process = self.probe(&[&["watch"], own_socket(options), options].concat())?;
        process.wait_for_line(Stream::Stderr, READY_DEADLINE, |line| {
            line.starts_with("watching ")
        })?;
        Ok(process)
    }

    /// Starts `probe run` with these options and waits until it is ready.
    pub fn ready_bare_daemon(&self, options: &[&str]) -> anyhow::Result<Daemon<'_>> {
        let daemon = self.bare_daemon(options)?;
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Starts `probe run` on this host's interface and waits until it is ready.
    pub fn ready_daemon(&self, options: &[&str]) -> anyhow::Result<Daemon<'_>> {
        let daemon = self.daemon(options)?;
        daemon.wait_until_ready()?;
        Ok(daemon)
    }
}

/// Disables the Unix socket unless the options name one: network namespaces share one file system, and parallel
/// tests would use the same path.
fn own_socket(options: &[&str]) -> &'static [&'static str] {
    if options.contains(&"--socket") {
        &[]
    } else {
        &["--socket", "none"]
    }
}

/// Disables active probing unless the options mention it, so that a test counts only the frames that it sent.
fn only_listening(options: &[&str]) -> &'static [&'static str] {
    if options.contains(&"--active-probing") {
        &[]
    } else {
        &["--active-probing", "off"]
    }
}

/// A `probe run` process on a host.
#[derive(Debug)]
pub struct Daemon<'a> {
    host: &'a Host,
    process: Process,
}

impl Daemon<'_> {
    /// The process of the daemon.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until the daemon is ready.
    pub fn wait_until_ready(&self) -> anyhow::Result<()> {
        eventually("`probe run` to be ready", READY_DEADLINE, || {
            Ok(self.is_ready()?.then_some(()))
        })
    }

    /// Whether the daemon is ready.
    pub fn is_ready(&self) -> anyhow::Result<bool> {
        if self.process.has_ended() {
            bail!("`probe run` ended:\n{}", self.process.written_output());
        }
        // The connection is refused until the daemon listens.
        Ok(self
            .get("/readyz")
            .is_ok_and(|response| response.status == 200))
    }

    /// Sends an HTTP GET request to the daemon.
    pub fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.host.http_get(LISTEN, path)
    }

    /// Scrapes the metrics.
    pub fn metrics(&self) -> anyhow::Result<Metrics> {
        let response = self.get("/metrics")?;
        if response.status != 200 {
            bail!("unexpected response to /metrics: {response:?}");
        }
        Metrics::parse(&response.body)
    }

    /// Scrapes the metrics until they meet the condition and returns that scrape; `what` describes the condition in
    /// the error message.
    pub fn wait_for_metrics(
        &self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&Metrics) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Metrics> {
        eventually(what, within, || {
            let metrics = self.metrics()?;
            Ok(condition(&metrics)?.then_some(metrics))
        })
    }

    /// Waits until the daemon has counted at least this many received frames and has processed all emitted events.
    /// Returns the counters, which add up.
    pub fn wait_until_processed(&self, frames: u64) -> anyhow::Result<CounterBalance> {
        let what = format!("{frames} frames to be counted and processed");
        let balance = eventually(&what, PROCESSING_DEADLINE, || {
            let balance = CounterBalance::read(&self.metrics()?, Direction::Ingress)?;
            Ok((balance.frames >= frames && balance.is_settled()).then_some(balance))
        })
        .with_context(|| format!("the last scrape: {:?}", self.get("/metrics")))?;
        balance.check()?;
        Ok(balance)
    }

    /// Waits for a finding with this name on standard output.
    pub fn wait_for_finding(&self, name: &str, within: Duration) -> anyhow::Result<Finding> {
        self.process
            .wait_for_finding(within, |found| found.finding == name)
    }

    /// The findings that the daemon has printed so far.
    pub fn findings(&self) -> anyhow::Result<Vec<Finding>> {
        let lines = self.process.lines(Stream::Stdout);
        lines.iter().map(|line| Finding::parse(line)).collect()
    }

    /// Sends SIGTERM, as a service manager does, and waits for the exit status.
    pub fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        self.process.terminate()?;
        self.process.exit_status(EXIT_DEADLINE)
    }

    /// Sends SIGTERM, as a service manager does, and returns status and output.
    pub fn finish(self) -> anyhow::Result<Finished> {
        self.process.terminate()?;
        self.process.finish(EXIT_DEADLINE)
    }

    /// Waits until the daemon exits by itself and returns status and output.
    pub fn ended(self, within: Duration) -> anyhow::Result<Finished> {
        self.process.finish(within)
    }

    /// Sends SIGINT, as Ctrl-C does, and waits for the exit status.
    pub fn interrupt(mut self) -> anyhow::Result<ExitStatus> {
        self.process.interrupt()?;
        self.process.exit_status(EXIT_DEADLINE)
    }

    /// Sends SIGKILL and waits for the exit status.
    pub fn kill(mut self) -> anyhow::Result<ExitStatus> {
        self.process.kill()?;
        self.process.exit_status(EXIT_DEADLINE)
    }
}

impl Process {
    /// Waits for a JSON finding on standard output that `wanted` accepts.
    pub fn wait_for_finding(
        &self,
        within: Duration,
        mut wanted: impl FnMut(&Finding) -> bool,
    ) -> anyhow::Result<Finding> {
        self.wait_for(Stream::Stdout, within, |line| match Finding::parse(line) {
            Ok(finding) => wanted(&finding).then_some(Ok(finding)),
            Err(error) => Some(Err(error)),
        })?
    }
}
