//! The daemon as a service: start and shutdown, settings, metrics, socket, notifications and active probing.

#![allow(clippy::unwrap_used, reason = "helpers of tests are part of the tests")]

mod active_probing;
mod lifecycle;
// The test counts the BPF maps of its own process: no other test of this binary loads programs into it.
mod memory;
mod metrics;
mod notifications;
mod overload;
mod settings;
mod socket;
mod supervision;
