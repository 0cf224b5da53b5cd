//! Tests of watches and leader election against the fake API server.

use std::time::Duration;

use probe_cluster::{
    snapshot::{ClusterObjects, Resource, ResourceState},
    tracking::SegmentCoverage,
};
use probe_model::{FindingKind, Predecessor, Severity};
use probe_notify::{
    Notifier, NotifierClusterSources, NotifierPolicy, NotifierSources, testing::record,
};
use serde_json::{Value, json};

use super::{
    fake::{FakeApiServer, wait_until},
    health::ApiRequestKind,
    kubernetes_event::tests::context,
    lease,
    read::path,
    timings::ApiTimings,
    *,
};

const SERVICES: &str = path(Resource::Services);
const POOLS: &str = path(Resource::IpAddressPools);

fn service(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name, "uid": name},
        "spec": {"type": "LoadBalancer"},
        "status": {"loadBalancer": {"ingress": [{"ip": ip}]}},
    })
}

fn pool(name: &str, range: &str) -> Value {
    json!({"metadata": {"namespace": "metallb-system", "name": name}, "spec": {"addresses": [range]}})
}

fn start(fake: &FakeApiServer) -> (ClusterHandle, ClusterTasks) {
    ClusterHandle::start_with(
        fake.connect(),
        Some("node-1".to_owned()),
        &ApiTimings::for_tests(),
    )
}

fn state_of(objects: &ClusterObjects, resource: Resource) -> ResourceState {
    let freshness = objects.freshness.get(&resource);
    freshness.map_or(ResourceState::NeverRead, |freshness| freshness.state)
}

fn services(cluster: &ClusterSnapshot) -> Vec<String> {
    let services = cluster.services().iter();
    services.map(|service| service.named.name.clone()).collect()
}

async fn wait_for_state(handle: &ClusterHandle, resource: Resource, expected: ResourceState) {
    let is_so = |cluster: &Arc<ClusterSnapshot>| state_of(cluster.objects(), resource) == expected;
    wait_until(&mut handle.cluster(), is_so).await;
}

async fn wait_for_services(handle: &ClusterHandle, names: &[&str]) {
    wait_until(&mut handle.cluster(), |cluster| services(cluster) == names).await;
}

#[tokio::test]
async fn changes_are_watched() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    fake.apply(POOLS, pool("production", "192.0.2.0/24"));
    let (handle, running) = start(&fake);
    wait_for_services(&handle, &["a"]).await;
    fake.apply(SERVICES, service("b", "192.0.2.2"));
    wait_for_services(&handle, &["a", "b"]).await;
    fake.apply(SERVICES, service("b", "192.0.2.3"));
    let ip = "192.0.2.3".parse().unwrap();
    wait_until(&mut handle.cluster(), |cluster| {
        cluster.services_at(ip).count() == 1
    })
    .await;
    wait_until(&mut handle.cluster(), |cluster| {
        cluster.pool_of(ip).is_some()
    })
    .await;
    fake.remove(SERVICES, "a");
    wait_for_services(&handle, &["b"]).await;
    let health = handle.health().resource(Resource::Services);
    assert_eq!(
        (health.objects, health.freshness.state),
        (1, ResourceState::Current)
    );
    assert!(health.freshness.last_update.is_some());
    // Listed once.
    let lists = fake
        .requests()
        .into_iter()
        .filter(|request| request.contains(SERVICES) && !request.contains("watch=1"));
    assert_eq!(lists.count(), 1, "{:?}", fake.requests());
    running.stop().await;
}

#[tokio::test]
async fn a_watch_that_ends_is_continued() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    let (handle, running) = start(&fake);
    wait_for_services(&handle, &["a"]).await;
    fake.wait_for_requests(&format!("GET {SERVICES}?watch=1"), 1)
        .await;
    fake.end_watches();
    fake.apply(SERVICES, service("b", "192.0.2.2"));
    wait_for_services(&handle, &["a", "b"]).await;
    fake.wait_for_requests(&format!("GET {SERVICES}?watch=1"), 2)
        .await;
    let lists = format!("GET {SERVICES}?resourceVersion");
    let requests = fake.requests().into_iter();
    assert_eq!(
        requests
            .filter(|request| request.starts_with(&lists))
            .count(),
        1
    );
    running.stop().await;
}

