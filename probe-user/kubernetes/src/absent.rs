//! What stands in for a connection in a program that was built without Kubernetes: there is never one.

#![expect(
    clippy::unused_async,
    clippy::needless_pass_by_value,
    reason = "these are what the module that talks to an API server has, and cannot be called"
)]

use std::{collections::BTreeSet, convert::Infallible, sync::Arc};

use probe_cluster::model::{Node, Objects};
use probe_model::Named;

use super::{ConnectError, Handle, Health, ReadError, Running};

/// A connection to an API server: there is none.
///
/// That nobody can have one is for this module to know: elsewhere the same code goes for both.
#[derive(Clone, Debug)]
pub struct Connection(Infallible);

/// An Event that is never made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the module that makes them")]
pub struct NewEvent<'a> {
    pub service: &'a Named,
    pub uid: &'a str,
    pub reason: &'a str,
    pub is_warning: bool,
    pub note: &'a str,
    pub instance: &'a str,
}

impl Connection {
    /// Says that this program cannot.
    pub fn open(_context: Option<&str>) -> impl Future<Output = Result<Self, ConnectError>> {
        std::future::ready(Err(ConnectError::NotBuilt))
    }

    /// Whether a cluster is at hand: not to this program.
    pub fn is_at_hand() -> bool {
        false
    }

    /// What cannot be called.
    pub async fn objects(&self) -> Objects {
        match self.0 {}
    }

    /// What cannot be called.
    pub async fn pool_objects(&self) -> super::PoolObjects {
        match self.0 {}
    }

    /// What cannot be called.
    pub async fn nodes(&self, _labels: &BTreeSet<String>) -> Result<Vec<Node>, ReadError> {
        match self.0 {}
    }

    /// What cannot be called.
    pub async fn ready_endpoints(&self, _service: &Named) -> Result<usize, ReadError> {
        match self.0 {}
    }

    /// What cannot be called.
    pub fn namespace(&self) -> &str {
        match self.0 {}
    }

    /// What cannot be called.
    pub async fn make_event(&self, _event: &NewEvent<'_>) -> Result<String, ReadError> {
        match self.0 {}
    }

    /// What cannot be called.
    pub fn server(&self) -> &str {
        match self.0 {}
    }

    /// What cannot be called.
    pub async fn count_event(
        &self,
        _service: &Named,
        _name: &str,
        _count: u32,
    ) -> Result<(), ReadError> {
        match self.0 {}
    }

    /// What cannot be called.
    pub fn health(&self) -> Arc<Health> {
        match self.0 {}
    }
}

impl Handle {
    /// There is nothing to follow a cluster with.
    pub fn start(connection: Connection, _node_name: Option<String>) -> (Self, Running) {
        match connection {}
    }
}
