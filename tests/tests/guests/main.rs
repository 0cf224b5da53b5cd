//! The tests that the guests of the kernel matrix run, on kernels and devices that the host does not have.
//!
//! `cargo test` builds this binary and does not run it; `cargo xtask kernels` does.

#![allow(clippy::unwrap_used, reason = "helpers of tests are part of the tests")]

/// Holds on every kernel; the host runs it with the tests of the network.
#[path = "../network/counters.rs"]
mod counters;
mod devices_and_kernels;