#[tokio::test]
async fn expired_resource_version_causes_a_new_list() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    let (handle, running) = start(&fake);
    wait_for_services(&handle, &["a"]).await;
    fake.wait_for_requests(&format!("GET {SERVICES}?watch=1"), 1)
        .await;
    // No watch receives this change.
    fake.stop();
    fake.apply(SERVICES, service("b", "192.0.2.2"));
    fake.remove(SERVICES, "a");
    fake.compact();
    fake.resume().await;
    wait_for_services(&handle, &["b"]).await;
    let gone = handle
        .health()
        .requests(ApiRequestKind::Watch, ApiOutcome::Gone);
    assert!(gone > 0);
    running.stop().await;
}

#[tokio::test]
async fn while_the_api_server_is_unreachable_the_objects_stay_as_stale() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    let (handle, running) = start(&fake);
    wait_for_services(&handle, &["a"]).await;
    let new_version = handle
        .health()
        .resource(Resource::Services)
        .freshness
        .last_update;
    fake.stop();
    wait_for_state(&handle, Resource::Services, ResourceState::Stale).await;
    let cluster = handle.cluster().borrow().clone();
    assert_eq!(services(&cluster), ["a"]);
    let freshness = &cluster.objects().freshness[&Resource::Services];
    assert!(
        freshness.last_update >= new_version && freshness.error.is_some(),
        "{freshness:?}"
    );
    assert!(cluster.is_known(Resource::Services));
    fake.resume().await;
    wait_for_state(&handle, Resource::Services, ResourceState::Current).await;
    let freshness = handle.cluster().borrow().objects().freshness[&Resource::Services].clone();
    assert_eq!(freshness.error, None);
    running.stop().await;
}

#[tokio::test]
async fn an_api_server_that_is_unreachable_at_first_is_found_later() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    fake.stop();
    let (handle, running) = start(&fake);
    let unreachable = || {
        handle
            .health()
            .requests(ApiRequestKind::List, ApiOutcome::Unreachable)
    };
    while unreachable() < 5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        state_of(handle.cluster().borrow().objects(), Resource::Services),
        ResourceState::NeverRead
    );
    fake.resume().await;
    wait_for_services(&handle, &["a"]).await;
    running.stop().await;
}

