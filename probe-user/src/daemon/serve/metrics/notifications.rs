//! The metrics of notifications.

use probe_notify::{DeliveryResult, NotificationChannel, NotificationCounts};

use super::{family::MetricFamily, list};

/// The counts of notifications.
pub fn families(counts: &NotificationCounts) -> String {
    let mut messages = MetricFamily::new(list::NOTIFICATIONS);
    let mut waiting = MetricFamily::new(list::NOTIFICATIONS_WAITING);
    let mut dropped = MetricFamily::new(list::NOTIFICATIONS_DROPPED);
    for &channel in NotificationChannel::ALL {
        for &ending in DeliveryResult::ALL {
            let count = counts.deliveries(channel, ending);
            messages.add([channel.label(), ending.label()], count);
        }
        waiting.add([channel.label()], counts.pending(channel));
        dropped.add([channel.label()], counts.dropped(channel));
    }
    [messages.finish(), waiting.finish(), dropped.finish()].concat()
}
