//! The queue of pending notifications. It is bounded: the overflow is counted, and sent as a number.

use std::collections::{BTreeMap, BTreeSet};

use super::notification::{Notification, NotificationKind, NotificationSubject};

/// The number of subjects whose notifications are kept in full.
pub const CAPACITY: usize = 1_000;

/// The notifications about one subject that were not sent yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedNotification {
    /// The first of them.
    pub first: Notification,
    /// The last of them, which may be the first.
    pub last: Notification,
    /// The number of notifications.
    pub number: u64,
}

/// The queue: one entry for each subject, in the order of their first notification.
#[derive(Debug, Default)]
pub struct NotificationQueue {
    entries: BTreeMap<u64, QueuedNotification>,
    position_of: BTreeMap<NotificationSubject, u64>,
    next: u64,
    /// The number of those that did not fit.
    counted_only: BTreeMap<NotificationKind, u64>,
}

/// The content of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotificationBatch {
    /// In the order of the queue.
    pub listed: Vec<QueuedNotification>,
    /// The number of all others.
    pub more: BTreeMap<NotificationKind, u64>,
    /// The entries that the message covers, with the number of notifications in each.
    covers: Vec<(u64, u64)>,
    /// The number of those among `more` that did not fit into the queue.
    counted: BTreeMap<NotificationKind, u64>,
}

impl NotificationBatch {
    /// The number of notifications that are sent as a number only.
    pub fn unlisted(&self) -> u64 {
        self.more.values().sum()
    }

    /// The number of dropped notifications: unlisted ones that were in the queue.
    pub fn dropped_count(&self) -> u64 {
        self.unlisted() - self.counted.values().sum::<u64>()
    }
}

impl NotificationQueue {
    /// Adds notifications. Returns the number of those that did not fit.
    pub fn push_all(&mut self, notifications: impl IntoIterator<Item = Notification>) -> u64 {
        let notifications = notifications.into_iter();
        notifications
            .map(|notification| u64::from(!self.push(notification)))
            .sum()
    }

    /// Adds a notification. Returns whether it fitted.
    pub fn push(&mut self, notification: Notification) -> bool {
        if let Some(entry) = self
            .position_of
            .get(&notification.subject)
            .and_then(|position| self.entries.get_mut(position))
        {
            entry.last = notification;
            entry.number += 1;
            return true;
        }
        if self.entries.len() >= CAPACITY {
            self.count_only(notification.kind, 1);
            return false;
        }
        self.position_of
            .insert(notification.subject.clone(), self.next);
        let entry = QueuedNotification {
            first: notification.clone(),
            last: notification,
            number: 1,
        };
        self.entries.insert(self.next, entry);
        self.next += 1;
        true
    }

    /// Adds notifications of which only kind and number are known.
    pub fn count_only(&mut self, kind: NotificationKind, number: u64) {
        *self.counted_only.entry(kind).or_default() += number;
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.counted_only.is_empty()
    }

    /// Whether a notification about this subject waits.
    pub fn contains(&self, subject: &NotificationSubject) -> bool {
        self.position_of.contains_key(subject)
    }

    /// The number of subjects that wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The whole queue as one message that lists at most `at_most` subjects: the most severe ones, in queue order.
    pub fn batch(&self, at_most: usize) -> NotificationBatch {
        let mut order: Vec<_> = self.entries.iter().collect();
        // Stable: the first of equal severity.
        order.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.severity()));
        let rest = order.split_off(at_most.min(order.len()));
        order.sort_by_key(|(position, _)| **position);
        let mut more = self.counted_only.clone();
        for (_, entry) in &rest {
            *more.entry(entry.last.kind).or_default() += 1;
        }
        NotificationBatch {
            listed: order.iter().map(|(_, entry)| (*entry).clone()).collect(),
            more,
            covers: self
                .entries
                .iter()
                .map(|(&position, entry)| (position, entry.number))
                .collect(),
            counted: self.counted_only.clone(),
        }
    }

    /// The first `at_most` subjects of the queue. The others stay in the queue, except those that did not fit.
    pub fn first(&self, at_most: usize) -> NotificationBatch {
        let first = self.entries.iter().take(at_most);
        let covers = first.clone();
        NotificationBatch {
            listed: first.map(|(_, entry)| entry.clone()).collect(),
            more: self.counted_only.clone(),
            covers: covers
                .map(|(&position, entry)| (position, entry.number))
                .collect(),
            counted: self.counted_only.clone(),
        }
    }

    /// Moves subjects behind all others.
    pub fn postpone(&mut self, subjects: &BTreeSet<NotificationSubject>) {
        for subject in subjects {
            let Some(position) = self.position_of.get_mut(subject) else {
                continue;
            };
            if let Some(entry) = self.entries.remove(position) {
                *position = self.next;
                self.entries.insert(self.next, entry);
                self.next += 1;
            }
        }
    }

    /// Removes a batch that was delivered or rejected. Later notifications stay.
    pub fn remove_sent(&mut self, batch: &NotificationBatch) {
        for &(position, number) in &batch.covers {
            let Some(entry) = self.entries.get_mut(&position) else {
                continue;
            };
            if entry.number > number {
                entry.number -= number;
                entry.first = entry.last.clone();
            } else if let Some(done) = self.entries.remove(&position) {
                self.position_of.remove(&done.last.subject);
            }
        }
        for (kind, number) in &batch.counted {
            if let Some(left) = self.counted_only.get_mut(kind) {
                *left = left.saturating_sub(*number);
            }
        }
        self.counted_only.retain(|_, left| *left > 0);
    }
}

