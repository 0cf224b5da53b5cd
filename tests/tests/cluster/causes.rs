//! Causes of conflicts on service addresses: a real API server, and simulated nodes and other hosts.
//!
//! All causes share one cluster and one network, with one address per cause, so that they occur at the same time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use probe_tests::{
    Daemon, DaemonSocket, Host, Kubernetes, Lab, MetalLbSpeaker, Switch, eventually,
    install_metallb, l2_status, metallb, namespace, node, pool, service,
};
use serde_json::{Value, json};

/// Timeout for the first watch.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout for probes, replies, and a node list that is at most a minute old.
const LONG_TIMEOUT: Duration = Duration::from_secs(90);

/// The last bytes of the addresses in 192.0.2.0/24, by their cause.
const SPLIT_BRAIN: u8 = 225;
const STALE_SPEAKER: u8 = 226;
const EXTERNAL_DEVICE: u8 = 227;
const OTHER_CLUSTER: u8 = 228;
const SHARED_WITHOUT_KEY: u8 = 229;
const NODE_ADDRESS: u8 = 230;
const IPVS: u8 = 231;
const SEVERAL_INSTALLS: u8 = 232;
const ARP_FLUX: u8 = 233;
/// The expected node has the address and was not observed announcing it.
const STALE_STATUS: u8 = 234;
/// kube-vip has a Lease for it, with a MAC of its own.
const LEASED: u8 = 235;
/// It is announced through an interface that belongs to no known node, and the expected node is not among the known
/// owners.
const OTHER_CARD: u8 = 223;

fn ip(last: u8) -> String {
    format!("192.0.2.{last}")
}

/// A cluster whose services have the addresses, and its nodes on the network.
struct Environment {
    kubernetes: Kubernetes,
    watcher: Host,
    nodes: Vec<Host>,
    device: Host,
    unknown_host: Host,
    _switch: Switch,
}

impl Environment {
    fn new(lab: &Lab) -> Result<Self> {
        let switch = lab.hub()?;
        let host = |name: &str, last: u8| -> Result<Host> {
            let host = switch.host(name)?;
            host.add_address(&format!("{}/24", ip(last)))?;
            Ok(host)
        };
        let kubernetes = lab.kubernetes()?;
        let api = kubernetes.api()?;
        install_metallb(&api, true)?;
        api.create(&pool("production", &["192.0.2.224/27"]))?;
        let advertised = json!({ "ipAddressPools": ["production"] });
        api.create(&metallb("L2Advertisement", "all", &advertised))?;
        api.create(&pool("storage", &["192.0.2.223/32"]))?;
        let advertised = json!({ "ipAddressPools": ["storage"], "interfaces": ["storage0"] });
        api.create(&metallb("L2Advertisement", "storage", &advertised))?;
        let mut nodes = Vec::new();
        for (name, last) in [
            ("node-1", 11),
            ("node-2", 12),
            ("node-3", 13),
            ("node-4", 14),
        ] {
            nodes.push(host(name, last)?);
            let mut object = node(name, &ip(last));
            if name == "node-4" {
                let addresses = object["status"]["addresses"].as_array_mut().unwrap();
                addresses.push(json!({ "type": "InternalIP", "address": ip(24) }));
            }
            api.create(&object)?;
            api.patch_status(&object, &object["status"])?;
        }
        // Two interfaces on one network with the kernel's defaults: each replies for the addresses of both.
        for words in [
            "link add link eth0 name eth1 type macvlan mode bridge",
            "address add 192.0.2.24/24 dev eth1",
            "link set eth1 up",
        ] {
            nodes[3].ip(words.split(' '))?;
        }
        let [device, unknown_host, watcher] =
            [("device", 50), ("unknown", 51), ("watcher", 1)].map(|(name, last)| host(name, last));
        api.create(&namespace("shop"))?;
        api.create(&namespace("other-metallb"))?;
        Ok(Self {
            kubernetes,
            watcher: watcher?,
            nodes,
            device: device?,
            unknown_host: unknown_host?,
            _switch: switch,
        })
    }

    /// Creates a service with an address.
    fn service(&self, name: &str, last: u8) -> Result<Value> {
        let api = self.kubernetes.api()?;
        let object = service("shop", name);
        api.create(&object)?;
        api.assign(&object, &[&ip(last)])?;
        Ok(object)
    }

