//! `probe check` with the replies of real kernels and of simulated hosts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use probe_common::wire::{ArpFrame, FrameKind, MacAddr, ethertype};
use probe_tests::{
    CLIENT_ADDRESS, Finished, Frame, Host, INTERFACE, Lab, PublicCopy, SHARED_ADDRESS, Stream,
    Switch, binary, eventually,
};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Exit statuses.
const SUCCESS: i32 = 0;
const CONFLICT: i32 = 1;
const USAGE: i32 = 2;
const UNMET: i32 = 3;
const FAILED: i32 = 4;

fn check(host: &Host, words: &[&str]) -> Finished {
    let words = [&["check"], words].concat();
    let finished = host.probe(&words).unwrap().finish(TIMEOUT).unwrap();
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
    finished
}

fn status(finished: &Finished) -> i32 {
    finished.status.code().unwrap()
}

/// Runs `probe check` and returns the records, each validated against the schema.
fn records(host: &Host, words: &[&str]) -> (i32, Vec<Value>) {
    let finished = check(host, &[&["-o", "json"], words].concat());
    let schema = include_str!("../../../docs/check.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap();
    let lines = finished.stdout.lines();
    let records: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for record in &records {
        let errors: Vec<_> = validator
            .iter_errors(record)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?}: {record}");
    }
    assert_ne!(status(&finished), USAGE, "{finished:?}");
    (status(&finished), records)
}

/// Checks one address; returns exit status and record.
fn record(host: &Host, words: &[&str]) -> (i32, Value) {
    let (status, mut records) = records(host, words);
    assert_eq!(records.len(), 1, "{records:?}");
    (status, records.remove(0))
}

fn macs(record: &Value) -> BTreeSet<String> {
    let owners = record["owners"].as_array().unwrap();
    owners
        .iter()
        .flat_map(|owner| owner["macs"].as_array().unwrap())
        .map(|mac| mac.as_str().unwrap().to_owned())
        .collect()
}

fn set<const N: usize>(hosts: [&Host; N]) -> BTreeSet<String> {
    hosts.map(|host| host.mac().to_string()).into()
}

/// A simulated host with a function that returns the replies to an ARP frame and their delays.
struct ReplyingHost {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl ReplyingHost {
    fn new(
        host: &Host,
        replies: impl Fn(&ArpFrame) -> Vec<(Duration, Frame)> + Send + 'static,
    ) -> Self {
        let (sender, capture) = (host.sender().unwrap(), host.capture().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut due: Vec<(Instant, Frame)> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let frame = capture.next(Duration::from_millis(1))?;
                let now = Instant::now();
                if let Some(arp) = frame
                    .filter(|frame| !frame.sent)
                    .and_then(|frame| frame.arp())
                {
                    due.extend(
                        replies(&arp)
                            .into_iter()
                            .map(|(after, frame)| (now + after, frame)),
                    );
                }
                let (ready, later) = due.into_iter().partition(|(at, _)| *at <= now);
                due = later;
                sender.send_all(ready.iter().map(|(_, frame)| frame))?;
            }
            Ok(())
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Replies to requests for an address with these MACs, each after its delay.
    fn with_replies(host: &Host, address: &'static str, replies: Vec<(Duration, MacAddr)>) -> Self {
        let address: Ipv4Addr = address.parse().unwrap();
        Self::new(host, move |request| {
            if !is_request_for(request, address) {
                return Vec::new();
            }
            let reply = |(after, mac): &(Duration, MacAddr)| {
                (
                    *after,
                    Frame::reply(*mac, address, request.sha, request.spa),
                )
            };
            replies.iter().map(reply).collect()
        })
    }
}

impl Drop for ReplyingHost {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

fn is_request_for(frame: &ArpFrame, address: Ipv4Addr) -> bool {
    frame.oper == ArpFrame::REQUEST && frame.tpa == address.octets()
}

/// A client at 192.0.2.1 on a switch.
fn client(lab: &Lab) -> (Switch, Host) {
    let switch = lab.bridge().unwrap();
    let client = switch.host("client").unwrap();
    client.add_address(&format!("{CLIENT_ADDRESS}/24")).unwrap();
    (switch, client)
}

fn host(switch: &Switch, name: &str, address: &str) -> Host {
    let host = switch.host(name).unwrap();
    host.add_address(&format!("{address}/24")).unwrap();
    host
}

#[test]
fn one_owner_a_duplicate_and_no_reply_are_distinguished_within_a_second() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let lone = host(&hosts.switch, "lone", "192.0.2.11");
    let targets = [SHARED_ADDRESS, "192.0.2.11", "192.0.2.12"];
    let (status, records) = records(&hosts.client, &targets);
    assert_eq!(status, CONFLICT);
    let statuses: Vec<_> = records.iter().map(|record| &record["status"]).collect();
    assert_eq!(statuses, ["conflict", "one_owner", "no_reply"]);
    assert_eq!(macs(&records[0]), set([&hosts.server, &hosts.duplicate]));
    assert_eq!(macs(&records[1]), set([&lone]));
    assert_eq!(records[1]["owners"][0]["probes_answered"], 3);
    assert_eq!(records[2]["probes_sent"], 3);

