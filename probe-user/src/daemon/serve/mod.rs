//! HTTP on TCP: `/metrics`, `/healthz`, `/readyz` and nothing else. The inventory of the network is not for every host
//! on it: it is served on the Unix socket ([`serve_api`]).

mod api;
mod connections;
mod metrics;
mod socket;
mod state;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{RawQuery, State},
    http::{
        StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;
use jiff::Timestamp;
use probe_datapath::CounterReader;
use probe_kubernetes::ClusterHandle;
use probe_model::{Links, watched::WatchedInterfaces};
use probe_network::neighbours::NeighbourReader;
use probe_notify::NotificationCounts;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

pub use self::{
    api::{
        ApiSources, ClusterObjectsRecord, MAX_API_CONNECTIONS, MissedRecord, serve as serve_api,
    },
    connections::SlotRefusal,
    socket::{ApiSocket, ApiSocketError, DEFAULT_PATH},
    state::{InterfaceRecord, LinkState, StatusRecord},
};
use self::{
    connections::{ClientSlots, peer_of, serve_connection},
    metrics::{AddressMetrics, MetricsInputs},
};
use crate::{
    daemon::{
        annotate::{Annotator, NodeListSource},
        drift_reconciler::ClusterStatusHandle,
        drill::DrillSlot,
        health::{HealthRegistry, HealthReport},
        monitor::{MonitorHandle, MonitorStopped},
    },
    log_writer::LogWriter,
};

/// Time limit for a scrape in the queue, and for a reply of detection.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of pages of metrics that are encoded concurrently. Further ones wait.
const MAX_ENCODINGS: usize = 1;

/// Maximum number of pages of metrics in memory until they are sent. Further ones wait.
const MAX_PAGES: usize = 4;

/// Maximum number of TCP connections. Further ones are closed.
pub const MAX_TCP_CONNECTIONS: usize = 128;

/// Maximum number of TCP connections from one host. Further ones are closed.
const MAX_TCP_CONNECTIONS_PER_PEER: usize = 16;

/// Maximum duration of a TCP connection; a Prometheus server then opens a new one.
const TCP_CONNECTION_LIMIT: Duration = Duration::from_mins(1);

/// Time limit for a TCP client that reads nothing.
const TCP_STALL_LIMIT: Duration = Duration::from_secs(10);

/// The delay after a failed accept, most likely because file descriptors are exhausted.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The sources of the handlers.
#[derive(Clone)]
pub struct MetricsSources {
    /// Detection.
    pub monitor: MonitorHandle,
    /// The kernel side's counters.
    pub counters: CounterReader,
    /// The watched interfaces.
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
    /// All interfaces.
    pub links: watch::Receiver<Arc<Links>>,
    /// The neighbour tables of the kernel.
    pub neighbours: NeighbourReader,
    /// The running drill.
    pub drills: DrillSlot,
    /// The annotator, if there is a cluster.
    pub annotator: Option<Annotator>,
    /// Maximum number of addresses of a kind with series of their own.
    pub addresses: usize,
    /// The counts of notifications.
    pub notifications: Arc<NotificationCounts>,
    /// The status of the cluster.
    pub cluster_status: ClusterStatusHandle,
    /// The outcome of the last load of the settings.
    pub config: watch::Receiver<ConfigOutcome>,
    /// The cluster data.
    pub cluster: ClusterHandle,
    /// The health of the components.
    pub health: HealthRegistry,
    /// Standard output and standard error.
    pub log_writers: Vec<LogWriter>,
    /// The counts of rejected connections.
    pub refused_connections: Arc<RefusedConnections>,
}

/// Connections that were closed because there were too many.
#[derive(Debug, Default)]
pub struct RefusedConnections {
    per_peer: AtomicU64,
    total: AtomicU64,
    api: AtomicU64,
}

impl RefusedConnections {
    fn count(&self, refusal: SlotRefusal) {
        let count = match refusal {
            SlotRefusal::PerPeer => &self.per_peer,
            SlotRefusal::Total => &self.total,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn count_api(&self) {
        self.api.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts, by server and reason.
    fn all(&self) -> [([&'static str; 2], u64); 3] {
        [
            (["metrics", "per_peer"], &self.per_peer),
            (["metrics", "total"], &self.total),
            (["api", "total"], &self.api),
        ]
        .map(|(labels, count)| (labels, count.load(Ordering::Relaxed)))
    }
}

/// The outcome of the last load of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigOutcome {
    /// Whether the last load succeeded.
    pub successful: bool,
    /// The time of the last successful load.
    pub success: Timestamp,
}

/// The shared state of the handlers.
#[derive(Clone)]
struct MetricsServer {
    sources: MetricsSources,
    encodings: Arc<Semaphore>,
    pages: ClientSlots<IpAddr>,
}

/// Binds the address, so that a port in use is an error at start.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves for as long as the listener works, on the runtime that it runs on.
pub async fn serve(listener: std::net::TcpListener, sources: MetricsSources) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot serve /metrics, /healthz and /readyz");
            return;
        }
    };
    let refused = sources.refused_connections.clone();
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(MetricsServer {
            sources,
            encodings: Arc::new(Semaphore::new(MAX_ENCODINGS)),
            pages: ClientSlots::new(MAX_PAGES, 1),
        });
    let slots = ClientSlots::new(MAX_TCP_CONNECTIONS, MAX_TCP_CONNECTIONS_PER_PEER);
    // The connections end with the server.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "no connection accepted");
                sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let peer = peer_of(address.ip());
        let slot = match slots.take(peer) {
            Ok(slot) => slot,
            Err(refusal) => {
                refused.count(refusal);
                continue;
            }
        };
        let router = router.clone().layer(Extension(Peer(peer)));
        connections.spawn(async move {
            let connection = serve_connection(stream, router, TCP_STALL_LIMIT);
            match timeout(TCP_CONNECTION_LIMIT, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, %peer, "a connection failed"),
                Err(_) => tracing::debug!(%peer, "a connection took too long"),
            }
            drop(slot);
        });
    }
}

