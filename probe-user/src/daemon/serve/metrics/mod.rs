//! The metrics: made from what the kernel counts and what detection knows, at the moment of a scrape.

mod addresses;
mod cluster;
mod detection;
mod family;
mod interfaces;
mod kubernetes;
mod list;
mod notifications;

#[cfg(test)]
mod documentation;

use std::sync::Arc;

use probe_datapath::{CounterReader, KernelError};
use probe_kubernetes::ClusterHandle;
use probe_model::{FindingRecord, Links, watched::WatchedInterfaces};
use probe_network::neighbours::NeighbourTable;
use probe_notify::NotificationCounts;
use prometheus::{TextEncoder, core::Collector as _, process_collector::ProcessCollector};

pub use self::addresses::AddressMetrics;
use self::family::MetricFamily;
use super::{ConfigOutcome, RefusedConnections};
use crate::{
    daemon::{annotate::ClusterView, drift_reconciler::ClusterStatus, monitor::MonitorSnapshot},
    log_writer::LogWriter,
};

/// Why the metrics could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The kernel's counters could not be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The encoder refused those of the process.
    #[error("cannot encode the metrics: {0}")]
    Encode(#[from] prometheus::Error),
}

/// What a scrape is made from.
pub struct MetricsInputs {
    /// What the monitor knows.
    pub snapshot: MonitorSnapshot,
    /// The addresses with series of their own.
    pub addresses: AddressMetrics,
    /// The watched interfaces.
    pub watched: Arc<WatchedInterfaces>,
    /// All interfaces.
    pub links: Arc<Links>,
    /// What the kernel believes of its neighbours.
    pub neighbours: Arc<NeighbourTable>,
    /// The exercise that goes on.
    pub drill: Option<Arc<FindingRecord>>,
    /// What is known of the cluster, if there is one.
    pub knowledge: Option<ClusterView>,
    /// What is counted of notifications.
    pub notifications: Arc<NotificationCounts>,
    /// How it stands with the cluster, if this node is to say.
    pub cluster_status: Option<ClusterStatus>,
    /// How many pools and drifts have series of their own.
    pub most: usize,
    /// What came of reading the settings.
    pub config: ConfigOutcome,
    /// What is known of the cluster.
    pub cluster: ClusterHandle,
    /// Reads the kernel's counters.
    pub counters: CounterReader,
    /// Standard output and standard error.
    pub log_writers: Vec<LogWriter>,
    /// Connections that were refused.
    pub refused_connections: Arc<RefusedConnections>,
}

/// The text of a scrape, in pieces: it may be megabytes, which are not copied together for nothing.
pub fn encode(inputs: &MetricsInputs) -> Result<Vec<String>, MetricsError> {
    let MetricsInputs {
        snapshot,
        watched,
        links,
        ..
    } = inputs;
    let scene = addresses::MetricsContext {
        snapshot,
        watched,
        links,
        neighbours: &inputs.neighbours,
        drill: inputs.drill.as_deref(),
        knowledge: inputs.knowledge.as_ref(),
    };
    let mut pieces = vec![interfaces::info(watched, links)];
    pieces.extend(interfaces::counters(snapshot, watched, &inputs.counters)?);
    pieces.push(detection::families(snapshot));
    pieces.extend(addresses::families(&inputs.addresses, scene));
    pieces.push(notifications::families(&inputs.notifications));
    pieces.push(kubernetes::families(&inputs.cluster));
    pieces.push(cluster::families(
        inputs.cluster_status.as_ref(),
        inputs.most,
    ));
    pieces.push(config(inputs.config));
    pieces.push(overload(inputs));
    pieces.push(process()?);
    Ok(pieces)
}

fn config(outcome: ConfigOutcome) -> String {
    let mut successful = MetricFamily::new(list::CONFIG_SUCCESSFUL);
    successful.add([], u64::from(outcome.successful));
    let mut success = MetricFamily::new(list::CONFIG_SUCCESS);
    success.add([], u64::try_from(outcome.success.as_second()).unwrap_or(0));
    [successful.finish(), success.finish()].concat()
}

/// What was dropped or refused to bound what it costs.
fn overload(inputs: &MetricsInputs) -> String {
    let mut dropped = MetricFamily::new(list::LOG_DROPPED);
    for writer in &inputs.log_writers {
        let health = writer.health();
        dropped.add([health.name], health.dropped);
    }
    let mut refused = MetricFamily::new(list::CONNECTIONS_REFUSED);
    for (labels, count) in inputs.refused_connections.all() {
        refused.add(labels, count);
    }
    [dropped.finish(), refused.finish()].concat()
}

/// What this process takes, under the names that Prometheus' own libraries use.
fn process() -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&ProcessCollector::for_self().collect())
}
