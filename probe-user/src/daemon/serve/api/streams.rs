//! Streams: findings, claims and frames, until the client disconnects.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use probe_common::event::ArpEvent;
use probe_model::{BindingRecord, ClaimRecord, Timestamp, to_json, watched::WatchedInterfaces};
use serde::{Deserialize, Serialize};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc, watch,
};

use super::{Api, ApiError, LINES, Parameters, filter_of, state};
use crate::{
    daemon::{
        history::{HistoryEntry, HistoryStart, SequencedRecord},
        recording::Recording,
    },
    filter::RecordFilter,
};

/// Maximum number of chunks of a capture that wait for a slow client.
const PIECES: usize = 16;

const CAPTURE: &str = "application/x-pcapng";

/// A line with the number of missed records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedRecord {
    /// The number of findings or claims that came too fast for this reader, or are no longer in memory.
    pub missed: u64,
}

/// Findings: those in memory since a number or a time, then new ones, unless `follow=false`.
pub(super) async fn findings(
    State(api): State<Api>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let reader = api.sources.history.reader(since_of(&parameters)?);
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
    Ok(ndjson_response(lines))
}

fn line(entry: &HistoryEntry, filter: &RecordFilter) -> Option<String> {
    match entry {
        HistoryEntry::Missed(missed) => Some(MissedRecord { missed: *missed }.line()),
        HistoryEntry::Finding(numbered) => filter.matches_finding(&numbered.record).then(|| {
            let numbered = SequencedRecord {
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

/// Claims as they are observed.
pub(super) async fn claims(
    State(api): State<Api>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let events = api.sources.monitor.events();
    let lines = stream::unfold(
        (events, api.sources.watched),
        move |(mut events, watched)| {
            let filter = filter.clone();
            async move {
                loop {
                    let line = claim_line(&mut events, &watched, &filter).await?;
                    if !line.is_empty() {
                        return Some((line, (events, watched)));
                    }
                }
            }
        },
    );
    Ok(ndjson_response(lines))
}

/// The next line; empty if the event does not match. `None` at the end.
async fn claim_line(
    events: &mut broadcast::Receiver<ArpEvent>,
    watched: &watch::Receiver<Arc<WatchedInterfaces>>,
    filter: &RecordFilter,
) -> Option<String> {
    let event = match events.recv().await {
        Ok(event) => event,
        Err(RecvError::Lagged(missed)) => return Some(MissedRecord { missed }.line()),
        Err(RecvError::Closed) => return None,
    };
    let name = watched.borrow().name_of(event.ifindex);
    let time = probe_datapath::clock::MONOTONIC.to_wall_clock(Timestamp(event.ktime_ns));
    let claim = ClaimRecord::new(&event, name, time).filter(|claim| filter.matches_claim(claim));
    Some(
        claim
            .map(|claim| to_json(&claim) + "\n")
            .unwrap_or_default(),
    )
}

/// The frames behind findings, as pcapng.
pub(super) async fn frames(
    State(api): State<Api>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let filter = filter_of(&parameters)?;
    let slot = api.recordings.clone().try_acquire_owned();
    let slot = slot.map_err(|_| ApiError::TooMany)?;
    let open = state::open_conflicts(&api.sources).await?;
    let open = open.iter().filter_map(BindingRecord::as_finding).collect();
    let recording = Recording::new(
        &api.sources.monitor,
        api.sources.links,
        api.sources.watched,
        filter,
        open,
    );
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        if let Err(error) = recording.run(sender).await {
            tracing::warn!(%error, "a recording for a client of the socket failed");
        }
        drop(slot);
    });
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let piece: Vec<u8> = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(piece)), receiver))
    });
    Ok(([(CONTENT_TYPE, CAPTURE)], Body::from_stream(pieces)).into_response())
}

fn since_of(parameters: &Parameters) -> Result<HistoryStart, ApiError> {
    let Some(text) = parameters.get("since") else {
        return Ok(HistoryStart::Now);
    };
    let sequence = text.parse().map(HistoryStart::Sequence).ok();
    let time = || text.parse().map(HistoryStart::Time).ok();
    sequence
        .or_else(time)
        .ok_or_else(|| ApiError::Since(text.clone()))
}

pub(super) fn ndjson_response(lines: impl Stream<Item = String> + Send + 'static) -> Response {
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    ([(CONTENT_TYPE, LINES)], body).into_response()
}
