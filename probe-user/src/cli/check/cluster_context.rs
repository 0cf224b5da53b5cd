//! The expectation for each address, by the command line or by a cluster.

use std::{collections::HashMap, net::Ipv4Addr};

use ipnet::IpNet;
use probe_cluster::{
    ClusterSnapshot, NodeIndex, Resource, local_announcements::LocalAnnouncements,
};
use probe_common::wire::MacAddr;
use probe_model::{AnnouncementMode, CheckRecord, CheckStatus};
use probe_prober::check::{CheckMode, CheckResult, EgressInterface};

use super::expectation::CheckExpectation;
use crate::daemon::annotate;

/// The class of services that Cilium announces by ARP.
const CILIUM_LAYER_2: &str = "io.cilium/l2-announcer";

/// The expectation for each address, and what a speaker on this host announces.
pub enum CheckContext {
    /// One expectation for all addresses.
    Plain {
        /// The expectation.
        expected: CheckExpectation,
        /// What a speaker on this host announces.
        speaker: LocalAnnouncements,
    },
    /// Expectations by the services of a cluster.
    Cluster(Box<ClusterCheckContext>),
}

/// The expectations by a cluster: an address of a service has one owner, a node; any other address of a pool has none.
pub struct ClusterCheckContext {
    cluster: ClusterSnapshot,
    nodes: NodeIndex,
    speaker: LocalAnnouncements,
    /// The networks by the name of their interface.
    networks: HashMap<String, Vec<IpNet>>,
}

impl CheckContext {
    /// No expectation.
    pub const fn none(speaker: LocalAnnouncements) -> Self {
        Self::Plain {
            expected: CheckExpectation::Nothing,
            speaker,
        }
    }

    /// The MAC that a speaker on this host announces an address with.
    pub fn locally_announced(&self, ip: Ipv4Addr) -> Option<MacAddr> {
        let speaker = match self {
            Self::Plain { speaker, .. } => speaker,
            Self::Cluster(context) => &context.speaker,
        };
        speaker.announces(ip.into())
    }

    /// Adds nodes, service and pool to a record.
    pub fn annotate(&self, record: &mut CheckRecord) {
        match self {
            Self::Plain { .. } => {}
            Self::Cluster(context) => context.annotate(record),
        }
    }

    /// Whether the expectation is met; `None` without an expectation, or if that cannot be determined.
    pub fn is_met(
        &self,
        record: &CheckRecord,
        result: &CheckResult,
        mode: CheckMode,
    ) -> Option<bool> {
        match self {
            Self::Plain { expected, .. } => expected.is_met(result, mode, record.probes_sent),
            Self::Cluster(context) => context.is_met(record, result, mode),
        }
    }

    /// The expectation in words.
    pub fn describe(&self, record: &CheckRecord, mode: CheckMode) -> String {
        match self {
            Self::Plain { expected, .. } => expected.describe(mode),
            Self::Cluster(context) => context.describe(record, mode),
        }
    }
}

impl ClusterCheckContext {
    /// The expectations by a snapshot of the cluster, on these segments.
    pub fn new(
        cluster: ClusterSnapshot,
        nodes: NodeIndex,
        speaker: LocalAnnouncements,
        ports: &[EgressInterface],
    ) -> Self {
        let networks = ports.iter().map(|egress| {
            let networks = egress.networks.iter().copied().map(IpNet::V4);
            (egress.name.clone(), networks.collect())
        });
        Self {
            cluster,
            nodes,
            speaker,
            networks: networks.collect(),
        }
    }

    fn annotate(&self, record: &mut CheckRecord) {
        for owner in &mut record.owners {
            let by_word = || self.cluster.reported_node(record.ip.into(), &owner.macs);
            let node = self.nodes.node_of(&owner.macs).or_else(by_word);
            owner.node = node.map(str::to_owned);
        }
        record.cluster = annotate::context(&self.cluster, record.ip.into()).map(Box::new);
    }

    fn is_met(&self, record: &CheckRecord, result: &CheckResult, mode: CheckMode) -> Option<bool> {
        let met =
            |expectation: CheckExpectation| expectation.is_met(result, mode, record.probes_sent);
        let ip = record.ip.into();
        if self.cluster.services_at(ip).next().is_none() {
            return met(CheckExpectation::Free);
        }
        let is_known = self.is_announced(record) && !self.speaker.may_announce(ip);
        if result.status == CheckStatus::NoReply && !is_known {
            return None;
        }
        if met(CheckExpectation::Owner)? {
            self.is_node(record)
        } else {
            Some(false)
        }
    }

    /// Whether a node has to announce it by ARP.
    fn is_announced(&self, record: &CheckRecord) -> bool {
        let ip = record.ip.into();
        match self.cluster.announced(ip) {
            AnnouncementMode::Layer2 => true,
            AnnouncementMode::Bgp => false,
            // An advertisement may exist that could not be read.
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

    /// Whether its owner is a node; `None` if unknown.
    fn is_node(&self, record: &CheckRecord) -> Option<bool> {
        if record.owners.first()?.node.is_some() {
            return Some(true);
        }
        // It may be the node that should announce it, through another interface.
        let is_owner = |node: &str| {
            let mut owners = record.owners.iter();
            owners.any(|owner| owner.node.as_deref() == Some(node))
        };
        let unseen = self.cluster.unseen_announcers(record.ip.into(), is_owner);
        let networks = self.networks.get(&record.interface)?;
        (unseen.is_empty() && self.nodes.is_complete_in(networks)).then_some(false)
    }

    fn describe(&self, record: &CheckRecord, mode: CheckMode) -> String {
        let mut services = self.cluster.services_at(record.ip.into());
        match services.next() {
            Some(service) => {
                let unadvertised = match self.cluster.announced(record.ip.into()) {
                    AnnouncementMode::NotAnnounced => ", and no advertisement names its pool",
                    AnnouncementMode::Layer2
                    | AnnouncementMode::Bgp
                    | AnnouncementMode::Unknown => "",
                };
                format!(
                    "{}, a node of the cluster: it belongs to service {}{unadvertised}",
                    CheckExpectation::Owner.describe(mode),
                    service.named
                )
            }
            None => format!(
                "{}: no service has it",
                CheckExpectation::Free.describe(mode)
            ),
        }
    }
}
