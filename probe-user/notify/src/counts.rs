//! What is counted of notifications.

use std::sync::atomic::{AtomicU64, Ordering};

use probe_common::label_enum;

label_enum! {
    /// Ways to tell somebody.
    pub enum Channel {
        /// Over HTTP.
        Webhook = "webhook",
        /// An Event of Kubernetes on the Service.
        Event = "event",
    }
}

label_enum! {
    /// What came of trying to send something.
    pub enum Ending {
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
struct Row {
    endings: [AtomicU64; Ending::COUNT],
    dropped: AtomicU64,
    waiting: AtomicU64,
}

/// What is counted. Shared with the metrics.
#[derive(Debug, Default)]
pub struct Counts([Row; Channel::COUNT]);

impl Counts {
    const fn row(&self, channel: Channel) -> &Row {
        &self.0[channel.number() as usize]
    }

    /// Counts an attempt.
    pub fn count(&self, channel: Channel, ending: Ending) {
        self.row(channel).endings[usize::from(ending.number())].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts news that nobody was told one by one.
    pub fn lose(&self, channel: Channel, number: u64) {
        self.row(channel)
            .dropped
            .fetch_add(number, Ordering::Relaxed);
    }

    /// So many news wait now.
    pub fn wait(&self, channel: Channel, number: usize) {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        self.row(channel).waiting.store(number, Ordering::Relaxed);
    }

    /// How often it ended so.
    pub fn ended(&self, channel: Channel, ending: Ending) -> u64 {
        self.row(channel).endings[usize::from(ending.number())].load(Ordering::Relaxed)
    }

    /// News that nobody was told one by one.
    pub fn dropped(&self, channel: Channel) -> u64 {
        self.row(channel).dropped.load(Ordering::Relaxed)
    }

    /// News that wait.
    pub fn waiting(&self, channel: Channel) -> u64 {
        self.row(channel).waiting.load(Ordering::Relaxed)
    }
}
