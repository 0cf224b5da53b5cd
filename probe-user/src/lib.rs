//! The daemon and the command line tool `probe`.
//!
//! Assembles the crates below: frames become events in the kernel (`datapath`), findings in `detect`; the daemon
//! publishes them, and the verbs of the command line show them.

pub mod cli;
pub mod client;
pub mod daemon;
pub mod doctor;
pub mod filter;
pub mod log_writer;
pub mod settings;