    let text = check(&hosts.client, &[SHARED_ADDRESS]);
    assert_eq!(self::status(&text), CONFLICT);
    for word in [
        "conflict",
        SHARED_ADDRESS,
        "Two hosts own this address at once.",
        &hosts.duplicate.mac().to_string(),
        "replied to 3 of 3",
    ] {
        assert!(text.stdout.contains(word), "{word}: {text:?}");
    }
    assert!(text.stdout.lines().all(|line| line.chars().count() <= 80));
    assert!(!text.stdout.contains('\u{1b}'), "no colour in a pipe");

    // The binary reports its own time. The best of three runs counts, because the machine is busy with other tests.
    let took = [(); 3].map(|()| {
        let summary = check(&hosts.client, &targets).stderr;
        let took = summary.rsplit("probes in ").next().unwrap();
        took.trim().trim_end_matches(" s").parse::<f64>().unwrap()
    });
    assert!(took.iter().any(|&took| took <= 1.0), "{took:?}");
}

#[test]
fn a_silent_duplicate_that_listening_cannot_see_is_found() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let daemon = hosts.client.ready_daemon(&[]).unwrap();
    // A host is found by listening, and it is not the duplicate.
    let other = host(&hosts.switch, "other", "192.0.2.77");
    let announcement = Frame::announcement(other.mac(), [192, 0, 2, 77]);
    other.sender().unwrap().send(&announcement).unwrap();
    daemon.wait_until_processed(1).unwrap();
    assert!(daemon.findings().unwrap().is_empty());

    let (status, record) = record(&hosts.client, &[SHARED_ADDRESS]);
    assert_eq!((status, &record["status"]), (CONFLICT, &"conflict".into()));
}

#[test]
fn slow_and_repeated_replies_and_several_macs_of_one_host_are_classified() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let simulated = switch.host("simulated").unwrap();
    let milliseconds = Duration::from_millis;
    let mac = |last| MacAddr([2, 0, 0, 0, 9, last]);

    let slow =
        ReplyingHost::with_replies(&simulated, "192.0.2.21", vec![(milliseconds(420), mac(1))]);
    let (exit, result) = record(&client, &["192.0.2.21"]);
    assert_eq!((exit, &result["status"]), (SUCCESS, &"one_owner".into()));
    drop(slow);

    // The first reply is not the only one.
    let replies = vec![(milliseconds(0), mac(1)), (milliseconds(400), mac(2))];
    let fast_and_slow = ReplyingHost::with_replies(&simulated, "192.0.2.22", replies);
    let (exit, result) = record(&client, &["192.0.2.22"]);
    assert_eq!((exit, &result["status"]), (CONFLICT, &"conflict".into()));
    drop(fast_and_slow);

    let repeating =
        ReplyingHost::with_replies(&simulated, "192.0.2.23", vec![(milliseconds(0), mac(3)); 5]);
    let (exit, result) = record(&client, &["192.0.2.23"]);
    assert_eq!((exit, &result["status"]), (SUCCESS, &"one_owner".into()));
    assert_eq!(result["owners"][0]["probes_answered"], 3);
    assert_eq!(result["owners"][0]["replies"], 15);
    drop(repeating);

    // A router replies with its virtual MAC and with its own MAC.
    let router = MacAddr([0, 0, 0x5e, 0, 1, 7]);
    let replies = vec![(milliseconds(0), router), (milliseconds(1), mac(4))];
    let virtual_router = ReplyingHost::with_replies(&simulated, "192.0.2.24", replies);
    let (exit, result) = record(&client, &["192.0.2.24"]);
    assert_eq!((exit, &result["status"]), (UNMET, &"contested".into()));
    assert_eq!(result["hint"], "router_and_host");
    drop(virtual_router);

    // Two MACs are two hosts unless they are declared to be one.
    let replies = vec![(milliseconds(0), mac(5)), (milliseconds(0), mac(6))];
    let _pair = ReplyingHost::with_replies(&simulated, "192.0.2.25", replies);
    assert_eq!(record(&client, &["192.0.2.25"]).0, CONFLICT);
    let same = format!("{},{}", mac(5), mac(6));
    let (exit, result) = record(&client, &["192.0.2.25", "--same-owner", &same]);
    assert_eq!((exit, &result["status"]), (SUCCESS, &"one_owner".into()));
}

#[test]
fn several_nodes_that_reply_for_a_service_are_a_conflict_with_its_cause() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let nodes = ["node1", "node2", "node3", "node4"];
    let nodes: Vec<_> = nodes
        .iter()
        .zip(2..)
        .map(|(name, number)| {
            let node = host(&switch, name, &format!("192.0.2.{number}"));
            // The state that kube-proxy without strictARP creates.
            node.ip(["address", "add", "192.0.2.200/32", "dev", "lo"])
                .unwrap();
            node
        })
        .collect();
    let (status, record) = record(&client, &["192.0.2.200"]);
    assert_eq!((status, &record["status"]), (CONFLICT, &"conflict".into()));
    assert_eq!(record["hint"], "ipvs_strict_arp");
    assert_eq!(macs(&record).len(), nodes.len());
}

