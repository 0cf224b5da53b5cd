//! The same traffic monitored by other ARP monitors, one after the other.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use probe_tests::{Host, INTERFACE, Lab, Process, Stream};

use crate::{
    cpu,
    cpu::Machine,
    load,
    load::PLANTED,
    report::Section,
    storm::{conflicts, ip},
    subject,
};

const RATE: u64 = 100_000;
const ADDRESSES: usize = 10_000;
const DURATION: Duration = Duration::from_secs(10);
const ROUNDS: usize = 2;

/// Timeout for a program to start, and to write its results when it exits.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watcher {
    Baseline,
    TcpdumpToFile,
    TcpdumpDecoding,
    Arpwatch,
    Arpalert,
    Probe(&'static str),
}

const WATCHERS: [(&str, Watcher); 7] = [
    ("(no monitor)", Watcher::Baseline),
    ("tcpdump -w /dev/null", Watcher::TcpdumpToFile),
    ("tcpdump, decoding", Watcher::TcpdumpDecoding),
    ("arpwatch", Watcher::Arpwatch),
    ("arpalert", Watcher::Arpalert),
    ("probe, TC", Watcher::Probe("tc")),
    ("probe, native XDP", Watcher::Probe("native")),
];

/// The result of one monitor.
#[derive(Clone, Copy, Default)]
struct Outcome {
    process: Duration,
    /// The CPU time of the whole machine, from /proc/stat.
    machine: Duration,
    softirq: Duration,
    seen: Option<f64>,
    found: Option<usize>,
    spurious: usize,
}

pub fn run() -> Result<Section> {
    let mut outcomes = vec![Outcome::default(); WATCHERS.len()];
    for round in 0..ROUNDS {
        for ((_, watcher), outcome) in WATCHERS.iter().zip(&mut outcomes) {
            let measured = measure(*watcher)?;
            // The machine may be busy with something else; the quieter round is closer to the truth.
            if round == 0 || measured.machine < outcome.machine {
                *outcome = measured;
            }
        }
    }
    Ok(section(&outcomes))
}

fn section(outcomes: &[Outcome]) -> Section {
    let mut section = Section::new(
        "Beside other programs",
        format!(
            "`cargo xtask bench peers`: {RATE} announcements a second for {} s (`sendmmsg`, one veth pair) of {ADDRESSES} addresses, \
             {PLANTED} of which have two alternating owners every 100 ms; each program by itself, {ROUNDS} rounds, the quieter one. \
             CPU seconds of the process; of the whole machine, from /proc/stat; and how much more the machine used than \
             without any program. (The times of sender, program and softirq threads are not added up: the kernel charges \
             them by other clocks than /proc/stat, and their sum exceeded the whole machine's.)\n",
            DURATION.as_secs()
        ),
        &[
            "program",
            "process",
            "machine",
            "vs baseline",
            "of it softirq",
            "seen",
            "conflicts",
            "spurious",
        ],
    );
    let baseline = outcomes[0];
    let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
    let over =
        |time: Duration, base: Duration| format!("{:+.2}", time.as_secs_f64() - base.as_secs_f64());
    for ((name, watcher), outcome) in WATCHERS.iter().zip(outcomes) {
        let is_baseline = *watcher == Watcher::Baseline;
        section.row([
            (*name).to_owned(),
            seconds(outcome.process),
            seconds(outcome.machine),
            if is_baseline {
                String::new()
            } else {
                over(outcome.machine, baseline.machine)
            },
            seconds(outcome.softirq),
            outcome
                .seen
                .map_or_else(|| "?".to_owned(), |seen| format!("{:.2} %", 100.0 * seen)),
            outcome
                .found
                .map_or_else(|| "–".to_owned(), |found| format!("{found} of {PLANTED}")),
            outcome.spurious.to_string(),
        ]);
    }
    let of = |wanted: Watcher| {
        let index = WATCHERS.iter().position(|(_, watcher)| *watcher == wanted);
        index.map_or_else(Outcome::default, |index| outcomes[index])
    };
    let (probe, arpwatch) = (of(Watcher::Probe("tc")), of(Watcher::Arpwatch));
    let ratio = arpwatch.process.as_secs_f64() / probe.process.as_secs_f64();
    let seen = probe.seen.unwrap_or_default();
    section.target(
        "probe sees every frame",
        format!("{:.2} %", 100.0 * seen),
        seen >= 1.0,
    );
    let found = probe.found.unwrap_or_default();
    section.target(
        format!("and finds {PLANTED} of {PLANTED} conflicts"),
        format!("{found}, {} spurious", probe.spurious),
        found == PLANTED && probe.spurious == 0,
    );
    section.target(
        "at least 50 times less CPU of the process than arpwatch",
        format!("{ratio:.0} times less"),
        ratio >= 50.0,
    );
    let peers = WATCHERS
        .iter()
        .zip(outcomes)
        .filter(|((_, watcher), _)| !matches!(watcher, Watcher::Baseline | Watcher::Probe(_)));
    let least = peers
        .map(|(_, peer)| peer.machine)
        .min()
        .unwrap_or_default();
    for ((name, watcher), outcome) in WATCHERS.iter().zip(outcomes) {
        if matches!(watcher, Watcher::Probe(_)) {
            section.target(
                format!("{name}: less CPU of the whole machine than any other program"),
                format!(
                    "{} s, the least of the others {} s",
                    seconds(outcome.machine),
                    seconds(least)
                ),
                outcome.machine < least,
            );
        }
    }
    section.note("\"?\": not reported by the program. arpwatch reports to its standard error here (`-d`) and resolves no names; as installed it sends a mail for each report and waits for DNS.");
    section
}

