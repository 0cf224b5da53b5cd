//! Tests the rules, one row per case.

use jiff::Timestamp;
use probe_common::wire::Vlan;
use probe_model::{AnnouncementKind, CountsRecord, Evidence, NamespacedName, Severity};
use serde_json::{Value, json};

use super::*;
use crate::{
    ClusterObjects, NamedAnnouncer, Resource,
    snapshot::{Freshness, L2Status, ResourceState},
};

const IP: &str = "192.0.2.240";

fn at(text: &str) -> Timestamp {
    format!("2026-11-20T{text}Z").parse().unwrap()
}

/// An owner with the last byte of its MAC, its node, and whether it announces.
fn owner(number: u8, node: &str, announces: bool) -> OwnerRecord {
    OwnerRecord {
        macs: vec![probe_common::wire::MacAddr([2, 0, 0, 0, 0, number])],
        vendor: None,
        node: (!node.is_empty()).then(|| node.to_owned()),
        role: OwnerRole::Current,
        local: false,
        announcement: if announces {
            AnnouncementKind::Speaker
        } else {
            AnnouncementKind::None
        },
        first_seen: at("09:00:00"),
        last_seen: at("12:00:00"),
        claims: 3,
    }
}

fn conflict(owners: Vec<OwnerRecord>, hint: Option<Hint>) -> FindingRecord {
    FindingRecord {
        time: at("12:00:00"),
        finding: FindingKind::Conflict,
        severity: Severity::Critical,
        interface: "eth0".to_owned(),
        vlan: Vlan::UNTAGGED,
        segment: None,
        ip: IP.parse().unwrap(),
        drill: false,
        since: at("11:59:00"),
        owners,
        evidence: Some(Evidence::DuplicateReply),
        counts: CountsRecord::default(),
        hint,
        reason: None,
        cluster: None,
    }
}

fn named(text: &str) -> NamespacedName {
    let (namespace, name) = text.split_once('/').unwrap();
    NamespacedName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn service(name: &str, key: Option<&str>) -> Service {
    Service {
        named: named(name),
        uid: name.to_owned(),
        created: Some(at("10:00:00")),
        assigned: None,
        addresses: vec![IP.parse().unwrap()],
        sharing_key: key.map(str::to_owned),
        ..Service::default()
    }
}

fn status(namespace: &str, node: &str) -> L2Status {
    L2Status {
        named: named(&format!("{namespace}/l2-{node}")),
        node: node.to_owned(),
        service: named("shop/frontend"),
    }
}

fn pool(namespace: &str) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": {"namespace": namespace, "name": "production"},
        "spec": {"addresses": ["192.0.2.240/28"]},
    })
}

/// An advertisement restricted to one interface of each node.
fn on_eth1() -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "L2Advertisement",
        "metadata": {"namespace": "metallb-system", "name": "storage"},
        "spec": {"interfaces": ["eth1"]},
    })
}

/// A cluster with one service and one pool, all resources current.
fn objects() -> ClusterObjects {
    let current = Freshness {
        state: ResourceState::Current,
        last_update: Some(at("12:00:00")),
        error: None,
    };
    let freshness = Resource::ALL.iter().map(|&one| (one, current.clone()));
    ClusterObjects {
        services: vec![service("shop/frontend", None)],
        metallb: vec![pool("metallb-system")],
        freshness: freshness.collect(),
        ..ClusterObjects::default()
    }
}

const fn nodes(with_mac: usize, on_segment: usize) -> NodeCoverage {
    NodeCoverage {
        all: on_segment,
        on_segment,
        with_mac,
    }
}

fn assigned_at(time: &str) -> ClusterObjects {
    let mut objects = objects();
    objects.services[0].assigned = Some(at(time));
    objects
}

/// A context of an agent that started an hour before the owners were first observed, on a host without the address.
fn context(nodes: Option<NodeCoverage>) -> CauseContext {
    CauseContext {
        listens_since: Some(at("08:00:00")),
        ..CauseContext::of_nodes(nodes, at("12:00:00"))
    }
}