#[test]
fn a_proxy_that_replies_only_to_requests_is_found_and_many_addresses_of_one_mac_are_no_conflict() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let proxy = host(&switch, "proxy", "192.0.2.2");
    proxy.add_cable("inside", "other").unwrap();
    proxy
        .ip(["route", "add", "192.0.2.64/28", "dev", "inside"])
        .unwrap();
    for (parameter, value) in [
        ("ipv4/conf/eth0/proxy_arp", "1"),
        ("ipv4/conf/eth0/forwarding", "1"),
        ("ipv4/neigh/eth0/proxy_delay", "0"),
    ] {
        proxy.set_parameter(parameter, value).unwrap();
    }
    let targets = ["192.0.2.65", "192.0.2.66"];
    let (status, found) = records(&client, &targets);
    assert_eq!(status, SUCCESS);
    for record in found {
        assert_eq!(record["status"], "one_owner", "{record}");
        assert_eq!(record["owners"][0]["requests_answered"], 1, "{record}");
    }

    let (status, found) = records(
        &client,
        &[&["--source-ip", CLIENT_ADDRESS], &targets[..]].concat(),
    );
    assert_eq!(status, SUCCESS);
    for record in found {
        assert_eq!(record["status"], "one_owner", "{record}");
        assert_eq!(macs(&record), set([&proxy]));
    }
}

#[test]
fn this_host_owns_its_address_and_another_owner_is_a_conflict() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let (exit, record) = self::record(&client, &["--expect-owner", CLIENT_ADDRESS]);
    assert_eq!((exit, &record["status"]), (SUCCESS, &"one_owner".into()));
    assert_eq!(record["owners"][0]["holds"], true);
    assert_eq!(macs(&record), set([&client]));
    let finished = check(&client, &["--expect-free", CLIENT_ADDRESS]);
    assert_eq!(status(&finished), UNMET);

    let unknown_host = host(&switch, "unknown", CLIENT_ADDRESS);
    let (exit, record) = self::record(&client, &[CLIENT_ADDRESS]);
    assert_eq!((exit, &record["status"]), (CONFLICT, &"conflict".into()));
    assert_eq!(macs(&record), set([&client, &unknown_host]));
}

#[test]
fn every_expectation_has_its_exit_status() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let lone = host(&hosts.switch, "lone", "192.0.2.11");
    let (mac, wrong) = (lone.mac().to_string(), hosts.duplicate.mac().to_string());
    for (words, expected) in [
        (&["192.0.2.11"][..], SUCCESS),
        (&["192.0.2.12"], SUCCESS),
        (&["--expect-owner", "192.0.2.11"], SUCCESS),
        (&["--expect-owner", "192.0.2.12"], UNMET),
        (&["--expect-free", "192.0.2.12"], SUCCESS),
        (&["--expect-free", "192.0.2.11"], UNMET),
        (&["--expect-mac", &mac, "192.0.2.11"], SUCCESS),
        (&["--expect-mac", &wrong, "192.0.2.11"], UNMET),
        (&["--expect-owner", "192.0.2.11", "192.0.2.12"], UNMET),
        (&["--expect-owner", SHARED_ADDRESS], CONFLICT),
        (&["--expect-free", SHARED_ADDRESS], CONFLICT),
        (&["--expect-mac", &wrong, SHARED_ADDRESS], CONFLICT),
        (&["--expect-owner", "--expect-free", "192.0.2.11"], USAGE),
        (&["2001:db8::1"], USAGE),
        (&["192.0.2.255"], USAGE),
        (&["192.0.2.0"], USAGE),
        (&["224.0.0.1"], USAGE),
        (&["no-such-file"], USAGE),
        (&["192.0.2.20-10"], USAGE),
        (&[], USAGE),
        (&["-i", "eth7", "192.0.2.11"], FAILED),
        (&["-i", "lo", "192.0.2.11"], FAILED),
    ] {
        let finished = check(&hosts.client, words);
        assert_eq!(status(&finished), expected, "{words:?}: {finished:?}");
    }
    let unmet = check(&hosts.client, &["--expect-owner", "192.0.2.12"]);
    assert!(
        unmet.stdout.contains("expected  exactly one owner"),
        "{unmet:?}"
    );
}

#[test]
fn the_neighbour_entry_of_this_host_is_compared_with_the_replies() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let lone = host(&switch, "lone", "192.0.2.11");
    client.exec(["ping", "-c1", "-W5", "192.0.2.11"]).unwrap();
    let (_, record) = self::record(&client, &["192.0.2.11"]);
    assert_eq!(record["neighbor"]["mac"], lone.mac().to_string());
    assert_eq!(record["neighbor"]["agrees"], true);

    let wrong = "02:00:00:00:09:09";
    client
        .ip([
            "neighbour",
            "replace",
            "192.0.2.11",
            "lladdr",
            wrong,
            "dev",
            INTERFACE,
        ])
        .unwrap();
    let (_, record) = self::record(&client, &["192.0.2.11"]);
    assert_eq!(record["neighbor"]["mac"], wrong);
    assert_eq!(record["neighbor"]["agrees"], false);
    let text = check(&client, &["192.0.2.11"]).stdout;
    assert!(
        text.contains(wrong) && text.contains("does not reply"),
        "{text}"
    );
}

