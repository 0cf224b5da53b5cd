//! Whose address it is: what a Kubernetes cluster knows of the addresses on the wire.
//!
//! The wire is the truth of who has an address; the cluster says who should. What it says is data
//! ([`model`]), and what follows from it is pure. Only the client, which the feature `kubernetes` brings,
//! talks to an API server.

pub mod annotate;
pub mod cause;
pub mod client;
mod context;
pub mod drift;
pub mod model;
pub mod object;
pub mod pending;
mod roster;
pub mod shelf;
pub mod speaker;
pub mod stations;
#[cfg(test)]
pub(crate) mod testing;
pub mod tracking;
pub mod usage;
pub mod watchdog;

pub use context::{Cause, CauseKind, Context, Scope};
pub use model::{Announced, Cluster, Named, Node, Objects, Resource, Service};
pub use roster::Roster;