const ALL_KNOWN: (usize, usize) = (3, 3);

struct Row {
    what: &'static str,
    owners: Vec<OwnerRecord>,
    hint: Option<Hint>,
    objects: ClusterObjects,
    nodes: Option<NodeCoverage>,
    expected: (CauseKind, CauseScope),
    /// A part of a sentence of the evidence.
    summary: &'static str,
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_rule_holds_where_it_should_and_the_first_that_does_is_the_cause() {
    let (with_mac, on_segment) = ALL_KNOWN;
    let base = |what, owners: Vec<OwnerRecord>| Row {
        what,
        owners,
        hint: None,
        objects: objects(),
        nodes: Some(nodes(with_mac, on_segment)),
        expected: (CauseKind::Unknown, CauseScope::Unknown),
        summary: "",
    };
    let two_services = |one, other| ClusterObjects {
        services: vec![service("shop/a", one), service("shop/b", other)],
        ..objects()
    };
    let of_services = |change: &dyn Fn(&mut Service)| {
        let mut objects = two_services(None, None);
        objects.services.iter_mut().for_each(change);
        objects
    };
    let of_service = |change: &dyn Fn(&mut Service)| {
        let mut objects = objects();
        objects.services.iter_mut().for_each(change);
        objects
    };
    let statuses = |statuses: &[(&str, &str)]| ClusterObjects {
        statuses: statuses
            .iter()
            .map(|&(namespace, node)| status(namespace, node))
            .collect(),
        ..objects()
    };
    let two = |one, other| vec![owner(1, "node-1", one), owner(2, "node-2", other)];
    let rows = [
        Row {
            expected: (CauseKind::OtherCluster, CauseScope::CrossCluster),
            summary: "3 of 3 nodes",
            ..base(
                "an unknown host announces",
                vec![owner(1, "node-1", true), owner(9, "", true)],
            )
        },
        Row {
            expected: (CauseKind::OtherCluster, CauseScope::CrossCluster),
            objects: two_services(None, None),
            hint: Some(Hint::IpvsStrictArp),
            ..base(
                "an unknown host announces, and other rules apply too",
                vec![
                    owner(1, "node-1", true),
                    owner(8, "", false),
                    owner(9, "", true),
                ],
            )
        },
        Row {
            expected: (CauseKind::ExternalDevice, CauseScope::External),
            summary: "02:00:00:00:00:09 was first seen with it 60 min before shop/frontend was made",
            ..base(
                "an unknown host only has it",
                vec![owner(1, "node-1", true), owner(9, "", false)],
            )
        },
        Row {
            expected: (CauseKind::ExternalDevice, CauseScope::External),
            summary: "2 h after shop/frontend got its addresses",
            objects: assigned_at("07:00:00"),
            ..base(
                "two unknown hosts have it",
                vec![owner(8, "", false), owner(9, "", false)],
            )
        },
        Row {
            summary: "The nodes are unknown",
            nodes: None,
            ..base(
                "without a list of nodes no host is unknown",
                vec![owner(1, "", true), owner(9, "", false)],
            )
        },
        Row {
            summary: "2 of 3 nodes",
            nodes: Some(nodes(2, 3)),
            ..base(
                "it may be the third node",
                vec![owner(1, "node-1", true), owner(9, "", true)],
            )
        },
        Row {
            summary: "No node has an address on this network",
            nodes: Some(nodes(0, 0)),
            ..base(
                "the nodes are on another network",
                vec![owner(1, "", true), owner(9, "", true)],
            )
        },
        Row {
            expected: (CauseKind::ArpFlux, CauseScope::Internal),
            summary: "node-1",
            ..base(
                "two MACs of a node",
                vec![owner(1, "node-1", true), owner(2, "node-1", false)],
            )
        },
        Row {
            expected: (CauseKind::ArpFlux, CauseScope::Internal),
            hint: Some(Hint::ArpFlux),
            nodes: None,
            ..base(
                "two MACs of this host",
                vec![owner(1, "", false), owner(2, "", false)],
            )
        },
        Row {
            expected: (CauseKind::IpvsStrictArp, CauseScope::Internal),
            hint: Some(Hint::IpvsStrictArp),
            objects: two_services(None, None),
            ..base("every node replies", two(true, false))
        },
        Row {
            expected: (CauseKind::IpvsStrictArp, CauseScope::Unknown),
            hint: Some(Hint::IpvsStrictArp),
            nodes: None,
            ..base(
                "everybody answers",
                vec![owner(1, "", true), owner(2, "", false)],
            )
        },
        Row {
            expected: (CauseKind::SharedWithoutKey, CauseScope::Internal),
            summary: "shop/a and shop/b",
            objects: two_services(None, None),
            ..base("two services, no key", two(true, true))
        },
        Row {
            expected: (CauseKind::SharedWithoutKey, CauseScope::Unknown),
            objects: two_services(Some("one"), Some("other")),
            nodes: Some(nodes(2, 3)),
            ..base(
                "two services, two keys, and an unknown MAC",
                vec![owner(1, "node-1", true), owner(2, "", true)],
            )
        },
        Row {
            expected: (CauseKind::SplitBrain, CauseScope::Internal),
            objects: two_services(Some("web"), Some("web")),
            ..base("two services that may share", two(true, true))
        },
        Row {
            expected: (CauseKind::StaleSpeaker, CauseScope::Internal),
            objects: of_services(&|service| service.kube_vip_host = Some("node-1".to_owned())),
            summary: "should announce it; node-2 does so too",
            ..base("two services of kube-vip's", two(true, true))
        },
        Row {
            expected: (CauseKind::SharedWithoutKey, CauseScope::Internal),
            objects: of_services(&|service| {
                if service.named.name == "a" {
                    service.allocated_from = Some("production".to_owned());
                }
            }),
            ..base(
                "a service of MetalLB and one of another controller",
                two(true, true),
            )
        },
        Row {
            expected: (CauseKind::SharedWithoutKey, CauseScope::Internal),
            objects: of_services(&|service| service.is_cilium = true),
            ..base("two services of Cilium's", two(true, true))
        },
        Row {
            expected: (CauseKind::SplitBrain, CauseScope::Internal),
            objects: ClusterObjects {
                metallb: Vec::new(),
                ..two_services(None, None)
            },
            ..base(
                "two services of another controller, without pools",
                two(true, true),
            )
        },
        Row {
            expected: (CauseKind::SeveralInstalls, CauseScope::Internal),
            summary: "metallb-one and metallb-two",
            objects: ClusterObjects {
                metallb: vec![pool("metallb-one"), pool("metallb-two")],
                ..objects()
            },
            ..base("pools in two namespaces", two(true, true))
        },
        Row {
            expected: (CauseKind::SeveralInstalls, CauseScope::Internal),
            summary: "Status objects in several namespaces",
            objects: statuses(&[("metallb-one", "node-1"), ("metallb-two", "node-2")]),
            ..base("status objects in two namespaces", two(true, true))
        },
        Row {
            expected: (CauseKind::StaleSpeaker, CauseScope::Internal),
            summary: "By its status node-1 should announce it; node-2 does so too",
            objects: statuses(&[("metallb-system", "node-1")]),
            ..base("one of them is not named", two(true, true))
        },
        Row {
            expected: (CauseKind::StaleSpeaker, CauseScope::Internal),
            summary: "No service has 192.0.2.240",
            objects: ClusterObjects {
                services: Vec::new(),
                ..objects()
            },
            ..base("none of them is named", two(true, true))
        },
        Row {
            expected: (CauseKind::SplitBrain, CauseScope::Internal),
            summary: "By its status each of them",
            objects: statuses(&[("metallb-system", "node-1"), ("metallb-system", "node-2")]),
            ..base("the status names both", two(true, true))
        },
        Row {
            expected: (CauseKind::SplitBrain, CauseScope::Internal),
            summary: "No status names the node",
            ..base("no status", two(true, true))
        },
        Row {
            expected: (CauseKind::NodeAddress, CauseScope::Internal),
            summary: "node-2 replies for it, and has not announced it",
            ..base("one announces, the other has it", two(true, false))
        },
        Row {
            expected: (CauseKind::NodeAddress, CauseScope::Internal),
            summary: "node-2 replies for it, and has not announced it",
            objects: statuses(&[("metallb-system", "node-1")]),
            ..base("the one that should announces", two(true, false))
        },
        Row {
            expected: (CauseKind::StaleSpeaker, CauseScope::Internal),
            summary: "By its status node-2 should announce it; node-1 does so too",
            objects: statuses(&[("metallb-system", "node-2")]),
            ..base("the one that should not announces", two(true, false))
        },
        Row {
            expected: (CauseKind::StaleSpeaker, CauseScope::Internal),
            summary: "node-2 was not observed to announce it; the status of the service names it",
            objects: of_service(&|service| service.kube_vip_host = Some("node-2".to_owned())),
            ..base("named by kube-vip", two(true, false))
        },
        Row {
            expected: (CauseKind::SplitBrain, CauseScope::Internal),
            summary: "By its status each of them",
            objects: statuses(&[("metallb-system", "node-1"), ("metallb-system", "node-2")]),
            ..base(
                "the status names both, one was observed to announce",
                two(true, false),
            )
        },
        Row {
            expected: (CauseKind::SeveralInstalls, CauseScope::Internal),
            summary: "Status objects in several namespaces",
            objects: statuses(&[("metallb-one", "node-1"), ("metallb-two", "node-2")]),
            ..base(
                "two installations, one was observed to announce",
                two(true, false),
            )
        },
        Row {
            expected: (CauseKind::Unknown, CauseScope::Internal),
            summary: "shop/frontend is Cilium's, which announces addresses as hosts do: node-2 may announce it",
            objects: of_service(&|service| service.is_cilium = true),
            ..base("Cilium was not observed to announce", two(true, false))
        },
        Row {
            expected: (CauseKind::Unknown, CauseScope::Internal),
            summary: "No owner was observed",
            objects: statuses(&[("metallb-system", "node-1"), ("metallb-system", "node-2")]),
            ..base(
                "two named nodes without announcements are not two announcers",
                two(false, false),
            )
        },
        Row {
            summary: "names node-3 as announcer, which is not among the known owners: 02:00:00:00:00:09 may be that node",
            objects: ClusterObjects {
                metallb: vec![pool("metallb-system"), on_eth1()],
                ..statuses(&[("metallb-system", "node-3")])
            },
            ..base(
                "the unknown host may be the named node",
                vec![owner(1, "node-1", true), owner(9, "", true)],
            )
        },
        Row {
            summary: "names node-3 as announcer, which is not among the known owners",
            objects: of_service(&|service| service.kube_vip_host = Some("node-3".to_owned())),
            ..base(
                "kube-vip may use any interface",
                vec![owner(1, "node-1", true), owner(9, "", false)],
            )
        },
        Row {
            expected: (CauseKind::OtherCluster, CauseScope::CrossCluster),
            summary: "check that 02:00:00:00:00:09 is not a second interface of node-1",
            objects: statuses(&[("metallb-system", "node-3")]),
            ..base(
                "the named node would be observed on its known interface",
                vec![owner(1, "node-1", true), owner(9, "", true)],
            )
        },
        Row {
            expected: (CauseKind::OtherCluster, CauseScope::CrossCluster),
            objects: statuses(&[("metallb-system", "node-1")]),
            ..base(
                "the named node is present, and an unknown host",
                vec![owner(1, "node-1", true), owner(9, "", true)],
            )
        },
        Row {
            expected: (CauseKind::Unknown, CauseScope::Internal),
            summary: "No owner was observed to announce it",
            // The status alone is no proof of two announcers.
            objects: statuses(&[("metallb-system", "node-1")]),
            ..base("nobody announces", two(false, false))
        },
    ];
    let mut visited = BTreeSet::new();
    for row in rows {
        let finding = conflict(row.owners, row.hint);
        let cause = cause(
            &finding,
            &ClusterSnapshot::from(row.objects),
            context(row.nodes),
        )
        .unwrap();
        let what = row.what;
        assert_eq!((cause.kind, cause.scope), row.expected, "{what}: {cause:?}");
        let summary = cause
            .evidence
            .iter()
            .any(|sentence| sentence.contains(row.summary));
        assert!(
            summary,
            "{what}: {:?} not in {:?}",
            row.summary, cause.evidence
        );
        visited.insert(cause.kind);
    }
    assert_eq!(visited.len(), CauseKind::COUNT, "{visited:?}");
}

#[test]
fn no_cause_without_a_dispute_or_a_cluster_address() {
    let cluster = ClusterSnapshot::from(objects());
    let owners = || vec![owner(1, "node-1", true), owner(2, "node-2", true)];
    let moved = FindingRecord {
        finding: FindingKind::Moved,
        ..conflict(owners(), None)
    };
    assert_eq!(cause(&moved, &cluster, context(Some(nodes(3, 3)))), None);
    let elsewhere = FindingRecord {
        ip: "198.51.100.1".parse().unwrap(),
        ..conflict(owners(), None)
    };
    assert_eq!(
        cause(&elsewhere, &cluster, context(Some(nodes(3, 3)))),
        None
    );
    let in_pool = FindingRecord {
        ip: "192.0.2.241".parse().unwrap(),
        ..conflict(owners(), None)
    };
    assert!(cause(&in_pool, &cluster, context(Some(nodes(3, 3)))).is_some());
}

#[test]
fn local_interfaces_distinguish_announced_from_configured_addresses() {
    let local = |announcement| OwnerRecord {
        local: true,
        announcement,
        ..owner(1, "", false)
    };
    let interface = || AddressPlacement::Interface("eth0".to_owned());
    let dummy = || AddressPlacement::InterfaceWithoutArp("kube-ipvs0".to_owned());
    let none = AnnouncementKind::None;
    for (what, own, placement, other_announces, expected, summary) in [
        (
            "an address on an interface",
            local(none),
            interface(),
            true,
            CauseKind::NodeAddress,
            "this host has it on eth0",
        ),
        (
            "also after the announcements of a start",
            local(AnnouncementKind::Earlier),
            interface(),
            true,
            CauseKind::NodeAddress,
            "this host has it on eth0",
        ),
        (
            "also if it announced it in both forms",
            local(AnnouncementKind::Speaker),
            interface(),
            true,
            CauseKind::NodeAddress,
            "this host has it on eth0",
        ),
        (
            "also if no owner announces",
            local(none),
            interface(),
            false,
            CauseKind::NodeAddress,
            "this host has it on eth0",
        ),
        (
            "a speaker that announced before the agent started",
            local(none),
            AddressPlacement::Absent,
            true,
            CauseKind::StaleSpeaker,
            "this host has it on no interface",
        ),
        (
            "an interface without ARP",
            local(none),
            dummy(),
            true,
            CauseKind::Unknown,
            "this host has it on kube-ipvs0",
        ),
    ] {
        let mut objects = objects();
        objects.statuses = vec![status("metallb-system", "node-2")];
        let finding = conflict(vec![own, owner(2, "node-2", other_announces)], None);
        let context = CauseContext {
            placement: Some(placement),
            ..context(Some(nodes(3, 3)))
        };
        let cause = cause(&finding, &ClusterSnapshot::from(objects), context).unwrap();
        assert_eq!(cause.kind, expected, "{what}: {cause:?}");
        let evidence = cause.evidence.join("\n");
        assert!(evidence.contains(summary), "{what}: {evidence}");
    }
}

#[test]
fn remote_owner_that_only_replies_is_a_host_only_where_announcements_are_observable() {
    let earlier = OwnerRecord {
        announcement: AnnouncementKind::Earlier,
        ..owner(2, "node-2", false)
    };
    let as_host = OwnerRecord {
        announcement: AnnouncementKind::Host,
        ..owner(2, "node-2", false)
    };
    let replies = || owner(2, "node-2", false);
    let long = Some(at("08:00:00"));
    for (what, other, listens_since, assigned, expected) in [
        ("long before", replies(), long, None, CauseKind::NodeAddress),
        (
            "start of the agent unknown",
            replies(),
            None,
            None,
            CauseKind::Unknown,
        ),
        (
            "shortly before",
            replies(),
            Some(at("08:55:00")),
            None,
            CauseKind::Unknown,
        ),
        (
            "the address was assigned after that",
            replies(),
            Some(at("08:55:00")),
            Some("08:56:00"),
            CauseKind::NodeAddress,
        ),
        (
            "a speaker that started later",
            earlier,
            long,
            None,
            CauseKind::Unknown,
        ),
        ("in one form", as_host, None, None, CauseKind::NodeAddress),
    ] {
        let mut objects = objects();
        objects.services[0].assigned = assigned.map(at);
        let finding = conflict(vec![owner(1, "node-1", true), other], None);
        let context = CauseContext {
            listens_since,
            ..context(Some(nodes(3, 3)))
        };
        let cause = cause(&finding, &ClusterSnapshot::from(objects), context).unwrap();
        assert_eq!(cause.kind, expected, "{what}: {cause:?}");
    }
}

/// A node that was named until a time, or still is, with the start time.
fn past(node: &str, since: &[&str], until: Option<&str>) -> NamedAnnouncer {
    let mut since = since.iter().rev().map(|time| at(time));
    NamedAnnouncer {
        service: named("shop/frontend"),
        node: node.to_owned(),
        until: until.map(at),
        since: since.next().unwrap(),
        previous_since: since.next(),
    }
}

#[test]
fn previous_announcer_of_the_status_is_considered() {
    let turns = |one: Option<&str>, other: Option<&str>| {
        vec![
            past("node-1", &["11:59:58", "11:59:59"], one),
            past("node-2", &["11:59:57", "11:59:59"], other),
        ]
    };
    let gone = Some("12:00:00");
    for (what, announces, statuses, history, expected, summary) in [
        (
            "two leaders, the status names one",
            true,
            vec!["node-1"],
            turns(None, gone),
            CauseKind::SplitBrain,
            "named node-1 and node-2 alternately",
        ),
        (
            "two leaders, the status names the other",
            true,
            vec!["node-2"],
            turns(gone, None),
            CauseKind::SplitBrain,
            "named node-1 and node-2 alternately",
        ),
        (
            "two leaders, the status names none",
            true,
            vec![],
            turns(gone, gone),
            CauseKind::SplitBrain,
            "named node-1 and node-2 alternately",
        ),
        (
            "two leaders, one announced before the agent listened",
            false,
            vec![],
            turns(gone, gone),
            CauseKind::SplitBrain,
            "named node-1 and node-2 alternately",
        ),
        (
            "the status names no node for a moment",
            true,
            vec![],
            vec![past("node-1", &["10:00:00"], Some("11:59:30"))],
            CauseKind::StaleSpeaker,
            "By its status node-1 should announce it; node-2 does so too",
        ),
        (
            "a speaker that was named until the failover",
            false,
            vec!["node-1"],
            vec![past("node-2", &["10:00:00"], Some("11:58:00"))],
            CauseKind::StaleSpeaker,
            "node-2 was not observed to announce it; the status of the service named it until shortly before",
        ),
        (
            "a speaker that was named long before",
            false,
            vec!["node-1"],
            vec![past("node-2", &["09:00:00"], Some("10:00:00"))],
            CauseKind::Unknown,
            "it is unknown here",
        ),
    ] {
        let objects = ClusterObjects {
            statuses: statuses
                .into_iter()
                .map(|node| status("metallb-system", node))
                .collect(),
            announcer_history: history,
            ..objects()
        };
        let owners = vec![owner(1, "node-1", true), owner(2, "node-2", announces)];
        let finding = conflict(owners, None);
        let cluster = ClusterSnapshot::from(objects);
        let cause = cause(&finding, &cluster, context(Some(nodes(3, 3)))).unwrap();
        assert_eq!(cause.kind, expected, "{what}: {cause:?}");
        let evidence = cause.evidence.join("\n");
        assert!(evidence.contains(summary), "{what}: {evidence}");
    }
}

#[test]
fn nodes_that_contest_an_address_briefly_have_no_cause() {
    let cluster = ClusterSnapshot::from(objects());
    let contested = |owners| FindingRecord {
        finding: FindingKind::Contested,
        ..conflict(owners, None)
    };
    let by_nodes = contested(vec![owner(1, "node-1", true), owner(2, "node-2", true)]);
    assert!(is_contested_by_nodes(&by_nodes));
    assert_eq!(cause(&by_nodes, &cluster, context(Some(nodes(3, 3)))), None);
    let persistent = CauseContext {
        contest: ContestDuration::Persistent,
        ..context(Some(nodes(3, 3)))
    };
    assert!(cause(&by_nodes, &cluster, persistent).is_some());
    for other in [owner(9, "", true), owner(2, "node-1", true)] {
        let finding = contested(vec![owner(1, "node-1", true), other]);
        assert!(!is_contested_by_nodes(&finding));
        assert!(cause(&finding, &cluster, context(Some(nodes(3, 3)))).is_some());
    }
}

#[test]
fn stale_data_and_reporting_node_are_marked() {
    let mut objects = objects();
    objects.statuses = vec![status("metallb-system", "node-1")];
    for freshness in objects.freshness.values_mut() {
        freshness.state = ResourceState::Stale;
    }
    let finding = conflict(vec![owner(1, "node-1", true), owner(9, "", false)], None);
    let cause = cause(
        &finding,
        &ClusterSnapshot::from(objects),
        context(Some(nodes(3, 3))),
    )
    .unwrap();
    let evidence = cause.evidence.join("\n");
    assert!(
        evidence.contains("names node-1 as its announcer, which may be out of date"),
        "{evidence}"
    );
    assert!(
        evidence.contains("last update from the API server was at 2026-11-20T12:00:00Z"),
        "{evidence}"
    );
}

#[test]
fn named_node_without_a_local_address_may_be_the_unknown_host() {
    let finding = conflict(vec![owner(1, "node-1", true), owner(9, "", false)], None);
    let known = Some(NodeCoverage {
        all: 4,
        on_segment: 3,
        with_mac: 3,
    });
    let cause = cause(&finding, &ClusterSnapshot::from(objects()), context(known)).unwrap();
    assert_eq!(cause.kind, CauseKind::Unknown);
    let evidence = cause.evidence.join("\n");
    assert!(evidence.contains("Only 3 of 4 nodes"), "{evidence}");
}

#[test]
fn long_lists_of_names_are_cut() {
    assert_eq!(listed(&["a"]), "a");
    assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
    assert_eq!(
        listed(&["a", "b", "c", "d", "e", "f", "g"]),
        "a, b, c, d, e and 2 more"
    );
}

#[test]
fn each_cause_has_a_runbook_entry_and_a_documentation_row() {
    let runbook = include_str!("../../../../docs/runbook.md");
    let rules = include_str!("../../../../docs/kubernetes.md");
    for kind in CauseKind::LABELS {
        let (_, entry) = runbook.split_once(&format!("\n### {kind}\n")).unwrap();
        let entry = entry.split("\n#").next().unwrap();
        assert!(entry.contains("Look:"), "{kind}");
        assert!(entry.contains("End it:") || *kind == "unknown", "{kind}");
        assert!(rules.contains(&format!("| `{kind}` |")), "{kind}");
    }
}
