//! Gathers what is known of an address, from everybody who knows something.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use jiff::Timestamp;
use probe_cluster::{
    Roster,
    explain::{Asking, ClusterMaterial, DaemonMaterial, Material},
    speaker::Speaker,
};
use probe_common::event::ArpEvent;
use probe_model::{BindingRecord, CheckRecord};
use probe_prober::check::{Lot, Surroundings, SurroundingsError, Target};
use serde_json::Value;

use super::{Arguments, Kubernetes};
use crate::{
    cli::{
        check::{
            audience::Keeper,
            kubernetes::{learn_from_check, learn_from_host},
            quiet,
            quiet::Unasked,
        },
        cluster::NoCluster,
        history::Line,
        session::StopSignal,
    },
    client::{Client, ClientError},
};

/// Nodes that are asked for their MACs: it takes a few seconds.
const MOST_NODES: usize = 30;

/// Questions a second, where there are many.
const RATE: u32 = 10;

/// All that was found out.
pub struct Gathered {
    pub material: Material,
    /// The frames of asking, with the monotonic time of each.
    pub frames: Vec<ArpEvent>,
    /// It was to be asked and could not.
    pub impossible: bool,
}

pub struct Gatherer<'a> {
    arguments: &'a Arguments,
    stop: StopSignal,
    client: Client,
}

/// Where an address is asked.
struct Place {
    surroundings: Surroundings,
    lots: Vec<Lot>,
}

impl<'a> Gatherer<'a> {
    pub fn new(arguments: &'a Arguments, stop: StopSignal) -> Self {
        Self {
            arguments,
            stop,
            client: Client::new(&arguments.socket),
        }
    }

    /// Gathers everything.
    pub async fn gather(mut self) -> anyhow::Result<Gathered> {
        let ip = self.arguments.ip;
        let mut cluster = self.cluster().await;
        let own = own_addresses().await;
        let (asking, networks, frames) = self.ask(cluster.as_mut().ok()).await?;
        let daemon = self.daemon().await;
        if let Ok(known) = &mut cluster {
            known.drifts = self.drifts().await;
        }
        let mut material = Material {
            ip,
            now: Timestamp::now(),
            asking,
            networks,
            speaker: Speaker::default(),
            daemon,
            cluster,
        };
        self.learn_from_daemon(&mut material).await;
        name_owners(&mut material);
        material.speaker = speaker(&material, &own);
        let impossible = matches!(material.asking, Asking::Impossible(_));
        Ok(Gathered {
            material,
            frames,
            impossible,
        })
    }

    async fn cluster(&self) -> Result<ClusterMaterial, Option<String>> {
        if self.arguments.kubernetes == Kubernetes::Off {
            return Err(None);
        }
        let known = match self.arguments.cluster.look(&self.client).await {
            Ok(known) => known,
            Err(NoCluster::None(why)) => {
                let why = why.trim_start_matches("no cluster to ask: ");
                return Err(Some(format!(
                    "{why} (--kubernetes off says that there is none)"
                )));
            }
            Err(NoCluster::Failed(why)) => return Err(Some(why)),
        };
        let nodes_known = known.nodes.is_ok();
        Ok(ClusterMaterial {
            cluster: known.cluster(),
            source: known.source,
            context: self.arguments.cluster.context.clone(),
            roster: Roster::new(known.nodes.unwrap_or_default()),
            nodes_known,
            drifts: Vec::new(),
        })
    }

