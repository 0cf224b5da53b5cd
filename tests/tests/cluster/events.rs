//! Who is told in a cluster: Events on the Service whose address is in conflict, and the webhook, by one daemon.

use std::time::Duration;

use anyhow::Result;
use probe_tests::{
    Access, Answer, Authority, Daemon, Duplicate, Host, INTERFACE, Kubernetes, Lab, Receiver,
    SHARED_ADDRESS, SocketPlace, eventually, install_metallb, metallb, namespace, node, pool,
    service,
};
use serde_json::{Value, json};

/// A start, a list, a Lease, and a message, on a busy machine.
const SOON: Duration = Duration::from_mins(1);
/// Besides, a Lease that has to run out, and somebody who looks.
const TAKEOVER: Duration = Duration::from_secs(90);

fn event(kubernetes: &Kubernetes, reason: &str) -> Result<Value> {
    eventually(&format!("an Event {reason}"), SOON, || {
        let api = kubernetes.api()?;
        let events = api.get("/apis/events.k8s.io/v1/namespaces/shop/events")?;
        let events = events.success()?;
        let found = events["items"].as_array().into_iter().flatten();
        let mut found = found.filter(|event| event["reason"] == reason);
        Ok(found.next().cloned())
    })
}

fn notification(receiver: &Receiver, kind: &str) -> Result<Value> {
    receiver.wait_for_notification(kind, SOON, |notification| {
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
fn a_conflict_is_told_on_its_service_and_by_the_holders_webhook_and_so_is_its_end() -> Result<()> {
    let lab = Lab::new()?;
    let hosts: Duplicate = lab.three_hosts()?;
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    // Longer than the API server lets an Event say who made it.
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
    let receiver = hosts.client.receiver(&authority, 0, Vec::<Answer>::new())?;
    let files = tempfile::TempDir::new()?;
    let write = |name: &str, text: &str| -> Result<String> {
        let path = files.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let url = write("url", &receiver.url())?;
    let ca = write("ca.pem", &authority.pem())?;
    let socket = SocketPlace::new()?;
    let options = [
        "-i",
        INTERFACE,
        "--attach",
        "tc",
        "--active-probing",
        "auto",
        "--quiet-after=5s",
        "--socket",
        socket.word(),
        "--node-name",
        &name,
        "--webhook-url-file",
        &url,
        "--webhook-ca-file",
        &ca,
    ];
    let daemon = hosts.client.daemon_under(&access.words(), &options)?;
    daemon.wait_until_ready()?;
    daemon.wait_for_metrics("the cluster to be known", SOON, |metrics| {
        let labels = [("service_name", "frontend")];
        let mut series = metrics.select("arp_monitor_tracked_silent", &labels);
        Ok(series.next().is_some())
    })?;

    hosts.ask()?;
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
        &hosts.rival.mac().to_string(),
    ] {
        assert!(note.contains(part), "{part}: {note}");
    }
    let told = notification(&receiver, "conflict")?;
    assert!(
        told["text"].as_str().unwrap().contains("shop/frontend"),
        "{told:#}"
    );

    hosts.remove_rival()?;
    let over = event(&kubernetes, "AddressConflictResolved")?;
    assert_eq!(over["type"], "Normal");
    notification(&receiver, "conflict_resolved")?;
    assert_eq!(refusals(&daemon)?, 0, "{}", daemon.process().said());

    // The roles of the deployment are enough.
    let refused = kubernetes.audit()?.into_iter().filter(|event| {
        event.user == account.user && event.uri.contains("/events") && event.status >= 400
    });
    assert_eq!(refused.count(), 0);
    Ok(())
}

/// A node that tells a webhook of its own.
struct Teller<'a> {
    daemon: Daemon<'a>,
    receiver: Receiver,
    _files: tempfile::TempDir,
    _socket: SocketPlace,
}

impl<'a> Teller<'a> {
    fn start(host: &'a Host, access: &Access, name: &str) -> Result<Self> {
        let authority = Authority::new()?;
        let receiver = host.receiver(&authority, 0, Vec::<Answer>::new())?;
        let files = tempfile::TempDir::new()?;
        let write = |name: &str, text: &str| -> Result<String> {
            let path = files.path().join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let url = write("url", &receiver.url())?;
        let ca = write("ca.pem", &authority.pem())?;
        let socket = SocketPlace::new()?;
        let options = [
            "-i",
            INTERFACE,
            "--attach",
            "tc",
            "--drift-after=2s",
            "--socket",
            socket.word(),
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
            .wait_for_notification(&what, TAKEOVER, |notification| {
                is_of(notification, kind, pool)
            })
    }

    fn was_told(&self, pool: &str) -> bool {
        let notification = self.receiver.notifications().into_iter();
        notification
            .into_iter()
            .any(|notification| is_of(&notification, "drift", pool))
    }
}

fn is_of(notification: &Value, kind: &str, pool: &str) -> bool {
    notification["kind"] == kind && notification["drift"]["pool"]["name"] == pool
}

#[test]
fn the_first_holder_tells_all_there_is_and_the_next_what_is_untold_and_what_ends() -> Result<()> {
    let lab = Lab::new()?;
    let [one, other] = lab.pair("one", "other")?;
    let kubernetes = lab.kubernetes()?;
    let api = kubernetes.api()?;
    install_metallb(&api, true)?;
    // Nothing advertises it, and nobody was there when that began.
    let old = pool("old", &["192.0.2.64/28"]);
    api.create(&old)?;
    let account = kubernetes.deployed_account()?;
    let [of_one, of_other] =
        [&one, &other].map(|host| kubernetes.deploy_to(host, &account).unwrap());

    let one = Teller::start(&one, &of_one, "node-1")?;
    one.wait_for("drift", "old")?;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/arp-monitor/leases/arp-monitor";
    eventually("what was told to be in the Lease", SOON, || {
        let lease = api.get(lease)?.success()?;
        let told = &lease["metadata"]["annotations"]["arp-monitor/told-webhook"];
        Ok(told.as_str().filter(|told| told.len() == 8).map(drop))
    })?;

    let other = Teller::start(&other, &of_other, "node-2")?;
    one.daemon.kill()?;
    // It begins while nobody holds the Lease.
    api.create(&pool("new", &["192.0.2.80/28"]))?;
    other.wait_for("drift", "new")?;
    assert!(
        !other.was_told("old"),
        "it was told: {:#?}",
        other.receiver.notifications()
    );
    api.delete(&old)?;
    other.wait_for("drift_resolved", "old")?;
    Ok(())
}