/// The neighbour table of a host.
fn neighbour_table(host: &Host) -> BTreeMap<String, String> {
    let entries = host.exec(["ip", "-json", "neighbour", "show"]).unwrap();
    let entries: Vec<Value> = serde_json::from_str(&entries).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = entries.iter();
    entries
        .map(|entry| (text(&entry["dst"]), text(&entry["lladdr"])))
        .collect()
}

#[test]
fn a_sweep_changes_no_neighbour_table() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let bystanders = [
        host(&hosts.switch, "first", "192.0.2.31"),
        host(&hosts.switch, "second", "192.0.2.32"),
    ];
    let [first, second] = &bystanders;
    // Even a host that accepts unsolicited claims of unknown hosts.
    first
        .set_parameter("ipv4/conf/eth0/arp_accept", "1")
        .unwrap();
    // One host has the client's MAC in its table, one a wrong MAC; both have each other and the server.
    let mac = hosts.client.mac().to_string();
    for (host, client, other) in [
        (first, mac.as_str(), second),
        (second, "02:00:00:00:09:09", first),
    ] {
        let address = if other.name() == "first" {
            "192.0.2.31"
        } else {
            "192.0.2.32"
        };
        let (other, server) = (other.mac().to_string(), hosts.server.mac().to_string());
        for (ip, lladdr) in [
            (CLIENT_ADDRESS, client),
            (address, &other),
            (SHARED_ADDRESS, &server),
        ] {
            let words = [
                "neighbour",
                "replace",
                ip,
                "lladdr",
                lladdr,
                "dev",
                INTERFACE,
                "nud",
                "stale",
            ];
            host.ip(words).unwrap();
        }
    }
    let hosts_with_tables = [
        first,
        second,
        &hosts.server,
        &hosts.duplicate,
        &hosts.client,
    ];
    let before = hosts_with_tables.map(neighbour_table);
    assert_eq!(before[0].len(), 3, "{before:?}");
    let (status, records) = records(&hosts.client, &["--rate", "300", "192.0.2.0/25"]);
    assert_eq!((status, records.len()), (CONFLICT, 127));
    let found = records
        .iter()
        .filter(|record| record["status"] != "no_reply");
    assert_eq!(
        found.count(),
        4,
        "client, server and duplicate, first, second"
    );
    assert_eq!(hosts_with_tables.map(neighbour_table), before);
}

#[test]
fn a_host_that_boots_during_a_check_keeps_its_address() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let booting = switch.host("booting").unwrap();
    let (sender, capture) = (booting.sender().unwrap(), booting.capture().unwrap());
    let address = [192, 0, 2, 40];
    let words = ["check", "-o", "json", "--for", "15s", "192.0.2.40"];
    let watching = client.probe(&words).unwrap();
    // The check sends requests as long as no other host probes for the address.
    let request = capture
        .wait_for_arp(TIMEOUT, |frame| frame.tpa == address)
        .unwrap();
    assert_eq!(
        (request.sha, request.kind()),
        (client.mac(), FrameKind::Probe)
    );

    // RFC 5227 section 2.1.1: three probes, and two seconds in which no other host may probe for the address.
    let begin = Instant::now();
    let probe = Frame::probe(booting.mac(), address);
    sender.send(&probe).unwrap();
    // One request may already have been sent.
    let (mut probes, mut on_its_way) = (1, 0);
    while begin.elapsed() < Duration::from_secs(4) {
        let due = begin + Duration::from_secs(1) * probes;
        if probes < 3 && Instant::now() >= due {
            sender.send(&probe).unwrap();
            probes += 1;
        }
        let frame = capture.next(Duration::from_millis(20)).unwrap();
        let arp = frame.filter(|frame| !frame.sent);
        if let Some(arp) = arp.and_then(|frame| frame.arp()) {
            let is_duplicate = is_request_for(&arp, address.into());
            on_its_way += u32::from(is_duplicate);
            assert!(on_its_way <= 1, "an ARP probe of another host: {arp:?}");
        }
    }
    booting.add_address("192.0.2.40/24").unwrap();
    let finished = watching.finish(TIMEOUT).unwrap();
    let record: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(record["status"], "one_owner", "{record}");
    assert_eq!(macs(&record), set([&booting]));
}

