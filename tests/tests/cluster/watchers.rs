//! The daemon follows a cluster: a real API server, as it is, away, back, forgetful and lying.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use probe_tests::{
    Access, Account, Daemon, Host, Kubernetes, Lab, Lie, Metrics, SocketPlace, Stream, eventually,
    install_metallb, metallb, namespace, pool, service,
};
use serde_json::{Value, json};

/// A start within 5 s, a list, and what is gathered before it is handed out, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// What is listed anew by a whole fleet is so within 30 s, after a back-off of as much.
const EVENTUALLY: Duration = Duration::from_secs(90);

/// Another holder of the Lease: it runs out, and somebody looks.
const TAKEOVER: Duration = Duration::from_secs(90);

/// A daemon that follows a cluster, and its socket.
struct Follower<'a> {
    daemon: Daemon<'a>,
    socket: SocketPlace,
}

impl<'a> Follower<'a> {
    fn start(host: &'a Host, access: &Access, options: &[&str]) -> Result<Self> {
        let socket = SocketPlace::new()?;
        let usual = [
            "-i",
            "eth0",
            "--attach",
            "native",
            "--socket",
            socket.word(),
        ];
        let options = [&usual[..], options].concat();
        let daemon = host.daemon_under(&access.words(), &options)?;
        daemon.wait_until_ready()?;
        Ok(Self { daemon, socket })
    }

    /// What it knows of the cluster.
    fn cluster(&self) -> Result<Value> {
        let text: String = self.socket.get("/v1/cluster")?.collect();
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// Waits until it knows this of the cluster.
    fn wait_for(
        &self,
        what: &str,
        within: Duration,
        wish: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        eventually(what, within, || {
            let cluster = self.cluster()?;
            Ok(wish(&cluster).then_some(cluster))
        })
        .with_context(|| format!("it knows {:#}", self.cluster().unwrap_or_default()))
    }

    /// Waits until each of these resources is known like this, by its metrics.
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

/// How each resource is known, for a message.
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

/// The addresses of a service, as they are known.
fn addresses<'a>(cluster: &'a Value, name: &str) -> Option<&'a Value> {
    let services = cluster["services"].as_array()?;
    let service = services.iter().find(|service| service["name"] == name)?;
    Some(&service["addresses"])
}

