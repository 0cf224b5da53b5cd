//! Scans of whole networks: `probe check`, arp-scan and arping, one after the other at the same rate.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use probe_tests::{Finished, Host, INTERFACE, Lab, Process, Switch, at_intervals, binary};
use serde_json::Value;

use crate::report::Section;

/// The first address of 198.18.0.0/15, the range for benchmarks (RFC 2544).
const NETWORK: u32 = 0xc612_0000;

/// The address of the scanning host.
const REQUESTER: u32 = NETWORK + 1;

/// The number of hosts that share the addresses.
const HOSTS: usize = 8;

/// Every `OWNED`th address has an owner, and every `OWNED`th of these has two.
const OWNED: u32 = 4;
const DUPLICATED: u32 = 10;

const ROUNDS: usize = 2;

/// Timeout for a program to exit.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Prefix length and requests per second.
const SIZES: [(u8, u32); 2] = [(24, 100), (20, 1000)];

/// Addresses with the MAC of each owner.
type Owners = BTreeSet<(Ipv4Addr, String)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scanner {
    Probe,
    ArpScan,
    Arping,
}

const SCANNERS: [(&str, Scanner); 3] = [
    ("probe check", Scanner::Probe),
    ("arp-scan", Scanner::ArpScan),
    ("arping, once for each address", Scanner::Arping),
];

/// The result of a scan.
#[derive(Clone, Copy)]
struct Outcome {
    time: Duration,
    /// The number of broadcast frames that the observer received.
    probes: u64,
    missed: usize,
    spurious: usize,
}

/// The network that is scanned.
struct Network {
    requester: Host,
    /// A host without an address that receives every broadcast.
    observer: Host,
    _hosts: Vec<Host>,
    _switch: Switch,
    owners: Owners,
}

pub fn run() -> Result<Section> {
    let mut section = Section::new(
        "Probing a network",
        format!(
            "`cargo xtask bench check`: a network on a switch of namespaces; every {OWNED}th address has an owner, of {DUPLICATED} \
             of these one has two, on {HOSTS} hosts whose kernels answer. Each program by itself at the same rate, {ROUNDS} \
             rounds: the quicker one, and the worse count. An owner is an address with a MAC. arp-scan is run with \
             `--interval`, arping as `arping -c 1 -w 1`, started for each address at that rate; it probes once, the others probe addresses without a reply twice. The time is that of the process, from its start to its end.\n",
        ),
        &[
            "program",
            "network",
            "rate",
            "seconds",
            "questions",
            "owners",
            "missed",
            "spurious",
        ],
    );
    for (prefix, rate) in SIZES {
        let lab = Lab::new()?;
        let network = Network::new(&lab, prefix)?;
        let mut times = [None; SCANNERS.len()];
        for ((name, scanner), time) in SCANNERS.iter().zip(&mut times) {
            if *scanner == Scanner::Arping && prefix < 24 {
                // Thousands of processes would measure the machine instead.
                continue;
            }
            let mut best: Option<Outcome> = None;
            for _ in 0..ROUNDS {
                let outcome = network.scan(*scanner, prefix, rate)?;
                best = Some(best.map_or(outcome, |best| Outcome {
                    time: best.time.min(outcome.time),
                    probes: best.probes.max(outcome.probes),
                    missed: best.missed.max(outcome.missed),
                    spurious: best.spurious.max(outcome.spurious),
                }));
            }
            let outcome = best.context("no round")?;
            *time = Some(outcome);
            section.row([
                (*name).to_owned(),
                format!("/{prefix}"),
                format!("{rate}/s"),
                format!("{:.2}", outcome.time.as_secs_f64()),
                outcome.probes.to_string(),
                network.owners.len().to_string(),
                outcome.missed.to_string(),
                outcome.spurious.to_string(),
            ]);
        }
        let [Some(probe), Some(arp_scan), _] = times else {
            anyhow::bail!("a program was not measured");
        };
        section.target(
            format!("/{prefix}: no owner missed, none spurious"),
            format!("{} missed, {} spurious", probe.missed, probe.spurious),
            probe.missed == 0 && probe.spurious == 0,
        );
        section.target(
            format!("/{prefix}: no slower than arp-scan"),
            format!(
                "{:.2} s, arp-scan {:.2} s",
                probe.time.as_secs_f64(),
                arp_scan.time.as_secs_f64()
            ),
            probe.time <= arp_scan.time,
        );
    }
    section.note("arping ends with the first reply, and so does not find a second owner.");
    Ok(section)
}

