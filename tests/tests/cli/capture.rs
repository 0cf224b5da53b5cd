//! `--write` and `--read`: a recording and the captures of other tools give the same findings as the live run.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use probe_common::wire::MacAddr;
use probe_tests::{Finding, Finished, Frame, Lab, SHARED_ADDRESS, Stream, binary, pcap};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(10);
const ADDRESS: [u8; 4] = [192, 0, 2, 10];
const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

/// Runs the binary outside of any lab, because reading a file uses no network.
fn read(file: &Path, options: &[&str]) -> Finished {
    read_as("json", file, options)
}

fn read_as(output: &str, file: &Path, options: &[&str]) -> Finished {
    let output = Command::new(binary().unwrap())
        .args(["watch", "-o", output, "--read"])
        .arg(file)
        .args(options)
        .output()
        .unwrap();
    Finished {
        title: format!("probe watch --read {}", file.display()),
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn findings_without_time(lines: &str) -> Vec<Finding> {
    let findings = lines.lines().map(|line| Finding::parse(line).unwrap());
    findings.map(Finding::without_time).collect()
}

fn kinds(lines: &str) -> BTreeSet<String> {
    let findings = lines.lines().map(|line| Finding::parse(line).unwrap());
    findings.map(|finding| finding.finding).collect()
}

#[test]
fn a_recording_gives_the_same_findings_as_the_live_run() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("conflict.pcapng");
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let options = ["-o", "json", "--write", file.to_str().unwrap()];
    let watch = hosts.client.watch(&options).unwrap();
    hosts.resolve().unwrap();
    watch
        .wait_for_finding(TIMEOUT, |finding| finding.finding == "conflict")
        .unwrap();
    // Another host claims the address of the monitoring host: a finding that frames alone do not show.
    let unknown_host = hosts.server.sender().unwrap();
    let claim = Frame::announcement(hosts.server.mac(), [192, 0, 2, 1]);
    unknown_host.send(&claim).unwrap();
    unknown_host.send(&claim.clone().tagged(100)).unwrap();
    let mut resend = true;
    let is_local = |finding: &Finding| finding.evidence == "local";
    while resend {
        unknown_host.send(&claim).unwrap();
        resend = watch
            .wait_for_finding(Duration::from_millis(300), is_local)
            .is_err();
    }
    watch.interrupt().unwrap();
    let live = watch.finish(TIMEOUT).unwrap().success().unwrap();
    assert!(live.contains("\"local\""), "{live}");

    let again = read(&file, &[]).success().unwrap();
    assert_eq!(findings_without_time(&again), findings_without_time(&live));
}

#[test]
fn only_frames_of_selected_findings_are_written() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("conflict.pcapng");
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let options = [
        "-o",
        "json",
        "--finding",
        "conflict",
        "--count",
        "1",
        "--write",
    ];
    let options = [&options[..], &[file.to_str().unwrap()]].concat();
    let watch = hosts.client.watch(&options).unwrap();
    let other = hosts.server.sender().unwrap();
    for last in 100..110 {
        let frame = Frame::announcement(hosts.server.mac(), [192, 0, 2, last]);
        other.send(&frame).unwrap();
    }
    hosts.resolve().unwrap();
    let live = watch.finish(TIMEOUT).unwrap().success().unwrap();
    let again = read(&file, &[]).success().unwrap();
    let addresses: BTreeSet<_> = findings_without_time(&again)
        .into_iter()
        .map(|found| found.ip)
        .collect();
    assert_eq!(addresses, BTreeSet::from([SHARED_ADDRESS.to_owned()]));
    let again = read(&file, &["--finding", "conflict"]).success().unwrap();
    assert_eq!(findings_without_time(&again), findings_without_time(&live));
}

