//! The rules, row by row.

use jiff::Timestamp;
use probe_common::wire::Vlan;
use probe_model::{AnnouncementKind, CountsRecord, NamespacedName, Severity};
use serde_json::{Value, json};

use super::*;
use crate::{
    ClusterObjects, Resource,
    snapshot::{Freshness, L2Status, ResourceState},
};

const IP: &str = "192.0.2.240";

fn at(text: &str) -> Timestamp {
    format!("2026-11-20T{text}Z").parse().unwrap()
}

/// An owner: the last number of its MAC, the node that it is, and whether it announces.
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

/// An advertisement on one network card of each node.
fn on_eth1() -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1",
        "kind": "L2Advertisement",
        "metadata": {"namespace": "metallb-system", "name": "storage"},
        "spec": {"interfaces": ["eth1"]},
    })
}

/// One service, one pool, everything known.
fn objects() -> ClusterObjects {
    let current = Freshness {
        known: ResourceState::Current,
        heard: Some(at("12:00:00")),
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

const ALL_KNOWN: (usize, usize) = (3, 3);

struct Row {
    what: &'static str,
    owners: Vec<OwnerRecord>,
    hint: Option<Hint>,
    objects: ClusterObjects,
    nodes: Option<NodeCoverage>,
    expected: (CauseKind, CauseScope),
    /// Words of a sentence of the evidence.
    says: &'static str,
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
        says: "",
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
            says: "3 of 3 nodes",
            ..base(
                "a stranger announces",
                vec![owner(1, "node-1", true), owner(9, "", true)],
            )
        },
        Row {
            expected: (CauseKind::OtherCluster, CauseScope::CrossCluster),
            objects: two_services(None, None),
            hint: Some(Hint::IpvsStrictArp),
            ..base(
                "a stranger announces, whatever else there is",
                vec![
                    owner(1, "node-1", true),
                    owner(8, "", false),
                    owner(9, "", true),
                ],
            )
        },
        Row {
            expected: (CauseKind::ExternalDevice, CauseScope::External),
            says: "02:00:00:00:00:09 was first seen with it 60 min before shop/frontend was made",
            ..base(
                "a stranger merely has it",
                vec![owner(1, "node-1", true), owner(9, "", false)],
            )
        },
        Row {
            expected: (CauseKind::ExternalDevice, CauseScope::External),
            says: "2 h after shop/frontend got its addresses",
            objects: assigned_at("07:00:00"),
            ..base(
                "two strangers have it",
                vec![owner(8, "", false), owner(9, "", false)],
            )
        },
        Row {
            says: "The nodes are not known",
            nodes: None,
            ..base(
                "no list of nodes, no stranger",
                vec![owner(1, "", true), owner(9, "", false)],
            )
        },
        Row {
            says: "2 of 3 nodes",
            nodes: Some(nodes(2, 3)),
            ..base(
                "it may be the third node",
                vec![owner(1, "node-1", true), owner(9, "", true)],
            )
        },
        Row {
            says: "No node has an address on this network",
            nodes: Some(nodes(0, 0)),
            ..base(
                "the nodes are on another network",
                vec![owner(1, "", true), owner(9, "", true)],
            )
        },
        Row {
            expected: (CauseKind::ArpFlux, CauseScope::Internal),
            says: "node-1",
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
            ..base("every node answers", two(true, false))
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
            says: "shop/a and shop/b",
            objects: two_services(None, None),
            ..base("two services, no key", two(true, true))
        },
        Row {
            expected: (CauseKind::SharedWithoutKey, CauseScope::Unknown),
            objects: two_services(Some("one"), Some("other")),
            nodes: Some(nodes(2, 3)),
            ..base(
                "two services, two keys, and a MAC not known",
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
            says: "should announce it, as far as is said",
            ..base("two services of kube-vip's", two(true, true))
        },
        Row {
            expected: (CauseKind::SharedWithoutKey, CauseScope::Internal),
            objects: of_services(&|service| {
                if service.named.name == "a" {
                    service.allocated_from = Some("production".to_owned());
                }
            }),
            ..base("one of MetalLB's and one of another's", two(true, true))
        },
        Row {
            expected: (CauseKind::SharedWithoutKey, CauseScope::Internal),
            objects: of_services(&|service| service.by_cilium = true),
            ..base("two services of Cilium's", two(true, true))
        },
        Row {
            expected: (CauseKind::SplitBrain, CauseScope::Internal),
            objects: ClusterObjects {
                metallb: Vec::new(),
                ..two_services(None, None)
            },
            ..base("two services of somebody's without pools", two(true, true))
        },
        Row {
            expected: (CauseKind::SeveralInstalls, CauseScope::Internal),
            says: "metallb-one and metallb-two",
            objects: ClusterObjects {
                metallb: vec![pool("metallb-one"), pool("metallb-two")],
                ..objects()
            },
            ..base("pools in two namespaces", two(true, true))
        },
        Row {
            expected: (CauseKind::SeveralInstalls, CauseScope::Internal),
            says: "Speakers of several namespaces",
            objects: statuses(&[("metallb-one", "node-1"), ("metallb-two", "node-2")]),
            ..base("status objects in two namespaces", two(true, true))
        },
        Row {
            expected: (CauseKind::StaleSpeaker, CauseScope::Internal),
            says: "node-1 should announce it, as far as is said; node-2 does as well",
            objects: statuses(&[("metallb-system", "node-1")]),
            ..base("one of them should not", two(true, true))
        },
        Row {
            expected: (CauseKind::StaleSpeaker, CauseScope::Internal),
            says: "No service has 192.0.2.240",
            objects: ClusterObjects {
                services: Vec::new(),
                ..objects()
            },
            ..base("none of them should", two(true, true))
        },
        Row {
            expected: (CauseKind::SplitBrain, CauseScope::Internal),
            says: "Each of them takes itself",
            objects: statuses(&[("metallb-system", "node-1"), ("metallb-system", "node-2")]),
            ..base("both say that they should", two(true, true))
        },
        Row {
            expected: (CauseKind::SplitBrain, CauseScope::Internal),
            says: "Nothing says which of them",
            ..base("nobody says anything", two(true, true))
        },
        Row {
            expected: (CauseKind::NodeAddress, CauseScope::Internal),
            says: "node-2 answers for it, and has not announced it",
            ..base("one announces, the other has it", two(true, false))
        },
        Row {
            expected: (CauseKind::NodeAddress, CauseScope::Internal),
            says: "node-2 answers for it, and has not announced it",
            objects: statuses(&[("metallb-system", "node-1")]),
            ..base("the one that should announces", two(true, false))
        },
        Row {
            expected: (CauseKind::StaleSpeaker, CauseScope::Internal),
            says: "node-2 should announce it, as far as is said; node-1 does as well",
            objects: statuses(&[("metallb-system", "node-2")]),
            ..base("the one that should not announces", two(true, false))
        },
        Row {
            expected: (CauseKind::StaleSpeaker, CauseScope::Internal),
            says: "node-2 has not been heard to announce it, and is said to",
            objects: of_service(&|service| service.kube_vip_host = Some("node-2".to_owned())),
            ..base("by kube-vip's word", two(true, false))
        },
        Row {
            expected: (CauseKind::SplitBrain, CauseScope::Internal),
            says: "Each of them takes itself",
            objects: statuses(&[("metallb-system", "node-1"), ("metallb-system", "node-2")]),
            ..base("both say that they should, one was heard", two(true, false))
        },
        Row {
            expected: (CauseKind::SeveralInstalls, CauseScope::Internal),
            says: "Speakers of several namespaces",
            objects: statuses(&[("metallb-one", "node-1"), ("metallb-two", "node-2")]),
            ..base("of two installations, one was heard", two(true, false))
        },
        Row {
            expected: (CauseKind::Unknown, CauseScope::Internal),
            says: "shop/frontend is Cilium's, which announces no more than hosts do: node-2 may speak for it",
            objects: of_service(&|service| service.by_cilium = true),
            ..base("Cilium is not heard to announce", two(true, false))
        },
        Row {
            expected: (CauseKind::Unknown, CauseScope::Internal),
            says: "No owner has been heard",
            objects: statuses(&[("metallb-system", "node-1"), ("metallb-system", "node-2")]),
            ..base("two by word alone are not two", two(false, false))
        },
        Row {
            says: "announced by node-3, whom no owner is known to be: 02:00:00:00:00:09 may be that node",
            objects: ClusterObjects {
                metallb: vec![pool("metallb-system"), on_eth1()],
                ..statuses(&[("metallb-system", "node-3")])
            },
            ..base(
                "the stranger may be the node that should",
                vec![owner(1, "node-1", true), owner(9, "", true)],
            )
        },
        Row {
            says: "announced by node-3, whom no owner is known to be",
            objects: of_service(&|service| service.kube_vip_host = Some("node-3".to_owned())),
            ..base(
                "kube-vip speaks through a card of its choice",
                vec![owner(1, "node-1", true), owner(9, "", false)],
            )
        },
        Row {
            expected: (CauseKind::OtherCluster, CauseScope::CrossCluster),
            says: "see that 02:00:00:00:00:09 is no second one of node-1",
            objects: statuses(&[("metallb-system", "node-3")]),
            ..base(
                "the node that should would be heard by the card that is known",
                vec![owner(1, "node-1", true), owner(9, "", true)],
            )
        },
        Row {
            expected: (CauseKind::OtherCluster, CauseScope::CrossCluster),
            objects: statuses(&[("metallb-system", "node-1")]),
            ..base(
                "the node that should is there, and a stranger",
                vec![owner(1, "node-1", true), owner(9, "", true)],
            )
        },
        Row {
            expected: (CauseKind::Unknown, CauseScope::Internal),
            says: "No owner has been heard to announce it",
            // A witness alone does not say that there are two announcers.
            objects: statuses(&[("metallb-system", "node-1")]),
            ..base("nobody announces", two(false, false))
        },
    ];
    let mut seen = BTreeSet::new();
    for row in rows {
        let finding = conflict(row.owners, row.hint);
        let cause = cause(&finding, &ClusterSnapshot::from(row.objects), row.nodes).unwrap();
        let what = row.what;
        assert_eq!((cause.kind, cause.scope), row.expected, "{what}: {cause:?}");
        let says = cause
            .evidence
            .iter()
            .any(|sentence| sentence.contains(row.says));
        assert!(says, "{what}: {:?} not in {:?}", row.says, cause.evidence);
        seen.insert(cause.kind);
    }
    assert_eq!(seen.len(), CauseKind::COUNT, "{seen:?}");
}

#[test]
fn what_is_no_dispute_or_none_of_the_clusters_has_no_cause() {
    let cluster = ClusterSnapshot::from(objects());
    let owners = || vec![owner(1, "node-1", true), owner(2, "node-2", true)];
    let moved = FindingRecord {
        finding: FindingKind::Moved,
        ..conflict(owners(), None)
    };
    assert_eq!(cause(&moved, &cluster, Some(nodes(3, 3))), None);
    let elsewhere = FindingRecord {
        ip: "198.51.100.1".parse().unwrap(),
        ..conflict(owners(), None)
    };
    assert_eq!(cause(&elsewhere, &cluster, Some(nodes(3, 3))), None);
    let in_pool = FindingRecord {
        ip: "192.0.2.241".parse().unwrap(),
        ..conflict(owners(), None)
    };
    assert!(cause(&in_pool, &cluster, Some(nodes(3, 3))).is_some());
}

#[test]
fn this_host_is_a_node_also_where_its_name_is_not_known() {
    let mut on_segment = owner(1, "", false);
    on_segment.local = true;
    let local = FindingRecord {
        evidence: Some(Evidence::Local),
        ..conflict(vec![on_segment, owner(2, "node-2", false)], None)
    };
    let cause = cause(&local, &ClusterSnapshot::from(objects()), Some(nodes(3, 3))).unwrap();
    assert_eq!(cause.kind, CauseKind::NodeAddress);
    assert!(
        cause
            .evidence
            .contains(&"this host has it on an interface".to_owned())
    );
}

#[test]
fn what_this_host_is_said_to_announce_it_may_not_have_on_an_interface() {
    let mut on_segment = owner(1, "node-1", false);
    on_segment.local = true;
    let local = FindingRecord {
        evidence: Some(Evidence::Local),
        ..conflict(vec![on_segment, owner(2, "node-2", false)], None)
    };
    for (said, expected) in [
        ("node-1", CauseKind::Unknown),
        ("node-2", CauseKind::NodeAddress),
    ] {
        let mut objects = objects();
        objects.statuses = vec![status("metallb-system", said)];
        let cause = cause(&local, &ClusterSnapshot::from(objects), Some(nodes(3, 3))).unwrap();
        assert_eq!(cause.kind, expected, "{said}: {cause:?}");
    }
}

#[test]
fn old_knowledge_and_the_witness_are_named_as_what_they_are() {
    let mut objects = objects();
    objects.statuses = vec![status("metallb-system", "node-1")];
    for freshness in objects.freshness.values_mut() {
        freshness.known = ResourceState::Stale;
    }
    let finding = conflict(vec![owner(1, "node-1", true), owner(9, "", false)], None);
    let cause = cause(&finding, &ClusterSnapshot::from(objects), Some(nodes(3, 3))).unwrap();
    let evidence = cause.evidence.join("\n");
    assert!(
        evidence.contains("announced by node-1, which need not be so"),
        "{evidence}"
    );
    assert!(
        evidence.contains("last heard at 2026-11-20T12:00:00Z"),
        "{evidence}"
    );
}

#[test]
fn a_node_without_an_address_here_that_the_cluster_names_may_be_the_stranger() {
    let finding = conflict(vec![owner(1, "node-1", true), owner(9, "", false)], None);
    let known = Some(NodeCoverage {
        all: 4,
        on_segment: 3,
        with_mac: 3,
    });
    let cause = cause(&finding, &ClusterSnapshot::from(objects()), known).unwrap();
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
fn each_cause_has_its_entry_in_the_runbook_and_its_row_in_the_documentation() {
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
