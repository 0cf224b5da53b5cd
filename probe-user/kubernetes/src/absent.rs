//! The connection in a build without the feature `kubernetes`: none can be opened.

#![expect(
    clippy::unused_async,
    clippy::needless_pass_by_value,
    reason = "the interface is that of the real connection, and none of it can be called"
)]

use std::{collections::BTreeSet, convert::Infallible, sync::Arc};

use probe_cluster::snapshot::{ClusterObjects, Node};
use probe_model::NamespacedName;

use super::{
    ApiHealth, ApiRequestError, ClusterHandle, ClusterTasks, ConnectError, PoolObjects,
    kubernetes_event::KubernetesEvent,
};

/// A connection to an API server. It cannot be constructed, so the callers need no `cfg`.
#[derive(Clone, Debug)]
pub struct ApiConnection(Infallible);

#[expect(missing_docs, reason = "as in the module with the real connection")]
impl ApiConnection {
    pub fn open(_context: Option<&str>) -> impl Future<Output = Result<Self, ConnectError>> {
        std::future::ready(Err(ConnectError::NotBuilt))
    }

    pub fn is_configured() -> bool {
        false
    }

    pub async fn objects(&self) -> ClusterObjects {
        match self.0 {}
    }

    pub async fn pool_objects(&self) -> PoolObjects {
        match self.0 {}
    }

    pub async fn nodes(&self, _labels: &BTreeSet<String>) -> Result<Vec<Node>, ApiRequestError> {
        match self.0 {}
    }

    pub async fn ready_endpoints(
        &self,
        _service: &NamespacedName,
    ) -> Result<usize, ApiRequestError> {
        match self.0 {}
    }

    pub fn namespace(&self) -> &str {
        match self.0 {}
    }

    pub(super) async fn create_event(
        &self,
        _event: &KubernetesEvent,
        _instance: &str,
    ) -> Result<String, ApiRequestError> {
        match self.0 {}
    }

    pub(super) async fn update_event_series(
        &self,
        _service: &NamespacedName,
        _name: &str,
        _count: u32,
    ) -> Result<(), ApiRequestError> {
        match self.0 {}
    }

    pub fn server(&self) -> &str {
        match self.0 {}
    }

    pub fn health(&self) -> Arc<ApiHealth> {
        match self.0 {}
    }
}

impl ClusterHandle {
    /// Cannot be called: there is no connection.
    pub fn start(connection: ApiConnection, _node_name: Option<String>) -> (Self, ClusterTasks) {
        match connection.0 {}
    }
}