#[test]
fn tshark_reads_interface_direction_and_comment() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("frames.pcapng");
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let options = ["-o", "json", "--write", file.to_str().unwrap()];
    let watch = hosts.client.watch(&options).unwrap();
    hosts.resolve().unwrap();
    watch
        .wait_for_finding(TIMEOUT, |finding| finding.finding == "conflict")
        .unwrap();
    watch.interrupt().unwrap();
    watch.finish(TIMEOUT).unwrap().success().unwrap();
    let output = Command::new("tshark")
        .args(["-n", "-T", "fields", "-r"])
        .arg(&file)
        .args([
            "-e",
            "frame.interface_name",
            "-e",
            "frame.packet_flags_direction",
        ])
        .args(["-e", "arp.opcode", "-e", "frame.comment"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let fields = |line: &str| -> Vec<String> { line.split('\t').map(str::to_owned).collect() };
    let packets: Vec<_> = text.lines().map(fields).collect();
    assert!(packets.len() >= 3, "{text}");
    for packet in &packets {
        assert_eq!(packet[0], "eth0", "{text}");
        assert!(packet[3].starts_with("probe: hook="), "{text}");
        // This host sends a request and receives a reply.
        let direction = packet[1].trim_start_matches("0x").trim_start_matches('0');
        assert_eq!(
            direction,
            if packet[2] == "1" { "2" } else { "1" },
            "{text}"
        );
    }
}

#[test]
fn a_capture_of_tcpdump_gives_the_conflict_too() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("tcpdump.pcap");
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let words = [
        "tcpdump",
        "-U",
        "-ni",
        "eth0",
        "-Z",
        "root",
        "-w",
        file.to_str().unwrap(),
        "arp",
    ];
    let tcpdump = hosts.client.spawn(words).unwrap();
    tcpdump
        .wait_for_line(Stream::Stderr, TIMEOUT, |line| {
            line.contains("listening on")
        })
        .unwrap();
    // tcpdump does not report what it has captured, so wait until the file contains both replies.
    let found = probe_tests::eventually("both replies in the capture", TIMEOUT, || {
        hosts.resolve()?;
        let read = read(&file, &[]);
        Ok(read
            .stdout
            .contains("duplicate_reply")
            .then_some(read.stdout))
    });
    let found = found.unwrap();
    let conflict = found
        .lines()
        .map(|line| Finding::parse(line).unwrap())
        .find(|finding| finding.finding == "conflict")
        .unwrap();
    assert_eq!(conflict.ip, SHARED_ADDRESS);
    assert_eq!(
        conflict.macs().unwrap(),
        [hosts.server.mac(), hosts.duplicate.mac()]
    );
}

/// A capture with every kind of finding that frames alone can cause.
fn everything() -> Vec<(Duration, Frame)> {
    let mut frames = Vec::new();
    let mut at =
        |seconds: f64, frame: Frame| frames.push((Duration::from_secs_f64(seconds), frame));
    let prober = MacAddr([2, 0, 0, 0, 0, 0xc]);
    // A permanent handover: moved.
    at(0.0, Frame::announcement(A, [192, 0, 2, 1]));
    at(5.0, Frame::announcement(B, [192, 0, 2, 1]));
    // The previous owner uses the address again within the settle time, without an announcement: contested.
    at(20.0, Frame::announcement(A, [192, 0, 2, 2]));
    at(22.0, Frame::announcement(B, [192, 0, 2, 2]));
    at(24.0, Frame::request(A, [192, 0, 2, 2], [192, 0, 2, 99]));
    // A probing host requests an address that is in use.
    at(40.0, Frame::announcement(A, ADDRESS));
    at(41.0, Frame::probe(prober, ADDRESS));
    at(41.1, Frame::reply(A, ADDRESS, prober, [0, 0, 0, 0]));
    // Invalid and unusual frames.
    at(
        50.0,
        Frame::announcement(MacAddr::BROADCAST, [192, 0, 2, 3]).eth_src(A),
    );
    at(51.0, Frame::announcement(A, [192, 0, 2, 4]).eth_src(B));
    // Two replies to one request: a conflict, which becomes quiet and expires.
    at(60.0, Frame::request(prober, [192, 0, 2, 99], ADDRESS));
    at(60.001, Frame::reply(A, ADDRESS, prober, [192, 0, 2, 99]));
    at(60.002, Frame::reply(B, ADDRESS, prober, [192, 0, 2, 99]));
    // A host that sends no more frames: silent, if this is enabled.
    at(2000.0, Frame::announcement(A, [192, 0, 2, 5]));
    at(2100.0, Frame::announcement(A, [192, 0, 2, 6]));
    frames
}