impl QueuedNotification {
    /// The severity of a conflict that has ended is the one that it had.
    fn severity(&self) -> probe_model::Severity {
        self.first.severity.max(self.last.severity)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use probe_model::Severity;

    use super::{
        super::testing::{change_finding, notification},
        *,
    };

    fn kinds(batch: &NotificationBatch) -> Vec<(NotificationKind, NotificationKind, u64)> {
        let listed = batch.listed.iter();
        listed
            .map(|queued| (queued.first.kind, queued.last.kind, queued.number))
            .collect()
    }

    fn numbered(number: u32) -> Notification {
        let mut notification = notification(1, NotificationKind::Conflict);
        change_finding(&mut notification, |record| {
            record.ip = IpAddr::V4(number.into());
        });
        notification
    }

    #[test]
    fn notifications_about_one_subject_are_merged_in_queue_order() {
        let mut queue = NotificationQueue::default();
        for (last, kind) in [
            (1, NotificationKind::Conflict),
            (2, NotificationKind::Conflict),
            (1, NotificationKind::ConflictQuiet),
            (1, NotificationKind::ConflictResolved),
        ] {
            assert!(queue.push(notification(last, kind)));
        }
        assert_eq!(
            kinds(&queue.batch(50)),
            [
                (
                    NotificationKind::Conflict,
                    NotificationKind::ConflictResolved,
                    3
                ),
                (NotificationKind::Conflict, NotificationKind::Conflict, 1)
            ]
        );
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn postponed_subject_moves_to_the_end_of_the_queue() {
        let mut queue = NotificationQueue::default();
        for last in 1..=3 {
            queue.push(notification(last, NotificationKind::Conflict));
        }
        let blocked = [1, 9].map(|last| notification(last, NotificationKind::Conflict).subject);
        queue.postpone(&BTreeSet::from(blocked.clone()));
        queue.push(notification(1, NotificationKind::ConflictResolved));
        let (other, over) = (
            (NotificationKind::Conflict, NotificationKind::Conflict, 1),
            (
                NotificationKind::Conflict,
                NotificationKind::ConflictResolved,
                2,
            ),
        );
        assert_eq!(kinds(&queue.first(3)), [other, other, over]);
        assert_eq!((queue.len(), queue.contains(&blocked[1])), (3, false));
        queue.remove_sent(&queue.first(3));
        assert!(queue.is_empty());
    }

    #[test]
    fn notification_during_a_delivery_waits_for_the_next() {
        let mut queue = NotificationQueue::default();
        queue.push(notification(1, NotificationKind::Conflict));
        queue.push(notification(2, NotificationKind::Conflict));
        let batch = queue.batch(50);
        queue.push(notification(1, NotificationKind::ConflictResolved));
        queue.push(notification(3, NotificationKind::Conflict));
        queue.remove_sent(&batch);
        assert_eq!(
            kinds(&queue.batch(50)),
            [
                (
                    NotificationKind::ConflictResolved,
                    NotificationKind::ConflictResolved,
                    1
                ),
                (NotificationKind::Conflict, NotificationKind::Conflict, 1)
            ]
        );
        queue.remove_sent(&queue.batch(50));
        assert!(queue.is_empty());
        queue.push(notification(1, NotificationKind::Conflict));
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn storm_of_ten_thousand_is_one_message_that_lists_fifty_and_counts_the_rest() {
        let mut queue = NotificationQueue::default();
        let fitted = (0..10_000).filter(|&number| queue.push(numbered(number)));
        assert_eq!(fitted.count(), CAPACITY);
        let batch = queue.batch(50);
        assert_eq!((batch.listed.len(), batch.unlisted()), (50, 9_950));
        assert_eq!(
            batch.more,
            BTreeMap::from([(NotificationKind::Conflict, 9_950)])
        );
        // One more that does not fit, during the delivery.
        queue.push(numbered(20_000));
        queue.remove_sent(&batch);
        let batch = queue.batch(50);
        assert_eq!((batch.listed.len(), batch.unlisted()), (0, 1));
        queue.remove_sent(&batch);
        assert!(queue.is_empty());
    }

    #[test]
    fn the_most_severe_are_listed_in_the_order_of_arrival() {
        let mut queue = NotificationQueue::default();
        for number in 0..6 {
            let mut notification = numbered(number);
            notification.severity = if number % 2 == 1 {
                Severity::Critical
            } else {
                Severity::Warning
            };
            queue.push(notification);
        }
        let batch = queue.batch(4);
        let severities: Vec<_> = batch
            .listed
            .iter()
            .map(|queued| queued.last.severity)
            .collect();
        let (critical, warning) = (Severity::Critical, Severity::Warning);
        assert_eq!(severities, [warning, critical, critical, critical]);
        assert_eq!(batch.unlisted(), 2);
    }
}