/// The host that a request comes from.
#[derive(Clone, Copy, Debug)]
struct Peer(IpAddr);

async fn metrics(
    State(server): State<MetricsServer>,
    Extension(Peer(peer)): Extension<Peer>,
) -> Response {
    // Each host has at most one page, so that a host that does not read leaves capacity for others.
    let deadline = Instant::now() + SCRAPE_TIMEOUT;
    let page = match server.pages.take_until(peer, deadline).await {
        Ok(page) => page,
        Err(refusal) => {
            server.sources.refused_connections.count(refusal);
            return unavailable("too many scrapes at once");
        }
    };
    // Scraping takes one core at most.
    let Ok(Ok(_turn)) = timeout(SCRAPE_TIMEOUT, server.encodings.acquire()).await else {
        return unavailable("too many scrapes at once");
    };
    let Ok(Ok(inputs)) = timeout(SCRAPE_TIMEOUT, collect_inputs(server.sources)).await else {
        return unavailable("detection does not reply");
    };
    // Read the maps and encode on a blocking thread.
    let encoded = tokio::task::spawn_blocking(move || metrics::encode(&inputs));
    match encoded.await {
        Ok(Ok(pieces)) => text(pieces, page),
        Ok(Err(error)) => unavailable(&error.to_string()),
        Err(error) => unavailable(&error.to_string()),
    }
}

/// The page as a response, which owns `guard` until it is sent.
fn text(pieces: Vec<String>, kept: impl Send + 'static) -> Response {
    let length: usize = pieces.iter().map(String::len).sum();
    let head = [
        (CONTENT_TYPE, prometheus::TEXT_FORMAT.to_owned()),
        (CONTENT_LENGTH, length.to_string()),
    ];
    let pieces = stream::unfold((pieces.into_iter(), kept), |(mut pieces, kept)| async {
        let piece = pieces.next()?;
        Some((Ok::<_, Infallible>(piece), (pieces, kept)))
    });
    (head, Body::from_stream(pieces)).into_response()
}

async fn collect_inputs(sources: MetricsSources) -> Result<MetricsInputs, MonitorStopped> {
    let snapshot = sources.monitor.snapshot().await?;
    let statistics = &snapshot.statistics;
    let addresses = AddressMetrics::read(&sources.monitor, statistics, sources.addresses).await?;
    let neighbours = if addresses.any_tracked() {
        sources.neighbours.read().await
    } else {
        Arc::default()
    };
    let knowledge = match &sources.annotator {
        Some(annotator) => Some(annotator.resolve(NodeListSource::Cached).await),
        None => None,
    };
    Ok(MetricsInputs {
        knowledge,
        snapshot,
        addresses,
        watched: sources.watched.borrow().clone(),
        links: sources.links.borrow().clone(),
        neighbours,
        drill: sources.drills.current(),
        cluster_status: sources.cluster_status.snapshot(),
        most: sources.addresses,
        notifications: sources.notifications,
        config: *sources.config.borrow(),
        cluster: sources.cluster,
        counters: sources.counters,
        log_writers: sources.log_writers,
        refused_connections: sources.refused_connections,
    })
}

/// Liveness: no component is in a state that only a restart may fix.
async fn healthz(State(server): State<MetricsServer>, RawQuery(query): RawQuery) -> Response {
    let report = server.sources.health.report().await;
    health_response(&report, report.is_live(), query.as_deref())
}

/// Readiness: frames are received on all required interfaces, and detection works.
async fn readyz(State(server): State<MetricsServer>, RawQuery(query): RawQuery) -> Response {
    let report = server.sources.health.report().await;
    health_response(&report, report.is_ready(), query.as_deref())
}

fn health_response(report: &HealthReport, is_good: bool, query: Option<&str>) -> Response {
    let status = if is_good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let is_verbose = query.is_some_and(|query| query.split('&').any(|word| word == "verbose"));
    if is_verbose {
        return (status, Json(report)).into_response();
    }
    let first = if is_good { "ok" } else { "not ok" };
    (status, format!("{first}\n{}", report.problems())).into_response()
}

fn unavailable(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}
