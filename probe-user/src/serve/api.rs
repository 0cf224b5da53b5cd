//! HTTP on a Unix socket: what the daemon found and knows, one JSON object a line.
//!
//! A reader costs a connection and no queue; there are at most so many, and each may take its time.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use probe_common::event::ArpEvent;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{
        Semaphore,
        broadcast::{self, error::RecvError},
        mpsc, watch,
    },
    time::timeout,
};

use super::{ApiSocket, StatusRecord};
use crate::{
    clock::Clock,
    detect::{BindingView, Timestamp},
    filter::{Filter, FilterError},
    history::{Entry, History, Since},
    interfaces::WatchedInterfaces,
    links::Links,
    monitor::{MonitorHandle, Snapshot, Stopped},
    recording::Recording,
    report::{BindingRecord, ClaimRecord, to_json},
};

/// Connections at once. More wait.
const CONNECTIONS: usize = 64;
/// How long a client may take to say what it wants.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// How long the monitor may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted, for want of descriptors most likely.
const PAUSE: Duration = Duration::from_millis(100);
/// Pieces of a capture that wait for a slow client.
const PIECES: usize = 16;

const LINES: &str = "application/x-ndjson";
const CAPTURE: &str = "application/x-pcapng";

/// A line that says that some are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedRecord {
    /// How many findings or claims came too fast for this reader, or are no longer in memory.
    pub missed: u64,
}

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
    pub history: History,
}

/// Serves for ever.
pub async fn serve(socket: ApiSocket, sources: ApiSources) {
    let service = TowerToHyperService::new(router(sources));
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Closed never.
        let slot = slots.clone().acquire_owned().await;
        let stream = match socket.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "no connection accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let service = service.clone();
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_PATIENCE)
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
        .route("/v1/findings", get(findings))
        .route("/v1/claims", get(claims))
        .route("/v1/frames", get(frames))
        .route("/v1/conflicts", get(conflicts))
        .route("/v1/bindings", get(bindings))
        .route("/v1/interfaces", get(interfaces))
        .route("/v1/status", get(status))
        .with_state(sources)
}

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("since is the number of a finding or a time like 2026-11-20T02:00:00Z, not {0:?}")]
    Since(String),
    #[error("the monitor does not answer")]
    Stuck,
}

impl From<Stopped> for ApiError {
    fn from(_: Stopped) -> Self {
        Self::Stuck
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Filter(_) | Self::Since(_) => StatusCode::BAD_REQUEST,
            Self::Stuck => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, format!("{self}\n")).into_response()
    }
}

type Parameters = Query<HashMap<String, String>>;

fn filter_of(parameters: &Parameters) -> Result<Filter, FilterError> {
    let words = parameters.iter();
    Filter::from_query(words.map(|(name, value)| (name.as_str(), value.as_str())))
}

fn since_of(parameters: &Parameters) -> Result<Since, ApiError> {
    let Some(text) = parameters.get("since") else {
        return Ok(Since::Now);
    };
    let sequence = text.parse().map(Since::Sequence).ok();
    let time = || text.parse().map(Since::Time).ok();
    sequence
        .or_else(time)
        .ok_or_else(|| ApiError::Since(text.clone()))
}

/// Findings: those in memory since a number or a time, then, unless `follow=false`, what comes.
async fn findings(
    State(sources): State<ApiSources>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let reader = sources.history.reader(since_of(&parameters)?);
    let follow = parameters
        .get("follow")
        .is_none_or(|follow| follow != "false");
    let lines = stream::unfold(reader, move |mut reader| {
        let filter = filter.clone();
        async move {
            loop {
                let entries = reader.read();
                let lines: String = entries
                    .iter()
                    .filter_map(|entry| line(entry, &filter))
                    .collect();
                if !lines.is_empty() {
                    return Some((lines, reader));
                }
                if entries.is_empty() && !(follow && reader.wait().await) {
                    return None;
                }
            }
        }
    });
    Ok(streamed(lines))
}

fn line(entry: &Entry, filter: &Filter) -> Option<String> {
    match entry {
        Entry::Missed(missed) => Some(MissedRecord { missed: *missed }.line()),
        Entry::Finding(numbered) => filter.wants_finding(&numbered.record).then(|| {
            let numbered = crate::history::Numbered {
                sequence: numbered.sequence,
                record: &*numbered.record,
            };
            to_json(&numbered) + "\n"
        }),
    }
}

impl MissedRecord {
    fn line(self) -> String {
        to_json(&self) + "\n"
    }
}