#[test]
fn listening_for_a_period_distinguishes_one_owner_a_move_and_a_conflict() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let watch = |words: &[&str]| {
        let words = [&["check", "-o", "json", "--for", "4s"], words].concat();
        hosts.client.probe(&words).unwrap()
    };
    let capture = hosts.client.capture().unwrap();
    let wait_for_answer = |mac| {
        let replies = |frame: &ArpFrame| frame.oper == ArpFrame::REPLY && frame.sha == mac;
        capture.wait_for_arp(TIMEOUT, replies).unwrap();
    };
    let read = |finished: Finished| -> (i32, Value) {
        (
            status(&finished),
            serde_json::from_str(&finished.stdout).unwrap(),
        )
    };

    let conflict = watch(&[SHARED_ADDRESS]).finish(TIMEOUT).unwrap();
    let (exit, record) = read(conflict);
    assert_eq!((exit, &record["status"]), (CONFLICT, &"conflict".into()));

    hosts.remove_duplicate().unwrap();
    let fixed = watch(&["--expect-owner", SHARED_ADDRESS])
        .finish(TIMEOUT)
        .unwrap();
    let (exit, record) = read(fixed);
    assert_eq!((exit, &record["status"]), (SUCCESS, &"one_owner".into()));
    assert!(
        record["owners"][0]["probes_answered"].as_u64().unwrap() >= 3,
        "{record}"
    );
    assert_ne!(
        record["owners"][0]["first_seen"],
        record["owners"][0]["last_seen"]
    );

    let moving = watch(&[SHARED_ADDRESS]);
    let drained = Instant::now();
    while capture.next(Duration::ZERO).unwrap().is_some() && drained.elapsed() < TIMEOUT {}
    wait_for_answer(hosts.server.mac());
    hosts
        .server
        .remove_address(&format!("{SHARED_ADDRESS}/24"))
        .unwrap();
    hosts
        .duplicate
        .add_address(&format!("{SHARED_ADDRESS}/24"))
        .unwrap();
    let (exit, record) = read(moving.finish(TIMEOUT).unwrap());
    assert_eq!(
        (exit, &record["status"]),
        (UNMET, &"moved".into()),
        "{record}"
    );
    assert_eq!(macs(&record), set([&hosts.server, &hosts.duplicate]));
    assert_eq!(
        record["owners"][0]["macs"][0],
        hosts.duplicate.mac().to_string(),
        "the last one first"
    );
}

#[test]
fn ctrl_c_during_a_sweep_prints_the_results_and_exits_4() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let words = [
        "check",
        "--rate",
        "200",
        SHARED_ADDRESS,
        "192.0.2.0/24",
        "192.0.2.64/26",
    ];
    // The order is random; the conflict is found at some point, well before the end.
    let words = [&words[..], &["--timeout", "20s"]].concat();
    let sweep = hosts.client.probe(&words).unwrap();
    let capture = hosts.client.capture().unwrap();
    let shared: Ipv4Addr = SHARED_ADDRESS.parse().unwrap();
    let mut replying_macs = BTreeSet::new();
    capture
        .wait_for_arp(TIMEOUT, |frame| {
            if frame.spa == shared.octets() {
                replying_macs.insert(frame.sha);
            }
            replying_macs.len() == 2
        })
        .unwrap();
    sweep.interrupt().unwrap();
    let finished = sweep.finish(TIMEOUT).unwrap();
    assert_eq!(status(&finished), FAILED, "{finished:?}");
    assert!(finished.stdout.contains("conflict"), "{finished:?}");
    for word in ["stopped; 254 addresses", SHARED_ADDRESS, "not probed"] {
        assert!(finished.stderr.contains(word), "{word}: {finished:?}");
    }
    let single = hosts
        .client
        .probe(&["check", "--for", "1m", "192.0.2.99"])
        .unwrap();
    capture
        .wait_for_arp(TIMEOUT, |frame| frame.tpa == [192, 0, 2, 99])
        .unwrap();
    single.interrupt().unwrap();
    assert_eq!(status(&single.finish(TIMEOUT).unwrap()), FAILED);
}

/// The number of ARP probes in a capture: waits for the expected number and for more shortly after.
fn count_probes(capture: &probe_tests::Capture, expected: usize) -> usize {
    let is_request = |frame: &ArpFrame| frame.oper == ArpFrame::REQUEST;
    for _ in 0..expected {
        capture.wait_for_arp(TIMEOUT, is_request).unwrap();
    }
    let mut number = expected;
    while let Some(frame) = capture.next(Duration::from_millis(50)).unwrap() {
        number += usize::from(frame.arp().is_some_and(|arp| is_request(&arp)));
    }
    number
}

