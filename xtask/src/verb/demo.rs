//! `cargo xtask demo`: creates a duplicate address and shows how probe finds it, in a few seconds.
//!
//! Nothing is simulated: hosts in network namespaces, a ping, the release binary, its findings and its metrics.
//! Ctrl-C ends the demo at any time and removes the lab.

#![allow(clippy::print_stdout, reason = "printing is the purpose of this verb")]

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use probe_tests::{
    CLIENT_ADDRESS, Host, INTERFACE, LISTEN, Lab, Process, SHARED_ADDRESS, Stream, ThreeHosts,
    eventually,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{
    host,
    programs::{self, Use},
    verb::build,
};

/// Timeout for each step of the demo.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The exit status of a shell for a program that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// The lines of the scrape that are shown: name, and a part of it.
const SHOWN_SAMPLES: [(&str, &str); 3] = [
    ("arp_monitor_claims_total", "ingress"),
    ("arp_monitor_open_conflicts", ""),
    ("arp_monitor_conflict_owners", ""),
];

const EXPLANATION: &str = "
Result

  The client sent an ARP request: who has 192.0.2.10? Two hosts replied. The ping
  succeeded anyway: the client keeps one reply and discards the other. Another
  client may keep the other reply, and so may this one in a minute. That is why
  the address works for one client, fails for another, and changes.

  probe observed both replies in the kernel, matched them to one request, and
  reported both hosts. When an address only moves to another host, the previous
  host no longer replies, and there is no such finding.

  `probe watch` is for interactive use. `probe run` is the daemon for every node:
  Prometheus scrapes it, and the alerts use arp_monitor_open_conflicts.";

pub fn run() -> Result<ExitCode> {
    ensure!(
        host::is_root(),
        "the demo makes network namespaces and loads eBPF programs, which needs root: \
         run `sudo -E env \"PATH=$PATH\" cargo xtask demo`"
    );
    programs::ensure(&[Use::Demo])?;
    build::run()?;

    let interrupt = Interrupt::listen()?;
    // The lab is dropped inside `demonstrate`, so that the last line is true.
    let demonstrated = demonstrate(&interrupt);
    if interrupt.is_set() {
        println!("\nInterrupted. The test network has been removed.");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    demonstrated?;
    println!("\nThe test network has been removed.");
    Ok(ExitCode::SUCCESS)
}

/// Runs the demo.
fn demonstrate(interrupt: &Interrupt) -> Result<()> {
    let lab = Lab::new()?;
    let hosts = lab.three_hosts()?;
    print_network(&hosts);
    watch_live(&hosts.client, interrupt)?;
    scrape(&hosts.client, interrupt)?;
    println!("{EXPLANATION}");
    Ok(())
}

fn print_network(hosts: &ThreeHosts) {
    println!("\nOne switch, three hosts, one duplicate address\n");
    for (host, address, remark) in [
        (&hosts.client, CLIENT_ADDRESS, "   probe runs here"),
        (&hosts.server, SHARED_ADDRESS, ""),
        (&hosts.duplicate, SHARED_ADDRESS, "   the same address"),
    ] {
        println!("  {:<8} {address:<12} {}{remark}", host.name(), host.mac());
    }
}

/// First part: `probe watch` in a terminal.
fn watch_live(client: &Host, interrupt: &Interrupt) -> Result<()> {
    prompt(&format!("probe watch -i {INTERFACE} --attach native &"));
    let mut watch = client.watch(&[])?;
    interrupt.check()?;

    prompt(&format!("ping -c 3 {SHARED_ADDRESS}"));
    let started = Instant::now();
    let mut ping = ping(client)?;
    let mut found = None;
    {
        let mut shown = [Shown::new(&ping), Shown::new(&watch)];
        interrupt.wait_for("the conflict to be found", || {
            shown.iter_mut().for_each(Shown::print_new_lines);
            if found.is_none() && reports_conflict(&watch) {
                found = Some(started.elapsed());
            }
            Ok(found.filter(|_| ping.has_ended()))
        })?;
    }
    ping.exit_status(TIMEOUT)?;
    if let Some(found) = found {
        println!("\nFound {} ms after ping was started.", found.as_millis());
    }
    watch.interrupt()?;
    watch.exit_status(TIMEOUT)?;
    Ok(())
}

/// Second part: the metrics for Prometheus.
fn scrape(client: &Host, interrupt: &Interrupt) -> Result<()> {
    prompt(&format!(
        "probe run -i {INTERFACE} --attach native --listen {LISTEN} &"
    ));
    let daemon = client.daemon(&[])?;
    interrupt.wait_for("`probe run` to be ready", || {
        Ok(daemon.is_ready()?.then_some(()))
    })?;

    prompt(&format!("ping -c 3 {SHARED_ADDRESS} > /dev/null"));
    client.flush_neighbours()?;
    let ping = ping(client)?;
    interrupt.wait_for("the conflict to be logged", || {
        Ok(reports_conflict(daemon.process()).then_some(()))
    })?;
    interrupt.wait_for("ping to end", || Ok(ping.has_ended().then_some(())))?;

    prompt(&format!("curl http://{LISTEN}/metrics"));
    for line in daemon.get("/metrics")?.body.lines() {
        if SHOWN_SAMPLES
            .iter()
            .any(|(name, part)| is_sample(line, name) && line.contains(part))
        {
            println!("{}", indented(line));
        }
    }
    println!("  …");
    Ok(())
}

fn ping(client: &Host) -> Result<Process> {
    client.spawn(["ping", "-c", "3", "-i", "0.3", SHARED_ADDRESS])
}

fn reports_conflict(process: &Process) -> bool {
    process
        .lines(Stream::Stdout)
        .iter()
        .any(|line| line.contains("conflict"))
}

/// Whether a line of a scrape is a sample of exactly this metric.
fn is_sample(line: &str, name: &str) -> bool {
    line.strip_prefix(name)
        .is_some_and(|rest| rest.starts_with(['{', ' ']))
}

/// Prints a command of the client.
fn prompt(line: &str) {
    println!("\nclient# {line}");
}

/// The output of a process, and the number of lines that were printed.
struct Shown<'a> {
    process: &'a Process,
    lines: usize,
}

impl<'a> Shown<'a> {
    fn new(process: &'a Process) -> Self {
        Self { process, lines: 0 }
    }

    /// Prints new lines.
    fn print_new_lines(&mut self) {
        for line in &self.process.lines(Stream::Stdout)[self.lines..] {
            println!("{}", indented(line));
            self.lines += 1;
        }
    }
}

fn indented(line: &str) -> String {
    format!("  {line}").trim_end().to_owned()
}

/// A flag that Ctrl-C and other signals set: the demo stops at its next wait and drops its resources.
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn listen() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<()> {
        if self.is_set() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits for a condition or for the interrupt.
    fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        eventually(what, TIMEOUT, || {
            self.check()?;
            look()
        })
    }
}
