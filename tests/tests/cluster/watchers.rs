//! The daemon watches a cluster through an API server that is available, unreachable, restarted without history, or
//! faulty.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use probe_tests::{
    Access, Account, Daemon, DaemonSocket, Fault, Host, Kubernetes, Lab, Metrics, Stream,
    eventually, install_metallb, metallb, namespace, pool, service,
};
use serde_json::{Value, json};

/// Timeout for a start within 5 s, a list and the debounce of changes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout for a new list: up to 30 s of jitter after a back-off of the same length.
const RELIST_TIMEOUT: Duration = Duration::from_secs(90);

/// Timeout for a Lease that expires and is acquired by another holder.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(90);

/// A daemon that watches a cluster, and its socket.
struct ClusterWatcher<'a> {
    daemon: Daemon<'a>,
    socket: DaemonSocket,
}

impl<'a> ClusterWatcher<'a> {
    fn start(host: &'a Host, access: &Access, options: &[&str]) -> Result<Self> {
        let socket = DaemonSocket::new()?;
        let usual = [
            "-i",
            "eth0",
            "--attach",
            "native",
            "--socket",
            socket.argument(),
        ];
        let options = [&usual[..], options].concat();
        let daemon = host.daemon_under(&access.words(), &options)?;
        daemon.wait_until_ready()?;
        Ok(Self { daemon, socket })
    }

    /// The daemon's view of the cluster.
    fn cluster(&self) -> Result<Value> {
        let text: String = self.socket.get("/v1/cluster")?.collect();
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// Waits until the daemon's view of the cluster meets a condition.
    fn wait_for(
        &self,
        what: &str,
        within: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        eventually(what, within, || {
            let cluster = self.cluster()?;
            Ok(condition(&cluster).then_some(cluster))
        })
        .with_context(|| {
            format!(
                "the cluster as the daemon knows it: {:#}",
                self.cluster().unwrap_or_default()
            )
        })
    }

    /// Waits until each of these resources has this state in the metrics.
    fn wait_for_state(&self, state: &str, resources: &[&str], within: Duration) -> Result<Metrics> {
        let what = format!("{resources:?} to be {state}");
        self.daemon
            .wait_for_metrics(&what, within, |metrics| {
                Ok(resources
                    .iter()
                    .all(|resource| is(metrics, resource, state)))
            })
            .with_context(|| states(&self.daemon.metrics().unwrap_or_default()))
    }

    fn is_leader(&self) -> Result<bool> {
        Ok(self
            .daemon
            .metrics()?
            .get("arp_monitor_kubernetes_leader", &[])
            == Some(1.0))
    }
}

const METALLBS: [&str; 4] = [
    "ipaddresspools",
    "l2advertisements",
    "bgpadvertisements",
    "servicel2statuses",
];

fn is(metrics: &Metrics, resource: &str, state: &str) -> bool {
    let labels = [("resource", resource), ("state", state)];
    metrics.get("arp_monitor_kubernetes_resource_state", &labels) == Some(1.0)
}

/// The state of each resource, for error messages.
fn states(metrics: &Metrics) -> String {
    let states: Vec<_> = metrics
        .select("arp_monitor_kubernetes_resource_state", &[])
        .filter(|sample| sample.value > 0.0)
        .map(|sample| {
            let labels = &sample.labels;
            format!("{} is {}", labels["resource"], labels["state"])
        })
        .collect();
    states.join("\n")
}

fn objects(metrics: &Metrics, resource: &str) -> Option<f64> {
    metrics.get("arp_monitor_kubernetes_objects", &[("resource", resource)])
}

/// The known addresses of a service.
fn addresses<'a>(cluster: &'a Value, name: &str) -> Option<&'a Value> {
    let services = cluster["services"].as_array()?;
    let service = services.iter().find(|service| service["name"] == name)?;
    Some(&service["addresses"])
}