fn measure(watcher: Watcher) -> Result<Outcome> {
    let lab = Lab::new()?;
    let [monitor, sender] = lab.pair("monitor", "sender")?;
    // arpwatch only monitors addresses of its own network.
    monitor.add_address("10.255.255.254/8")?;
    let scratch = Scratch::new(&monitor)?;
    let process = start(watcher, &monitor, &scratch.0)?;
    let used = |process: &Option<Process>| {
        process
            .as_ref()
            .map_or(Ok(Duration::ZERO), |process| cpu::of_process(process.id()))
    };

    let frames = load::announcements(ADDRESSES);
    let received = monitor.link()?.received()?;
    let before = (used(&process)?, Machine::now()?);
    load::steady(&sender, &frames, RATE, DURATION, &AtomicBool::new(false))?;
    // What is still queued is part of the work; a second is the same for all.
    thread::sleep(Duration::from_secs(1));
    let machine = Machine::now()? - before.1;
    let process_cpu = used(&process)?.saturating_sub(before.0);
    let received = monitor.link()?.received()? - received;

    let mut outcome = Outcome {
        process: process_cpu,
        machine: machine.busy,
        softirq: machine.softirq,
        ..Outcome::default()
    };
    if let Some(process) = process {
        read_outcome(
            watcher,
            &monitor,
            process,
            &scratch.0,
            received,
            &mut outcome,
        )?;
    }
    Ok(outcome)
}

/// A directory for the files of a program, and a namespace configuration without DNS.
struct Scratch(PathBuf, PathBuf);

