//! Attaching to interfaces and reading frames: real daemons and real frames in network namespaces.

#![allow(clippy::unwrap_used, reason = "helpers of tests are part of the tests")]

mod attachment;
mod capabilities;
mod counters;
mod event_filter;
mod filter;
mod interfaces;
mod kernel_and_host;
mod lab;
mod vlans;
