//! A drill lasts as long as the connection of its client.

use std::time::Duration;

use axum::{extract::State, response::Response};
use futures_util::stream;
use jiff::Timestamp;
use probe_model::to_json;
use tokio::time::{Instant, sleep_until};

use super::{Api, ApiError, Parameters, streams::ndjson_response};
use crate::daemon::drill::Drill;

/// Maximum duration of a drill.
pub(super) const MAX_DURATION: Duration = Duration::from_hours(24);

/// The phase of a drill.
enum DrillPhase {
    Opened(Drill),
    Closed(Drill),
    Nothing,
}

/// Starts a drill, which ends after `for` seconds or when the client disconnects.
pub(super) async fn drill(
    State(api): State<Api>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let text = parameters.get("for").map_or("", String::as_str);
    let duration = text.parse().ok().map(Duration::from_secs);
    let duration = duration
        .filter(|duration| !duration.is_zero() && *duration <= MAX_DURATION)
        .ok_or_else(|| ApiError::Duration {
            message: text.to_owned(),
        })?;
    let drill = api.sources.drills.start(api.sources.monitor)?;
    tracing::info!(seconds = duration.as_secs(), "drill started");
    let end = Instant::now() + duration;
    let lines = stream::unfold(DrillPhase::Opened(drill), move |next| async move {
        match next {
            DrillPhase::Opened(drill) => {
                let line = to_json(drill.record()) + "\n";
                Some((line, DrillPhase::Closed(drill)))
            }
            DrillPhase::Closed(drill) => {
                sleep_until(end).await;
                let record = probe_model::drill::resolved(drill.record(), Timestamp::now());
                drop(drill);
                Some((to_json(&record) + "\n", DrillPhase::Nothing))
            }
            DrillPhase::Nothing => None,
        }
    });
    Ok(ndjson_response(lines))
}
