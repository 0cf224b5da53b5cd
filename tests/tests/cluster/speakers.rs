//! MetalLB's speakers in trouble: all of them down, and two leaders that delete each other's status.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use probe_tests::{
    Daemon, DaemonSocket, Host, Kubernetes, Lab, MetalLbSpeaker, Switch, eventually,
    install_metallb, l2_status, metallb, namespace, node, pool, service,
};
use serde_json::{Value, json};

/// Lists, leader election, ARP probes without a reply, and the grace period of drift.
const TIMEOUT: Duration = Duration::from_mins(2);
const IP: &str = "192.0.2.240";

/// A cluster with two nodes and a service, and a host that runs the daemon.
struct Cluster {
    kubernetes: Kubernetes,
    nodes: Vec<Host>,
    client: Host,
    watcher: Host,
    service: Value,
    _switch: Switch,
}

impl Cluster {
    fn new(lab: &Lab) -> Result<Self> {
        let switch = lab.hub()?;
        let host = |name: &str, last: u8| -> Result<Host> {
            let host = switch.host(name)?;
            host.add_address(&format!("192.0.2.{last}/24"))?;
            Ok(host)
        };
        let nodes = vec![host("node-1", 11)?, host("node-2", 12)?];
        let (client, watcher) = (host("client", 50)?, host("watcher", 1)?);
        let kubernetes = lab.kubernetes()?;
        let api = kubernetes.api()?;
        install_metallb(&api, true)?;
        api.create(&pool("production", &["192.0.2.240/28"]))?;
        let advertised = json!({ "ipAddressPools": ["production"] });
        api.create(&metallb("L2Advertisement", "all", &advertised))?;
        for (name, address) in [("node-1", "192.0.2.11"), ("node-2", "192.0.2.12")] {
            let object = node(name, address);
            api.create(&object)?;
            api.patch_status(&object, &object["status"])?;
        }
        api.create(&namespace("shop"))?;
        let service = service("shop", "frontend");
        api.create(&service)?;
        api.assign(&service, &[IP])?;
        Ok(Self {
            kubernetes,
            nodes,
            client,
            watcher,
            service,
            _switch: switch,
        })
    }

    fn daemon(&self, socket: &DaemonSocket) -> Result<Daemon<'_>> {
        let account = self.kubernetes.deployed_account()?;
        let access = self.kubernetes.deploy_to(&self.watcher, &account)?;
        let options = [
            "-i",
            "eth0",
            "--attach",
            "native",
            "--active-probing",
            "auto",
            "--probe-interval",
            "3s",
            "--drift-after",
            "2s",
            "--socket",
            socket.argument(),
        ];
        let daemon = self.watcher.daemon_under(&access.words(), &options)?;
        daemon.wait_until_ready()?;
        daemon.wait_for_metrics("the address to be tracked", TIMEOUT, |metrics| {
            Ok(metrics
                .get("arp_monitor_tracked_addresses", &[])
                .is_some_and(|number| number > 0.0)
                && metrics
                    .select("arp_monitor_tracked_silent", &[("ip", IP)])
                    .next()
                    .is_some())
        })?;
        for host in &self.nodes {
            host.run(["ping", "-c1", "-W1", "192.0.2.1"])?;
        }
        Ok(daemon)
    }
}

fn speaker(host: &Host) -> Result<MetalLbSpeaker> {
    let mut speaker = MetalLbSpeaker::start(host, [192, 0, 2, 240])?;
    speaker.announce()?;
    speaker.wait_for_burst()?;
    Ok(speaker)
}

/// The records about the address.
fn records(socket: &DaemonSocket, path: &str) -> Result<Vec<Value>> {
    let mut records = socket.records(path)?;
    records.retain(|record| record["ip"] == IP);
    Ok(records)
}

