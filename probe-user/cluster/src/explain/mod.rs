//! Explains one address: its owners, the expected owner, the history, the likely cause, and the next steps.
//!
//! [`ExplainInputs`] are collected from ARP probes, the daemon and the cluster; [`explain`] evaluates them without I/O.

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
    AddressStatus, ClusterSourceRecord, ExplainedOwnerRecord, ExplainedPoolRecord,
    ExplainedServiceRecord, Explanation, OwnerActivity,
};
use serde_json::Value;

use crate::{ClusterSnapshot, NodeIndex, local_announcements::LocalAnnouncements};

/// The result of probing an address, or why it was not probed.
#[derive(Clone, Debug)]
pub enum ProbeAvailability {
    /// It was probed.
    Probed(Box<CheckRecord>),
    /// Probing is disabled.
    Disabled,
    /// It cannot be probed from here: it is on another segment, or not resolved by ARP.
    OtherSegment(String),
    /// The interface is down or has no carrier.
    LinkDown(String),
    /// It could not be probed.
    Impossible(String),
}

label_enum! {
    /// The source of the cluster data.
    pub enum ClusterSource {
        /// The daemon on this host.
        Daemon = "daemon",
        /// The API server, by kubeconfig.
        Kubeconfig = "kubeconfig",
        /// The API server, by the account of the pod that this runs in.
        Pod = "pod",
    }
}

/// The cluster data.
#[derive(Debug)]
pub struct ClusterInputs {
    /// The snapshot of its objects.
    pub cluster: ClusterSnapshot,
    /// The MACs of the nodes.
    pub nodes_by_mac: NodeIndex,
    /// Whether the nodes could be read.
    pub nodes_known: bool,
    /// The source.
    pub source: ClusterSource,
    /// The context of the kubeconfig.
    pub context: Option<String>,
    /// The drift about this address, by the daemon.
    pub drifts: Vec<Value>,
}

/// The data of the daemon.
#[derive(Clone, Debug, Default)]
pub struct DaemonInputs {
    /// Its bindings for this address, one for each segment.
    pub bindings: Vec<BindingRecord>,
    /// Its findings about this address, the oldest first.
    pub history: Vec<FindingRecord>,
}

/// The inputs of an explanation.
#[derive(Debug)]
pub struct ExplainInputs {
    /// The address.
    pub ip: IpAddr,
    /// The current time.
    pub now: Timestamp,
    /// The result of probing.
    pub probe_availability: ProbeAvailability,
    /// The networks of the segment that it was probed on.
    pub networks: Vec<IpNet>,
    /// The data of the daemon, or why there is none.
    pub daemon: Result<DaemonInputs, String>,
    /// What a speaker on this host announces, which probes from this host do not show.
    pub speaker: LocalAnnouncements,
    /// The cluster data, or why there is none; `Err(None)` if none is wanted.
    pub cluster: Result<ClusterInputs, Option<String>>,
}