/// Resource and name of each invalid object.
fn invalid_objects(cluster: &Value) -> BTreeSet<(String, String)> {
    let objects = cluster["invalid"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    objects
        .map(|object| (text(&object["resource"]), text(&object["object"])))
        .collect()
}

fn pools(cluster: &Value) -> Vec<&str> {
    let objects = cluster["metallb"].as_array().into_iter().flatten();
    objects
        .filter(|object| object["kind"] == "IPAddressPool")
        .filter_map(|object| object["metadata"]["name"].as_str())
        .collect()
}

/// A cluster with MetalLB, an advertised pool, and a service with an address.
fn cluster(lab: &Lab) -> Result<(Kubernetes, Account)> {
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    api.create(&pool("production", &["192.0.2.240/28"]))?;
    let advertised = json!({ "ipAddressPools": ["production"] });
    api.create(&metallb("L2Advertisement", "all", &advertised))?;
    api.create(&namespace("shop"))?;
    let frontend = service("shop", "frontend");
    api.create(&frontend)?;
    api.assign(&frontend, &["192.0.2.240"])?;
    let account = kubernetes.deployed_account()?;
    Ok((kubernetes, account))
}

/// The denied requests of the deployment's account, except those that are expected to fail.
fn refusals(kubernetes: &Kubernetes, account: &Account) -> Result<Vec<String>> {
    let events = kubernetes.audit()?;
    let ours = events.iter().filter(|event| event.user == account.user);
    let refused = ours.filter(|event| {
        let is_try = match event.status {
            // API servers before about 1.31 do not know the parameter.
            400 => event.uri.contains("fieldSelector"),
            // MetalLB is not installed, or the Lease does not exist yet.
            404 => event.uri.contains("metallb.io") || event.uri.contains("/leases/"),
            // Another candidate acquired the Lease first.
            409 => event.uri.contains("/leases"),
            status => status < 400,
        };
        !is_try
    });
    Ok(refused.map(|event| format!("{event:?}")).collect())
}

#[test]
fn objects_of_the_cluster_are_watched_with_the_rights_of_the_deployment() -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let (kubernetes, account) = cluster(&lab)?;
    let access = kubernetes.deploy_to(&node, &account)?;
    let watcher = ClusterWatcher::start(&node, &access, &[])?;
    let all = [&["services"], &METALLBS[..]].concat();
    watcher.wait_for_state("current", &all, TIMEOUT)?;
    let known = watcher.wait_for("the service", TIMEOUT, |cluster| {
        addresses(cluster, "frontend") == Some(&json!(["192.0.2.240"]))
            && pools(cluster) == ["production"]
    })?;
    assert_eq!(known["freshness"]["services"]["state"], "current");
    let what = "one service and one pool to be counted";
    watcher.daemon.wait_for_metrics(what, TIMEOUT, |metrics| {
        Ok(objects(metrics, "services") == Some(1.0)
            && objects(metrics, "ipaddresspools") == Some(1.0))
    })?;

    // Services of other types are ignored.
    let api = kubernetes.api()?;
    let mut inner = service("shop", "inner");
    inner["spec"]["type"] = json!("ClusterIP");
    api.create(&inner)?;
    let (frontend, backend) = (service("shop", "frontend"), service("shop", "backend"));
    api.assign(&frontend, &["192.0.2.241", "2001:db8::1"])?;
    api.create(&backend)?;
    api.create(&pool("spare", &["198.51.100.0/28"]))?;
    let known = watcher.wait_for("the changes", TIMEOUT, |cluster| {
        addresses(cluster, "frontend") == Some(&json!(["192.0.2.241", "2001:db8::1"]))
            && addresses(cluster, "backend") == Some(&json!([]))
            && pools(cluster).len() == 2
    })?;
    assert_eq!(known["services"].as_array().unwrap().len(), 2, "{known:#}");

    api.delete(&backend)?;
    api.delete(&pool("spare", &[]))?;
    // A service that is no longer of type LoadBalancer is treated like a deleted one.
    api.patch(&frontend, &json!({ "spec": { "type": "ClusterIP" } }))?;
    watcher.wait_for("the deleted objects to be removed", TIMEOUT, |cluster| {
        cluster["services"] == json!([]) && pools(cluster) == ["production"]
    })?;
    assert_eq!(refusals(&kubernetes, &account)?, [""; 0]);
    assert_eq!(watcher.daemon.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn the_last_state_is_kept_while_the_api_server_is_unreachable_and_updated_afterwards() -> Result<()>
{
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let (mut kubernetes, account) = cluster(&lab)?;
    let access = kubernetes.deploy_to(&node, &account)?;
    let watcher = ClusterWatcher::start(&node, &access, &[])?;
    let all = [&["services"], &METALLBS[..]].concat();
    watcher.wait_for_state("current", &all, TIMEOUT)?;

    kubernetes.compact()?;
    kubernetes.stop()?;
    let metrics = watcher.wait_for_state("stale", &all, TIMEOUT)?;
    assert_eq!(objects(&metrics, "services"), Some(1.0));
    let known = watcher.wait_for("the stale state", TIMEOUT, |cluster| {
        cluster["freshness"]["services"]["state"] == "stale"
    })?;
    assert_eq!(
        addresses(&known, "frontend"),
        Some(&json!(["192.0.2.240"])),
        "{known:#}"
    );
    assert!(known["freshness"]["services"]["error"].is_string());
    let monitoring = watcher.daemon.is_ready()?;
    ensure!(monitoring, "the daemon still monitors frames");

    // The API server starts without history, so no watch contains the changes made meanwhile.
    kubernetes.start()?;
    let api = kubernetes.api()?;
    api.assign(&service("shop", "frontend"), &["192.0.2.242"])?;
    api.delete(&pool("production", &[]))?;
    watcher.wait_for("the changes", RELIST_TIMEOUT, |cluster| {
        addresses(cluster, "frontend") == Some(&json!(["192.0.2.242"]))
            && pools(cluster).is_empty()
            && cluster["freshness"]["services"]["state"] == "current"
    })?;
    // A starting API server denies every request for a moment, which says nothing about the rights.
    watcher.wait_for_state("current", &all, RELIST_TIMEOUT)?;
    Ok(())
}

#[test]
fn metallb_is_found_when_it_is_installed_later() -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let kubernetes = lab.kubernetes()?;
    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&node, &account)?;
    let watcher = ClusterWatcher::start(&node, &access, &[])?;
    watcher.wait_for_state("current", &["services"], TIMEOUT)?;
    watcher.wait_for_state("missing", &METALLBS, TIMEOUT)?;

    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    api.create(&pool("production", &["192.0.2.240/28"]))?;
    // An address from a pool shows that MetalLB is in use.
    api.create(&namespace("shop"))?;
    let mut frontend = service("shop", "frontend");
    frontend["metadata"]["annotations"] =
        json!({ "metallb.io/ip-allocated-from-pool": "production" });
    api.create(&frontend)?;
    api.assign(&frontend, &["192.0.2.240"])?;
    watcher.wait_for_state("current", &METALLBS, RELIST_TIMEOUT)?;
    watcher.wait_for("the pool", TIMEOUT, |cluster| {
        pools(cluster) == ["production"]
    })?;
    assert_eq!(refusals(&kubernetes, &account)?, [""; 0]);
    Ok(())
}