impl Scratch {
    fn new(host: &Host) -> Result<Self> {
        let scratch = Self(
            std::env::temp_dir().join(host.namespace()),
            Path::new("/etc/netns").join(host.namespace()),
        );
        for directory in [&scratch.0, &scratch.1] {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        // `ip netns exec` mounts these over the files of the machine (ip-netns(8)).
        fs::write(scratch.1.join("nsswitch.conf"), "hosts: files\n")?;
        fs::write(scratch.1.join("resolv.conf"), "")?;
        for empty in ["arp.dat", "allow", "deny", "leases", "oui"] {
            fs::write(scratch.0.join(empty), "")?;
        }
        let path = |name: &str| scratch.0.join(name).display().to_string();
        // The program's defaults, except for the paths of files and the output of findings.
        let conf = format!(
            "maclist file = \"{}\"\nmaclist alert file = \"{}\"\nmaclist leases file = \"{}\"\nlock file = \"{}\"\nmac vendor file = \"{}\"\n\
             use syslog = false\nuser = root\nlog level = 6\ndaemon = false\ndump inter = 5\ncatch only arp = true\nmax entry = 1000000\n\
             anti flood interval = 5\nanti flood global = 50\nlog new address = true\nlog new mac address = true\nlog ip change = true\nlog mac change = true\n",
            path("allow"),
            path("deny"),
            path("leases"),
            path("lock"),
            path("oui")
        );
        fs::write(scratch.0.join("arpalert.conf"), conf)?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for directory in [&self.0, &self.1] {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

fn start(watcher: Watcher, host: &Host, scratch: &Path) -> Result<Option<Process>> {
    let file = |name: &str| scratch.join(name).display().to_string();
    let tcpdump = |options: &str| -> Result<Process> {
        let process = host.spawn([
            "sh",
            "-c",
            &format!("exec tcpdump -i {INTERFACE} -n {options} arp > /dev/null"),
        ])?;
        process.wait_for_line(Stream::Stderr, TIMEOUT, |line| {
            line.contains("listening on")
        })?;
        Ok(process)
    };
    // The output of these two programs goes to a file, so that reading it costs no CPU time here.
    let quiet = |command: String, ready: &str| -> Result<Process> {
        let process = host.spawn([
            "sh",
            "-c",
            &format!("exec {command} > {} 2>&1", file("output")),
        ])?;
        wait_for_packet_socket(host, ready)?;
        Ok(process)
    };
    Ok(Some(match watcher {
        Watcher::Baseline => return Ok(None),
        Watcher::TcpdumpToFile => tcpdump("-w /dev/null")?,
        Watcher::TcpdumpDecoding => tcpdump("")?,
        Watcher::Arpwatch => quiet(
            format!("arpwatch -d -N -i {INTERFACE} -f {}", file("arp.dat")),
            "arpwatch",
        )?,
        Watcher::Arpalert => quiet(
            format!("arpalert -F -f {} -i {INTERFACE}", file("arpalert.conf")),
            "arpalert",
        )?,
        Watcher::Probe(mode) => subject::daemon(host, mode, &[])?,
    }))
}

/// A program that captures has a packet socket in its namespace.
fn wait_for_packet_socket(host: &Host, name: &str) -> Result<()> {
    probe_tests::eventually(&format!("{name} to listen"), TIMEOUT, || {
        let sockets = host.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/packet")?))?;
        Ok((sockets.lines().count() > 1).then_some(()))
    })
}

/// Stops the program and reads the number of captured frames and the conflicts.
fn read_outcome(
    watcher: Watcher,
    host: &Host,
    mut process: Process,
    scratch: &Path,
    received: u64,
    outcome: &mut Outcome,
) -> Result<()> {
    if let Watcher::Probe(_) = watcher {
        let balance = subject::wait_until_processed(host, received)?;
        outcome.seen = Some(balance.frames as f64 / received as f64);
    }
    process.interrupt()?;
    if process.exit_status(TIMEOUT).is_err() {
        process.kill()?;
    }
    let found: BTreeSet<_> = match watcher {
        Watcher::Baseline => return Ok(()),
        Watcher::TcpdumpToFile | Watcher::TcpdumpDecoding => {
            let captured = process
                .lines(Stream::Stderr)
                .iter()
                .find_map(|line| line.strip_suffix(" packets captured")?.parse::<f64>().ok())
                .context("tcpdump did not print the number of captured frames")?;
            outcome.seen = Some(captured / received as f64);
            return Ok(());
        }
        Watcher::Arpwatch => arpwatch_conflicts(&fs::read_to_string(scratch.join("output"))?),
        Watcher::Arpalert => arpalert_conflicts(&fs::read_to_string(scratch.join("output"))?),
        Watcher::Probe(_) => conflicts(&process.lines(Stream::Stdout))?,
    };
    let expected: BTreeSet<_> = (0..PLANTED)
        .map(|number| ip(load::address(number)))
        .collect();
    outcome.found = Some(found.intersection(&expected).count());
    outcome.spurious = found.difference(&expected).count();
    Ok(())
}

/// The reports have the format of mails: a subject, then fields.
fn arpwatch_conflicts(output: &str) -> BTreeSet<String> {
    let mut conflict = false;
    output
        .lines()
        .filter_map(|line| {
            if let Some(subject) = line.strip_prefix("Subject: ") {
                conflict = ["flip flop", "changed ethernet address"]
                    .iter()
                    .any(|kind| subject.starts_with(kind));
            }
            let address = line.trim().strip_prefix("ip address:")?;
            conflict.then(|| address.trim().to_owned())
        })
        .collect()
}

/// Lines of `name=value` pairs.
fn arpalert_conflicts(output: &str) -> BTreeSet<String> {
    output
        .lines()
        .filter(|line| {
            ["mac_change", "ip_change"]
                .iter()
                .any(|kind| line.contains(&format!("type={kind}")))
        })
        .filter_map(|line| {
            line.split(&[',', ' '])
                .find_map(|word| word.strip_prefix("ip="))
        })
        .map(str::to_owned)
        .collect()
}