    /// Creates the services and the MetalLB status of two of them.
    fn assign(&self) -> Result<()> {
        let api = self.kubernetes.api()?;
        self.service("split", SPLIT_BRAIN)?;
        let stale = self.service("stale", STALE_SPEAKER)?;
        api.create(&l2_status("l2-stale", "node-1", &stale))?;
        self.service("taken", EXTERNAL_DEVICE)?;
        self.service("disputed", OTHER_CLUSTER)?;
        self.service("shared-a", SHARED_WITHOUT_KEY)?;
        self.service("shared-b", SHARED_WITHOUT_KEY)?;
        self.service("configured", NODE_ADDRESS)?;
        self.service("ipvs", IPVS)?;
        let twice = self.service("twice", SEVERAL_INSTALLS)?;
        api.create(&l2_status("l2-twice", "node-1", &twice))?;
        let mut other = l2_status("l2-twice", "node-2", &twice);
        other["metadata"]["namespace"] = json!("other-metallb");
        api.create(&other)?;
        self.service("flux", ARP_FLUX)?;
        let unobserved = self.service("unobserved", STALE_STATUS)?;
        api.create(&l2_status("l2-unobserved", "node-2", &unobserved))?;
        let mut leased = service("shop", "leased");
        leased["metadata"]["annotations"] = json!({
            "kube-vip.io/vipHost": "node-2",
            "kube-vip.io/hwaddr": self.device.mac().to_string(),
        });
        api.create(&leased)?;
        api.assign(&leased, &[&ip(LEASED)])?;
        let other_card = self.service("other-card", OTHER_CARD)?;
        api.create(&l2_status("l2-other-card", "node-3", &other_card))?;
        Ok(())
    }

    /// Makes every host announce its own addresses.
    fn announce_hosts(&self) -> Result<()> {
        for host in self.nodes.iter().chain([&self.device, &self.unknown_host]) {
            host.run(["ping", "-c1", "-W1", "192.0.2.1"])?;
        }
        self.nodes[3].run(["ping", "-c1", "-W1", "-I", "eth1", "192.0.2.1"])?;
        Ok(())
    }
}

fn announce(host: &Host, last: u8) -> Result<MetalLbSpeaker> {
    let mut speaker = MetalLbSpeaker::start(host, [192, 0, 2, last])?;
    speaker.announce()?;
    Ok(speaker)
}

fn start<'a>(
    watcher: &'a Host,
    kubernetes: &Kubernetes,
    socket: &DaemonSocket,
) -> Result<Daemon<'a>> {
    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(watcher, &account)?;
    let options = [
        "-i",
        "eth0",
        "--attach",
        "native",
        "--active-probing",
        "auto",
    ];
    let options = [&options[..], &["--socket", socket.argument()]].concat();
    let daemon = watcher.daemon_under(&access.words(), &options)?;
    daemon.wait_until_ready()?;
    daemon.wait_for_metrics("the service statuses to be watched", TIMEOUT, |metrics| {
        let labels = [("resource", "servicel2statuses")];
        Ok(metrics.get("arp_monitor_kubernetes_objects", &labels) > Some(0.0))
    })?;
    Ok(daemon)
}

/// The open conflict of an address, with its annotations from the cluster.
fn conflict(socket: &DaemonSocket, last: u8) -> Result<Option<Value>> {
    let ip = ip(last);
    let conflicts = socket.records("/v1/conflicts")?;
    Ok(conflicts
        .into_iter()
        .find(|conflict| conflict["ip"] == ip.as_str()))
}

/// Waits until the conflict of an address names its services, its owners and the evidence for its cause.
fn wait_for_annotated_conflict(environment: &Environment, socket: &DaemonSocket) -> Result<()> {
    let wait_for = |what: &str, last: u8, wanted: &dyn Fn(&Value) -> bool| {
        eventually(what, LONG_TIMEOUT, || {
            Ok(conflict(socket, last)?.filter(|conflict| wanted(conflict)))
        })
        .with_context(|| {
            format!(
                "{:#}",
                conflict(socket, last).ok().flatten().unwrap_or_default()
            )
        })
    };
    let evidence = |conflict: &Value| conflict["cluster"]["cause"]["evidence"].to_string();
    let device = environment.device.mac().to_string();
    wait_for("an external device", EXTERNAL_DEVICE, &|conflict| {
        let context = &conflict["cluster"];
        context["services"] == json!([{ "namespace": "shop", "name": "taken" }])
            && context["pool"]["name"] == "production"
            && evidence(conflict).contains(&device)
            // The conflict started after the address was assigned; the API server provides the time.
            && evidence(conflict).contains("after shop/taken got its addresses")
            && conflict["owners"].to_string().contains("node-1")
    })?;
    // The MAC address of the Lease is that of the node that kube-vip names.
    wait_for("the node of a lease", LEASED, &|conflict| {
        conflict["owners"].to_string().contains("node-2")
    })?;
    // An unknown MAC may belong to the missing node.
    let sentence = format!("{device} may be that node, through another interface");
    wait_for("another network card", OTHER_CARD, &|conflict| {
        evidence(conflict).contains(&sentence)
    })?;
    Ok(())
}

