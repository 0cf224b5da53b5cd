//! The latency from a frame to the printed finding, as a user of `probe watch` observes it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use probe_common::wire::MacAddr;
use probe_tests::{Frame, Host, Lab, Stream, eventually};
use serde::Deserialize;

use crate::{load, report::Section, subject};

/// The number of conflicts in a run.
const CONFLICTS: u8 = 200;
const RUNS: u8 = 5;
const PACE: Duration = Duration::from_millis(10);
const SCRAPE_TARGET: Duration = Duration::from_millis(1);

/// Frames per second, and the number of addresses that they announce.
const LOAD: (u64, usize) = (100_000, 10_000);

const REQUESTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xc]);

pub fn run() -> Result<Section> {
    let mut section = Section::new(
        "Latency",
        format!(
            "`cargo xtask bench latency`: a request and two replies by different hosts, {} addresses one every {} ms; from \
             the kernel's time stamp of the second reply to the line of `probe watch -o json` at the reader, in µs. \
             The load: {} announcements a second of {} addresses by a third host, on the same two cores.\n",
            u32::from(CONFLICTS) * u32::from(RUNS),
            PACE.as_millis(),
            LOAD.0,
            LOAD.1
        ),
        &["load", "p50", "p90", "p99", "max"],
    );
    for (name, mode, loaded) in [
        ("idle, TC", "tc", false),
        ("idle, native XDP", "native", false),
        ("100 000 frames/s, TC", "tc", true),
        ("100 000 frames/s, native XDP", "native", true),
    ] {
        let mut latencies = Vec::new();
        for run in 0..RUNS {
            latencies.extend(measure(mode, loaded, run)?);
        }
        latencies.sort_unstable();
        let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
        let micros = |latency: Duration| latency.as_micros().to_string();
        section.row([
            name.to_owned(),
            micros(at(50)),
            micros(at(90)),
            micros(at(99)),
            micros(at(100)),
        ]);
        section.target(
            format!("{name}: p99 below {} µs", SCRAPE_TARGET.as_micros()),
            format!("{} µs", micros(at(99))),
            at(99) < SCRAPE_TARGET,
        );
    }
    section.note(
        "Up to 200 µs of it is the window in which events of several CPUs are put in order (`order.rs`). The time stamp is \
         translated to the time of day when the finding is published; both clocks are read one after the other, and the time between adds to the latency.",
    );
    Ok(section)
}

fn measure(mode: &str, loaded: bool, run: u8) -> Result<Vec<Duration>> {
    let lab = Lab::new()?;
    let [monitor, sender] = lab.pair("monitor", "sender")?;
    let mut watch = subject::start(&monitor, "watch", mode, &["-o", "json"])?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            if !loaded {
                return Ok(load::Sent::default());
            }
            let frames: Vec<_> = load::announcements(LOAD.1)[..LOAD.1].to_vec();
            load::steady(&sender, &frames, LOAD.0, Duration::from_secs(30), &stop)
        });
        if loaded {
            // The addresses are new only once, and the latency of the steady state is measured.
            wait_for_bindings(&watch, LOAD.1)?;
        }
        let sent = plant(&sender, run);
        let result = sent.and_then(|()| {
            eventually(
                "the conflicts to be reported",
                Duration::from_secs(20),
                || {
                    let reported = watch
                        .arrivals(Stream::Stdout)
                        .iter()
                        .filter(|(_, line)| is_conflict(line))
                        .count();
                    Ok((reported >= usize::from(CONFLICTS)).then_some(()))
                },
            )
        });
        stop.store(true, Ordering::Relaxed);
        let load = load
            .join()
            .map_err(|_| anyhow::anyhow!("the load panicked"))??;
        if loaded {
            let rate = load.frames as f64 / load.took.as_secs_f64();
            ensure!(
                rate > 0.9 * LOAD.0 as f64,
                "the load was only {rate:.0} frames/s"
            );
        }
        result
    })?;
    watch.interrupt()?;
    watch.exit_status(Duration::from_secs(20))?;
    watch
        .arrivals(Stream::Stdout)
        .iter()
        .filter(|(_, line)| is_conflict(line))
        .map(|(arrived, line)| latency(*arrived, line))
        .collect()
}

fn wait_for_bindings(watch: &probe_tests::Process, bindings: usize) -> Result<()> {
    eventually(
        "the load's addresses to be known",
        Duration::from_secs(20),
        || Ok((watch.arrivals(Stream::Stdout).len() >= bindings).then_some(())),
    )
}

/// Sends one request and two replies for each of many addresses.
fn plant(sender: &Host, run: u8) -> Result<()> {
    let socket = sender.sender()?;
    for number in 0..CONFLICTS {
        let address = [192, 0, 2, number];
        let owner = |which| MacAddr([2, 0, which, 0, run, number]);
        socket.send(&Frame::request(REQUESTER, [198, 51, 100, 1], address))?;
        for which in [1, 2] {
            socket.send(&Frame::reply(
                owner(which),
                address,
                REQUESTER,
                [198, 51, 100, 1],
            ))?;
        }
        thread::sleep(PACE);
    }
    Ok(())
}

pub fn is_conflict(line: &str) -> bool {
    line.contains(r#""finding":"conflict""#)
}

/// The relevant fields of a finding. Its time is that of the frame that caused it.
#[derive(Deserialize)]
struct Stamped {
    time: jiff::Timestamp,
}

pub fn latency(arrived: SystemTime, line: &str) -> Result<Duration> {
    let Stamped { time } =
        serde_json::from_str(line).with_context(|| format!("not a finding: {line}"))?;
    let stamped = SystemTime::from(time);
    // The error of reading the clock may exceed a very short latency.
    Ok(arrived.duration_since(stamped).unwrap_or_default())
}
