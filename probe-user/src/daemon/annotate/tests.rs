use std::sync::Mutex as StdMutex;

use jiff::{SignedDuration, Timestamp};
use probe_cluster::{
    ClusterObjects,
    testing::{named, objects, pool, service},
};
use probe_common::wire::Vlan;
use probe_model::{
    AnnouncementKind, AnnouncementMode, CauseKind, CountsRecord, OwnerRole, Severity,
    watched::{WatchState, WatchedInterface},
};
use serde_json::json;
use tokio::time::sleep;

use super::*;

const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
const SERVICE: &str = "192.0.2.80";
/// An address of kube-vip from DHCP, with a separate MAC.
const LEASED: &str = "192.0.2.82";

/// A list of nodes that responds slowly.
#[derive(Debug, Default)]
struct Slow {
    takes: Duration,
    fetched: StdMutex<Vec<Duration>>,
    known: StdMutex<Option<Arc<Vec<Node>>>>,
}

impl NodeList for Slow {
    fn known(&self) -> Option<Arc<Vec<Node>>> {
        self.known.lock().unwrap().clone()
    }

    fn fetch(&self, max_age: Duration) -> BoxFuture<'_, Option<Arc<Vec<Node>>>> {
        self.fetched.lock().unwrap().push(max_age);
        Box::pin(async move {
            sleep(self.takes).await;
            let mut known = self.known.lock().unwrap();
            Some(known.get_or_insert_with(Arc::default).clone())
        })
    }
}

fn cluster() -> ClusterSnapshot {
    let mut leased = service("shop/leased", &[LEASED]);
    leased.kube_vip_host = Some("node-2".to_owned());
    leased.kube_vip_mac = Some(B);
    ClusterSnapshot::from(ClusterObjects {
        services: vec![
            service("shop/frontend", &[SERVICE]),
            service("shop/api", &[SERVICE]),
            leased,
        ],
        metallb: vec![pool("production", json!({"addresses": ["192.0.2.64/26"]}))],
        ..objects()
    })
}

fn annotator(nodes: &Arc<Slow>) -> Annotator {
    let watched = WatchedInterface {
        ifindex: 2,
        name: "eth0".to_owned(),
        state: WatchState::Failed {
            reason: String::new(),
        },
    };
    Annotator::new(AnnotatorSources {
        cluster: watch::Sender::new(Arc::new(cluster())).subscribe(),
        health: Arc::default(),
        nodes: nodes.clone(),
        own_addresses: Some("node-1".to_owned()),
        monitor: MonitorHandle::disconnected(),
        neighbours: NeighbourReader::open().unwrap(),
        links: watch::Sender::default().subscribe(),
        watched: watch::Sender::new(Arc::new([watched].into_iter().collect())).subscribe(),
    })
}

fn slow(takes: Duration) -> Arc<Slow> {
    Arc::new(Slow {
        takes,
        ..Slow::default()
    })
}

fn owner(mac: MacAddr, local: bool) -> OwnerRecord {
    OwnerRecord {
        macs: vec![mac],
        vendor: None,
        node: None,
        role: OwnerRole::Current,
        local,
        announcement: AnnouncementKind::None,
        first_seen: Timestamp::UNIX_EPOCH,
        last_seen: Timestamp::UNIX_EPOCH,
        claims: 1,
    }
}

fn annotate_finding(finding: FindingKind, ip: &str) -> Arc<FindingRecord> {
    Arc::new(FindingRecord {
        time: Timestamp::UNIX_EPOCH,
        finding,
        severity: Severity::Warning,
        interface: "eth0".to_owned(),
        vlan: Vlan::UNTAGGED,
        segment: None,
        ip: ip.parse().unwrap(),
        drill: false,
        since: Timestamp::UNIX_EPOCH,
        owners: vec![owner(A, true), owner(B, false)],
        evidence: None,
        counts: CountsRecord::default(),
        hint: None,
        reason: None,
        cluster: None,
    })
}

/// Passes findings through an annotator, and returns the results with the time since the start.
async fn through(
    annotator: Annotator,
    findings: impl IntoIterator<Item = Arc<FindingRecord>>,
) -> Vec<(Arc<FindingRecord>, Duration)> {
    let (raw, received) = broadcast::channel(64);
    let (public, mut out) = broadcast::channel(64);
    for finding in findings {
        raw.send(finding).unwrap();
    }
    drop(raw);
    let start = Instant::now();
    let stage = tokio::spawn(annotator.follow(received, public));
    let mut all = Vec::new();
    while let Ok(record) = out.recv().await {
        all.push((record, start.elapsed()));
    }
    stage.await.unwrap();
    all
}

