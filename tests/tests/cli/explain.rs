//! `probe explain`: one address on one screen, with and without a daemon, and what goes into a ticket.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use probe_tests::{CLIENT_ADDRESS, Duplicate, Finished, Host, Lab, SHARED_ADDRESS, SocketPlace};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// Exit statuses.
const FINE: i32 = 0;
const CONFLICT: i32 = 1;
const FAILED: i32 = 4;

fn explain_under(host: &Host, wrapper: &[&str], words: &[&str]) -> Finished {
    let words = [&["explain", "--kubernetes", "off"], words].concat();
    let process = host.probe_under(wrapper, &words).unwrap();
    let finished = process.finish(SOON).unwrap();
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
    finished
}

fn explain(host: &Host, words: &[&str]) -> Finished {
    explain_under(host, &[], words)
}

fn status(finished: &Finished) -> i32 {
    finished.status.code().unwrap()
}

/// The object, which is as the schema says.
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

fn both(hosts: &Duplicate) -> BTreeSet<String> {
    [&hosts.server, &hosts.rival]
        .map(|host| host.mac().to_string())
        .into()
}

/// What people see: one screen of an ordinary terminal.
fn assert_one_screen(text: &str) {
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(text.lines().count() <= 40, "{text}");
    assert!(!text.contains('\u{1b}'), "no colour in a pipe");
}

#[test]
fn without_a_daemon_and_a_cluster_the_wire_is_asked() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let nowhere = ["--socket", "/nonexistent/socket"];
    let told = |ip: &str| json(&hosts.client, &[&nowhere[..], &[ip]].concat());

    let (exit, conflict) = told(SHARED_ADDRESS);
    assert_eq!((exit, &conflict["status"]), (CONFLICT, &"conflict".into()));
    assert_eq!(macs(&conflict), both(&hosts));
    assert_eq!(conflict["check"]["verdict"], "conflict");

    let (exit, own) = told(CLIENT_ADDRESS);
    assert_eq!((exit, &own["status"]), (FINE, &"one_owner".into()));
    assert_eq!(own["owners"][0]["activity"], "holds");
    let (exit, free) = told("192.0.2.99");
    assert_eq!((exit, &free["status"]), (FINE, &"free".into()));
    // Another segment's, and nothing that has ARP.
    for elsewhere in ["203.0.113.7", "2001:db8::1"] {
        let (exit, value) = told(elsewhere);
        assert_eq!((exit, &value["status"]), (FINE, &"not_local".into()));
    }

    let text = explain(&hosts.client, &[&nowhere[..], &[SHARED_ADDRESS]].concat());
    assert_eq!(status(&text), CONFLICT);
    assert_one_screen(&text.stdout);
    for words in [
        "CONFLICT",
        "Two machines have this address at once.",
        &hosts.rival.mac().to_string(),
        "no daemon at /nonexistent/socket",
        "ip neigh | grep",
    ] {
        assert!(text.stdout.contains(words), "{words}: {text:?}");
    }
}

#[test]
fn where_it_cannot_ask_it_says_so_and_goes_on() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let place = SocketPlace::new().unwrap();
    let words = ["--socket", place.word(), SHARED_ADDRESS];
    let powerless = [
        "setpriv",
        "--bounding-set=-net_raw",
        "--inh-caps=-all",
        "--",
    ];
    let blind = explain_under(&hosts.client, &powerless, &words);
    assert_eq!(status(&blind), FAILED);
    assert!(blind.stdout.contains("CAP_NET_RAW"), "{blind:?}");

    let not_probed = explain(&hosts.client, &[&["--no-probe"], &words[..]].concat());
    assert_eq!(status(&not_probed), FAILED, "{not_probed:?}");
    assert!(not_probed.stdout.contains("not known"), "{not_probed:?}");

    // What the daemon knows it tells all the same.
    let daemon = hosts
        .client
        .ready_daemon(&["--socket", place.word()])
        .unwrap();
    hosts.ask().unwrap();
    daemon.wait_for_finding("conflict", SOON).unwrap();
    let blind = explain_under(&hosts.client, &powerless, &words);
    assert_eq!(status(&blind), CONFLICT, "{blind:?}");
    assert!(blind.stdout.contains("CAP_NET_RAW"), "{blind:?}");
    assert_one_screen(&blind.stdout);
}

#[test]
fn the_daemon_tells_how_it_came_to_this() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let place = SocketPlace::new().unwrap();
    let daemon = hosts
        .client
        .ready_daemon(&["--socket", place.word()])
        .unwrap();
    hosts.ask().unwrap();
    daemon.wait_for_finding("conflict", SOON).unwrap();
    let words = ["--socket", place.word(), "--no-probe", SHARED_ADDRESS];
    let (exit, value) = json(&hosts.client, &words);
    assert_eq!(exit, CONFLICT);
    assert_eq!(value["conflict"]["evidence"], "duplicate_reply");
    assert_eq!(macs(&value), both(&hosts));
    let history = value["history"].as_array().unwrap();
    assert!(history.iter().any(|one| one["finding"] == "conflict"));
    assert!(history.iter().all(|one| one["ip"] == SHARED_ADDRESS));
    assert!(value.get("check").is_none(), "nobody was asked: {value}");

    let text = explain(&hosts.client, &words);
    assert_one_screen(&text.stdout);
    assert!(text.stdout.contains("timeline"), "{text:?}");
    assert!(text.stdout.contains("probe bindings --mac"), "{text:?}");
}

/// The files of an archive.
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
fn a_bundle_has_what_a_ticket_needs_and_replaces_nothing() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let place = SocketPlace::new().unwrap();
    let daemon = hosts
        .client
        .ready_daemon(&["--socket", place.word()])
        .unwrap();
    hosts.ask().unwrap();
    daemon.wait_for_finding("conflict", SOON).unwrap();
    let files = tempfile::tempdir().unwrap();
    let archive = files.path().join("ticket.tar");
    let path = archive.to_str().unwrap();
    let words = ["--socket", place.word(), "--bundle", path, SHARED_ADDRESS];
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

    // Where no file can be written.
    let to_stdout = ["--socket", place.word(), "--bundle", "-", SHARED_ADDRESS];
    let piped = explain(&hosts.client, &to_stdout);
    assert_eq!(status(&piped), CONFLICT, "{piped:?}");
    assert!(piped.stdout.contains(&format!("{folder}/explain.json")));
    assert!(piped.stderr.contains("CONFLICT"), "{}", piped.stderr);
    assert!(!piped.stderr.contains('\u{1b}'), "{}", piped.stderr);

    // The frames tell the same again.
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
        .finish(SOON)
        .unwrap();
    for mac in both(&hosts) {
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
        "the archive and what was unpacked, and nothing half done"
    );
}
