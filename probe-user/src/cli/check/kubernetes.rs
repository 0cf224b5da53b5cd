//! `probe check --kubernetes`: is every address of the cluster where it should be?

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use jiff::Timestamp;
use probe_cluster::{Resource, Roster, speaker::Speaker};
use probe_model::{BindingRecord, CheckRecord};
use probe_prober::{
    ArpSocket,
    check::{Lot, Surroundings, Target, demand::Demand},
};

use super::{
    Arguments, go_on, quiet,
    terms::{ClusterTerms, Terms},
};
use crate::{
    cli::{Exit, cluster::KnownCluster, output::say, session::StopSignal},
    client::Client,
};

/// A sweep that takes longer than this says so before it begins, in seconds.
const WORTH_SAYING: u64 = 30;

/// Asks about every address of the cluster that is on-link here.
pub async fn check(arguments: &Arguments, only: &[Target]) -> anyhow::Result<Exit> {
    let mut stop = StopSignal::listen()?;
    // First of all, because without the capability nothing else is of use.
    let sender = ArpSocket::sender()?;
    let daemon = Client::new(&arguments.socket);
    let known = arguments.cluster.look(&daemon).await?;
    known.say_how_old();
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
    let demand = Demand::of(&cluster, only);
    let mut surroundings = Surroundings::look().await?;
    let interface = arguments.interface.as_deref();
    let (assigned, off) = surroundings
        .place_what_is_here(&demand.assigned, interface, arguments.vlan)
        .await?;
    let (free, off_free) = surroundings
        .place_what_is_here(&demand.free, interface, arguments.vlan)
        .await?;
    say_what_is_asked(arguments, &demand, &assigned, &free, off.len());
    if assigned.is_empty() && free.is_empty() {
        bail!(
            "no address of the cluster is on-link here: run it on a host that is in the network of its pools{}",
            first_of(&off, &off_free)
        );
    }
    if let Some(from) = arguments.from {
        surroundings.check_source(from)?;
    }
    let roster = roster(arguments, known, &surroundings, &mut stop).await?;
    let speaker = speaker(&daemon, &roster, &surroundings).await;
    say_what_cannot_be_heard(&speaker, &assigned);
    let terms = ClusterTerms::new(cluster, roster, speaker, surroundings.ports());
    let terms = Terms::Cluster(Box::new(terms));
    let lots = [assigned, free].concat();
    go_on(arguments, terms, sender, surroundings, lots, &mut stop).await
}

fn first_of(off: &[Target], off_free: &[Target]) -> String {
    let first = off.iter().chain(off_free).next();
    first.map_or_else(String::new, |first| format!(" ({first}, say)"))
}

fn say_what_is_asked(
    arguments: &Arguments,
    demand: &Demand,
    assigned: &[Lot],
    free: &[Lot],
    off: usize,
) {
    let [assigned, free] = [assigned, free].map(|lots| {
        let sizes = lots.iter().map(|lot| u64::from(lot.last - lot.first) + 1);
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
    say(&format!(
        "{assigned} addresses of services and {free} that no service has{left_out}"
    ));
    // Whoever keeps silent is asked once more.
    let seconds = (assigned + 2 * free) / u64::from(arguments.rate);
    if seconds > WORTH_SAYING {
        say(&format!(
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
async fn roster(
    arguments: &Arguments,
    known: KnownCluster,
    surroundings: &Surroundings,
    stop: &mut StopSignal,
) -> anyhow::Result<Roster> {
    let nodes = match known.nodes {
        Ok(nodes) => nodes,
        Err(why) => {
            say(&format!(
                "whether an owner is a node of the cluster is not known: {why}"
            ));
            return Ok(Roster::default());
        }
    };
    let mut roster = Roster::new(nodes);
    learn_from_host(&mut roster, surroundings).await;
    let networks: Vec<_> = surroundings
        .ports()
        .iter()
        .flat_map(|port| port.networks.iter().copied().map(IpNet::V4))
        .collect();
    let wanted: Vec<_> = roster
        .to_ask(&networks, &[])
        .into_iter()
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(Target::One(address)),
            IpAddr::V6(_) => None,
        })
        .collect();
    if wanted.is_empty() {
        return Ok(roster);
    }
    let mut around = Surroundings::look().await?;
    let interface = arguments.interface.as_deref();
    let (lots, _) = around
        .place_what_is_here(&wanted, interface, arguments.vlan)
        .await?;
    if lots.is_empty() {
        return Ok(roster);
    }
    let keeper = quiet::ask(around, lots, arguments.rate, None, stop).await;
    let keeper = keeper.context("cannot ask who the nodes are")?;
    learn_from_check(&mut roster, &keeper.records);
    Ok(roster)
}

/// What a load balancer on this host announces, as its daemon knows.
pub async fn speaker(daemon: &Client, roster: &Roster, surroundings: &Surroundings) -> Speaker {
    let mut own = surroundings.own_addresses();
    let is_node = own.any(|address| roster.node_at(address).is_some());
    // Without a daemon nothing is known of it.
    let bindings = daemon.list::<BindingRecord>("/v1/bindings").await;
    Speaker::new(is_node, &bindings.unwrap_or_default(), Timestamp::now())
}

fn say_what_cannot_be_heard(speaker: &Speaker, assigned: &[Lot]) {
    let addresses = assigned.iter().flat_map(|lot| lot.first..=lot.last);
    let unheard = addresses.filter(|&address| {
        let ip = IpAddr::V4(address.into());
        speaker.may_announce(ip)
    });
    let number = unheard.count();
    if number > 0 {
        say(&format!(
            "{number} of them this host may announce itself, and its speaker does not hear its own host: if nobody answers for \
             those, nothing is known; another node can tell"
        ));
    }
}

/// This host's own addresses, and its neighbours.
pub async fn learn_from_host(roster: &mut Roster, surroundings: &Surroundings) {
    for port in surroundings.ports() {
        for (&address, &mac) in &port.held {
            roster.learn(address.into(), mac);
        }
    }
    let Ok(neighbours) = surroundings.neighbours().await else {
        return;
    };
    let addresses: Vec<_> = roster
        .nodes()
        .iter()
        .flat_map(|node| node.addresses.clone())
        .collect();
    for address in addresses {
        let IpAddr::V4(v4) = address else { continue };
        for port in 0..surroundings.ports().len() {
            if let Some(mac) = neighbours.get(port, v4) {
                roster.learn(address, mac);
            }
        }
    }
}

/// Who answered for the addresses of nodes.
pub fn learn_from_check(roster: &mut Roster, records: &[CheckRecord]) {
    for record in records {
        if record.asked > 0 {
            roster.asked(record.ip.into());
        }
        for owner in &record.owners {
            if owner.holds || owner.answers > 0 {
                for &mac in &owner.macs {
                    roster.learn(record.ip.into(), mac);
                }
            }
        }
    }
}