#[tokio::test(start_paused = true)]
async fn findings_keep_order_per_address_without_delaying_other_addresses() {
    let nodes = slow(Duration::from_millis(700));
    let out = through(
        annotator(&nodes),
        [
            annotate_finding(FindingKind::Conflict, SERVICE),
            annotate_finding(FindingKind::Moved, SERVICE),
            annotate_finding(FindingKind::NewBinding, LEASED),
            annotate_finding(FindingKind::Conflict, "192.0.2.7"),
        ],
    )
    .await;
    let order: Vec<_> = out
        .iter()
        .map(|(record, _)| (record.finding, record.ip.to_string()))
        .collect();
    let expected = [
        (FindingKind::NewBinding, LEASED),
        (FindingKind::Conflict, "192.0.2.7"),
        (FindingKind::Conflict, SERVICE),
        (FindingKind::Moved, SERVICE),
    ];
    assert_eq!(order, expected.map(|(kind, ip)| (kind, ip.to_owned())));
    assert!(out[1].1 < Duration::from_millis(100), "{:?}", out[1].1);
    assert!(out[2].1 >= Duration::from_millis(700), "{:?}", out[2].1);
    let fetched = nodes.fetched.lock().unwrap();
    assert_eq!(
        *fetched,
        [LIST_AGE, UNKNOWN_HOST_LIST_AGE],
        "for an unknown owner a fresh list of nodes is fetched"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dispute_does_not_wait_for_the_nodes_beyond_the_deadline() {
    let nodes = slow(Duration::from_hours(1));
    let addresses = ["192.0.2.80", "192.0.2.82", "192.0.2.81", SERVICE];
    let disputes = addresses.map(|ip| annotate_finding(FindingKind::Conflict, ip));
    let out = through(annotator(&nodes), disputes).await;
    for (record, took) in &out {
        assert!((1_500..1_600).contains(&took.as_millis()), "{took:?}");
        assert!(record.cluster.is_some(), "{}", record.ip);
    }
    assert_eq!(out.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_finding_that_cannot_be_annotated_in_time_is_published_without() {
    let annotator = annotator(&slow(Duration::ZERO));
    let stuck = annotator.building.clone();
    let _stuck = stuck.lock().await;
    let raw = annotate_finding(FindingKind::Conflict, SERVICE);
    let out = through(annotator, [raw.clone()]).await;
    assert_eq!(out[0].0, raw);
    assert!(
        (2_000..2_100).contains(&out[0].1.as_millis()),
        "{:?}",
        out[0].1
    );
}

#[tokio::test(start_paused = true)]
async fn nodes_that_contest_an_address_are_a_warning_only_if_that_persists() {
    let contested = |minute: i64| {
        let time = Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
        Arc::new(FindingRecord {
            time,
            ..(*annotate_finding(FindingKind::Contested, LEASED)).clone()
        })
    };
    let nodes = slow(Duration::ZERO);
    let out = through(annotator(&nodes), [0, 5, 15].map(contested)).await;
    let shown: Vec<_> = out
        .iter()
        .map(|(record, _)| {
            let cause = &record.cluster.as_ref().unwrap().cause;
            (record.severity, cause.is_some())
        })
        .collect();
    let brief = (Severity::Notice, false);
    assert_eq!(shown, [brief, brief, (Severity::Warning, true)]);
    let unknown_host = annotate_finding(FindingKind::Contested, SERVICE);
    let out = through(self::annotator(&nodes), [unknown_host]).await;
    assert_eq!(out[0].0.severity, Severity::Warning);
}

#[tokio::test(start_paused = true)]
async fn finding_is_annotated_with_service_and_cause() {
    let nodes = slow(Duration::ZERO);
    let all = [
        annotate_finding(FindingKind::Conflict, SERVICE),
        annotate_finding(FindingKind::NewBinding, "192.0.2.81"),
        annotate_finding(FindingKind::Conflict, "192.0.2.7"),
    ];
    let out = through(annotator(&nodes), all).await;
    let [conflict, in_pool, elsewhere] = [0, 1, 2].map(|place: usize| &out[place].0);
    let context = conflict.cluster.as_ref().unwrap();
    assert_eq!(context.pool, Some(named("metallb-system/production")));
    assert_eq!(context.announced, AnnouncementMode::NotAnnounced);
    let cause = context.cause.as_ref().unwrap();
    assert_eq!(cause.kind, CauseKind::SharedWithoutKey);
    let names: Vec<_> = conflict
        .owners
        .iter()
        .map(|owner| owner.node.as_deref())
        .collect();
    assert_eq!(names, [Some("node-1"), None]);

    let context = in_pool.cluster.as_ref().unwrap();
    assert!(context.services.is_empty() && context.pool.is_some() && context.cause.is_none());
    assert_eq!(elsewhere.cluster, None);
}

#[tokio::test(start_paused = true)]
async fn the_mac_of_a_lease_is_the_node_that_kube_vip_names_for_that_address_alone() {
    let nodes = slow(Duration::ZERO);
    let all = [
        annotate_finding(FindingKind::Conflict, LEASED),
        annotate_finding(FindingKind::Conflict, SERVICE),
    ];
    let out = through(annotator(&nodes), all).await;
    let names = |place: usize| -> Vec<_> {
        let owners = out[place].0.owners.iter();
        owners.map(|owner| owner.node.as_deref()).collect()
    };
    assert_eq!(names(0), [Some("node-1"), Some("node-2")]);
    assert_eq!(names(1), [Some("node-1"), None]);
}

#[tokio::test(start_paused = true)]
async fn a_drill_is_nobodys() {
    let drill = FindingRecord {
        drill: true,
        ..(*annotate_finding(FindingKind::Conflict, SERVICE)).clone()
    };
    let nodes = slow(Duration::ZERO);
    let out = through(annotator(&nodes), [Arc::new(drill.clone())]).await;
    assert_eq!(*out[0].0, drill);
    assert!(nodes.fetched.lock().unwrap().is_empty());
}

#[test]
fn first_service_by_name_becomes_the_label() {
    let cluster = cluster();
    let (service, pool) = holder_of(&cluster, SERVICE.parse().unwrap());
    assert_eq!(service, Some(&named("shop/api")));
    assert_eq!(pool, Some("production"));
    let (service, pool) = holder_of(&cluster, "198.51.100.1".parse().unwrap());
    assert_eq!((service, pool), (None, None));
}

#[tokio::test(start_paused = true)]
async fn annotations_dropped_for_overload_are_counted() {
    let annotator = annotator(&slow(Duration::ZERO));
    let health = annotator.sources.health.clone();
    let findings = (0..100).map(|_| annotate_finding(FindingKind::Moved, "192.0.2.7"));
    let out = through(annotator, findings).await;
    assert_eq!((out.len(), health.lost_findings()), (64, 36));
}
