//! Whose turn it is to tell. Pure: what is heard and when goes in, what is to be told comes out.
//!
//! In a cluster every daemon hears of conflicts and one tells, the holder of a lease. A new holder must not tell
//! again what was told for hours, and must tell what nobody did: what happened while nobody held the lease, and what
//! the holders before could not see or did not get to. So each daemon keeps what it hears of others' conflicts, and
//! holders leave to each other what they have told. What is not among it, and what happened in the time that a change of
//! holder takes, the new holder tells: some of it is told twice then, and nothing is lost.
//!
//! While the API server is away nobody can hold the lease, and a conflict on its own address may be why. What nobody
//! can have been given the lease to tell is told by the last holder, when a new one would long be there.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use probe_cluster::drift::Drift;
use probe_kubernetes::{Digest, PredecessorState, handover::MAX_DIGESTS};
use probe_model::{FindingRecord, Severity};
use tokio::time::Instant;

use super::{
    drifts::DriftGate,
    notification::{FindingSelection, Notification, NotificationKind, NotificationSubject},
    queue::{CAPACITY, NotificationQueue},
};

/// What a change of holder takes at most: until the lease of 15 s runs out, until somebody has seen that, and until
/// they have it.
pub const HANDOVER_WINDOW: Duration = Duration::from_mins(1);

/// A new holder has found within this time what there is to find, besides how long drifts have to last: an address that
/// no service should have is asked for every five minutes.
const SETTLE_DELAY: Duration = Duration::from_mins(10);

/// Who tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateRole {
    /// This daemon.
    Leader,
    /// Another one, or nobody yet.
    Standby,
}

/// Where notification arrive.
#[derive(Debug)]
pub struct NotificationGate {
    selection: FindingSelection,
    role: GateRole,
    /// Whether nobody is known to have taken over from us.
    is_leader: bool,
    drifts: DriftGate,
    /// How long it takes to find what there is.
    settling: Duration,
    /// What others tell, or nobody, as long as we may have to.
    settling_notifications: VecDeque<(Instant, Notification)>,
    /// And the last of each subject before that: we may have to tell it if nobody did.
    past_notifications: BTreeMap<NotificationSubject, Notification>,
    /// What the holder before us told and is not found yet, and until when it may be.
    inherited: (BTreeSet<Digest>, Option<Instant>),
    /// What we tell. What was ours to tell stays so when another takes over.
    pub queue: NotificationQueue,
}

impl NotificationGate {
    /// For what matters at least so much, where drifts are such after this time.
    pub fn new(min_severity: Severity, role: GateRole, drift_after: Duration) -> Self {
        Self {
            selection: FindingSelection::new(min_severity),
            role,
            is_leader: false,
            drifts: DriftGate::default(),
            settling: SETTLE_DELAY.saturating_add(drift_after),
            settling_notifications: VecDeque::new(),
            past_notifications: BTreeMap::new(),
            inherited: (BTreeSet::new(), None),
            queue: NotificationQueue::default(),
        }
    }

    /// A finding. Returns the number of notification that did not fit.
    pub fn accept_finding(&mut self, record: Arc<FindingRecord>, now: Instant) -> u64 {
        self.release_settled(now);
        let was_open = self.selection.has(&record);
        let Some(notification) = self.selection.select(record) else {
            return 0;
        };
        // As with drifts: whoever was told of it was not told of its end, and so knows that it is open. What comes after
        // that about a conflict that we know, as another owner, is notification.
        if notification.kind == NotificationKind::Conflict
            && !was_open
            && self.inherited.0.remove(&notification.digest())
        {
            return 0;
        }
        self.take(notification, now)
    }

    fn take(&mut self, notification: Notification, now: Instant) -> u64 {
        if !notification.is_open() {
            self.inherited.0.remove(&notification.digest());
        }
        match self.role {
            GateRole::Leader => u64::from(!self.queue.push(notification)),
            GateRole::Standby => {
                self.settling_notifications.push_back((now, notification));
                // More than fits into the queue could not be told one by one anyway.
                if self.settling_notifications.len() > CAPACITY {
                    self.settling_notifications.pop_front();
                }
                0
            }
        }
    }

    /// The drifts that there are. Returns the number of notification that did not fit.
    pub fn look(&mut self, drifts: &[Drift], now: Instant, time: Timestamp) -> u64 {
        if self.role == GateRole::Standby {
            return 0;
        }
        self.release_settled(now);
        let (min_severity, told) = (self.selection.least(), &mut self.inherited.0);
        let notification = self.drifts.look(drifts, min_severity, told, now, time);
        notification
            .into_iter()
            .map(|notification| self.take(notification, now))
            .sum()
    }

