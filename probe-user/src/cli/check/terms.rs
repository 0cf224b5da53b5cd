//! What is expected of each address, and by whom.

use std::{collections::HashMap, net::Ipv4Addr};

use ipnet::IpNet;
use probe_cluster::{Cluster, Resource, Roster, speaker::Speaker};
use probe_common::wire::MacAddr;
use probe_model::{Announced, CheckRecord, Verdict};
use probe_prober::check::{Judgement, Manner, Port};

use super::expectation::Expectation;
use crate::daemon::annotate;

/// The class of services that Cilium announces by ARP.
const CILIUM_LAYER_2: &str = "io.cilium/l2-announcer";

/// What is expected of each address.
pub enum Terms {
    /// Of all the same.
    Plain(Expectation),
    /// What a cluster wants.
    Cluster(Box<ClusterTerms>),
}

/// What a cluster wants: of an address that a service has, one owner, a node; of any other of its pools, none.
pub struct ClusterTerms {
    cluster: Cluster,
    roster: Roster,
    speaker: Speaker,
    /// By the name of an interface, the networks there.
    networks: HashMap<String, Vec<IpNet>>,
}

impl Terms {
    /// Nothing is expected.
    pub const fn nothing() -> Self {
        Self::Plain(Expectation::Nothing)
    }

    /// The MAC with which a load balancer on this host announces an address, if it does.
    pub fn announced_here(&self, ip: Ipv4Addr) -> Option<MacAddr> {
        match self {
            Self::Plain(_) => None,
            Self::Cluster(terms) => terms.speaker.announces(ip.into()),
        }
    }

    /// Adds to a record what is known from elsewhere.
    pub fn annotate(&self, record: &mut CheckRecord) {
        match self {
            Self::Plain(_) => {}
            Self::Cluster(terms) => terms.annotate(record),
        }
    }

    /// Whether what was expected is met; `None` if nothing was, or it cannot be known.
    pub fn is_met(
        &self,
        record: &CheckRecord,
        judgement: &Judgement,
        manner: Manner,
    ) -> Option<bool> {
        match self {
            Self::Plain(expectation) => expectation.is_met(judgement, manner, record.asked),
            Self::Cluster(terms) => terms.is_met(record, judgement, manner),
        }
    }

    /// What was expected, in words.
    pub fn words(&self, record: &CheckRecord, manner: Manner) -> String {
        match self {
            Self::Plain(expectation) => expectation.words(manner),
            Self::Cluster(terms) => terms.words(record, manner),
        }
    }
}

impl ClusterTerms {
    /// By what is known of the cluster, on these segments.
    pub fn new(cluster: Cluster, roster: Roster, speaker: Speaker, ports: &[Port]) -> Self {
        let networks = ports.iter().map(|port| {
            let networks = port.networks.iter().copied().map(IpNet::V4);
            (port.name.clone(), networks.collect())
        });
        Self {
            cluster,
            roster,
            speaker,
            networks: networks.collect(),
        }
    }

    fn annotate(&self, record: &mut CheckRecord) {
        for owner in &mut record.owners {
            let by_word = || self.cluster.node_by_word(record.ip.into(), &owner.macs);
            let node = self.roster.node_of(&owner.macs).or_else(by_word);
            owner.node = node.map(str::to_owned);
        }
        record.cluster = annotate::context(&self.cluster, record.ip.into()).map(Box::new);
    }

    fn is_met(&self, record: &CheckRecord, judgement: &Judgement, manner: Manner) -> Option<bool> {
        let met = |expectation: Expectation| expectation.is_met(judgement, manner, record.asked);
        let ip = record.ip.into();
        if self.cluster.services_at(ip).next().is_none() {
            return met(Expectation::Free);
        }
        let is_known = self.is_announced(record) && !self.speaker.may_announce(ip);
        if judgement.verdict == Verdict::Nobody && !is_known {
            return None;
        }
        if met(Expectation::Owner)? {
            self.is_node(record)
        } else {
            Some(false)
        }
    }

    /// Whether somebody has to announce it by ARP.
    fn is_announced(&self, record: &CheckRecord) -> bool {
        let ip = record.ip.into();
        match self.cluster.announced(ip) {
            Announced::Layer2 => true,
            Announced::Bgp => false,
            // There may be an advertisement that could not be read.
            Announced::Nowhere => self.cluster.is_known(Resource::BgpAdvertisements),
            Announced::Unknown => {
                let mut services = self.cluster.services_at(ip);
                services.any(|service| {
                    let class = service.class.as_deref();
                    service.kube_vip_host.is_some() || class == Some(CILIUM_LAYER_2)
                })
            }
        }
    }

    /// Whether its owner is a node; `None` if that is not known.
    fn is_node(&self, record: &CheckRecord) -> Option<bool> {
        if record.owners.first()?.node.is_some() {
            return Some(true);
        }
        // It may be the node that should announce it, through another network card.
        let is_owner = |node: &str| {
            let mut owners = record.owners.iter();
            owners.any(|owner| owner.node.as_deref() == Some(node))
        };
        let unseen = self.cluster.unseen_announcers(record.ip.into(), is_owner);
        let networks = self.networks.get(&record.interface)?;
        (unseen.is_empty() && self.roster.is_complete_in(networks)).then_some(false)
    }

    fn words(&self, record: &CheckRecord, manner: Manner) -> String {
        let mut services = self.cluster.services_at(record.ip.into());
        match services.next() {
            Some(service) => {
                let unadvertised = match self.cluster.announced(record.ip.into()) {
                    Announced::Nowhere => ", and nothing advertises its pool",
                    Announced::Layer2 | Announced::Bgp | Announced::Unknown => "",
                };
                format!(
                    "{}, a node of the cluster: it is service {}'s{unadvertised}",
                    Expectation::Owner.words(manner),
                    service.named
                )
            }
            None => format!("{}: no service has it", Expectation::Free.words(manner)),
        }
    }
}