#[test]
fn invalid_objects_are_named_and_the_others_are_used() -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    // Without a schema, the API server accepts any object.
    install_metallb(&api, false)?;
    api.create(&pool("valid", &["192.0.2.240/28"]))?;
    for (name, spec) in [
        ("number", json!({ "addresses": 7 })),
        ("nested", json!({ "addresses": [["192.0.2.1"], {}, null] })),
        ("text", json!("192.0.2.0/24")),
        ("nothing", json!(null)),
        ("backwards", json!({ "addresses": ["192.0.2.9-192.0.2.1"] })),
        (
            "words",
            json!({ "addresses": ["here and there", "192.0.2.0/64"] }),
        ),
    ] {
        api.create(&metallb("IPAddressPool", name, &spec))?;
        api.create(&metallb("L2Advertisement", name, &spec))?;
        let mut status = metallb("ServiceL2Status", name, &spec);
        status["status"] = spec;
        api.create(&status)?;
    }
    let mut status = metallb("ServiceL2Status", "wrong-types", &json!({}));
    status["status"] = json!({ "node": 7, "serviceName": ["frontend"] });
    api.create(&status)?;
    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&node, &account)?;
    let watcher = ClusterWatcher::start(&node, &access, &[])?;
    watcher.wait_for_state("current", &METALLBS, TIMEOUT)?;
    // The API server drops a null specification, so that such an object is valid.
    let expected = [
        ("ipaddresspools", "backwards"),
        ("ipaddresspools", "nested"),
        ("ipaddresspools", "number"),
        ("ipaddresspools", "text"),
        ("ipaddresspools", "words"),
        ("l2advertisements", "text"),
        ("servicel2statuses", "text"),
        ("servicel2statuses", "wrong-types"),
    ]
    .map(|(resource, name)| (resource.to_owned(), format!("metallb-system/{name}")));
    watcher.wait_for(
        "the valid pool, and each invalid object by name",
        TIMEOUT,
        |cluster| {
            pools(cluster).contains(&"valid") && invalid_objects(cluster) == expected.clone().into()
        },
    )?;
    for resource in METALLBS {
        let of_resource = expected.iter().filter(|(of, _)| of == resource).count();
        let labels = [("resource", resource)];
        let what = format!("{of_resource} {resource} to be counted as invalid");
        watcher.daemon.wait_for_metrics(&what, TIMEOUT, |metrics| {
            let number = metrics.count("arp_monitor_kubernetes_invalid_objects", &labels)?;
            Ok(number == of_resource as u64)
        })?;
    }
    assert!(watcher.daemon.is_ready()?);
    Ok(())
}