#[tokio::test]
async fn missing_resources_are_found_when_they_are_installed() {
    let fake = FakeApiServer::start().await;
    fake.fail_with("/apis/metallb.io", 404, "404 page not found\n");
    let (handle, running) = start(&fake);
    for &resource in &Resource::ALL[1..] {
        wait_for_state(&handle, resource, ResourceState::NotInstalled).await;
    }
    wait_for_state(&handle, Resource::Services, ResourceState::Current).await;
    fake.clear_fault("/apis/metallb.io");
    // One of them is requested regularly; the others once it exists.
    for &resource in &Resource::ALL[1..] {
        wait_for_state(&handle, resource, ResourceState::Current).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn objects_of_an_uninstalled_resource_are_forgotten() {
    let fake = FakeApiServer::start().await;
    fake.apply(POOLS, pool("production", "192.0.2.0/24"));
    let (handle, running) = start(&fake);
    wait_until(&mut handle.cluster(), |cluster| {
        !cluster.inventory().pools.is_empty()
    })
    .await;
    fake.fail_with("/apis/metallb.io", 404, "{}");
    fake.end_watches();
    wait_for_state(
        &handle,
        Resource::IpAddressPools,
        ResourceState::NotInstalled,
    )
    .await;
    assert!(handle.cluster().borrow().inventory().pools.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn forbidden_resource_is_reported_and_retried() {
    let fake = FakeApiServer::start().await;
    let status = json!({"kind": "Status", "code": 403, "message": "services is forbidden"});
    fake.fail_with(SERVICES, 403, &status.to_string());
    let (handle, running) = start(&fake);
    wait_for_state(&handle, Resource::Services, ResourceState::Forbidden).await;
    wait_for_state(&handle, Resource::IpAddressPools, ResourceState::Current).await;
    let error = handle.cluster().borrow().objects().freshness[&Resource::Services]
        .error
        .clone();
    let error = error.unwrap();
    assert!(
        error.contains("services is forbidden") && error.contains("ClusterRole"),
        "{error}"
    );
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    fake.clear_fault(SERVICES);
    wait_for_services(&handle, &["a"]).await;
    running.stop().await;
}

#[tokio::test]
async fn all_services_are_listed_if_the_server_rejects_the_selector() {
    let fake = FakeApiServer::start().await;
    fake.fail_with(
        &format!("{SERVICES}?resourceVersion=0&fieldSelector"),
        400,
        "{}",
    );
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    let mut other = service("b", "192.0.2.2");
    other["spec"]["type"] = json!("ClusterIP");
    fake.apply(SERVICES, other.clone());
    let (handle, running) = start(&fake);
    wait_for_services(&handle, &["a"]).await;
    other["spec"]["type"] = json!("LoadBalancer");
    fake.apply(SERVICES, other);
    wait_for_services(&handle, &["a", "b"]).await;
    let mut other = service("a", "192.0.2.1");
    other["spec"]["type"] = json!("ClusterIP");
    fake.apply(SERVICES, other);
    wait_for_services(&handle, &["b"]).await;
    let requests = fake.requests().into_iter();
    let request_count = requests
        .filter(|request| request.contains("fieldSelector"))
        .count();
    assert_eq!(request_count, 1, "the selector is not used again");
    running.stop().await;
}

#[tokio::test]
async fn invalid_watch_event_is_counted_and_causes_a_new_list() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    let (handle, running) = start(&fake);
    wait_for_services(&handle, &["a"]).await;
    let watches = format!("GET {SERVICES}?watch=1");
    let mut times = 1;
    for nonsense in [
        "nonsense",
        "{\"type\":\"ADDED\"} trailing",
        "[]",
        "{\"type\":7,\"object\":{}}",
        "{\"type\":\"ERROR\",\"object\":[]}",
        "\u{0}",
    ] {
        fake.wait_for_requests(&watches, times).await;
        times += 1;
        fake.send_line(SERVICES, nonsense);
        // Everything is listed again.
        fake.wait_for_requests(&format!("GET {SERVICES}?resourceVersion"), times)
            .await;
    }
    fake.wait_for_requests(&watches, times).await;
    // An invalid object does not end the watch.
    fake.apply(
        SERVICES,
        json!({"metadata": {"namespace": 7, "name": "x"}, "spec": []}),
    );
    fake.apply(SERVICES, json!(["nonsense"]));
    let mut invalid = service("c", "192.0.2.300");
    invalid["spec"]["loadBalancerIP"] = json!({});
    fake.apply(SERVICES, invalid);
    wait_for_services(&handle, &["a", "c"]).await;
    assert_eq!(handle.health().resource(Resource::Services).invalid, 2);
    let garbage = handle
        .health()
        .requests(ApiRequestKind::Watch, ApiOutcome::InvalidResponse);
    assert!(garbage >= 5, "{garbage}");
    running.stop().await;
}

#[tokio::test]
async fn invalid_list_is_requested_again() {
    let fake = FakeApiServer::start().await;
    for nonsense in ["", "nonsense", "{\"items\":7}", "[[[[", "{}"] {
        fake.fail_with(SERVICES, 200, nonsense);
        let objects = fake.connect().objects().await;
        assert_eq!(
            state_of(&objects, Resource::Services),
            ResourceState::NeverRead,
            "{nonsense}"
        );
        let freshness = &objects.freshness[&Resource::Services];
        assert!(
            freshness
                .error
                .as_ref()
                .unwrap()
                .contains("invalid response"),
            "{nonsense}"
        );
    }
    let (handle, running) = start(&fake);
    fake.wait_for_requests(&format!("GET {SERVICES}"), 8).await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    fake.clear_fault(SERVICES);
    wait_for_services(&handle, &["a"]).await;
    running.stop().await;
}

#[tokio::test]
async fn one_shot_command_lists_each_resource_once() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    fake.apply(POOLS, pool("production", "192.0.2.0/24"));
    fake.fail_with(path(Resource::BgpAdvertisements), 404, "{}");
    fake.fail_with(path(Resource::ServiceL2Statuses), 403, "{}");
    let objects = fake.connect().objects().await;
    assert_eq!(
        state_of(&objects, Resource::Services),
        ResourceState::Current
    );
    assert_eq!(
        state_of(&objects, Resource::BgpAdvertisements),
        ResourceState::NotInstalled
    );
    assert_eq!(
        state_of(&objects, Resource::ServiceL2Statuses),
        ResourceState::Forbidden
    );
    assert_eq!((objects.services.len(), objects.metallb.len()), (1, 1));
    fake.stop();
    let objects = fake.connect().objects().await;
    assert!(
        Resource::ALL
            .iter()
            .all(|&resource| state_of(&objects, resource) == ResourceState::NeverRead)
    );
}

#[tokio::test]
async fn nodes_are_listed_occasionally_and_cached() {
    const NODES: &str = "/api/v1/nodes";
    let fake = FakeApiServer::start().await;
    let node = |name: &str| {
        json!({
            "metadata": {"name": name, "labels": {"rack": "a", "other": "b"}},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.11"}]},
        })
    };
    fake.apply(NODES, node("node-1"));
    let mut advertisement = pool("l2", "");
    advertisement["spec"] = json!({"nodeSelectors": [{"matchLabels": {"rack": "a"}}]});
    fake.apply(path(Resource::L2Advertisements), advertisement);
    let (handle, running) = start(&fake);
    wait_until(&mut handle.cluster(), |cluster| {
        !cluster.objects().metallb.is_empty()
    })
    .await;
    let hour = Duration::from_hours(1);
    // Concurrent callers share a request.
    let many = (0..10).map(|_| handle.nodes(hour));
    for nodes in futures_util::future::join_all(many).await {
        assert_eq!(nodes[0].name, "node-1");
        assert_eq!(nodes[0].labels.len(), 1);
    }
    fake.apply(NODES, node("node-2"));
    assert_eq!(handle.nodes(hour).await.len(), 1);
    assert_eq!(handle.nodes(Duration::ZERO).await.len(), 1);
    let request_count = fake
        .requests()
        .into_iter()
        .filter(|request| request.contains(NODES));
    assert_eq!(request_count.count(), 1);
    running.stop().await;
}

#[tokio::test]
async fn nodes_that_cannot_be_listed_are_not_requested_in_a_loop() {
    let fake = FakeApiServer::start().await;
    fake.fail_with("/api/v1/nodes", 403, "{}");
    fake.fail_with(LEASES, 403, "{}");
    let (handle, running) = start(&fake);
    for _ in 0..5 {
        assert!(handle.nodes(Duration::ZERO).await.is_empty());
    }
    assert_eq!(
        handle
            .health()
            .requests(ApiRequestKind::Nodes, ApiOutcome::Forbidden),
        1
    );
    running.stop().await;
}

#[tokio::test]
async fn ready_endpoints_of_a_service_are_counted() {
    let fake = FakeApiServer::start().await;
    let named = |name: &str| NamespacedName {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    };
    let slices = "/apis/discovery.k8s.io/v1beta1/namespaces/shop/endpointslices";
    fake.fail_with("/apis/discovery.k8s.io/v1/", 404, "{}");
    fake.apply(
        slices,
        json!({
            "metadata": {"namespace": "shop", "name": "a-x"},
            "endpoints": [{"conditions": {"ready": true}}, {"conditions": {"ready": false}}],
        }),
    );
    let (handle, running) = start(&fake);
    assert_eq!(handle.ready_endpoints(&named("a")).await, Some(1));
    assert_eq!(handle.ready_endpoints(&named("a/../b?x")).await, None);
    assert_eq!(
        ClusterHandle::off().ready_endpoints(&named("a")).await,
        None
    );
    running.stop().await;
}

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

async fn wait_for_leader(handle: &ClusterHandle) -> Predecessor {
    let is_leader = |leadership: &Leadership| matches!(leadership, Leadership::Leader(_));
    wait_until(&mut handle.leadership(), is_leader).await;
    match *handle.leadership().borrow() {
        Leadership::Leader(predecessor) => predecessor,
        Leadership::Follower => panic!("it was the leader only for a moment"),
    }
}

async fn wait_for_follower(handle: &ClusterHandle) {
    let is_follower = |leadership: &Leadership| *leadership == Leadership::Follower;
    wait_until(&mut handle.leadership(), is_follower).await;
}

fn is_leader(handle: &ClusterHandle) -> bool {
    let is_leader = handle.health().is_leader();
    let leadership = *handle.leadership().borrow();
    assert_eq!(is_leader, leadership != Leadership::Follower);
    is_leader
}

fn lease_of(fake: &FakeApiServer) -> Value {
    let key = format!("default/{}", lease::NAME);
    fake.object(LEASES, &key).unwrap()
}

fn holder(fake: &FakeApiServer) -> String {
    let lease = lease_of(fake);
    lease["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}

/// A candidate that knows its coverage from the start.
fn start_with_coverage(
    fake: &FakeApiServer,
    has_no_coverage: bool,
) -> (ClusterHandle, ClusterTasks) {
    let (handle, running) = start(fake);
    let on_link = usize::from(!has_no_coverage);
    handle
        .segment_coverage()
        .send_replace(Some(SegmentCoverage {
            on_link,
            has_no_coverage,
        }));
    (handle, running)
}

#[tokio::test]
async fn exactly_one_candidate_leads_and_another_takes_over_when_it_stops() {
    let fake = FakeApiServer::start().await;
    let (first, running) = start(&fake);
    assert_eq!(wait_for_leader(&first).await, Predecessor::Unknown);
    assert!(holder(&fake).starts_with("node-1_"));
    let tasks: Vec<_> = (0..4).map(|_| start(&fake)).collect();
    // It renews while they read.
    fake.wait_for_requests(&format!("PUT {LEASES}"), 10).await;
    assert!(is_leader(&first));
    assert!(tasks.iter().all(|(other, _)| !is_leader(other)));
    running.stop().await;
    assert!(!is_leader(&first));
    let waiting = tasks
        .iter()
        .map(|(other, _)| Box::pin(wait_for_leader(other)));
    let (predecessor, ..) = futures_util::future::select_all(waiting).await;
    assert!(matches!(predecessor, Predecessor::Other { .. }));
    let leaders = tasks.iter().filter(|(other, _)| is_leader(other));
    assert_eq!(leaders.count(), 1);
    let spec = &lease_of(&fake)["spec"];
    assert_eq!(spec["leaseTransitions"], 1);
    assert_eq!(spec["leaseDurationSeconds"], 1);
    for (_, running) in tasks {
        running.stop().await;
    }
    assert_eq!(holder(&fake), "", "released");
}

#[tokio::test]
async fn leader_that_cannot_renew_stops_before_its_lease_expires() {
    let fake = FakeApiServer::start().await;
    let (first, running) = start(&fake);
    wait_for_leader(&first).await;
    fake.stop();
    wait_for_follower(&first).await;
    fake.resume().await;
    let (second, other) = start(&fake);
    let leaders = [&first, &second].map(|handle| Box::pin(wait_for_leader(handle)));
    futures_util::future::select_all(leaders).await;
    assert!(!(is_leader(&first) && is_leader(&second)));
    running.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn leader_that_reacquires_its_lease_detects_that_no_other_held_it() {
    let fake = FakeApiServer::start().await;
    let (handle, running) = start(&fake);
    wait_for_leader(&handle).await;
    fake.stop();
    wait_for_follower(&handle).await;
    fake.resume().await;
    assert_eq!(wait_for_leader(&handle).await, Predecessor::ThisProcess);
    running.stop().await;
}

#[tokio::test]
async fn lease_preserves_foreign_fields_and_records_the_number_of_nodes() {
    let fake = FakeApiServer::start().await;
    fake.apply(
        "/api/v1/nodes",
        json!({"metadata": {"name": "node-1"}, "status": {}}),
    );
    fake.apply(
        LEASES,
        json!({
            "metadata": {
                "namespace": "default", "name": lease::NAME, "labels": {"team": "network"},
                "annotations": {"arp-monitor/nodes": "7"},
            },
            "spec": {"holderIdentity": "", "renewTime": "2026-01-01T00:00:00.000000Z", "leaseTransitions": 4},
        }),
    );
    let (handle, running) = start(&fake);
    let last_renewal = "2026-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(
        wait_for_leader(&handle).await,
        Predecessor::Other { last_renewal }
    );
    let lease = lease_of(&fake);
    assert_eq!(lease["metadata"]["labels"]["team"], "network");
    assert_eq!(lease["metadata"]["annotations"]["arp-monitor/nodes"], "7");
    assert_eq!(lease["spec"]["leaseTransitions"], 5);
    handle.nodes(Duration::ZERO).await;
    let renewals = fake.requests().len();
    fake.wait_for_requests(&format!("PUT {LEASES}"), renewals + 2)
        .await;
    let lease = lease_of(&fake);
    assert_eq!(lease["metadata"]["annotations"]["arp-monitor/nodes"], "1");
    running.stop().await;
}

#[tokio::test]
async fn a_candidate_with_coverage_is_preferred() {
    let fake = FakeApiServer::start().await;
    let (uncovered, running) = start_with_coverage(&fake, true);
    fake.wait_for_requests(&format!("GET {LEASES}"), 1).await;
    assert!(!is_leader(&uncovered));
    let (covered, other) = start_with_coverage(&fake, false);
    wait_for_leader(&covered).await;
    assert!(!is_leader(&uncovered));
    // It stops, and no candidate with coverage is left.
    other.stop().await;
    wait_for_leader(&uncovered).await;
    // The Lease is not offered at once again.
    fake.wait_for_requests(&format!("PUT {LEASES}"), 20).await;
    assert!(is_leader(&uncovered));
    running.stop().await;
}

#[tokio::test]
async fn leader_without_coverage_releases_to_a_candidate_with_coverage() {
    let fake = FakeApiServer::start().await;
    let (first, running) = start_with_coverage(&fake, false);
    wait_for_leader(&first).await;
    let (second, other) = start_with_coverage(&fake, false);
    let (on_link, has_no_coverage) = (0, true);
    first.segment_coverage().send_replace(Some(SegmentCoverage {
        on_link,
        has_no_coverage,
    }));
    wait_for_leader(&second).await;
    assert!(!is_leader(&first));
    // It stays so.
    let renewals = fake
        .requests()
        .iter()
        .filter(|one| one.starts_with("PUT"))
        .count();
    fake.wait_for_requests(&format!("PUT {LEASES}"), renewals + 10)
        .await;
    assert!(is_leader(&second) && !is_leader(&first));
    other.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn no_leader_if_the_lease_is_forbidden() {
    let fake = FakeApiServer::start().await;
    fake.fail_with(LEASES, 403, "{}");
    let (handle, running) = start(&fake);
    fake.wait_for_requests(&format!("GET {LEASES}"), 3).await;
    assert!(!is_leader(&handle));
    let forbidden = handle
        .health()
        .requests(ApiRequestKind::Lease, ApiOutcome::Forbidden);
    assert!(forbidden >= 2, "{forbidden}");
    fake.clear_fault(LEASES);
    wait_for_leader(&handle).await;
    running.stop().await;
}

#[tokio::test]
async fn a_lease_that_another_took_is_neither_renewed_nor_released() {
    let fake = FakeApiServer::start().await;
    let (handle, running) = start(&fake);
    wait_for_leader(&handle).await;
    let mut lease = lease_of(&fake);
    lease["spec"]["holderIdentity"] = json!("somebody");
    lease["spec"]["leaseDurationSeconds"] = json!(60);
    fake.apply(LEASES, lease);
    wait_for_follower(&handle).await;
    assert_eq!(holder(&fake), "somebody");
    running.stop().await;
    assert_eq!(holder(&fake), "somebody");
}

#[tokio::test]
async fn after_a_restart_a_new_conflict_becomes_an_event_regardless_of_earlier_events() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("frontend", "192.0.2.10"));
    // The Event of an agent that sent another conflict on the address and stopped before its end.
    fake.apply(
        LEASES,
        json!({
            "metadata": {
                "namespace": "default", "name": lease::NAME,
                "annotations": {"arp-monitor/last-event": "65a2a3d6"},
            },
            "spec": {"holderIdentity": "", "renewTime": "2026-01-01T00:00:00.000000Z"},
        }),
    );
    let (handle, running) = start(&fake);
    wait_for_services(&handle, &["frontend"]).await;
    let (findings, received) = tokio::sync::broadcast::channel(8);
    let sink = EventSink::new(fake.connect(), handle.cluster(), "node-1".to_owned());
    let policy = NotifierPolicy {
        min_severity: Severity::Info,
        per_minute: EventSink::PER_MINUTE,
    };
    let sources = NotifierSources {
        findings: received,
        cluster: Some(NotifierClusterSources {
            leadership: handle.leadership(),
            cluster: handle.cluster(),
            drifts: None,
        }),
    };
    let notifier = Notifier::start(sink, policy, sources, Arc::default());
    wait_for_leader(&handle).await;
    let mut conflict = (*record(10, FindingKind::Conflict, Severity::Critical)).clone();
    conflict.cluster = Some(Box::new(context(&["frontend"])));
    findings.send(Arc::new(conflict)).unwrap();
    let events = "/apis/events.k8s.io/v1/namespaces/shop/events";
    fake.wait_for_requests(&format!("POST {events}"), 1).await;
    notifier.stop().await;
    running.stop().await;
}
