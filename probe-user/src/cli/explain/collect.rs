//! Collects the inputs of an explanation: ARP probes, the daemon and the cluster.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use jiff::Timestamp;
use probe_cluster::{
    NodeIndex,
    explain::{ClusterInputs, DaemonInputs, ExplainInputs, ProbeAvailability},
    local_announcements::LocalAnnouncements,
};
use probe_common::event::ArpEvent;
use probe_model::{BindingRecord, CheckRecord};
use probe_prober::check::{HostNetwork, HostNetworkError, Target, TargetRange};
use serde_json::Value;

use super::{ExplainArguments, KubernetesLookup};
use crate::{
    cli::{
        check::{
            collect,
            collect::CheckNotRun,
            kubernetes::{add_check_macs, add_host_macs},
            output::CheckCollector,
        },
        cluster::ClusterUnavailable,
        history::HistoryLine,
        session::StopSignal,
    },
    client::{Client, ClientError},
};

/// Maximum number of nodes that are probed for their MACs, which takes a few seconds.
const MAX_PROBED_NODES: usize = 30;

/// Probes a second, for many addresses.
const RATE: u32 = 10;

/// The collected inputs.
pub struct CollectedInputs {
    pub inputs: ExplainInputs,
    /// The frames of the check, with the monotonic time of each.
    pub frames: Vec<ArpEvent>,
    /// Whether probing was requested and not possible.
    pub probe_failed: bool,
}

pub struct InputCollector<'a> {
    arguments: &'a ExplainArguments,
    stop: StopSignal,
    client: Client,
}

/// The network and ranges of a check.
struct ProbeTarget {
    network: HostNetwork,
    ranges: Vec<TargetRange>,
}

impl<'a> InputCollector<'a> {
    pub fn new(arguments: &'a ExplainArguments, stop: StopSignal) -> Self {
        Self {
            arguments,
            stop,
            client: Client::new(&arguments.socket),
        }
    }

    /// Collects all inputs.
    pub async fn collect(mut self) -> anyhow::Result<CollectedInputs> {
        let ip = self.arguments.ip;
        let mut cluster = self.cluster().await;
        let own = own_addresses().await;
        let daemon = self.daemon().await;
        let now = Timestamp::now();
        let speaker = local_announcements(cluster.as_ref().ok(), daemon.as_ref().ok(), &own, now);
        let (probe_availability, networks, frames) =
            self.probe_address(cluster.as_mut().ok(), &speaker).await?;
        if let Ok(known) = &mut cluster {
            known.drifts = self.drifts().await;
        }
        let mut inputs = ExplainInputs {
            ip,
            now: Timestamp::now(),
            probe_availability,
            networks,
            speaker,
            daemon,
            cluster,
        };
        self.add_daemon_bindings(&mut inputs).await;
        add_owner_nodes(&mut inputs);
        let probe_failed = matches!(
            inputs.probe_availability,
            ProbeAvailability::Impossible(_) | ProbeAvailability::LinkDown(_)
        );
        Ok(CollectedInputs {
            inputs,
            frames,
            probe_failed,
        })
    }

    async fn cluster(&self) -> Result<ClusterInputs, Option<String>> {
        if self.arguments.kubernetes == KubernetesLookup::Off {
            return Err(None);
        }
        let known = match self.arguments.cluster.look(&self.client).await {
            Ok(known) => known,
            Err(ClusterUnavailable::None(why)) => {
                let why = why.trim_start_matches("no cluster configured: ");
                return Err(Some(format!("{why}; --kubernetes off: without a cluster")));
            }
            Err(ClusterUnavailable::Failed(why)) => return Err(Some(why)),
        };
        let nodes_known = known.nodes.is_ok();
        Ok(ClusterInputs {
            cluster: known.cluster(),
            source: known.source,
            context: self.arguments.cluster.context.clone(),
            nodes_by_mac: NodeIndex::new(known.nodes.unwrap_or_default()),
            nodes_known,
            drifts: Vec::new(),
        })
    }

    /// The data of the daemon about the address.
    async fn daemon(&self) -> Result<DaemonInputs, String> {
        let ip = self.arguments.ip;
        let bindings = self.client.list(&format!("/v1/bindings?ip={ip}")).await;
        let bindings: Vec<BindingRecord> = match bindings {
            Ok(bindings) => bindings,
            Err(ClientError::NotRunning(path)) => {
                return Err(format!("no daemon at {} (probe run)", path.display()));
            }
            Err(error) => return Err(error.to_string()),
        };
        let target = format!("/v1/findings?ip={ip}&since=0&follow=false");
        let lines = self.client.list::<HistoryLine>(&target).await;
        let lines = lines.map_err(|error| error.to_string())?;
        let history = lines.into_iter().filter_map(|line| match line {
            HistoryLine::Finding(finding) => Some(finding.record),
            HistoryLine::Missed(_) => None,
        });
        Ok(DaemonInputs {
            bindings,
            history: history.collect(),
        })
    }

