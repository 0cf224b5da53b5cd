//! What a cluster adds to a finding: whose address it is, and why it is in dispute.

use probe_common::label_enum;
use serde::{Deserialize, Serialize};

/// A namespace and a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// As people write it: `shop/frontend`.
impl std::fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How an address is announced, by what the cluster says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnouncementMode {
    /// By ARP, perhaps by BGP as well.
    Layer2,
    /// By BGP only: nobody answers for it here.
    Bgp,
    /// Its pool is advertised by nobody.
    NotAnnounced,
    /// Nothing says so: no pool of MetalLB's holds it.
    Unknown,
}

/// Whose address it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressContext {
    /// The services that have it: none, if it is only in a pool; several may share it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<NamespacedName>,
    /// The pool that it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<NamespacedName>,
    /// How it is announced.
    pub announced: AnnouncementMode,
    /// The nodes that MetalLB says announce it: a witness.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announcers: Vec<String>,
    /// Why it is in dispute; only findings of that sort have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<ClusterCause>,
}

/// Why an address is in dispute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterCause {
    /// The likely reason.
    pub kind: CauseKind,
    /// Where the other owner belongs.
    pub scope: CauseScope,
    /// What says so, a sentence each.
    pub evidence: Vec<String>,
}

label_enum! {
    /// Likely reasons for an address of a cluster having more than one owner. Each has an entry in the runbook.
    pub enum CauseKind {
        /// A node has the address on an interface, beside the node that announces it.
        NodeAddress = "node_address",
        /// A speaker goes on announcing an address that is no longer its own.
        StaleSpeaker = "stale_speaker",
        /// More than one installation of an announcer is in the cluster.
        SeveralInstalls = "multiple_installations",
        /// Two nodes announce the address because they do not see each other.
        SplitBrain = "split_brain",
        /// A machine that is no node has the address.
        ExternalDevice = "external_device",
        /// The announcer of another cluster has the address.
        OtherCluster = "other_cluster",
        /// Services have one address without a key that lets them share it.
        SharedWithoutKey = "shared_without_key",
        /// A node answers for addresses of all of its interfaces on each of them.
        ArpFlux = "arp_flux",
        /// Every node answers for the addresses of services: kube-proxy in IPVS mode without `strictARP`.
        IpvsStrictArp = "ipvs_strict_arp",
        /// What is known does not say.
        Unknown = "unknown",
    }
}

label_enum! {
    /// Where those who dispute an address belong.
    pub enum CauseScope {
        /// All are nodes of this cluster.
        Internal = "internal",
        /// One is no part of any cluster that is known.
        External = "external",
        /// One is an announcer of another cluster.
        CrossCluster = "cross_cluster",
        /// It is not known which machines they are.
        Unknown = "unknown",
    }
}