#[test]
fn when_all_speakers_are_down_the_service_is_not_announced_until_one_is_back() -> Result<()> {
    let lab = Lab::new()?;
    let cluster = Cluster::new(&lab)?;
    let socket = DaemonSocket::new()?;
    let _daemon = cluster.daemon(&socket)?;
    let [one, two] = &cluster.nodes[..] else {
        unreachable!()
    };
    let speakers = [speaker(one)?];
    // The backup's speaker announces nothing; it goes down with the other.
    drop(speakers);
    socket.wait_until_leader(TIMEOUT)?;
    let not_announced = || -> Result<Vec<Value>> {
        let mut drifts = records(&socket, "/v1/drift")?;
        drifts.retain(|drift| drift["drift"] == "not_announced");
        Ok(drifts)
    };
    let mut polls = 0_u32;
    eventually("the service not to be announced", TIMEOUT, || {
        if polls.is_multiple_of(100) {
            // The monitoring host might announce the address itself, so the daemon waits until another host
            // resolves it without a reply.
            cluster
                .client
                .run(["arping", "-D", "-c1", "-w1", "-I", "eth0", IP])?;
        }
        polls += 1;
        Ok(not_announced()?.pop())
    })
    .with_context(|| format!("{:#?}", socket.records("/v1/drift")))?;
    let conflicts = records(&socket, "/v1/conflicts")?;
    ensure!(conflicts.is_empty(), "{conflicts:?}");
    let _back = speaker(two)?;
    eventually("the drift to end", TIMEOUT, || {
        Ok(not_announced()?.is_empty().then_some(()))
    })
}

/// Two leaders: each creates its own status and deletes the other's, until `stop`. Returns how many changes were made.
fn delete_each_others_status(
    kubernetes: &Kubernetes,
    service: &Value,
    stop: &AtomicBool,
    changes: &AtomicU32,
) {
    let statuses = ["node-1", "node-2"].map(|node| l2_status(&format!("l2-{node}"), node, service));
    while !stop.load(Ordering::Relaxed) {
        for (mine, others) in [(&statuses[0], &statuses[1]), (&statuses[1], &statuses[0])] {
            let Ok(api) = kubernetes.api() else { continue };
            let made = [api.create(mine).is_ok(), api.delete(others).is_ok()];
            changes.fetch_add(
                made.iter().map(|&made| u32::from(made)).sum(),
                Ordering::Relaxed,
            );
        }
    }
}

#[test]
fn two_leaders_that_delete_each_others_status_are_a_split_brain() -> Result<()> {
    let lab = Lab::new()?;
    let cluster = Cluster::new(&lab)?;
    let socket = DaemonSocket::new()?;
    let daemon = cluster.daemon(&socket)?;
    let [one, two] = &cluster.nodes[..] else {
        unreachable!()
    };
    let mut speakers =
        [one, two].map(|host| MetalLbSpeaker::start(host, [192, 0, 2, 240]).unwrap());
    for speaker in &mut speakers {
        speaker.announce()?;
    }
    for speaker in &mut speakers {
        speaker.wait_for_burst()?;
    }
    let (stop, changes) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let cause = || -> Result<Option<String>> {
        let conflict = records(&socket, "/v1/conflicts")?.pop();
        Ok(conflict.map(|conflict| {
            let kind = &conflict["cluster"]["cause"]["kind"];
            kind.as_str().unwrap_or("none").to_owned()
        }))
    };
    thread::scope(|scope| -> Result<()> {
        let storm = scope.spawn(|| {
            delete_each_others_status(&cluster.kubernetes, &cluster.service, &stop, &changes);
        });
        let checks = || -> Result<()> {
            eventually("a split brain", TIMEOUT, || {
                cluster.client.resolve(IP)?;
                Ok((cause()?.as_deref() == Some("split_brain")).then_some(()))
            })
            .with_context(|| format!("{:?}", cause()))?;
            let before = changes.load(Ordering::Relaxed);
            // At any time, the status names one of the nodes, both or none.
            let mut causes = Vec::new();
            eventually("hundreds of changes", TIMEOUT, || {
                causes.push(cause()?);
                Ok((changes.load(Ordering::Relaxed) > before + 300).then_some(()))
            })?;
            causes.dedup();
            ensure!(causes == [Some("split_brain".to_owned())], "{causes:?}");
            Ok(())
        };
        let result = checks();
        stop.store(true, Ordering::Relaxed);
        ensure!(
            storm.join().is_ok(),
            "the thread that changes the status panicked"
        );
        result
    })?;
    drop(daemon);
    Ok(())
}
