//! `probe check --kubernetes`: checks the owners of all addresses of a cluster.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use jiff::Timestamp;
use probe_cluster::{NodeIndex, Resource, local_announcements::LocalAnnouncements};
use probe_model::{BindingRecord, CheckRecord};
use probe_prober::{
    ArpSocket,
    check::{HostNetwork, Target, TargetRange, cluster_targets::ClusterTargets},
};

use super::{
    CheckArguments,
    cluster_context::{CheckContext, ClusterCheckContext},
    collect, run_check,
};
use crate::{
    cli::{Exit, cluster::FetchedCluster, output::print_status, session::StopSignal},
    client::Client,
};

/// The duration in seconds from which the expected time of a sweep is printed before it starts.
const MIN_ANNOUNCED_DURATION: u64 = 30;

/// Checks every address of the cluster that is on-link here.
pub async fn check(arguments: &CheckArguments, only: &[Target]) -> anyhow::Result<Exit> {
    let mut stop = StopSignal::listen()?;
    // First, because nothing works without the capability.
    let sender = ArpSocket::sender()?;
    let daemon = Client::new(&arguments.socket);
    let known = arguments.cluster.look(&daemon).await?;
    known.warn_if_stale();
    let cluster = known.cluster();
    for needed in [
        Resource::Services,
        Resource::IpAddressPools,
        Resource::L2Advertisements,
    ] {
        if !cluster.is_known(needed) {
            let freshness = cluster.objects().freshness.get(&needed);
            let error = freshness.and_then(|freshness| freshness.error.as_deref());
            bail!(
                "{needed} could not be read, so the expected owners are unknown: {}",
                error.unwrap_or("no error was reported")
            );
        }
    }
    let demand = ClusterTargets::for_cluster(&cluster, only);
    let mut network = HostNetwork::read().await?;
    let interface = arguments.interface.as_deref();
    let (assigned, off) = network
        .resolve_on_link(&demand.assigned, interface, arguments.vlan)
        .await?;
    let (free, off_free) = network
        .resolve_on_link(&demand.free, interface, arguments.vlan)
        .await?;
    print_target_summary(arguments, &demand, &assigned, &free, off.len());
    if assigned.is_empty() && free.is_empty() {
        bail!(
            "no address of the cluster is on-link here: run it on a host that is in the network of its pools{}",
            first_of(&off, &off_free)
        );
    }
    if let Some(from) = arguments.source_ip {
        network.check_source(from)?;
    }
    let nodes = node_index(arguments, known, &network, &mut stop).await?;
    let speaker = local_announcements(&daemon, &nodes, &network).await;
    warn_of_local_announcements(&speaker, &assigned);
    let context = ClusterCheckContext::new(cluster, nodes, speaker, network.egress_interfaces());
    let context = CheckContext::Cluster(Box::new(context));
    let ranges = [assigned, free].concat();
    run_check(arguments, context, sender, network, ranges, &mut stop).await
}

fn first_of(off: &[Target], off_free: &[Target]) -> String {
    let first = off.iter().chain(off_free).next();
    first.map_or_else(String::new, |first| format!(" ({first}, say)"))
}

