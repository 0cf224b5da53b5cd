//! What is expected of each address, and by whom.

use std::{collections::HashMap, net::Ipv4Addr};

use ipnet::IpNet;
use probe_cluster::{
    ClusterSnapshot, NodeIndex, Resource, local_announcements::LocalAnnouncements,
};
use probe_common::wire::MacAddr;
use probe_model::{AnnouncementMode, CheckRecord, CheckVerdict};
use probe_prober::check::{CheckMode, CheckResult, EgressInterface};

use super::expectation::ExpectedVerdict;
use crate::daemon::annotate;

/// The class of services that Cilium announces by ARP.
const CILIUM_LAYER_2: &str = "io.cilium/l2-announcer";

/// What is expected of each address.
pub enum CheckContext {
    /// Of all the same.
    Plain(ExpectedVerdict),
    /// What a cluster wants.
    Cluster(Box<ClusterCheckContext>),
}

/// What a cluster wants: of an address that a service has, one owner, a node; of any other of its pools, none.
pub struct ClusterCheckContext {
    cluster: ClusterSnapshot,
    roster: NodeIndex,
    speaker: LocalAnnouncements,
    /// By the name of an interface, the networks there.
    networks: HashMap<String, Vec<IpNet>>,
}

impl CheckContext {
    /// Nothing is expected.
    pub const fn none() -> Self {
        Self::Plain(ExpectedVerdict::Nothing)
    }

    /// The MAC with which a load balancer on this host announces an address, if it does.
    pub fn locally_announced(&self, ip: Ipv4Addr) -> Option<MacAddr> {
        match self {
            Self::Plain(_) => None,
            Self::Cluster(context) => context.speaker.announces(ip.into()),
        }
    }

    /// Adds to a record what is known from elsewhere.
    pub fn annotate(&self, record: &mut CheckRecord) {
        match self {
            Self::Plain(_) => {}
            Self::Cluster(context) => context.annotate(record),
        }
    }

    /// Whether what was expected is met; `None` if nothing was, or it cannot be known.
    pub fn is_met(
        &self,
        record: &CheckRecord,
        judgement: &CheckResult,
        manner: CheckMode,
    ) -> Option<bool> {
        match self {
            Self::Plain(expectation) => expectation.is_met(judgement, manner, record.asked),
            Self::Cluster(context) => context.is_met(record, judgement, manner),
        }
    }

    /// What was expected, in words.
    pub fn describe(&self, record: &CheckRecord, manner: CheckMode) -> String {
        match self {
            Self::Plain(expectation) => expectation.describe(manner),
            Self::Cluster(context) => context.describe(record, manner),
        }
    }
}

impl ClusterCheckContext {
    /// By what is known of the cluster, on these segments.
    pub fn new(
        cluster: ClusterSnapshot,
        roster: NodeIndex,
        speaker: LocalAnnouncements,
        ports: &[EgressInterface],
    ) -> Self {
        let networks = ports.iter().map(|egress| {
            let networks = egress.networks.iter().copied().map(IpNet::V4);
            (egress.name.clone(), networks.collect())
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
            let by_word = || self.cluster.reported_node(record.ip.into(), &owner.macs);
            let node = self.roster.node_of(&owner.macs).or_else(by_word);
            owner.node = node.map(str::to_owned);
        }
        record.cluster = annotate::context(&self.cluster, record.ip.into()).map(Box::new);
    }

    fn is_met(
        &self,
        record: &CheckRecord,
        judgement: &CheckResult,
        manner: CheckMode,
    ) -> Option<bool> {
        let met =
            |expectation: ExpectedVerdict| expectation.is_met(judgement, manner, record.asked);
        let ip = record.ip.into();
        if self.cluster.services_at(ip).next().is_none() {
            return met(ExpectedVerdict::Free);
        }
        let is_known = self.is_announced(record) && !self.speaker.may_announce(ip);
        if judgement.verdict == CheckVerdict::NoReply && !is_known {
            return None;
        }
        if met(ExpectedVerdict::Owner)? {
            self.is_node(record)
        } else {
            Some(false)
        }
    }

    /// Whether somebody has to announce it by ARP.
    fn is_announced(&self, record: &CheckRecord) -> bool {
        let ip = record.ip.into();
        match self.cluster.announced(ip) {
            AnnouncementMode::Layer2 => true,
            AnnouncementMode::Bgp => false,
            // There may be an advertisement that could not be read.
            AnnouncementMode::NotAnnounced => self.cluster.is_known(Resource::BgpAdvertisements),
            AnnouncementMode::Unknown => {
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

    fn describe(&self, record: &CheckRecord, manner: CheckMode) -> String {
        let mut services = self.cluster.services_at(record.ip.into());
        match services.next() {
            Some(service) => {
                let unadvertised = match self.cluster.announced(record.ip.into()) {
                    AnnouncementMode::NotAnnounced => ", and nothing advertises its pool",
                    AnnouncementMode::Layer2
                    | AnnouncementMode::Bgp
                    | AnnouncementMode::Unknown => "",
                };
                format!(
                    "{}, a node of the cluster: it is service {}'s{unadvertised}",
                    ExpectedVerdict::Owner.describe(manner),
                    service.named
                )
            }
            None => format!(
                "{}: no service has it",
                ExpectedVerdict::Free.describe(manner)
            ),
        }
    }
}
