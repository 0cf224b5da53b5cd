//! Situations, and the screens that people are shown of them.

use ipnet::IpNet;
use jiff::tz::TimeZone;
use probe_cluster::{
    ClusterObjects, ClusterSnapshot, Node, NodeIndex, Resource,
    explain::*,
    local_announcements::LocalAnnouncements,
    snapshot::ResourceState,
    testing::{at, metallb, named, objects, pool, service},
};
use probe_common::wire::{MacAddr, Vlan};
use probe_model::{
    AnnouncementMode, BindingRecord, CauseKind, CauseScope, CheckOwnerRecord, CheckRecord,
    CheckStatus, FindingOrigin, FindingRecord, Hint,
    schema::{Schema, fields},
    vendor::vendor,
};
use serde_json::{Value, json};

use crate::{Terminal, bundle, layout::width_of};

const SCHEMA: &str = include_str!("../../../docs/explain.schema.json");

const NODE_1: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const NODE_2: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const DELL: MacAddr = MacAddr([0xd0, 0x8e, 0x79, 0, 0, 1]);
const IP: &str = "192.0.2.10";

fn replies(mac: MacAddr) -> CheckOwnerRecord {
    CheckOwnerRecord {
        macs: vec![mac],
        vendor: vendor(mac),
        node: None,
        local: false,
        holds: false,
        probes_answered: 3,
        replies: 3,
        announcements: 0,
        requests: 0,
        requests_answered: 0,
        replies_to_others: 0,
        sources: Vec::new(),
        speaker: false,
        first_seen: Some(at("12:13:06")),
        last_seen: Some(at("12:13:07")),
        min_rtt_us: Some(210),
        max_rtt_us: Some(340),
    }
}

fn probed(owners: &[MacAddr]) -> ProbeAvailability {
    let status = match owners {
        [] => CheckStatus::NoReply,
        [_] => CheckStatus::OneOwner,
        _ => CheckStatus::Conflict,
    };
    ProbeAvailability::Probed(Box::new(CheckRecord {
        time: at("12:13:07"),
        ip: IP.parse().unwrap(),
        interface: "eth0".to_owned(),
        vlan: Vlan::UNTAGGED,
        status,
        probes_sent: 3,
        requests_sent: 1,
        probed_by: None,
        owners: owners.iter().copied().map(replies).collect(),
        frames_dropped: 0,
        hint: None,
        neighbor: None,
        expected: None,
        cluster: None,
    }))
}

/// A cluster of two nodes with one pool, which is advertised like that.
fn cluster(services: &[(&str, &str)], advertisement: &str) -> ClusterInputs {
    let objects = ClusterObjects {
        services: services
            .iter()
            .map(|(name, ip)| service(name, &[*ip]))
            .collect(),
        metallb: vec![
            pool("production", json!({"addresses": ["192.0.2.8/29"]})),
            metallb(advertisement, "metallb-system/all", json!({})),
        ],
        statuses: services
            .iter()
            .map(|(name, _)| probe_cluster::snapshot::L2Status {
                named: named("metallb-system/l2-x"),
                node: "node-1".to_owned(),
                service: named(name),
            })
            .collect(),
        ..objects()
    };
    let node = |number: u8| Node {
        name: format!("node-{number}"),
        addresses: vec![format!("192.0.2.{number}").parse().unwrap()],
        labels: std::collections::BTreeMap::default(),
    };
    let mut nodes_by_mac = NodeIndex::new(vec![node(1), node(2)]);
    nodes_by_mac.add_mac("192.0.2.1".parse().unwrap(), NODE_1);
    nodes_by_mac.add_mac("192.0.2.2".parse().unwrap(), NODE_2);
    ClusterInputs {
        cluster: ClusterSnapshot::from(objects),
        nodes_by_mac,
        nodes_known: true,
        source: ClusterSource::Daemon,
        context: None,
        drifts: Vec::new(),
    }
}

fn material(
    probe_availability: ProbeAvailability,
    cluster: Option<ClusterInputs>,
) -> ExplainInputs {
    let networks: Vec<IpNet> = vec!["192.0.2.0/24".parse().unwrap()];
    ExplainInputs {
        speaker: LocalAnnouncements::default(),
        ip: IP.parse().unwrap(),
        now: at("12:13:07"),
        probe_availability,
        networks,
        daemon: Ok(DaemonInputs::default()),
        cluster: cluster.ok_or(None),
    }
}