fn print_target_summary(
    arguments: &CheckArguments,
    demand: &ClusterTargets,
    assigned: &[TargetRange],
    free: &[TargetRange],
    off: usize,
) {
    let [assigned, free] = [assigned, free].map(|ranges| {
        let sizes = ranges
            .iter()
            .map(|range| u64::from(range.last - range.first) + 1);
        sizes.sum::<u64>()
    });
    let mut left_out = Vec::new();
    for (number, why) in [
        (off, "not on-link here"),
        (demand.bgp, "announced by BGP only"),
        (demand.ipv6, "IPv6"),
    ] {
        if number > 0 {
            left_out.push(format!("{number} {why}"));
        }
    }
    let left_out = if left_out.is_empty() {
        String::new()
    } else {
        format!("; of services, {} left out", left_out.join(", "))
    };
    print_status(&format!(
        "{assigned} addresses of services and {free} free addresses of pools{left_out}"
    ));
    // Addresses without a reply are probed again.
    let seconds = (assigned + 2 * free) / u64::from(arguments.rate);
    if seconds > MIN_ANNOUNCED_DURATION {
        print_status(&format!(
            "at {} probes a second this takes about {}: raise --rate, or name a TARGET",
            arguments.rate,
            span(seconds)
        ));
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// Finds the MACs of the nodes: in this host's neighbour table, and of the others by ARP probes.
async fn node_index(
    arguments: &CheckArguments,
    known: FetchedCluster,
    network: &HostNetwork,
    stop: &mut StopSignal,
) -> anyhow::Result<NodeIndex> {
    let nodes = match known.nodes {
        Ok(nodes) => nodes,
        Err(why) => {
            print_status(&format!(
                "unknown whether an owner is a node of the cluster: {why}"
            ));
            return Ok(NodeIndex::default());
        }
    };
    let mut nodes = NodeIndex::new(nodes);
    add_host_macs(&mut nodes, network).await;
    let networks: Vec<_> = network
        .egress_interfaces()
        .iter()
        .flat_map(|egress| egress.networks.iter().copied().map(IpNet::V4))
        .collect();
    let wanted: Vec<_> = nodes
        .addresses_to_probe(&networks, &[])
        .into_iter()
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(Target::Address(address)),
            IpAddr::V6(_) => None,
        })
        .collect();
    if wanted.is_empty() {
        return Ok(nodes);
    }
    let mut around = HostNetwork::read().await?;
    let interface = arguments.interface.as_deref();
    let (ranges, _) = around
        .resolve_on_link(&wanted, interface, arguments.vlan)
        .await?;
    if ranges.is_empty() {
        return Ok(nodes);
    }
    let collector = collect::collect(
        around,
        ranges,
        arguments.rate,
        None,
        LocalAnnouncements::default(),
        stop,
    )
    .await;
    let collector = collector.context("cannot probe the nodes")?;
    add_check_macs(&mut nodes, &collector.records);
    Ok(nodes)
}

/// What a speaker on this host announces, as its daemon observed.
pub async fn local_announcements(
    daemon: &Client,
    nodes: &NodeIndex,
    network: &HostNetwork,
) -> LocalAnnouncements {
    let mut own = network.own_addresses();
    let is_node = own.any(|address| nodes.node_at(address).is_some());
    announcements(daemon, is_node).await
}

/// The same, given whether this host is a node of the cluster. Empty without a daemon.
pub async fn announcements(daemon: &Client, is_node: bool) -> LocalAnnouncements {
    let bindings = daemon.list::<BindingRecord>("/v1/bindings").await;
    LocalAnnouncements::new(is_node, &bindings.unwrap_or_default(), Timestamp::now())
}

fn warn_of_local_announcements(speaker: &LocalAnnouncements, assigned: &[TargetRange]) {
    let addresses = assigned.iter().flat_map(|range| range.first..=range.last);
    let unobserved = addresses.filter(|&address| {
        let ip = IpAddr::V4(address.into());
        speaker.may_announce(ip)
    });
    let number = unobserved.count();
    if number > 0 {
        print_status(&format!(
            "{number} of them this host may announce itself, and its speaker does not receive probes from its own host: no \
             reply for those proves nothing; check them from another node"
        ));
    }
}

/// Adds the MACs of this host and of its neighbour table.
pub async fn add_host_macs(nodes: &mut NodeIndex, network: &HostNetwork) {
    for egress in network.egress_interfaces() {
        for (&address, &mac) in &egress.local_addresses {
            nodes.add_mac(address.into(), mac);
        }
    }
    let Ok(neighbours) = network.neighbours().await else {
        return;
    };
    let addresses: Vec<_> = nodes
        .nodes()
        .iter()
        .flat_map(|node| node.addresses.clone())
        .collect();
    for address in addresses {
        let IpAddr::V4(v4) = address else { continue };
        for egress in 0..network.egress_interfaces().len() {
            if let Some(mac) = neighbours.get(egress, v4) {
                nodes.add_mac(address, mac);
            }
        }
    }
}

/// Adds the MACs that replied for the addresses of nodes.
pub fn add_check_macs(nodes: &mut NodeIndex, records: &[CheckRecord]) {
    for record in records {
        if record.probes_sent > 0 {
            nodes.mark_probed(record.ip.into());
        }
        for owner in &record.owners {
            if owner.is_owner() {
                for &mac in &owner.macs {
                    nodes.add_mac(record.ip.into(), mac);
                }
            }
        }
    }
}
