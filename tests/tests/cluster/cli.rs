//! The subcommands that read a cluster, with a real API server: their result is compared with the frames that hosts
//! send.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::Result;
use probe_tests::{
    Access, Finished, Host, Kubernetes, Lab, Switch, install_metallb, l2_status, metallb,
    namespace, node, pool, service,
};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_mins(1);

/// Exit statuses.
const SUCCESS: i32 = 0;
const CONFLICT: i32 = 1;
const UNMET: i32 = 3;
const FAILED: i32 = 4;

/// A cluster of two nodes, and a foreign host. Of the pool, `.64` is announced by node-1 and `.65` by no node;
/// `.66` belongs to the foreign host although a service has it, and `.70` belongs to the foreign host without a
/// service.
struct Cluster {
    kubernetes: Kubernetes,
    access: Access,
    requester: Host,
    nodes: Vec<Host>,
    foreign: Host,
    _switch: Switch,
}

impl Cluster {
    fn new(lab: &Lab) -> Result<Self> {
        let kubernetes = lab.kubernetes()?;
        let api = kubernetes.api()?;
        install_metallb(&api, true)?;
        api.create(&pool("production", &["192.0.2.64/29"]))?;
        api.create(&pool("routed", &["198.51.100.0/28"]))?;
        let only = |pool: &str| json!({ "ipAddressPools": [pool] });
        api.create(&metallb("L2Advertisement", "all", &only("production")))?;
        api.create(&metallb("BGPAdvertisement", "all", &only("routed")))?;
        api.create(&namespace("shop"))?;
        for (name, address) in [
            ("frontend", "192.0.2.64"),
            ("silent", "192.0.2.65"),
            ("stray", "192.0.2.66"),
            ("routed", "198.51.100.1"),
        ] {
            let service = service("shop", name);
            api.create(&service)?;
            api.assign(&service, &[address])?;
            if name == "frontend" {
                api.create(&l2_status("l2-frontend", "node-1", &service))?;
            }
        }
        let switch = lab.bridge()?;
        let host = |name: &str, addresses: &[&str]| -> Result<Host> {
            let host = switch.host(name)?;
            for address in addresses {
                host.add_address(&format!("{address}/24"))?;
            }
            Ok(host)
        };
        let mut nodes = Vec::new();
        for (name, addresses) in [
            ("node-1", &["192.0.2.11", "192.0.2.64"][..]),
            ("node-2", &["192.0.2.12"]),
        ] {
            nodes.push(host(name, addresses)?);
            let object = node(name, addresses[0]);
            api.create(&object)?;
            api.patch_status(&object, &object["status"])?;
        }
        let foreign = host("foreign", &["192.0.2.50", "192.0.2.66", "192.0.2.70"])?;
        let requester = host("requester", &["192.0.2.1"])?;
        kubernetes.connect(&requester)?;
        Ok(Self {
            access: kubernetes.as_administrator()?,
            kubernetes,
            requester,
            nodes,
            foreign,
            _switch: switch,
        })
    }

    fn probe(&self, words: &[&str]) -> Finished {
        let process = self
            .requester
            .probe_under(&self.access.words(), words)
            .unwrap();
        let finished = process.finish(TIMEOUT).unwrap();
        assert!(!finished.stderr.contains("panicked"), "{finished:?}");
        finished
    }

    /// Exit status, and the JSON objects by address.
    fn checked(&self, words: &[&str]) -> (i32, BTreeMap<String, Value>) {
        let no_socket = ["--socket", "/nonexistent/socket", "-o", "json"];
        let words = [&["check", "--kubernetes"], &no_socket[..], words].concat();
        let finished = self.probe(&words);
        let records = finished.stdout.lines().map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            (record["ip"].as_str().unwrap().to_owned(), record)
        });
        (status(&finished), records.collect())
    }

    fn explained(&self, ip: &str) -> (i32, Value) {
        let words = [
            "explain",
            "--socket",
            "/nonexistent/socket",
            "-o",
            "json",
            ip,
        ];
        let finished = self.probe(&words);
        assert!(finished.stdout.starts_with('{'), "{finished:?}");
        let value = serde_json::from_str(&finished.stdout).unwrap();
        (status(&finished), value)
    }
}

fn status(finished: &Finished) -> i32 {
    finished.status.code().unwrap()
}