    /// The drift about the address, by the daemon.
    async fn drifts(&self) -> Vec<Value> {
        let ip = self.arguments.ip;
        let drifts = self.client.list::<Value>("/v1/drift").await;
        let about = |drift: &Value| {
            let address = drift.get("ip").and_then(Value::as_str);
            address.and_then(|address| address.parse::<IpAddr>().ok()) == Some(ip)
        };
        drifts
            .unwrap_or_default()
            .into_iter()
            .filter(about)
            .collect()
    }

    /// Checks the address and, with a cluster, identifies the nodes among its owners.
    async fn probe_address(
        &mut self,
        mut cluster: Option<&mut ClusterInputs>,
        speaker: &LocalAnnouncements,
    ) -> anyhow::Result<(ProbeAvailability, Vec<IpNet>, Vec<ArpEvent>)> {
        let nothing = |probe_availability| Ok((probe_availability, Vec::new(), Vec::new()));
        let IpAddr::V4(ip) = self.arguments.ip else {
            return nothing(ProbeAvailability::OtherSegment(
                "IPv6 has no ARP, and neighbour solicitations are not sent so far".to_owned(),
            ));
        };
        let target = self.resolve_targets(&[ip]).await?;
        let target = match target {
            Err(down @ ProbeAvailability::LinkDown(_)) => return nothing(down),
            _ if self.arguments.no_probe => return nothing(ProbeAvailability::Disabled),
            Ok(target) => target,
            Err(probe_availability) => return nothing(probe_availability),
        };
        let ports = target.network.egress_interfaces();
        let networks: Vec<IpNet> = ports
            .iter()
            .flat_map(|port| port.networks.iter().copied().map(IpNet::V4))
            .collect();
        if let Some(known) = &mut cluster {
            add_host_macs(&mut known.nodes_by_mac, &target.network).await;
        }
        let collector = match self.run_check(target, Some(ip), speaker.clone()).await? {
            Ok(collector) => collector,
            Err(why) => return Ok((why, networks, Vec::new())),
        };
        let Some(record) = collector.records.into_iter().next() else {
            return nothing(ProbeAvailability::Impossible(
                "it was not probed".to_owned(),
            ));
        };
        if let Some(known) = cluster {
            self.probe_nodes(known, &record, &networks).await?;
        }
        Ok((
            ProbeAvailability::Probed(Box::new(record)),
            networks,
            collector.frames,
        ))
    }

    /// The network and ranges to probe these addresses on, or why they cannot be probed.
    async fn resolve_targets(
        &self,
        addresses: &[Ipv4Addr],
    ) -> anyhow::Result<Result<ProbeTarget, ProbeAvailability>> {
        let mut network = match HostNetwork::read().await {
            Ok(network) => network,
            Err(error) => return Ok(Err(ProbeAvailability::Impossible(error.to_string()))),
        };
        let targets: Vec<_> = addresses.iter().copied().map(Target::Address).collect();
        let interface = self.arguments.interface.as_deref();
        let ranges = network
            .resolve_targets(&targets, interface, self.arguments.vlan)
            .await;
        match ranges {
            Ok(ranges) => Ok(Ok(ProbeTarget { network, ranges })),
            Err(error @ HostNetworkError::UnusableInterface { .. }) => {
                Ok(Err(ProbeAvailability::LinkDown(error.to_string())))
            }
            Err(error @ HostNetworkError::NoInterface { .. }) => Err(error.into()),
            Err(HostNetworkError::OffLink { reason, .. }) => Ok(Err(
                ProbeAvailability::OtherSegment(format!("it is not on-link here: {reason}")),
            )),
            Err(error @ HostNetworkError::Reserved { .. }) => {
                Ok(Err(ProbeAvailability::OtherSegment(error.to_string())))
            }
            Err(error) => Ok(Err(ProbeAvailability::Impossible(error.to_string()))),
        }
    }

    /// Runs a check, or returns why it has no result.
    async fn run_check(
        &mut self,
        target: ProbeTarget,
        frames_of: Option<Ipv4Addr>,
        speaker: LocalAnnouncements,
    ) -> anyhow::Result<Result<CheckCollector, ProbeAvailability>> {
        let ProbeTarget { network, ranges } = target;
        let stop = &mut self.stop;
        match collect::collect(network, ranges, RATE, frames_of, speaker, stop).await {
            Ok(collector) => Ok(Ok(collector)),
            Err(CheckNotRun::LinkDown(why)) => Ok(Err(ProbeAvailability::LinkDown(why))),
            Err(CheckNotRun::Impossible(why)) => Ok(Err(ProbeAvailability::Impossible(why))),
            Err(CheckNotRun::Interrupted) => bail!("stopped"),
        }
    }