#[test]
fn the_json_of_every_finding_is_valid_by_the_schema() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("everything.pcap");
    fs::write(&file, pcap(&everything())).unwrap();
    let options = ["--track", "192.0.2.5/32", "--silent-after", "1m"];
    let lines = read(&file, &options).success().unwrap();
    let expected = [
        "bogus_claim",
        "conflict",
        "conflict_expired",
        "conflict_quiet",
        "contested",
        "moved",
        "new_binding",
        "probe_denied",
        "silent",
        "source_mismatch",
    ];
    assert_eq!(kinds(&lines), expected.map(str::to_owned).into(), "{lines}");

    let schema = include_str!("../../../docs/finding.schema.json");
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&serde_json::from_str(schema).unwrap())
        .unwrap();
    for line in lines.lines() {
        let value = serde_json::from_str(line).unwrap();
        assert!(validator.is_valid(&value), "{line}");
    }
}

#[test]
fn filters_select_the_findings_of_a_capture() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("everything.pcap");
    fs::write(&file, pcap(&everything())).unwrap();
    let shown =
        |options: &[&str]| findings_without_time(&read(&file, options).success().unwrap()).len();
    let all = shown(&[]);
    assert_eq!(shown(&["--severity", "info"]), all);
    assert_eq!(shown(&["--finding", "moved"]), 1);
    assert_eq!(shown(&["--finding", "moved,contested"]), 2);
    assert_eq!(shown(&["--ip", "192.0.2.1"]), 2);
    assert_eq!(shown(&["--filter", "192.0.2.1/32"]), 2);
    assert_eq!(shown(&["--ip", "198.51.100.0/24"]), 0);
    assert_eq!(shown(&["--vlan", "0"]), all);
    assert_eq!(shown(&["--vlan", "7"]), 0);
    assert_eq!(shown(&["-i", "nothing*"]), 0);
    assert_eq!(shown(&["--count", "3"]), 3);
    assert!(shown(&["--severity", "warning"]) < all);
    assert!(shown(&["--mac", "02:00:00:00:00:0c"]) < all);
    assert_eq!(shown(&["--mac", "02:00"]), all);
}

#[test]
fn a_conflict_in_a_capture_can_set_the_exit_status() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("everything.pcap");
    fs::write(&file, pcap(&everything())).unwrap();
    let status = |options: &[&str]| read(&file, options).status.code();
    assert_eq!(status(&[]), Some(0));
    assert_eq!(status(&["--fail-on-conflict"]), Some(1));
    assert_eq!(
        status(&["--fail-on-conflict", "--ip", "192.0.2.1"]),
        Some(0)
    );
}

/// A claims an address, B claims it 3 s later, and the capture ends 4 s after that.
fn short_takeover() -> Vec<(Duration, Frame)> {
    vec![
        (Duration::ZERO, Frame::announcement(A, ADDRESS)),
        (Duration::from_secs(3), Frame::announcement(B, ADDRESS)),
        (
            Duration::from_secs(7),
            Frame::announcement(A, [192, 0, 2, 20]),
        ),
    ]
}