    /// It is ours from now on, after somebody who has told this. Returns the number of notification that did not fit.
    pub fn become_leader(&mut self, before: PredecessorState, now: Instant) -> u64 {
        if self.role == GateRole::Leader {
            return 0;
        }
        self.is_leader = false;
        self.role = GateRole::Leader;
        self.forget(now);
        let past_notifications = std::mem::take(&mut self.past_notifications).into_values();
        let mut past_notifications: Vec<_> = past_notifications
            .filter(|notification| is_not_notified(notification, &before))
            .collect();
        past_notifications.sort_by_key(Notification::time);
        let settling_notifications = std::mem::take(&mut self.settling_notifications).into_iter();
        let all = past_notifications
            .into_iter()
            .chain(settling_notifications.map(|(_, notification)| notification));
        self.inherited = (before.told, now.checked_add(self.settling));
        all.map(|notification| self.take(notification, now)).sum()
    }

    /// It is another's from now on, or nobody's.
    pub fn end(&mut self) {
        self.is_leader = self.role == GateRole::Leader;
        self.role = GateRole::Standby;
        self.drifts.end();
        self.inherited = (BTreeSet::new(), None);
    }

    /// What was told of what is so now, for the next holder; what still waits was not.
    pub fn notified_digests(&mut self, now: Instant) -> BTreeSet<Digest> {
        self.release_settled(now);
        let conflicts = self.selection.open();
        let conflicts = conflicts.filter(|(subject, _)| !self.queue.has(subject));
        let drifts = self.drifts.known();
        let drifts = drifts.filter(|(subject, _)| !self.queue.has(subject));
        let all = conflicts.map(|(_, digest)| digest);
        let all = all.chain(drifts.map(|(_, digest)| digest));
        let all = all.chain(self.inherited.0.iter().copied());
        all.take(MAX_DIGESTS).collect()
    }

    /// What the holder before us told, and is not there after all that time, is over.
    fn release_settled(&mut self, now: Instant) {
        if self.inherited.1.is_some_and(|end| now >= end) {
            self.inherited = (BTreeSet::new(), None);
        }
    }

    /// Time has passed; the API server may be away. Returns the number of notification that did not fit.
    pub fn tick(&mut self, now: Instant, time: Timestamp, is_away: bool) -> u64 {
        self.release_settled(now);
        let gone = self.drifts.tick(now, time);
        let mut dropped: u64 = gone
            .into_iter()
            .map(|notification| self.take(notification, now))
            .sum();
        while let Some(notification) = self.take_forgotten(now) {
            if self.is_leader && is_away {
                dropped += u64::from(!self.queue.push(notification));
            } else {
                // Somebody could take over meanwhile.
                self.is_leader = false;
                self.retain(notification);
            }
        }
        dropped
    }

