//! The current state: conflicts, bindings, interfaces and status.

use std::convert::Infallible;

use axum::{
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use probe_detect::TableCursor;
use probe_model::{BindingRecord, BindingView, to_json, watched::WatchedInterfaces};
use tokio::time::timeout;

use super::{Api, ApiError, ApiSources, LINES, MONITOR_TIMEOUT, Parameters, filter_of};
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
    let turn = timeout(MONITOR_TIMEOUT, api.conflict_lists.acquire_owned()).await;
    let turn = turn.map_err(|_| ApiError::TooManyLists)?;
    let conflicts = open_conflict_views(&api.sources).await?;
    let records = records(&conflicts, &api.sources).await;
    drop(conflicts);
    // The permit is held until the whole list is sent.
    let lines = stream::unfold((records.into_iter(), turn), move |(mut records, turn)| {
        let line = records
            .by_ref()
            .find(|record| filter.matches_binding(record))
            .map(|record| to_json(&record) + "\n");
        async move { Some((Ok::<_, Infallible>(line?), (records, turn))) }
    });
    Ok(([(CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response())
}

/// The bindings with a pending takeover.
pub(super) async fn takeovers(
    State(api): State<Api>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let reply = timeout(MONITOR_TIMEOUT, api.sources.monitor.pending_takeovers()).await;
    let takeovers = reply.map_err(|_| ApiError::MonitorTimeout)??;
    let records = records(&takeovers, &api.sources).await;
    let wanted = records
        .iter()
        .filter(|record| filter.matches_binding(record));
    Ok(lines(wanted.map(|record| to_json(record) + "\n").collect()))
}

/// All bindings, unordered: a page is read from detection when the client has received the previous one. A binding
/// added or removed meanwhile may be missing or occur twice.
pub(super) async fn bindings(
    State(api): State<Api>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let first = binding_page(&api.sources, &filter, TableCursor::default()).await?;
    let sources = api.sources;
    let pages = stream::unfold(BindingPages::Page(first), move |pages| {
        let (sources, filter) = (sources.clone(), filter.clone());
        async move {
            let (text, next) = match pages {
                BindingPages::Page(page) => page,
                BindingPages::From(cursor) => match binding_page(&sources, &filter, cursor).await {
                    Ok(page) => page,
                    // The client detects the incomplete list.
                    Err(error) => return Some((Err(error), BindingPages::End)),
                },
                BindingPages::End => return None,
            };
            Some((Ok(text), next.map_or(BindingPages::End, BindingPages::From)))
        }
    });
    Ok(([(CONTENT_TYPE, LINES)], Body::from_stream(pages)).into_response())
}

/// The next step of a list of bindings.
enum BindingPages {
    /// A page that has been read.
    Page((String, Option<TableCursor>)),
    /// The page at this position.
    From(TableCursor),
    /// Nothing.
    End,
}

/// The lines of a page of bindings, and the start of the next page.
async fn binding_page(
    sources: &ApiSources,
    filter: &RecordFilter,
    from: TableCursor,
) -> Result<(String, Option<TableCursor>), ApiError> {
    let page = timeout(MONITOR_TIMEOUT, sources.monitor.bindings_page(from)).await;
    let (views, next) = page.map_err(|_| ApiError::MonitorTimeout)??;
    let records = records(&views, sources).await;
    let wanted = records
        .iter()
        .filter(|record| filter.matches_binding(record));
    Ok((wanted.map(|record| to_json(record) + "\n").collect(), next))
}

/// The annotated records of bindings.
async fn records(views: &[BindingView], sources: &ApiSources) -> Vec<BindingRecord> {
    let watched = sources.watched.borrow().clone();
    let records = views.iter().map(|view| record(view, &watched)).collect();
    match &sources.annotator {
        Some(annotator) => annotator.bindings(records).await,
        None => records,
    }
}

/// The open conflicts as records.
pub(super) async fn open_conflicts(sources: &ApiSources) -> Result<Vec<BindingRecord>, ApiError> {
    let views = open_conflict_views(sources).await?;
    Ok(records(&views, sources).await)
}

async fn open_conflict_views(sources: &ApiSources) -> Result<Vec<BindingView>, ApiError> {
    let reply = timeout(MONITOR_TIMEOUT, sources.monitor.open_conflicts()).await;
    Ok(reply.map_err(|_| ApiError::MonitorTimeout)??)
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

/// The status of the monitor.
pub(super) async fn status(State(api): State<Api>) -> Result<Response, ApiError> {
    Ok(lines(to_json(&current_status(&api.sources).await?) + "\n"))
}

pub(super) async fn current_status(sources: &ApiSources) -> Result<StatusRecord, ApiError> {
    let snapshot = snapshot(sources).await?;
    let watched = sources.watched.borrow().clone();
    let links = sources.links.borrow().clone();
    Ok(StatusRecord::new(&watched, &links, &snapshot))
}

async fn snapshot(sources: &ApiSources) -> Result<MonitorSnapshot, ApiError> {
    let reply = timeout(MONITOR_TIMEOUT, sources.monitor.snapshot()).await;
    Ok(reply.map_err(|_| ApiError::MonitorTimeout)??)
}

pub(super) fn lines(text: String) -> Response {
    ([(CONTENT_TYPE, LINES)], text).into_response()
}