#[test]
fn invalid_targets_are_refused_before_any_probe_is_sent() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let other = host(&switch, "other", "192.0.2.11");
    client
        .ip(["route", "add", "198.51.100.0/24", "via", "192.0.2.254"])
        .unwrap();
    let capture = other.capture().unwrap();
    for (words, exit, why) in [
        (
            &["198.51.100.0/24"][..],
            FAILED,
            "not on-link: packets to it go through the gateway 192.0.2.254 on eth0",
        ),
        (&["198.51.100.7"], FAILED, "not on-link"),
        (&["203.0.113.7"], FAILED, "no route"),
        (&["192.0.2.0/23"], FAILED, "not on-link"),
        (
            &["-i", "eth0", "198.51.100.0/24"],
            FAILED,
            "the networks on eth0 are 192.0.2.0/24",
        ),
        (
            &["--source-ip", "192.0.2.11", "192.0.2.12"],
            USAGE,
            "is not an address of this host on eth0",
        ),
        (
            &["--source-ip", "127.0.0.1", "192.0.2.12"],
            USAGE,
            "is not an address of this host on eth0",
        ),
        (&["10.0.0.0/8"], USAGE, "exceed the maximum of one check"),
    ] {
        let finished = check(&client, words);
        assert_eq!(status(&finished), exit, "{words:?}: {finished:?}");
        assert!(finished.stderr.contains(why), "{words:?}: {finished:?}");
        assert_eq!(finished.stdout, "");
    }
    for capabilities in ["-all", "-net_raw"] {
        let bounding = format!("--bounding-set={capabilities}");
        let wrapper = ["setpriv", &bounding, "--"];
        let process = client
            .probe_under(&wrapper, &["check", "192.0.2.11"])
            .unwrap();
        let finished = process.finish(TIMEOUT).unwrap();
        assert_eq!(status(&finished), FAILED);
        for word in ["CAP_NET_RAW", "root"] {
            assert!(finished.stderr.contains(word), "{finished:?}");
        }
    }
    assert_eq!(count_probes(&capture, 0), 0);
}

#[test]
fn few_addresses_with_an_explicit_interface_are_probed_without_a_route() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let other = switch.host("other").unwrap();
    // A pool on a separate network, as is possible with MetalLB.
    other.add_address("203.0.113.7/32").unwrap();
    let (status, record) = record(&client, &["-i", "eth0", "203.0.113.7"]);
    assert_eq!((status, &record["status"]), (SUCCESS, &"one_owner".into()));
    assert_eq!(macs(&record), set([&other]));
    // Without an address on the interface, the host cannot know which addresses are on-link there.
    client
        .remove_address(&format!("{CLIENT_ADDRESS}/24"))
        .unwrap();
    let words = ["-i", "eth0", "--rate", "500", "203.0.113.0/27"];
    let (status, records) = records(&client, &words);
    assert_eq!((status, records.len()), (SUCCESS, 32));
}

#[test]
fn few_addresses_are_not_probed_in_a_burst() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let observer = host(&switch, "observer", "192.0.2.11");
    let capture = observer.capture().unwrap();
    let finished = check(&client, &["192.0.2.20-29", "--rate", "1"]);
    assert_eq!(status(&finished), SUCCESS, "{finished:?}");
    assert_eq!(count_probes(&capture, 12), 12);
    check(&client, &["192.0.2.20-22"]);
    assert_eq!(count_probes(&capture, 9), 9);
}

#[test]
fn each_address_is_probed_on_the_interface_of_its_route() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let [first_host, second_host] = ["here", "there"].map(|name| switch.host(name).unwrap());
    first_host.add_address("192.0.2.11/24").unwrap();
    second_host.add_address("198.51.100.11/24").unwrap();
    let link = [
        "link", "add", "second", "link", INTERFACE, "type", "macvlan", "mode", "bridge",
    ];
    client.ip(link).unwrap();
    client
        .ip(["address", "add", "198.51.100.1/24", "dev", "second"])
        .unwrap();
    client.ip(["link", "set", "dev", "second", "up"]).unwrap();
    let (status, records) = records(&client, &["192.0.2.11", "198.51.100.11"]);
    assert_eq!(status, SUCCESS);
    for (record, (interface, owner)) in records
        .iter()
        .zip([(INTERFACE, &first_host), ("second", &second_host)])
    {
        assert_eq!(record["status"], "one_owner", "{record}");
        assert_eq!(record["interface"], interface);
        assert_eq!(macs(record), set([owner]));
    }
}

#[test]
fn an_interface_that_goes_down_during_a_check_makes_it_exit_4() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let _other = host(&switch, "other", "192.0.2.11");
    let process = client
        .probe(&["check", "--for", "1m", "192.0.2.11"])
        .unwrap();
    let capture = client.capture().unwrap();
    let result = |frame: &ArpFrame| frame.oper == ArpFrame::REPLY && frame.spa == [192, 0, 2, 11];
    capture.wait_for_arp(TIMEOUT, result).unwrap();
    client
        .ip(["link", "set", "dev", INTERFACE, "down"])
        .unwrap();
    let finished = process.finish(TIMEOUT).unwrap();
    assert_eq!(status(&finished), FAILED, "{finished:?}");
    assert!(finished.stderr.contains("down"), "{finished:?}");
    assert!(
        finished.stdout.contains("192.0.2.11"),
        "the results so far: {finished:?}"
    );
}

