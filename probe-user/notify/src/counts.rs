//! Counters of notifications, shared with the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use probe_common::label_enum;

label_enum! {
    /// The ways in which notifications are delivered.
    pub enum NotificationChannel {
        /// HTTP POST.
        Webhook = "webhook",
        /// Kubernetes Events on Services.
        Event = "event",
    }
}

label_enum! {
    /// How an attempt to deliver ended.
    pub enum DeliveryResult {
        /// Accepted by the receiver.
        Sent = "sent",
        /// Failed, and retried.
        Retried = "retried",
        /// Refused for good.
        Refused = "refused",
    }
}

#[derive(Debug, Default)]
struct ChannelCounts {
    deliveries: [AtomicU64; DeliveryResult::COUNT],
    dropped: AtomicU64,
    pending: AtomicU64,
}

/// The counters of all channels.
#[derive(Debug, Default)]
pub struct NotificationCounts([ChannelCounts; NotificationChannel::COUNT]);

impl NotificationCounts {
    const fn channel(&self, channel: NotificationChannel) -> &ChannelCounts {
        &self.0[channel.number() as usize]
    }

    /// Counts an attempt to deliver.
    pub fn count(&self, channel: NotificationChannel, result: DeliveryResult) {
        self.channel(channel).deliveries[usize::from(result.number())]
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Counts notifications that were not delivered one by one.
    pub fn add_dropped(&self, channel: NotificationChannel, number: u64) {
        self.channel(channel)
            .dropped
            .fetch_add(number, Ordering::Relaxed);
    }

    /// Sets the number of subjects in the queue.
    pub fn set_pending(&self, channel: NotificationChannel, number: usize) {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        self.channel(channel)
            .pending
            .store(number, Ordering::Relaxed);
    }

    /// The number of attempts with this result.
    pub fn deliveries(&self, channel: NotificationChannel, result: DeliveryResult) -> u64 {
        self.channel(channel).deliveries[usize::from(result.number())].load(Ordering::Relaxed)
    }

    /// The number of notifications that were not delivered one by one.
    pub fn dropped(&self, channel: NotificationChannel) -> u64 {
        self.channel(channel).dropped.load(Ordering::Relaxed)
    }

    /// The number of subjects in the queue.
    pub fn pending(&self, channel: NotificationChannel) -> u64 {
        self.channel(channel).pending.load(Ordering::Relaxed)
    }
}
