//! What is known of a cluster whose API server does everything that API servers do.

use std::time::Duration;

use probe_cluster::{
    snapshot::{ClusterObjects, Resource, ResourceState},
    tracking::SegmentCoverage,
};
use serde_json::{Value, json};

use super::{
    fake::{FakeApiServer, wait_until},
    health::ApiRequestKind,
    lease,
    rate_limit::ApiTimings,
    read::path,
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
    ClusterHandle::start_at(
        fake.connect(),
        Some("node-1".to_owned()),
        &ApiTimings::for_tests(),
    )
}

fn known(objects: &ClusterObjects, resource: Resource) -> ResourceState {
    let freshness = objects.freshness.get(&resource);
    freshness.map_or(ResourceState::NeverRead, |freshness| freshness.known)
}

fn services(cluster: &ClusterSnapshot) -> Vec<String> {
    let services = cluster.services().iter();
    services.map(|service| service.named.name.clone()).collect()
}

async fn until_known(handle: &ClusterHandle, resource: Resource, wanted: ResourceState) {
    let is_so = |cluster: &Arc<ClusterSnapshot>| known(cluster.objects(), resource) == wanted;
    wait_until(&mut handle.cluster(), is_so).await;
}

async fn until_services(handle: &ClusterHandle, names: &[&str]) {
    wait_until(&mut handle.cluster(), |cluster| services(cluster) == names).await;
}

#[tokio::test]
async fn what_changes_is_followed() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    fake.apply(POOLS, pool("production", "192.0.2.0/24"));
    let (handle, running) = start(&fake);
    until_services(&handle, &["a"]).await;
    fake.apply(SERVICES, service("b", "192.0.2.2"));
    until_services(&handle, &["a", "b"]).await;
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
    until_services(&handle, &["b"]).await;
    let health = handle.health().resource(Resource::Services);
    assert_eq!(
        (health.objects, health.freshness.known),
        (1, ResourceState::Current)
    );
    assert!(health.freshness.heard.is_some());
    // Listed once.
    let lists = fake
        .requests()
        .into_iter()
        .filter(|request| request.contains(SERVICES) && !request.contains("watch=1"));
    assert_eq!(lists.count(), 1, "{:?}", fake.requests());
    running.stop().await;
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    let (handle, running) = start(&fake);
    until_services(&handle, &["a"]).await;
    fake.wait_for_requests(&format!("GET {SERVICES}?watch=1"), 1)
        .await;
    fake.end_watches();
    fake.apply(SERVICES, service("b", "192.0.2.2"));
    until_services(&handle, &["a", "b"]).await;
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
async fn a_version_that_is_too_old_means_a_new_list() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    let (handle, running) = start(&fake);
    until_services(&handle, &["a"]).await;
    fake.wait_for_requests(&format!("GET {SERVICES}?watch=1"), 1)
        .await;
    // Nothing of this is heard.
    fake.stop();
    fake.apply(SERVICES, service("b", "192.0.2.2"));
    fake.remove(SERVICES, "a");
    fake.compact();
    fake.resume().await;
    until_services(&handle, &["b"]).await;
    let gone = handle
        .health()
        .requests(ApiRequestKind::Watch, ApiOutcome::Gone);
    assert!(gone > 0);
    running.stop().await;
}

#[tokio::test]
async fn while_the_api_server_is_away_what_is_known_stays() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    let (handle, running) = start(&fake);
    until_services(&handle, &["a"]).await;
    let heard = handle.health().resource(Resource::Services).freshness.heard;
    fake.stop();
    until_known(&handle, Resource::Services, ResourceState::Stale).await;
    let cluster = handle.cluster().borrow().clone();
    assert_eq!(services(&cluster), ["a"]);
    let freshness = &cluster.objects().freshness[&Resource::Services];
    assert!(
        freshness.heard >= heard && freshness.error.is_some(),
        "{freshness:?}"
    );
    assert!(cluster.is_known(Resource::Services));
    fake.resume().await;
    until_known(&handle, Resource::Services, ResourceState::Current).await;
    let freshness = handle.cluster().borrow().objects().freshness[&Resource::Services].clone();
    assert_eq!(freshness.error, None);
    running.stop().await;
}

#[tokio::test]
async fn an_api_server_that_is_away_at_first_is_found_later() {
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
        known(handle.cluster().borrow().objects(), Resource::Services),
        ResourceState::NeverRead
    );
    fake.resume().await;
    until_services(&handle, &["a"]).await;
    running.stop().await;
}