/// Resource and name of each object that cannot be read.
fn broken(cluster: &Value) -> BTreeSet<(String, String)> {
    let objects = cluster["broken"].as_array().into_iter().flatten();
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

/// A cluster with MetalLB, a pool that is advertised, and a service with an address.
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

/// What the deployment's account asked for and was not given, but for what it has to try to know.
fn refusals(kubernetes: &Kubernetes, account: &Account) -> Result<Vec<String>> {
    let events = kubernetes.audit()?;
    let ours = events.iter().filter(|event| event.user == account.user);
    let refused = ours.filter(|event| {
        let is_try = match event.status {
            // Servers before 1.31 or so do not know it.
            400 => event.uri.contains("fieldSelector"),
            // MetalLB is not installed, or the Lease is not made yet.
            404 => event.uri.contains("metallb.io") || event.uri.contains("/leases/"),
            // Another candidate for the Lease was faster.
            409 => event.uri.contains("/leases"),
            status => status < 400,
        };
        !is_try
    });
    Ok(refused.map(|event| format!("{event:?}")).collect())
}

#[test]
fn what_is_in_the_cluster_is_known_as_it_comes_and_goes_with_no_more_rights_than_deployed()
-> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let (kubernetes, account) = cluster(&lab)?;
    let access = kubernetes.deploy_to(&node, &account)?;
    let follower = Follower::start(&node, &access, &[])?;
    let all = [&["services"], &METALLBS[..]].concat();
    follower.wait_for_state("current", &all, SOON)?;
    let known = follower.wait_for("the service", SOON, |cluster| {
        addresses(cluster, "frontend") == Some(&json!(["192.0.2.240"]))
            && pools(cluster) == ["production"]
    })?;
    assert_eq!(known["freshness"]["services"]["known"], "current");
    let metrics = follower.daemon.metrics()?;
    assert_eq!(objects(&metrics, "services"), Some(1.0));
    assert_eq!(objects(&metrics, "ipaddresspools"), Some(1.0));

    // What is no load balancer is nobody's business here.
    let api = kubernetes.api()?;
    let mut inner = service("shop", "inner");
    inner["spec"]["type"] = json!("ClusterIP");
    api.create(&inner)?;
    let (frontend, backend) = (service("shop", "frontend"), service("shop", "backend"));
    api.assign(&frontend, &["192.0.2.241", "2001:db8::1"])?;
    api.create(&backend)?;
    api.create(&pool("spare", &["198.51.100.0/28"]))?;
    let known = follower.wait_for("the changes", SOON, |cluster| {
        addresses(cluster, "frontend") == Some(&json!(["192.0.2.241", "2001:db8::1"]))
            && addresses(cluster, "backend") == Some(&json!([]))
            && pools(cluster).len() == 2
    })?;
    assert_eq!(known["services"].as_array().unwrap().len(), 2, "{known:#}");

    api.delete(&backend)?;
    api.delete(&pool("spare", &[]))?;
    // One that stops being a load balancer is as good as gone.
    api.patch(&frontend, &json!({ "spec": { "type": "ClusterIP" } }))?;
    follower.wait_for("what is gone to be forgotten", SOON, |cluster| {
        cluster["services"] == json!([]) && pools(cluster) == ["production"]
    })?;
    assert_eq!(refusals(&kubernetes, &account)?, [""; 0]);
    assert_eq!(follower.daemon.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn what_is_known_is_kept_while_the_api_server_is_away_and_made_good_when_it_is_back() -> Result<()>
{
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let (mut kubernetes, account) = cluster(&lab)?;
    let access = kubernetes.deploy_to(&node, &account)?;
    let follower = Follower::start(&node, &access, &[])?;
    let all = [&["services"], &METALLBS[..]].concat();
    follower.wait_for_state("current", &all, SOON)?;

    kubernetes.compact()?;
    kubernetes.stop()?;
    let metrics = follower.wait_for_state("stale", &all, SOON)?;
    assert_eq!(objects(&metrics, "services"), Some(1.0));
    let known = follower.wait_for("the word that it is stale", SOON, |cluster| {
        cluster["freshness"]["services"]["known"] == "stale"
    })?;
    assert_eq!(
        addresses(&known, "frontend"),
        Some(&json!(["192.0.2.240"])),
        "{known:#}"
    );
    assert!(known["freshness"]["services"]["error"].is_string());
    let monitoring = follower.daemon.is_ready()?;
    ensure!(monitoring, "it watches frames no less");

    // What came meanwhile is not in any watch: the API server starts with no memory of what changed before.
    kubernetes.start()?;
    let api = kubernetes.api()?;
    api.assign(&service("shop", "frontend"), &["192.0.2.242"])?;
    api.delete(&pool("production", &[]))?;
    follower.wait_for("the changes", EVENTUALLY, |cluster| {
        addresses(cluster, "frontend") == Some(&json!(["192.0.2.242"]))
            && pools(cluster).is_empty()
            && cluster["freshness"]["services"]["known"] == "current"
    })?;
    // An API server that starts refuses everybody for a moment: what it refused says nothing of rights here.
    follower.wait_for_state("current", &all, EVENTUALLY)?;
    Ok(())
}

#[test]
fn a_cluster_without_metallb_is_followed_and_metallb_is_found_when_it_comes() -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let kubernetes = lab.kubernetes()?;
    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&node, &account)?;
    let follower = Follower::start(&node, &access, &[])?;
    follower.wait_for_state("current", &["services"], SOON)?;
    follower.wait_for_state("missing", &METALLBS, SOON)?;

    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    api.create(&pool("production", &["192.0.2.240/28"]))?;
    // That a service has an address from a pool is what gives MetalLB away.
    api.create(&namespace("shop"))?;
    let mut frontend = service("shop", "frontend");
    frontend["metadata"]["annotations"] =
        json!({ "metallb.io/ip-allocated-from-pool": "production" });
    api.create(&frontend)?;
    api.assign(&frontend, &["192.0.2.240"])?;
    follower.wait_for_state("current", &METALLBS, EVENTUALLY)?;
    follower.wait_for("the pool", SOON, |cluster| pools(cluster) == ["production"])?;
    assert_eq!(refusals(&kubernetes, &account)?, [""; 0]);
    Ok(())
}