    /// Probes nodes whose MACs are not known, if the node of an owner is not known.
    async fn probe_nodes(
        &mut self,
        known: &mut ClusterInputs,
        record: &CheckRecord,
        networks: &[IpNet],
    ) -> anyhow::Result<()> {
        let mut owners = record.owners.iter();
        if owners.all(|owner| known.nodes_by_mac.node_of(&owner.macs).is_some()) {
            return Ok(());
        }
        let first = known.cluster.reported_announcers(self.arguments.ip);
        let wanted = known.nodes_by_mac.addresses_to_probe(networks, &first);
        let wanted: Vec<_> = wanted
            .into_iter()
            .filter_map(|address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
            .take(MAX_PROBED_NODES)
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let Ok(target) = self.resolve_targets(&wanted).await? else {
            return Ok(());
        };
        let none = LocalAnnouncements::default();
        if let Ok(collector) = self.run_check(target, None, none).await? {
            add_check_macs(&mut known.nodes_by_mac, &collector.records);
        }
        Ok(())
    }

    /// Adds the other addresses of its owners, as the daemon knows them.
    async fn add_daemon_bindings(&self, inputs: &mut ExplainInputs) {
        let Ok(known) = &mut inputs.cluster else {
            return;
        };
        let checked = match &inputs.probe_availability {
            ProbeAvailability::Probed(record) => &record.owners[..],
            ProbeAvailability::Disabled
            | ProbeAvailability::OtherSegment(_)
            | ProbeAvailability::LinkDown(_)
            | ProbeAvailability::Impossible(_) => &[],
        };
        let of_bindings = inputs.daemon.iter().flat_map(|daemon| &daemon.bindings);
        let macs = checked.iter().flat_map(|owner| owner.macs.clone()).chain(
            of_bindings
                .flat_map(|binding| &binding.owners)
                .flat_map(|owner| owner.macs.clone()),
        );
        let macs: Vec<_> = macs.map(|mac| mac.to_string()).collect();
        if macs.is_empty() || inputs.daemon.is_err() {
            return;
        }
        let target = format!("/v1/bindings?mac={}", macs.join(","));
        let bindings = self.client.list::<BindingRecord>(&target).await;
        for binding in bindings.unwrap_or_default() {
            // The current owner: a previous one may be any host.
            if let Some(owner) = binding.owners.first() {
                for &mac in &owner.macs {
                    known.nodes_by_mac.add_mac(binding.ip, mac);
                }
            }
        }
    }
}

/// The addresses of this host.
async fn own_addresses() -> Vec<IpAddr> {
    let network = HostNetwork::read().await;
    network.map_or_else(|_| Vec::new(), |here| here.own_addresses().collect())
}

/// What a speaker on this host, which has the addresses `own`, announces.
fn local_announcements(
    cluster: Option<&ClusterInputs>,
    daemon: Option<&DaemonInputs>,
    own: &[IpAddr],
    now: Timestamp,
) -> LocalAnnouncements {
    let is_node = cluster.is_some_and(|known| {
        let mut own = own.iter();
        own.any(|&address| known.nodes_by_mac.node_at(address).is_some())
    });
    let bindings = daemon.map(|daemon| &daemon.bindings[..]);
    LocalAnnouncements::new(is_node, bindings.unwrap_or_default(), now)
}

/// Adds the names of nodes to the owners.
fn add_owner_nodes(inputs: &mut ExplainInputs) {
    let Ok(known) = &inputs.cluster else {
        return;
    };
    if let ProbeAvailability::Probed(record) = &mut inputs.probe_availability {
        for owner in &mut record.owners {
            let by_word = || known.cluster.reported_node(record.ip.into(), &owner.macs);
            let node = known.nodes_by_mac.node_of(&owner.macs).or_else(by_word);
            owner.node = node.map(str::to_owned);
        }
    }
}

/// This host's neighbour table and interfaces, for a bundle.
pub async fn neighbours() -> anyhow::Result<Value> {
    let (connection, handle, _) =
        rtnetlink::new_connection().context("cannot open a netlink socket")?;
    tokio::spawn(connection);
    let links = probe_network::links::watch_links().await?.borrow().clone();
    let neighbours = probe_network::neighbours::read(&handle).await?;
    let mut rows: Vec<_> = neighbours
        .iter()
        .map(|((ifindex, ip), mac)| {
            let link = links.get(*ifindex);
            let name = link.map_or_else(|| ifindex.to_string(), |link| link.name.clone());
            (name, *ip, mac.to_string())
        })
        .collect();
    rows.sort_unstable();
    let rows = rows.into_iter().map(
        |(interface, ip, mac)| serde_json::json!({"interface": interface, "ip": ip, "mac": mac}),
    );
    Ok(rows.collect())
}

/// This host's interfaces with their addresses, for a bundle.
pub async fn interfaces() -> anyhow::Result<Value> {
    let links = probe_network::links::watch_links().await?.borrow().clone();
    let rows = links.iter().map(|link| {
        serde_json::json!({
            "interface": link.name,
            "index": link.index,
            "mac": link.mac.map(|mac| mac.to_string()),
            "up": link.up,
            "carrier": link.carrier,
            "mtu": link.mtu,
            "arp": link.arp,
            "addresses": link.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    });
    Ok(rows.collect())
}