fn frontend() -> ClusterInputs {
    cluster(&[("shop/frontend", IP)], "L2Advertisement")
}

/// A finding of the daemon's.
fn finding(time: &str, kind: &str, macs: &[MacAddr], cause: bool) -> FindingRecord {
    let time = at(time);
    let owners = macs.iter().map(|mac| {
        json!({"macs": [mac.to_string()], "role": "current", "local": false,
            "first_seen": time, "last_seen": time, "claims": 3, "announcement": "none"})
    });
    let mut value = json!({
        "time": time, "finding": kind, "severity": "critical", "interface": "eth0", "vlan": "0",
        "ip": IP, "since": time, "owners": owners.collect::<Vec<_>>(),
        "counts": {"duplicate_replies": 1, "returns": 0, "local": 0, "confirmed": 0, "suppressed": 0},
    });
    if cause {
        value["cluster"] = json!({
            "services": [{"namespace": "shop", "name": "frontend"}], "announced": "layer2",
            "cause": {"kind": "external_device", "scope": "external", "evidence": [
                "02:00:00:00:00:01 is node-1", "d0:8e:79:00:00:01 (Dell Inc.) is no node: the MACs of all 2 nodes are known",
            ]},
        });
    }
    serde_json::from_value(value).unwrap()
}

fn binding(macs: &[MacAddr], conflict: bool) -> BindingRecord {
    let owners = macs.iter().enumerate().map(|(number, mac)| {
        json!({"macs": [mac.to_string()], "role": if number == 0 {"current"} else {"earlier"},
            "local": false, "first_seen": at("10:00:00"), "last_seen": at("12:13:05"), "claims": 9,
            "announcement": "speaker"})
    });
    let mut value = json!({"interface": "eth0", "vlan": "0", "ip": IP, "tracked": true, "ignored": false,
        "owners": owners.collect::<Vec<_>>()});
    if conflict {
        value["conflict"] = json!({"evidence": "duplicate_reply", "since": at("12:13:01"),
            "last_evidence": at("12:13:05"), "quiet": false,
            "counts": {"duplicate_replies": 1, "returns": 0, "local": 0, "confirmed": 0, "suppressed": 0}});
    }
    serde_json::from_value(value).unwrap()
}

/// The conflict of a service's address with a machine that is none of the cluster's, as the daemon saw it.
fn disputed() -> ExplainInputs {
    ExplainInputs {
        daemon: Ok(DaemonInputs {
            bindings: vec![binding(&[DELL, NODE_1], true)],
            history: vec![
                finding("10:00:00", "new_binding", &[NODE_1], false),
                finding("12:13:01", "conflict", &[DELL, NODE_1], true),
            ],
        }),
        ..material(probed(&[NODE_1, DELL]), Some(frontend()))
    }
}

fn shown(explanation: &Explanation) -> String {
    let terminal = Terminal::new(80, TimeZone::UTC, FindingOrigin::Attached);
    let mut out = Vec::new();
    terminal.explanation(&mut out, explanation).unwrap();
    let text = String::from_utf8(out).unwrap();
    anstream::adapter::strip_str(&text).to_string()
}

#[track_caller]
fn reads(material: &ExplainInputs, expected: &str) {
    let shown = shown(&explain(material));
    assert_eq!(shown, expected.trim_start_matches('\n'), "\n{shown}");
    assert!(shown.lines().count() <= 40);
    for line in shown.lines() {
        assert!(width_of(line) <= 80, "{line}");
    }
}

/// As [`material`], on the host that is node-1, whose daemon knows this.
fn on_node_1(probe_availability: ProbeAvailability, bindings: Vec<BindingRecord>) -> Explanation {
    let speaker = LocalAnnouncements::new(true, &bindings, at("12:13:07"));
    explain(&ExplainInputs {
        speaker,
        daemon: Ok(DaemonInputs {
            bindings,
            history: Vec::new(),
        }),
        ..material(probe_availability, Some(frontend()))
    })
}

