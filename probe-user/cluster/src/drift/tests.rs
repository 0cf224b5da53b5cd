//! Each drift, and when it is told.

use probe_common::wire::Vlan;
use probe_model::{AnnouncementKind, BindingRecord, OwnerRecord, OwnerRole};
use serde_json::{Value, json};

use super::*;
use crate::{
    ClusterObjects, Node, Service,
    cause::NodeCoverage,
    testing,
    testing::{at, metallb, named, pool, service},
};

const NOW: &str = "12:00:00";

fn owner(number: u8, node: &str, announces: bool, last: &str) -> OwnerRecord {
    OwnerRecord {
        macs: vec![MacAddr([2, 0, 0, 0, 0, number])],
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
        last_seen: at(last),
        claims: 3,
    }
}

fn binding(ip: &str, owners: Vec<OwnerRecord>, silent: Option<&str>) -> BindingRecord {
    BindingRecord {
        takeover: None,
        interface: "eth0".to_owned(),
        vlan: Vlan::UNTAGGED,
        ip: ip.parse().unwrap(),
        tracked: silent.is_some(),
        ignored: false,
        owners,
        silent_since: silent.map(at),
        conflict: None,
        cluster: None,
    }
}

fn node(name: &str, address: &str, labels: &[(&str, Option<&str>)]) -> Node {
    Node {
        name: name.to_owned(),
        addresses: vec![address.parse().unwrap()],
        labels: labels
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.map(str::to_owned)))
            .collect(),
    }
}

fn production() -> Value {
    pool("production", json!({"addresses": ["192.0.2.240/28"]}))
}

fn for_all() -> Value {
    metallb("L2Advertisement", "metallb-system/all", json!({}))
}

/// A cluster in order: a pool, who announces it, and a service with an address of it.
fn in_order() -> ClusterObjects {
    ClusterObjects {
        services: vec![service("shop/frontend", &["192.0.2.240"])],
        metallb: vec![production(), for_all()],
        ..testing::objects()
    }
}

/// What a row looks at, and what it expects.
struct Row {
    what: &'static str,
    objects: ClusterObjects,
    bindings: Vec<BindingRecord>,
    nodes: Option<Vec<Node>>,
    endpoints: Option<usize>,
    expected: Vec<(DriftKind, Option<PendingReason>)>,
    /// Words of a says or a piece of evidence.
    summary: &'static str,
}

impl Row {
    fn found(&self) -> Vec<DriftCandidate> {
        let endpoints = self.endpoints.iter();
        let endpoints = endpoints.map(|&number| (named("shop/frontend"), number));
        find(
            &ClusterSnapshot::from(self.objects.clone()),
            ObservedNetwork {
                now: at(NOW),
                bindings: &self.bindings,
                nodes: self.nodes.as_deref(),
                node_coverage: Some(NodeCoverage {
                    all: 2,
                    on_segment: 2,
                    with_mac: 2,
                }),
                endpoints: &endpoints.collect(),
            },
        )
    }
}

