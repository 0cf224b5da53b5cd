//! One address, explained: who has it, who should, since when not, why, and what to do.
//!
//! What is known comes as a [`Material`], gathered from whoever has something to say: the wire, the daemon, the
//! cluster. What follows from it is an [`Explanation`], without asking anybody.

mod judge;
mod next;
mod record;

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
pub use judge::explain;
use probe_common::label_enum;
use probe_model::{BindingRecord, CheckRecord, FindingRecord};
pub use record::{
    Explanation, KnowledgeRecord, OwnerRecord, Part, PoolRecord, ServiceRecord, Situation,
};
use serde_json::Value;

use crate::{Cluster, Roster, speaker::Speaker};

/// What asking came to.
#[derive(Clone, Debug)]
pub enum Asking {
    /// It was asked.
    Asked(Box<CheckRecord>),
    /// Nobody wanted it asked.
    NotWanted,
    /// It has no owner that could be asked from here, whatever the reason: another segment, or no ARP at all.
    Elsewhere(String),
    /// It could not be asked.
    Impossible(String),
}

label_enum! {
    /// Who said what is known of the cluster.
    pub enum Source {
        /// The daemon on this host.
        Daemon = "daemon",
        /// The API server, by kubeconfig.
        Kubeconfig = "kubeconfig",
        /// The API server, by the account of the pod that this runs in.
        Pod = "pod",
    }
}

/// What is known of the cluster.
#[derive(Debug)]
pub struct ClusterMaterial {
    /// What the API server said.
    pub cluster: Cluster,
    /// Which MAC is which node's.
    pub roster: Roster,
    /// Whether the nodes could be read.
    pub nodes_known: bool,
    /// Who said so.
    pub source: Source,
    /// Of which context, where several are to choose from.
    pub context: Option<String>,
    /// What is not as it should be with this address, by the daemon.
    pub drifts: Vec<Value>,
}

/// What the daemon knows.
#[derive(Clone, Debug, Default)]
pub struct DaemonMaterial {
    /// What it knows of this address, on each segment that it has it on.
    pub bindings: Vec<BindingRecord>,
    /// What it found about this address, the oldest first.
    pub history: Vec<FindingRecord>,
}

/// All that is known.
#[derive(Debug)]
pub struct Material {
    /// Which address.
    pub ip: IpAddr,
    /// When this is.
    pub now: Timestamp,
    /// What asking came to.
    pub asking: Asking,
    /// The networks of the segment that it was asked on.
    pub networks: Vec<IpNet>,
    /// The daemon's, or why there is nothing.
    pub daemon: Result<DaemonMaterial, String>,
    /// What a load balancer on this host announces, which asking does not find out.
    pub speaker: Speaker,
    /// The cluster's, or why there is nothing: nothing to say about it, if there is none.
    pub cluster: Result<ClusterMaterial, Option<String>>,
}
