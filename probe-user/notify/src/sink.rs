//! The interface between the notifier and the delivery channels.

use std::{collections::BTreeSet, time::Duration};

use super::{
    counts::NotificationChannel,
    notification::NotificationSubject,
    queue::{NotificationBatch, NotificationQueue},
};

/// Delivers notifications: a webhook, or Kubernetes Events.
pub trait NotificationSink: Sized + Send + 'static {
    /// The channel that deliveries are counted for.
    const CHANNEL: NotificationChannel;

    /// Selects the notifications of the next delivery.
    fn next_batch(&self, queue: &NotificationQueue) -> NotificationBatch;

    /// Delivers a batch. The notifier stays responsive meanwhile, so the sink moves into the delivery and back.
    fn deliver(
        self,
        batch: NotificationBatch,
    ) -> impl Future<Output = (Self, DeliveryReport)> + Send;
}

/// The result of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The receiver accepted it.
    Delivered,
    /// It failed, and another attempt may succeed.
    Retry {
        /// The delay that the receiver requests, if any.
        after: Option<Duration>,
    },
    /// It failed permanently.
    Refused,
}

/// The result of delivering a batch.
#[derive(Debug)]
pub struct DeliveryReport {
    /// Whether the batch is finished.
    pub outcome: DeliveryOutcome,
    /// The last error.
    pub error: Option<String>,
    /// The number of notifications of the batch that are not delivered individually.
    pub dropped: u64,
    /// Subjects that fail repeatedly: they wait behind all others.
    pub blocked: BTreeSet<NotificationSubject>,
}
