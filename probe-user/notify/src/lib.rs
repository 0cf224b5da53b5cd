//! Notifications: conflicts and drifts, told to somebody who does not look.
//!
//! What always holds: detection never waits for a receiver, memory is bounded however long one is away, and what
//! is not told one by one is counted and told as a number. What is told, in which order, how often and to whom is
//! pure (`desk`, `queue`, `retry`, `message`); only `webhook` sends.

mod counts;
mod desk;
mod drifts;
mod events;
mod ledger;
mod news;
mod occasion;
mod queue;
mod retry;
mod task;

pub mod message;
pub mod webhook;

#[cfg(test)]
mod schema_tests;

pub use counts::{Channel, Counts, Ending};
pub use desk::{Desk, Duty, HANDOVER};
pub use message::{Format, Reporter};
pub use news::{Kind, News, Selection, Subject};
pub use queue::{Batch, Queue};
pub use retry::{Backoff, Outcome, Pace};
pub use task::{ClusterSources, Notifier, NotifierSettings, Sources};
pub use webhook::{Address, Webhook, WebhookError, WebhookSettings};
