//! The Kubernetes context of a finding: the service and pool of its address, and the cause of a dispute.

use probe_common::label_enum;
use serde::{Deserialize, Serialize};

/// The namespace and the name of a Kubernetes object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// Writes `namespace/name`.
impl std::fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How an address is announced, by the configuration of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnouncementMode {
    /// By ARP, and possibly by BGP as well.
    Layer2,
    /// By BGP only: no host replies for it on this segment.
    Bgp,
    /// Not at all: no advertisement selects its pool.
    NotAnnounced,
    /// Unknown: no MetalLB pool contains it.
    Unknown,
}

/// The service, pool and announcement of an address in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressContext {
    /// The services with this address: none if it is only in a pool, several if they share it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<NamespacedName>,
    /// The pool of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<NamespacedName>,
    /// How the address is announced.
    pub announced: AnnouncementMode,
    /// The nodes that announce it, by MetalLB's status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announcers: Vec<String>,
    /// The cause of the dispute; only in findings of a dispute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<ClusterCause>,
}

/// The likely cause of a dispute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterCause {
    /// The kind of cause.
    pub kind: CauseKind,
    /// Whether the other owner is part of the cluster.
    pub scope: CauseScope,
    /// The evidence for the cause, one sentence each.
    pub evidence: Vec<String>,
}

label_enum! {
    /// A likely cause for which an address of a cluster has more than one owner. Each has an entry in the runbook.
    pub enum CauseKind {
        /// A node has the address configured on an interface, in addition to the node that announces it.
        NodeAddress = "node_address",
        /// A speaker continues to announce an address that another node announces now.
        StaleSpeaker = "stale_speaker",
        /// The cluster has more than one installation of a load balancer's speakers.
        SeveralInstalls = "multiple_installations",
        /// Two nodes announce the address because their speakers cannot communicate.
        SplitBrain = "split_brain",
        /// A host outside the cluster has the address.
        ExternalDevice = "external_device",
        /// A speaker of another cluster announces the address.
        OtherCluster = "other_cluster",
        /// Several services have the same address without a common sharing key.
        SharedWithoutKey = "shared_without_key",
        /// A node replies on each interface for the addresses of all its interfaces.
        ArpFlux = "arp_flux",
        /// Every node replies for the addresses of services: kube-proxy in IPVS mode without `strictARP`.
        IpvsStrictArp = "ipvs_strict_arp",
        /// The cause is unknown.
        Unknown = "unknown",
    }
}

label_enum! {
    /// The relation of the owners in a dispute to the cluster.
    pub enum CauseScope {
        /// All owners are nodes of this cluster.
        Internal = "internal",
        /// One owner is not part of any known cluster.
        External = "external",
        /// One owner is a speaker of another cluster.
        CrossCluster = "cross_cluster",
        /// The owners are unknown hosts.
        Unknown = "unknown",
    }
}