#[test]
fn objects_that_nobody_can_read_are_named_and_those_beside_them_are_known() -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    // With no schema, the API server takes anything.
    install_metallb(&api, false)?;
    api.create(&pool("good", &["192.0.2.240/28"]))?;
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
    let mut status = metallb("ServiceL2Status", "worst", &json!({}));
    status["status"] = json!({ "node": 7, "serviceName": ["frontend"] });
    api.create(&status)?;
    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&node, &account)?;
    let follower = Follower::start(&node, &access, &[])?;
    follower.wait_for_state("current", &METALLBS, SOON)?;
    // The API server drops a specification of null, so that "nothing" says nothing wrong.
    let expected = [
        ("ipaddresspools", "backwards"),
        ("ipaddresspools", "nested"),
        ("ipaddresspools", "number"),
        ("ipaddresspools", "text"),
        ("ipaddresspools", "words"),
        ("l2advertisements", "text"),
        ("servicel2statuses", "text"),
        ("servicel2statuses", "worst"),
    ]
    .map(|(resource, name)| (resource.to_owned(), format!("metallb-system/{name}")));
    follower.wait_for(
        "the good one, and each of the others by name",
        SOON,
        |cluster| pools(cluster).contains(&"good") && broken(cluster) == expected.clone().into(),
    )?;
    for resource in METALLBS {
        let of_resource = expected.iter().filter(|(of, _)| of == resource).count();
        let labels = [("resource", resource)];
        let what = format!("{of_resource} {resource} to be counted as broken");
        follower.daemon.wait_for_metrics(&what, SOON, |metrics| {
            let number = metrics.count("arp_monitor_kubernetes_invalid_objects", &labels)?;
            Ok(number == of_resource as u64)
        })?;
    }
    assert!(follower.daemon.is_ready()?);
    Ok(())
}

#[test]
fn one_node_speaks_for_the_cluster_and_another_when_that_one_dies() -> Result<()> {
    let lab = Lab::new()?;
    let [one, other] = lab.pair("one", "other")?;
    // Whoever sees none of the cluster's addresses waits for others.
    one.add_address("192.0.2.1/24")?;
    other.add_address("192.0.2.2/24")?;
    let (kubernetes, account) = cluster(&lab)?;
    let api = kubernetes.api()?;
    let [of_one, of_other] =
        [&one, &other].map(|host| kubernetes.deploy_to(host, &account).unwrap());
    let one = Follower::start(&one, &of_one, &["--node-name", "node-1"])?;
    eventually("a holder", SOON, || Ok(one.is_leader()?.then_some(())))?;
    let other = Follower::start(&other, &of_other, &["--node-name", "node-2"])?;
    other.wait_for_state("current", &["services"], SOON)?;
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
    assert!(!other.is_leader()?, "two speak for it");

    one.daemon.kill()?;
    eventually("another holder", TAKEOVER, || {
        Ok(other.is_leader()?.then_some(()))
    })?;
    let second = holder()?;
    assert!(second.contains("node-2"), "{second}");
    assert_eq!(refusals(&kubernetes, &account)?, [""; 0]);
    // One that ends in peace gives it back at once.
    assert_eq!(other.daemon.terminate()?.code(), Some(0));
    assert_eq!(holder()?, "");
    Ok(())
}

