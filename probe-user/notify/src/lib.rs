//! Notifications about conflicts and drifts: selection, queue, rate limits, and the webhook.
//!
//! Invariants: detection never waits for a receiver; memory is bounded however long a receiver is away; a notification
//! that is not delivered one by one is counted and delivered as a number; delivery is at least once. Which
//! notifications are sent, in which order and how often is pure (`gate`, `queue`, `retry`, `message`); only `webhook`
//! does I/O. Must not depend on `kubernetes`: it implements [`NotificationSink`] for Kubernetes Events.

#![forbid(unsafe_code)]

mod conflicts;
mod counts;
mod drifts;
mod gate;
mod notification;
mod queue;
mod retry;
mod sink;
mod task;

pub mod message;
pub mod webhook;

#[cfg(test)]
mod schema_tests;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use counts::{DeliveryResult, NotificationChannel, NotificationCounts};
pub use message::{MessageReporter, WebhookFormat};
pub use notification::{Notification, NotificationCause, NotificationKind, NotificationSubject};
pub use queue::{NotificationBatch, NotificationQueue, QueuedNotification};
pub use retry::NotificationRateLimit;
pub use sink::{DeliveryOutcome, DeliveryReport, NotificationSink};
pub use task::{Notifier, NotifierClusterSources, NotifierPolicy, NotifierSources};
pub use webhook::{Webhook, WebhookError, WebhookSettings, WebhookSink, WebhookUrlSource};