/// No reply without a carrier does not mean that an address is free.
#[test]
fn without_a_carrier_no_address_is_reported_as_free() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let _other = host(&switch, "other", "192.0.2.11");
    let words = ["check", "--expect-free", "--for", "1m", "192.0.2.99"];
    let process = client.probe(&words).unwrap();
    let capture = client.capture().unwrap();
    capture
        .wait_for_arp(TIMEOUT, |frame| frame.tpa == [192, 0, 2, 99])
        .unwrap();
    switch.unplug(&client).unwrap();
    let finished = process.finish(TIMEOUT).unwrap();
    assert_eq!(status(&finished), FAILED, "{finished:?}");
    assert!(finished.stderr.contains("no carrier"), "{finished:?}");
    assert!(finished.stdout.contains("not probed"), "{finished:?}");

    for address in ["192.0.2.99", "192.0.2.11"] {
        let words = ["check", "--expect-free", address];
        let finished = client.probe(&words).unwrap().finish(TIMEOUT).unwrap();
        assert_eq!(status(&finished), FAILED, "{finished:?}");
        assert!(finished.stderr.contains("no carrier"), "{finished:?}");
    }
    client
        .ip(["link", "set", "dev", INTERFACE, "down"])
        .unwrap();
    let words = ["check", "192.0.2.11"];
    let finished = client.probe(&words).unwrap().finish(TIMEOUT).unwrap();
    assert_eq!(status(&finished), FAILED, "{finished:?}");
    assert!(
        finished.stderr.contains(&format!("{INTERFACE} is down")),
        "{finished:?}"
    );
}

#[test]
fn check_needs_one_capability_and_drops_it() {
    let lab = Lab::new().unwrap();
    let (switch, client) = client(&lab);
    let _other = host(&switch, "other", "192.0.2.11");
    let wrapper = ["setpriv", "--bounding-set=-all,+net_raw", "--"];
    let words = ["check", "--expect-owner", "--for", "2s", "192.0.2.11"];
    let process = client.probe_under(&wrapper, &words).unwrap();
    let capture = client.capture().unwrap();
    capture
        .wait_for_arp(TIMEOUT, |frame| frame.tpa == [192, 0, 2, 11])
        .unwrap();
    for name in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        for mask in process.threads(name).unwrap() {
            assert_eq!(u64::from_str_radix(&mask, 16).unwrap(), 0, "{name}");
        }
    }
    let finished = process.finish(TIMEOUT).unwrap();
    assert_eq!(status(&finished), SUCCESS, "{finished:?}");

    // An unprivileged user, with the capability on the file.
    let copy = PublicCopy::new(&client).unwrap();
    let path = copy.path().to_str().unwrap();
    client.exec(["setcap", "cap_net_raw+ep", path]).unwrap();
    let unprivileged = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    let words = ["check", "--expect-owner", "192.0.2.11"];
    let finished = client
        .run(unprivileged.iter().chain([&path]).chain(&words))
        .unwrap();
    assert_eq!(status(&finished), SUCCESS, "{finished:?}");
}

/// Replies with these tags to a request in these tags, and with another MAC in other tags.
fn replying_host_in_vlan(
    host: &Host,
    address: [u8; 4],
    tags: &'static [(u16, u16)],
    wrong: MacAddr,
) -> ReplyingHost {
    let mac = host.mac();
    let vids: Vec<u16> = tags.iter().map(|(_, vid)| *vid).collect();
    ReplyingHost::new(host, move |request| {
        // A capture does not show the tag that the kernel has removed: it shows the inner tag, or none.
        let shown = request.vlan().0[0];
        if !is_request_for(request, address.into()) || shown != vids.get(1).copied().unwrap_or(0) {
            return Vec::new();
        }
        let tagged = |mac, tags: &[(u16, u16)]| {
            let frame = Frame::reply(mac, address, request.sha, [0; 4]);
            let frame = tags
                .iter()
                .fold(frame, |frame, &(tpid, vid)| frame.tagged_as(tpid, vid));
            (Duration::ZERO, frame)
        };
        vec![
            tagged(mac, tags),
            tagged(wrong, &[]),
            tagged(wrong, &[(ethertype::VLAN, 999)]),
        ]
    })
}

#[test]
fn only_replies_from_the_probed_vlan_count() {
    let lab = Lab::new().unwrap();
    let [client, peer] = lab.pair("client", "peer").unwrap();
    client.add_address("192.0.2.1/24").unwrap();
    let wrong = MacAddr([2, 0, 0, 0, 9, 9]);
    for (vlan, tags) in [
        ("100", &[(ethertype::VLAN, 100)][..]),
        ("300.200", &[(ethertype::QINQ, 300), (ethertype::VLAN, 200)]),
    ] {
        let _replying_host = replying_host_in_vlan(&peer, [198, 51, 100, 7], tags, wrong);
        let words = ["-i", "eth0", "--vlan", vlan, "198.51.100.7"];
        let (status, record) = record(&client, &words);
        assert_eq!(
            (status, &record["status"]),
            (SUCCESS, &"one_owner".into()),
            "{record}"
        );
        assert_eq!(macs(&record), set([&peer]));
        assert_eq!(record["vlan"], vlan);
    }
    // Those replies are ignored when no request was sent in a VLAN.
    let _replying_host =
        replying_host_in_vlan(&peer, [192, 0, 2, 7], &[(ethertype::VLAN, 100)], wrong);
    let capture = peer.capture().unwrap();
    let (_, record) = record(&client, &["192.0.2.7"]);
    assert_eq!(macs(&record), [wrong.to_string()].into());
    capture
        .wait_for_arp(TIMEOUT, |frame| frame.tpa == [192, 0, 2, 7])
        .unwrap();
}

