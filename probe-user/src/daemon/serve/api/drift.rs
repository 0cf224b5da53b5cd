//! The drifts, if this node is the leader.

use axum::{extract::State, response::Response};
use probe_model::to_json;

use super::{Api, ApiError, state::lines};

/// The drifts, critical ones first.
pub(super) async fn drift(State(api): State<Api>) -> Result<Response, ApiError> {
    let cluster_status = &api.sources.cluster_status;
    if !cluster_status.is_on() {
        return Err(ApiError::NoCluster);
    }
    // An empty list would mean that there is no drift.
    let now = cluster_status.snapshot().ok_or(ApiError::NotLeader)?;
    let drifts = now.drifts.iter();
    Ok(lines(drifts.map(|drift| to_json(drift) + "\n").collect()))
}