#[test]
fn an_undecided_takeover_at_the_end_of_a_capture_is_reported() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("takeover.pcap");
    fs::write(&file, pcap(&short_takeover())).unwrap();
    let undecided = |options: &[&str]| {
        let finished = read(&file, options);
        let lines = finished.stdout.lines();
        let records = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let records = records.filter(|record| record.get("undecided").is_some());
        (finished.status.code(), records.collect::<Vec<_>>())
    };
    let expected = serde_json::json!({
        "time": "2023-11-14T22:13:27Z", "undecided": "takeover", "interface": "capture", "vlan": "0",
        "ip": SHARED_ADDRESS, "from": A.to_string(), "to": B.to_string(),
        "since": "2023-11-14T22:13:23Z",
    });
    assert_eq!(undecided(&[]), (Some(0), vec![expected.clone()]));
    for options in [
        &["--fail-on-conflict"][..],
        &["--fail-on-conflict", "--count", "2"],
        &["--fail-on-conflict", "--severity", "critical"],
    ] {
        assert_eq!(undecided(options), (Some(4), vec![expected.clone()]));
    }
    let other = ["--fail-on-conflict", "--ip", "192.0.2.20"];
    assert_eq!(undecided(&other), (Some(0), Vec::new()));
    let ignored = ["--fail-on-conflict", "--ignore", "192.0.2.10=known"];
    assert_eq!(undecided(&ignored), (Some(0), Vec::new()));

    let text = read_as("human", &file, &[]);
    let line = format!(
        "undecided at the end: 192.0.2.10 on capture: {A} \u{2192} {B}, 4 s before the end"
    );
    assert!(text.stdout.lines().any(|shown| shown == line), "{text:?}");
    assert!(text.stderr.contains("1 undecided at the end"), "{text:?}");
}

#[test]
fn the_summary_distinguishes_open_conflicts_from_ended_ones() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("conflicts.pcap");
    let client = MacAddr([2, 0, 0, 0, 0, 0xc]);
    let mut frames = everything();
    for (millis, frame) in [
        (0, Frame::request(client, [192, 0, 2, 99], [192, 0, 2, 30])),
        (1, Frame::reply(A, [192, 0, 2, 30], client, [192, 0, 2, 99])),
        (2, Frame::reply(B, [192, 0, 2, 30], client, [192, 0, 2, 99])),
    ] {
        frames.push((Duration::from_millis(2_100_000 + millis), frame));
    }
    fs::write(&file, pcap(&frames)).unwrap();
    for options in [&[][..], &["--finding", "conflict"]] {
        let stderr = read_as("human", &file, options).stderr;
        assert!(
            stderr.contains(
                "open conflicts: 192.0.2.30 on capture; ended conflicts: 192.0.2.10 on capture"
            ),
            "{stderr}"
        );
    }
}

#[test]
fn a_truncated_capture_gives_its_findings_and_a_warning() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("cut.pcap");
    let whole = pcap(&everything());
    fs::write(&file, &whole[..whole.len() - 5]).unwrap();
    let finished = read(&file, &[]);
    assert_eq!(finished.status.code(), Some(4));
    assert!(kinds(&finished.stdout).contains("conflict"), "{finished:?}");
    assert!(
        finished.stderr.contains("the file is truncated"),
        "{finished:?}"
    );
    assert!(finished.stderr.contains("packets"), "{finished:?}");
}

#[test]
fn a_file_that_is_no_ethernet_capture_is_an_error() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    let mut wrong_link = pcap(&everything());
    // IEEE 802.11 with radiotap.
    wrong_link[20] = 127;
    for (content, messages) in [
        (b"hello".to_vec(), "not a pcap or pcapng file"),
        (Vec::new(), "not a pcap or pcapng file"),
        (wrong_link, "802.11 wireless, link type 127"),
    ] {
        fs::write(&file, content).unwrap();
        let finished = read(&file, &[]);
        assert_eq!(finished.status.code(), Some(4), "{finished:?}");
        assert!(finished.stderr.contains(messages), "{finished:?}");
    }
    let finished = read(&directory.path().join("missing"), &[]);
    assert_eq!(finished.status.code(), Some(4));
    assert!(finished.stderr.contains("missing"), "{finished:?}");
}

#[test]
fn reading_a_capture_needs_no_privileges() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("everything.pcap");
    fs::write(&file, pcap(&everything())).unwrap();
    // Without capabilities, and with an empty /sys/fs/bpf.
    let output = Command::new("setpriv")
        .args([
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--no-new-privs",
            "--",
        ])
        .arg(binary().unwrap())
        .args(["watch", "--read"])
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("conflict"),
        "{text}"
    );
}
