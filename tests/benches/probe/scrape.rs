//! The cost of a large scrape, and its effect on the detection latency.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use probe_common::wire::MacAddr;
use probe_tests::{Frame, Host, LISTEN, Lab, Metrics, Process, Sender, Stream, eventually};

use crate::{cpu, latency, load, report::Section, subject};

/// The number of tracked addresses, and of those with an open conflict.
const ADDRESSES: usize = 10_000;
const CONFLICTS: usize = 1_000;
const SCRAPES: usize = 100;
const SCRAPE_TARGET: Duration = Duration::from_millis(20);

/// The number of conflicts whose latency is measured, in each case.
const PLANTED: u16 = 1_000;
const PACE: Duration = Duration::from_millis(10);
const DETECTION_TARGET: Duration = Duration::from_millis(1);

const REQUESTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xc]);
const TIMEOUT: Duration = Duration::from_mins(1);

/// The pause between two scrapes, or no scrapes at all.
const CASES: [(&str, Option<Duration>); 3] = [
    ("not scraped", None),
    ("scraped every second", Some(Duration::from_secs(1))),
    ("scraped without a pause", Some(Duration::ZERO)),
];

pub fn run() -> Result<Section> {
    let mut section = Section::new(
        "A scrape",
        format!(
            "`cargo xtask bench scrape`: `probe run` with {ADDRESSES} tracked addresses, {CONFLICTS} of them with an open \
             conflict; a scrape is timed from before it connects to the last byte, {SCRAPES} times. Then \
             {PLANTED} more conflicts, one every {} ms; from the kernel's time stamp of the second reply to the line of \
             the log at the reader.\n",
            PACE.as_millis()
        ),
        &["what", "p50, ms", "p90, ms", "p99, ms", "max, ms"],
    );
    let lab = Lab::new()?;
    let [monitor, peer] = lab.pair("monitor", "peer")?;
    let everything = ["--track", "0.0.0.0/0", "--metrics-addresses", "20000"];
    let mut daemon = subject::daemon(&monitor, "native", &everything)?;
    populate(&monitor, &peer, &daemon)?;

    let cpu = cpu::of_process(daemon.id())?;
    let mut scrapes = Vec::new();
    let mut bytes = 0;
    for _ in 0..SCRAPES {
        let (took, size) = scrape(&monitor)?;
        scrapes.push(took);
        bytes = size;
    }
    let cpu = cpu::of_process(daemon.id())?.saturating_sub(cpu) / u32::try_from(SCRAPES)?;
    let p99 = row(&mut section, "a scrape", &mut scrapes);
    section.target(
        format!("a scrape: p99 below {} ms", SCRAPE_TARGET.as_millis()),
        format!("{} ms", millis(p99)),
        p99 < SCRAPE_TARGET,
    );
    // Values that do not depend on the load of the machine.
    section.target(
        format!(
            "a scrape: below {} ms of CPU time",
            SCRAPE_TARGET.as_millis()
        ),
        format!("{} ms", millis(cpu)),
        cpu < SCRAPE_TARGET,
    );
    for (number, (name, pause)) in (1..).zip(CASES) {
        let mut latencies = detection(&monitor, &peer, &daemon, number, pause)?;
        let name = format!("detection, {name}");
        let p99 = row(&mut section, &name, &mut latencies);
        section.target(
            format!("{name}: p99 below {} ms", DETECTION_TARGET.as_millis()),
            format!("{} ms", millis(p99)),
            p99 < DETECTION_TARGET,
        );
    }
    section.note(format!(
        "A scrape has {:.1} MB and takes the daemon {} ms of CPU time; the reader is on the same two cores.",
        bytes as f64 / 1e6,
        millis(cpu)
    ));
    daemon.interrupt()?;
    daemon.exit_status(TIMEOUT)?;
    Ok(section)
}

