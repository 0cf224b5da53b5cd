//! Conclusions from a snapshot of a Kubernetes cluster: causes of conflicts, drift, tracked addresses, explanations.
//!
//! Pure. Must not depend on tokio, sockets, files or the API client.

#![forbid(unsafe_code)]

mod announcer_history;
pub mod cause;
pub mod contest;
pub mod drift;
pub mod explain;
pub mod local_announcements;
mod node_index;
pub mod node_mac_index;
pub mod object;
pub mod pending;
pub mod resource_store;
mod selector;
pub mod snapshot;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tracking;
pub mod usage;

pub use announcer_history::NamedAnnouncer;
pub use node_index::NodeIndex;
pub use snapshot::{ClusterObjects, ClusterSnapshot, Node, Resource, Service, object_title};
