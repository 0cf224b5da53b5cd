//! What is counted of notifications.

use std::sync::atomic::{AtomicU64, Ordering};

use probe_common::label_enum;

label_enum! {
    /// Ways to tell somebody.
    pub enum NotificationChannel {
        /// Over HTTP.
        Webhook = "webhook",
        /// An Event of Kubernetes on the Service.
        Event = "event",
    }
}

label_enum! {
    /// What came of trying to send something.
    pub enum DeliveryResult {
        /// It was taken.
        Sent = "sent",
        /// It was not, and is tried again.
        Retried = "retried",
        /// It was refused for good.
        Refused = "refused",
    }
}

/// The counts of one channel.
#[derive(Debug, Default)]
struct ChannelCounts {
    deliveries: [AtomicU64; DeliveryResult::COUNT],
    dropped: AtomicU64,
    waiting: AtomicU64,
}

/// What is counted. Shared with the metrics.
#[derive(Debug, Default)]
pub struct NotificationCounts([ChannelCounts; NotificationChannel::COUNT]);

impl NotificationCounts {
    const fn channel(&self, channel: NotificationChannel) -> &ChannelCounts {
        &self.0[channel.number() as usize]
    }

    /// Counts an attempt.
    pub fn count(&self, channel: NotificationChannel, ending: DeliveryResult) {
        self.channel(channel).deliveries[usize::from(ending.number())]
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Counts notification that nobody was told one by one.
    pub fn add_dropped(&self, channel: NotificationChannel, number: u64) {
        self.channel(channel)
            .dropped
            .fetch_add(number, Ordering::Relaxed);
    }

    /// So many notification wait now.
    pub fn set_waiting(&self, channel: NotificationChannel, number: usize) {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        self.channel(channel)
            .waiting
            .store(number, Ordering::Relaxed);
    }

    /// How often it ended so.
    pub fn ended(&self, channel: NotificationChannel, ending: DeliveryResult) -> u64 {
        self.channel(channel).deliveries[usize::from(ending.number())].load(Ordering::Relaxed)
    }

    /// News that nobody was told one by one.
    pub fn dropped(&self, channel: NotificationChannel) -> u64 {
        self.channel(channel).dropped.load(Ordering::Relaxed)
    }

    /// News that wait.
    pub fn waiting(&self, channel: NotificationChannel) -> u64 {
        self.channel(channel).waiting.load(Ordering::Relaxed)
    }
}
