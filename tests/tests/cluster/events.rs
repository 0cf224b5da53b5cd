//! Notifications in a cluster, sent by the leader: Events on the Service whose address is in conflict, and the
//! webhook.

use std::time::Duration;

use anyhow::Result;
use probe_common::wire::MacAddr;
use probe_tests::{
    Access, Authority, Daemon, DaemonSocket, Frame, Host, INTERFACE, Kubernetes, Lab, Receiver,
    ReceiverResponse, SHARED_ADDRESS, ThreeHosts, eventually, install_metallb, metallb, namespace,
    node, pool, service,
};
use serde_json::{Value, json};

/// Timeout for a start, a list, a Lease and a message on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The same, with a Lease that expires first.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(90);

fn event(kubernetes: &Kubernetes, reason: &str) -> Result<Value> {
    event_with(kubernetes, reason, "")
}

/// Waits for an Event whose note contains a text.
fn event_with(kubernetes: &Kubernetes, reason: &str, text: &str) -> Result<Value> {
    eventually(&format!("an Event {reason} {text}"), TIMEOUT, || {
        let api = kubernetes.api()?;
        let events = api.get("/apis/events.k8s.io/v1/namespaces/shop/events")?;
        let events = events.success()?;
        let found = events["items"].as_array().into_iter().flatten();
        let mut found = found.filter(|event| {
            let note = event["note"].as_str().unwrap_or_default();
            event["reason"] == reason && note.contains(text)
        });
        Ok(found.next().cloned())
    })
}

fn notification(receiver: &Receiver, kind: &str) -> Result<Value> {
    receiver.wait_for_notification(kind, TIMEOUT, |notification| {
        notification["kind"] == kind && notification["finding"]["ip"] == SHARED_ADDRESS
    })
}

fn refusals(daemon: &Daemon<'_>) -> Result<u64> {
    let labels = [("channel", "event"), ("result", "refused")];
    daemon
        .metrics()?
        .count("arp_monitor_notifications_total", &labels)
}

#[test]
fn the_leader_sends_a_conflict_and_its_end_as_events_and_to_the_webhook() -> Result<()> {
    let lab = Lab::new()?;
    let hosts: ThreeHosts = lab.three_hosts()?;
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    // Longer than the API server accepts as a reporting instance.
    let name = "client.".repeat(30) + "example.org";
    let mut own = node(&name, "192.0.2.1");
    // No label may be so long.
    own["metadata"]["labels"] = json!({});
    api.create(&own)?;
    api.create(&pool("production", &["192.0.2.10-192.0.2.19"]))?;
    let on_layer_2 = json!({ "ipAddressPools": ["production"] });
    api.create(&metallb("L2Advertisement", "all", &on_layer_2))?;
    api.create(&namespace("shop"))?;
    let frontend = service("shop", "frontend");
    let uid = api.create(&frontend)?["metadata"]["uid"].clone();
    api.assign(&frontend, &[SHARED_ADDRESS])?;
    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&hosts.client, &account)?;

    let authority = probe_tests::Authority::new()?;
    let receiver = hosts
        .client
        .receiver(&authority, 0, Vec::<ReceiverResponse>::new())?;
    let files = tempfile::TempDir::new()?;
    let write = |name: &str, text: &str| -> Result<String> {
        let path = files.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let url = write("url", &receiver.url())?;
    let ca = write("ca.pem", &authority.pem())?;
    let socket = DaemonSocket::new()?;
    let options = [
        "-i",
        INTERFACE,
        "--attach",
        "tc",
        "--active-probing",
        "auto",
        "--quiet-after=5s",
        "--socket",
        socket.argument(),
        "--node-name",
        &name,
        "--webhook-url-file",
        &url,
        "--webhook-ca-file",
        &ca,
    ];
    let daemon = hosts.client.daemon_under(&access.words(), &options)?;
    daemon.wait_until_ready()?;
    daemon.wait_for_metrics("the cluster to be watched", TIMEOUT, |metrics| {
        let labels = [("service_name", "frontend")];
        let mut series = metrics.select("arp_monitor_tracked_silent", &labels);
        Ok(series.next().is_some())
    })?;

    hosts.resolve()?;
    let opened = event(&kubernetes, "AddressConflict")?;
    assert_eq!(opened["type"], "Warning", "{opened:#}");
    assert_eq!(opened["regarding"]["name"], "frontend");
    assert_eq!(opened["regarding"]["uid"], uid);
    assert_eq!(opened["reportingController"], "arp-monitor");
    assert_eq!(opened["reportingInstance"], name[..128]);
    let note = opened["note"].as_str().unwrap();
    for part in [
        SHARED_ADDRESS,
        "shop/frontend",
        "probe ",
        &hosts.server.mac().to_string(),
        &hosts.duplicate.mac().to_string(),
    ] {
        assert!(note.contains(part), "{part}: {note}");
    }
    let sent = notification(&receiver, "conflict")?;
    assert!(
        sent["text"].as_str().unwrap().contains("shop/frontend"),
        "{sent:#}"
    );

    hosts.remove_duplicate()?;
    let over = event(&kubernetes, "AddressConflictResolved")?;
    assert_eq!(over["type"], "Normal");
    notification(&receiver, "conflict_resolved")?;
    assert_eq!(
        refusals(&daemon)?,
        0,
        "{}",
        daemon.process().written_output()
    );

    // The roles of the deployment are sufficient.
    let refused = kubernetes.audit()?.into_iter().filter(|event| {
        event.user == account.user && event.uri.contains("/events") && event.status >= 400
    });
    assert_eq!(refused.count(), 0);
    Ok(())
}

