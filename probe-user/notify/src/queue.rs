//! What waits to be told. Bounded: what does not fit is counted, and told as a number.

use std::collections::{BTreeMap, BTreeSet};

use super::notification::{Notification, NotificationKind, NotificationSubject};

/// Subjects that wait with all that is known of them.
pub const CAPACITY: usize = 1_000;

/// News about one subject that nobody was told yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedNotification {
    /// The first of them.
    pub first: Notification,
    /// The last of them, which may be the first.
    pub last: Notification,
    /// How many there were.
    pub number: u64,
}

/// The queue: for each subject one entry, in the order in which notification about it first came.
#[derive(Debug, Default)]
pub struct NotificationQueue {
    waiting: BTreeMap<u64, QueuedNotification>,
    position_of: BTreeMap<NotificationSubject, u64>,
    next: u64,
    /// What did not fit.
    counted_only: BTreeMap<NotificationKind, u64>,
}

/// What one message tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotificationBatch {
    /// In the order of the queue.
    pub listed: Vec<QueuedNotification>,
    /// What else there is to tell, as numbers.
    pub more: BTreeMap<NotificationKind, u64>,
    /// The entries that it covers, with the number of notification in each.
    covers: Vec<(u64, u64)>,
    /// Of what did not fit into the queue.
    unlisted_seen: BTreeMap<NotificationKind, u64>,
}

impl NotificationBatch {
    /// News that are told as numbers only.
    pub fn unlisted(&self) -> u64 {
        self.more.values().sum()
    }

    /// Of those, the ones that were in the queue with all that is known of them.
    pub fn dropped_count(&self) -> u64 {
        self.unlisted() - self.unlisted_seen.values().sum::<u64>()
    }
}

impl NotificationQueue {
    /// Takes notification. Returns whether they fitted.
    pub fn push(&mut self, notification: Notification) -> bool {
        if let Some(waiting) = self
            .position_of
            .get(&notification.subject)
            .and_then(|place| self.waiting.get_mut(place))
        {
            waiting.last = notification;
            waiting.number += 1;
            return true;
        }
        if self.waiting.len() >= CAPACITY {
            self.count_only(notification.kind, 1);
            return false;
        }
        self.position_of
            .insert(notification.subject.clone(), self.next);
        let waiting = QueuedNotification {
            first: notification.clone(),
            last: notification,
            number: 1,
        };
        self.waiting.insert(self.next, waiting);
        self.next += 1;
        true
    }

    /// Takes note of notification of which no more than their kind and number is known.
    pub fn count_only(&mut self, kind: NotificationKind, number: u64) {
        *self.counted_only.entry(kind).or_default() += number;
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.counted_only.is_empty()
    }

    /// Whether something about this waits.
    pub fn has(&self, subject: &NotificationSubject) -> bool {
        self.position_of.contains_key(subject)
    }

    /// The subjects that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// All that waits, as one message that lists at most so many: what matters most, in the order of the queue.
    pub fn batch(&self, at_most: usize) -> NotificationBatch {
        let mut order: Vec<_> = self.waiting.iter().collect();
        // Stable: of what matters as much, the first come.
        order.sort_by_key(|(_, waiting)| std::cmp::Reverse(waiting.severity()));
        let rest = order.split_off(at_most.min(order.len()));
        order.sort_by_key(|(place, _)| **place);
        let mut more = self.counted_only.clone();
        for (_, waiting) in &rest {
            *more.entry(waiting.last.kind).or_default() += 1;
        }
        NotificationBatch {
            listed: order
                .iter()
                .map(|(_, waiting)| (*waiting).clone())
                .collect(),
            more,
            covers: self
                .waiting
                .iter()
                .map(|(&place, waiting)| (place, waiting.number))
                .collect(),
            unlisted_seen: self.counted_only.clone(),
        }
    }

    /// The first that wait, so many at most; the others go on waiting, but for what did not fit.
    pub fn first(&self, at_most: usize) -> NotificationBatch {
        let first = self.waiting.iter().take(at_most);
        let covers = first.clone();
        NotificationBatch {
            listed: first.map(|(_, waiting)| waiting.clone()).collect(),
            more: self.counted_only.clone(),
            covers: covers
                .map(|(&place, waiting)| (place, waiting.number))
                .collect(),
            unlisted_seen: self.counted_only.clone(),
        }
    }

