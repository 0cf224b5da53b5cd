//! What stands in for a connection in a program that was built without Kubernetes: there is never one.

use std::{collections::BTreeSet, sync::Arc};

use super::{ConnectError, Health, ReadError};
use crate::cluster::model::{Named, Node, Objects};

/// A connection to an API server: there is none.
#[derive(Clone, Debug)]
pub enum Connection {}

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
        match *self {}
    }

    /// What cannot be called.
    pub async fn nodes(&self, _labels: &BTreeSet<String>) -> Result<Vec<Node>, ReadError> {
        match *self {}
    }

    /// What cannot be called.
    pub async fn ready_endpoints(&self, _service: &Named) -> Result<usize, ReadError> {
        match *self {}
    }

    /// What cannot be called.
    pub fn health(&self) -> Arc<Health> {
        match *self {}
    }
}