#[test]
fn without_rights_it_says_so_and_watches_frames_all_the_same() -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    api.create(&namespace("elsewhere"))?;
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": { "namespace": "elsewhere", "name": "nobody" },
    });
    api.create(&account)?;
    let access = kubernetes.deploy_to(&node, &kubernetes.token_of("elsewhere", "nobody")?)?;
    let follower = Follower::start(&node, &access, &[])?;
    let all = [&["services"], &METALLBS[..]].concat();
    follower.wait_for_state("forbidden", &all, SOON)?;
    follower
        .daemon
        .process()
        .wait_for_line(Stream::Stderr, SOON, |line| line.contains("ClusterRole"))?;
    assert!(follower.daemon.is_ready()?);
    assert_eq!(follower.daemon.terminate()?.code(), Some(0));
    Ok(())
}

/// A daemon is told this by an API server, whatever it asks: it says in its metrics that `outcome` is what came of it,
/// lives, and follows the cluster as soon as the truth is told.
fn holds_out_against(lie: Lie, outcome: &str) -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let liar = node.liar(move |_| lie.clone())?;
    let follower = Follower::start(&node, &liar.access()?, &[])?;
    let labels = [("outcome", outcome)];
    let what = format!("an answer to be {outcome}");
    follower
        .daemon
        .wait_for_metrics(&what, SOON, |metrics| {
            let requests = metrics.count("arp_monitor_kubernetes_requests_total", &labels)?;
            Ok(requests > 0)
        })
        .with_context(|| follower.daemon.process().said())?;
    assert_eq!(follower.cluster()?["services"], json!([]));
    assert!(follower.daemon.is_ready()?);

    liar.set(|path| {
        if path.contains("watch=") {
            return Lie::StaysOpen(String::new());
        }
        let items = if path.starts_with("/api/v1/services") {
            json!([service("shop", "frontend")])
        } else {
            json!([])
        };
        let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1" }, "items": items });
        Lie::Says(200, "application/json", list.to_string())
    });
    follower.wait_for("the truth", EVENTUALLY, |cluster| {
        addresses(cluster, "frontend").is_some()
    })?;
    assert_eq!(follower.daemon.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn html_is_no_answer() -> Result<()> {
    let page = "<html><body>Sign in to continue</body></html>".to_owned();
    holds_out_against(Lie::Says(200, "text/html", page), "garbage")
}

#[test]
fn an_answer_of_another_kind_is_no_answer() -> Result<()> {
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "items": "many" }).to_string();
    holds_out_against(Lie::Says(200, "application/json", pod), "garbage")
}

#[test]
fn half_an_answer_is_no_answer() -> Result<()> {
    let half =
        r#"{"kind":"ServiceList","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"na"#;
    holds_out_against(Lie::BreaksOff(half.to_owned()), "unreachable")
}

#[test]
fn an_answer_without_end_is_given_up_without_filling_the_memory() -> Result<()> {
    let start = r#"{"kind":"ServiceList","metadata":{"resourceVersion":"1"},"items":[{"x":""#;
    holds_out_against(
        Lie::Endless(start.to_owned(), "x".repeat(1 << 16)),
        "garbage",
    )
}

#[test]
fn errors_of_the_server_are_waited_out() -> Result<()> {
    let status = json!({ "kind": "Status", "status": "Failure", "code": 500 }).to_string();
    holds_out_against(Lie::Says(500, "application/json", status), "unavailable")
}

#[test]
fn noise_is_no_answer() -> Result<()> {
    holds_out_against(Lie::Noise, "unreachable")
}

#[test]
fn whose_address_it_is_does_not_matter_to_who_is_told_not_to_ask() -> Result<()> {
    let lab = Lab::new()?;
    let [node, _other] = lab.pair("node", "other")?;
    let liar = node.liar(|_| Lie::Silence)?;
    let follower = Follower::start(&node, &liar.access()?, &["--kubernetes", "off"])?;
    let metrics = follower.daemon.metrics()?;
    assert!(states(&metrics).is_empty());
    follower
        .daemon
        .process()
        .wait_for_line(Stream::Stderr, SOON, |line| {
            line.contains("--kubernetes off")
        })?;
    assert_eq!(follower.daemon.terminate()?.code(), Some(0));
    assert_eq!(liar.requests(), [""; 0]);
    Ok(())
}
