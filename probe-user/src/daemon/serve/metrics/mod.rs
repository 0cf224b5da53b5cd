//! The metrics, computed at each scrape from the counters of the kernel and the state of detection.

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

/// Why the metrics could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The kernel's counters could not be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The encoder rejected the metrics of the process.
    #[error("cannot encode the metrics: {0}")]
    Encode(#[from] prometheus::Error),
}

/// The inputs of a scrape.
pub struct MetricsInputs {
    /// The snapshot of the monitor.
    pub snapshot: MonitorSnapshot,
    /// The addresses with series of their own.
    pub addresses: AddressMetrics,
    /// The watched interfaces.
    pub watched: Arc<WatchedInterfaces>,
    /// All interfaces.
    pub links: Arc<Links>,
    /// The neighbour tables of the kernel.
    pub neighbours: Arc<NeighbourTable>,
    /// The running drill.
    pub drill: Option<Arc<FindingRecord>>,
    /// The view of the cluster, if there is one.
    pub knowledge: Option<ClusterView>,
    /// The counts of notifications.
    pub notifications: Arc<NotificationCounts>,
    /// The status of the cluster, if this node is the leader.
    pub cluster_status: Option<ClusterStatus>,
    /// Maximum number of pools and drifts with series of their own.
    pub most: usize,
    /// The outcome of the last load of the settings.
    pub config: ConfigOutcome,
    /// The cluster data.
    pub cluster: ClusterHandle,
    /// Reads the kernel's counters.
    pub counters: CounterReader,
    /// Standard output and standard error.
    pub log_writers: Vec<LogWriter>,
    /// The counts of rejected connections.
    pub refused_connections: Arc<RefusedConnections>,
}

/// The text of a scrape in chunks, which are not joined because they may be megabytes.
pub fn encode(inputs: &MetricsInputs) -> Result<Vec<String>, MetricsError> {
    let MetricsInputs {
        snapshot,
        watched,
        links,
        ..
    } = inputs;
    let context = addresses::MetricsContext {
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
    pieces.extend(addresses::families(&inputs.addresses, context));
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

/// The counts of dropped log lines and rejected connections.
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

/// The resource usage of this process, with the standard names of Prometheus.
fn process() -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&ProcessCollector::for_self().collect())
}
