//! An explanation with the names that the world outside knows: one JSON object.

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
    /// How it stands with an address.
    pub enum Situation {
        /// More than one machine has it, or the daemon has a conflict open.
        Conflict = "conflict",
        /// A service has it, and the machine that answers is no node of the cluster.
        UnassignedOwner = "foreign",
        /// A service has it, it is announced by ARP, and nobody answers.
        Silent = "silent",
        /// It is in a pool, no service has it, and somebody answers.
        Claimed = "claimed",
        /// Exactly one machine has it, and nothing says that it should be another.
        Healthy = "fine",
        /// Nobody has it, and nobody should.
        Free = "free",
        /// It is not this segment's, or not a matter of ARP.
        NotLocal = "elsewhere",
        /// It could not be asked, and nobody else knows.
        Unknown = "unknown",
    }
}

label_enum! {
    /// What an owner does about an address.
    pub enum OwnerPart {
        /// It is this host, and has the address configured.
        Holds = "holds",
        /// It answered just now.
        Replies = "answers",
        /// It claimed the address just now, and did not answer.
        Claims = "claims",
        /// The daemon knows it; it was not asked, or did not answer.
        Known = "known",
    }
}

/// Everything about one address: one JSON object. Names are stable; fields may be added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// When it was found out.
    pub time: Timestamp,
    /// Which address.
    pub ip: IpAddr,
    /// How it stands.
    pub situation: Situation,
    /// The same in a sentence.
    pub says: String,
    /// Who has it.
    pub owners: Vec<ExplainedOwnerRecord>,
    /// What asking found out, as `probe check` writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckRecord>,
    /// Why it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_probed: Option<String>,
    /// The services that have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ExplainedServiceRecord>,
    /// The pool that it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<ExplainedPoolRecord>,
    /// How it is announced; only where a cluster is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<AnnouncementMode>,
    /// The nodes that MetalLB says announce it: a witness.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announcers: Vec<String>,
    /// Why it is in dispute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<ClusterCause>,
    /// The conflict that the daemon has open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<ConflictRecord>,
    /// What the daemon found about it, the oldest first, as `probe history` writes it.
    pub history: Vec<FindingRecord>,
    /// What else is not as it should be, as the daemon writes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drifts: Vec<Value>,
    /// What to do.
    pub next: Vec<NextStep>,
    /// How the cluster is known; absent if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterSourceRecord>,
    /// What could not be found out, and why.
    pub gaps: Vec<String>,
}

/// Somebody who has the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedOwnerRecord {
    /// Its MACs, the one heard last first.
    pub macs: Vec<MacAddr>,
    /// The registered maker of the first MAC that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Cow<'static, str>>,
    /// The node of the cluster that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Whether it is certainly none; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stranger: Option<bool>,
    /// Whether it is this host.
    pub local: bool,
    /// What it does about the address.
    pub part: OwnerPart,
    /// When it was first heard with the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Timestamp>,
    /// When it was last heard with the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

/// A service that has the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedServiceRecord {
    /// Which.
    #[serde(flatten)]
    pub named: NamespacedName,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When it was last given addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<Timestamp>,
    /// Whether somebody asked for this address; else it was assigned.
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
    /// Where it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What defines it.
    pub kind: String,
    /// Its ranges, as they are written.
    pub ranges: Vec<String>,
}

impl ExplainedPoolRecord {
    /// As people write it.
    pub fn title(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// How the cluster is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSourceRecord {
    /// Who said so.
    pub source: ClusterSource,
    /// Of which context of kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// How well each resource is known.
    pub freshness: BTreeMap<Resource, Freshness>,
    /// How many nodes are known; absent if their list is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<usize>,
}
