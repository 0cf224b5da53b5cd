//! `probe explain`: one address on one screen, with and without a daemon, and the support bundle.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use probe_tests::{CLIENT_ADDRESS, DaemonSocket, Finished, Host, Lab, SHARED_ADDRESS, ThreeHosts};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Exit statuses.
const SUCCESS: i32 = 0;
const CONFLICT: i32 = 1;
const FAILED: i32 = 4;

fn explain_under(host: &Host, wrapper: &[&str], words: &[&str]) -> Finished {
    let words = [&["explain", "--kubernetes", "off"], words].concat();
    let process = host.probe_under(wrapper, &words).unwrap();
    let finished = process.finish(TIMEOUT).unwrap();
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
    finished
}

fn explain(host: &Host, words: &[&str]) -> Finished {
    explain_under(host, &[], words)
}

fn status(finished: &Finished) -> i32 {
    finished.status.code().unwrap()
}

/// The JSON object, validated against the schema.
fn object(finished: &Finished) -> Value {
    let value: Value = serde_json::from_str(&finished.stdout).unwrap();
    valid(&value);
    value
}

fn valid(value: &Value) {
    let schema = include_str!("../../../docs/explain.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap();
    let errors: Vec<_> = validator
        .iter_errors(value)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}: {value}");
}

fn json(host: &Host, words: &[&str]) -> (i32, Value) {
    let finished = explain(host, &[&["-o", "json"], words].concat());
    (status(&finished), object(&finished))
}

fn macs(value: &Value) -> BTreeSet<String> {
    let owners = value["owners"].as_array().unwrap();
    owners
        .iter()
        .flat_map(|owner| owner["macs"].as_array().unwrap())
        .map(|mac| mac.as_str().unwrap().to_owned())
        .collect()
}

fn both_macs(hosts: &ThreeHosts) -> BTreeSet<String> {
    [&hosts.server, &hosts.duplicate]
        .map(|host| host.mac().to_string())
        .into()
}

/// The text output fits on one screen of an ordinary terminal.
fn assert_one_screen(text: &str) {
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(text.lines().count() <= 40, "{text}");
    assert!(!text.contains('\u{1b}'), "no colour in a pipe");
}

#[test]
fn without_a_daemon_and_a_cluster_arp_probes_are_sent() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let nowhere = ["--socket", "/nonexistent/socket"];
    let explain_json = |ip: &str| json(&hosts.client, &[&nowhere[..], &[ip]].concat());

    let (exit, conflict) = explain_json(SHARED_ADDRESS);
    assert_eq!((exit, &conflict["status"]), (CONFLICT, &"conflict".into()));
    assert_eq!(macs(&conflict), both_macs(&hosts));
    assert_eq!(conflict["check"]["status"], "conflict");

    let (exit, own) = explain_json(CLIENT_ADDRESS);
    assert_eq!((exit, &own["status"]), (SUCCESS, &"one_owner".into()));
    assert_eq!(own["owners"][0]["activity"], "holds");
    let (exit, free) = explain_json("192.0.2.99");
    assert_eq!((exit, &free["status"]), (SUCCESS, &"free".into()));
    // An address of another segment, and one on an interface without ARP.
    for elsewhere in ["203.0.113.7", "2001:db8::1"] {
        let (exit, value) = explain_json(elsewhere);
        assert_eq!((exit, &value["status"]), (SUCCESS, &"not_local".into()));
    }

    let text = explain(&hosts.client, &[&nowhere[..], &[SHARED_ADDRESS]].concat());
    assert_eq!(status(&text), CONFLICT);
    assert_one_screen(&text.stdout);
    for words in [
        "CONFLICT",
        "Two hosts own this address at once.",
        &hosts.duplicate.mac().to_string(),
        "no daemon at /nonexistent/socket",
        "ip neigh | grep",
    ] {
        assert!(text.stdout.contains(words), "{words}: {text:?}");
    }
}

#[test]
fn without_raw_sockets_explain_reports_the_gap_and_continues() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let words = ["--socket", daemon_socket.argument(), SHARED_ADDRESS];
    let powerless = [
        "setpriv",
        "--bounding-set=-net_raw",
        "--inh-caps=-all",
        "--",
    ];
    let without_raw_socket = explain_under(&hosts.client, &powerless, &words);
    assert_eq!(status(&without_raw_socket), FAILED);
    assert!(
        without_raw_socket.stdout.contains("CAP_NET_RAW"),
        "{without_raw_socket:?}"
    );

    let not_probed = explain(&hosts.client, &[&["--no-probe"], &words[..]].concat());
    assert_eq!(status(&not_probed), FAILED, "{not_probed:?}");
    assert!(
        not_probed
            .stdout
            .contains("The owner is unknown: no probe was sent"),
        "{not_probed:?}"
    );

    // What the daemon knows is still reported.
    let daemon = hosts
        .client
        .ready_daemon(&["--socket", daemon_socket.argument()])
        .unwrap();
    hosts.resolve().unwrap();
    daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    let without_raw_socket = explain_under(&hosts.client, &powerless, &words);
    assert_eq!(
        status(&without_raw_socket),
        CONFLICT,
        "{without_raw_socket:?}"
    );
    assert!(
        without_raw_socket.stdout.contains("CAP_NET_RAW"),
        "{without_raw_socket:?}"
    );
    assert_one_screen(&without_raw_socket.stdout);
}

