//! Releases the XDP slot of the interfaces for another program.

use axum::{extract::State, response::Response};
use probe_model::{
    to_json,
    watched::{WatchState, WatchedInterfaces},
};
use tokio::time::timeout;

use super::{
    Api, ApiError, MONITOR_TIMEOUT,
    state::{current_status, lines},
};

/// Continues with TC on every interface, and returns the interfaces as they are attached then. This lasts until the
/// daemon is restarted.
pub(super) async fn release(State(api): State<Api>) -> Result<Response, ApiError> {
    api.sources.interface_commands.release_xdp().await;
    let mut watched = api.sources.watched.clone();
    let released = watched.wait_for(|watched| !holds_xdp(watched));
    match timeout(MONITOR_TIMEOUT, released).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => return Err(ApiError::NotReleased),
    }
    let status = current_status(&api.sources).await?;
    let records = status.interfaces.iter();
    Ok(lines(
        records.map(|record| to_json(record) + "\n").collect(),
    ))
}

fn holds_xdp(watched: &WatchedInterfaces) -> bool {
    watched.iter().any(|interface| match &interface.state {
        WatchState::Attached { plan, .. } => plan.mode.is_xdp(),
        WatchState::Failed { .. } => false,
    })
}
