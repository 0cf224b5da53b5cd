//! HTTP on TCP: `/metrics`, `/healthz`, `/readyz` and nothing else. An inventory of the network is not
//! for everyone on it: that is on the Unix socket ([`serve_api`]).

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

/// How long a scrape may wait for its turn, and how long detection may take to reply.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages of metrics that are encoded at once. More wait.
const MAX_ENCODINGS: usize = 1;

/// Pages of metrics that are in memory at once, until they are sent. More wait.
const MAX_PAGES: usize = 4;

/// TCP connections at once. More are closed.
pub const MAX_TCP_CONNECTIONS: usize = 128;

/// TCP connections from one host at once. More are closed.
const MAX_TCP_CONNECTIONS_PER_PEER: usize = 16;

/// How long a TCP connection lasts at most: a Prometheus server then makes a new one.
const TCP_CONNECTION_LIMIT: Duration = Duration::from_mins(1);

/// How long a client of TCP may read nothing.
const TCP_STALL_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait when no connection can be accepted, for want of descriptors most likely.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// What the handlers read from.
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
    /// What the kernel believes of its neighbours.
    pub neighbours: NeighbourReader,
    /// The exercise that goes on.
    pub drills: DrillSlot,
    /// Who knows the cluster, if there is one.
    pub annotator: Option<Annotator>,
    /// How many addresses of a kind have series of their own.
    pub addresses: usize,
    /// What is counted of notifications.
    pub notifications: Arc<NotificationCounts>,
    /// How it stands with the cluster.
    pub cluster_status: ClusterStatusHandle,
    /// What came of reading the settings.
    pub config: watch::Receiver<ConfigOutcome>,
    /// What is known of the cluster.
    pub cluster: ClusterHandle,
    /// The health of the components.
    pub health: HealthRegistry,
    /// Standard output and standard error.
    pub log_writers: Vec<LogWriter>,
    /// Connections that were refused.
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

/// What came of reading the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigOutcome {
    /// Whether they could be used when they were last read.
    pub successful: bool,
    /// When they last could.
    pub success: Timestamp,
}

/// What the handlers share.
#[derive(Clone)]
struct MetricsServer {
    sources: MetricsSources,
    encodings: Arc<Semaphore>,
    pages: ClientSlots<IpAddr>,
}

/// Binds the address, so that a port that is taken is an error at start.
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
    // They end with the server.
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
                Ok(Err(error)) => tracing::debug!(%error, %peer, "a connection broke off"),
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
    // One host has one page at a time: the pages of one that does not read leave room for others.
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
    let Ok(Ok(inputs)) = timeout(SCRAPE_TIMEOUT, material(server.sources)).await else {
        return unavailable("detection does not reply");
    };
    // Reading the maps and encoding keep no other task from running.
    let encoded = tokio::task::spawn_blocking(move || metrics::encode(&inputs));
    match encoded.await {
        Ok(Ok(pieces)) => text(pieces, page),
        Ok(Err(error)) => unavailable(&error.to_string()),
        Err(error) => unavailable(&error.to_string()),
    }
}

/// The page as a response, with what is to be kept until it is sent.
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

async fn material(sources: MetricsSources) -> Result<MetricsInputs, MonitorStopped> {
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

/// Alive: no component is in a state that only a restart may mend.
async fn healthz(State(server): State<MetricsServer>, RawQuery(query): RawQuery) -> Response {
    let report = server.sources.health.report().await;
    health_response(&report, report.is_live(), query.as_deref())
}

/// Ready: the daemon sees frames wherever it should, and detection works.
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