    /// What the daemon knows of it.
    async fn daemon(&self) -> Result<DaemonMaterial, String> {
        let ip = self.arguments.ip;
        let bindings = self.client.list(&format!("/v1/bindings?ip={ip}")).await;
        let bindings: Vec<BindingRecord> = match bindings {
            Ok(bindings) => bindings,
            Err(ClientError::NoDaemon(path)) => {
                return Err(format!("no daemon at {} (probe run)", path.display()));
            }
            Err(error) => return Err(error.to_string()),
        };
        let target = format!("/v1/findings?ip={ip}&since=0&follow=false");
        let lines = self.client.list::<Line>(&target).await;
        let lines = lines.map_err(|error| error.to_string())?;
        let history = lines.into_iter().filter_map(|line| match line {
            Line::Finding(finding) => Some(finding.record),
            Line::Missed(_) => None,
        });
        Ok(DaemonMaterial {
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
    async fn ask(
        &mut self,
        mut cluster: Option<&mut ClusterMaterial>,
    ) -> anyhow::Result<(Asking, Vec<IpNet>, Vec<ArpEvent>)> {
        let nothing = |asking| Ok((asking, Vec::new(), Vec::new()));
        let IpAddr::V4(ip) = self.arguments.ip else {
            return nothing(Asking::Elsewhere(
                "IPv6 has no ARP: who has it cannot be asked so far".to_owned(),
            ));
        };
        if self.arguments.no_ask {
            return nothing(Asking::NotWanted);
        }
        let place = match self.place(&[ip]).await? {
            Ok(place) => place,
            Err(asking) => return nothing(asking),
        };
        let ports = place.surroundings.ports();
        let networks: Vec<IpNet> = ports
            .iter()
            .flat_map(|port| port.networks.iter().copied().map(IpNet::V4))
            .collect();
        if let Some(known) = &mut cluster {
            learn_from_host(&mut known.roster, &place.surroundings).await;
        }
        let keeper = match self.inquire(place, Some(ip)).await? {
            Ok(keeper) => keeper,
            Err(why) => return Ok((Asking::Impossible(why), networks, Vec::new())),
        };
        let Some(record) = keeper.records.into_iter().next() else {
            return nothing(Asking::Impossible("it was not asked".to_owned()));
        };
        if let Some(known) = cluster {
            self.ask_for_nodes(known, &record, &networks).await?;
        }
        Ok((Asking::Asked(Box::new(record)), networks, keeper.frames))
    }

    /// Where these are asked about; or what keeps us from asking.
    async fn place(&self, addresses: &[Ipv4Addr]) -> anyhow::Result<Result<Place, Asking>> {
        let mut surroundings = match Surroundings::look().await {
            Ok(surroundings) => surroundings,
            Err(error) => return Ok(Err(Asking::Impossible(error.to_string()))),
        };
        let targets: Vec<_> = addresses.iter().copied().map(Target::One).collect();
        let interface = self.arguments.interface.as_deref();
        let lots = surroundings
            .place(&targets, interface, self.arguments.vlan)
            .await;
        match lots {
            Ok(lots) => Ok(Ok(Place { surroundings, lots })),
            Err(error @ SurroundingsError::NoInterface { .. }) => Err(error.into()),
            Err(SurroundingsError::OffLink { reason, .. }) => Ok(Err(Asking::Elsewhere(format!(
                "it is not on-link here: {reason}"
            )))),
            Err(error @ SurroundingsError::Reserved { .. }) => {
                Ok(Err(Asking::Elsewhere(error.to_string())))
            }
            Err(error) => Ok(Err(Asking::Impossible(error.to_string()))),
        }
    }

    /// Asks, and keeps what was found out; or says why that cannot be done.
    async fn inquire(
        &mut self,
        place: Place,
        frames_of: Option<Ipv4Addr>,
    ) -> anyhow::Result<Result<Keeper, String>> {
        let Place { surroundings, lots } = place;
        let asked = quiet::ask(surroundings, lots, RATE, frames_of, &mut self.stop).await;
        match asked {
            Ok(keeper) => Ok(Ok(keeper)),
            Err(Unasked::Impossible(why)) => Ok(Err(why)),
            Err(Unasked::Interrupted) => bail!("stopped"),
        }
    }

    /// Asks for nodes whose MACs are not known, if somebody has the address of whom it is not known whether he is one.
    async fn ask_for_nodes(
        &mut self,
        known: &mut ClusterMaterial,
        record: &CheckRecord,
        networks: &[IpNet],
    ) -> anyhow::Result<()> {
        let mut owners = record.owners.iter();
        if owners.all(|owner| known.roster.node_of(&owner.macs).is_some()) {
            return Ok(());
        }
        let first = known.cluster.said_to_announce(self.arguments.ip);
        let wanted = known.roster.to_ask(networks, &first);
        let wanted: Vec<_> = wanted
            .into_iter()
            .filter_map(|address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            })
            .take(MOST_NODES)
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let Ok(place) = self.place(&wanted).await? else {
            return Ok(());
        };
        if let Ok(keeper) = self.inquire(place, None).await? {
            learn_from_check(&mut known.roster, &keeper.records);
        }
        Ok(())
    }

    /// The other addresses of its owners, as the daemon knows them.
    async fn learn_from_daemon(&self, material: &mut Material) {
        let Ok(known) = &mut material.cluster else {
            return;
        };
        let asked = match &material.asking {
            Asking::Asked(record) => &record.owners[..],
            Asking::NotWanted | Asking::Elsewhere(_) | Asking::Impossible(_) => &[],
        };
        let of_bindings = material.daemon.iter().flat_map(|daemon| &daemon.bindings);
        let macs = asked.iter().flat_map(|owner| owner.macs.clone()).chain(
            of_bindings
                .flat_map(|binding| &binding.owners)
                .flat_map(|owner| owner.macs.clone()),
        );
        let macs: Vec<_> = macs.map(|mac| mac.to_string()).collect();
        if macs.is_empty() || material.daemon.is_err() {
            return;
        }
        let target = format!("/v1/bindings?mac={}", macs.join(","));
        let bindings = self.client.list::<BindingRecord>(&target).await;
        for binding in bindings.unwrap_or_default() {
            // Who had it last: whoever had it before may be anybody.
            if let Some(owner) = binding.owners.first() {
                for &mac in &owner.macs {
                    known.roster.learn(binding.ip, mac);
                }
            }
        }
    }
}

/// The addresses of this host.
async fn own_addresses() -> Vec<IpAddr> {
    let surroundings = Surroundings::look().await;
    surroundings.map_or_else(|_| Vec::new(), |here| here.own_addresses().collect())
}

/// What a load balancer on this host, which has these addresses, announces.
fn speaker(material: &Material, own: &[IpAddr]) -> Speaker {
    let roster = material.cluster.as_ref().ok().map(|known| &known.roster);
    let is_node = roster.is_some_and(|roster| {
        let mut own = own.iter();
        own.any(|&address| roster.node_at(address).is_some())
    });
    let bindings = material.daemon.as_ref().map(|daemon| &daemon.bindings[..]);
    Speaker::new(is_node, bindings.unwrap_or_default(), material.now)
}

/// Puts the names of nodes to those who answered.
fn name_owners(material: &mut Material) {
    let Ok(known) = &material.cluster else {
        return;
    };
    if let Asking::Asked(record) = &mut material.asking {
        for owner in &mut record.owners {
            let by_word = || known.cluster.node_by_word(record.ip.into(), &owner.macs);
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
