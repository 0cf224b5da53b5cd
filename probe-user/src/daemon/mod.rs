//! The daemon: one monitor that owns the state, and the tasks around it.

pub mod address_statistics;
pub mod annotate;
pub mod drift_reconciler;
pub mod drill;
pub mod health;
pub mod history;
pub mod monitor;
pub mod recording;
pub mod segments;
pub mod serve;
pub mod supervisor;
pub mod tracking;
