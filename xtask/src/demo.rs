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

use anyhow::{Context as _, Result, bail};
use probe_tests::{
    Daemon, Duplicate, Host, INTERFACE, LISTEN, Lab, Process, SHARED_ADDRESS, Stream, eventually,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// For each thing that the story waits for: much longer than it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// As a shell has it for a program that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// The lines of a scrape that tell the story.
const TELLING: [&str; 4] = [
    "arp_monitor_claims_total{direction=\"ingress\"",
    "arp_monitor_findings_total{finding=\"conflict\"}",
    "arp_monitor_open_conflicts ",
    "arp_monitor_conflict_owners{",
];

const EXPLANATION: &str = "
What you see

  The client asked the network once: who has 192.0.2.10? Two machines said
  \"I have\". The ping got through all the same: the client took one answer
  and forgot the other. Its neighbour may take the other one, and so may the
  client itself in a minute. \"It works from here but not from there.\"

  probe saw both answers in the kernel, tied them to the one question, and
  named both machines. Owners that hand an address over (a failover) are
  never heard answering the same question, so they are not reported like this.

  `probe watch` is for people at a terminal. `probe run` is for every node all
  the time: Prometheus scrapes it, and arp_monitor_open_conflicts pages you.";

pub fn run() -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    // The lab lives and ends inside `tell`, so that the last line is true.
    match tell(&interrupt) {
        Err(_) if interrupt.has_come() => {
            println!("\nInterrupted. The lab is gone, nothing is left of it.");
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error) => Err(error),
        Ok(()) => {
            println!("\nThe lab is gone, nothing is left of it.");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The story.
fn tell(interrupt: &Interrupt) -> Result<()> {
    let lab = Lab::new()?;
    let hosts = lab.three_hosts()?;
    introduce(&hosts);

    let daemon = start_daemon(&hosts.client, interrupt)?;
    let watch = start_watch(&hosts.client, interrupt)?;
    ask(&hosts.client, &watch, interrupt)?;
    show_metrics(&daemon)?;
    println!("{EXPLANATION}");
    Ok(())
}

fn introduce(hosts: &Duplicate) {
    let row = |host: &Host, address: &str, remark: &str| {
        println!(
            "  {:<8} {:<12} {}   {remark}",
            host.name(),
            address,
            host.mac()
        );
    };
    println!("\nOne switch, three hosts, one mistake\n");
    row(&hosts.client, "192.0.2.1", "probe runs here");
    row(&hosts.server, SHARED_ADDRESS, "");
    row(&hosts.rival, SHARED_ADDRESS, "the same address");
}

fn start_daemon<'a>(client: &'a Host, interrupt: &Interrupt) -> Result<Daemon<'a>> {
    command(&format!("probe run -i {INTERFACE} --listen {LISTEN}"));
    let daemon = client.daemon(&[])?;
    interrupt.wait_for("`probe run` to be ready", || {
        Ok(daemon.is_ready()?.then_some(()))
    })?;
    println!("  ready");
    Ok(daemon)
}

fn start_watch(client: &Host, interrupt: &Interrupt) -> Result<Process> {
    command(&format!("probe watch -i {INTERFACE} --attach tc"));
    let watch = client.probe(&["watch", "-i", INTERFACE, "--attach", "tc"])?;
    Ok(watch)
}

/// Lets the client ping the address, and shows what ping and probe say in the order in which they do.
fn ask(client: &Host, watch: &Process, interrupt: &Interrupt) -> Result<()> {
    command(&format!("ping -c 3 {SHARED_ADDRESS}"));
    let asked = Instant::now();
    let ping = client.spawn(["ping", "-c", "3", "-i", "0.5", SHARED_ADDRESS])?;
    let mut shown = [
        Shown::new("  ", &ping),
        Shown::new("  probe watch: ", watch),
    ];
    let mut found = None;
    interrupt.wait_for("the conflict to be found", || {
        shown.iter_mut().for_each(Shown::catch_up);
        found = found.or_else(|| {
            let lines = watch.lines(Stream::Stdout);
            lines
                .iter()
                .any(|line| line.contains("conflict"))
                .then(|| asked.elapsed())
        });
        Ok(found.filter(|_| ping.has_ended()))
    })?;
    let found = found.context("a conflict")?;
    println!(
        "\n  found {:.1} ms after ping was started",
        found.as_secs_f64() * 1000.0
    );
    Ok(())
}

fn show_metrics(daemon: &Daemon<'_>) -> Result<()> {
    command(&format!("curl -s http://{LISTEN}/metrics | grep …"));
    for line in daemon.get("/metrics")?.body.lines() {
        if TELLING.iter().any(|start| line.starts_with(start)) {
            println!("  {line}");
        }
    }
    Ok(())
}

/// What is typed on the client.
fn command(line: &str) {
    println!("\nclient# {line}");
}

/// A process's output, and how much of it has been shown.
struct Shown<'a> {
    margin: &'static str,
    process: &'a Process,
    lines: usize,
}

impl<'a> Shown<'a> {
    fn new(margin: &'static str, process: &'a Process) -> Self {
        Self {
            margin,
            process,
            lines: 0,
        }
    }

    /// Shows what is new.
    fn catch_up(&mut self) {
        for line in &self.process.lines(Stream::Stdout)[self.lines..] {
            println!("{}{line}", self.margin);
            self.lines += 1;
        }
    }
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

    /// Waits for something in the story, or for the person who has seen enough.
    fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        eventually(what, PATIENCE, || {
            if self.has_come() {
                bail!("interrupted");
            }
            look()
        })
    }
}
