//! Announcements at the highest rate of the kernel: whether every frame is counted, every conflict is found and no
//! other is reported, and the cost.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;
use probe_common::{counter::EmitOutcome, wire::FrameKind};
use probe_tests::{Finding, Lab, Stream};

use crate::{
    cpu, load,
    load::{PLANTED, Storm},
    report::Section,
    subject,
};

const DURATION: Duration = Duration::from_secs(10);

/// Name, number of addresses (0: random ones), and number of addresses with two owners.
const STORMS: [(&str, u64, usize); 3] = [
    ("10 000 addresses", 10_000, PLANTED),
    ("100 000 addresses", 100_000, PLANTED),
    ("random addresses", 0, 0),
];

pub fn run() -> Result<Section> {
    let mut section = Section::new(
        "A storm",
        format!(
            "`cargo xtask bench storm`: `BPF_PROG_TEST_RUN` with live frames makes announcements as fast as one core can, \
             for {} s, and sends them through a veth pair to `probe run --attach native`; the kernel side keeps 65 536 addresses. \
             Of the addresses, {PLANTED} have two alternating owners. Counted: frames in the daemon's metrics over frames that the network card received.\n",
            DURATION.as_secs()
        ),
        &[
            "storm",
            "million frames/s",
            "counted",
            "events, thousand/s",
            "ring full",
            "conflicts",
            "spurious",
            "CPU s/million frames",
            "peak memory, MiB",
        ],
    );
    let (mut all_counted, mut all_found, mut none_spurious) = (true, true, true);
    for (name, addresses, planted) in STORMS {
        let lab = Lab::new()?;
        let [monitor, sender] = lab.pair("monitor", "sender")?;
        let mut daemon = subject::daemon(&monitor, "native", &[])?;
        let before = (monitor.link()?.received()?, cpu::of_process(daemon.id())?);
        let sent = Storm::new(&sender, addresses, planted as u64)?.run(&sender, DURATION)?;
        let received = monitor.link()?.received()? - before.0;
        let balance = subject::wait_until_processed(&monitor, received)?;
        let cpu = cpu::of_process(daemon.id())?.saturating_sub(before.1);
        let memory = cpu::peak_memory(daemon.id())?;
        daemon.interrupt()?;
        daemon.exit_status(Duration::from_secs(20))?;

        let conflicts = conflicts(&daemon.lines(Stream::Stdout))?;
        let expected: BTreeSet<_> = (0..planted)
            .map(|number| ip(load::address(number)))
            .collect();
        let found = conflicts.intersection(&expected).count();
        let spurious = conflicts.difference(&expected).count();
        all_counted &= balance.frames == received && received > 0;
        all_found &= found == planted;
        none_spurious &= spurious == 0;
        let million = received as f64 / 1e6;
        let ring_full: u64 = FrameKind::ALL
            .iter()
            .map(|&kind| balance.outcome(kind, EmitOutcome::RingFull))
            .sum();
        section.row([
            name.to_owned(),
            format!("{:.2}", million / sent.took.as_secs_f64()),
            format!("{:.4} %", 100.0 * balance.frames as f64 / received as f64),
            format!(
                "{:.1}",
                balance.emitted() as f64 / 1e3 / sent.took.as_secs_f64()
            ),
            ring_full.to_string(),
            format!("{found} of {planted}"),
            spurious.to_string(),
            format!("{:.3}", cpu.as_secs_f64() / million),
            format!("{memory:.1}"),
        ]);
        if received < sent.frames {
            section.note(format!(
                "{name}: {} of {} frames found no room in the queue of the veth pair and never arrived.",
                sent.frames - received,
                sent.frames
            ));
        }
    }
    let yes_or_no = |met: bool| if met { "yes" } else { "no" };
    section.target(
        "every frame that arrived is counted, and the counts add up",
        yes_or_no(all_counted),
        all_counted,
    );
    section.target(
        "every planted conflict is found",
        yes_or_no(all_found),
        all_found,
    );
    section.target("none is spurious", yes_or_no(none_spurious), none_spurious);
    Ok(section)
}

/// The addresses with a conflict in these findings.
pub fn conflicts(lines: &[String]) -> Result<BTreeSet<String>> {
    lines
        .iter()
        .map(|line| Finding::parse(line))
        .filter(|finding| !matches!(finding, Ok(finding) if finding.finding != "conflict"))
        .map(|finding| Ok(finding?.ip))
        .collect()
}

/// An address in dotted notation.
pub fn ip(address: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(address).to_string()
}