/// An agent with its own webhook.
struct Agent<'a> {
    daemon: Daemon<'a>,
    receiver: Receiver,
    _files: tempfile::TempDir,
    _socket: DaemonSocket,
}

impl<'a> Agent<'a> {
    fn start(host: &'a Host, access: &Access, name: &str) -> Result<Self> {
        let authority = Authority::new()?;
        let receiver = host.receiver(&authority, 0, Vec::<ReceiverResponse>::new())?;
        let files = tempfile::TempDir::new()?;
        let write = |name: &str, text: &str| -> Result<String> {
            let path = files.path().join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let url = write("url", &receiver.url())?;
        let ca = write("ca.pem", &authority.pem())?;
        let socket = DaemonSocket::new()?;
        let options = [
            "-i",
            INTERFACE,
            "--attach",
            "tc",
            "--drift-after=2s",
            "--socket",
            socket.argument(),
            "--node-name",
            name,
            "--webhook-url-file",
            &url,
            "--webhook-ca-file",
            &ca,
        ];
        let daemon = host.daemon_under(&access.words(), &options)?;
        daemon.wait_until_ready()?;
        Ok(Self {
            daemon,
            receiver,
            _files: files,
            _socket: socket,
        })
    }

    fn wait_for(&self, kind: &str, pool: &str) -> Result<Value> {
        let what = format!("{kind} of the pool {pool}");
        self.receiver
            .wait_for_notification(&what, TAKEOVER_TIMEOUT, |notification| {
                notification["kind"] == kind && notification["drift"]["pool"]["name"] == pool
            })
    }

    fn wait_for_leadership(&self) -> Result<()> {
        self.daemon
            .wait_for_metrics("the leader", TAKEOVER_TIMEOUT, |metrics| {
                Ok(metrics.get("arp_monitor_kubernetes_leader", &[]) == Some(1.0))
            })?;
        Ok(())
    }

    /// Waits until the agent knows the service.
    fn wait_for_service(&self, name: &str) -> Result<()> {
        self.daemon
            .wait_for_metrics("the service", TIMEOUT, |metrics| {
                let labels = [("service_name", name)];
                let mut series = metrics.select("arp_monitor_tracked_silent", &labels);
                Ok(series.next().is_some())
            })?;
        Ok(())
    }
}

#[test]
fn a_new_leader_sends_its_open_conflict_and_its_end() -> Result<()> {
    let lab = Lab::new()?;
    let [one, other] = lab.pair("one", "other")?;
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    // The address is not announced, and no agent ran when the conflict started.
    let old = pool("old", &["192.0.2.64/28"]);
    api.create(&old)?;
    let account = kubernetes.deployed_account()?;
    let [of_one, of_other] =
        [&one, &other].map(|host| kubernetes.deploy_to(host, &account).unwrap());

    let one = Agent::start(&one, &of_one, "node-1")?;
    one.wait_for("drift", "old")?;

    let other = Agent::start(&other, &of_other, "node-2")?;
    one.daemon.kill()?;
    // The conflict starts while there is no leader.
    api.create(&pool("new", &["192.0.2.80/28"]))?;
    other.wait_for("drift", "new")?;
    other.wait_for("drift", "old")?;
    api.delete(&old)?;
    other.wait_for("drift_resolved", "old")?;
    Ok(())
}

/// Two hosts reply to one request for an address.
fn duplicate(peer: &Host, ip: &str, owners: [u8; 2]) -> Result<[MacAddr; 2]> {
    let (ip, client): (std::net::Ipv4Addr, _) = (ip.parse()?, MacAddr([2, 0, 0, 0, 0, 0xcc]));
    let source = [192, 0, 2, 99];
    let owners = owners.map(|last| MacAddr([2, 0, 0, 0, 0, last]));
    let sender = peer.sender()?;
    sender.send(&Frame::request(client, source, ip))?;
    for owner in owners {
        sender.send(&Frame::reply(owner, ip, client, source))?;
    }
    Ok(owners)
}

#[test]
fn after_a_restart_a_conflict_between_other_owners_is_sent_and_written_as_an_event() -> Result<()> {
    let lab = Lab::new()?;
    let [host, peer] = lab.pair("node", "peer")?;
    host.add_address("192.0.2.1/24")?;
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    api.create(&pool("production", &["192.0.2.10-192.0.2.19"]))?;
    let on_layer_2 = json!({ "ipAddressPools": ["production"] });
    api.create(&metallb("L2Advertisement", "all", &on_layer_2))?;
    api.create(&namespace("shop"))?;
    let frontend = service("shop", "frontend");
    api.create(&frontend)?;
    api.assign(&frontend, &[SHARED_ADDRESS])?;
    let account = kubernetes.deployed_account()?;
    let access = kubernetes.deploy_to(&host, &account)?;

    // Each agent stops before it sees the end of the conflict.
    for owners in [[0xaa, 0xbb], [0xdd, 0xee]] {
        let agent = Agent::start(&host, &access, "node-1")?;
        agent.wait_for_leadership()?;
        agent.wait_for_service("frontend")?;
        for owner in duplicate(&peer, SHARED_ADDRESS, owners)? {
            let owner = owner.to_string();
            let what = format!("the conflict with {owner}");
            agent
                .receiver
                .wait_for_notification(&what, TIMEOUT, |notification| {
                    let owners = notification["finding"]["owners"].to_string();
                    notification["kind"] == "conflict" && owners.contains(&owner)
                })?;
            event_with(&kubernetes, "AddressConflict", &owner)?;
        }
        agent.daemon.terminate()?;
    }
    Ok(())
}
