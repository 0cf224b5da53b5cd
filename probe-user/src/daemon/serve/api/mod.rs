//! The API: HTTP on a Unix socket, with findings and state as one JSON object a line.
//!
//! A client costs a connection and at most a page of records. Clients are limited, and one that reads nothing for a
//! minute is disconnected.

mod cluster;
mod drift;
mod drill;
mod state;
mod streams;
mod xdp;

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Query,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use probe_datapath::interfaces::InterfacesHandle;
use probe_model::{Links, watched::WatchedInterfaces};
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixStream,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

pub use self::{cluster::ClusterObjectsRecord, streams::MissedRecord};
use super::{
    ACCEPT_RETRY_DELAY, ApiSocket, RefusedConnections,
    connections::{ClientSlots, serve_connection},
};
use crate::{
    daemon::{
        annotate::Annotator,
        drift_reconciler::ClusterStatusHandle,
        drill::{DrillInProgress, DrillSlot},
        history::FindingHistory,
        monitor::{MonitorHandle, MonitorStopped},
    },
    filter::{FilterError, RecordFilter},
};

/// Maximum number of connections. Further ones are rejected with a message.
pub const MAX_API_CONNECTIONS: usize = 64;
/// Time limit for a client that reads nothing: `probe conflicts | less` may wait for its reader.
const STALL_LIMIT: Duration = Duration::from_mins(1);
/// Time limit for a reply of detection.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for sending the reason to a rejected client.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(100);
/// The interval at which the socket file is checked.
const SOCKET_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of recordings: each keeps frames in memory.
const MAX_RECORDINGS: usize = 4;
/// Maximum number of conflict lists in memory. Further ones wait.
const MAX_CONFLICT_LISTS: usize = 2;

const LINES: &str = "application/x-ndjson";

/// The sources of the handlers.
#[derive(Clone, Debug)]
pub struct ApiSources {
    /// Detection.
    pub monitor: MonitorHandle,
    /// The watched interfaces.
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
    /// All interfaces.
    pub links: watch::Receiver<Arc<Links>>,
    /// Commands to the attached programs.
    pub interface_commands: InterfacesHandle,
    /// The last findings.
    pub history: FindingHistory,
    /// The running drill.
    pub drills: DrillSlot,
    /// The annotator, if there is a cluster.
    pub annotator: Option<Annotator>,
    /// The status of the cluster.
    pub cluster_status: ClusterStatusHandle,
    /// The counts of rejected connections.
    pub refused_connections: Arc<RefusedConnections>,
}

/// The shared state of the handlers.
#[derive(Clone, Debug)]
struct Api {
    sources: ApiSources,
    recordings: Arc<Semaphore>,
    conflict_lists: Arc<Semaphore>,
}

/// Serves the API. A removed socket file is created again.
pub async fn serve(mut socket: ApiSocket, sources: ApiSources) {
    let refused = sources.refused_connections.clone();
    let router = router(sources);
    let slots = ClientSlots::new(MAX_API_CONNECTIONS, MAX_API_CONNECTIONS);
    let mut checks = interval(SOCKET_CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The connections end with the server.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = checks.tick() => {
                socket.restore();
                continue;
            }
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "no connection accepted");
                sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let Ok(slot) = slots.take(()) else {
            refused.count_api();
            refuse(stream).await;
            continue;
        };
        let router = router.clone();
        connections.spawn(async move {
            if let Err(error) = serve_connection(stream, router, STALL_LIMIT).await {
                report_end(&error);
            }
            drop(slot);
        });
    }
}

/// Rejects a client because there are too many.
async fn refuse(mut stream: UnixStream) {
    let text =
        format!("{MAX_API_CONNECTIONS} clients are already connected: disconnect one first\n");
    let response = format!(
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    // The connection is closed in any case.
    let _ = timeout(REFUSAL_TIMEOUT, stream.write_all(response.as_bytes())).await;
}

fn report_end(error: &hyper::Error) {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match cause {
        Some(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
            tracing::warn!(error = %cause, "a client of the socket was disconnected");
        }
        _ => tracing::debug!(%error, "a client of the socket disconnected"),
    }
}

fn router(sources: ApiSources) -> Router {
    Router::new()
        .route("/v1/findings", get(streams::findings))
        .route("/v1/claims", get(streams::claims))
        .route("/v1/frames", get(streams::frames))
        .route("/v1/conflicts", get(state::conflicts))
        .route("/v1/takeovers", get(state::takeovers))
        .route("/v1/bindings", get(state::bindings))
        .route("/v1/interfaces", get(state::interfaces))
        .route("/v1/status", get(state::status))
        .route("/v1/cluster", get(cluster::cluster))
        .route("/v1/drift", get(drift::drift))
        .route("/v1/drill", post(drill::drill))
        .route("/v1/release-xdp", post(xdp::release))
        .with_state(Api {
            sources,
            recordings: Arc::new(Semaphore::new(MAX_RECORDINGS)),
            conflict_lists: Arc::new(Semaphore::new(MAX_CONFLICT_LISTS)),
        })
}

/// The error of a request.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("since is the number of a finding or a time like 2026-11-20T02:00:00Z, not {0:?}")]
    Since(String),
    #[error("for is a number of seconds from 1 to {longest}, not {message:?}", longest = drill::MAX_DURATION.as_secs())]
    Duration { message: String },
    #[error(transparent)]
    Drill(#[from] DrillInProgress),
    #[error("this daemon watches no cluster: start it in a pod, or with KUBECONFIG set")]
    NoCluster,
    #[error(
        "another node speaks for the cluster, and only that one looks for drift: \
         kubectl -n arp-monitor get lease arp-monitor names it"
    )]
    NotLeader,
    #[error("the XDP slot is not released yet: see `probe interfaces`, and the log of the daemon")]
    NotReleased,
    #[error("detection does not reply")]
    MonitorTimeout,
    #[error("{MAX_RECORDINGS} recordings are already running: end one first")]
    TooMany,
    #[error("too many clients list the conflicts at once: try again")]
    TooManyLists,
}

impl From<MonitorStopped> for ApiError {
    fn from(_: MonitorStopped) -> Self {
        Self::MonitorTimeout
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Filter(_) | Self::Since(_) | Self::Duration { .. } => StatusCode::BAD_REQUEST,
            Self::Drill(_) => StatusCode::CONFLICT,
            Self::NotLeader => StatusCode::MISDIRECTED_REQUEST,
            Self::NoCluster => StatusCode::NOT_FOUND,
            Self::MonitorTimeout | Self::TooMany | Self::TooManyLists | Self::NotReleased => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        (status, format!("{self}\n")).into_response()
    }
}

type Parameters = Query<HashMap<String, String>>;

fn filter_of(parameters: &Parameters) -> Result<RecordFilter, FilterError> {
    let words = parameters.iter();
    RecordFilter::from_query(words.map(|(name, value)| (name.as_str(), value.as_str())))
}
