//! The tests that run in the guests of the kernel matrix, on kernels and devices that the host does not have.
//!
//! `cargo test` builds this binary and does not run it; `cargo xtask kernels` does.

#![allow(clippy::unwrap_used, reason = "helpers of tests are part of the tests")]

/// These tests hold on every kernel; on the host, they run with the network tests.
#[path = "../network/counters.rs"]
mod counters;
mod devices_and_kernels;