#[test]
fn every_address_of_the_cluster_is_compared_with_the_replies() -> Result<()> {
    let lab = Lab::new()?;
    let cluster = Cluster::new(&lab)?;
    let (exit, records) = cluster.checked(&[]);
    assert_eq!(exit, UNMET, "{records:?}");
    let ips: Vec<_> = records.keys().map(String::as_str).collect();
    let whole: Vec<_> = (64..=71).map(|last| format!("192.0.2.{last}")).collect();
    assert_eq!(ips, whole, "exactly the addresses of the layer 2 pool");
    for (ip, owner_status, expected) in [
        ("192.0.2.64", "one_owner", true),
        ("192.0.2.65", "no_reply", false),
        ("192.0.2.66", "one_owner", false),
        ("192.0.2.67", "no_reply", true),
        ("192.0.2.70", "one_owner", false),
    ] {
        let record = &records[ip];
        assert_eq!(record["status"], owner_status, "{record}");
        assert_eq!(record["expected"], expected, "{record}");
        assert_eq!(record["cluster"]["pool"]["name"], "production");
    }
    let frontend = &records["192.0.2.64"];
    assert_eq!(frontend["owners"][0]["node"], "node-1");
    assert_eq!(frontend["cluster"]["services"][0]["name"], "frontend");
    assert_eq!(frontend["cluster"]["announcers"], json!(["node-1"]));
    assert!(records["192.0.2.66"]["owners"][0].get("node").is_none());

    // Only some addresses, all of them as expected.
    let (exit, some) = cluster.checked(&["192.0.2.64", "192.0.2.67-69"]);
    assert_eq!((exit, some.len()), (SUCCESS, 4), "{some:?}");

    let text = cluster.probe(&["check", "--kubernetes", "--socket", "/nonexistent"]);
    assert!(
        text.stdout
            .contains("shop/frontend, pool production, at node node-1"),
        "{text:?}"
    );
    assert!(
        text.stdout.contains("at no node of the cluster"),
        "{text:?}"
    );
    assert!(text.stderr.contains("1 announced by BGP only"), "{text:?}");

    // Two nodes.
    cluster.nodes[1].add_address("192.0.2.64/24")?;
    let (exit, records) = cluster.checked(&["192.0.2.64"]);
    assert_eq!(exit, CONFLICT, "{records:?}");
    let owners = records["192.0.2.64"]["owners"].as_array().unwrap();
    let mut nodes: Vec<_> = owners.iter().map(|owner| &owner["node"]).collect();
    nodes.sort_by_key(ToString::to_string);
    assert_eq!(nodes, ["node-1", "node-2"]);
    Ok(())
}

#[test]
fn explain_names_the_current_and_the_expected_owner() -> Result<()> {
    let lab = Lab::new()?;
    let cluster = Cluster::new(&lab)?;
    for (ip, exit, situation) in [
        ("192.0.2.64", SUCCESS, "one_owner"),
        ("192.0.2.65", UNMET, "silent"),
        ("192.0.2.66", UNMET, "wrong_owner"),
        ("192.0.2.67", SUCCESS, "free"),
        ("192.0.2.70", UNMET, "claimed"),
        ("198.51.100.1", SUCCESS, "not_local"),
    ] {
        let (status, explanation) = cluster.explained(ip);
        assert_eq!(
            (status, explanation["status"].as_str().unwrap()),
            (exit, situation),
            "{explanation:#}"
        );
    }
    let (_, explanation) = cluster.explained("192.0.2.64");
    assert_eq!(explanation["owners"][0]["node"], "node-1");
    assert_eq!(explanation["services"][0]["name"], "frontend");
    assert_eq!(explanation["services"][0]["requested"], false);
    assert_eq!(explanation["pool"]["name"], "production");
    assert_eq!(explanation["announcers"], json!(["node-1"]));
    assert_eq!(explanation["cluster"]["source"], "kubeconfig");
    assert_eq!(explanation["cluster"]["nodes"], 2);

    cluster.foreign.add_address("192.0.2.64/24")?;
    let (exit, explanation) = cluster.explained("192.0.2.64");
    assert_eq!(exit, CONFLICT);
    assert_eq!(
        explanation["cause"]["kind"], "external_device",
        "{explanation:#}"
    );
    let unknown_hosts: Vec<_> = explanation["owners"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|owner| owner["external"] == true)
        .map(|owner| owner["macs"][0].as_str().unwrap())
        .collect();
    assert_eq!(unknown_hosts, [cluster.foreign.mac().to_string()]);

    let files = tempfile::tempdir()?;
    let archive = files.path().join("ticket.tar");
    let path = archive.to_str().unwrap();
    let words = [
        "explain",
        "--socket",
        "/nonexistent",
        "--bundle",
        path,
        "192.0.2.64",
    ];
    assert_eq!(status(&cluster.probe(&words)), CONFLICT);
    let unpacked = std::process::Command::new("tar")
        .args(["-xOf", path, "probe-192.0.2.64/cluster.json"])
        .output()?;
    let objects: Value = serde_json::from_slice(&unpacked.stdout)?;
    assert_eq!(objects["services"][0]["name"], "frontend");
    assert_eq!(objects["services"].as_array().unwrap().len(), 1);
    assert_eq!(
        objects["metallb"].as_array().unwrap().len(),
        2,
        "{objects:#}"
    );
    assert!(!objects.to_string().contains("managedFields"));

    // The API server is unreachable: the gap is reported, and the ARP probes are sent nevertheless.
    cluster.kubernetes.set_reachable(false)?;
    let (exit, explanation) = cluster.explained("192.0.2.64");
    assert_eq!(exit, CONFLICT, "{explanation:#}");
    let gaps = explanation["gaps"].to_string();
    assert!(gaps.contains("Kubernetes: not configured"), "{gaps}");
    Ok(())
}