#[test]
fn one_node_is_the_leader_and_another_takes_over_when_it_dies() -> Result<()> {
    let lab = Lab::new()?;
    let [one, other] = lab.pair("one", "other")?;
    // An agent that sees no addresses of the cluster waits for other candidates.
    one.add_address("192.0.2.1/24")?;
    other.add_address("192.0.2.2/24")?;
    let (kubernetes, account) = cluster(&lab)?;
    let api = kubernetes.api()?;
    let [of_one, of_other] =
        [&one, &other].map(|host| kubernetes.deploy_to(host, &account).unwrap());
    let one = ClusterWatcher::start(&one, &of_one, &["--node-name", "node-1"])?;
    eventually("a holder of the Lease", TIMEOUT, || {
        Ok(one.is_leader()?.then_some(()))
    })?;
    let other = ClusterWatcher::start(&other, &of_other, &["--node-name", "node-2"])?;
    other.wait_for_state("current", &["services"], TIMEOUT)?;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/arp-monitor/leases/arp-monitor";
    let holder = || -> Result<String> {
        let lease = api.get(leases)?.success()?;
        Ok(lease["spec"]["holderIdentity"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    };
    let first = holder()?;
    assert!(first.contains("node-1"), "{first}");
    assert!(!other.is_leader()?, "two leaders");

    one.daemon.kill()?;
    eventually("another holder of the Lease", TAKEOVER_TIMEOUT, || {
        Ok(other.is_leader()?.then_some(()))
    })?;
    let second = holder()?;
    assert!(second.contains("node-2"), "{second}");
    assert_eq!(refusals(&kubernetes, &account)?, [""; 0]);
    // An orderly shutdown releases the Lease at once.
    assert_eq!(other.daemon.terminate()?.code(), Some(0));
    assert_eq!(holder()?, "");
    Ok(())
}

#[test]
fn without_rights_the_daemon_reports_it_and_still_monitors_frames() -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    api.create(&namespace("elsewhere"))?;
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": { "namespace": "elsewhere", "name": "unprivileged" },
    });
    api.create(&account)?;
    let access = kubernetes.deploy_to(&node, &kubernetes.token_of("elsewhere", "unprivileged")?)?;
    let watcher = ClusterWatcher::start(&node, &access, &[])?;
    let all = [&["services"], &METALLBS[..]].concat();
    watcher.wait_for_state("forbidden", &all, TIMEOUT)?;
    watcher
        .daemon
        .process()
        .wait_for_line(Stream::Stderr, TIMEOUT, |line| line.contains("ClusterRole"))?;
    assert!(watcher.daemon.is_ready()?);
    assert_eq!(watcher.daemon.terminate()?.code(), Some(0));
    Ok(())
}