#[test]
fn address_announced_by_this_host_is_not_silent_without_replies() {
    let ours = || {
        let mut binding = binding(&[NODE_1], false);
        binding.owners[0].local = true;
        vec![binding]
    };
    let by_speaker = |others: &[MacAddr]| {
        let ProbeAvailability::Probed(mut record) = probed(&[&[NODE_1], others].concat()) else {
            panic!("probed")
        };
        record.owners[0] = CheckOwnerRecord {
            local: true,
            holds: true,
            speaker: true,
            probes_answered: 0,
            replies: 0,
            ..record.owners[0].clone()
        };
        ProbeAvailability::Probed(record)
    };
    let fine = on_node_1(by_speaker(&[]), ours());
    assert_eq!(fine.status, AddressStatus::OneOwner, "{}", fine.summary);
    let both = on_node_1(by_speaker(&[DELL]), ours());
    assert_eq!(both.status, AddressStatus::Conflict, "{}", both.summary);
    assert!(
        both.next[0].command.contains(&DELL.to_string()),
        "{:?}",
        both.next
    );
    assert!(
        both.next
            .last()
            .unwrap()
            .purpose
            .contains("on another node")
    );
    let unheard = on_node_1(probed(&[]), Vec::new());
    assert_eq!(
        unheard.status,
        AddressStatus::Unknown,
        "{}",
        unheard.summary
    );
    let anothers = on_node_1(probed(&[]), vec![binding(&[DELL], false)]);
    assert_eq!(
        anothers.status,
        AddressStatus::Silent,
        "{}",
        anothers.summary
    );
}