fn row(what: &'static str) -> Row {
    Row {
        what,
        objects: in_order(),
        bindings: Vec::new(),
        nodes: None,
        endpoints: None,
        expected: Vec::new(),
        summary: "",
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_drift_is_found_where_it_is_and_nowhere_else() {
    let kinds = |kind| vec![(kind, None)];
    let with = |metallb: Vec<Value>| ClusterObjects {
        metallb,
        ..in_order()
    };
    let of_service = |change: &dyn Fn(&mut Service)| {
        let mut objects = in_order();
        objects.services.iter_mut().for_each(change);
        objects
    };
    let without = |resource, known| {
        let mut objects = with(vec![]);
        objects
            .freshness
            .insert(resource, testing::freshness_of(known));
        objects
    };
    let kube_vips_in_an_unadvertised_pool = || ClusterObjects {
        metallb: vec![production()],
        ..of_service(&|service| service.kube_vip_host = Some("node-1".to_owned()))
    };
    let silent = || vec![binding("192.0.2.240", vec![], Some("11:30:00"))];
    let at_241 = |owner| {
        vec![
            binding("192.0.2.240", vec![], None),
            binding("192.0.2.241", vec![owner], None),
        ]
    };
    let not_announced = |reason| vec![(DriftKind::NotAnnounced, Some(reason))];
    let selecting = |selector: Value| {
        let spec = json!({"nodeSelectors": [selector]});
        with(vec![
            production(),
            metallb("L2Advertisement", "metallb-system/some", spec),
        ])
    };
    // The service has the label `tier`, and an advertisement of its pool selects services by it.
    let for_services = |kind: &str, tier: &str, selectors: Value| {
        let spec = json!({"serviceSelectors": selectors});
        ClusterObjects {
            metallb: vec![production(), metallb(kind, "metallb-system/some", spec)],
            ..of_service(&|service| {
                service.labels = [("tier".to_owned(), tier.to_owned())].into();
            })
        }
    };
    let edge = || json!([{"matchLabels": {"tier": "edge"}}]);
    let nodes = || {
        Some(vec![
            node("node-1", "192.0.2.11", &[("rack", Some("a"))]),
            node("node-2", "192.0.2.245", &[("rack", None)]),
        ])
    };
    let by_bgp = || {
        vec![
            production(),
            metallb("BGPAdvertisement", "metallb-system/all", json!({})),
        ]
    };
    let rows = vec![
        Row {
            bindings: vec![binding(
                "192.0.2.240",
                vec![owner(1, "node-1", true, "11:59:00")],
                None,
            )],
            ..row("all in order")
        },
        Row {
            objects: of_service(&|service| {
                service.addresses = vec!["203.0.113.7".parse().unwrap()];
            }),
            expected: kinds(DriftKind::AddressOutsidePools),
            summary: "203.0.113.7 of shop/frontend is in no pool",
            ..row("the pool was edited")
        },
        Row {
            objects: of_service(&|service| {
                service.addresses = vec!["203.0.113.7".parse().unwrap()];
                service.class = Some("io.cilium/l2".to_owned());
            }),
            ..row("another controller's address is in no pool of MetalLB's")
        },
        Row {
            objects: of_service(&|service| {
                service.addresses = vec!["203.0.113.7".parse().unwrap()];
                service.kube_vip_host = Some("node-1".to_owned());
            }),
            ..row("nor is kube-vip's")
        },
        Row {
            objects: of_service(&|service| {
                service.addresses = vec!["203.0.113.7".parse().unwrap()];
                service.is_cilium = true;
            }),
            ..row("nor is Cilium's")
        },
        Row {
            objects: {
                let mut objects = in_order();
                objects.services[0].allocated_from = Some("production".to_owned());
                let elsewhere = service("shop/elsewhere", &["203.0.113.7"]);
                objects.services.push(elsewhere);
                objects
            },
            ..row("nor one that MetalLB does not say is its own, where it says so of others")
        },
        Row {
            objects: ClusterObjects {
                metallb: vec![],
                ..of_service(&|service| service.allocated_from = Some("production".to_owned()))
            },
            expected: kinds(DriftKind::AddressOutsidePools),
            summary: "The service has it from the pool production",
            ..row("the pools were deleted")
        },
        Row {
            objects: for_services("L2Advertisement", "inner", edge()),
            bindings: silent(),
            expected: not_announced(PendingReason::NoAdvertisement),
            summary: "The advertisements of its pool select other services",
            ..row("no advertisement selects the service")
        },
        Row {
            objects: for_services("BGPAdvertisement", "inner", edge()),
            expected: not_announced(PendingReason::NoAdvertisement),
            ..row("nor one by BGP")
        },
        Row {
            objects: for_services("L2Advertisement", "edge", edge()),
            ..row("an advertisement selects the service")
        },
        Row {
            objects: for_services("L2Advertisement", "inner", json!([])),
            ..row("no selector is for all services")
        },
        Row {
            objects: for_services(
                "L2Advertisement",
                "inner",
                json!([{"matchExpressions": [{"key": "tier", "operator": "Near"}]}]),
            ),
            bindings: silent(),
            expected: not_announced(PendingReason::Unknown),
            ..row("a selector that cannot be understood may select it")
        },
        Row {
            objects: with(vec![]),
            ..row("MetalLB is gone, and only its resources are left")
        },
        Row {
            objects: without(Resource::IpAddressPools, ResourceState::NotInstalled),
            ..row("there never were pools")
        },
        Row {
            objects: without(Resource::IpAddressPools, ResourceState::Forbidden),
            ..row("the pools may not be read")
        },
        Row {
            bindings: at_241(owner(1, "node-1", false, "11:59:00")),
            expected: kinds(DriftKind::AnnouncedUnassigned),
            summary: "192.0.2.241 of the pool metallb-system/production is announced, and no service has it",
            ..row("a node has what no service has")
        },
        Row {
            bindings: at_241(owner(9, "", true, "11:59:00")),
            expected: kinds(DriftKind::AnnouncedUnassigned),
            summary: "2 of 2 nodes",
            ..row("a stranger announces what no service has")
        },
        Row {
            bindings: at_241(owner(9, "", false, "11:59:00")),
            expected: kinds(DriftKind::ClaimedUnassigned),
            summary: "02:00:00:00:00:09 (no known node) claims it; last observed at",
            ..row("a stranger has what no service has")
        },
        Row {
            bindings: vec![binding(
                "192.0.2.245",
                vec![owner(2, "node-2", false, "11:59:00")],
                None,
            )],
            nodes: nodes(),
            expected: kinds(DriftKind::ClaimedUnassigned),
            summary: "It is the address of node node-2",
            ..row("the pool holds a node's address")
        },
        Row {
            bindings: at_241(owner(9, "", false, "11:49:00")),
            ..row("a claim of long ago")
        },
        Row {
            bindings: vec![binding(
                "192.0.2.9",
                vec![owner(9, "", true, "11:59:00")],
                None,
            )],
            ..row("an address that is none of the cluster's")
        },
        Row {
            bindings: silent(),
            expected: not_announced(PendingReason::Unknown),
            summary: "No host has replied for it for 30 min",
            ..row("silence")
        },
        Row {
            bindings: silent(),
            endpoints: Some(0),
            expected: not_announced(PendingReason::NoReadyEndpoints),
            summary: "it has no ready endpoint",
            ..row("silent, no ready endpoints")
        },
        Row {
            bindings: silent(),
            endpoints: Some(3),
            expected: not_announced(PendingReason::Unknown),
            summary: "3 ready endpoints",
            ..row("silent, with ready endpoints")
        },
        Row {
            objects: with(by_bgp()),
            bindings: silent(),
            ..row("announced by BGP")
        },
        Row {
            objects: with(vec![production()]),
            bindings: vec![],
            expected: vec![
                (
                    DriftKind::NotAnnounced,
                    Some(PendingReason::NoAdvertisement),
                ),
                (DriftKind::PoolUnadvertised, None),
            ],
            summary: "Addresses of it assigned to services: 1",
            ..row("no advertisement names the pool")
        },
        Row {
            objects: kube_vips_in_an_unadvertised_pool(),
            expected: kinds(DriftKind::PoolUnadvertised),
            ..row("no advertisement names the pool, which is not the pool of the address")
        },
        Row {
            objects: kube_vips_in_an_unadvertised_pool(),
            bindings: silent(),
            expected: vec![
                (DriftKind::NotAnnounced, Some(PendingReason::Unknown)),
                (DriftKind::PoolUnadvertised, None),
            ],
            summary: "names node-1 as announcer, which may be out of date",
            ..row("and no host replies for it")
        },
        Row {
            objects: of_service(&|service| {
                service.addresses.clear();
                service.requested_pool = Some("gone".to_owned());
            }),
            expected: vec![(
                DriftKind::ServicePending,
                Some(PendingReason::RequestedPoolUnknown),
            )],
            summary: "shop/frontend has no address: the requested pool does not exist",
            bindings: vec![],
            ..row("a service waits")
        },
        Row {
            objects: of_service(&|service| {
                service.addresses.clear();
                service.has_ingress = true;
            }),
            ..row("a service has a hostname")
        },
        Row {
            objects: of_service(&|service| {
                service.addresses.clear();
                service.has_conflicting_requests = true;
            }),
            expected: vec![(DriftKind::ServicePending, Some(PendingReason::Unknown))],
            summary: "shop/frontend has no address: the reason is not known from its pools",
            ..row("a service requests in two ways")
        },
        Row {
            objects: with(vec![
                production(),
                for_all(),
                metallb(
                    "L2Advertisement",
                    "metallb-system/old",
                    json!({"ipAddressPools": ["gone"]}),
                ),
            ]),
            expected: kinds(DriftKind::AdvertisementWithoutPool),
            summary: "L2Advertisement metallb-system/old names the pool gone",
            ..row("an advertisement of a deleted pool")
        },
        Row {
            objects: with(vec![
                production(),
                for_all(),
                metallb(
                    "BGPAdvertisement",
                    "metallb-system/old",
                    json!({
                        "ipAddressPoolSelectors": [{"matchLabels": {"zone": "b"}}],
                    }),
                ),
            ]),
            expected: kinds(DriftKind::AdvertisementWithoutPool),
            summary: "selects pools by labels that no pool has",
            ..row("an advertisement of deleted pools")
        },
        Row {
            objects: selecting(json!({"matchLabels": {"rack": "z"}})),
            nodes: nodes(),
            expected: kinds(DriftKind::AdvertisementWithoutNode),
            summary: "L2Advertisement metallb-system/some selects no node",
            ..row("an advertisement for deleted nodes")
        },
        Row {
            objects: selecting(
                json!({"matchExpressions": [{"key": "rack", "operator": "In", "values": ["a", "b"]}]}),
            ),
            nodes: nodes(),
            ..row("an advertisement for existing nodes")
        },
        Row {
            objects: selecting(
                json!({"matchExpressions": [{"key": "rack", "operator": "DoesNotExist"}]}),
            ),
            nodes: nodes(),
            ..row("an advertisement for nodes without a label")
        },
        Row {
            objects: selecting(json!({"matchLabels": {"zone": "z"}})),
            nodes: nodes(),
            ..row("an advertisement by a label that is not read yet")
        },
        Row {
            objects: selecting(json!({"matchExpressions": [{"key": "rack", "operator": "Gt"}]})),
            nodes: nodes(),
            ..row("an advertisement with an invalid selector")
        },
        Row {
            objects: selecting(json!({"matchLabels": {"rack": "z"}})),
            ..row("the nodes are not known")
        },
        Row {
            objects: with(vec![
                production(),
                for_all(),
                pool("staging", json!({"addresses": ["192.0.2.248-192.0.2.255"]})),
            ]),
            expected: kinds(DriftKind::PoolsOverlap),
            summary: "both contain 192.0.2.248/29",
            ..row("pools overlap")
        },
    ];
    let mut visited = std::collections::BTreeSet::new();
    for row in rows {
        let found = row.found();
        let kinds: Vec<_> = found
            .iter()
            .map(|found| (found.drift.drift, found.drift.reason))
            .collect();
        let what = row.what;
        assert_eq!(kinds, row.expected, "{what}: {found:#?}");
        let summary = |drift: &Drift| {
            let mut sentences = drift.evidence.iter().chain([&drift.summary]);
            sentences.any(|sentence| sentence.contains(row.summary))
        };
        assert!(
            row.summary.is_empty() || found.iter().any(|found| summary(&found.drift)),
            "{what}: {:?} in {found:#?}",
            row.summary
        );
        visited.extend(kinds.into_iter().map(|(kind, _)| kind));
    }
    assert_eq!(visited.len(), DriftKind::COUNT, "{visited:?}");
}

/// A tracker with one candidate, at seconds past noon.
struct TrackerFixture {
    tracker: DriftTracker,
    cluster: ClusterSnapshot,
}

impl TrackerFixture {
    fn new() -> Self {
        Self {
            tracker: DriftTracker::new(Duration::from_mins(2)),
            cluster: ClusterSnapshot::from(testing::objects()),
        }
    }

    fn set_state(&mut self, known: ResourceState) {
        let mut objects = testing::objects();
        for freshness in objects.freshness.values_mut() {
            *freshness = testing::freshness_of(known);
        }
        self.cluster = ClusterSnapshot::from(objects);
    }

    /// Observes the candidate, and returns the start of the reported drift in seconds past noon.
    fn observe_at(&mut self, second: i64, onset: Option<DriftOnset>) -> Option<i64> {
        let candidates = onset.map(|onset| DriftCandidate {
            drift: Drift {
                drift: DriftKind::PoolsOverlap,
                severity: Severity::Warning,
                since: Timestamp::UNIX_EPOCH,
                ip: None,
                service: None,
                pool: None,
                object: None,
                reason: None,
                macs: Vec::new(),
                nodes: Vec::new(),
                summary: String::new(),
                evidence: Vec::new(),
            },
            onset,
            required_resources: &[Resource::IpAddressPools],
        });
        let now = moment(second);
        let reported = self
            .tracker
            .observe(now, &self.cluster, candidates.into_iter().collect());
        reported
            .first()
            .map(|drift| drift.since.duration_since(at(NOW)).as_secs())
    }
}

fn moment(second: i64) -> Timestamp {
    at(NOW) + SignedDuration::from_secs(second)
}

#[test]
fn short_drift_is_never_reported() {
    let mut fixture = TrackerFixture::new();
    assert_eq!(fixture.observe_at(0, Some(DriftOnset::FirstObserved)), None);
    assert_eq!(
        fixture.observe_at(119, Some(DriftOnset::FirstObserved)),
        None
    );
    assert_eq!(fixture.observe_at(120, None), None);
    assert_eq!(
        fixture.observe_at(121, Some(DriftOnset::FirstObserved)),
        None
    );
    assert_eq!(
        fixture.observe_at(240, Some(DriftOnset::FirstObserved)),
        None
    );
    assert_eq!(
        fixture.observe_at(241, Some(DriftOnset::FirstObserved)),
        Some(121)
    );
    assert_eq!(fixture.observe_at(242, None), None);
}

#[test]
fn drift_present_at_start_is_reported_after_a_short_confirmation() {
    let mut fixture = TrackerFixture::new();
    let hours_ago = Some(DriftOnset::Since(moment(-3600)));
    assert_eq!(fixture.observe_at(0, hours_ago), None);
    assert_eq!(fixture.observe_at(15, hours_ago), Some(-3600));
}

#[test]
fn drift_starts_after_the_last_evaluation_without_it() {
    let mut fixture = TrackerFixture::new();
    let hours_ago = Some(DriftOnset::Since(moment(-3600)));
    assert_eq!(fixture.observe_at(0, None), None);
    assert_eq!(fixture.observe_at(10, hours_ago), None);
    assert_eq!(fixture.observe_at(129, hours_ago), None);
    assert_eq!(fixture.observe_at(130, hours_ago), Some(10));
}

#[test]
fn drift_confirmed_by_another_leader_needs_a_short_confirmation() {
    let mut fixture = TrackerFixture::new();
    let silent = Some(DriftOnset::Immediate(moment(-60)));
    assert_eq!(fixture.observe_at(0, None), None);
    assert_eq!(fixture.observe_at(10, silent), None);
    assert_eq!(fixture.observe_at(25, silent), Some(-60));
}

#[test]
fn only_a_repeated_claim_is_a_drift() {
    let mut fixture = TrackerFixture::new();
    let claimed = |second| Some(DriftOnset::ObservedAgain(moment(second)));
    assert_eq!(fixture.observe_at(0, claimed(-1)), None);
    assert_eq!(fixture.observe_at(200, claimed(-1)), None);
    assert_eq!(fixture.observe_at(300, claimed(250)), Some(0));
}

#[test]
fn no_new_drift_while_the_api_server_is_unreachable_and_open_drifts_stay() {
    let mut fixture = TrackerFixture::new();
    assert_eq!(fixture.observe_at(0, Some(DriftOnset::FirstObserved)), None);
    fixture.set_state(ResourceState::Stale);
    assert_eq!(
        fixture.observe_at(200, Some(DriftOnset::FirstObserved)),
        None
    );
    fixture.set_state(ResourceState::Current);
    assert_eq!(
        fixture.observe_at(210, Some(DriftOnset::FirstObserved)),
        None
    );
    assert_eq!(
        fixture.observe_at(330, Some(DriftOnset::FirstObserved)),
        Some(210)
    );
    fixture.set_state(ResourceState::Stale);
    assert_eq!(
        fixture.observe_at(340, Some(DriftOnset::FirstObserved)),
        Some(210)
    );
    assert_eq!(fixture.observe_at(350, None), None);
}

#[test]
fn drift_is_reported_at_once_without_a_confirmation_time() {
    let mut fixture = TrackerFixture::new();
    fixture.tracker = DriftTracker::new(Duration::ZERO);
    assert_eq!(
        fixture.observe_at(0, Some(DriftOnset::FirstObserved)),
        Some(0)
    );
    fixture.tracker.forget();
    assert_eq!(
        fixture.observe_at(10, Some(DriftOnset::Since(moment(-5)))),
        Some(-5)
    );
}

#[test]
fn each_drift_and_each_reason_is_in_the_runbook_and_in_the_documentation() {
    let runbook = include_str!("../../../../docs/runbook.md");
    let rules = include_str!("../../../../docs/kubernetes.md");
    for kind in DriftKind::LABELS {
        assert!(runbook.contains(&format!("`{kind}`")), "{kind}");
        assert!(rules.contains(&format!("| `{kind}` |")), "{kind}");
    }
    for reason in PendingReason::LABELS {
        assert!(runbook.contains(&format!("`{reason}`")), "{reason}");
        assert!(rules.contains(&format!("`{reason}`")), "{reason}");
    }
}
