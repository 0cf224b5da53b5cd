//! HTTP on a Unix socket: what the daemon found and knows, one JSON object a line.
//!
//! A reader costs a connection and no queue; there are at most so many, and each may take its time.

mod cluster;
mod drift;
mod drill;
mod state;
mod streams;

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Query,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use probe_model::{Links, watched::WatchedInterfaces};
use tokio::sync::{Semaphore, watch};

pub use self::{cluster::ClusterObjectsRecord, streams::MissedRecord};
use super::ApiSocket;
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

/// Connections at once. More wait.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the monitor may take to answer before it counts as stuck.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted, for want of descriptors most likely.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Recordings at once: each keeps frames in mind.
const MAX_RECORDINGS: usize = 4;

const LINES: &str = "application/x-ndjson";

/// What the handlers read from.
#[derive(Clone, Debug)]
pub struct ApiSources {
    /// Detection.
    pub monitor: MonitorHandle,
    /// The watched interfaces.
    pub watched: watch::Receiver<Arc<WatchedInterfaces>>,
    /// All interfaces.
    pub links: watch::Receiver<Arc<Links>>,
    /// The last findings.
    pub history: FindingHistory,
    /// The exercise that goes on.
    pub drills: DrillSlot,
    /// Who knows the cluster, if there is one.
    pub annotator: Option<Annotator>,
    /// How it stands with the cluster.
    pub cluster_status: ClusterStatusHandle,
}

/// What the handlers share.
#[derive(Clone, Debug)]
struct Api {
    sources: ApiSources,
    recordings: Arc<Semaphore>,
}

/// Serves for ever.
pub async fn serve(socket: ApiSocket, sources: ApiSources) {
    let service = TowerToHyperService::new(router(sources));
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Closed never.
        let slot = slots.clone().acquire_owned().await;
        let stream = match socket.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "no connection accepted");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let service = service.clone();
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a client of the socket went away");
            }
            drop(slot);
        });
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
        .with_state(Api {
            sources,
            recordings: Arc::new(Semaphore::new(MAX_RECORDINGS)),
        })
}

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("since is the number of a finding or a time like 2026-11-20T02:00:00Z, not {0:?}")]
    Since(String),
    #[error("for is a number of seconds from 1 to {longest}, not {said:?}", longest = drill::LONGEST.as_secs())]
    Duration { said: String },
    #[error(transparent)]
    Drill(#[from] DrillInProgress),
    #[error("this daemon follows no cluster: start it in a pod, or with KUBECONFIG set")]
    NoCluster,
    #[error(
        "another node speaks for the cluster, and only that one looks for drift: \
         kubectl -n arp-monitor get lease arp-monitor names it"
    )]
    NotLeader,
    #[error("the monitor does not answer")]
    MonitorTimeout,
    #[error("there are {MAX_RECORDINGS} recordings already: end one first")]
    TooMany,
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
            Self::MonitorTimeout | Self::TooMany => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, format!("{self}\n")).into_response()
    }
}

type Parameters = Query<HashMap<String, String>>;

fn filter_of(parameters: &Parameters) -> Result<RecordFilter, FilterError> {
    let words = parameters.iter();
    RecordFilter::from_query(words.map(|(name, value)| (name.as_str(), value.as_str())))
}
