//! The same traffic through other programs that watch ARP, one after the other.

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

/// For a program to be ready, and to write what it knows when it ends.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watcher {
    Nobody,
    TcpdumpToFile,
    TcpdumpDecoding,
    Arpwatch,
    Arpalert,
    Probe(&'static str),
}

const WATCHERS: [(&str, Watcher); 7] = [
    ("(nobody)", Watcher::Nobody),
    ("tcpdump -w /dev/null", Watcher::TcpdumpToFile),
    ("tcpdump, decoding", Watcher::TcpdumpDecoding),
    ("arpwatch", Watcher::Arpwatch),
    ("arpalert", Watcher::Arpalert),
    ("probe, TC", Watcher::Probe("tc")),
    ("probe, native XDP", Watcher::Probe("native")),
];

/// What one watcher did with the traffic.
#[derive(Clone, Copy, Default)]
struct Outcome {
    process: Duration,
    /// Of the whole machine, from /proc/stat.
    machine: Duration,
    softirq: Duration,
    seen: Option<f64>,
    found: Option<usize>,
    invented: usize,
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
            "over nobody",
            "of it softirq",
            "seen",
            "conflicts",
            "invented",
        ],
    );
    let nobody = outcomes[0];
    let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
    let over =
        |time: Duration, base: Duration| format!("{:+.2}", time.as_secs_f64() - base.as_secs_f64());
    for ((name, watcher), outcome) in WATCHERS.iter().zip(outcomes) {
        let nobody_here = *watcher == Watcher::Nobody;
        section.row([
            (*name).to_owned(),
            seconds(outcome.process),
            seconds(outcome.machine),
            if nobody_here {
                String::new()
            } else {
                over(outcome.machine, nobody.machine)
            },
            seconds(outcome.softirq),
            outcome
                .seen
                .map_or_else(|| "?".to_owned(), |seen| format!("{:.2} %", 100.0 * seen)),
            outcome
                .found
                .map_or_else(|| "–".to_owned(), |found| format!("{found} of {PLANTED}")),
            outcome.invented.to_string(),
        ]);
    }
    let of = |wanted: Watcher| {
        let place = WATCHERS.iter().position(|(_, watcher)| *watcher == wanted);
        place.map_or_else(Outcome::default, |place| outcomes[place])
    };
    let (probe, arpwatch) = (of(Watcher::Probe("tc")), of(Watcher::Arpwatch));
    let ratio = arpwatch.process.as_secs_f64() / probe.process.as_secs_f64();
    let seen = probe.seen.unwrap_or_default();
    section.aim(
        "probe sees every frame",
        format!("{:.2} %", 100.0 * seen),
        seen >= 1.0,
    );
    let found = probe.found.unwrap_or_default();
    section.aim(
        format!("and finds {PLANTED} of {PLANTED} conflicts"),
        format!("{found}, {} invented", probe.invented),
        found == PLANTED && probe.invented == 0,
    );
    section.aim(
        "at least 50 times less CPU of the process than arpwatch",
        format!("{ratio:.0} times less"),
        ratio >= 50.0,
    );
    let peers = WATCHERS
        .iter()
        .zip(outcomes)
        .filter(|((_, watcher), _)| !matches!(watcher, Watcher::Nobody | Watcher::Probe(_)));
    let least = peers
        .map(|(_, peer)| peer.machine)
        .min()
        .unwrap_or_default();
    for ((name, watcher), outcome) in WATCHERS.iter().zip(outcomes) {
        if matches!(watcher, Watcher::Probe(_)) {
            section.aim(
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
    section.note("\"?\": the program does not say. arpwatch reports to its standard error here (`-d`) and resolves no names; as installed it sends a mail for each report and waits for DNS.");
    section
}

fn measure(watcher: Watcher) -> Result<Outcome> {
    let lab = Lab::new()?;
    let [monitor, sender] = lab.pair("monitor", "sender")?;
    // arpwatch looks at what its own network holds.
    monitor.add_address("10.255.255.254/8")?;
    let place = Scratch::new(&monitor)?;
    let process = start(watcher, &monitor, &place.0)?;
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
        judge(watcher, &monitor, process, &place.0, received, &mut outcome)?;
    }
    Ok(outcome)
}

/// A directory for what a program keeps, and a namespace without DNS.
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
        // `ip netns exec` puts these in place of the machine's (ip-netns(8)).
        fs::write(scratch.1.join("nsswitch.conf"), "hosts: files\n")?;
        fs::write(scratch.1.join("resolv.conf"), "")?;
        for empty in ["arp.dat", "allow", "deny", "leases", "oui"] {
            fs::write(scratch.0.join(empty), "")?;
        }
        let path = |name: &str| scratch.0.join(name).display().to_string();
        // Its own defaults, but for where files are and that it says what it sees here.
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

fn start(watcher: Watcher, host: &Host, place: &Path) -> Result<Option<Process>> {
    let file = |name: &str| place.join(name).display().to_string();
    let tcpdump = |options: &str| -> Result<Process> {
        let process = host.spawn([
            "sh",
            "-c",
            &format!("exec tcpdump -i {INTERFACE} -n {options} arp > /dev/null"),
        ])?;
        process.wait_for_line(Stream::Stderr, PATIENCE, |line| {
            line.contains("listening on")
        })?;
        Ok(process)
    };
    // What these two say goes to a file: reading it is not to cost anybody anything.
    let quiet = |command: String, ready: &str| -> Result<Process> {
        let process = host.spawn([
            "sh",
            "-c",
            &format!("exec {command} > {} 2>&1", file("said")),
        ])?;
        wait_for_packet_socket(host, ready)?;
        Ok(process)
    };
    Ok(Some(match watcher {
        Watcher::Nobody => return Ok(None),
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

/// A program that listens has a packet socket in its namespace.
fn wait_for_packet_socket(host: &Host, name: &str) -> Result<()> {
    probe_tests::eventually(&format!("{name} to listen"), PATIENCE, || {
        let sockets = host.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/packet")?))?;
        Ok((sockets.lines().count() > 1).then_some(()))
    })
}

/// Ends the program and reads what it has seen and found.
fn judge(
    watcher: Watcher,
    host: &Host,
    mut process: Process,
    place: &Path,
    received: u64,
    outcome: &mut Outcome,
) -> Result<()> {
    if let Watcher::Probe(_) = watcher {
        let ledger = subject::digested(host, received)?;
        outcome.seen = Some(ledger.frames as f64 / received as f64);
    }
    process.interrupt()?;
    if process.exit_status(PATIENCE).is_err() {
        process.kill()?;
    }
    let found: BTreeSet<_> = match watcher {
        Watcher::Nobody => return Ok(()),
        Watcher::TcpdumpToFile | Watcher::TcpdumpDecoding => {
            let captured = process
                .lines(Stream::Stderr)
                .iter()
                .find_map(|line| line.strip_suffix(" packets captured")?.parse::<f64>().ok())
                .context("tcpdump did not say what it captured")?;
            outcome.seen = Some(captured / received as f64);
            return Ok(());
        }
        Watcher::Arpwatch => arpwatch_conflicts(&fs::read_to_string(place.join("said"))?),
        Watcher::Arpalert => arpalert_conflicts(&fs::read_to_string(place.join("said"))?),
        Watcher::Probe(_) => conflicts(&process.lines(Stream::Stdout))?,
    };
    let expected: BTreeSet<_> = (0..PLANTED)
        .map(|number| ip(load::address(number)))
        .collect();
    outcome.found = Some(found.intersection(&expected).count());
    outcome.invented = found.difference(&expected).count();
    Ok(())
}

/// Its reports look like mails: a subject, then fields.
fn arpwatch_conflicts(said: &str) -> BTreeSet<String> {
    let mut conflict = false;
    said.lines()
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
fn arpalert_conflicts(said: &str) -> BTreeSet<String> {
    said.lines()
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