#[tokio::test]
async fn resources_that_are_missing_are_found_when_they_come() {
    let fake = FakeApiServer::start().await;
    fake.fail_with("/apis/metallb.io", 404, "404 page not found\n");
    let (handle, running) = start(&fake);
    for &resource in &Resource::ALL[1..] {
        until_known(&handle, resource, ResourceState::NotInstalled).await;
    }
    until_known(&handle, Resource::Services, ResourceState::Current).await;
    fake.clear_fault("/apis/metallb.io");
    // One of them is asked for now and then; the others when it has come.
    for &resource in &Resource::ALL[1..] {
        until_known(&handle, resource, ResourceState::Current).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_longer_installed_is_no_longer_known() {
    let fake = FakeApiServer::start().await;
    fake.apply(POOLS, pool("production", "192.0.2.0/24"));
    let (handle, running) = start(&fake);
    wait_until(&mut handle.cluster(), |cluster| {
        !cluster.inventory().pools.is_empty()
    })
    .await;
    fake.fail_with("/apis/metallb.io", 404, "{}");
    fake.end_watches();
    until_known(
        &handle,
        Resource::IpAddressPools,
        ResourceState::NotInstalled,
    )
    .await;
    assert!(handle.cluster().borrow().inventory().pools.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn what_is_forbidden_is_said_and_tried_again() {
    let fake = FakeApiServer::start().await;
    let status = json!({"kind": "Status", "code": 403, "message": "services is forbidden"});
    fake.fail_with(SERVICES, 403, &status.to_string());
    let (handle, running) = start(&fake);
    until_known(&handle, Resource::Services, ResourceState::Forbidden).await;
    until_known(&handle, Resource::IpAddressPools, ResourceState::Current).await;
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
    until_services(&handle, &["a"]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_select_is_asked_for_all() {
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
    until_services(&handle, &["a"]).await;
    other["spec"]["type"] = json!("LoadBalancer");
    fake.apply(SERVICES, other);
    until_services(&handle, &["a", "b"]).await;
    let mut other = service("a", "192.0.2.1");
    other["spec"]["type"] = json!("ClusterIP");
    fake.apply(SERVICES, other);
    until_services(&handle, &["b"]).await;
    let requests = fake.requests().into_iter();
    let asked = requests
        .filter(|request| request.contains("fieldSelector"))
        .count();
    assert_eq!(asked, 1, "it is not asked to again");
    running.stop().await;
}

#[tokio::test]
async fn nonsense_in_a_watch_is_counted_and_got_over() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    let (handle, running) = start(&fake);
    until_services(&handle, &["a"]).await;
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
        // Everything is listed anew.
        fake.wait_for_requests(&format!("GET {SERVICES}?resourceVersion"), times)
            .await;
    }
    fake.wait_for_requests(&watches, times).await;
    // An object that makes no sense is none of the watch's business.
    fake.apply(
        SERVICES,
        json!({"metadata": {"namespace": 7, "name": "x"}, "spec": []}),
    );
    fake.apply(SERVICES, json!(["nonsense"]));
    let mut invalid = service("c", "192.0.2.300");
    invalid["spec"]["loadBalancerIP"] = json!({});
    fake.apply(SERVICES, invalid);
    until_services(&handle, &["a", "c"]).await;
    assert_eq!(handle.health().resource(Resource::Services).invalid, 2);
    let garbage = handle
        .health()
        .requests(ApiRequestKind::Watch, ApiOutcome::InvalidResponse);
    assert!(garbage >= 5, "{garbage}");
    running.stop().await;
}

#[tokio::test]
async fn a_list_that_makes_no_sense_is_asked_for_again() {
    let fake = FakeApiServer::start().await;
    for nonsense in ["", "nonsense", "{\"items\":7}", "[[[[", "{}"] {
        fake.fail_with(SERVICES, 200, nonsense);
        let objects = fake.connect().objects().await;
        assert_eq!(
            known(&objects, Resource::Services),
            ResourceState::NeverRead,
            "{nonsense}"
        );
        let freshness = &objects.freshness[&Resource::Services];
        assert!(
            freshness.error.as_ref().unwrap().contains("makes no sense"),
            "{nonsense}"
        );
    }
    let (handle, running) = start(&fake);
    fake.wait_for_requests(&format!("GET {SERVICES}"), 8).await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    fake.clear_fault(SERVICES);
    until_services(&handle, &["a"]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_verb_reads_everything_once() {
    let fake = FakeApiServer::start().await;
    fake.apply(SERVICES, service("a", "192.0.2.1"));
    fake.apply(POOLS, pool("production", "192.0.2.0/24"));
    fake.fail_with(path(Resource::BgpAdvertisements), 404, "{}");
    fake.fail_with(path(Resource::ServiceL2Statuses), 403, "{}");
    let objects = fake.connect().objects().await;
    assert_eq!(known(&objects, Resource::Services), ResourceState::Current);
    assert_eq!(
        known(&objects, Resource::BgpAdvertisements),
        ResourceState::NotInstalled
    );
    assert_eq!(
        known(&objects, Resource::ServiceL2Statuses),
        ResourceState::Forbidden
    );
    assert_eq!((objects.services.len(), objects.metallb.len()), (1, 1));
    fake.stop();
    let objects = fake.connect().objects().await;
    assert!(
        Resource::ALL
            .iter()
            .all(|&resource| known(&objects, resource) == ResourceState::NeverRead)
    );
}

#[tokio::test]
async fn nodes_are_asked_for_now_and_then_and_remembered() {
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
    // Many at once ask once.
    let many = (0..10).map(|_| handle.nodes(hour));
    for nodes in futures_util::future::join_all(many).await {
        assert_eq!(nodes[0].name, "node-1");
        assert_eq!(nodes[0].labels.len(), 1);
    }
    fake.apply(NODES, node("node-2"));
    assert_eq!(handle.nodes(hour).await.len(), 1);
    // However much somebody wants to know.
    assert_eq!(handle.nodes(Duration::ZERO).await.len(), 1);
    let asked = fake
        .requests()
        .into_iter()
        .filter(|request| request.contains(NODES));
    assert_eq!(asked.count(), 1);
    running.stop().await;
}

#[tokio::test]
async fn nodes_that_cannot_be_read_are_none_and_not_asked_for_in_a_loop() {
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

async fn until_holds(handle: &ClusterHandle, holds: bool) {
    wait_until(&mut handle.holds(), |held| *held == holds).await;
}

fn lease_of(fake: &FakeApiServer) -> Value {
    let key = format!("default/{}", lease::NAME);
    fake.object(LEASES, &key).unwrap()
}

fn holder(fake: &FakeApiServer) -> String {
    let lease = lease_of(fake);
    lease["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}

/// A candidate that knows from the start what it sees.
fn start_seeing(fake: &FakeApiServer, is_blind: bool) -> (ClusterHandle, ClusterTasks) {
    let (handle, running) = start(fake);
    let here = usize::from(!is_blind);
    handle
        .segment_coverage()
        .send_replace(Some(SegmentCoverage { here, is_blind }));
    (handle, running)
}

#[tokio::test]
async fn one_of_many_speaks_for_the_cluster_and_another_when_it_stops() {
    let fake = FakeApiServer::start().await;
    let (first, running) = start(&fake);
    until_holds(&first, true).await;
    assert!(holder(&fake).starts_with("node-1_"));
    let others: Vec<_> = (0..4).map(|_| start(&fake)).collect();
    // It renews while they look.
    fake.wait_for_requests(&format!("PUT {LEASES}"), 10).await;
    assert!(*first.holds().borrow());
    assert!(others.iter().all(|(other, _)| !*other.holds().borrow()));
    running.stop().await;
    assert!(!*first.holds().borrow());
    let mut waiting: Vec<_> = others.iter().map(|(other, _)| other.holds()).collect();
    let waiting = waiting
        .iter_mut()
        .map(|holds| Box::pin(wait_until(holds, |held| *held)));
    futures_util::future::select_all(waiting).await;
    assert_eq!(
        others
            .iter()
            .filter(|(other, _)| other.health().holds())
            .count(),
        1
    );
    for (_, running) in others {
        running.stop().await;
    }
    assert_eq!(holder(&fake), "", "given back");
}

#[tokio::test]
async fn a_holder_that_cannot_renew_stops_before_another_begins() {
    let fake = FakeApiServer::start().await;
    let (first, running) = start(&fake);
    until_holds(&first, true).await;
    fake.stop();
    until_holds(&first, false).await;
    fake.resume().await;
    let (second, other) = start(&fake);
    let (mut one, mut two) = (first.holds(), second.holds());
    tokio::select! {
        () = wait_until(&mut one, |held| *held) => {}
        () = wait_until(&mut two, |held| *held) => {}
    }
    assert!(!(first.health().holds() && second.health().holds()));
    running.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn what_a_holder_has_told_is_left_to_the_next() {
    let fake = FakeApiServer::start().await;
    let (first, running) = start(&fake);
    until_holds(&first, true).await;
    assert_eq!(
        first.handover().predecessor_state("webhook"),
        PredecessorState::default()
    );
    let told = BTreeSet::from([7, 0xdead_beef]);
    first.handover().record_notified("webhook", told.clone());
    running.stop().await;
    let annotation =
        |lease: &Value| lease["metadata"]["annotations"]["arp-monitor/told-webhook"].clone();
    assert_eq!(annotation(&lease_of(&fake)), "00000007,deadbeef");
    let (second, running) = start(&fake);
    until_holds(&second, true).await;
    let before = second.handover().predecessor_state("webhook");
    assert_eq!(before.told, told);
    assert!(before.until.is_some());
    // Before it has told anything itself, it leaves that as it was.
    assert_eq!(annotation(&lease_of(&fake)), "00000007,deadbeef");
    second
        .handover()
        .record_notified("webhook", BTreeSet::from([8]));
    fake.wait_for_requests(&format!("PUT {LEASES}"), 10).await;
    assert_eq!(annotation(&lease_of(&fake)), "00000008");
    running.stop().await;
}

#[tokio::test]
async fn who_sees_the_cluster_speaks_for_it_before_who_does_not() {
    let fake = FakeApiServer::start().await;
    let (blind, running) = start_seeing(&fake, true);
    fake.wait_for_requests(&format!("GET {LEASES}"), 1).await;
    assert!(!blind.health().holds());
    let (seeing, other) = start_seeing(&fake, false);
    until_holds(&seeing, true).await;
    assert!(!blind.health().holds());
    // It goes, and nobody is left that sees anything: somebody has to speak all the same.
    other.stop().await;
    until_holds(&blind, true).await;
    // It was offered to all others just now: they are not asked again.
    fake.wait_for_requests(&format!("PUT {LEASES}"), 20).await;
    assert!(blind.health().holds());
    running.stop().await;
}

#[tokio::test]
async fn a_holder_that_sees_nothing_any_more_gives_way_to_one_that_does() {
    let fake = FakeApiServer::start().await;
    let (first, running) = start_seeing(&fake, false);
    until_holds(&first, true).await;
    let (second, other) = start_seeing(&fake, false);
    let told = BTreeSet::from([7]);
    first.handover().record_notified("webhook", told.clone());
    let (here, is_blind) = (0, true);
    first
        .segment_coverage()
        .send_replace(Some(SegmentCoverage { here, is_blind }));
    until_holds(&second, true).await;
    assert!(!first.health().holds());
    assert_eq!(second.handover().predecessor_state("webhook").told, told);
    // It stays so.
    let renewals = fake
        .requests()
        .iter()
        .filter(|one| one.starts_with("PUT"))
        .count();
    fake.wait_for_requests(&format!("PUT {LEASES}"), renewals + 10)
        .await;
    assert!(second.health().holds() && !first.health().holds());
    other.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn where_the_lease_is_forbidden_nobody_speaks() {
    let fake = FakeApiServer::start().await;
    fake.fail_with(LEASES, 403, "{}");
    let (handle, running) = start(&fake);
    fake.wait_for_requests(&format!("GET {LEASES}"), 3).await;
    assert!(!*handle.holds().borrow());
    assert!(
        handle
            .health()
            .requests(ApiRequestKind::Lease, ApiOutcome::Forbidden)
            >= 2
    );
    fake.clear_fault(LEASES);
    until_holds(&handle, true).await;
    running.stop().await;
}

#[tokio::test]
async fn a_lease_that_somebody_took_is_his() {
    let fake = FakeApiServer::start().await;
    let (handle, running) = start(&fake);
    until_holds(&handle, true).await;
    let mut lease = fake
        .object(LEASES, &format!("default/{}", lease::NAME))
        .unwrap();
    lease["spec"]["holderIdentity"] = json!("somebody");
    lease["spec"]["leaseDurationSeconds"] = json!(60);
    fake.apply(LEASES, lease);
    until_holds(&handle, false).await;
    assert_eq!(holder(&fake), "somebody");
    running.stop().await;
    assert_eq!(
        holder(&fake),
        "somebody",
        "what is not ours is not given back"
    );
}
