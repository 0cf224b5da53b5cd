//! What is known at the moment when somebody asks.

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use probe_model::{BindingRecord, BindingView, to_json, watched::WatchedInterfaces};
use tokio::time::timeout;

use super::{Api, ApiError, ApiSources, LINES, Parameters, WRITE_TIMEOUT, filter_of};
use crate::{
    daemon::{monitor::MonitorSnapshot, serve::StatusRecord},
    filter::RecordFilter,
};

/// The bindings with an open conflict.
pub(super) async fn conflicts(
    State(api): State<Api>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let conflicts = open_conflict_views(&api.sources).await?;
    Ok(listed(&conflicts, &api.sources, &filter).await)
}

/// The bindings with a takeover that is not decided.
pub(super) async fn takeovers(
    State(api): State<Api>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let asked = timeout(WRITE_TIMEOUT, api.sources.monitor.pending_takeovers()).await;
    let takeovers = asked.map_err(|_| ApiError::MonitorTimeout)??;
    Ok(listed(&takeovers, &api.sources, &filter).await)
}

/// All bindings.
pub(super) async fn bindings(
    State(api): State<Api>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let asked = timeout(WRITE_TIMEOUT, api.sources.monitor.bindings()).await;
    let mut bindings = asked.map_err(|_| ApiError::MonitorTimeout)??;
    bindings.sort_unstable_by_key(|binding| binding.key);
    Ok(listed(&bindings, &api.sources, &filter).await)
}

async fn listed(views: &[BindingView], sources: &ApiSources, filter: &RecordFilter) -> Response {
    let records = records(views, sources).await;
    let wanted = records
        .iter()
        .filter(|record| filter.matches_binding(record));
    lines(wanted.map(|record| to_json(record) + "\n").collect())
}

/// With what the cluster knows of them.
async fn records(views: &[BindingView], sources: &ApiSources) -> Vec<BindingRecord> {
    let watched = sources.watched.borrow().clone();
    let records = views.iter().map(|view| record(view, &watched)).collect();
    match &sources.annotator {
        Some(annotator) => annotator.bindings(records).await,
        None => records,
    }
}

/// The open conflicts, for those who want to know more of them.
pub(super) async fn open_conflicts(sources: &ApiSources) -> Result<Vec<BindingRecord>, ApiError> {
    let views = open_conflict_views(sources).await?;
    Ok(records(&views, sources).await)
}

async fn open_conflict_views(sources: &ApiSources) -> Result<Vec<BindingView>, ApiError> {
    let asked = timeout(WRITE_TIMEOUT, sources.monitor.open_conflicts()).await;
    Ok(asked.map_err(|_| ApiError::MonitorTimeout)??)
}

fn record(view: &BindingView, watched: &WatchedInterfaces) -> BindingRecord {
    let name = watched.name_of(view.key.segment.interface);
    BindingRecord::new(view, name, probe_datapath::clock::MONOTONIC)
}

/// The watched interfaces.
pub(super) async fn interfaces(
    State(api): State<Api>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let status = current_status(&api.sources).await?;
    let records = status.interfaces.iter();
    let wanted = records.filter(|record| filter.matches_interface(&record.interface));
    Ok(lines(wanted.map(|record| to_json(record) + "\n").collect()))
}

/// How it goes.
pub(super) async fn status(State(api): State<Api>) -> Result<Response, ApiError> {
    Ok(lines(to_json(&current_status(&api.sources).await?) + "\n"))
}

async fn current_status(sources: &ApiSources) -> Result<StatusRecord, ApiError> {
    let snapshot = snapshot(sources).await?;
    let watched = sources.watched.borrow().clone();
    Ok(StatusRecord::new(&watched, &snapshot))
}

async fn snapshot(sources: &ApiSources) -> Result<MonitorSnapshot, ApiError> {
    let asked = timeout(WRITE_TIMEOUT, sources.monitor.snapshot()).await;
    Ok(asked.map_err(|_| ApiError::MonitorTimeout)??)
}

pub(super) fn lines(text: String) -> Response {
    ([(CONTENT_TYPE, LINES)], text).into_response()
}
