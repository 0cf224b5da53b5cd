//! The real binary, on a host.

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
    counter_balance::Ledger,
    finding::Finding,
    host::{Host, INTERFACE},
    http::Response,
    metrics::Metrics,
    process::{Finished, Process, Stream},
    wait::eventually,
};

/// Where `probe run` serves its metrics. Every host has a loopback of its own, so they all use one port.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9790);

/// What is watched here, and how. By name: what the binary chooses by itself on a virtual network card is
/// a matter of its own.
const NATIVE: [&str; 4] = ["-i", INTERFACE, "--attach", "native"];

/// For the verifier, on a machine that is busy with other tests.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// For frames that are on their way.
const DIGEST_DEADLINE: Duration = Duration::from_secs(10);

/// For the way out.
const EXIT_DEADLINE: Duration = Duration::from_secs(10);

/// The binary under test: `$PROBE_BIN`, or what `cargo xtask build` makes.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("PROBE_BIN") {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            bail!("PROBE_BIN names {}, which is no file", path.display())
        };
    }
    let path = target_directory()?.join("release/probe");
    if !path.is_file() {
        bail!("there is no {}: run `cargo xtask build`", path.display());
    }
    Ok(path)
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> anyhow::Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("this crate has no workspace")?;
    Ok(env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), |target| workspace.join(target)))
}

impl Host {
    /// Runs a verb of the binary on this host.
    pub fn probe(&self, words: &[&str]) -> anyhow::Result<Process> {
        self.probe_under(&[], words)
    }

    /// The same by way of another program, which changes something about the process and then becomes it.
    pub fn probe_under(&self, wrapper: &[&str], words: &[&str]) -> anyhow::Result<Process> {
        let binary = binary()?;
        // A daemon's socket is the machine's, not the namespace's: without a place of its own it gets none.
        let socket = if words.first() == Some(&"run") {
            own_socket(words)
        } else {
            &[]
        };
        let wrapper = wrapper.iter().map(Path::new);
        let words = words.iter().chain(socket).map(Path::new);
        self.spawn(wrapper.chain([binary.as_path()]).chain(words))
    }

    /// Starts `probe run` on this host's network card, as an XDP program in its driver. Like every daemon here
    /// it only listens, unless `--active-probing` is among the options.
    pub fn daemon(&self, options: &[&str]) -> anyhow::Result<Daemon<'_>> {
        self.bare_daemon(&[&NATIVE[..], options].concat())
    }

    /// Starts `probe run` on an interface of this host, in a mode.
    pub fn daemon_on(&self, interface: &str, mode: &str) -> anyhow::Result<Daemon<'_>> {
        self.bare_daemon(&["-i", interface, "--attach", mode])
    }

    /// Starts `probe run` on this host; what it watches and how are among the options, or its own choice.
    pub fn bare_daemon(&self, options: &[&str]) -> anyhow::Result<Daemon<'_>> {
        self.daemon_under(&[], options)
    }

    /// The same by way of another program, which changes something about the process and then becomes it.
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

    /// Starts `probe watch` on this host's network card, as an XDP program in its driver, and waits until it
    /// sees frames both ways.
    pub fn watch(&self, options: &[&str]) -> anyhow::Result<Process> {
        self.bare_watch(&[&NATIVE[..], options].concat())
    }

    /// The same, where what it watches and how are among the options.
    pub fn bare_watch(&self, options: &[&str]) -> anyhow::Result<Process> {
        let process = self.probe(&[&["watch"], own_socket(options), options].concat())?;
        process.wait_for_line(Stream::Stderr, READY_DEADLINE, |line| {
            line.starts_with("watching ")
        })?;
        Ok(process)
    }

    /// Starts `probe run` with these options and waits until it sees frames.
    pub fn ready_bare_daemon(&self, options: &[&str]) -> anyhow::Result<Daemon<'_>> {
        let daemon = self.bare_daemon(options)?;
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Starts `probe run` on this host's network card and waits until it sees frames.
    pub fn ready_daemon(&self, options: &[&str]) -> anyhow::Result<Daemon<'_>> {
        let daemon = self.daemon(options)?;
        daemon.wait_until_ready()?;
        Ok(daemon)
    }
}

/// Network namespaces have one file system: without a word on the socket there is none, so that tests that
/// run side by side do not meet there.
fn own_socket(options: &[&str]) -> &'static [&'static str] {
    if options.contains(&"--socket") {
        &[]
    } else {
        &["--socket", "none"]
    }
}