#[test]
fn each_cause_is_found_from_frames_and_cluster_objects() -> Result<()> {
    let lab = Lab::new()?;
    let environment = Environment::new(&lab)?;
    let [one, two, three, four] = &environment.nodes[..] else {
        unreachable!()
    };
    environment.assign()?;

    let socket = DaemonSocket::new()?;
    let daemon = start(&environment.watcher, &environment.kubernetes, &socket)?;
    environment.announce_hosts()?;
    let mut speakers = Vec::new();
    for (host, last) in [
        (one, SPLIT_BRAIN),
        (two, SPLIT_BRAIN),
        (one, STALE_SPEAKER),
        (two, STALE_SPEAKER),
        (one, EXTERNAL_DEVICE),
        (one, OTHER_CLUSTER),
        (&environment.unknown_host, OTHER_CLUSTER),
        (one, SHARED_WITHOUT_KEY),
        (two, SHARED_WITHOUT_KEY),
        (one, NODE_ADDRESS),
        (one, SEVERAL_INSTALLS),
        (two, SEVERAL_INSTALLS),
        (one, STALE_STATUS),
        (one, LEASED),
        (&environment.device, LEASED),
        (one, OTHER_CARD),
    ] {
        speakers.push(announce(host, last)?);
    }
    for (host, last) in [
        (&environment.device, EXTERNAL_DEVICE),
        (two, NODE_ADDRESS),
        (one, IPVS),
        (two, IPVS),
        (three, IPVS),
        (four, ARP_FLUX),
        (two, STALE_STATUS),
        (&environment.device, OTHER_CARD),
    ] {
        host.add_address(&format!("{}/24", ip(last)))?;
    }
    // Hosts announce a new address: without the announcement, the daemon could assume a speaker from before its
    // start.
    two.run(["arping", "-U", "-c3", "-I", "eth0", &ip(NODE_ADDRESS)])?;
    for speaker in &mut speakers {
        speaker.wait_for_burst()?;
    }
    for (last, cause, scope) in [
        (SPLIT_BRAIN, "split_brain", "internal"),
        (STALE_SPEAKER, "stale_speaker", "internal"),
        (EXTERNAL_DEVICE, "external_device", "external"),
        (OTHER_CLUSTER, "other_cluster", "cross_cluster"),
        (SHARED_WITHOUT_KEY, "shared_without_key", "internal"),
        (NODE_ADDRESS, "node_address", "internal"),
        (IPVS, "ipvs_strict_arp", "internal"),
        (SEVERAL_INSTALLS, "multiple_installations", "internal"),
        (ARP_FLUX, "arp_flux", "internal"),
        (STALE_STATUS, "stale_speaker", "internal"),
        (LEASED, "stale_speaker", "internal"),
        (OTHER_CARD, "unknown", "unknown"),
    ] {
        let mut round = 0_u32;
        eventually(&format!("{cause} on .{last}"), LONG_TIMEOUT, || {
            if round.is_multiple_of(200) {
                // A client resolves the address.
                environment.watcher.resolve(&ip(last))?;
            }
            round += 1;
            let conflict = conflict(&socket, last)?;
            Ok(conflict.filter(|conflict| {
                let found = &conflict["cluster"]["cause"];
                found["kind"] == cause && found["scope"] == scope
            }))
        })
        .with_context(|| {
            format!(
                "{:#}",
                conflict(&socket, last).ok().flatten().unwrap_or_default()
            )
        })?;
    }
    wait_for_annotated_conflict(&environment, &socket)?;
    // The notification has the same words.
    daemon
        .process()
        .wait_for_line(probe_tests::Stream::Stdout, TIMEOUT, |line| {
            line.contains(&ip(SPLIT_BRAIN))
                && line.contains("\"services\"")
                && line.contains("\"cause\"")
        })?;
    Ok(())
}
