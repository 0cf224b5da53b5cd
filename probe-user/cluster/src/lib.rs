//! Conclusions from a snapshot of a Kubernetes cluster: causes of conflicts, drift, tracked addresses, explanations.
//!
//! Pure. Must not depend on tokio, sockets, files or the API client.

#![forbid(unsafe_code)]

pub mod cause;
pub mod drift;
pub mod explain;
pub mod model;
pub mod object;
pub mod pending;
mod roster;
pub mod shelf;
pub mod speaker;
pub mod stations;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tracking;
pub mod usage;

pub use model::{ClusterObjects, ClusterSnapshot, Node, Resource, Service, object_title};
pub use roster::NodeIndex;