/// Claims as they are seen.
async fn claims(
    State(sources): State<ApiSources>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let events = sources.monitor.events();
    let lines = stream::unfold((events, sources.watched), move |(mut events, watched)| {
        let filter = filter.clone();
        async move {
            loop {
                let line = claim_line(&mut events, &watched, &filter).await?;
                if !line.is_empty() {
                    return Some((line, (events, watched)));
                }
            }
        }
    });
    Ok(streamed(lines))
}

/// The next line; empty if the next event is none. `None` at the end.
async fn claim_line(
    events: &mut broadcast::Receiver<ArpEvent>,
    watched: &watch::Receiver<Arc<WatchedInterfaces>>,
    filter: &Filter,
) -> Option<String> {
    let event = match events.recv().await {
        Ok(event) => event,
        Err(RecvError::Lagged(missed)) => return Some(MissedRecord { missed }.line()),
        Err(RecvError::Closed) => return None,
    };
    let name = watched.borrow().name_of(event.ifindex);
    let time = Clock::Monotonic.wall(Timestamp(event.ktime_ns));
    let claim = ClaimRecord::new(&event, name, time).filter(|claim| filter.wants_claim(claim));
    Some(
        claim
            .map(|claim| to_json(&claim) + "\n")
            .unwrap_or_default(),
    )
}

/// The frames behind findings, as pcapng.
async fn frames(
    State(sources): State<ApiSources>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let watched = sources.watched.borrow().clone();
    let open = snapshot(&sources).await?.open_conflicts;
    let open = open
        .iter()
        .filter_map(|view| record(view, &watched).as_finding());
    let open = open.collect();
    let recording = Recording::new(
        &sources.monitor,
        sources.links,
        sources.watched,
        filter,
        open,
    );
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::spawn(recording.run(sender));
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let piece: Vec<u8> = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(piece)), receiver))
    });
    Ok(([(CONTENT_TYPE, CAPTURE)], Body::from_stream(pieces)).into_response())
}

/// The bindings with an open conflict.
async fn conflicts(
    State(sources): State<ApiSources>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let snapshot = snapshot(&sources).await?;
    Ok(listed(&snapshot.open_conflicts, &sources, &filter))
}

/// All bindings.
async fn bindings(
    State(sources): State<ApiSources>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let asked = timeout(PATIENCE, sources.monitor.bindings()).await;
    let mut bindings = asked.map_err(|_| ApiError::Stuck)??;
    bindings.sort_unstable_by_key(|binding| binding.key);
    Ok(listed(&bindings, &sources, &filter))
}

fn listed(views: &[BindingView], sources: &ApiSources, filter: &Filter) -> Response {
    let watched = sources.watched.borrow().clone();
    let records = views.iter().map(|view| record(view, &watched));
    let wanted = records.filter(|record| filter.wants_binding(record));
    lines(wanted.map(|record| to_json(&record) + "\n").collect())
}

fn record(view: &BindingView, watched: &WatchedInterfaces) -> BindingRecord {
    let name = watched.name_of(view.key.segment.interface);
    BindingRecord::new(view, name, Clock::Monotonic)
}

/// The watched interfaces.
async fn interfaces(
    State(sources): State<ApiSources>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let status = current_status(&sources).await?;
    let records = status.interfaces.iter();
    let wanted = records.filter(|record| filter.wants_interface(&record.interface));
    Ok(lines(wanted.map(|record| to_json(record) + "\n").collect()))
}

/// How it goes.
async fn status(State(sources): State<ApiSources>) -> Result<Response, ApiError> {
    Ok(lines(to_json(&current_status(&sources).await?) + "\n"))
}

async fn current_status(sources: &ApiSources) -> Result<StatusRecord, ApiError> {
    let snapshot = snapshot(sources).await?;
    let watched = sources.watched.borrow().clone();
    Ok(StatusRecord::new(&watched, &snapshot))
}

async fn snapshot(sources: &ApiSources) -> Result<Snapshot, ApiError> {
    let asked = timeout(PATIENCE, sources.monitor.snapshot()).await;
    Ok(asked.map_err(|_| ApiError::Stuck)??)
}

fn lines(text: String) -> Response {
    ([(CONTENT_TYPE, LINES)], text).into_response()
}

fn streamed(lines: impl Stream<Item = String> + Send + 'static) -> Response {
    use futures_util::StreamExt as _;
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    ([(CONTENT_TYPE, LINES)], body).into_response()
}