/// Without a word on asking a daemon only listens, so that every frame that a test counts is the test's own.
fn only_listening(options: &[&str]) -> &'static [&'static str] {
    if options.contains(&"--active-probing") {
        &[]
    } else {
        &["--active-probing", "off"]
    }
}

/// `probe run` on a host.
#[derive(Debug)]
pub struct Daemon<'a> {
    host: &'a Host,
    process: Process,
}

impl Daemon<'_> {
    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until it says that it is attached.
    pub fn wait_until_ready(&self) -> anyhow::Result<()> {
        eventually("`probe run` to be ready", READY_DEADLINE, || {
            Ok(self.is_ready()?.then_some(()))
        })
    }

    /// Whether it says that it is attached. That it has ended is an error.
    pub fn is_ready(&self) -> anyhow::Result<bool> {
        if self.process.has_ended() {
            bail!("`probe run` ended:\n{}", self.process.said());
        }
        // Until it listens, there is nobody to ask.
        Ok(self.get("/readyz").is_ok_and(|answer| answer.status == 200))
    }

    /// Asks it for a page.
    pub fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.host.http_get(LISTEN, path)
    }

    /// Scrapes it.
    pub fn metrics(&self) -> anyhow::Result<Metrics> {
        let response = self.get("/metrics")?;
        if response.status != 200 {
            bail!("/metrics answered {response:?}");
        }
        Metrics::parse(&response.body)
    }

    /// Scrapes it until the scrape is as wished, and returns that one; `what` names the wish.
    pub fn wait_for_metrics(
        &self,
        what: &str,
        within: Duration,
        mut wish: impl FnMut(&Metrics) -> anyhow::Result<bool>,
    ) -> anyhow::Result<Metrics> {
        eventually(what, within, || {
            let metrics = self.metrics()?;
            Ok(wish(&metrics)?.then_some(metrics))
        })
    }

    /// Waits until it has counted this many frames that arrived, or more, and has digested what the kernel
    /// side handed to it. Returns the counts, which add up.
    pub fn wait_until_digested(&self, frames: u64) -> anyhow::Result<Ledger> {
        let what = format!("{frames} frames to be counted and digested");
        let ledger = eventually(&what, DIGEST_DEADLINE, || {
            let ledger = Ledger::read(&self.metrics()?, Direction::Ingress)?;
            Ok((ledger.frames >= frames && ledger.is_settled()).then_some(ledger))
        })
        .with_context(|| format!("the last scrape: {:?}", self.get("/metrics")))?;
        ledger.check()?;
        Ok(ledger)
    }

    /// Waits for a finding of this name on its standard output.
    pub fn wait_for_finding(&self, name: &str, within: Duration) -> anyhow::Result<Finding> {
        self.process
            .wait_for_finding(within, |found| found.finding == name)
    }

    /// The findings that it has reported so far.
    pub fn findings(&self) -> anyhow::Result<Vec<Finding>> {
        let lines = self.process.lines(Stream::Stdout);
        lines.iter().map(|line| Finding::parse(line)).collect()
    }

    /// Ends it as a service manager does, and waits for that.
    pub fn terminate(mut self) -> anyhow::Result<ExitStatus> {
        self.process.terminate()?;
        self.process.exit_status(EXIT_DEADLINE)
    }

    /// Ends it as a service manager does, and returns everything that it has written.
    pub fn finish(self) -> anyhow::Result<Finished> {
        self.process.terminate()?;
        self.process.finish(EXIT_DEADLINE)
    }

    /// Waits until it ends by itself, and returns everything that it has written.
    pub fn ended(self, within: Duration) -> anyhow::Result<Finished> {
        self.process.finish(within)
    }

    /// Ends it as Ctrl-C does, and waits for that.
    pub fn interrupt(mut self) -> anyhow::Result<ExitStatus> {
        self.process.interrupt()?;
        self.process.exit_status(EXIT_DEADLINE)
    }

    /// Ends it the hard way, and waits for that.
    pub fn kill(mut self) -> anyhow::Result<ExitStatus> {
        self.process.kill()?;
        self.process.exit_status(EXIT_DEADLINE)
    }
}

impl Process {
    /// Waits for a finding, as JSON on its standard output, that `wanted` accepts.
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
