//! Effect on other traffic while the programs are attached.

use anyhow::{Context as _, Result};
use probe_tests::{Host, Lab, Process, Stream};
use serde_json::Value;

use crate::{report::Section, subject};

const ROUNDS: usize = 3;
const SECONDS: &str = "3";
const SERVER: &str = "192.0.2.1";

/// The attach mode of probe on the server, if any.
const MODES: [(&str, Option<&str>); 4] = [
    ("nothing", None),
    ("TC", Some("tc")),
    ("generic XDP", Some("generic")),
    ("native XDP", Some("native")),
];

pub fn run() -> Result<Section> {
    let mut section = Section::new(
        "Effect on other traffic",
        format!(
            "`cargo xtask bench traffic`: iperf3 over a veth pair for {SECONDS} s, `probe run` attached to the receiving end; \
             the best of {ROUNDS} interleaved rounds. A veth pair has no wire that would be the limit, so this shows every \
             nanosecond of the CPU.\n"
        ),
        &[
            "attached",
            "TCP, Gbit/s",
            "ratio",
            "64-byte UDP, thousand/s",
            "ratio",
        ],
    );
    let mut best = [[0.0_f64; 2]; MODES.len()];
    for _ in 0..ROUNDS {
        for ((_, mode), best) in MODES.iter().zip(&mut best) {
            let measured = measure(*mode)?;
            for (best, measured) in best.iter_mut().zip(measured) {
                *best = best.max(measured);
            }
        }
    }
    for ((name, _), [tcp, udp]) in MODES.iter().zip(best) {
        section.row([
            (*name).to_owned(),
            format!("{:.1}", tcp / 1e9),
            format!("{:.2}", tcp / best[0][0]),
            format!("{:.0}", udp / 1e3),
            format!("{:.2}", udp / best[0][1]),
        ]);
    }
    section.note(
        "Native XDP on veth breaks segmentation offload, which no network card with XDP in its driver has in this form; \
         `--attach auto` takes TC there.",
    );
    Ok(section)
}

/// TCP throughput in bits per second, and small packets received per second.
fn measure(mode: Option<&str>) -> Result<[f64; 2]> {
    let lab = Lab::new()?;
    let [server, client] = lab.pair("server", "client")?;
    server.add_address("192.0.2.1/24")?;
    client.add_address("192.0.2.2/24")?;
    let _probe = mode
        .map(|mode| subject::daemon(&server, mode, &[]))
        .transpose()?;
    let tcp = iperf(&server, &client, &[])?;
    let udp = iperf(&server, &client, &["-u", "-b", "0", "-l", "64"])?;
    let number = |value: &Value| value.as_f64().context("iperf3 named no number");
    let sum = &udp["end"]["sum"];
    let arrived = number(&sum["packets"])? - number(&sum["lost_packets"])?;
    Ok([
        number(&tcp["end"]["sum_received"]["bits_per_second"])?,
        arrived / number(&sum["seconds"])?,
    ])
}

fn iperf(server: &Host, client: &Host, options: &[&str]) -> Result<Value> {
    let listener: Process = server.spawn(["iperf3", "--server", "--one-off", "--forceflush"])?;
    listener.wait_for_line(Stream::Stdout, std::time::Duration::from_secs(10), |line| {
        line.contains("listening")
    })?;
    let words = ["iperf3", "--client", SERVER, "--time", SECONDS, "--json"];
    let output = client.exec(words.iter().chain(options))?;
    serde_json::from_str(&output).context("the output of iperf3 is not JSON")
}