    /// When there is something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let settling_notifications = self
            .settling_notifications
            .front()
            .map(|(heard, _)| *heard + HANDOVER_WINDOW);
        [
            settling_notifications,
            self.drifts.next_deadline(),
            self.inherited.1,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Who tells.
    pub const fn duty(&self) -> GateRole {
        self.role
    }

    fn forget(&mut self, now: Instant) {
        while let Some(notification) = self.take_forgotten(now) {
            self.retain(notification);
        }
    }

    /// What is open counts for as long as it is; what is over goes first where there is no room.
    fn retain(&mut self, notification: Notification) {
        let before = self.past_notifications.get(&notification.subject);
        if notification.kind == NotificationKind::ConflictQuiet
            && before.is_some_and(Notification::is_open)
        {
            // How it opened says more.
            return;
        }
        if before.is_none() && self.past_notifications.len() >= CAPACITY {
            let over = self
                .past_notifications
                .iter()
                .find(|(_, notification)| !notification.is_open());
            let over = over.map(|(subject, _)| subject.clone());
            let Some(over) = over.filter(|_| notification.is_open()) else {
                return;
            };
            self.past_notifications.remove(&over);
        }
        self.past_notifications
            .insert(notification.subject.clone(), notification);
    }

    /// What was kept for long enough.
    fn take_forgotten(&mut self, now: Instant) -> Option<Notification> {
        let (heard, _) = self.settling_notifications.front()?;
        if now.duration_since(*heard) < HANDOVER_WINDOW {
            return None;
        }
        self.settling_notifications
            .pop_front()
            .map(|(_, notification)| notification)
    }
}

/// Whether the holder before us cannot have told it, or says that it has not. Where nobody is known to have held the lease,
/// only what is still so is notification: what is over may have been told days ago.
fn is_not_notified(notification: &Notification, before: &PredecessorState) -> bool {
    match before.until {
        Some(until) if notification.time() > until => true,
        Some(_) => notification.is_open() && !before.told.contains(&notification.digest()),
        None => notification.is_open(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use probe_model::FindingKind;

    use super::{
        super::{
            drifts::tests::drift,
            notification::{digest_of_drift, tests::record},
        },
        *,
    };

    struct Lab {
        desk: NotificationGate,
        start: Instant,
    }

    impl Lab {
        fn new(role: GateRole) -> Self {
            Self {
                desk: NotificationGate::new(Severity::Warning, role, Duration::from_mins(2)),
                start: Instant::now(),
            }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn time(second: u64) -> Timestamp {
            let start: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
            start + SignedDuration::from_secs(second.try_into().unwrap())
        }

        fn accept_finding(&mut self, last: u8, kind: FindingKind, severity: Severity, second: u64) {
            let mut record = (*record(last, kind, severity)).clone();
            record.time = Self::time(second);
            self.desk.accept_finding(Arc::new(record), self.at(second));
        }

        fn opens(&mut self, last: u8, second: u64) {
            self.accept_finding(last, FindingKind::Conflict, Severity::Critical, second);
        }

        fn ends(&mut self, last: u8, second: u64) {
            self.accept_finding(
                last,
                FindingKind::ConflictResolved,
                Severity::Notice,
                second,
            );
        }

        /// After a holder that renewed until this second, and left what another has told.
        fn begins(&mut self, second: u64, until: Option<u64>, told: BTreeSet<Digest>) {
            let until = until.map(Self::time);
            self.desk
                .become_leader(PredecessorState { told, until }, self.at(second));
        }

        fn looks(&mut self, second: u64, drifts: &[Drift]) {
            self.desk.look(drifts, self.at(second), Self::time(second));
        }

        fn leaves(&mut self, second: u64) -> BTreeSet<Digest> {
            self.desk.notified_digests(self.at(second))
        }

        fn tick(&mut self, second: u64, is_away: bool) {
            self.desk.tick(self.at(second), Self::time(second), is_away);
        }

        fn notified_digests(&mut self) -> Vec<(NotificationKind, NotificationKind)> {
            let batch = self.desk.queue.batch(50);
            self.desk.queue.remove_sent(&batch);
            let listed = batch.listed.iter();
            listed
                .map(|waiting| (waiting.first.kind, waiting.last.kind))
                .collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_alone_tells() {
        let mut lab = Lab::new(GateRole::Leader);
        lab.opens(1, 0);
        assert_eq!(
            lab.notified_digests(),
            [(NotificationKind::Conflict, NotificationKind::Conflict)]
        );
    }

    /// What has opened, and is told as such.
    const OPENED: (NotificationKind, NotificationKind) =
        (NotificationKind::Conflict, NotificationKind::Conflict);

    #[tokio::test(start_paused = true)]
    async fn a_new_holder_tells_what_opened_during_the_change_and_what_is_left_untold() {
        let mut before = Lab::new(GateRole::Standby);
        before.begins(0, None, BTreeSet::new());
        before.opens(1, 0);
        before.opens(2, 0);
        assert_eq!(before.notified_digests(), [OPENED, OPENED]);
        let told = before.leaves(10);
        assert_eq!(told.len(), 2);

        let mut lab = Lab::new(GateRole::Standby);
        lab.opens(1, 0);
        lab.opens(2, 0);
        // The other one does not see this.
        lab.opens(3, 10);
        lab.opens(4, 120);
        assert_eq!(lab.notified_digests(), []);
        lab.begins(159, Some(140), told);
        assert_eq!(lab.notified_digests(), [OPENED, OPENED]);
        // Once.
        lab.begins(160, None, BTreeSet::new());
        assert_eq!(lab.notified_digests(), []);
        assert_eq!(lab.leaves(160).len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_happened_while_nobody_held_the_lease_is_told_however_long_that_was() {
        let mut lab = Lab::new(GateRole::Standby);
        let told = BTreeSet::from([1, 2, 3, 5].map(|last| {
            let record = record(last, FindingKind::Conflict, Severity::Critical);
            let notification = FindingSelection::new(Severity::Info).select(record);
            notification.unwrap().digest()
        }));
        // Told, and over before the last renewal: that was told as well.
        lab.opens(1, 0);
        lab.ends(1, 50);
        // Told, and over after it.
        lab.opens(2, 0);
        lab.ends(2, 200);
        // Told, and nothing has changed.
        lab.opens(5, 0);
        // Began and ended while nobody held the lease.
        lab.opens(4, 300);
        lab.ends(4, 400);
        // Told, and it may be another one by now.
        lab.opens(3, 0);
        lab.opens(3, 3_000);
        lab.begins(7_200, Some(100), told.clone());
        let over = (
            NotificationKind::ConflictResolved,
            NotificationKind::ConflictResolved,
        );
        assert_eq!(lab.notified_digests(), [over, over, OPENED]);

        // Where nobody is known to have held it all that is so is notification, and what is over is not.
        let mut lab = Lab::new(GateRole::Standby);
        lab.opens(1, 0);
        lab.ends(1, 50);
        lab.opens(3, 0);
        lab.begins(7_200, None, told);
        assert_eq!(lab.notified_digests(), [OPENED]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_that_became_quiet_is_told_as_it_opened() {
        let mut lab = Lab::new(GateRole::Standby);
        lab.opens(1, 0);
        lab.accept_finding(1, FindingKind::ConflictQuiet, Severity::Notice, 600);
        lab.begins(7_200, Some(7_190), BTreeSet::new());
        assert_eq!(lab.notified_digests(), [OPENED]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_holder_tells_the_drifts_that_nobody_told_whenever_they_began() {
        let drift_told = (NotificationKind::Drift, NotificationKind::Drift);
        let mut first = Lab::new(GateRole::Standby);
        let old = drift("old");
        first.looks(0, std::slice::from_ref(&old));
        assert_eq!(first.notified_digests(), [], "it is not its turn");
        // The lease is new: all that there is is notification.
        first.begins(10, None, BTreeSet::new());
        first.looks(20, std::slice::from_ref(&old));
        assert_eq!(first.leaves(20), BTreeSet::new(), "it is not told yet");
        assert_eq!(first.notified_digests(), [drift_told]);
        let told = first.leaves(30);
        assert_eq!(told, BTreeSet::from([digest_of_drift(&old)]));

        // Another one, which has not found it yet, leaves it to a third one as it was.
        let mut second = Lab::new(GateRole::Standby);
        second.begins(100, Some(90), told.clone());
        assert_eq!(second.leaves(110), told);
        second.looks(120, &[drift("new"), old.clone()]);
        assert_eq!(second.notified_digests(), [drift_told]);
        assert_eq!(second.leaves(130).len(), 2);
        second.looks(140, &[]);
        second.tick(160, false);
        assert_eq!(second.notified_digests().len(), 2, "their ends");
        assert_eq!(second.leaves(160), BTreeSet::new());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_holder_does_not_find_for_long_is_over() {
        let old = drift("old");
        let told = BTreeSet::from([digest_of_drift(&old)]);
        let mut lab = Lab::new(GateRole::Standby);
        lab.begins(0, Some(0), told.clone());
        assert_eq!(lab.leaves(719), told);
        assert_eq!(lab.leaves(720), BTreeSet::new());
        lab.looks(800, &[old]);
        assert_eq!(lab.notified_digests().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_holder_does_not_find_is_taken_back_though_nothing_happens() {
        let mut lab = Lab::new(GateRole::Standby);
        lab.begins(0, Some(0), BTreeSet::from([7]));
        let end = lab.desk.next_deadline().unwrap();
        assert_eq!(end, lab.at(720));
        lab.tick(720, false);
        assert_eq!(lab.desk.inherited.0, BTreeSet::new());
        assert_eq!(lab.desk.next_deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_that_was_told_and_is_found_again_is_no_news_but_what_becomes_of_it_is() {
        let mut before = Lab::new(GateRole::Leader);
        before.opens(1, 0);
        before.opens(2, 0);
        before.opens(3, 0);
        before.notified_digests();
        let told = before.leaves(0);

        // It is new, as after a restart, and finds the first and the second again.
        let mut lab = Lab::new(GateRole::Standby);
        lab.begins(30, Some(20), told.clone());
        lab.opens(1, 40);
        lab.opens(2, 40);
        lab.opens(4, 40);
        assert_eq!(lab.notified_digests(), [OPENED], "only the fourth is new");
        assert!(lab.leaves(50).is_superset(&told));
        // Another owner joins.
        lab.opens(2, 60);
        assert_eq!(lab.notified_digests(), [OPENED]);
        lab.ends(1, 70);
        let over = (
            NotificationKind::ConflictResolved,
            NotificationKind::ConflictResolved,
        );
        assert_eq!(lab.notified_digests(), [over]);
        lab.opens(1, 80);
        assert_eq!(lab.notified_digests(), [OPENED]);
        // Whoever finds the third so late does not know whether it is the same.
        lab.opens(3, 750);
        assert_eq!(lab.notified_digests(), [OPENED]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_to_the_next_one_is_bounded() {
        let mut lab = Lab::new(GateRole::Leader);
        let drifts: Vec<_> = (0..300).map(|number| drift(&number.to_string())).collect();
        lab.looks(0, &drifts);
        let batch = lab.desk.queue.first(1_000);
        lab.desk.queue.remove_sent(&batch);
        assert_eq!(lab.leaves(0).len(), MAX_DIGESTS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_holder_tells_the_end_of_what_the_one_before_told() {
        let mut lab = Lab::new(GateRole::Standby);
        lab.opens(1, 0);
        let mut before = Lab::new(GateRole::Leader);
        before.opens(1, 0);
        before.notified_digests();
        lab.begins(3_600, Some(3_590), before.leaves(10));
        assert_eq!(lab.notified_digests(), []);
        lab.ends(1, 3_700);
        let end = (
            NotificationKind::ConflictResolved,
            NotificationKind::ConflictResolved,
        );
        assert_eq!(lab.notified_digests(), [end]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_on_is_told_by_who_took_it_on() {
        let mut lab = Lab::new(GateRole::Leader);
        lab.opens(1, 0);
        lab.desk.end();
        lab.opens(2, 2);
        assert_eq!(
            lab.notified_digests(),
            [(NotificationKind::Conflict, NotificationKind::Conflict)]
        );
        // It comes back before the time is over: then it may be that nobody told the second.
        lab.begins(20, Some(1), BTreeSet::new());
        assert_eq!(
            lab.notified_digests(),
            [(NotificationKind::Conflict, NotificationKind::Conflict)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_api_server_is_away_the_last_holder_tells() {
        let mut lab = Lab::new(GateRole::Leader);
        lab.desk.end();
        lab.opens(1, 20);
        lab.tick(79, true);
        assert_eq!(lab.notified_digests(), []);
        assert_eq!(lab.desk.next_deadline(), Some(lab.at(80)));
        lab.tick(80, true);
        let conflict = (NotificationKind::Conflict, NotificationKind::Conflict);
        assert_eq!(lab.notified_digests(), [conflict]);
        // It is back: whoever has the lease now tells.
        lab.opens(2, 100);
        lab.tick(160, false);
        assert_eq!(lab.notified_digests(), []);
        // Away again: another one was the last.
        lab.opens(3, 200);
        lab.tick(260, true);
        assert_eq!(lab.notified_digests(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_held_the_lease_does_not_tell_while_the_api_server_is_away() {
        let mut lab = Lab::new(GateRole::Standby);
        lab.opens(1, 0);
        lab.tick(60, true);
        assert_eq!(lab.notified_digests(), []);
        assert_eq!(lab.desk.next_deadline(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_while_others_tell() {
        let mut lab = Lab::new(GateRole::Standby);
        for number in 0..=u8::MAX {
            for _ in 0..5 {
                lab.opens(number, 0);
            }
        }
        assert_eq!(lab.desk.settling_notifications.len(), CAPACITY);
        let mut lab = Lab::new(GateRole::Standby);
        let many = |lab: &mut Lab, kind, count: u32, second| {
            for number in 0..count {
                let mut record = (*record(1, kind, Severity::Critical)).clone();
                record.ip = std::net::IpAddr::V4(number.into());
                lab.desk.accept_finding(Arc::new(record), lab.at(second));
                lab.tick(second + 60, false);
            }
        };
        many(&mut lab, FindingKind::Conflict, 1_500, 100);
        assert_eq!(lab.desk.past_notifications.len(), CAPACITY);
        assert!(
            lab.desk
                .past_notifications
                .values()
                .all(Notification::is_open)
        );
        many(&mut lab, FindingKind::ConflictResolved, 500, 200);
        assert_eq!(lab.desk.past_notifications.len(), CAPACITY);
        // What is over makes room for what is not.
        lab.opens(77, 300);
        lab.tick(400, false);
        assert_eq!(lab.desk.past_notifications.len(), CAPACITY);
        let open = lab
            .desk
            .past_notifications
            .values()
            .filter(|notification| notification.is_open());
        assert_eq!(open.count(), 501);
    }
}