#[test]
fn explain_shows_the_history_of_the_daemon() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let daemon = hosts
        .client
        .ready_daemon(&["--socket", daemon_socket.argument()])
        .unwrap();
    hosts.resolve().unwrap();
    daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    let words = [
        "--socket",
        daemon_socket.argument(),
        "--no-probe",
        SHARED_ADDRESS,
    ];
    let (exit, value) = json(&hosts.client, &words);
    assert_eq!(exit, CONFLICT);
    assert_eq!(value["conflict"]["evidence"], "duplicate_reply");
    assert_eq!(macs(&value), both_macs(&hosts));
    let history = value["history"].as_array().unwrap();
    assert!(history.iter().any(|one| one["finding"] == "conflict"));
    assert!(history.iter().all(|one| one["ip"] == SHARED_ADDRESS));
    assert!(value.get("check").is_none(), "no probe was sent: {value}");

    let text = explain(&hosts.client, &words);
    assert_one_screen(&text.stdout);
    assert!(text.stdout.contains("timeline"), "{text:?}");
    assert!(text.stdout.contains("probe bindings --mac"), "{text:?}");
}

/// The files in an archive.
fn unpacked(archive: &Path, folder: &Path) -> Vec<String> {
    let output = Command::new("tar")
        .arg("-xvf")
        .arg(archive)
        .arg("-C")
        .arg(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().map(str::to_owned).collect()
}

#[test]
fn a_bundle_contains_the_report_and_overwrites_no_file() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let daemon_socket = DaemonSocket::new().unwrap();
    let daemon = hosts
        .client
        .ready_daemon(&["--socket", daemon_socket.argument()])
        .unwrap();
    hosts.resolve().unwrap();
    daemon.wait_for_finding("conflict", TIMEOUT).unwrap();
    let files = tempfile::tempdir().unwrap();
    let archive = files.path().join("ticket.tar");
    let path = archive.to_str().unwrap();
    let words = [
        "--socket",
        daemon_socket.argument(),
        "--bundle",
        path,
        SHARED_ADDRESS,
    ];
    let written = explain(&hosts.client, &words);
    assert_eq!(status(&written), CONFLICT, "{written:?}");

    let folder = format!("probe-{SHARED_ADDRESS}");
    let names = unpacked(&archive, files.path());
    let expected = [
        "README",
        "explain.txt",
        "explain.json",
        "frames.pcapng",
        "neighbors.json",
        "interfaces.json",
        "bindings.json",
        "history.json",
        "versions.json",
        "doctor.json",
    ];
    assert_eq!(names, expected.map(|name| format!("{folder}/{name}")));
    let read = |name: &str| fs::read_to_string(files.path().join(&folder).join(name)).unwrap();
    let value = |name: &str| -> Value { serde_json::from_str(&read(name)).unwrap() };
    assert_eq!(read("explain.txt"), written.stdout);
    valid(&value("explain.json"));
    assert_eq!(value("explain.json")["status"], "conflict");
    assert!(value("doctor.json")["kernel"].is_string());
    assert!(!value("bindings.json").as_array().unwrap().is_empty());
    let interfaces = value("interfaces.json");
    let interfaces = interfaces.as_array().unwrap();
    assert!(
        interfaces.iter().any(|one| one["interface"] == "eth0"),
        "{interfaces:?}"
    );

    // A directory in which no file can be created.
    let to_stdout = [
        "--socket",
        daemon_socket.argument(),
        "--bundle",
        "-",
        SHARED_ADDRESS,
    ];
    let piped = explain(&hosts.client, &to_stdout);
    assert_eq!(status(&piped), CONFLICT, "{piped:?}");
    assert!(piped.stdout.contains(&format!("{folder}/explain.json")));
    assert!(piped.stderr.contains("CONFLICT"), "{}", piped.stderr);
    assert!(!piped.stderr.contains('\u{1b}'), "{}", piped.stderr);

    // The recorded frames give the same result.
    let frames = files.path().join(&folder).join("frames.pcapng");
    let replayed = hosts
        .client
        .probe(&[
            "watch",
            "--read",
            frames.to_str().unwrap(),
            "--claims",
            "-o",
            "json",
        ])
        .unwrap()
        .finish(TIMEOUT)
        .unwrap();
    for mac in both_macs(&hosts) {
        assert!(replayed.stdout.contains(&mac), "{mac}: {replayed:?}");
    }

    let before = fs::read(&archive).unwrap();
    let refused = explain(&hosts.client, &words);
    assert_eq!(status(&refused), FAILED);
    assert!(refused.stderr.contains("--force"), "{refused:?}");
    assert_eq!(fs::read(&archive).unwrap(), before);
    let forced = explain(&hosts.client, &[&["--force"], &words[..]].concat());
    assert_eq!(status(&forced), CONFLICT, "{forced:?}");
    assert_eq!(unpacked(&archive, files.path()).len(), expected.len());
    let left = fs::read_dir(files.path()).unwrap().count();
    assert_eq!(
        left, 2,
        "the archive and the unpacked files, and no temporary file"
    );
}
