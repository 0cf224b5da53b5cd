//! The program `probe`: the daemon, the command line and the settings.
//!
//! Assembles the other crates: frames become events in the kernel (`datapath`) and findings in `detect`; the daemon
//! publishes them, and the verbs of the command line show them. No other crate may depend on this one.

pub mod cli;
pub mod client;
pub mod daemon;
pub mod doctor;
pub mod filter;
pub mod log_writer;
pub mod settings;
