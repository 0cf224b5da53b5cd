//! `probe check --kubernetes`: is every address of the cluster where it should be?

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
    collect, should_continue,
};
use crate::{
    cli::{Exit, cluster::FetchedCluster, output::print_status, session::StopSignal},
    client::Client,
};

/// A sweep that takes longer than this says so before it begins, in seconds.
const MIN_ANNOUNCED_DURATION: u64 = 30;

/// Asks about every address of the cluster that is on-link here.
pub async fn check(arguments: &CheckArguments, only: &[Target]) -> anyhow::Result<Exit> {
    let mut stop = StopSignal::listen()?;
    // First of all, because without the capability nothing else is of use.
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
                "{needed} could not be read, so it is not known which address should be whose: {}",
                error.unwrap_or("nothing was said")
            );
        }
    }
    let demand = ClusterTargets::for_cluster(&cluster, only);
    let mut network = HostNetwork::look().await?;
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
    let roster = node_index(arguments, known, &network, &mut stop).await?;
    let speaker = local_announcements(&daemon, &roster, &network).await;
    warn_of_local_announcements(&speaker, &assigned);
    let context = ClusterCheckContext::new(cluster, roster, speaker, network.ports());
    let context = CheckContext::Cluster(Box::new(context));
    let ranges = [assigned, free].concat();
    should_continue(arguments, context, sender, network, ranges, &mut stop).await
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
        let sizes = ranges.iter().map(|lot| u64::from(lot.last - lot.first) + 1);
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
        "{assigned} addresses of services and {free} that no service has{left_out}"
    ));
    // Whoever keeps silent is asked once more.
    let seconds = (assigned + 2 * free) / u64::from(arguments.rate);
    if seconds > MIN_ANNOUNCED_DURATION {
        print_status(&format!(
            "at {} questions a second this takes about {}: --rate makes it faster, a TARGET makes it less",
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

/// Which MAC is which node's: by this host's neighbour table, and of the others by asking.
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
                "whether an owner is a node of the cluster is not known: {why}"
            ));
            return Ok(NodeIndex::default());
        }
    };
    let mut roster = NodeIndex::new(nodes);
    add_host_macs(&mut roster, network).await;
    let networks: Vec<_> = network
        .ports()
        .iter()
        .flat_map(|egress| egress.networks.iter().copied().map(IpNet::V4))
        .collect();
    let wanted: Vec<_> = roster
        .addresses_to_probe(&networks, &[])
        .into_iter()
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(Target::Address(address)),
            IpAddr::V6(_) => None,
        })
        .collect();
    if wanted.is_empty() {
        return Ok(roster);
    }
    let mut around = HostNetwork::look().await?;
    let interface = arguments.interface.as_deref();
    let (ranges, _) = around
        .resolve_on_link(&wanted, interface, arguments.vlan)
        .await?;
    if ranges.is_empty() {
        return Ok(roster);
    }
    let keeper = collect::collect(around, ranges, arguments.rate, None, stop).await;
    let keeper = keeper.context("cannot ask who the nodes are")?;
    add_check_macs(&mut roster, &keeper.records);
    Ok(roster)
}

/// What a load balancer on this host announces, as its daemon knows.
pub async fn local_announcements(
    daemon: &Client,
    roster: &NodeIndex,
    network: &HostNetwork,
) -> LocalAnnouncements {
    let mut own = network.own_addresses();
    let is_node = own.any(|address| roster.node_at(address).is_some());
    // Without a daemon nothing is known of it.
    let bindings = daemon.list::<BindingRecord>("/v1/bindings").await;
    LocalAnnouncements::new(is_node, &bindings.unwrap_or_default(), Timestamp::now())
}

fn warn_of_local_announcements(speaker: &LocalAnnouncements, assigned: &[TargetRange]) {
    let addresses = assigned.iter().flat_map(|lot| lot.first..=lot.last);
    let unheard = addresses.filter(|&address| {
        let ip = IpAddr::V4(address.into());
        speaker.may_announce(ip)
    });
    let number = unheard.count();
    if number > 0 {
        print_status(&format!(
            "{number} of them this host may announce itself, and its speaker does not hear its own host: if nobody answers for \
             those, nothing is known; another node can tell"
        ));
    }
}

/// This host's own addresses, and its neighbours.
pub async fn add_host_macs(roster: &mut NodeIndex, network: &HostNetwork) {
    for egress in network.ports() {
        for (&address, &mac) in &egress.held {
            roster.add_mac(address.into(), mac);
        }
    }
    let Ok(neighbours) = network.neighbours().await else {
        return;
    };
    let addresses: Vec<_> = roster
        .nodes()
        .iter()
        .flat_map(|node| node.addresses.clone())
        .collect();
    for address in addresses {
        let IpAddr::V4(v4) = address else { continue };
        for egress in 0..network.ports().len() {
            if let Some(mac) = neighbours.get(egress, v4) {
                roster.add_mac(address, mac);
            }
        }
    }
}

/// Who answered for the addresses of nodes.
pub fn add_check_macs(roster: &mut NodeIndex, records: &[CheckRecord]) {
    for record in records {
        if record.asked > 0 {
            roster.asked(record.ip.into());
        }
        for owner in &record.owners {
            if owner.holds || owner.answers > 0 {
                for &mac in &owner.macs {
                    roster.add_mac(record.ip.into(), mac);
                }
            }
        }
    }
}