impl Network {
    fn new(lab: &Lab, prefix: u8) -> Result<Self> {
        let switch = lab.bridge()?;
        let requester = switch.host("requester")?;
        let source_address = Ipv4Addr::from(REQUESTER);
        requester.add_address(&format!("{source_address}/{prefix}"))?;
        let observer = switch.host("observer")?;
        let hosts: Vec<_> = (0..HOSTS)
            .map(|number| switch.host(&format!("host{number}")))
            .collect::<Result<_>>()?;
        let mut owners = Owners::new();
        let mut batches = vec![String::new(); HOSTS];
        for (number, address) in addresses(prefix).enumerate() {
            if !u32::from(address).is_multiple_of(OWNED) {
                continue;
            }
            let number = number / OWNED as usize;
            let mut having = vec![number % HOSTS];
            if number.is_multiple_of(DUPLICATED as usize) {
                having.push((number + 1) % HOSTS);
            }
            for host in having {
                writeln!(
                    batches[host],
                    "address add {address}/{prefix} dev {INTERFACE}"
                )?;
                owners.insert((address, hosts[host].mac().to_string()));
            }
        }
        let file = tempfile::NamedTempFile::new()?;
        for (host, batch) in hosts.iter().zip(batches) {
            std::fs::write(file.path(), batch)?;
            let path = file.path().to_str().context("the path is not UTF-8")?;
            host.exec(["ip", "-batch", path])?;
        }
        Ok(Self {
            requester,
            observer,
            _hosts: hosts,
            _switch: switch,
            owners,
        })
    }

    fn scan(&self, scanner: Scanner, prefix: u8, rate: u32) -> Result<Outcome> {
        let before = self.observer.link()?.received()?;
        let network = format!("{}/{prefix}", Ipv4Addr::from(NETWORK));
        let begin = Instant::now();
        let found = match scanner {
            Scanner::Probe => {
                let probe = binary()?;
                let probe = probe.to_str().context("the path is not UTF-8")?;
                let rate = rate.to_string();
                let words = [probe, "check", "-o", "json", "--rate", &rate, &network];
                let finished = self.requester.spawn(words)?.finish(TIMEOUT)?;
                // Exit status 1: there are conflicts, as configured.
                ensure!(finished.status.code() == Some(1), "{finished:?}");
                of_probe(&finished)?
            }
            Scanner::ArpScan => {
                let interval = format!("--interval={}u", 1_000_000 / rate);
                let words = ["arp-scan", "-I", INTERFACE, "--plain", &interval, &network];
                let finished = self.requester.spawn(words)?.finish(TIMEOUT)?;
                of_arp_scan(&finished.success()?)?
            }
            Scanner::Arping => self.arping(prefix, rate)?,
        };
        let time = begin.elapsed();
        let probes = self.observer.link()?.received()? - before;
        Ok(Outcome {
            time,
            probes,
            missed: self.owners.difference(&found).count(),
            spurious: found.difference(&self.owners).count(),
        })
    }

    fn arping(&self, prefix: u8, rate: u32) -> Result<Owners> {
        let mut running: Vec<(Ipv4Addr, Process)> = Vec::new();
        let all: Vec<_> = addresses(prefix).collect();
        let interval = Duration::from_secs(1) / rate;
        at_intervals(interval, u32::try_from(all.len())?, |number| {
            let address = all[number as usize];
            let text = address.to_string();
            let words = ["arping", "-c", "1", "-w", "1", "-I", INTERFACE, &text];
            running.push((address, self.requester.spawn(words)?));
            Ok(())
        })?;
        let mut found = Owners::new();
        for (address, process) in running {
            for line in process.finish(TIMEOUT)?.stdout.lines() {
                let mac = line.split(['[', ']']).nth(1);
                if let (Some(mac), true) = (mac, line.contains("reply from")) {
                    found.insert((address, mac.to_lowercase()));
                }
            }
        }
        Ok(found)
    }
}

/// All host addresses of the prefix, except the one of the scanning host.
fn addresses(prefix: u8) -> impl Iterator<Item = Ipv4Addr> {
    let last = NETWORK + (1 << (32 - u32::from(prefix))) - 2;
    (REQUESTER + 1..=last).map(Ipv4Addr::from)
}

fn of_probe(finished: &Finished) -> Result<Owners> {
    let mut found = Owners::new();
    for line in finished.stdout.lines() {
        let record: Value = serde_json::from_str(line)?;
        let ip: Ipv4Addr = record["ip"].as_str().context("no ip")?.parse()?;
        for owner in record["owners"].as_array().context("no owners")? {
            // The host knows its own address without a request.
            if owner["local"] == true {
                continue;
            }
            for mac in owner["macs"].as_array().context("no macs")? {
                found.insert((ip, mac.as_str().context("no mac")?.to_owned()));
            }
        }
    }
    Ok(found)
}

/// Parses lines of address and MAC, separated by tabs.
fn of_arp_scan(output: &str) -> Result<Owners> {
    output
        .lines()
        .map(|line| {
            let mut fields = line.split('\t');
            let (ip, mac) = (fields.next(), fields.next());
            let (ip, mac) = ip
                .zip(mac)
                .with_context(|| format!("unexpected {line:?}"))?;
            Ok((ip.parse()?, mac.to_owned()))
        })
        .collect()
}