/// With this fault on every request, the daemon reports `outcome` in its metrics, stays alive, and watches the
/// cluster as soon as the server works.
fn survives(fault: Fault, outcome: &str) -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let faulty_server = node.faulty_server(move |_| fault.clone())?;
    let watcher = ClusterWatcher::start(&node, &faulty_server.access()?, &[])?;
    let labels = [("outcome", outcome)];
    let what = format!("the outcome {outcome}");
    watcher
        .daemon
        .wait_for_metrics(&what, TIMEOUT, |metrics| {
            let requests = metrics.count("arp_monitor_kubernetes_requests_total", &labels)?;
            Ok(requests > 0)
        })
        .with_context(|| watcher.daemon.process().written_output())?;
    assert_eq!(watcher.cluster()?["services"], json!([]));
    assert!(watcher.daemon.is_ready()?);

    faulty_server.set(|path| {
        if path.contains("watch=") {
            return Fault::HeldOpen(String::new());
        }
        let items = if path.starts_with("/api/v1/services") {
            json!([service("shop", "frontend")])
        } else {
            json!([])
        };
        let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1" }, "items": items });
        Fault::Response(200, "application/json", list.to_string())
    });
    watcher.wait_for("the frontend service", RELIST_TIMEOUT, |cluster| {
        addresses(cluster, "frontend").is_some()
    })?;
    assert_eq!(watcher.daemon.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn an_html_response_is_an_error() -> Result<()> {
    let page = "<html><body>Sign in to continue</body></html>".to_owned();
    survives(Fault::Response(200, "text/html", page), "garbage")
}

#[test]
fn a_response_of_another_kind_is_an_error() -> Result<()> {
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "items": "many" }).to_string();
    survives(Fault::Response(200, "application/json", pod), "garbage")
}

#[test]
fn a_truncated_response_is_an_error() -> Result<()> {
    let half =
        r#"{"kind":"ServiceList","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"na"#;
    survives(Fault::TruncatedBody(half.to_owned()), "unreachable")
}

#[test]
fn an_endless_response_is_aborted_with_bounded_memory() -> Result<()> {
    let start = r#"{"kind":"ServiceList","metadata":{"resourceVersion":"1"},"items":[{"x":""#;
    survives(
        Fault::EndlessBody(start.to_owned(), "x".repeat(1 << 16)),
        "garbage",
    )
}

#[test]
fn the_daemon_retries_after_server_errors() -> Result<()> {
    let status = json!({ "kind": "Status", "status": "Failure", "code": 500 }).to_string();
    survives(
        Fault::Response(500, "application/json", status),
        "unavailable",
    )
}

#[test]
fn a_response_that_is_not_http_is_an_error() -> Result<()> {
    survives(Fault::NotHttp, "unreachable")
}

#[test]
fn with_kubernetes_off_no_request_is_sent() -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let faulty_server = node.faulty_server(|_| Fault::NoResponse)?;
    let watcher = ClusterWatcher::start(&node, &faulty_server.access()?, &["--kubernetes", "off"])?;
    let metrics = watcher.daemon.metrics()?;
    assert!(states(&metrics).is_empty());
    watcher
        .daemon
        .process()
        .wait_for_line(Stream::Stderr, TIMEOUT, |line| {
            line.contains("--kubernetes off")
        })?;
    assert_eq!(watcher.daemon.terminate()?.code(), Some(0));
    assert_eq!(faulty_server.requests(), [""; 0]);
    Ok(())
}