#[test]
fn check_works_beside_daemons_in_native_xdp_and_in_tc() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let native = hosts.client.ready_daemon(&[]).unwrap();
    let words = [
        "run",
        "-i",
        INTERFACE,
        "--attach",
        "tc",
        "--listen",
        "127.0.0.1:9791",
    ];
    let tc = hosts.client.probe(&words).unwrap();
    let address = "127.0.0.1:9791".parse().unwrap();
    eventually("the second daemon to be ready", TIMEOUT, || {
        anyhow::ensure!(!tc.has_ended(), "the daemon ended: {}", tc.written_output());
        let result = hosts.client.http_get(address, "/readyz");
        Ok(result
            .is_ok_and(|result| result.status == 200)
            .then_some(()))
    })
    .unwrap();
    let (status, record) = record(&hosts.client, &[SHARED_ADDRESS]);
    assert_eq!((status, &record["status"]), (CONFLICT, &"conflict".into()));
    assert_eq!(macs(&record), set([&hosts.server, &hosts.duplicate]));
    // The requests of the check are not reported as a host that probes for the address.
    let denied = native.findings().unwrap();
    assert!(
        denied
            .iter()
            .all(|finding| finding.finding != "probe_denied"),
        "{denied:?}"
    );
    native.terminate().unwrap();
}

#[test]
fn a_list_and_pools_are_read_from_standard_input_and_from_files() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let probe = binary().unwrap();
    let run = |input: &str| {
        let script = format!("printf '{input}' | {} check -o json -", probe.display());
        hosts.client.run(["sh", "-c", &script]).unwrap()
    };
    let list = run(r"# ours\n192.0.2.10\n192.0.2.11-12\n");
    assert_eq!(
        (status(&list), list.stdout.lines().count()),
        (CONFLICT, 3),
        "{list:?}"
    );
    let pool = run(
        r"apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: a}\nspec: {addresses: [192.0.2.8/30, \042fc00::/120\042]}\n",
    );
    assert_eq!(
        (status(&pool), pool.stdout.lines().count()),
        (CONFLICT, 4),
        "{pool:?}"
    );
    assert!(pool.stderr.contains("IPv6"), "{pool:?}");
    let broken = run(r"192.0.2.10\nnonsense\n");
    assert_eq!(status(&broken), FAILED);
    assert!(broken.stdout.is_empty(), "a probe was sent: {broken:?}");
    assert!(broken.stderr.contains("line 2"), "{broken:?}");
}

#[test]
fn the_results_agree_with_arping_and_arp_scan() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let _others = [
        host(&hosts.switch, "first", "192.0.2.3"),
        host(&hosts.switch, "second", "192.0.2.14"),
    ];
    // arp-scan omits this host's own address unless it replies, which it does not.
    let (_, records) = records(&hosts.client, &["--rate", "100", "192.0.2.2-192.0.2.30"]);
    let mut ours: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for record in records {
        if record["status"] != "no_reply" {
            ours.insert(record["ip"].as_str().unwrap().to_owned(), macs(&record));
        }
    }
    let words = [
        "arp-scan",
        "-I",
        INTERFACE,
        "--plain",
        "192.0.2.2-192.0.2.30",
    ];
    let scan = hosts.client.exec(words).unwrap();
    let mut theirs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in scan.lines() {
        let mut fields = line.split('\t');
        let (ip, mac) = (fields.next().unwrap(), fields.next().unwrap());
        theirs
            .entry(ip.to_owned())
            .or_default()
            .insert(mac.to_owned());
    }
    assert_eq!(ours.len(), 3, "{ours:?}");
    assert_eq!(ours, theirs, "{scan}");

    // arping -D exits 1 for an address that is in use.
    for (address, taken) in [(SHARED_ADDRESS, 1), ("192.0.2.3", 1), ("192.0.2.4", 0)] {
        let words = [
            "arping", "-D", "-c", "2", "-w", "2", "-I", INTERFACE, address,
        ];
        let finished = hosts.client.run(words).unwrap();
        assert_eq!(status(&finished), taken, "{finished:?}");
        let free = check(&hosts.client, &["--expect-free", address]);
        assert_eq!(status(&free) != SUCCESS, taken == 1, "{free:?}");
    }
    let words = [
        "arping",
        "-b",
        "-c",
        "2",
        "-w",
        "3",
        "-I",
        INTERFACE,
        SHARED_ADDRESS,
    ];
    let replies = hosts.client.run(words).unwrap().stdout;
    for mac in &ours[SHARED_ADDRESS] {
        assert!(replies.to_lowercase().contains(mac), "{replies}");
    }
}

#[test]
fn a_closed_output_ends_the_check() {
    let lab = Lab::new().unwrap();
    let hosts = lab.three_hosts().unwrap();
    let probe = binary().unwrap();
    let script = format!(
        "{} check -o json 192.0.2.10 | true; echo ended",
        probe.display()
    );
    let process = hosts.client.spawn(["sh", "-c", &script]).unwrap();
    process
        .wait_for_line(Stream::Stdout, TIMEOUT, |line| line == "ended")
        .unwrap();
    assert!(!process.finish(TIMEOUT).unwrap().stderr.contains("panicked"));
}