/// Creates the bindings and the conflicts.
fn populate(monitor: &Host, peer: &Host, daemon: &Process) -> Result<()> {
    let frames = load::announcements(ADDRESSES);
    let frames = &frames[..ADDRESSES];
    let announced = Duration::from_secs(2);
    load::steady(peer, frames, 10_000, announced, &AtomicBool::new(false))?;
    let sender = peer.sender()?;
    for number in 0..CONFLICTS {
        conflict(&sender, load::address(number), 0)?;
    }
    eventually("the addresses and conflicts to be known", TIMEOUT, || {
        let metrics = Metrics::parse(&monitor.http_get(LISTEN, "/metrics")?.body)?;
        let claims = metrics.select("arp_monitor_tracked_claim_timestamp_seconds", &[]);
        let conflicts = metrics.select("arp_monitor_conflict_owners", &[]);
        let known = claims.count() >= ADDRESSES && conflicts.count() == CONFLICTS;
        Ok(known.then_some(()))
    })?;
    ensure!(
        !daemon.has_ended(),
        "the daemon ended:\n{}",
        daemon.written_output()
    );
    Ok(())
}

/// Sends a request and replies by two hosts.
fn conflict(sender: &Sender, address: [u8; 4], case: u8) -> Result<()> {
    let from = [198, 51, 100, 1];
    sender.send(&Frame::request(REQUESTER, from, address))?;
    for which in [1, 2] {
        let [_, high, middle, low] = address;
        let owner = MacAddr([2, which, case, high, middle, low]);
        sender.send(&Frame::reply(owner, address, REQUESTER, from))?;
    }
    Ok(())
}

fn scrape(monitor: &Host) -> Result<(Duration, usize)> {
    let started = Instant::now();
    let response = monitor.http_get(LISTEN, "/metrics")?;
    let took = started.elapsed();
    ensure!(response.status == 200, "a scrape failed: {response:?}");
    Ok((took, response.body.len()))
}

/// Measures the latency of conflicts while scrapes run.
fn detection(
    monitor: &Host,
    peer: &Host,
    daemon: &Process,
    case: u8,
    pause: Option<Duration>,
) -> Result<Vec<Duration>> {
    let stop = AtomicBool::new(false);
    // The range for benchmarks (RFC 2544).
    let addresses: Vec<_> = (0..PLANTED)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            [198, 18 + high / 4, case * 4 + high % 4, low]
        })
        .collect();
    let names: HashSet<_> = addresses
        .iter()
        .map(|&address| format!(r#""ip":"{}""#, std::net::Ipv4Addr::from(address)))
        .collect();
    let reported = || {
        let arrivals = daemon.arrivals(Stream::Stdout).into_iter();
        arrivals.filter(|(_, line)| {
            latency::is_conflict(line) && names.iter().any(|name| line.contains(name))
        })
    };
    thread::scope(|scope| {
        let scraper = scope.spawn(|| -> Result<()> {
            let Some(pause) = pause else { return Ok(()) };
            while !stop.load(Ordering::Relaxed) {
                scrape(monitor)?;
                thread::sleep(pause);
            }
            Ok(())
        });
        let sender = peer.sender()?;
        let planted = addresses.iter().try_for_each(|&address| {
            conflict(&sender, address, case)?;
            thread::sleep(PACE);
            Ok(())
        });
        let result = planted.and_then(|()| {
            eventually("the conflicts to be reported", TIMEOUT, || {
                let lines = daemon.lines(Stream::Stdout);
                let so_far = lines.iter().filter(|line| latency::is_conflict(line));
                let expected = CONFLICTS + usize::from(PLANTED) * usize::from(case);
                Ok((so_far.count() >= expected).then_some(()))
            })
        });
        stop.store(true, Ordering::Relaxed);
        let scraped = scraper.join();
        scraped.map_err(|_| anyhow::anyhow!("the scraper panicked"))??;
        result
    })?;
    reported()
        .map(|(arrived, line)| latency::latency(arrived, &line))
        .collect()
}

/// Adds a row; returns the 99th percentile.
fn row(section: &mut Section, name: &str, times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    section.row([
        name.to_owned(),
        millis(at(50)),
        millis(at(90)),
        millis(at(99)),
        millis(at(100)),
    ]);
    at(99)
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}