#[test]
fn conflict_is_explained_with_cause_and_next_steps() {
    reads(
        &disputed(),
        r"
192.0.2.10  CONFLICT                                     2026-11-20 12:13:07 UTC
  Two hosts own this address at once.
owners    02:00:00:00:00:01  node node-1, made up (VM, container or bond)
          replies to 3 of 3 probes, in 0.21 to 0.34 ms; first seen 10:00:00
          d0:8e:79:00:00:01  no node of the cluster, Dell Inc.
          replies to 3 of 3 probes, in 0.21 to 0.34 ms; first seen 10:00:00
probes    3 probes on eth0
expected  service shop/frontend, auto-assigned; created 10:00:00
          pool metallb-system/production (192.0.2.8/29), announced on layer 2 by
          node-1 (MetalLB's status)
cause     a host outside the cluster has the address (external_device, external)
          - 02:00:00:00:00:01 is node-1
          - d0:8e:79:00:00:01 (Dell Inc.) is no node: the MACs of all 2 nodes
          are known
timeline  10:00:00  new_binding       02:00:00:00:00:01
          12:13:01  conflict          d0:8e:79:00:00:01; 02:00:00:00:00:01
conflict  open since 12:13:01, last evidence 12:13:05
next      identify the other host; take the address off it, or out of the pool:
          probe bindings --mac d0:8e:79:00:00:01
          after the fix, check for a minute that it stays fixed:
          probe check 192.0.2.10 --expect-owner --for 60s
sources   cluster: from the daemon, updated 13 min ago, 2 nodes
",
    );
}

#[test]
fn a_healthy_address() {
    reads(
        &material(probed(&[NODE_1]), Some(frontend())),
        r"
192.0.2.10  one owner                                    2026-11-20 12:13:07 UTC
  It belongs to service shop/frontend, and exactly one host owns it: node-1.
owners    02:00:00:00:00:01  node node-1, made up (VM, container or bond)
          replies to 3 of 3 probes, in 0.21 to 0.34 ms
probes    3 probes on eth0
expected  service shop/frontend, auto-assigned; created 10:00:00
          pool metallb-system/production (192.0.2.8/29), announced on layer 2 by
          node-1 (MetalLB's status)
sources   cluster: from the daemon, updated 13 min ago, 2 nodes
",
    );
}

#[test]
fn missing_announcer_is_explained() {
    reads(
        &material(probed(&[]), Some(frontend())),
        r"
192.0.2.10  SILENT                                       2026-11-20 12:13:07 UTC
  It belongs to service shop/frontend, and no host replies to this node.
owners    no host replies to this node
probes    3 probes on eth0
expected  service shop/frontend, auto-assigned; created 10:00:00
          pool metallb-system/production (192.0.2.8/29), announced on layer 2 by
          node-1 (MetalLB's status)
next      without a ready endpoint no speaker announces it:
          kubectl -n shop get endpointslices -l \
          kubernetes.io/service-name=frontend
          see the events of the service:
          kubectl -n shop describe service frontend
          check that the speakers run:
          kubectl -n metallb-system get pods -o wide
sources   cluster: from the daemon, updated 13 min ago, 2 nodes
",
    );
}

#[test]
fn reply_for_an_address_without_service_is_reported() {
    reads(
        &material(probed(&[DELL]), Some(cluster(&[], "L2Advertisement"))),
        r"
192.0.2.10  CLAIMED, BUT NOT ASSIGNED                    2026-11-20 12:13:07 UTC
  It is in pool production and no service has it, and yet a host owns it: the
  next service that gets it will be in conflict.
owners    d0:8e:79:00:00:01  no node of the cluster, Dell Inc.
          replies to 3 of 3 probes, in 0.21 to 0.34 ms
probes    3 probes on eth0
expected  no service has it
          pool metallb-system/production (192.0.2.8/29), announced on layer 2
next      identify the host by its other addresses:
          ip neigh | grep -e d0:8e:79:00:00:01
          or print the pool without it, to apply:
          kubectl -n metallb-system get ipaddresspool production -o yaml | \
          probe pools exclude 192.0.2.10 -
sources   cluster: from the daemon, updated 13 min ago, 2 nodes
",
    );
}

#[test]
fn without_a_cluster_and_without_a_daemon() {
    let material = ExplainInputs {
        daemon: Err("no daemon at /run/arp-monitor/probe.sock (probe run)".to_owned()),
        ..material(probed(&[NODE_1, DELL]), None)
    };
    reads(
        &material,
        r"
192.0.2.10  CONFLICT                                     2026-11-20 12:13:07 UTC
  Two hosts own this address at once.
owners    02:00:00:00:00:01  made up (VM, container or bond)
          replies to 3 of 3 probes, in 0.21 to 0.34 ms
          d0:8e:79:00:00:01  Dell Inc.
          replies to 3 of 3 probes, in 0.21 to 0.34 ms
probes    3 probes on eth0
next      identify the hosts by their other addresses:
          ip neigh | grep -e 02:00:00:00:00:01 -e d0:8e:79:00:00:01
          after the fix, check for a minute that it stays fixed:
          probe check 192.0.2.10 --expect-owner --for 60s
sources   no history: no daemon at /run/arp-monitor/probe.sock (probe run)
",
    );
}

fn status(probe_availability: ProbeAvailability, cluster: Option<ClusterInputs>) -> AddressStatus {
    explain(&material(probe_availability, cluster)).status
}

#[test]
fn each_situation_is_distinguished() {
    use AddressStatus::{Claimed, Conflict, Free, NotLocal, OneOwner, Silent, Unknown, WrongOwner};
    let unassigned = || cluster(&[], "L2Advertisement");
    let by_bgp = || cluster(&[("shop/frontend", IP)], "BGPAdvertisement");
    assert_eq!(status(probed(&[NODE_1]), Some(frontend())), OneOwner);
    assert_eq!(status(probed(&[DELL]), Some(frontend())), WrongOwner);
    assert_eq!(status(probed(&[]), Some(frontend())), Silent);
    assert_eq!(
        status(probed(&[NODE_1, NODE_2]), Some(frontend())),
        Conflict
    );
    assert_eq!(status(probed(&[NODE_1]), Some(unassigned())), Claimed);
    assert_eq!(status(probed(&[]), Some(unassigned())), Free);
    assert_eq!(status(probed(&[]), Some(by_bgp())), NotLocal);
    assert_eq!(status(probed(&[NODE_1]), Some(by_bgp())), Claimed);
    assert_eq!(status(probed(&[]), None), Free);
    assert_eq!(status(probed(&[DELL]), None), OneOwner);
    let elsewhere = || ProbeAvailability::OtherSegment("it is not on-link here".to_owned());
    assert_eq!(status(elsewhere(), None), NotLocal);
    assert_eq!(status(ProbeAvailability::Disabled, None), Unknown);
    let impossible = || ProbeAvailability::Impossible("CAP_NET_RAW is missing".to_owned());
    assert_eq!(status(impossible(), None), Unknown);
}

#[test]
fn unknown_host_is_not_assumed_to_be_a_node() {
    let mut doubtful = frontend();
    doubtful.nodes_by_mac = NodeIndex::new(doubtful.nodes_by_mac.nodes().to_vec());
    doubtful
        .nodes_by_mac
        .add_mac("192.0.2.1".parse().unwrap(), NODE_1);
    let told = explain(&material(probed(&[DELL]), Some(doubtful)));
    assert_eq!(told.status, AddressStatus::OneOwner, "it may be node-2");
    assert!(told.summary.contains("is unknown"), "{}", told.summary);
    assert_eq!(told.owners[0].external, None);
}

#[test]
fn without_probes_the_bindings_of_the_daemon_are_used() {
    let quiet = |bindings| ExplainInputs {
        daemon: Ok(DaemonInputs {
            bindings,
            history: Vec::new(),
        }),
        ..material(ProbeAvailability::Disabled, Some(frontend()))
    };
    let one = explain(&quiet(vec![binding(&[NODE_1], false)]));
    assert_eq!(one.status, AddressStatus::OneOwner);
    assert_eq!(one.owners[0].node.as_deref(), Some("node-1"));
    assert_eq!(one.owners[0].activity, OwnerActivity::Known);
    // Who had it before a failover has nothing to do with it any more.
    let moved = explain(&quiet(vec![binding(&[NODE_2, NODE_1], false)]));
    assert_eq!(moved.status, AddressStatus::OneOwner);
    assert_eq!(moved.owners.len(), 1);
    let two = explain(&quiet(vec![binding(&[NODE_2, NODE_1], true)]));
    assert_eq!(two.status, AddressStatus::Conflict);
}

#[test]
fn conflict_resolved_recently_counts_as_open() {
    let ended = ExplainInputs {
        probe_availability: probed(&[NODE_1]),
        ..disputed()
    };
    let told = explain(&ended);
    assert_eq!(told.status, AddressStatus::Conflict);
    assert!(
        told.summary
            .contains("only one of them replies to this node"),
        "{}",
        told.summary
    );
    assert!(told.next[0].command.contains("--for 60s"));
}

#[test]
fn owner_is_unknown_while_the_link_is_down() {
    let down = || ProbeAvailability::LinkDown("eth0 is down".to_owned());
    let known = ExplainInputs {
        daemon: Ok(DaemonInputs {
            bindings: vec![binding(&[NODE_1], false)],
            history: Vec::new(),
        }),
        ..material(down(), Some(frontend()))
    };
    let explanation = explain(&known);
    assert_eq!(explanation.status, AddressStatus::Unknown);
    assert_eq!(explanation.summary, "The owner is unknown: eth0 is down.");
    assert_eq!(explanation.next[0].command, "ip -br link");
    let in_conflict = ExplainInputs {
        probe_availability: down(),
        ..disputed()
    };
    assert_eq!(explain(&in_conflict).status, AddressStatus::Conflict);
}

#[test]
fn two_masters_are_contested_and_not_one_owner() {
    let ProbeAvailability::Probed(mut record) = probed(&[NODE_1]) else {
        panic!("probed")
    };
    record.status = CheckStatus::Contested;
    record.hint = Some(Hint::TwoMasters);
    let explanation = explain(&material(ProbeAvailability::Probed(record), None));
    assert_eq!(explanation.status, AddressStatus::Contested);
    assert!(explanation.next[0].command.contains("tcpdump"));
}

#[test]
fn the_cause_is_found_without_a_daemon_too() {
    let told = explain(&material(probed(&[NODE_1, DELL]), Some(frontend())));
    let cause = told.cause.unwrap();
    assert_eq!(
        (cause.kind, cause.scope),
        (CauseKind::ExternalDevice, CauseScope::External)
    );
}

#[test]
fn unreadable_resources_are_listed() {
    let mut known = frontend();
    let mut objects = known.cluster.objects().clone();
    let freshness = objects.freshness.get_mut(&Resource::Services).unwrap();
    freshness.state = ResourceState::Stale;
    freshness.error = Some("the API server cannot be reached".to_owned());
    known.cluster = ClusterSnapshot::from(objects);
    known.nodes_known = false;
    let told = explain(&material(probed(&[NODE_1]), Some(known)));
    assert_eq!(
        told.gaps,
        [
            "services may be out of date (last update 13 min ago): the API server cannot be reached",
            "the list of nodes could not be read",
        ]
    );
}

/// An explanation of every status, with every field that it can have.
fn every_explanation() -> Vec<Value> {
    let mut full = disputed();
    if let Ok(known) = &mut full.cluster {
        known.context = Some("lab".to_owned());
        known.drifts = vec![json!({"drift": "claimed_unassigned", "summary": "x"})];
        let mut objects = known.cluster.objects().clone();
        objects.services[0].assigned = Some(at("10:00:05"));
        objects.services[0].class = Some("metallb".to_owned());
        objects.services[0].sharing_key = Some("key".to_owned());
        known.cluster = ClusterSnapshot::from(objects);
    }
    let mut explanations = vec![explain(&full)];
    for probe_availability in [
        probed(&[]),
        probed(&[DELL]),
        ProbeAvailability::Disabled,
        ProbeAvailability::Impossible("no".to_owned()),
    ] {
        explanations.push(explain(&material(probe_availability, Some(frontend()))));
    }
    let values = explanations.iter();
    values
        .map(|told| serde_json::to_value(told).unwrap())
        .collect()
}

#[test]
fn written_record_matches_the_schema_and_round_trips() {
    Schema::new(SCHEMA).assert_valid(&every_explanation());
    for value in every_explanation() {
        let read: Explanation = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), value);
    }
}

#[test]
fn schema_describes_exactly_the_fields_and_values() {
    let (schema, written) = (Schema::new(SCHEMA), every_explanation());
    assert_eq!(schema.fields("/properties"), fields(&written));
    for (pointer, field) in [
        ("owner", "owners"),
        ("service", "services"),
        ("next", "next"),
    ] {
        let all = written.iter().filter_map(|one| one[field].as_array());
        assert_eq!(
            schema.fields(&format!("/$defs/{pointer}/properties")),
            fields(all.flatten()),
            "{field}"
        );
    }
    for (pointer, field) in [
        ("pool", "pool"),
        ("cause", "cause"),
        ("knowledge", "cluster"),
    ] {
        assert_eq!(
            schema.fields(&format!("/$defs/{pointer}/properties")),
            fields(written.iter().map(|one| &one[field])),
            "{field}"
        );
    }
    assert_eq!(
        schema.labels("/properties/status/enum"),
        AddressStatus::LABELS
    );
    assert_eq!(
        schema.labels("/$defs/owner/properties/activity/enum"),
        OwnerActivity::LABELS
    );
    assert_eq!(
        schema.labels("/$defs/cause/properties/kind/enum"),
        CauseKind::LABELS
    );
    assert_eq!(
        schema.labels("/$defs/cause/properties/scope/enum"),
        CauseScope::LABELS
    );
    assert_eq!(
        schema.labels("/$defs/knowledge/properties/source/enum"),
        ClusterSource::LABELS
    );
    let announced = [
        AnnouncementMode::Layer2,
        AnnouncementMode::Bgp,
        AnnouncementMode::NotAnnounced,
        AnnouncementMode::Unknown,
    ];
    let announced: Vec<_> = announced.iter().map(|one| json!(one)).collect();
    assert_eq!(schema.labels("/properties/announced/enum"), announced);
}

#[test]
fn the_objects_of_a_bundle_are_those_concerned() {
    let mut known = frontend();
    let mut objects = known.cluster.objects().clone();
    objects
        .services
        .push(service("shop/other", &["192.0.2.11"]));
    objects
        .metallb
        .push(pool("staging", json!({"addresses": ["198.51.100.0/24"]})));
    known.cluster = ClusterSnapshot::from(objects);
    let material = material(probed(&[NODE_1]), Some(known));
    let told = explain(&material);
    let Ok(known) = &material.cluster else {
        unreachable!()
    };
    let concerned = bundle::objects(&known.cluster, &told);
    let names = |field: &str, pointer: &str| -> Vec<Value> {
        let list = concerned[field].as_array().unwrap();
        list.iter()
            .map(|object| object.pointer(pointer).unwrap().clone())
            .collect()
    };
    assert_eq!(names("services", "/name"), [json!("frontend")]);
    assert_eq!(
        names("metallb", "/metadata/name"),
        [json!("production"), json!("all")]
    );
    assert_eq!(names("statuses", "/node"), [json!("node-1")]);
}
