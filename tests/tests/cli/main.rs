//! The subcommands for people: output, exit status and effects.

#![allow(clippy::unwrap_used, reason = "helpers of tests are part of the tests")]

mod capture;
mod check;
mod completions;
mod doctor;
mod drill;
mod errors;
mod explain;
mod pools;
mod watch;
