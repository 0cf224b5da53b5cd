//! HTTP on TCP: `/metrics`, `/healthz`, `/readyz` and nothing else. An inventory of the network is not
//! for everyone on it: that is on the Unix socket ([`serve_api`]).

mod api;
mod metrics;
mod socket;
mod state;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
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
    time::timeout,
};

use self::metrics::{AddressMetrics, MetricsInputs};
pub use self::{
    api::{ApiSources, ClusterObjectsRecord, MissedRecord, serve as serve_api},
    socket::{ApiSocket, ApiSocketError, DEFAULT_PATH},
    state::{InterfaceRecord, StatusRecord},
};
use crate::daemon::{
    annotate::{Annotator, NodeListSource},
    drift_reconciler::ClusterStatusHandle,
    drill::DrillSlot,
    monitor::{MonitorHandle, MonitorStopped},
};

/// How long the monitor may take to answer before it counts as stuck.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// Scrapes at once. More wait.
const MAX_SCRAPES: usize = 1;

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
    scrapes: Arc<Semaphore>,
}

/// Binds the address, so that a port that is taken is an error at start.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stop` completes.
pub async fn serve(
    listener: TcpListener,
    sources: MetricsSources,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(MetricsServer {
            sources,
            scrapes: Arc::new(Semaphore::new(MAX_SCRAPES)),
        });
    axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await
}

async fn metrics(State(server): State<MetricsServer>) -> Response {
    // Whoever reaches the port may scrape as often as they like, and takes one core at most.
    let Ok(Ok(_turn)) = timeout(SCRAPE_TIMEOUT, server.scrapes.acquire()).await else {
        return unavailable("too many want to scrape");
    };
    let Ok(Ok(inputs)) = timeout(SCRAPE_TIMEOUT, material(server.sources)).await else {
        return unavailable("the monitor does not answer");
    };
    // Reading the maps and encoding keep no other task from running.
    let encoded = tokio::task::spawn_blocking(move || metrics::encode(&inputs));
    match encoded.await {
        Ok(Ok(pieces)) => text(pieces),
        Ok(Err(error)) => unavailable(&error.to_string()),
        Err(error) => unavailable(&error.to_string()),
    }
}

fn text(pieces: Vec<String>) -> Response {
    let length: usize = pieces.iter().map(String::len).sum();
    let head = [
        (CONTENT_TYPE, prometheus::TEXT_FORMAT.to_owned()),
        (CONTENT_LENGTH, length.to_string()),
    ];
    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
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
    })
}

/// Alive: detection answers.
async fn healthz(State(server): State<MetricsServer>) -> Response {
    match timeout(SCRAPE_TIMEOUT, server.sources.monitor.snapshot()).await {
        Ok(Ok(_)) => "ok\n".into_response(),
        _ => unavailable("the monitor does not answer"),
    }
}

/// Ready: the programs are attached wherever they should be.
async fn readyz(State(server): State<MetricsServer>) -> Response {
    if server.sources.watched.borrow().is_any_attached() {
        "ok\n".into_response()
    } else {
        unavailable("not every interface that should be watched is")
    }
}

fn unavailable(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}
