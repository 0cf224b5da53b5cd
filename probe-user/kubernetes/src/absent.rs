//! What stands in for a connection in a program that was built without Kubernetes: there is never one.

#![expect(
    clippy::unused_async,
    clippy::needless_pass_by_value,
    reason = "these are what the module that talks to an API server has, and cannot be called"
)]

use std::{collections::BTreeSet, convert::Infallible, sync::Arc};

use probe_cluster::snapshot::{ClusterObjects, Node};
use probe_model::NamespacedName;

use super::{ApiHealth, ApiRequestError, ClusterHandle, ClusterTasks, ConnectError};

/// A connection to an API server: there is none.
///
/// That nobody can have one is for this module to know: elsewhere the same code goes for both.
#[derive(Clone, Debug)]
pub struct ApiConnection(Infallible);

/// An Event that is never made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the module that makes them")]
pub struct NewEvent<'a> {
    pub service: &'a NamespacedName,
    pub uid: &'a str,
    pub reason: &'a str,
    pub is_warning: bool,
    pub note: &'a str,
    pub instance: &'a str,
}

impl ApiConnection {
    /// Says that this program cannot.
    pub fn open(_context: Option<&str>) -> impl Future<Output = Result<Self, ConnectError>> {
        std::future::ready(Err(ConnectError::NotBuilt))
    }

    /// Whether a cluster is at hand: not to this program.
    pub fn is_at_hand() -> bool {
        false
    }

    /// What cannot be called.
    pub async fn objects(&self) -> ClusterObjects {
        match self.0 {}
    }

    /// What cannot be called.
    pub async fn pool_objects(&self) -> super::PoolObjects {
        match self.0 {}
    }

    /// What cannot be called.
    pub async fn nodes(&self, _labels: &BTreeSet<String>) -> Result<Vec<Node>, ApiRequestError> {
        match self.0 {}
    }

    /// What cannot be called.
    pub async fn ready_endpoints(
        &self,
        _service: &NamespacedName,
    ) -> Result<usize, ApiRequestError> {
        match self.0 {}
    }

    /// What cannot be called.
    pub fn namespace(&self) -> &str {
        match self.0 {}
    }

    /// What cannot be called.
    pub async fn create_event(&self, _event: &NewEvent<'_>) -> Result<String, ApiRequestError> {
        match self.0 {}
    }

    /// What cannot be called.
    pub fn server(&self) -> &str {
        match self.0 {}
    }

    /// What cannot be called.
    pub async fn increment_event_count(
        &self,
        _service: &NamespacedName,
        _name: &str,
        _count: u32,
    ) -> Result<(), ApiRequestError> {
        match self.0 {}
    }

    /// What cannot be called.
    pub fn health(&self) -> Arc<ApiHealth> {
        match self.0 {}
    }
}

impl ClusterHandle {
    /// There is nothing to follow a cluster with.
    pub fn start(connection: ApiConnection, _node_name: Option<String>) -> (Self, ClusterTasks) {
        match connection {}
    }
}
