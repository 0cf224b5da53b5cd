//! What has drifted apart, as far as this node is to say.

use axum::{extract::State, response::Response};
use probe_model::to_json;

use super::{Api, ApiError, state::lines};

/// The drifts: what is critical first.
pub(super) async fn drift(State(api): State<Api>) -> Result<Response, ApiError> {
    let standing = &api.sources.standing;
    if !standing.is_on() {
        return Err(ApiError::NoCluster);
    }
    // An empty list would be an all-clear.
    let now = standing.now().ok_or(ApiError::AnotherSpeaks)?;
    let drifts = now.drifts.iter();
    Ok(lines(drifts.map(|drift| to_json(drift) + "\n").collect()))
}
