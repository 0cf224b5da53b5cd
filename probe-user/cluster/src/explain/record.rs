//! An explanation, as `probe explain -o json` writes it.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use probe_common::{label_enum, wire::MacAddr};
use probe_model::{
    AnnouncementMode, CheckRecord, ClusterCause, ConflictRecord, FindingRecord, NamespacedName,
    NextStep,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ClusterSource;
use crate::{Resource, snapshot::Freshness};

label_enum! {
    /// The status of an address.
    pub enum AddressStatus {
        /// More than one host owns it, or the daemon has a conflict open.
        Conflict = "conflict",
        /// Two hosts reply with the MACs of one virtual router.
        Contested = "contested",
        /// A service has it, and its owner is no node of the cluster.
        WrongOwner = "wrong_owner",
        /// A service has it, it is announced by ARP, and no host replies.
        Silent = "silent",
        /// It is in a pool, no service has it, and a host owns it.
        Claimed = "claimed",
        /// Exactly one host owns it, and nothing shows that it should be another.
        OneOwner = "one_owner",
        /// No host replies, and no service has it.
        Free = "free",
        /// It is on another segment, or not resolved by ARP.
        NotLocal = "not_local",
        /// It could not be probed, and the daemon knows no owner, or the link is down.
        Unknown = "unknown",
    }
}

label_enum! {
    /// What an owner does with an address.
    pub enum OwnerActivity {
        /// It is this host, and has the address configured.
        Holds = "holds",
        /// It is this host, and a speaker on it announces the address, as the daemon observed.
        Announces = "announces",
        /// It replied during the check.
        Replies = "replies",
        /// It claimed the address during the check, and did not reply.
        Claims = "claims",
        /// The daemon knows it; it was not probed, or did not reply.
        Known = "known",
    }
}

impl OwnerActivity {
    /// Whether it owns the address now, as far as the check shows.
    pub const fn is_owner(self) -> bool {
        match self {
            Self::Holds | Self::Announces | Self::Replies => true,
            Self::Claims | Self::Known => false,
        }
    }
}

/// Everything about one address: one JSON object. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// When it was explained.
    pub time: Timestamp,
    /// The address.
    pub ip: IpAddr,
    /// The status.
    pub status: AddressStatus,
    /// The same in a sentence.
    pub summary: String,
    /// The owners.
    pub owners: Vec<ExplainedOwnerRecord>,
    /// The result of the check, as `probe check` writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckRecord>,
    /// Why it was not probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_probed: Option<String>,
    /// The services that have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ExplainedServiceRecord>,
    /// The pool that it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<ExplainedPoolRecord>,
    /// How it is announced; only if a cluster is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<AnnouncementMode>,
    /// The nodes that announce it by MetalLB's status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announcers: Vec<String>,
    /// The cause of the conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<ClusterCause>,
    /// The conflict that the daemon has open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<ConflictRecord>,
    /// The findings of the daemon about it, the oldest first, as `probe history` writes them.
    pub history: Vec<FindingRecord>,
    /// The drift about it, as the daemon writes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drifts: Vec<Value>,
    /// The next steps.
    pub next: Vec<NextStep>,
    /// The source of the cluster data; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterSourceRecord>,
    /// The inputs that are missing, and why.
    pub gaps: Vec<String>,
}

/// An owner of the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedOwnerRecord {
    /// Its MACs, the one observed last first.
    pub macs: Vec<MacAddr>,
    /// The vendor of the first MAC that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Cow<'static, str>>,
    /// Its node of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Whether it is certainly no node; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<bool>,
    /// Whether it is this host.
    pub local: bool,
    /// What it does with the address.
    pub activity: OwnerActivity,
    /// When it was first observed with the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Timestamp>,
    /// When it was last observed with the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

/// A service that has the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedServiceRecord {
    /// Its name.
    #[serde(flatten)]
    pub named: NamespacedName,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When it was last assigned addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<Timestamp>,
    /// Whether it requests this address; otherwise it was assigned automatically.
    pub requested: bool,
    /// `spec.loadBalancerClass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The key with which it may share the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing_key: Option<String>,
    /// Whether only nodes with an endpoint of it announce it (`externalTrafficPolicy: Local`).
    pub external_traffic_policy_local: bool,
}

/// The pool that the address is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedPoolRecord {
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The kind of its object.
    pub kind: String,
    /// Its ranges, as they are written.
    pub ranges: Vec<String>,
}

impl ExplainedPoolRecord {
    /// `namespace/name`.
    pub fn title(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// The source of the cluster data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSourceRecord {
    /// The source.
    pub source: ClusterSource,
    /// The context of the kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The freshness of each resource.
    pub freshness: BTreeMap<Resource, Freshness>,
    /// The number of nodes; absent if they could not be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<usize>,
}
