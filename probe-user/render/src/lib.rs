//! Text, JSON and SARIF output for people and machines.
//!
//! Pure: records in, text out. Must not depend on sockets, netlink, bpf or the API client.

#![forbid(unsafe_code)]

pub mod bundle;
pub mod layout;
pub mod pools;
pub mod terminal;
pub mod text;

pub use terminal::Terminal;

#[cfg(test)]
mod explain_tests;
