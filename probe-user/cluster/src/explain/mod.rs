//! One address, explained: who has it, who should, since when not, why, and what to do.
//!
//! What is known comes as a [`ExplainInputs`], gathered from whoever has something to say: the wire, the daemon, the
//! cluster. What follows from it is an [`Explanation`], without asking anybody.

mod evaluate;
mod next_steps;
mod record;

use std::net::IpAddr;

pub use evaluate::explain;
use ipnet::IpNet;
use jiff::Timestamp;
use probe_common::label_enum;
use probe_model::{BindingRecord, CheckRecord, FindingRecord};
pub use record::{
    ClusterSourceRecord, ExplainedOwnerRecord, ExplainedPoolRecord, ExplainedServiceRecord,
    Explanation, OwnerPart, Situation,
};
use serde_json::Value;

use crate::{ClusterSnapshot, NodeIndex, local_announcements::LocalAnnouncements};

/// What asking came to.
#[derive(Clone, Debug)]
pub enum ProbeAvailability {
    /// It was asked.
    Probed(Box<CheckRecord>),
    /// Nobody wanted it asked.
    Disabled,
    /// It has no owner that could be asked from here, whatever the reason: another segment, or no ARP at all.
    OtherSegment(String),
    /// It could not be asked.
    Impossible(String),
}

label_enum! {
    /// Who said what is known of the cluster.
    pub enum ClusterSource {
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
pub struct ClusterInputs {
    /// What the API server said.
    pub cluster: ClusterSnapshot,
    /// Which MAC is which node's.
    pub roster: NodeIndex,
    /// Whether the nodes could be read.
    pub nodes_known: bool,
    /// Who said so.
    pub source: ClusterSource,
    /// Of which context, where several are to choose from.
    pub context: Option<String>,
    /// What is not as it should be with this address, by the daemon.
    pub drifts: Vec<Value>,
}

/// What the daemon knows.
#[derive(Clone, Debug, Default)]
pub struct DaemonInputs {
    /// What it knows of this address, on each segment that it has it on.
    pub bindings: Vec<BindingRecord>,
    /// What it found about this address, the oldest first.
    pub history: Vec<FindingRecord>,
}

/// All that is known.
#[derive(Debug)]
pub struct ExplainInputs {
    /// Which address.
    pub ip: IpAddr,
    /// When this is.
    pub now: Timestamp,
    /// What asking came to.
    pub probe_availability: ProbeAvailability,
    /// The networks of the segment that it was asked on.
    pub networks: Vec<IpNet>,
    /// The daemon's, or why there is nothing.
    pub daemon: Result<DaemonInputs, String>,
    /// What a load balancer on this host announces, which asking does not find out.
    pub speaker: LocalAnnouncements,
    /// The cluster's, or why there is nothing: nothing to say about it, if there is none.
    pub cluster: Result<ClusterInputs, Option<String>>,
}
