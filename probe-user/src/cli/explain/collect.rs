//! Gathers what is known of an address, from everybody who knows something.

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

/// Nodes that are asked for their MACs: it takes a few seconds.
const MAX_PROBED_NODES: usize = 30;

/// Questions a second, where there are many.
const RATE: u32 = 10;

/// All that was found out.
pub struct CollectedInputs {
    pub inputs: ExplainInputs,
    /// The frames of asking, with the monotonic time of each.
    pub frames: Vec<ArpEvent>,
    /// It was to be asked and could not.
    pub probe_failed: bool,
}

pub struct InputCollector<'a> {
    arguments: &'a ExplainArguments,
    stop: StopSignal,
    client: Client,
}

/// Where an address is asked.
struct ProbeTarget {
    surroundings: HostNetwork,
    lots: Vec<TargetRange>,
}

impl<'a> InputCollector<'a> {
    pub fn new(arguments: &'a ExplainArguments, stop: StopSignal) -> Self {
        Self {
            arguments,
            stop,
            client: Client::new(&arguments.socket),
        }
    }

    /// Gathers everything.
    pub async fn collect(mut self) -> anyhow::Result<CollectedInputs> {
        let ip = self.arguments.ip;
        let mut cluster = self.cluster().await;
        let own = own_addresses().await;
        let (probe_availability, networks, frames) =
            self.probe_address(cluster.as_mut().ok()).await?;
        let daemon = self.daemon().await;
        if let Ok(known) = &mut cluster {
            known.drifts = self.drifts().await;
        }
        let mut inputs = ExplainInputs {
            ip,
            now: Timestamp::now(),
            probe_availability,
            networks,
            speaker: LocalAnnouncements::default(),
            daemon,
            cluster,
        };
        self.add_daemon_bindings(&mut inputs).await;
        add_owner_nodes(&mut inputs);
        inputs.speaker = local_announcements(&inputs, &own);
        let probe_failed = matches!(inputs.probe_availability, ProbeAvailability::Impossible(_));
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
                let why = why.trim_start_matches("no cluster to ask: ");
                return Err(Some(format!(
                    "{why} (--kubernetes off says that there is none)"
                )));
            }
            Err(ClusterUnavailable::Failed(why)) => return Err(Some(why)),
        };
        let nodes_known = known.nodes.is_ok();
        Ok(ClusterInputs {
            cluster: known.cluster(),
            source: known.source,
            context: self.arguments.cluster.context.clone(),
            roster: NodeIndex::new(known.nodes.unwrap_or_default()),
            nodes_known,
            drifts: Vec::new(),
        })
    }

    /// What the daemon knows of it.
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

    /// What the daemon finds not to be as it should be with the address.
    async fn drifts(&self) -> Vec<Value> {
        let ip = self.arguments.ip;
        let drifts = self.client.list::<Value>("/v1/drift").await;
        let about = |drift: &Value| {
            let said = drift.get("ip").and_then(Value::as_str);
            said.and_then(|said| said.parse::<IpAddr>().ok()) == Some(ip)
        };
        drifts
            .unwrap_or_default()
            .into_iter()
            .filter(about)
            .collect()
    }

    /// Asks who has it, and, where a cluster is known, which nodes the others are.
    async fn probe_address(
        &mut self,
        mut cluster: Option<&mut ClusterInputs>,
    ) -> anyhow::Result<(ProbeAvailability, Vec<IpNet>, Vec<ArpEvent>)> {
        let nothing = |probe_availability| Ok((probe_availability, Vec::new(), Vec::new()));
        let IpAddr::V4(ip) = self.arguments.ip else {
            return nothing(ProbeAvailability::OtherSegment(
                "IPv6 has no ARP: who has it cannot be asked so far".to_owned(),
            ));
        };
        if self.arguments.no_probe {
            return nothing(ProbeAvailability::Disabled);
        }
        let place = match self.resolve_targets(&[ip]).await? {
            Ok(place) => place,
            Err(probe_availability) => return nothing(probe_availability),
        };
        let ports = place.surroundings.ports();
        let networks: Vec<IpNet> = ports
            .iter()
            .flat_map(|port| port.networks.iter().copied().map(IpNet::V4))
            .collect();
        if let Some(known) = &mut cluster {
            add_host_macs(&mut known.roster, &place.surroundings).await;
        }
        let keeper = match self.run_check(place, Some(ip)).await? {
            Ok(keeper) => keeper,
            Err(why) => return Ok((ProbeAvailability::Impossible(why), networks, Vec::new())),
        };
        let Some(record) = keeper.records.into_iter().next() else {
            return nothing(ProbeAvailability::Impossible("it was not asked".to_owned()));
        };
        if let Some(known) = cluster {
            self.probe_nodes(known, &record, &networks).await?;
        }
        Ok((
            ProbeAvailability::Probed(Box::new(record)),
            networks,
            keeper.frames,
        ))
    }

    /// Where these are asked about; or what keeps us from asking.
    async fn resolve_targets(
        &self,
        addresses: &[Ipv4Addr],
    ) -> anyhow::Result<Result<ProbeTarget, ProbeAvailability>> {
        let mut surroundings = match HostNetwork::look().await {
            Ok(surroundings) => surroundings,
            Err(error) => return Ok(Err(ProbeAvailability::Impossible(error.to_string()))),
        };
        let targets: Vec<_> = addresses.iter().copied().map(Target::Address).collect();
        let interface = self.arguments.interface.as_deref();
        let lots = surroundings
            .resolve_targets(&targets, interface, self.arguments.vlan)
            .await;
        match lots {
            Ok(lots) => Ok(Ok(ProbeTarget { surroundings, lots })),
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

    /// Asks, and keeps what was found out; or says why that cannot be done.
    async fn run_check(
        &mut self,
        place: ProbeTarget,
        frames_of: Option<Ipv4Addr>,
    ) -> anyhow::Result<Result<CheckCollector, String>> {
        let ProbeTarget { surroundings, lots } = place;
        let asked = collect::collect(surroundings, lots, RATE, frames_of, &mut self.stop).await;
        match asked {
            Ok(keeper) => Ok(Ok(keeper)),
            Err(CheckNotRun::Impossible(why)) => Ok(Err(why)),
            Err(CheckNotRun::Interrupted) => bail!("stopped"),
        }
    }

    /// Asks for nodes whose MACs are not known, if somebody has the address of whom it is not known whether he is one.
    async fn probe_nodes(
        &mut self,
        known: &mut ClusterInputs,
        record: &CheckRecord,
        networks: &[IpNet],
    ) -> anyhow::Result<()> {
        let mut owners = record.owners.iter();
        if owners.all(|owner| known.roster.node_of(&owner.macs).is_some()) {
            return Ok(());
        }
        let first = known.cluster.reported_announcers(self.arguments.ip);
        let wanted = known.roster.addresses_to_probe(networks, &first);
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
        let Ok(place) = self.resolve_targets(&wanted).await? else {
            return Ok(());
        };
        if let Ok(keeper) = self.run_check(place, None).await? {
            add_check_macs(&mut known.roster, &keeper.records);
        }
        Ok(())
    }

    /// The other addresses of its owners, as the daemon knows them.
    async fn add_daemon_bindings(&self, inputs: &mut ExplainInputs) {
        let Ok(known) = &mut inputs.cluster else {
            return;
        };
        let asked = match &inputs.probe_availability {
            ProbeAvailability::Probed(record) => &record.owners[..],
            ProbeAvailability::Disabled
            | ProbeAvailability::OtherSegment(_)
            | ProbeAvailability::Impossible(_) => &[],
        };
        let of_bindings = inputs.daemon.iter().flat_map(|daemon| &daemon.bindings);
        let macs = asked.iter().flat_map(|owner| owner.macs.clone()).chain(
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
            // Who had it last: whoever had it before may be anybody.
            if let Some(owner) = binding.owners.first() {
                for &mac in &owner.macs {
                    known.roster.add_mac(binding.ip, mac);
                }
            }
        }
    }
}

/// The addresses of this host.
async fn own_addresses() -> Vec<IpAddr> {
    let surroundings = HostNetwork::look().await;
    surroundings.map_or_else(|_| Vec::new(), |here| here.own_addresses().collect())
}

/// What a load balancer on this host, which has these addresses, announces.
fn local_announcements(inputs: &ExplainInputs, own: &[IpAddr]) -> LocalAnnouncements {
    let roster = inputs.cluster.as_ref().ok().map(|known| &known.roster);
    let is_node = roster.is_some_and(|roster| {
        let mut own = own.iter();
        own.any(|&address| roster.node_at(address).is_some())
    });
    let bindings = inputs.daemon.as_ref().map(|daemon| &daemon.bindings[..]);
    LocalAnnouncements::new(is_node, bindings.unwrap_or_default(), inputs.now)
}

/// Puts the names of nodes to those who answered.
fn add_owner_nodes(inputs: &mut ExplainInputs) {
    let Ok(known) = &inputs.cluster else {
        return;
    };
    if let ProbeAvailability::Probed(record) = &mut inputs.probe_availability {
        for owner in &mut record.owners {
            let by_word = || known.cluster.reported_node(record.ip.into(), &owner.macs);
            let node = known.roster.node_of(&owner.macs).or_else(by_word);
            owner.node = node.map(str::to_owned);
        }
    }
}

/// This host's neighbour table and interfaces, for a bundle.
pub async fn neighbours() -> anyhow::Result<Value> {
    let (connection, handle, _) =
        rtnetlink::new_connection().context("cannot open a netlink socket")?;
    tokio::spawn(connection);
    let links = probe_network::links::follow().await?.borrow().clone();
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
    let links = probe_network::links::follow().await?.borrow().clone();
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
