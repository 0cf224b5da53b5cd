//! Notifications: conflicts and drifts, told to somebody who does not look.
//!
//! What always holds: detection never waits for a receiver, memory is bounded however long one is away, and what
//! is not told one by one is counted and told as a number. What is told, in which order, how often and to whom is
//! pure (`desk`, `queue`, `retry`, `message`); only `webhook` sends.

mod counts;
mod drifts;
mod event_dedup;
mod events;
mod gate;
mod kubernetes_event;
mod notification;
mod queue;
mod retry;
mod task;

pub mod message;
pub mod webhook;

#[cfg(test)]
mod schema_tests;

pub use counts::{DeliveryResult, NotificationChannel, NotificationCounts};
pub use gate::{GateRole, HANDOVER_WINDOW, NotificationGate};
pub use message::{MessageReporter, WebhookFormat};
pub use notification::{FindingSelection, Notification, NotificationKind, NotificationSubject};
pub use queue::{NotificationBatch, NotificationQueue};
pub use retry::{DeliveryBackoff, DeliveryOutcome, NotificationRateLimit};
pub use task::{Notifier, NotifierClusterSources, NotifierSettings, NotifierSources};
pub use webhook::{Webhook, WebhookError, WebhookSettings, WebhookUrlSource};