    /// What cannot be told now waits behind all others.
    pub fn postpone(&mut self, subjects: &BTreeSet<NotificationSubject>) {
        for subject in subjects {
            let Some(place) = self.position_of.get_mut(subject) else {
                continue;
            };
            if let Some(waiting) = self.waiting.remove(place) {
                *place = self.next;
                self.waiting.insert(self.next, waiting);
                self.next += 1;
            }
        }
    }

    /// A batch is done with: told, or refused for good. What has come since stays.
    pub fn remove_sent(&mut self, batch: &NotificationBatch) {
        for &(place, number) in &batch.covers {
            let Some(waiting) = self.waiting.get_mut(&place) else {
                continue;
            };
            if waiting.number > number {
                waiting.number -= number;
                waiting.first = waiting.last.clone();
            } else if let Some(done) = self.waiting.remove(&place) {
                self.position_of.remove(&done.last.subject);
            }
        }
        for (kind, number) in &batch.unlisted_seen {
            if let Some(left) = self.counted_only.get_mut(kind) {
                *left = left.saturating_sub(*number);
            }
        }
        self.counted_only.retain(|_, left| *left > 0);
    }
}

impl QueuedNotification {
    /// A conflict that is over again mattered as much as it did.
    fn severity(&self) -> probe_model::Severity {
        self.first.severity.max(self.last.severity)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use probe_model::Severity;

    use super::{
        super::notification::{NotificationKind, tests::notification},
        *,
    };

    fn kinds(batch: &NotificationBatch) -> Vec<(NotificationKind, NotificationKind, u64)> {
        let listed = batch.listed.iter();
        listed
            .map(|waiting| (waiting.first.kind, waiting.last.kind, waiting.number))
            .collect()
    }

    fn numbered(number: u32) -> Notification {
        let mut notification = notification(1, NotificationKind::Conflict);
        let NotificationSubject::Address { ip, .. } = &mut notification.subject else {
            panic!("{notification:?}")
        };
        *ip = IpAddr::V4(number.into());
        notification
    }

    #[test]
    fn news_about_one_subject_become_one_entry_in_its_place() {
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
    fn what_cannot_be_told_now_waits_behind_the_others() {
        let mut queue = NotificationQueue::default();
        for last in 1..=3 {
            queue.push(notification(last, NotificationKind::Conflict));
        }
        let stuck = [1, 9].map(|last| notification(last, NotificationKind::Conflict).subject);
        queue.postpone(&BTreeSet::from(stuck.clone()));
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
        assert_eq!((queue.len(), queue.has(&stuck[1])), (3, false));
        queue.remove_sent(&queue.first(3));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_comes_while_a_message_is_on_its_way_waits_for_the_next() {
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
        // Its place is free again.
        queue.push(notification(1, NotificationKind::Conflict));
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn a_storm_of_ten_thousand_is_one_message_that_lists_fifty_and_counts_the_others() {
        let mut queue = NotificationQueue::default();
        let fitted = (0..10_000).filter(|&number| queue.push(numbered(number)));
        assert_eq!(fitted.count(), CAPACITY);
        let batch = queue.batch(50);
        assert_eq!((batch.listed.len(), batch.unlisted()), (50, 9_950));
        assert_eq!(
            batch.more,
            BTreeMap::from([(NotificationKind::Conflict, 9_950)])
        );
        // One more that did not fit, while the message is on its way.
        queue.push(numbered(20_000));
        queue.remove_sent(&batch);
        let batch = queue.batch(50);
        assert_eq!((batch.listed.len(), batch.unlisted()), (0, 1));
        queue.remove_sent(&batch);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_matters_most_is_listed_in_the_order_in_which_it_came() {
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
            .map(|waiting| waiting.last.severity)
            .collect();
        let (critical, warning) = (Severity::Critical, Severity::Warning);
        assert_eq!(severities, [warning, critical, critical, critical]);
        assert_eq!(batch.unlisted(), 2);
    }
}