#[test]
fn pools_of_a_live_cluster_are_checked_and_free_addresses_listed() -> Result<()> {
    let lab = Lab::new()?;
    let cluster = Cluster::new(&lab)?;
    let alone = cluster.probe(&["pools", "check", "--context", "lab", "-o", "json"]);
    assert_eq!(status(&alone), SUCCESS, "{alone:?}");
    let report: Value = serde_json::from_str(&alone.stdout)?;
    assert_eq!(report["pools"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(report["complete"], true);

    let folder = tempfile::tempdir()?;
    let other = folder.path().join("west.yaml");
    fs::write(&other, pool("edge", &["192.0.2.70/32"]).to_string())?;
    let words = [
        "pools",
        "check",
        "--context",
        "lab",
        other.to_str().unwrap(),
    ];
    let overlap = cluster.probe(&words);
    assert_eq!(status(&overlap), CONFLICT, "{overlap:?}");
    for words in [
        "cluster_overlap",
        "context lab: IPAddressPool metallb-system/production",
    ] {
        assert!(overlap.stdout.contains(words), "{words}: {overlap:?}");
    }
    let unknown = cluster.probe(&["pools", "check", "--context", "lab", "--context", "nowhere"]);
    assert_eq!(status(&unknown), FAILED, "{unknown:?}");
    assert!(unknown.stdout.contains("context nowhere"), "{unknown:?}");

    let free = |words: &[&str]| {
        let no_socket = [
            "pools",
            "free",
            "--socket",
            "/nonexistent",
            "--pool",
            "production",
        ];
        cluster.probe(&[&no_socket[..], words].concat())
    };
    let two = free(&["--count", "2"]);
    assert_eq!(
        (status(&two), two.stdout.as_str()),
        (SUCCESS, "192.0.2.67\n192.0.2.68\n")
    );
    let all = free(&["-o", "json"]);
    assert_eq!(status(&all), SUCCESS, "{all:?}");
    let record: Value = serde_json::from_str(&all.stdout)?;
    let range = |first: &str, last: &str| json!({ "first": first, "last": last });
    assert_eq!(
        record["pools"][0]["free"],
        json!([
            range("192.0.2.67", "192.0.2.69"),
            range("192.0.2.71", "192.0.2.71")
        ])
    );
    assert_eq!(record["in_use"][0]["ip"], "192.0.2.70");
    assert!(all.stderr.contains("192.0.2.70 is in use"), "{all:?}");
    let many = free(&["--count", "5"]);
    assert_eq!(status(&many), UNMET, "{many:?}");
    let unasked = free(&["--no-probe"]);
    assert_eq!(status(&unasked), SUCCESS);
    assert!(
        unasked.stdout.starts_with("192.0.2.67-192.0.2.71"),
        "{unasked:?}"
    );
    Ok(())
}
