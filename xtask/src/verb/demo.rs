//! `cargo xtask demo`: a duplicate address, made for real and found for real, in a few seconds.
//!
//! Everything that is shown happens: hosts in network namespaces, a ping, the release binary, its
//! findings and its metrics. Ctrl-C ends the story at any moment, and the lab goes with it.

#![allow(
    clippy::print_stdout,
    reason = "what is shown is what this verb is for"
)]

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
    CLIENT_ADDRESS, Duplicate, Host, INTERFACE, LISTEN, Lab, Process, SHARED_ADDRESS, Stream,
    eventually,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{
    host,
    programs::{self, Use},
    verb::build,
};

/// For each thing that the story waits for: much longer than it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// As a shell has it for a program that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// The lines of a scrape that tell the story: name, and a part of it.
const TELLING: [(&str, &str); 3] = [
    ("arp_monitor_claims_total", "ingress"),
    ("arp_monitor_open_conflicts", ""),
    ("arp_monitor_conflict_owners", ""),
];

const EXPLANATION: &str = "
What you saw

  The client asked the network: who has 192.0.2.10? Two machines answered. The
  ping got through all the same: the client keeps one answer and forgets the
  other. Its neighbour may keep the other one, and the client may, in a minute.
  That is why it works from here and not from there, and flips.

  probe saw both answers in the kernel, knew them for answers to one question,
  and named both machines. Where an address only moves to another machine, the
  old one has stopped answering, and there is no such report.

  `probe watch` is for a person at a terminal. `probe run` is for every node,
  all the time: Prometheus scrapes it, and arp_monitor_open_conflicts is what
  pages you.";

pub fn run() -> Result<ExitCode> {
    ensure!(
        host::is_root(),
        "the demo makes network namespaces and loads eBPF programs, which needs root: \
         run `sudo -E env \"PATH=$PATH\" cargo xtask demo`"
    );
    programs::ensure(&[Use::Demo])?;
    build::run()?;

    let interrupt = Interrupt::listen()?;
    // The lab lives and ends inside `tell`, so that the last line is true.
    let told = tell(&interrupt);
    if interrupt.has_come() {
        println!("\nInterrupted. The lab is gone, nothing is left of it.");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    told?;
    println!("\nThe lab is gone, nothing is left of it.");
    Ok(ExitCode::SUCCESS)
}

/// The story.
fn tell(interrupt: &Interrupt) -> Result<()> {
    let lab = Lab::new()?;
    let hosts = lab.three_hosts()?;
    introduce(&hosts);
    watch_live(&hosts.client, interrupt)?;
    scrape(&hosts.client, interrupt)?;
    println!("{EXPLANATION}");
    Ok(())
}

fn introduce(hosts: &Duplicate) {
    println!("\nOne switch, three hosts, one mistake\n");
    for (host, address, remark) in [
        (&hosts.client, CLIENT_ADDRESS, "   probe runs here"),
        (&hosts.server, SHARED_ADDRESS, ""),
        (&hosts.rival, SHARED_ADDRESS, "   the same address"),
    ] {
        println!("  {:<8} {address:<12} {}{remark}", host.name(), host.mac());
    }
}

/// First act, as a person at a terminal sees it.
fn watch_live(client: &Host, interrupt: &Interrupt) -> Result<()> {
    prompt(&format!("probe watch -i {INTERFACE} --attach native &"));
    let mut watch = client.watch(&[])?;
    interrupt.check()?;

    prompt(&format!("ping -c 3 {SHARED_ADDRESS}"));
    let asked = Instant::now();
    let mut ping = ping(client)?;
    let mut found = None;
    {
        let mut shown = [Shown::new(&ping), Shown::new(&watch)];
        interrupt.wait_for("the conflict to be found", || {
            shown.iter_mut().for_each(Shown::catch_up);
            if found.is_none() && reports_conflict(&watch) {
                found = Some(asked.elapsed());
            }
            Ok(found.filter(|_| ping.has_ended()))
        })?;
    }
    ping.exit_status(PATIENCE)?;
    if let Some(found) = found {
        println!("\nFound {} ms after ping was started.", found.as_millis());
    }
    watch.interrupt()?;
    watch.exit_status(PATIENCE)?;
    Ok(())
}

/// Second act, as Prometheus sees it.
fn scrape(client: &Host, interrupt: &Interrupt) -> Result<()> {
    prompt(&format!(
        "probe run -i {INTERFACE} --attach native --listen {LISTEN} &"
    ));
    let daemon = client.daemon(&[])?;
    interrupt.wait_for("`probe run` to be ready", || {
        Ok(daemon.is_ready()?.then_some(()))
    })?;

    prompt(&format!("ping -c 3 {SHARED_ADDRESS} > /dev/null"));
    client.forget_neighbours()?;
    let ping = ping(client)?;
    interrupt.wait_for("the conflict to be logged", || {
        Ok(reports_conflict(daemon.process()).then_some(()))
    })?;
    interrupt.wait_for("ping to end", || Ok(ping.has_ended().then_some(())))?;

    prompt(&format!("curl http://{LISTEN}/metrics"));
    for line in daemon.get("/metrics")?.body.lines() {
        if TELLING
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

/// Whether a line of a scrape is a sample of just this metric.
fn is_sample(line: &str, name: &str) -> bool {
    line.strip_prefix(name)
        .is_some_and(|rest| rest.starts_with(['{', ' ']))
}

/// What is typed on the client.
fn prompt(line: &str) {
    println!("\nclient# {line}");
}

/// A process's output, and how much of it has been shown.
struct Shown<'a> {
    process: &'a Process,
    lines: usize,
}

impl<'a> Shown<'a> {
    fn new(process: &'a Process) -> Self {
        Self { process, lines: 0 }
    }

    /// Shows what is new.
    fn catch_up(&mut self) {
        for line in &self.process.lines(Stream::Stdout)[self.lines..] {
            println!("{}", indented(line));
            self.lines += 1;
        }
    }
}

fn indented(line: &str) -> String {
    format!("  {line}").trim_end().to_owned()
}

/// Ctrl-C and its relatives, as a flag: the story stops where it waits, and what it holds is dropped.
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn listen() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<()> {
        if self.has_come() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits for something in the story, or for the person who has seen enough.
    fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        eventually(what, PATIENCE, || {
            self.check()?;
            look()
        })
    }
}
