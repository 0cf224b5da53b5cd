//! The daemon and the subcommands with a Kubernetes API server: a real control plane, and hosts that act as its
//! nodes.

#![allow(clippy::unwrap_used, reason = "helpers of tests are part of the tests")]

mod announcing_node;
mod causes;
mod cli;
mod control_plane;
mod drift;
mod drift_reconciler;
mod events;
mod expected_owner;
mod speakers;
mod watchers;
